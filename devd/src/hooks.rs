//! The hooks that run: scripts here, built-in ones in [`builtin`](crate::builtin).

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use devd_core::{DeviceKey, Hook, HookEnd, HookFailure, Kind, Time, Verb};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use xs_client::{Client, Error};

use crate::builtin::{Builtins, Limiter, Next};
use crate::choice::{Choice, Chooser};
use crate::cli::Options;
use crate::clock::micros_since;
use crate::hook::Script;
use crate::orphans::Orphan;
use crate::output::Output;
use crate::poller::{Poller, Source};
use crate::process::{Exit, Group, Process, Program};

/// A script that runs.
#[derive(Debug)]
struct Running {
    process: Process,
    key: DeviceKey,
    verb: Verb,
    /// `None`: an earlier daemon has started it, and its output is lost.
    output: Option<Output>,
    /// It was told to end; so is whatever it leaves behind.
    stopped: bool,
    since: Instant,
}

/// What was heard of hooks.
#[derive(Debug)]
pub(crate) enum Finished {
    /// The device's hook has ended.
    Hook(DeviceKey, HookEnd),
    /// Something else is done; there may be more.
    Step,
}

/// All hooks that run, at most one a device.
#[derive(Debug)]
pub(crate) struct Hooks {
    chooser: Chooser,
    running: HashMap<Pid, Running>,
    /// What scripts wrote last whose end nobody has asked for yet.
    last_lines: HashMap<DeviceKey, String>,
    builtins: Builtins,
    /// The last run of each device's add hook, until that is told of.
    added: HashMap<DeviceKey, Added>,
    /// Limits the interfaces of scripts, with `--antispoof`.
    limiter: Option<Limiter>,
}

/// A run of an add hook: its name, and when it began.
#[derive(Debug)]
struct Added {
    hook: String,
    since: Instant,
}

impl Hooks {
    pub(crate) fn new(chooser: Chooser, options: &Options, poller: &Poller) -> io::Result<Self> {
        let builtins = Builtins::new(options)?;
        poller.add(builtins.as_fd(), Source::Builtins)?;
        let limits = options.antispoof && !options.dry_run;
        let limiter = if limits { Some(Limiter::new()?) } else { None };
        if let Some(limiter) = &limiter {
            poller.add(limiter.as_fd(), Source::Builtins)?;
        }
        let (running, added, last_lines) = (HashMap::new(), HashMap::new(), HashMap::new());
        Ok(Self { chooser, running, last_lines, builtins, added, limiter })
    }

    /// What would be run.
    pub(crate) fn choose(&self, hook: &Hook<'_>) -> Result<Choice, HookFailure> {
        self.chooser.choose(hook)
    }

    /// Starts the hook.
    ///
    /// # Errors
    ///
    /// The connection is lost. Within: the hook could not be started.
    pub(crate) fn start(
        &mut self,
        hook: &Hook<'_>,
        client: &mut Client,
        poller: &mut Poller,
    ) -> Result<Result<(), HookFailure>, Error> {
        self.last_lines.remove(&hook.key);
        let choice = match self.chooser.choose_and_tell(hook) {
            Ok(choice) => choice,
            Err(failure) => return Ok(Err(failure)),
        };
        if hook.verb == Verb::Add && !hook.tap {
            let name = match &choice {
                Choice::Builtin(builtin) => format!("the built-in {}", builtin.name()),
                Choice::Script(script) => script.path.display().to_string(),
            };
            self.added.insert(hook.key, Added { hook: name, since: Instant::now() });
        }
        match choice {
            Choice::Builtin(builtin) => self.builtins.start(builtin, hook, client),
            Choice::Script(script) => {
                if let Some(limiter) = self.limiter.as_mut().filter(|_| Limiter::concerns(hook)) {
                    let started = limiter.start(hook, script, client, self.builtins.upkeep())?;
                    return Ok(started.map_err(|words| {
                        self.builtins.set_words(hook.key, words);
                        HookFailure::Reported
                    }));
                }
                Ok(self.start_script(hook.key, hook.verb, &script, poller))
            }
        }
    }

    /// By which hook a device was attached, what that has done, and how long it took; nothing if
    /// it ran no hook of this daemon.
    pub(crate) fn take_added(&mut self, key: DeviceKey) -> String {
        let done = self.builtins.take_done(key);
        let Some(Added { hook, since }) = self.added.remove(&key) else { return String::new() };
        let done = done.map(|done| format!(": {done}")).unwrap_or_default();
        format!(" by {hook} in {} ms{done}", since.elapsed().as_millis())
    }

    /// Hears of the next built-in hook that has ended, and starts the next script whose interface
    /// is limited. `None`: there is nothing to be done.
    ///
    /// # Errors
    ///
    /// The connection is lost; the same will be told again.
    pub(crate) fn finish(
        &mut self,
        client: &mut Client,
        poller: &mut Poller,
        now: Time,
    ) -> Result<Option<Finished>, Error> {
        if let Some((key, end)) = self.builtins.finish(client, now)? {
            return Ok(Some(Finished::Hook(key, end)));
        }
        let Some(limiter) = &mut self.limiter else { return Ok(None) };
        let failed = |key, failure| Finished::Hook(key, HookEnd::Failure(failure));
        let next = limiter.finish(client, self.builtins.upkeep(), now)?;
        Ok(next.map(|next| match next {
            Next::Script(key, script) => match self.start_script(key, Verb::Add, &script, poller) {
                Ok(()) => Finished::Step,
                Err(failure) => failed(key, failure),
            },
            Next::Failed(key, words) => {
                self.builtins.set_words(key, words);
                failed(key, HookFailure::Reported)
            }
            Next::Step => Finished::Step,
        }))
    }

    /// A device is gone.
    pub(crate) fn handle_gone(&mut self, key: DeviceKey) {
        self.builtins.handle_gone(key);
        if let Some(limiter) = self.limiter.as_mut().filter(|_| key.kind == Kind::Vif) {
            limiter.handle_gone(key);
        }
    }

    fn start_script(
        &mut self,
        key: DeviceKey,
        verb: Verb,
        script: &Script,
        poller: &mut Poller,
    ) -> Result<(), HookFailure> {
        let spawn = || -> io::Result<(Pid, Output)> {
            let output = Output::new()?;
            let program = Program {
                path: &script.program,
                arguments: &script.arguments,
                environment: &script.environment,
                output: output.theirs(),
                third: Some(output.ours()),
                group: Group::Own,
            };
            Ok((program.start()?, output))
        };
        let (pid, output) = spawn().map_err(|error| {
            log::error!("{key}: cannot start {}: {error}", script.path.display());
            HookFailure::Spawn(error.raw_os_error().unwrap_or(libc::EIO))
        })?;
        if let Err(error) = poller.add(output.ours(), Source::Output(pid)) {
            log::warn!("{key}: the hook's output comes at its end only: {error}");
        }
        log::debug!("{key}: process {pid} runs {}", script.path.display());
        let since = Instant::now();
        let running = Running {
            process: Process::Child { pid, _descriptor: poller.add_child(pid) },
            key,
            verb,
            output: Some(output),
            stopped: false,
            since,
        };
        self.running.insert(pid, running);
        Ok(())
    }

    /// Takes over a hook that an earlier daemon has started. The poller tells of its end.
    pub(crate) fn adopt(&mut self, orphan: Orphan) {
        let running = Running {
            process: Process::Adopted { pid: orphan.pid, descriptor: orphan.process },
            key: orphan.key,
            verb: orphan.verb,
            output: None,
            stopped: false,
            since: Instant::now(),
        };
        self.running.insert(orphan.pid, running);
    }

    /// Asks the device's hook and all it has started to end, or ends them. A built-in hook is
    /// given up: this is its end.
    pub(crate) fn signal(&mut self, key: DeviceKey, signal: Signal) -> Option<HookEnd> {
        for running in self.running.values_mut().filter(|running| running.key == key) {
            running.stopped = true;
            running.process.signal_group(signal);
        }
        if let Some((end, words)) = self.limiter.as_mut().and_then(|it| it.give_up(key)) {
            self.builtins.set_words(key, words);
            return Some(end);
        }
        self.builtins.give_up(key)
    }

    /// The disks are known that an earlier daemon has attached: what their removal will need is
    /// read while it is there.
    pub(crate) fn handle_adopted(&mut self, client: &mut Client) -> Result<(), Error> {
        if self.chooser.builds_in_disks() { self.builtins.read_disks(client) } else { Ok(()) }
    }

    /// A device is served already: what its hook has made is kept as it is, if that is a built-in
    /// one; with `--antispoof` the interface of a script is limited.
    pub(crate) fn handle_served(&mut self, hook: &Hook<'_>) {
        match self.chooser.choose(hook) {
            Ok(Choice::Builtin(builtin)) => self.builtins.handle_adopted(builtin, hook),
            Ok(Choice::Script(_)) => {
                if let Some(limiter) = self.limiter.as_mut().filter(|_| Limiter::concerns(hook)) {
                    limiter.handle_served(hook.key, hook.ioemu);
                }
            }
            Err(_) => {}
        }
    }

    /// The daemon has woken up because a thread has ended.
    pub(crate) fn handle_wake(&self) {
        self.builtins.handle_wake();
        self.limiter.iter().for_each(Limiter::handle_wake);
    }

    /// Keeps what built-in hooks have made, and the rules of `--antispoof`, as they are. `client`: if there is a connection.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub(crate) fn keep(
        &mut self,
        client: Option<&mut Client>,
        poller: &Poller,
        now: Time,
    ) -> Result<(), Error> {
        let add = |fd: BorrowedFd<'_>, channel| poller.add(fd, Source::Upkeep(channel));
        self.builtins.keep(client, now, add)
    }

    /// When [`keep`](Self::keep) is to be called again, if nothing happens before. `connected`:
    /// there is a connection.
    pub(crate) fn keep_timeout(&self, connected: bool) -> Option<Time> {
        self.builtins.keep_timeout(connected)
    }

    /// Is something that a built-in hook has made being checked, or about to be?
    pub(crate) fn is_keeping(&self, now: Time) -> bool {
        self.builtins.is_keeping(now)
    }

    /// The built-in hooks, whose runs end in threads.
    pub(crate) const fn builtins(&mut self) -> &mut Builtins {
        &mut self.builtins
    }

    /// Takes what a hook has written.
    pub(crate) fn handle_output(&mut self, pid: Pid) {
        let Some(running) = self.running.get_mut(&pid) else { return };
        let key = running.key;
        if let Some(output) = &mut running.output
            && !output.take(|line| log::info!("{key}: hook: {line}"))
        {
            output.finish(|line| log::info!("{key}: hook: {line}"));
            running.output = None; // Closed, it leaves the poller.
        }
    }

    /// A process has ended. Was it a hook? Then it is done with: how did it end? `exit` reaps it.
    pub(crate) fn handle_exit(
        &mut self,
        pid: Pid,
        exit: impl FnOnce() -> Exit,
    ) -> Option<(DeviceKey, HookEnd)> {
        let mut running = self.running.remove(&pid)?;
        let key = running.key;
        if running.stopped {
            // What it has started may not have heard the first time.
            running.process.signal_group(Signal::SIGKILL);
        }
        if let Some(output) = &mut running.output {
            output.finish(|line| log::info!("{key}: hook: {line}"));
            self.last_lines.extend(output.last_line().map(|line| (key, line)));
        }
        let end = match exit() {
            Exit::Code(0) => HookEnd::Success,
            Exit::Code(code) => HookEnd::Failure(HookFailure::Exit(code)),
            Exit::Signal(signal) => HookEnd::Failure(HookFailure::Signal(signal)),
            Exit::Unheard => HookEnd::Unknown,
        };
        let hook = match running.verb {
            Verb::Add => "add hook",
            Verb::Remove => "removal hook",
        };
        let how = match end {
            HookEnd::Success => "did well",
            HookEnd::Failure(_) => "failed",
            HookEnd::Unknown => "ended, its exit code went to the daemon that had started it",
        };
        log::debug!("{key}: its {hook} {how}, after {} µs", micros_since(running.since));
        Some((key, end))
    }

    /// The failure of a device's hook, and what the hook wrote last.
    pub(crate) fn explain(&mut self, key: DeviceKey, failure: String) -> String {
        match self.last_lines.remove(&key) {
            Some(line) => format!("{failure}; its last line: \"{line}\""),
            None => failure,
        }
    }

    /// The device is served, or gone: its hook has not failed.
    pub(crate) fn forget_last_line(&mut self, key: DeviceKey) {
        self.last_lines.remove(&key);
    }

    /// The devices whose hooks run.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceKey> {
        let limited = self.limiter.iter().flat_map(Limiter::devices);
        let scripts = self.running.values().map(|running| running.key);
        scripts.chain(limited).chain(self.builtins.devices())
    }
}
