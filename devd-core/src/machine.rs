//! The life of a device: the effect of each status, hook exit and deadline in each phase.
//!
//! `docs/design.md` has the same as a table.

use core::time::Duration;

use crate::device::{Device, HookHistory, ObservationState};
use crate::dispatcher::Dispatcher;
use crate::pace::Pace;
use crate::status::DeviceStatus;
use crate::timer::Owner;
use crate::{
    Action, HookEnd, HookFailure, HotplugStatus, Node, Notice, Phase, Reason, Remedy, Run,
    ServedBy, Time, Verb, Want,
};

/// How often the start of a removal hook is tried again when the system refuses it.
const REMOVAL_STARTS: u8 = 4;

// Statuses from observations.
impl Dispatcher {
    pub(crate) fn handle_status(&mut self, index: u32, status: DeviceStatus, now: Time) {
        self.adopt_unknown(index, status);
        let device = self.registry.device(index);
        let Device { key, phase, hook_history, device_gone, hotplug, .. } = *device;
        let (server, lacks, unconfirmed_mark) =
            (key.kind.served_by(), device.lacks(), device.unconfirmed_mark.is_some());
        let mark_vanished = device.mark_vanished(HotplugStatus::Silent);
        match (phase, status) {
            (Phase::Waiting, DeviceStatus::Gone) => self.leave(index, true, now),
            // A hook may already have run under this key, yet `state` is 1: this is a new device.
            (Phase::Waiting, DeviceStatus::Early) if hook_history.may_have_run() => {
                self.replace(index, status, now);
            }
            (
                Phase::Waiting | Phase::Attaching(Run::Queued),
                DeviceStatus::Ready { hotplug: HotplugStatus::Silent, .. },
            ) if mark_vanished => self.replace(index, status, now),
            (Phase::Failed(reason), DeviceStatus::Ready { hotplug: HotplugStatus::Silent, .. })
                if mark_vanished
                    && matches!(reason.remedy(), Remedy::Node(_) | Remedy::Program) =>
            {
                self.replace(index, status, now);
            }
            (Phase::Waiting, DeviceStatus::Early | DeviceStatus::Ready { .. }) => {
                self.begin(index, status, now)
            }
            (Phase::Waiting, DeviceStatus::Closing) => match lacks {
                _ if !device.has_hook() => self.see_to_close(index, now),
                // netback closes an interface without a script.
                Some(reason) => self.fail(index, reason, now),
                // `script` has come since, but netback may already have closed the device for its
                // lack: a device that does not reach InitWait is reported.
                None if hotplug == HotplugStatus::Silent => self.expect_backend(index, now),
                None => {}
            },
            // Only the QEMU that closed the device opens it again.
            (Phase::Waiting, DeviceStatus::Reopening) => {
                if server == ServedBy::Qemu {
                    self.adopt_served(index, true, now);
                }
            }
            (Phase::Waiting, DeviceStatus::Closed) => self.leave(index, false, now),

            // The hook is still queued, but an earlier attempt may need undoing.
            (Phase::Attaching(Run::Queued), DeviceStatus::Gone) => self.leave(index, true, now),
            (Phase::Attaching(Run::Queued), DeviceStatus::Closed) => self.leave(index, false, now),
            (Phase::Attaching(Run::Queued), DeviceStatus::Early) => {
                self.replace(index, status, now)
            }
            (Phase::Attaching(Run::Queued), DeviceStatus::Ready { .. }) => {
                if let Some(reason) = lacks {
                    self.unqueue(index);
                    self.fail(index, reason, now);
                }
            }
            (
                Phase::Attaching(Run::Running | Run::Stopping),
                DeviceStatus::Gone | DeviceStatus::Closed,
            ) => self.hurry(index, self.settings.hurry, now),
            // Hooks never start in state 1, so the running hook belongs to the predecessor. Stop it
            // before it marks the new device.
            (Phase::Attaching(Run::Running | Run::Stopping), DeviceStatus::Early) => {
                self.hurry(index, Duration::ZERO, now);
            }
            (Phase::Attaching(Run::Ended), DeviceStatus::Gone) => self.leave(index, true, now),
            (Phase::Attaching(Run::Ended), DeviceStatus::Closed) => self.leave(index, false, now),
            (Phase::Attaching(Run::Ended), DeviceStatus::Early) => self.replace(index, status, now),
            (
                Phase::Attaching(Run::Ended),
                DeviceStatus::Ready { .. } | DeviceStatus::Closing | DeviceStatus::Reopening,
            ) if device_gone => self.replace(index, status, now),
            (Phase::Attaching(Run::Ended), DeviceStatus::Ready { connected, hotplug }) => {
                self.judge(index, connected, hotplug, now);
            }
            (Phase::Attaching(Run::Ended), DeviceStatus::Reopening) => {
                self.judge(index, false, hotplug, now);
            }
            // The device is closing whatever the hook did: treat the device as served, so that
            // Closed runs the removal hook.
            (Phase::Attaching(Run::Ended), DeviceStatus::Closing) => {
                self.attached(index, Notice::Attached);
            }
            (
                Phase::Attaching(Run::Queued | Run::Running | Run::Stopping),
                DeviceStatus::Closing | DeviceStatus::Reopening,
            )
            | (Phase::Attaching(Run::Running | Run::Stopping), DeviceStatus::Ready { .. }) => {}

            (Phase::AwaitingQemu, DeviceStatus::Gone) => self.leave(index, true, now),
            (Phase::AwaitingQemu, DeviceStatus::Early) => {
                self.registry.device_mut(index).unconfirmed_mark = None
            }
            (Phase::AwaitingQemu, DeviceStatus::Ready { .. } | DeviceStatus::Reopening) => {}
            (Phase::AwaitingQemu, DeviceStatus::Closing) => self.see_to_close(index, now),
            (Phase::AwaitingQemu, DeviceStatus::Closed) => self.leave(index, false, now),

            (Phase::Attached, DeviceStatus::Gone) => self.leave(index, true, now),
            (Phase::Attached, DeviceStatus::Early | DeviceStatus::Ready { .. })
                if self.is_replaced(index, status) =>
            {
                self.replace(index, status, now);
            }
            (
                Phase::Attached,
                DeviceStatus::Early | DeviceStatus::Ready { .. } | DeviceStatus::Reopening,
            ) => {
                self.mark_again(index);
            }
            (Phase::Attached, DeviceStatus::Closing) => self.see_to_close(index, now),
            (Phase::Attached, DeviceStatus::Closed) => self.leave(index, false, now),

            (Phase::Detaching(Run::Ended), DeviceStatus::Gone) => self.forget(index, now),
            (Phase::Detaching(Run::Ended), DeviceStatus::Closed) => self.linger(index, now),
            (
                Phase::Detaching(Run::Ended),
                DeviceStatus::Early
                | DeviceStatus::Ready { .. }
                | DeviceStatus::Closing
                | DeviceStatus::Reopening,
            ) => self.begin_anew(index, status, now),
            // The removal hook runs to its end; the device is observed again then.
            (Phase::Detaching(Run::Queued | Run::Running | Run::Stopping), _) => {}

            (Phase::Lingering, DeviceStatus::Gone) => self.forget(index, now),
            // The device may have closed a second time: the toolstack's time to read `state` starts
            // again.
            (Phase::Lingering, DeviceStatus::Closed) => self.linger_anew(index, now),
            (
                Phase::Lingering,
                DeviceStatus::Early
                | DeviceStatus::Ready { .. }
                | DeviceStatus::Closing
                | DeviceStatus::Reopening,
            ) => self.begin_anew(index, status, now),

            // `handle_removal` decides when the removal has ended.
            (Phase::Removing, _) => {}

            (Phase::Failed(_), DeviceStatus::Gone) => self.leave(index, true, now),
            // The QEMU never started, so the backend stays in state 1: the device is the same.
            (Phase::Failed(Reason::Qemu(_)), DeviceStatus::Early) => {}
            (Phase::Failed(_), DeviceStatus::Early) => self.replace(index, status, now),
            (Phase::Failed(reason), DeviceStatus::Ready { connected, hotplug }) => match reason {
                Reason::NoScript | Reason::NoType => self.begin(index, status, now),
                Reason::Hook(_) if hotplug == HotplugStatus::Connected && !unconfirmed_mark => {
                    self.attached(index, Notice::Adopted);
                }
                Reason::Hook(failure) => {
                    self.failed_hook_seen(index, failure, connected, hotplug, now);
                }
                // The device is not connected any more, or a running QEMU serves it: this is a new
                // device.
                Reason::Lost if !connected || self.is_taken_up(index) => {
                    self.begin_anew(index, status, now);
                }
                // The store refused the `error` mark: write the mark again.
                Reason::Lost if unconfirmed_mark => self.fail(index, reason, now),
                Reason::Qemu(_) | Reason::Lost => {}
            },
            (Phase::Failed(_), DeviceStatus::Closing) => self.see_to_close(index, now),
            (Phase::Failed(Reason::Lost), DeviceStatus::Reopening) if unconfirmed_mark => {
                self.fail(index, Reason::Lost, now);
            }
            (Phase::Failed(_), DeviceStatus::Reopening) => {}
            (Phase::Failed(_), DeviceStatus::Closed) => self.leave(index, false, now),
        }
    }

    /// Decides at the first observation whether an earlier daemon may have run the add hook.
    fn adopt_unknown(&mut self, index: u32, status: DeviceStatus) {
        let device = self.registry.device_mut(index);
        if device.hook_history != HookHistory::Unknown
            || status == DeviceStatus::Gone && device.hook.is_none()
        {
            return;
        }
        let hook_history = match (status, device.key.kind.served_by()) {
            (DeviceStatus::Early, _) => false,
            (DeviceStatus::Ready { hotplug, .. }, _) => hotplug != HotplugStatus::Silent,
            // An earlier, incomplete observation found the device; then the device vanished.
            (DeviceStatus::Gone, ServedBy::NetworkHook) if device.found_by_listing => true,
            (DeviceStatus::Gone, _) => device.hotplug != HotplugStatus::Silent,
            // The kernel has removed `hotplug-status`, so assume that a hook ran: a removal hook
            // too many does no harm.
            (_, ServedBy::NetworkHook) => true,
            (_, ServedBy::BlockHook) => device.hotplug != HotplugStatus::Silent,
            (_, ServedBy::Qemu | ServedBy::Elsewhere) => false,
        };
        device.hook_history = if hook_history { HookHistory::Yes } else { HookHistory::No };
        device.marked = device.hotplug != HotplugStatus::Silent;
        self.report(index, Notice::Found);
    }

    /// Starts serving a device that the toolstack wants.
    fn begin(&mut self, index: u32, status: DeviceStatus, now: Time) {
        let server = self.registry.device(index).key.kind.served_by();
        match (server, status) {
            (
                ServedBy::NetworkHook | ServedBy::BlockHook,
                DeviceStatus::Ready { connected, hotplug },
            ) => {
                self.begin_hook(index, connected, hotplug, now);
            }
            (ServedBy::NetworkHook | ServedBy::BlockHook, _) => {
                self.registry.device_mut(index).phase = Phase::Waiting;
                self.expect_backend(index, now);
            }
            (ServedBy::Qemu, DeviceStatus::Ready { connected, .. }) => {
                self.adopt_served(index, connected, now);
            }
            (ServedBy::Qemu, _) => self.want_qemu(index, Notice::Attached, now),
            (ServedBy::Elsewhere, _) => self.registry.device_mut(index).phase = Phase::Attached,
        }
    }

    /// Sets the deadline after which a device whose backend is not ready is reported.
    fn expect_backend(&mut self, index: u32, now: Time) {
        let device = self.registry.device(index);
        if device.timer.is_none() && !device.late_reported {
            self.set_timer(Owner::Device(index), now, self.settings.init_timeout);
        }
    }

    /// Queues the add hook, unless the hook has already done its work.
    fn begin_hook(&mut self, index: u32, connected: bool, hotplug: HotplugStatus, now: Time) {
        let device = self.registry.device_mut(index);
        let network = device.key.kind.served_by() == ServedBy::NetworkHook;
        if hotplug == HotplugStatus::Connected && device.unconfirmed_mark.is_none() {
            device.hook_history = HookHistory::Yes;
            self.attached(index, Notice::Adopted);
        } else if connected && !network {
            // blkback connects only after a hook wrote `physical-device`, so the hook has run.
            device.hook_history = HookHistory::Yes;
            let key = device.key;
            self.act(Action::MarkConnected(key));
            self.attached(index, Notice::Adopted);
        } else if let Some(reason) = device.lacks() {
            self.fail(index, reason, now);
        } else {
            self.queue_hook(index, Verb::Add, now);
        }
    }

    /// Retries a device whose hook could not be started, once the node that stopped the start has a
    /// new value. A retry with the same value would only write the same failure again.
    fn failed_hook_seen(
        &mut self,
        index: u32,
        failure: HookFailure,
        connected: bool,
        hotplug: HotplugStatus,
        now: Time,
    ) {
        let node = match failure.remedy() {
            Remedy::Node(node) => node,
            Remedy::Program => Node::Script,
            Remedy::Time | Remedy::Detach => return,
        };
        let device = self.registry.device(index);
        if device.lacks().is_some() || !device.has_tried(node) {
            self.begin_hook(index, connected, hotplug, now);
        } else if device.unconfirmed_mark.is_some() {
            self.fail(index, Reason::Hook(failure), now);
        } else if node == Node::Gatewaydev && device.timer.is_none() {
            // `gatewaydev` has no event of its own.
            let wait = self.count_failure(index);
            self.set_timer(Owner::Device(index), now, wait);
        }
    }

    /// Another device has this key. The removal hook of the predecessor runs first, if an add hook
    /// may have run.
    fn replace(&mut self, index: u32, status: DeviceStatus, now: Time) {
        let device = self.registry.device_mut(index);
        if !device.calls_for_removal_hook() {
            self.unqueue(index);
            return self.begin_anew(index, status, now);
        }
        if device.observation == ObservationState::Idle {
            device.observation = ObservationState::Deferred;
        }
        self.leave(index, true, now);
        self.tell_of_successor(index);
    }

    /// Another device has this key, and nothing of the predecessor is left to remove.
    fn begin_anew(&mut self, index: u32, status: DeviceStatus, now: Time) {
        self.clear_timer(Owner::Device(index));
        self.report(index, Notice::Replaced);
        let device = self.registry.device_mut(index);
        let key = device.key;
        device.renew();
        // No hook ran for the new device yet, so the predecessor's hook wrote any mark in
        // `hotplug-status`: empty the node, or the mark counts for the new device.
        let spoken = match status {
            DeviceStatus::Ready { hotplug, .. } => hotplug != HotplugStatus::Silent,
            // `hotplug-status` is not read in state 1, so assume that the node has a mark.
            DeviceStatus::Early => true,
            DeviceStatus::Closing
            | DeviceStatus::Reopening
            | DeviceStatus::Gone
            | DeviceStatus::Closed => false,
        };
        if device.has_hook() && spoken {
            self.act(Action::Reset(key));
        }
        match status {
            // The hook's facts must be read again.
            DeviceStatus::Ready { .. } => self.look(index),
            DeviceStatus::Early => self.begin(index, status, now),
            // A waiting device needs other facts to handle these statuses: observe again.
            DeviceStatus::Closing | DeviceStatus::Reopening => self.look(index),
            DeviceStatus::Gone | DeviceStatus::Closed => {}
        }
        self.release_qemu(index, now);
    }

    /// Does this status show that another device replaced the served one?
    fn is_replaced(&self, index: u32, status: DeviceStatus) -> bool {
        let device = self.registry.device(index);
        match status {
            // A hook runs in state 2 or later, and a backend never goes back to state 1.
            DeviceStatus::Early => device.has_hook(),
            DeviceStatus::Ready { connected, hotplug } => {
                let silent = hotplug == HotplugStatus::Silent && device.unconfirmed_mark.is_none();
                device.has_hook() && !connected && silent
            }
            DeviceStatus::Gone
            | DeviceStatus::Closing
            | DeviceStatus::Reopening
            | DeviceStatus::Closed => false,
        }
    }

    pub(crate) fn attached(&mut self, index: u32, notice: Notice) {
        self.clear_timer(Owner::Device(index));
        let device = self.registry.device_mut(index);
        device.phase = Phase::Attached;
        device.failures = 0;
        device.unconfirmed_mark = None;
        self.report(index, notice);
    }

    /// Writes `connected` again, if the store refused the mark before.
    fn mark_again(&mut self, index: u32) {
        let device = self.registry.device_mut(index);
        let key = device.key;
        if device.unconfirmed_mark.take().is_some() {
            self.clear_timer(Owner::Device(index));
            self.act(Action::MarkConnected(key));
        }
    }

    pub(crate) fn fail(&mut self, index: u32, reason: Reason, now: Time) {
        let device = self.registry.device_mut(index);
        if device.phase == Phase::Failed(reason)
            && reason.remedy() != Remedy::Time
            && device.unconfirmed_mark.is_none()
        {
            return; // The cause is the same as before: do not write the failure again.
        }
        let key = device.key;
        (device.marked, device.unconfirmed_mark) = (true, None);
        device.phase = Phase::Failed(reason);
        // An observation made before the error mark is written would look like a replacement:
        // discard the observation.
        device.void_look();
        self.clear_timer(Owner::Device(index));
        match reason {
            // The hook used its whole time limit, and the next run probably will too: wait the
            // longest time.
            Reason::Hook(HookFailure::TimedOut) => {
                self.count_failure(index);
                self.set_timer(Owner::Device(index), now, self.settings.retry_max);
            }
            Reason::Hook(failure) => match failure.remedy() {
                Remedy::Time | Remedy::Program | Remedy::Node(Node::Gatewaydev) => {
                    let wait = self.count_failure(index);
                    self.set_timer(Owner::Device(index), now, wait);
                }
                Remedy::Node(Node::Script | Node::Type) | Remedy::Detach => {}
            },
            // No timer of the device's own: another value of the node starts the next try, or the
            // guest's timer for its QEMU. A lost disk is not tried again.
            Reason::NoScript | Reason::NoType | Reason::Qemu(_) | Reason::Lost => {}
        }
        self.act(Action::Fail(key, reason));
        self.release_qemu(index, now);
    }

    /// The add hook exited well; `hotplug-status` decides whether the device is served.
    fn judge(&mut self, index: u32, connected: bool, hotplug: HotplugStatus, now: Time) {
        let device = self.registry.device(index);
        let network = device.key.kind.served_by() == ServedBy::NetworkHook;
        match hotplug {
            HotplugStatus::Connected => self.attached(index, Notice::Attached),
            HotplugStatus::Refused => self.fail(index, Reason::Hook(HookFailure::Reported), now),
            HotplugStatus::Silent => {
                // netback waits for `connected`; blkback does not.
                if network || device.exit_unknown && !connected {
                    return self.fail(index, Reason::Hook(HookFailure::Silent), now);
                }
                let key = device.key;
                self.act(Action::MarkConnected(key));
                self.attached(index, Notice::Attached);
            }
        }
    }

    /// The device has gone or was replaced while its add hook runs: the hook has this long to end.
    fn hurry(&mut self, index: u32, wait: Duration, now: Time) {
        let device = self.registry.device_mut(index);
        let device_gone = core::mem::replace(&mut device.device_gone, true);
        let runs = device.phase == Phase::Attaching(Run::Running);
        if runs && (!device_gone || wait.is_zero()) {
            self.set_timer(Owner::Device(index), now, wait);
        }
    }

    /// Starts the removal of a device: its backend is closed for good, or its directory has
    /// `vanished`.
    fn leave(&mut self, index: u32, vanished: bool, now: Time) {
        self.clear_timer(Owner::Device(index));
        self.unqueue(index);
        let device = self.registry.device_mut(index);
        let unseen = device.hook_history == HookHistory::Unknown;
        let call_hook = device.calls_for_removal_hook();
        device.vanished = vanished;
        if !vanished {
            device.closed_at.get_or_insert(now);
        }
        if !unseen {
            self.report(index, Notice::Closed);
        }
        if call_hook {
            self.queue_hook(index, Verb::Remove, now);
        } else {
            self.detached(index, now);
        }
    }

    /// The removal hook has ended, or was not called for.
    fn detached(&mut self, index: u32, now: Time) {
        if self.registry.device(index).vanished {
            return self.forget(index, now);
        }
        self.registry.device_mut(index).phase = Phase::Lingering;
        self.linger(index, now);
        self.release_qemu(index, now);
    }

    fn linger(&mut self, index: u32, now: Time) {
        let device = self.registry.device_mut(index);
        device.phase = Phase::Lingering;
        if device.timer.is_none() {
            let wait = self.settings.linger;
            let since = *device.closed_at.get_or_insert(now);
            self.set_timer(Owner::Device(index), since, wait);
        }
    }

    fn linger_anew(&mut self, index: u32, now: Time) {
        self.clear_timer(Owner::Device(index));
        self.registry.device_mut(index).closed_at = None;
        self.linger(index, now);
    }

    /// The device is gone, but another device may have its key: observe the key as unknown.
    pub(crate) fn forget_life(&mut self, index: u32, now: Time) {
        self.report(index, Notice::Gone);
        let device = self.registry.device_mut(index);
        device.renew();
        device.hook_history = HookHistory::Unknown;
        device.failures = 0;
        device.pace = Pace::NONE;
        device.void_look();
        self.look(index);
        self.release_qemu(index, now);
    }

    /// Forgets a device that is gone.
    pub(crate) fn forget(&mut self, index: u32, now: Time) {
        self.clear_timer(Owner::Device(index));
        self.clear_timer(Owner::Observation(index));
        if self.registry.device(index).hook_history != HookHistory::Unknown {
            self.report(index, Notice::Gone);
        }
        let guest = self.registry.device(index).guest;
        // Take the device out of the queue, or its guest's line would lead to a freed index.
        self.queue.remove(index, &mut self.registry);
        self.registry.remove(index);
        self.reconcile_qemu(guest, now);
    }
}

// Hook exits.
impl Dispatcher {
    pub(crate) fn hook_ended(&mut self, index: u32, end: HookEnd, now: Time) {
        let device = self.registry.device_mut(index);
        let more = device.has_second_pass();
        device.exit_unknown |= end == HookEnd::Unknown;
        if device.hook_history == HookHistory::Starting {
            device.hook_history = match end {
                HookEnd::Failure(failure) if failure.is_before_start() => HookHistory::No,
                HookEnd::Failure(_) | HookEnd::Success | HookEnd::Unknown => HookHistory::Yes,
            };
        }
        match (device.phase, end) {
            // The hook worked for the predecessor, so its exit code says nothing about the device
            // that may be there now.
            (Phase::Attaching(Run::Running | Run::Stopping), _) if device.device_gone => {
                self.add_hook_ended(index, now);
            }
            (Phase::Attaching(Run::Running), HookEnd::Success | HookEnd::Unknown) if more => {
                device.tap = true;
                self.run_hook(index, now);
            }
            (
                Phase::Attaching(Run::Running | Run::Stopping),
                HookEnd::Success | HookEnd::Unknown,
            ) => self.add_hook_ended(index, now),
            (Phase::Attaching(Run::Running), HookEnd::Failure(failure)) => {
                self.release_hook(index, now);
                self.fail(index, Reason::Hook(failure), now);
                self.look(index); // The device may have closed meanwhile.
            }
            (Phase::Attaching(Run::Stopping), HookEnd::Failure(failure)) => {
                let failure = if device.timed_out { HookFailure::TimedOut } else { failure };
                self.release_hook(index, now);
                self.fail(index, Reason::Hook(failure), now);
                self.look(index);
            }
            // The removal hook never started, so nothing is cleaned up: retry.
            (Phase::Detaching(Run::Running), HookEnd::Failure(HookFailure::Spawn(_)))
                if !device.tap && device.unstarted < REMOVAL_STARTS =>
            {
                device.unstarted += 1;
                device.phase = Phase::Detaching(Run::Queued);
                let wait = self.settings.back_off(self.settings.retry_first, device.unstarted);
                self.release_hook(index, now);
                self.set_timer(Owner::Device(index), now, wait);
            }
            (Phase::Detaching(Run::Running | Run::Stopping), end) => {
                let timed_out = device.timed_out;
                if let HookEnd::Failure(failure) = end {
                    let failure = if timed_out { HookFailure::TimedOut } else { failure };
                    self.report(index, Notice::RemovalHook(failure));
                }
                if more {
                    self.registry.device_mut(index).tap = true;
                    self.registry.device_mut(index).phase = Phase::Detaching(Run::Running);
                    return self.run_hook(index, now);
                }
                self.release_hook(index, now);
                self.removal_hook_ended(index, now);
            }
            // No hook is running for this device: ignore the exit.
            (
                Phase::Waiting
                | Phase::Attaching(Run::Queued | Run::Ended)
                | Phase::AwaitingQemu
                | Phase::Attached
                | Phase::Detaching(Run::Queued | Run::Ended)
                | Phase::Lingering
                | Phase::Removing
                | Phase::Failed(_),
                _,
            ) => {}
        }
    }

    /// The daemon has looked again for the program that a failed device's hook lacked.
    pub(crate) fn hook_checked(&mut self, index: u32, found: Result<(), HookFailure>, now: Time) {
        let device = self.registry.device_mut(index);
        let Phase::Failed(Reason::Hook(failure)) = device.phase else { return };
        if failure.remedy() != Remedy::Program {
            return;
        }
        match found {
            Ok(()) => {
                device.phase = Phase::Waiting;
                self.look(index);
            }
            Err(same) if same == failure => {
                let wait = self.count_failure(index);
                self.set_timer(Owner::Device(index), now, wait);
            }
            Err(other) => self.fail(index, Reason::Hook(other), now),
        }
    }

    /// The add hook has exited: read its mark in the store.
    fn add_hook_ended(&mut self, index: u32, now: Time) {
        let device = self.registry.device_mut(index);
        device.phase = Phase::Attaching(Run::Ended);
        let all_seen = device.observation == ObservationState::Idle && !device.device_gone;
        device.void_look();
        self.release_hook(index, now);
        if all_seen {
            // If `hotplug-status` is `connected`, the other nodes are unchanged: read only that
            // node.
            self.registry.device_mut(index).found = Want::NONE;
            self.go_on_looking(index, Want::HOTPLUG);
        } else {
            self.look(index);
        }
    }

    fn removal_hook_ended(&mut self, index: u32, now: Time) {
        let device = self.registry.device_mut(index);
        device.phase = Phase::Detaching(Run::Ended);
        device.void_look();
        let key = device.key;
        if key.kind.served_by() == ServedBy::BlockHook && !device.vanished {
            // Remove the mark, or a restarted daemon runs the removal hook again and frees a loop
            // device that another disk uses by then.
            self.act(Action::MarkDetached(key));
        }
        let device = self.registry.device_mut(index);
        // An earlier daemon saw the device closed; another device may have the key now.
        let unseen = !device.vanished && device.closed_at.is_none();
        if device.take_deferred_look() || unseen {
            device.closed_at = None;
            self.look(index);
        } else {
            self.detached(index, now);
        }
    }
}

// Deadlines.
impl Dispatcher {
    pub(crate) fn deadline(&mut self, index: u32, now: Time) {
        let device = self.registry.device_mut(index);
        let key = device.key;
        match device.phase {
            Phase::Waiting => {
                if !device.late_reported
                    && device.has_hook()
                    && device.hook_history != HookHistory::Unknown
                {
                    device.late_reported = true;
                    self.report(index, Notice::Slow);
                }
                self.look(index);
            }
            Phase::Attaching(Run::Running) => {
                device.timed_out = !device.device_gone;
                device.phase = Phase::Attaching(Run::Stopping);
                self.set_timer(Owner::Device(index), now, self.settings.kill_grace);
                self.act(Action::StopHook(key));
            }
            Phase::Detaching(Run::Running) => {
                device.timed_out = true;
                device.phase = Phase::Detaching(Run::Stopping);
                self.set_timer(Owner::Device(index), now, self.settings.kill_grace);
                self.act(Action::StopHook(key));
            }
            Phase::Attaching(Run::Stopping) | Phase::Detaching(Run::Stopping) => {
                // Repeat SIGKILL; wait at least 1 ms, or a zero grace would spin.
                let wait = self.settings.kill_grace.max(Duration::from_millis(1));
                self.set_timer(Owner::Device(index), now, wait);
                self.act(Action::KillHook(key));
            }
            Phase::Lingering => match device.observation {
                ObservationState::Idle => {
                    device.phase = Phase::Removing;
                    self.act(Action::Remove(key));
                }
                // An event came: the observation that is under way decides, and sets the next
                // deadline.
                ObservationState::Asked
                | ObservationState::Begun
                | ObservationState::Stale
                | ObservationState::Void
                | ObservationState::Refused
                | ObservationState::Deferred => {}
            },
            Phase::Failed(Reason::Hook(failure)) => match failure.remedy() {
                Remedy::Time => {
                    device.phase = Phase::Waiting;
                    self.look(index);
                }
                Remedy::Program if device.unconfirmed_mark.is_none() => {
                    self.act(Action::CheckHook(key))
                }
                // The store refused the mark, or `gatewaydev`, which has no event, may have
                // changed.
                Remedy::Program | Remedy::Node(_) | Remedy::Detach => self.look(index),
            },
            Phase::Attaching(Run::Queued) | Phase::Detaching(Run::Queued) => {
                self.enqueue(index, now);
            }
            // The store refused the mark.
            Phase::Attached | Phase::Failed(_) => self.look(index),
            // These phases have no deadline.
            Phase::Attaching(Run::Ended)
            | Phase::AwaitingQemu
            | Phase::Detaching(Run::Ended)
            | Phase::Removing => {}
        }
    }
}
