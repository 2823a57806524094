//! The life of a device: what each sight, hook's end and deadline does in each phase.
//!
//! `docs/design.md` has the same as a table.

use core::time::Duration;

use crate::device::{Device, Look, Touched};
use crate::dispatcher::Dispatcher;
use crate::pace::Pace;
use crate::sight::Sight;
use crate::timer::Owner;
use crate::{
    Action, HookEnd, HookFailure, HotplugStatus, Node, Notice, Phase, Reason, Remedy, Run, Server,
    Time, Verb, Want,
};

/// How often the start of a removal hook is tried again when the system refuses it.
const REMOVAL_STARTS: u8 = 4;

// What is seen.
impl Dispatcher {
    pub(crate) fn seen(&mut self, index: u32, sight: Sight, now: Time) {
        self.learn(index, sight);
        let device = self.registry.device(index);
        let Device { key, phase, touched, hurried, hotplug, .. } = *device;
        let (server, lacks, owed) = (key.kind.server(), device.lacks(), device.owed.is_some());
        let unmarked = device.is_unmarked(HotplugStatus::Silent);
        match (phase, sight) {
            (Phase::Waiting, Sight::Gone) => self.leave(index, true, now),
            // What an earlier try has left behind is not this one's.
            (Phase::Waiting, Sight::Early) if touched.may_have_run() => {
                self.replace(index, sight, now);
            }
            (
                Phase::Waiting | Phase::Attaching(Run::Queued),
                Sight::Ready { hotplug: HotplugStatus::Silent, .. },
            ) if unmarked => self.replace(index, sight, now),
            (Phase::Failed(reason), Sight::Ready { hotplug: HotplugStatus::Silent, .. })
                if unmarked && matches!(reason.remedy(), Remedy::Node(_) | Remedy::Program) =>
            {
                self.replace(index, sight, now);
            }
            (Phase::Waiting, Sight::Early | Sight::Ready { .. }) => self.begin(index, sight, now),
            (Phase::Waiting, Sight::Closing) => match lacks {
                _ if !device.has_hook() => self.see_to_close(index, now),
                // netback itself gives up an interface without a script.
                Some(reason) => self.fail(index, reason, now),
                // It may have given this one up too.
                None if hotplug == HotplugStatus::Silent => self.expect_backend(index, now),
                None => {}
            },
            // Only the QEMU that has closed it will open it again.
            (Phase::Waiting, Sight::Reopening) => {
                if server == Server::Qemu {
                    self.adopt_served(index, true, now);
                }
            }
            (Phase::Waiting, Sight::Closed) => self.leave(index, false, now),

            // It has not run, and an earlier try may have.
            (Phase::Attaching(Run::Queued), Sight::Gone) => self.leave(index, true, now),
            (Phase::Attaching(Run::Queued), Sight::Closed) => self.leave(index, false, now),
            (Phase::Attaching(Run::Queued), Sight::Early) => self.replace(index, sight, now),
            (Phase::Attaching(Run::Queued), Sight::Ready { .. }) => {
                if let Some(reason) = lacks {
                    self.unqueue(index);
                    self.fail(index, reason, now);
                }
            }
            (Phase::Attaching(Run::Running | Run::Stopping), Sight::Gone | Sight::Closed) => {
                self.hurry(index, self.settings.hurry, now)
            }
            // No hook is run so early: this is not the device that it runs for, and must not be
            // told what is meant for that one.
            (Phase::Attaching(Run::Running | Run::Stopping), Sight::Early) => {
                self.hurry(index, Duration::ZERO, now);
            }
            (Phase::Attaching(Run::Ended), Sight::Gone) => self.leave(index, true, now),
            (Phase::Attaching(Run::Ended), Sight::Closed) => self.leave(index, false, now),
            (Phase::Attaching(Run::Ended), Sight::Early) => self.replace(index, sight, now),
            (
                Phase::Attaching(Run::Ended),
                Sight::Ready { .. } | Sight::Closing | Sight::Reopening,
            ) if hurried => self.replace(index, sight, now),
            (Phase::Attaching(Run::Ended), Sight::Ready { connected, hotplug }) => {
                self.judge(index, connected, hotplug, now);
            }
            (Phase::Attaching(Run::Ended), Sight::Reopening) => {
                self.judge(index, false, hotplug, now);
            }
            // The hook was in time, or too late to matter: the rest of the close comes.
            (Phase::Attaching(Run::Ended), Sight::Closing) => {
                self.attached(index, Notice::Attached);
            }
            (
                Phase::Attaching(Run::Queued | Run::Running | Run::Stopping),
                Sight::Closing | Sight::Reopening,
            )
            | (Phase::Attaching(Run::Running | Run::Stopping), Sight::Ready { .. }) => {}

            (Phase::Starting, Sight::Gone) => self.leave(index, true, now),
            (Phase::Starting, Sight::Early) => self.registry.device_mut(index).owed = None,
            (Phase::Starting, Sight::Ready { .. } | Sight::Reopening) => {}
            (Phase::Starting, Sight::Closing) => self.see_to_close(index, now),
            (Phase::Starting, Sight::Closed) => self.leave(index, false, now),

            (Phase::Attached, Sight::Gone) => self.leave(index, true, now),
            (Phase::Attached, Sight::Early | Sight::Ready { .. })
                if self.is_replaced(index, sight) =>
            {
                self.replace(index, sight, now);
            }
            (Phase::Attached, Sight::Early | Sight::Ready { .. } | Sight::Reopening) => {
                self.mark_again(index);
            }
            (Phase::Attached, Sight::Closing) => self.see_to_close(index, now),
            (Phase::Attached, Sight::Closed) => self.leave(index, false, now),

            (Phase::Detaching(Run::Ended), Sight::Gone) => self.forget(index, now),
            (Phase::Detaching(Run::Ended), Sight::Closed) => self.linger(index, now),
            (
                Phase::Detaching(Run::Ended),
                Sight::Early | Sight::Ready { .. } | Sight::Closing | Sight::Reopening,
            ) => self.begin_anew(index, sight, now),
            // It runs to its end; the store is looked at again then.
            (Phase::Detaching(Run::Queued | Run::Running | Run::Stopping), _) => {}

            (Phase::Lingering, Sight::Gone) => self.forget(index, now),
            // Perhaps anew: the toolstack has its time to read it from now on.
            (Phase::Lingering, Sight::Closed) => self.linger_anew(index, now),
            (
                Phase::Lingering,
                Sight::Early | Sight::Ready { .. } | Sight::Closing | Sight::Reopening,
            ) => self.begin_anew(index, sight, now),

            // The removal will tell.
            (Phase::Removing, _) => {}

            (Phase::Failed(_), Sight::Gone) => self.leave(index, true, now),
            // It has always been so early: its QEMU has not come.
            (Phase::Failed(Reason::Service(_)), Sight::Early) => {}
            (Phase::Failed(_), Sight::Early) => self.replace(index, sight, now),
            (Phase::Failed(reason), Sight::Ready { connected, hotplug }) => match reason {
                Reason::NoScript | Reason::NoType => self.begin(index, sight, now),
                Reason::Hook(_) if hotplug == HotplugStatus::Connected && !owed => {
                    self.attached(index, Notice::Adopted);
                }
                Reason::Hook(failure) => {
                    self.failed_hook_seen(index, failure, connected, hotplug, now);
                }
                // Without its QEMU it could not have become like this.
                Reason::Lost if !connected || self.is_taken_up(index) => {
                    self.begin_anew(index, sight, now);
                }
                // The store has refused to say so.
                Reason::Lost if owed => self.fail(index, reason, now),
                Reason::Service(_) | Reason::Lost => {}
            },
            (Phase::Failed(_), Sight::Closing) => self.see_to_close(index, now),
            (Phase::Failed(Reason::Lost), Sight::Reopening) if owed => {
                self.fail(index, Reason::Lost, now);
            }
            (Phase::Failed(_), Sight::Reopening) => {}
            (Phase::Failed(_), Sight::Closed) => self.leave(index, false, now),
        }
    }

    /// At the first look: may an earlier daemon have run the add hook?
    fn learn(&mut self, index: u32, sight: Sight) {
        let device = self.registry.device_mut(index);
        if device.touched != Touched::Unknown || sight == Sight::Gone && device.hook.is_none() {
            return;
        }
        let touched = match (sight, device.key.kind.server()) {
            (Sight::Early, _) => false,
            (Sight::Ready { hotplug, .. }, _) => hotplug != HotplugStatus::Silent,
            // It was there at a look that did not find enough to judge it.
            (Sight::Gone, Server::NetworkHook) if device.listed => true,
            (Sight::Gone, _) => device.hotplug != HotplugStatus::Silent,
            // The kernel has taken `hotplug-status` away; the removal hook does no harm.
            (_, Server::NetworkHook) => true,
            (_, Server::BlockHook) => device.hotplug != HotplugStatus::Silent,
            (_, Server::Qemu | Server::Elsewhere) => false,
        };
        device.touched = if touched { Touched::Yes } else { Touched::No };
        device.marked = device.hotplug != HotplugStatus::Silent;
        self.report(index, Notice::Found);
    }

    /// The device is wanted and not served.
    fn begin(&mut self, index: u32, sight: Sight, now: Time) {
        let server = self.registry.device(index).key.kind.server();
        match (server, sight) {
            (Server::NetworkHook | Server::BlockHook, Sight::Ready { connected, hotplug }) => {
                self.begin_hook(index, connected, hotplug, now);
            }
            (Server::NetworkHook | Server::BlockHook, _) => {
                self.registry.device_mut(index).phase = Phase::Waiting;
                self.expect_backend(index, now);
            }
            (Server::Qemu, Sight::Ready { connected, .. }) => {
                self.adopt_served(index, connected, now);
            }
            (Server::Qemu, _) => self.want_service(index, Notice::Attached, now),
            (Server::Elsewhere, _) => self.registry.device_mut(index).phase = Phase::Attached,
        }
    }

    /// The backend is to become ready in time, or its device is reported.
    fn expect_backend(&mut self, index: u32, now: Time) {
        let device = self.registry.device(index);
        if device.timer.is_none() && !device.slow {
            self.set_timer(Owner::Device(index), now, self.settings.init_timeout);
        }
    }

    /// The backend waits for the hook, unless that has run.
    fn begin_hook(&mut self, index: u32, connected: bool, hotplug: HotplugStatus, now: Time) {
        let device = self.registry.device_mut(index);
        let network = device.key.kind.server() == Server::NetworkHook;
        if hotplug == HotplugStatus::Connected && device.owed.is_none() {
            device.touched = Touched::Yes;
            self.attached(index, Notice::Adopted);
        } else if connected && !network {
            // blkback could not have connected without what a hook has told it.
            device.touched = Touched::Yes;
            let key = device.key;
            self.act(Action::MarkConnected(key));
            self.attached(index, Notice::Adopted);
        } else if let Some(reason) = device.lacks() {
            self.fail(index, reason, now);
        } else {
            self.queue_hook(index, Verb::Add, now);
        }
    }

    /// The backend of a device whose hook has failed still waits. A hook that could not be started
    /// is tried again when the node that it failed for has another value, and not before: each
    /// try would write the failure again.
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
        } else if device.owed.is_some() {
            self.fail(index, Reason::Hook(failure), now);
        } else if node == Node::Gatewaydev && device.timer.is_none() {
            // `gatewaydev` has no event of its own.
            let wait = self.count_failure(index);
            self.set_timer(Owner::Device(index), now, wait);
        }
    }

    /// A device is there with the numbers of the one that was. What the hook of that one has
    /// put in place is taken away first.
    fn replace(&mut self, index: u32, sight: Sight, now: Time) {
        let device = self.registry.device_mut(index);
        if !device.calls_for_removal_hook() {
            self.unqueue(index);
            return self.begin_anew(index, sight, now);
        }
        if device.look == Look::Idle {
            device.look = Look::Deferred;
        }
        self.leave(index, true, now);
        self.tell_of_successor(index);
    }

    /// A device is there with the numbers of the one that was, of which nothing is left.
    fn begin_anew(&mut self, index: u32, sight: Sight, now: Time) {
        self.clear_timer(Owner::Device(index));
        self.report(index, Notice::Replaced);
        let device = self.registry.device_mut(index);
        let key = device.key;
        device.renew();
        // If somebody has spoken already, it was the other one's hook.
        let spoken = match sight {
            Sight::Ready { hotplug, .. } => hotplug != HotplugStatus::Silent,
            // That was not looked up, and will be believed when the backend is ready.
            Sight::Early => true,
            Sight::Closing | Sight::Reopening | Sight::Gone | Sight::Closed => false,
        };
        if device.has_hook() && spoken {
            self.act(Action::Reset(key));
        }
        match sight {
            // What its hook needs must be read again.
            Sight::Ready { .. } => self.look(index),
            Sight::Early => self.begin(index, sight, now),
            // What that means for a device that waits is for another look to say.
            Sight::Closing | Sight::Reopening => self.look(index),
            Sight::Gone | Sight::Closed => {}
        }
        self.release_service(index, now);
    }

    /// Does a served device look as if it had never been?
    fn is_replaced(&self, index: u32, sight: Sight) -> bool {
        let device = self.registry.device(index);
        match sight {
            // Its backend had taken it up when its hook ran: no backend goes back behind that.
            Sight::Early => device.has_hook(),
            Sight::Ready { connected, hotplug } => {
                let silent = hotplug == HotplugStatus::Silent && device.owed.is_none();
                device.has_hook() && !connected && silent
            }
            Sight::Gone | Sight::Closing | Sight::Reopening | Sight::Closed => false,
        }
    }

    pub(crate) fn attached(&mut self, index: u32, notice: Notice) {
        self.clear_timer(Owner::Device(index));
        let device = self.registry.device_mut(index);
        device.phase = Phase::Attached;
        device.failures = 0;
        device.owed = None;
        self.report(index, notice);
    }

    /// Says of a served device what the store has refused to say before.
    fn mark_again(&mut self, index: u32) {
        let device = self.registry.device_mut(index);
        let key = device.key;
        if device.owed.take().is_some() {
            self.clear_timer(Owner::Device(index));
            self.act(Action::MarkConnected(key));
        }
    }

    pub(crate) fn fail(&mut self, index: u32, reason: Reason, now: Time) {
        let device = self.registry.device_mut(index);
        if device.phase == Phase::Failed(reason)
            && reason.remedy() != Remedy::Time
            && device.owed.is_none()
        {
            return; // Looked at again, and nothing has been put right.
        }
        let key = device.key;
        (device.marked, device.owed) = (true, None);
        device.phase = Phase::Failed(reason);
        // What a look finds before the store says so looks like another device.
        device.void_look();
        self.clear_timer(Owner::Device(index));
        match reason {
            // It has taken its time already, and the next will most probably take as long.
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
            // A guest's devices are tried again together.
            Reason::NoScript | Reason::NoType | Reason::Service(_) | Reason::Lost => {}
        }
        self.act(Action::Fail(key, reason));
        self.release_service(index, now);
    }

    /// The add hook ended well: does the store say so too?
    fn judge(&mut self, index: u32, connected: bool, hotplug: HotplugStatus, now: Time) {
        let device = self.registry.device(index);
        let network = device.key.kind.server() == Server::NetworkHook;
        match hotplug {
            HotplugStatus::Connected => self.attached(index, Notice::Attached),
            HotplugStatus::Refused => self.fail(index, Reason::Hook(HookFailure::Reported), now),
            HotplugStatus::Silent => {
                // netback waits for the word; blkback does not.
                if network || device.unsure && !connected {
                    return self.fail(index, Reason::Hook(HookFailure::Silent), now);
                }
                let key = device.key;
                self.act(Action::MarkConnected(key));
                self.attached(index, Notice::Attached);
            }
        }
    }

    /// The device goes while its add hook runs: the hook may go on for so long.
    fn hurry(&mut self, index: u32, wait: Duration, now: Time) {
        let device = self.registry.device_mut(index);
        let hurried = core::mem::replace(&mut device.hurried, true);
        let runs = device.phase == Phase::Attaching(Run::Running);
        if runs && (!hurried || wait.is_zero()) {
            self.set_timer(Owner::Device(index), now, wait);
        }
    }

    /// The device is to be taken away: its directory is closed for good, or has `vanished`.
    fn leave(&mut self, index: u32, vanished: bool, now: Time) {
        self.clear_timer(Owner::Device(index));
        self.unqueue(index);
        let device = self.registry.device_mut(index);
        let unseen = device.touched == Touched::Unknown;
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

    /// Nothing of ours is in place any more.
    fn detached(&mut self, index: u32, now: Time) {
        if self.registry.device(index).vanished {
            return self.forget(index, now);
        }
        self.registry.device_mut(index).phase = Phase::Lingering;
        self.linger(index, now);
        self.release_service(index, now);
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

    /// The device is gone; another of its name may be there.
    pub(crate) fn forget_life(&mut self, index: u32, now: Time) {
        self.report(index, Notice::Gone);
        let device = self.registry.device_mut(index);
        device.renew();
        device.touched = Touched::Unknown;
        device.failures = 0;
        device.pace = Pace::NONE;
        device.void_look();
        self.look(index);
        self.release_service(index, now);
    }

    /// The device is gone.
    pub(crate) fn forget(&mut self, index: u32, now: Time) {
        self.clear_timer(Owner::Device(index));
        self.clear_timer(Owner::Look(index));
        if self.registry.device(index).touched != Touched::Unknown {
            self.report(index, Notice::Gone);
        }
        let guest = self.registry.device(index).guest;
        // No line may lead to a device that is not there.
        self.queue.remove(index, &mut self.registry);
        self.registry.remove(index);
        self.reconcile_service(guest, now);
    }
}

// How hooks end.
impl Dispatcher {
    pub(crate) fn hook_ended(&mut self, index: u32, end: HookEnd, now: Time) {
        let device = self.registry.device_mut(index);
        let more = device.has_second_pass();
        device.unsure |= end == HookEnd::Unknown;
        if device.touched == Touched::Starting {
            device.touched = match end {
                HookEnd::Failure(failure) if failure.is_before_start() => Touched::No,
                HookEnd::Failure(_) | HookEnd::Success | HookEnd::Unknown => Touched::Yes,
            };
        }
        match (device.phase, end) {
            // However it ended, what it did was not for the device that may be there now.
            (Phase::Attaching(Run::Running | Run::Stopping), _) if device.hurried => {
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
                self.look(index); // It may have been closed meanwhile.
            }
            (Phase::Attaching(Run::Stopping), HookEnd::Failure(failure)) => {
                let failure = if device.overdue { HookFailure::TimedOut } else { failure };
                self.release_hook(index, now);
                self.fail(index, Reason::Hook(failure), now);
                self.look(index);
            }
            // What only it can take away would stay for good.
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
                let overdue = device.overdue;
                if let HookEnd::Failure(failure) = end {
                    let failure = if overdue { HookFailure::TimedOut } else { failure };
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
            // Not a hook that this device is known to run.
            (
                Phase::Waiting
                | Phase::Attaching(Run::Queued | Run::Ended)
                | Phase::Starting
                | Phase::Attached
                | Phase::Detaching(Run::Queued | Run::Ended)
                | Phase::Lingering
                | Phase::Removing
                | Phase::Failed(_),
                _,
            ) => {}
        }
    }

    /// The hook of a device that failed for want of a program was looked for.
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

    /// What it led to is in the store.
    fn add_hook_ended(&mut self, index: u32, now: Time) {
        let device = self.registry.device_mut(index);
        device.phase = Phase::Attaching(Run::Ended);
        let all_seen = device.look == Look::Idle && !device.hurried;
        device.void_look();
        self.release_hook(index, now);
        if all_seen {
            // If it says so, the rest is as it was at the last look.
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
        if key.kind.server() == Server::BlockHook && !device.vanished {
            // Run again after a restart, it would free a loop device that is another's by then.
            self.act(Action::MarkDetached(key));
        }
        let device = self.registry.device_mut(index);
        // An earlier daemon had seen it closed; what is there now may be another.
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
                if !device.slow && device.has_hook() && device.touched != Touched::Unknown {
                    device.slow = true;
                    self.report(index, Notice::Slow);
                }
                self.look(index);
            }
            Phase::Attaching(Run::Running) => {
                device.overdue = !device.hurried;
                device.phase = Phase::Attaching(Run::Stopping);
                self.set_timer(Owner::Device(index), now, self.settings.kill_grace);
                self.act(Action::StopHook(key));
            }
            Phase::Detaching(Run::Running) => {
                device.overdue = true;
                device.phase = Phase::Detaching(Run::Stopping);
                self.set_timer(Owner::Device(index), now, self.settings.kill_grace);
                self.act(Action::StopHook(key));
            }
            Phase::Attaching(Run::Stopping) | Phase::Detaching(Run::Stopping) => {
                // Once more if that does not help, but not in this very moment.
                let wait = self.settings.kill_grace.max(Duration::from_millis(1));
                self.set_timer(Owner::Device(index), now, wait);
                self.act(Action::KillHook(key));
            }
            Phase::Lingering => match device.look {
                Look::Idle => {
                    device.phase = Phase::Removing;
                    self.act(Action::Remove(key));
                }
                // Something has happened. What the look finds sets another deadline.
                Look::Asked
                | Look::Begun
                | Look::Stale
                | Look::Void
                | Look::Refused
                | Look::Deferred => {}
            },
            Phase::Failed(Reason::Hook(failure)) => match failure.remedy() {
                Remedy::Time => {
                    device.phase = Phase::Waiting;
                    self.look(index);
                }
                Remedy::Program if device.owed.is_none() => self.act(Action::CheckHook(key)),
                // The store had refused the mark, or `gatewaydev` may have changed.
                Remedy::Program | Remedy::Node(_) | Remedy::Detach => self.look(index),
            },
            Phase::Attaching(Run::Queued) | Phase::Detaching(Run::Queued) => {
                self.enqueue(index, now);
            }
            // The store had refused the mark.
            Phase::Attached | Phase::Failed(_) => self.look(index),
            // They have none.
            Phase::Attaching(Run::Ended)
            | Phase::Starting
            | Phase::Detaching(Run::Ended)
            | Phase::Removing => {}
        }
    }
}
