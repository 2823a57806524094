//! The event loop: one thread, which waits for the store, for signals, for the earliest
//! deadline and for what hooks write, and never for one device.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use devd_core::{
    Action, BackendPath, DeviceKey, Dispatcher, Domid, HookEnd, HookFailure, HotplugStatus, Notice,
    Phase, ServiceEvent, ServiceFailure, Settings, Time,
};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use xs_client::{Address, Client, Error, Event};

use crate::choice::{Choice, Chooser};
use crate::cli::{EXIT_FAILURE, EXIT_NO_STORE, EXIT_RUNNING, Options};
use crate::clock::Clock;
use crate::executor::{self, Executor};
use crate::hooks::Hooks;
use crate::pidfile::{PidFile, PidFileError};
use crate::poller::{Poller, Source, signal_fd};
use crate::process;
use crate::qemu::{self, Qemus};
use crate::readiness::Readiness;
use crate::removal::Removals;
use crate::words::Surroundings;
use crate::{dry_run, journal, orphans, scan};

/// The directory of all devices, relative to the domain's home, and so are the events.
const BACKEND: &str = "backend";
/// The token of the watch on it: the only one as long as no QEMU is being started.
const TOKEN: &[u8] = b"devd";
/// How long hooks may go on after the daemon was told to end. Those that go on longer are
/// left to themselves, and found again by the next daemon.
const PATIENCE: Duration = Duration::from_secs(5);
/// The waits between tries to get the connection back.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// How often, and after which wait, what the daemon cannot do without is tried.
const TRIES: u32 = 8;
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// The waits before all is listed again when the store has refused a part of it.
const RELIST_FIRST: Duration = Duration::from_secs(1);
const RELIST_MAX: Duration = Duration::from_secs(60);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Running(#[from] PidFileError),
    #[error(transparent)]
    Address(#[from] xs_client::AddressError),
    #[error(transparent)]
    Open(#[from] xs_client::OpenError),
    #[error("the store does not let the daemon watch {BACKEND}: {0}")]
    Watch(Error),
    #[error("cannot {what}: {source}{}", remedy(source))]
    System { what: &'static str, source: io::Error },
}

impl StartError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Running(PidFileError::Held { .. }) => EXIT_RUNNING,
            Self::Address(_) | Self::Open(_) | Self::Watch(_) => EXIT_NO_STORE,
            Self::Running(PidFileError::Io { .. }) | Self::System { .. } => EXIT_FAILURE,
        }
    }

    const fn system(what: &'static str, source: io::Error) -> Self {
        Self::System { what, source }
    }
}

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

impl<'a> Daemon<'a> {
    fn start(options: &'a Options, readiness: Readiness) -> Result<Self, StartError> {
        let pidfile = options.pidfile.as_deref().map(PidFile::take).transpose()?;
        let poller = patiently(|| Poller::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]))
            .map_err(|error| StartError::system("hear of signals", error))?;

        let address = Address::find(options.xenstore.as_deref())?;
        log::info!("devd {}, xenstore at {address}", env!("CARGO_PKG_VERSION"));
        let mut client = Client::open(address)?;
        let ends = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        let interrupt = patiently(|| signal_fd(&ends))
            .map_err(|error| StartError::system("hear of signals", error))?;
        client.set_interrupt(interrupt.into());
        client.watch(BACKEND, TOKEN).map_err(StartError::Watch)?;

        let xenstore = options.xenstore.clone();
        let log_dir = options.log.as_deref().and_then(Path::parent).map(Path::to_owned);
        let log_dir = log_dir.unwrap_or_else(|| PathBuf::from("/var/log/xen"));
        let chooser = Chooser::new(options.hooks, options.script_dirs.clone(), xenstore.clone());
        let hooks = patiently(|| Hooks::new(chooser.clone(), options.antispoof, &poller))
            .map_err(|error| StartError::system("hear of built-in hooks", error))?;
        let mut daemon = Self {
            options,
            clock: Clock::start(),
            dispatcher: Dispatcher::new(settings(options)),
            executor: Executor::default(),
            removals: Removals::default(),
            hooks,
            qemus: Qemus::new(options.qemu.clone(), xenstore, log_dir),
            surroundings: Surroundings {
                hooks: options.hooks,
                script_dirs: options.script_dirs.clone(),
                hook_timeout: options.hook_timeout,
            },
            client,
            poller,
            readiness,
            unknown_kinds: HashSet::new(),
            ready: false,
            news: News { resync: true, ..News::default() },
            reconnect: None,
            relist: None,
            ending: None,
            _pidfile: pidfile,
        };
        patiently(|| daemon.poll_store())
            .map_err(|error| StartError::system("hear of the store", error))?;
        daemon.announce();
        daemon.adopt().map_err(|error| StartError::system("see what runs here", error))?;
        Ok(daemon)
    }

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

    /// Does all that can be done now.
    fn work(&mut self, now: Time) {
        self.news.qemu |= self.qemus.handle_timeout(now);
        if let Some((at, wait)) = self.reconnect {
            if now < at {
                return;
            }
            self.try_reconnect(wait, now);
        }
        // Not all who find that the connection is lost say so; then this does.
        if self.reconnect.is_none()
            && let Err(error) = self.settle().and_then(|()| self.client.check())
        {
            self.disconnected(&error);
        }
    }

    /// Hears the events that have come and carries out what follows, until nothing does.
    fn settle(&mut self) -> Result<(), Error> {
        loop {
            let now = self.clock.now();
            self.hear_events();
            self.news.resync |= self.relist.is_some_and(|(at, _)| at <= now);
            if std::mem::take(&mut self.news.resync) {
                self.list_all()?;
            }
            if std::mem::take(&mut self.news.qemu) {
                let mut happened = Vec::new();
                let result =
                    self.qemus.handle_event(&mut self.client, &mut self.poller, now, &mut happened);
                for (domid, event) in happened {
                    self.dispatcher.handle_service(domid, event, now);
                }
                result?;
            }
            if self.news.builtins {
                // One that could not be written down is told again.
                while let Some((key, end)) = self.hooks.builtins().finish(&mut self.client)? {
                    self.dispatcher.handle_hook_end(key, end, now);
                }
                self.news.builtins = false;
            }
            self.dispatcher.handle_timeout(now);
            let mut acted = false;
            while let Some(action) = self.dispatcher.poll_action() {
                acted = true;
                self.act(action, now)?;
            }
            acted |= self.executor.run(&mut self.client, &mut self.dispatcher, now)?;
            acted |= self.removals.run(&mut self.client, &mut self.dispatcher, now)?;
            // Whatever asks the store something may have brought in events, too.
            if !acted && !self.client.has_event() {
                return Ok(());
            }
        }
    }

    fn hear_events(&mut self) {
        while let Some(event) = self.client.next_event() {
            match event {
                Event::Watch(event) if event.token == qemu::TOKEN => {
                    self.news.qemu |= self.qemus.hear(event.path);
                }
                // All that is there will be listed.
                Event::Watch(_) if self.news.resync => {}
                Event::Watch(event) => {
                    let path = BackendPath::parse(event.path);
                    if let BackendPath::UnknownKind(name) = path
                        && !self.unknown_kinds.contains(name)
                    {
                        tell_unknown_kind(&mut self.unknown_kinds, name);
                    }
                    self.dispatcher.handle_event(path);
                }
                Event::Resync => {
                    self.qemus.hear_all();
                    (self.news.resync, self.news.qemu) = (true, true);
                }
            }
        }
    }

    /// Looks at everything: at the start, and whenever events may have been lost.
    fn list_all(&mut self) -> Result<(), Error> {
        let listing = match scan::list(&mut self.client) {
            Ok(listing) => listing,
            Err(error) => {
                self.news.resync = true;
                return Err(error);
            }
        };
        self.relist = listing.incomplete.then(|| {
            let wait = self.relist.map_or(RELIST_FIRST, |(_, wait)| wait);
            (self.clock.now().after(wait), (wait * 2).min(RELIST_MAX))
        });
        for name in listing.unknown {
            tell_unknown_kind(&mut self.unknown_kinds, name.as_bytes());
        }
        self.dispatcher.handle_resync();
        for key in listing.devices {
            self.dispatcher.look_at(key);
        }
        // A QEMU of which no device is known is ended.
        for domid in listing.libxl.into_iter().filter(|_| !listing.incomplete) {
            self.dispatcher.handle_service_found(domid);
        }
        Ok(())
    }

    fn act(&mut self, action: Action, now: Time) -> Result<(), Error> {
        if self.options.dry_run {
            return self.act_dry(action, now);
        }
        let client = &mut self.client;
        match action {
            Action::Observe(key, want) => self.executor.look(key, want),
            Action::RunHook(key) => self.run_hook(key, now)?,
            Action::StopHook(key) => {
                log::warn!("{key}: ending its hook");
                self.end_hook(key, Signal::SIGTERM, now);
            }
            Action::KillHook(key) => {
                log::warn!("{key}: killing its hook");
                self.end_hook(key, Signal::SIGKILL, now);
            }
            Action::FindService(domid) => {
                if let Some(event) = self.qemus.find(client, domid, &self.poller, now)? {
                    self.dispatcher.handle_service(domid, event, now);
                }
            }
            Action::StartService(domid) => {
                let started = self.qemus.start(client, domid, &mut self.poller, now);
                self.service_answered(domid, started, now)?;
            }
            Action::StopService(domid) => {
                let stopped = self.qemus.stop(client, domid, now);
                self.service_answered(domid, stopped, now)?;
            }
            Action::Reset(key) => {
                let written = executor::reset(client, key);
                self.marked(key, HotplugStatus::Silent, written, now)?;
            }
            Action::MarkConnected(key) => {
                let written = executor::mark_connected(client, key);
                self.marked(key, HotplugStatus::Connected, written, now)?;
            }
            Action::MarkDetached(key) => self.executor.mark_detached(key),
            Action::Fail(key, reason) => {
                let said = self.hooks.builtins().take_words(key);
                let script = self.dispatcher.script(key).unwrap_or_default();
                let text = said.unwrap_or_else(|| self.surroundings.reason(reason, script));
                let written = executor::fail(client, key, &text);
                self.marked(key, HotplugStatus::Refused, written, now)?;
            }
            Action::Close(key) => executor::close(client, key)?,
            Action::Rewind(key) => self.qemus.rewind(client, key)?,
            Action::Remove(key) => self.removals.add(key),
            Action::ForgetGuest(domid) => self.qemus.forget(client, domid, now)?,
            Action::Report(key, notice) => self.report(key, notice),
        }
        Ok(())
    }

    /// Says what would be done instead of doing it; looks only.
    fn act_dry(&mut self, action: Action, now: Time) -> Result<(), Error> {
        match action {
            Action::Observe(key, want) => self.executor.look(key, want),
            Action::FindService(domid) => {
                let runs = self.qemus.runs(&mut self.client, domid)?;
                let event = if runs { ServiceEvent::Ready } else { ServiceEvent::Absent };
                self.dispatcher.handle_service(domid, event, now);
            }
            Action::RunHook(key) => {
                match self.dispatcher.hook(key).map(|hook| self.hooks.choose(&hook)) {
                    Some(Ok(Choice::Script(script))) => dry_run::say_script(key, &script),
                    Some(Ok(Choice::Builtin(builtin))) => dry_run::say_builtin(key, builtin.name()),
                    Some(Err(failure)) => {
                        self.dispatcher.handle_hook_end(key, HookEnd::Failure(failure), now);
                    }
                    None => {}
                }
            }
            Action::Fail(key, reason) => {
                let script = self.dispatcher.script(key).unwrap_or_default();
                dry_run::say_failure(key, &self.surroundings.reason(reason, script));
            }
            Action::StartService(domid) => dry_run::say_qemu(domid, self.qemus.path()),
            Action::Report(key, notice) => self.report(key, notice),
            Action::StopHook(_)
            | Action::KillHook(_)
            | Action::StopService(_)
            | Action::Reset(_)
            | Action::MarkConnected(_)
            | Action::MarkDetached(_)
            | Action::Close(_)
            | Action::Rewind(_)
            | Action::Remove(_)
            | Action::ForgetGuest(_) => dry_run::say(action),
        }
        Ok(())
    }

    /// Tells the dispatcher of a mark that is not, or may not be, in the store.
    fn marked(
        &mut self,
        key: DeviceKey,
        mark: HotplugStatus,
        written: Result<bool, Error>,
        now: Time,
    ) -> Result<(), Error> {
        if !matches!(written, Ok(true)) {
            self.dispatcher.handle_mark_refused(key, mark, now);
        }
        written.map(drop)
    }

    fn run_hook(&mut self, key: DeviceKey, now: Time) -> Result<(), Error> {
        let (started, result) = match self.dispatcher.hook(key) {
            Some(hook) => match self.hooks.start(&hook, &mut self.client, &mut self.poller) {
                Ok(started) => (started, Ok(())),
                Err(error) => (Err(HookFailure::Spawn(libc::EIO)), Err(error)),
            },
            // Nobody will hear of its end otherwise.
            None => (Err(HookFailure::BadName), Ok(())),
        };
        if let Err(failure) = started {
            self.dispatcher.handle_hook_end(key, HookEnd::Failure(failure), now);
        }
        result
    }

    fn end_hook(&mut self, key: DeviceKey, signal: Signal, now: Time) {
        if let Some(end) = self.hooks.signal(key, signal) {
            self.dispatcher.handle_hook_end(key, end, now);
        }
    }

    /// Passes on what is known at once of a guest's QEMU.
    fn service_answered(
        &mut self,
        domid: Domid,
        answer: Result<Option<ServiceEvent>, Error>,
        now: Time,
    ) -> Result<(), Error> {
        let (event, result) = match answer {
            Ok(event) => (event, Ok(())),
            Err(error) => {
                log::error!("guest {domid}: its QEMU: {error}");
                let failure =
                    error.refusal().map_or(ServiceFailure::Store(libc::EIO), qemu::refused);
                let result = if error.ends_connection() { Err(error) } else { Ok(()) };
                (Some(ServiceEvent::Failed(failure)), result)
            }
        };
        if let Some(event) = event {
            self.dispatcher.handle_service(domid, event, now);
        }
        result
    }

    fn report(&mut self, key: DeviceKey, notice: Notice) {
        match notice {
            Notice::Found => {
                if !self.ready {
                    self.hooks.builtins().handle_disk(key); // An earlier daemon's, perhaps.
                }
                log::debug!("{key}: found");
            }
            Notice::Attached => {
                self.hooks.builtins().handle_disk(key);
                log::info!("{key}: attached");
            }
            Notice::Adopted => {
                self.hooks.builtins().handle_disk(key);
                log::info!("{key}: served already");
            }
            Notice::Slow => log::warn!(
                "{key}: its backend is not ready after {} s; still waiting. Is its kernel \
                 module (xen-netback, xen-blkback) loaded? The kernel's log may say more",
                self.options.init_timeout.as_secs()
            ),
            Notice::Closed => log::info!("{key}: closed"),
            Notice::Replaced => log::info!("{key}: another device has taken its place"),
            Notice::RemovalHook(failure) => {
                let said = self.hooks.builtins().take_words(key);
                let script = self.dispatcher.script(key).unwrap_or_default();
                let text = said.unwrap_or_else(|| self.surroundings.hook_failure(failure, script));
                log::warn!("{key}: {text}; the device is removed all the same");
            }
            Notice::RemovalRefused => log::warn!("{key}: will try again to remove it"),
            Notice::Gone => {
                self.hooks.builtins().handle_gone(key);
                log::info!("{key}: gone");
            }
        }
    }
}

// What comes in.
impl Daemon<'_> {
    fn receive(&mut self) {
        if self.reconnect.is_none()
            && let Err(error) = self.client.receive()
        {
            self.disconnected(&error);
        }
    }

    fn handle_signals(&mut self) {
        // If there is another, the poller says so again.
        match self.poller.signal() {
            Some(Signal::SIGCHLD) => {
                while let Some(pid) = process::ended() {
                    self.handle_exit(pid);
                }
            }
            Some(Signal::SIGHUP) => journal::reopen(),
            Some(signal) => self.begin_to_end(signal),
            None => {}
        }
    }

    /// A process has ended: a hook, a QEMU, or (for process 1) anybody.
    fn handle_exit(&mut self, pid: Pid) {
        let now = self.clock.now();
        let exit = || process::reap(pid);
        if let Some((key, end)) = self.hooks.handle_exit(pid, exit) {
            self.dispatcher.handle_hook_end(key, end, now);
        } else if let Some((domid, event)) =
            self.qemus.handle_exit(&mut self.client, pid, exit, now)
        {
            self.dispatcher.handle_service(domid, event, now);
        } else {
            exit();
        }
    }
}

// The connection.
impl Daemon<'_> {
    fn poll_store(&self) -> io::Result<()> {
        match self.client.as_fd() {
            Some(fd) => self.poller.add(fd, Source::Store),
            None => Ok(()),
        }
    }

    fn disconnected(&mut self, error: &Error) {
        if self.reconnect.is_some() {
            return;
        }
        log::error!("{error}; hooks and QEMUs go on, and I try to get it back");
        let now = self.clock.now();
        self.executor.give_up(&mut self.dispatcher, now);
        self.removals.give_up(&mut self.dispatcher, now);
        self.reconnect = Some((now, RECONNECT_FIRST));
    }

    fn try_reconnect(&mut self, wait: Duration, now: Time) {
        let polled = match self.client.reconnect() {
            Ok(()) => self.poll_store().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match polled {
            Ok(()) => {
                log::info!("connected again");
                self.reconnect = None;
                self.news.resync = true;
                self.announce();
            }
            Err(error) => {
                log::debug!("{error}");
                self.reconnect = Some((now.after(wait), (wait * 2).min(RECONNECT_MAX)));
            }
        }
    }

    /// Tells old udev rules to stay out of the way, as libxl does in domain 0.
    fn announce(&mut self) {
        if self.options.dry_run {
            return;
        }
        match self.client.write("libxl/disable_udev", "1") {
            Ok(()) => {}
            Err(error) if error.ends_connection() => self.disconnected(&error),
            Err(error) => log::warn!(
                "cannot write libxl/disable_udev: {error}: network and block devices are \
                 served; for qdisk and 9pfs put driver_domain=1 in this domain's config"
            ),
        }
    }
}

// The beginning and the end.
impl Daemon<'_> {
    /// Takes over what an earlier daemon has left running.
    fn adopt(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let found = patiently(|| orphans::find(self.options.xenstore.as_deref()))?;
        self.qemus.set_found(&found.qemus);
        for orphan in &found.hooks {
            if patiently(|| self.hooks.adopt(orphan, &self.poller))? {
                log::info!("{}: process {} is its hook", orphan.key, orphan.pid);
                self.dispatcher.handle_hook_found(orphan.key, orphan.verb, orphan.tap, now);
            }
        }
        Ok(())
    }

    fn begin_to_end(&mut self, signal: Signal) {
        if self.ending.is_some() {
            return;
        }
        log::info!("{signal}: ending; devices stay served");
        self.readiness.stopping();
        self.dispatcher.close();
        self.client.set_timeout(Client::INTERRUPTED);
        self.ending = Some(self.clock.now().after(PATIENCE));
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

/// Tries a few times what the system refuses, as it may for lack of memory or of files.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(error) => log::error!("the system refuses: {error}; will try again"),
            result => return result,
        }
        std::thread::sleep(TRY_AGAIN);
    }
    attempt()
}

/// What to do about it, where that is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => "; allow more (ulimit -n, LimitNOFILE=)",
        Some(libc::ENOMEM) => "; give this domain more memory",
        _ => "",
    }
}

fn settings(options: &Options) -> Settings {
    Settings {
        init_timeout: options.init_timeout,
        hook_timeout: options.hook_timeout,
        max_hooks: options.max_hooks,
        // Nobody has to wait for what is not done.
        linger: if options.dry_run { Duration::ZERO } else { options.linger },
        ..Settings::default()
    }
}

fn tell_unknown_kind(told: &mut HashSet<Vec<u8>>, name: &[u8]) {
    // Nobody makes that many; the bound is for whoever tries.
    if told.len() < 256 && told.insert(name.to_owned()) {
        log::info!("backend/{}: not a kind of device that is known here", name.escape_ascii());
    }
}
