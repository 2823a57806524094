//! The event loop: one thread, which waits for the store, for signals, for the earliest
//! deadline and for what hooks write, and never for one device.
//!
//! [`start`] prepares it, [`turn`] is one turn of it, [`action`] carries out what the dispatcher
//! decides, [`report`] tells of it, [`connection`] keeps the connection to the store, and
//! [`signals`] hears of signals and of processes that end.

mod action;
mod connection;
mod report;
mod signals;
mod start;
mod turn;

use std::collections::HashSet;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use devd_core::{Dispatcher, Phase, Time};
use xs_client::Client;

use crate::cli::{EXIT_FAILURE, Options};
use crate::clock::Clock;
use crate::executor::Executor;
use crate::hooks::Hooks;
use crate::pidfile::PidFile;
use crate::poller::{Poller, Source};
use crate::qemu::Qemus;
use crate::readiness::Readiness;
use crate::removal::Removals;
use crate::store_lock::StoreLock;
use crate::words::Surroundings;

use start::{StartError, patiently};

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
    /// The first look at all devices is done.
    ready: bool,
    /// What the store has said and the dispatcher has not heard.
    news: News,
    /// `None` while there is a connection; else when to try again, and the wait after that.
    reconnect: Option<(Time, Duration)>,
    /// When to list all again, and the wait after that.
    relist: Option<(Time, Duration)>,
    /// Set when the daemon was told to end: it ends by then.
    ending: Option<Time>,
    _pidfile: Option<PidFile>,
    /// `None` in a dry run.
    _store_lock: Option<StoreLock>,
}

#[derive(Debug, Default)]
struct News {
    /// Events were lost.
    resync: bool,
    /// Something happened under `device-model`.
    qemu: bool,
    /// A run of a built-in hook has ended.
    builtins: bool,
}

impl Daemon<'_> {
    fn run(&mut self) -> Result<ExitCode, StartError> {
        let mut ready = Vec::new();
        loop {
            let now = self.clock.now();
            self.work(now);
            if !self.ready && self.reconnect.is_none() {
                self.ready = true;
                if let Err(error) = self.hooks.handle_adopted(&mut self.client) {
                    self.disconnected(&error);
                }
                log::info!("ready, {} devices", self.dispatcher.devices().count());
                self.readiness.ready();
            }
            if let Some(code) = self.end(now) {
                self.hooks.builtins().handle_end();
                return Ok(code);
            }
            self.wait(&mut ready)
                .map_err(|error| StartError::system("wait for what happens", error))?;
            for source in ready.drain(..) {
                match source {
                    Source::Store => self.receive(),
                    Source::Signals => self.handle_signals(),
                    Source::Builtins => self.news.builtins = true,
                    Source::Output(pid) => self.hooks.handle_output(pid),
                    Source::Process(pid) => self.handle_exit(pid),
                }
            }
        }
    }

    fn wait(&mut self, ready: &mut Vec<Source>) -> io::Result<()> {
        patiently(|| self.poller.wait(self.deadline(), self.clock.now(), ready))
    }

    /// Is it time to end?
    fn end(&self, now: Time) -> Option<ExitCode> {
        if let Some(deadline) = self.ending
            && (self.dispatcher.running_hooks() == 0 || now >= deadline)
        {
            for key in self.hooks.devices() {
                log::warn!("{key}: its hook goes on by itself");
            }
            return Some(ExitCode::SUCCESS);
        }
        let done = || {
            let settled = self.dispatcher.is_settled() && !self.qemus.is_busy();
            self.options.dry_run || (settled && self.reconnect.is_none())
        };
        if self.options.once && done() {
            let failed = |phase| matches!(phase, Phase::Failed(_));
            let mut any = self.dispatcher.devices().any(|(_, phase)| failed(phase));
            any |= self.relist.is_some();
            return Some(if any { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS });
        }
        None
    }

    fn deadline(&self) -> Option<Time> {
        let reconnect = self.reconnect.map(|(at, _)| at);
        // Without a connection the dispatcher's deadlines have to wait.
        let connected = reconnect.is_none();
        let devices = if connected { self.dispatcher.poll_timeout() } else { None };
        let relist = self.relist.filter(|_| connected).map(|(at, _)| at);
        [devices, reconnect, relist, self.qemus.poll_timeout(), self.ending]
            .into_iter()
            .flatten()
            .min()
    }
}
