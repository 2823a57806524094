//! What the dispatcher decides, carried out.

use devd_core::{
    Action, DeviceKey, Domid, HookEnd, HookFailure, HotplugStatus, Notice, QemuEvent, QemuFailure,
    Reason, Time,
};
use nix::sys::signal::Signal;
use xs_client::Error;

use super::Daemon;
use crate::choice::Choice;
use crate::executor::ErrorNode;
use crate::{dry_run, executor, qemu};

impl Daemon<'_> {
    pub(super) fn act(&mut self, action: Action, now: Time) -> Result<(), Error> {
        if self.options.dry_run {
            return self.act_dry(action, now);
        }
        let client = &mut self.client;
        match action {
            Action::Observe(key, want) => self.executor.look(key, want),
            Action::RunHook(key) => self.run_hook(key, now)?,
            Action::CheckHook(key) => self.check_hook(key, now),
            Action::StopHook(key) => {
                log::warn!(
                    "{key}: its hook took too long, or its device goes: ending it (SIGTERM)"
                );
                self.end_hook(key, Signal::SIGTERM, now);
            }
            Action::KillHook(key) => {
                log::warn!("{key}: its hook did not end when told to: killing it (SIGKILL)");
                self.end_hook(key, Signal::SIGKILL, now);
            }
            Action::FindQemu(domid) => {
                if let Some(event) = self.qemus.find(client, domid, &self.poller, now)? {
                    self.dispatcher.handle_qemu(domid, event, now);
                }
            }
            Action::StartQemu(domid) => {
                let started = self.qemus.start(client, domid, &mut self.poller, now);
                self.qemu_answered(domid, started, now)?;
            }
            Action::StopQemu(domid) => {
                let stopped = self.qemus.stop(client, domid, now);
                self.qemu_answered(domid, stopped, now)?;
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
                let mut text = said.unwrap_or_else(|| self.surroundings.reason(reason, script));
                let writer = match reason {
                    Reason::Hook(_) => {
                        text = self.hooks.explain(key, text);
                        ErrorNode::Hook
                    }
                    Reason::NoScript | Reason::NoType => ErrorNode::Hook,
                    Reason::Qemu(_) | Reason::Lost => {
                        text = self.qemus.explain(key.domid, text);
                        self.qemus.set_reported(key);
                        ErrorNode::Daemon
                    }
                };
                let next = self.next_try(key, reason);
                let written = executor::fail(&mut self.client, key, &text, writer, &next);
                self.marked(key, HotplugStatus::Refused, written, now)?;
            }
            Action::Close(key) => executor::close(client, key)?,
            Action::Rewind(key) => self.qemus.rewind(client, key)?,
            Action::Remove(key) => self.removals.add(key),
            Action::ForgetGuest(domid) => self.qemus.forget(client, domid, now)?,
            Action::Report(key, notice) => {
                if matches!(notice, Notice::Attached | Notice::Adopted)
                    && self.qemus.take_reported(key)
                {
                    executor::remove_error(client, key)?;
                }
                self.report(key, notice);
            }
        }
        Ok(())
    }

    /// Says what would be done instead of doing it; looks only.
    fn act_dry(&mut self, action: Action, now: Time) -> Result<(), Error> {
        match action {
            Action::Observe(key, want) => self.executor.look(key, want),
            Action::FindQemu(domid) => {
                let runs = self.qemus.runs(domid);
                let event = if runs { QemuEvent::Ready } else { QemuEvent::Absent };
                self.dispatcher.handle_qemu(domid, event, now);
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
            Action::CheckHook(key) => self.check_hook(key, now),
            Action::Fail(key, reason) => {
                let script = self.dispatcher.script(key).unwrap_or_default();
                dry_run::say_failure(key, &self.surroundings.reason(reason, script));
                // Without its mark in the store the device would look like another one.
                self.dispatcher.handle_mark_refused(key, HotplugStatus::Refused, now);
            }
            Action::StartQemu(domid) => dry_run::say_qemu(domid, self.qemus.path()),
            Action::Report(key, notice) => self.report(key, notice),
            Action::StopHook(_)
            | Action::KillHook(_)
            | Action::StopQemu(_)
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

    /// Is the program there by now that the hook of a failed device lacked?
    fn check_hook(&mut self, key: DeviceKey, now: Time) {
        let hook = self.dispatcher.hook(key);
        if let Some(found) = hook.map(|hook| self.hooks.choose(&hook).map(drop)) {
            if found.is_err() {
                log::debug!("{key}: its hook cannot be started yet; looking for it again later");
            }
            self.dispatcher.handle_hook_check(key, found, now);
        }
    }

    fn end_hook(&mut self, key: DeviceKey, signal: Signal, now: Time) {
        if let Some(end) = self.hooks.signal(key, signal) {
            self.dispatcher.handle_hook_end(key, end, now);
        }
    }

    /// Passes on what is known at once of a guest's QEMU.
    fn qemu_answered(
        &mut self,
        domid: Domid,
        answer: Result<Option<QemuEvent>, Error>,
        now: Time,
    ) -> Result<(), Error> {
        let (event, result) = match answer {
            Ok(event) => (event, Ok(())),
            Err(error) => {
                log::error!("guest {domid}: cannot start or end its QEMU: {error}; will try again");
                let failure = error.refusal().map_or(QemuFailure::Store(libc::EIO), qemu::refused);
                let result = if error.ends_connection() { Err(error) } else { Ok(()) };
                (Some(QemuEvent::Failed(failure)), result)
            }
        };
        if let Some(event) = event {
            self.dispatcher.handle_qemu(domid, event, now);
        }
        result
    }
}
