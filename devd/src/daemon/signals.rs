//! Signals, and processes that end.

use std::time::Duration;

use nix::sys::signal::Signal;
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

impl Daemon<'_> {
    pub(super) fn handle_signals(&mut self) {
        // If there is another, the poller says so again.
        match self.poller.signal() {
            Some(Signal::SIGCHLD) => self.pending.children = true,
            Some(Signal::SIGHUP) => journal::reopen(),
            Some(signal) => self.begin_to_end(signal),
            None => {}
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
            self.dispatcher.handle_service(domid, event, now);
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
