//! Signals, and processes that end.

use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use xs_client::Client;

use super::{Daemon, Ending};
use crate::{journal, process};

/// How long hooks may go on after the daemon was told to end. Those that go on longer are
/// left to themselves, and found again by the next daemon.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most children that are reaped in one turn. Any process can give process 1 children that end as
/// fast as they are reaped.
const CHILDREN: usize = 64;

/// Signals that ask the daemon to end.
pub(super) const ENDS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
const MEANINGS: &str = "SIGTERM, SIGINT and SIGQUIT end the daemon, SIGHUP opens the log anew, \
                        SIGUSR1 logs the devices";

/// All signals that would end the process without a word. Faults of the program itself still
/// end it, and a terminal can stop it.
pub(super) fn heard() -> SigSet {
    let mut heard = SigSet::all();
    for left_alone in [
        Signal::SIGCHLD, // The poller adds it where it is needed.
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGABRT,
        Signal::SIGSYS,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGCONT,
        Signal::SIGWINCH,
        Signal::SIGURG,
        Signal::SIGPIPE, // Ignored: a write fails instead.
    ] {
        heard.remove(left_alone);
    }
    heard
}

impl Daemon<'_> {
    pub(super) fn handle_signals(&mut self) {
        // If there is another, the poller says so again.
        let Some(number) = self.poller.signal() else { return };
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => self.pending.children = true,
            Ok(Signal::SIGHUP) => journal::reopen(),
            Ok(Signal::SIGUSR1) => self.log_devices(),
            Ok(signal) if ENDS.contains(&signal) => self.begin_to_end(signal),
            Ok(signal) => log::warn!("{signal}: ignored; {MEANINGS}"),
            // Of real time.
            Err(_) => log::warn!("signal {number}: ignored; {MEANINGS}"),
        }
    }

    /// Some of the children that have ended, of which `SIGCHLD` has told.
    pub(super) fn reap_children(&mut self) {
        for _ in 0..CHILDREN {
            match process::ended() {
                Some(pid) => self.handle_exit(pid),
                None => {
                    self.pending.children = false;
                    break;
                }
            }
        }
    }

    /// A process has ended: a hook, a QEMU, or (for process 1) anybody.
    pub(super) fn handle_exit(&mut self, pid: Pid) {
        let now = self.clock.now();
        let exit = || process::reap(pid);
        if let Some((key, end)) = self.hooks.handle_exit(pid, exit) {
            self.dispatcher.handle_hook_end(key, end, now);
        } else if let Some((domid, event)) =
            self.qemus.handle_exit(&mut self.client, pid, exit, now)
        {
            self.dispatcher.handle_qemu(domid, event, now);
        } else {
            exit();
        }
    }

    fn begin_to_end(&mut self, signal: Signal) {
        if self.ending.is_some() {
            return;
        }
        log::info!("{signal}: ending; devices stay served");
        self.readiness.stopping();
        self.dispatcher.close();
        self.client.set_timeout(Client::INTERRUPTED);
        let deadline = self.clock.now().after(PATIENCE);
        self.ending = Some(Ending { deadline, last_work: None });
    }
}
