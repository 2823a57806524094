//! The event loop: one thread, which waits for the store, for signals, for the earliest
//! deadline and for what hooks write, and never for one device.
//!
//! [`start`] prepares it, [`turn`] is one turn of it, whose bounds are in [`budget`], [`action`]
//! carries out what the dispatcher decides, [`report`] tells of it, [`keep`] keeps what built-in
//! hooks have made, [`connection`] keeps the connection to the store, and [`signals`] hears of
//! signals and of processes that end.

mod action;
mod budget;
mod connection;
mod keep;
mod report;
mod signals;
mod start;
mod table;
mod turn;

use std::collections::HashSet;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use devd_core::{Dispatcher, Phase, Time};
use xs_client::Client;

use crate::cli::{EXIT_FAILURE, EXIT_WAITING, Options};
use crate::clock::Clock;
use crate::executor::Executor;
use crate::hooks::Hooks;
use crate::pidfile::PidFile;
use crate::poller::{Poller, Source};
use crate::qemu::Qemus;
use crate::readiness::Readiness;
use crate::removal::Removals;
use crate::scan::Scan;
use crate::store_lock::StoreLock;
use crate::words::Surroundings;

use start::{StartError, retry_os};
use turn::{Pending, Progress};

/// Runs until a signal ends it, or with `--once` until there is nothing to do. The log is
/// open.
pub(crate) fn run(options: &Options, readiness: Readiness) -> ExitCode {
    let daemon = Daemon::start(options, readiness).and_then(|mut daemon| {
        let code = daemon.run()?;
        Ok(code)
    });
    daemon.unwrap_or_else(|error| {
        log::error!("{error}");
        ExitCode::from(error.exit_code())
    })
}

struct Daemon<'a> {
    options: &'a Options,
    clock: Clock,
    client: Client,
    dispatcher: Dispatcher,
    executor: Executor,
    removals: Removals,
    hooks: Hooks,
    qemus: Qemus,
    poller: Poller,
    readiness: Readiness,
    surroundings: Surroundings,
    /// Kinds that mean nothing, of which each is told once.
    unknown_kinds: HashSet<Vec<u8>>,
    stage: Stage,
    /// News that wait for their turn.
    pending: Pending,
    /// The listing of the store that is under way.
    scan: Option<Scan>,
    /// `None` while there is a connection; else when to try again, and the wait after that.
    reconnect: Option<(Time, Duration)>,
    /// When to list all again, and the wait after that.
    relist: Option<(Time, Duration)>,
    /// Set when the daemon was told to end.
    ending: Option<Ending>,
    _pidfile: Option<PidFile>,
    /// `None` in a dry run.
    _store_lock: Option<StoreLock>,
}

/// The daemon was told to end.
#[derive(Clone, Copy, Debug)]
struct Ending {
    /// The daemon ends by then, whether hooks run or not.
    deadline: Time,
    /// No hook runs: the daemon ends when it has done all that follows from their ends, and by then
    /// whether it has or not.
    last_work: Option<Time>,
}

/// The most time for what follows from the end of the last hook: there may be news all the time.
const LAST_WORK: Duration = Duration::from_secs(1);

/// How far the daemon's start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first listing is not done.
    Listing,
    /// The devices that it has found are looked at for the first time.
    Looking { since: Time },
    /// The daemon has said that it is ready.
    Serving,
}

/// After so long the daemon says that it is ready although the first looks go on: a store that
/// has news all the time must not keep it from that.
const READY: Duration = Duration::from_secs(5);

impl Ending {
    fn is_over(&mut self, hook_runs: bool, progress: Progress, now: Time) -> bool {
        if hook_runs {
            self.last_work = None;
            return now >= self.deadline;
        }
        let last_work = *self.last_work.get_or_insert(now.after(LAST_WORK));
        progress == Progress::Resting || now >= last_work.min(self.deadline)
    }
}

impl Daemon<'_> {
    fn run(&mut self) -> Result<ExitCode, StartError> {
        let mut ready = Vec::new();
        loop {
            let now = self.clock.now();
            let progress = self.work(now);
            self.keep_served(now);
            self.begin_to_serve(progress);
            if let Some(code) = self.end(progress, now) {
                self.hooks.builtins().handle_end();
                return Ok(code);
            }
            self.wait(progress, &mut ready)
                .map_err(|error| StartError::system("wait for what happens", error))?;
            self.hear(&ready);
        }
    }

    /// Says that the daemon is ready when the first look at all devices is done.
    fn begin_to_serve(&mut self, progress: Progress) {
        let Stage::Looking { since } = self.stage else { return };
        let late = since.after(READY) <= self.clock.now();
        if self.reconnect.is_some() || progress == Progress::Unfinished && !late {
            return;
        }
        self.stage = Stage::Serving;
        if let Err(error) = self.hooks.handle_adopted(&mut self.client) {
            self.disconnected(&error);
        }
        log::info!("ready, {}", table::count(self.dispatcher.devices().count(), "device"));
        self.readiness.ready();
    }

    fn wait(&mut self, progress: Progress, ready: &mut Vec<Source>) -> io::Result<()> {
        retry_os(|| {
            let now = self.clock.now();
            let deadline = match progress {
                Progress::Resting => self.deadline(),
                Progress::Unfinished => Some(now),
            };
            self.poller.wait(deadline, now, ready)
        })
    }

    /// Hears what has happened. Each source has its bound, and what is left makes its descriptor
    /// ready again.
    fn hear(&mut self, ready: &[Source]) {
        for source in ready {
            match *source {
                Source::Store => self.receive(),
                Source::Signals => self.handle_signals(),
                Source::Builtins => {
                    self.hooks.handle_wake();
                    self.pending.builtins = true;
                }
                Source::Upkeep(channel) => {
                    let now = self.clock.now();
                    self.hooks.builtins().upkeep().handle_events(channel, now);
                }
                Source::Output(pid) => self.hooks.handle_output(pid),
                Source::Process(pid) => self.handle_exit(pid),
                Source::QemuLogs => self.qemus.handle_log_reports(self.clock.now()),
            }
        }
    }

    /// Is it time to end?
    fn end(&mut self, progress: Progress, now: Time) -> Option<ExitCode> {
        let runs = self.dispatcher.running_hooks() > 0;
        if let Some(ending) = &mut self.ending
            && ending.is_over(runs, progress, now)
        {
            for key in self.hooks.devices() {
                log::warn!("{key}: its hook still runs, and is left to the next daemon");
            }
            return Some(ExitCode::SUCCESS);
        }
        let done = || {
            let settled = self.stage == Stage::Serving
                && progress == Progress::Resting
                && self.dispatcher.is_settled()
                && !self.qemus.is_busy()
                && !self.hooks.is_keeping(now);
            (self.options.dry_run && self.stage == Stage::Serving)
                || (settled && self.reconnect.is_none())
        };
        if self.options.once && done() {
            return Some(self.outcome());
        }
        None
    }

    /// The exit code of `--once`.
    fn outcome(&self) -> ExitCode {
        let (mut failed, mut waits) = (self.relist.is_some(), false);
        for (key, phase) in self.dispatcher.devices() {
            failed |= matches!(phase, Phase::Failed(_));
            if phase == Phase::Waiting {
                waits = true;
                log::warn!("{key}: not served: its backend is not ready yet; run devd again later");
            }
        }
        match (failed, waits) {
            (true, _) => ExitCode::from(EXIT_FAILURE),
            (false, true) => ExitCode::from(EXIT_WAITING),
            (false, false) => ExitCode::SUCCESS,
        }
    }

    fn deadline(&self) -> Option<Time> {
        let reconnect = self.reconnect.map(|(at, _)| at);
        // Without a connection the dispatcher's deadlines have to wait.
        let connected = reconnect.is_none();
        let devices = if connected { self.dispatcher.poll_timeout() } else { None };
        let relist = self.relist.filter(|_| connected).map(|(at, _)| at);
        let ending = self.ending.map(|ending| ending.deadline);
        let keep = self.hooks.keep_timeout(connected);
        [devices, reconnect, relist, keep, self.qemus.poll_timeout(), ending]
            .into_iter()
            .flatten()
            .min()
    }
}
