//! The hooks that run.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use devd_core::{DeviceKey, Hook, HookEnd, HookFailure, Verb};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::descriptor;
use crate::hook::Script;
use crate::orphans::Orphan;
use crate::output::Output;
use crate::poller::{Poller, Source};
use crate::process::{self, Exit, Group, Program};

/// A hook that runs.
#[derive(Debug)]
struct Running {
    key: DeviceKey,
    verb: Verb,
    /// `None`: an earlier daemon has started it, and its output is lost.
    output: Option<Output>,
    /// Its end is heard of by this descriptor, if it is not our child.
    _process: Option<OwnedFd>,
    /// It was told to end; so is whatever it leaves behind.
    stopped: bool,
    since: Instant,
}

/// All hooks that run, at most one a device.
#[derive(Debug)]
pub(crate) struct Hooks {
    directories: Vec<PathBuf>,
    /// What hooks are to find the store by, if it was not found by itself.
    xenstore: Option<PathBuf>,
    running: HashMap<Pid, Running>,
}

impl Hooks {
    pub(crate) fn new(directories: Vec<PathBuf>, xenstore: Option<PathBuf>) -> Self {
        Self { directories, xenstore, running: HashMap::new() }
    }

    /// What would be run.
    pub(crate) fn script(&self, hook: &Hook<'_>) -> Result<Script, HookFailure> {
        Script::new(hook, &self.directories, self.xenstore.as_deref())
    }

    /// Starts the hook.
    pub(crate) fn start(&mut self, hook: &Hook<'_>, poller: &Poller) -> Result<(), HookFailure> {
        let script = self.script(hook)?;
        let spawn = || -> io::Result<(Pid, Output)> {
            let (output, theirs) = Output::new()?;
            let program = Program {
                path: &script.program,
                arguments: &script.arguments,
                environment: &script.environment,
                output: &theirs,
                third: None,
                group: Group::Own,
            };
            Ok((program.start()?, output))
        };
        let (pid, output) = spawn().map_err(|error| {
            log::error!("{}: cannot start {}: {error}", hook.key, script.path.display());
            HookFailure::Spawn(error.raw_os_error().unwrap_or(libc::EIO))
        })?;
        if let Err(error) = poller.add(output.pipe(), Source::Output(pid)) {
            log::warn!("{}: the hook's output comes at its end only: {error}", hook.key);
        }
        log::debug!("{}: process {pid} runs {}", hook.key, script.path.display());
        let since = Instant::now();
        let running = Running {
            key: hook.key,
            verb: hook.verb,
            output: Some(output),
            _process: None,
            stopped: false,
            since,
        };
        self.running.insert(pid, running);
        Ok(())
    }

    /// Takes over a hook that an earlier daemon has started. False if it has ended by now.
    pub(crate) fn adopt(&mut self, orphan: &Orphan, poller: &Poller) -> bool {
        let Ok(process) = descriptor::of_process(orphan.pid) else { return false };
        if poller.add(&process, Source::Process(orphan.pid)).is_err() {
            return false;
        }
        let running = Running {
            key: orphan.key,
            verb: orphan.verb,
            output: None,
            _process: Some(process),
            stopped: false,
            since: Instant::now(),
        };
        self.running.insert(orphan.pid, running);
        true
    }

    /// Asks the device's hook and all it has started to end, or ends them.
    pub(crate) fn signal(&mut self, key: DeviceKey, signal: Signal) {
        for (pid, running) in self.running.iter_mut().filter(|(_, running)| running.key == key) {
            running.stopped = true;
            process::signal_group(*pid, signal);
        }
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

    /// A process has ended. Was it a hook? Then it is done with: how did it end? `exit` tells
    /// how the process did, and reaps it; nothing is told of one that is not our child.
    pub(crate) fn handle_exit(
        &mut self,
        pid: Pid,
        exit: impl FnOnce() -> Option<Exit>,
    ) -> Option<(DeviceKey, HookEnd)> {
        let mut running = self.running.remove(&pid)?;
        let key = running.key;
        if running.stopped {
            // What it has started may not have heard the first time.
            process::signal_group(pid, Signal::SIGKILL);
        }
        if let Some(output) = &mut running.output {
            output.finish(|line| log::info!("{key}: hook: {line}"));
        }
        let end = match exit() {
            Some(Exit::Code(0)) => HookEnd::Success,
            Some(Exit::Code(code)) => HookEnd::Failure(HookFailure::Exit(code)),
            Some(Exit::Signal(signal)) => HookEnd::Failure(HookFailure::Signal(signal)),
            None => HookEnd::Unknown,
        };
        let took = running.since.elapsed();
        log::debug!("{key}: the {:?} hook took {took:.1?}: {end:?}", running.verb);
        Some((key, end))
    }

    /// The devices whose hooks run.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceKey> {
        self.running.values().map(|running| running.key)
    }
}
