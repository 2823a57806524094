//! One device: its phase, and the facts that the daemon knows of it.

use alloc::sync::Arc;

use crate::facts::{HookFacts, RecentFacts};
use crate::link::Link;
use crate::pace::Pace;
use crate::{
    DeviceKey, Hook, HotplugStatus, Node, Observation, Reason, ServedBy, Time, Verb, Want,
    XenbusState,
};

/// The progress of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// The hook waits until fewer hooks run.
    Queued,
    /// The hook runs.
    Running,
    /// The hook was told to end and still runs.
    Stopping,
    /// The hook has ended; the device was not observed since.
    Ended,
}

/// The phase of a device's life: the work that the daemon has done or is doing for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The daemon has started nothing for the device yet.
    Waiting,
    /// The add hook is queued, runs, or has just ended.
    Attaching(Run),
    /// The device waits for its guest's QEMU.
    AwaitingQemu,
    /// The device is served.
    Attached,
    /// The removal hook is queued, runs, or has just ended.
    Detaching(Run),
    /// The removal hook has ended. The directory stays a while, so that the toolstack can read
    /// there that the device has closed.
    Lingering,
    /// The daemon is removing the directory.
    Removing,
    /// The device is not served, for this reason.
    Failed(Reason),
}

/// The progress of a device's observation, a read of its nodes in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ObservationState {
    /// No observation is under way.
    Idle,
    /// The observation is queued and has not begun: it covers every event until it begins.
    Asked,
    /// The observation has begun: it may miss an event that comes now.
    Begun,
    /// An event came after the observation had begun: a new one follows this one.
    Stale,
    /// The facts that are being read may be out of date, or of the predecessor: the result is
    /// discarded, and a new observation follows.
    Void,
    /// The store refused the observation; a timer repeats it.
    Refused,
    /// The observation is put off until the removal hook, or the removal of the directory, has
    /// ended.
    Deferred,
}

/// Has the add hook run for this device, since its key was last renewed?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HookHistory {
    /// The device was never observed, so an earlier daemon may have run the hook.
    Unknown,
    No,
    /// The first run is being started; if the start fails, the history is `No` again.
    Starting,
    Yes,
}

impl HookHistory {
    /// May a hook have run?
    pub(crate) const fn may_have_run(self) -> bool {
        match self {
            Self::Starting | Self::Yes => true,
            Self::Unknown | Self::No => false,
        }
    }
}

/// What the daemon knows of another device with the same key while the removal hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Successor {
    Unseen,
    /// The directory was removed or created again: the next event of `state` belongs to the
    /// successor.
    DirectoryChanged,
    /// The successor was reported.
    Told,
}

#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) key: DeviceKey,
    pub(crate) phase: Phase,
    pub(crate) observation: ObservationState,
    /// The facts that this observation has found so far.
    pub(crate) found: Want,
    /// The value of `state` when it was last read.
    pub(crate) state: Option<XenbusState>,
    /// The value of `online` when it was last read.
    pub(crate) online: bool,
    pub(crate) hook_history: HookHistory,
    /// A listing found the device, not an event: an earlier daemon may have attached it.
    pub(crate) found_by_listing: bool,
    /// An earlier daemon started the hook, so the hook takes no place among `max_hooks`.
    pub(crate) adopted: bool,
    /// The hook is in its second pass, for the emulated interface.
    pub(crate) tap: bool,
    /// The hook was told to end because it exceeded `hook_timeout`.
    pub(crate) timed_out: bool,
    /// The device went or was replaced while its add hook ran: the hook has less time, and its
    /// result does not count for a successor.
    pub(crate) device_gone: bool,
    /// The hook's exit status is unknown: an earlier daemon started it.
    pub(crate) exit_unknown: bool,
    /// The directory was gone when the removal began.
    pub(crate) vanished: bool,
    /// The device was reported for not reaching InitWait in time.
    pub(crate) late_reported: bool,
    /// Does another device of this name wait for the removal hook?
    pub(crate) successor: Successor,
    /// The value of `hotplug-status` when it was last read.
    pub(crate) hotplug: HotplugStatus,
    /// `hotplug-status` has a mark, as far as the daemon knows.
    pub(crate) marked: bool,
    /// A mark whose write failed or is unconfirmed. Until `hotplug-status` has this value, ignore
    /// the node.
    pub(crate) unconfirmed_mark: Option<HotplugStatus>,
    /// The pace of the add hook's runs.
    pub(crate) pace: Pace,
    /// Consecutive failures. A replacement keeps the count, so recreating a device does not skip
    /// the back-off.
    pub(crate) failures: u8,
    /// How often its removal hook could not be started.
    pub(crate) unstarted: u8,
    /// Consecutive observations that the store refused.
    pub(crate) refusals: u8,
    /// The time of the first observation that found the device closed.
    pub(crate) closed_at: Option<Time>,
    /// The facts that the hooks need. The removal hook needs them when the store may have lost them
    /// already.
    pub(crate) hook: Option<Arc<HookFacts>>,
    /// The facts of the last run of the add hook: a run with the same facts fails for the same
    /// reason.
    pub(crate) tried: Option<Arc<HookFacts>>,
    /// The last observation found no `script`; `hook` may still have its former value.
    pub(crate) script_removed: bool,
    /// The index of its guest, and the neighbours in the guest's list of devices.
    pub(crate) guest: u32,
    pub(crate) next: Link,
    pub(crate) previous: Link,
    /// The next of its guest's devices whose hooks are queued.
    pub(crate) next_in_line: Link,
    /// The places of its deadlines in the heap.
    pub(crate) timer: Link,
    pub(crate) observation_timer: Link,
}

/// Was `script` missing in an observation without `state`? The whole directory may have gone then.
pub(crate) fn is_hollow(seen: &Observation<'_>) -> bool {
    let alone = seen.want.contains(Want::HOOK) && !seen.want.contains(Want::STATE);
    alone && seen.script.is_none()
}

impl Device {
    pub(crate) const fn new(key: DeviceKey, guest: u32) -> Self {
        Self {
            key,
            phase: Phase::Waiting,
            observation: ObservationState::Idle,
            found: Want::NONE,
            state: None,
            online: false,
            hook_history: HookHistory::Unknown,
            found_by_listing: false,
            adopted: false,
            tap: false,
            timed_out: false,
            device_gone: false,
            exit_unknown: false,
            vanished: false,
            late_reported: false,
            successor: Successor::Unseen,
            hotplug: HotplugStatus::Silent,
            marked: false,
            unconfirmed_mark: None,
            pace: Pace::NONE,
            failures: 0,
            unstarted: 0,
            refusals: 0,
            closed_at: None,
            hook: None,
            tried: None,
            script_removed: false,
            guest,
            next: Link::NONE,
            previous: Link::NONE,
            next_in_line: Link::NONE,
            timer: Link::NONE,
            observation_timer: Link::NONE,
        }
    }

    /// The hook's arguments, if its facts are known.
    pub(crate) fn hook(&self, verb: Verb) -> Option<Hook<'_>> {
        let facts = self.hook.as_ref()?;
        Some(Hook {
            key: self.key,
            verb,
            tap: self.tap,
            script: facts.script.as_deref()?,
            ioemu: facts.ioemu,
            gatewaydev: &facts.gatewaydev,
        })
    }

    /// Does the daemon run a hook for this kind of device?
    pub(crate) const fn has_hook(&self) -> bool {
        match self.key.kind.served_by() {
            ServedBy::NetworkHook | ServedBy::BlockHook => true,
            ServedBy::Qemu | ServedBy::Elsewhere => false,
        }
    }

    /// Is the removal hook queued or running, with its facts known?
    pub(crate) const fn is_being_detached(&self) -> bool {
        matches!(self.phase, Phase::Detaching(Run::Queued | Run::Running | Run::Stopping))
            && self.hook.is_some()
    }

    /// Records that the directory was removed or created again while the removal hook runs.
    pub(crate) fn directory_changed(&mut self) {
        if self.successor == Successor::Unseen {
            self.successor = Successor::DirectoryChanged;
        }
    }

    /// Did the mark of a failed or served device vanish? Only a new directory has no mark, unless
    /// the store refused the mark: this is another device.
    pub(crate) fn mark_vanished(&self, hotplug: HotplugStatus) -> bool {
        self.marked && self.unconfirmed_mark.is_none() && hotplug == HotplugStatus::Silent
    }

    /// Did the last run of the add hook have the same value of this node?
    pub(crate) fn has_tried(&self, node: Node) -> bool {
        match (&self.hook, &self.tried) {
            (Some(facts), Some(tried)) => facts.agree_on(node, tried),
            _ => false,
        }
    }

    /// Stores the facts that an observation has found.
    pub(crate) fn note(&mut self, seen: &Observation<'_>, recent: &mut RecentFacts) {
        self.found = self.found | seen.want;
        if seen.want.contains(Want::STATE) {
            self.state = seen.state;
            if seen.state.is_none() {
                return; // Keep the facts of the vanished directory: the removal hook needs them.
            }
        }
        if seen.want.contains(Want::ONLINE) {
            self.online = seen.online;
        }
        if seen.want.contains(Want::HOTPLUG) {
            self.hotplug = seen.hotplug;
            self.unconfirmed_mark = self.unconfirmed_mark.filter(|mark| *mark != seen.hotplug);
        }
        let facts = seen.want.contains(Want::HOOK) && self.state.is_some();
        if facts && !is_hollow(seen) && self.may_learn() {
            self.script_removed = seen.script.is_none();
            // An earlier attempt may need undoing: keep the `script` that removes it.
            if !self.script_removed || !self.calls_for_removal_hook() {
                self.hook = Some(recent.of(seen));
            }
        }
    }

    /// Were the hook's facts read while `state` was 1? They are unchanged: each change of `script`
    /// or of the directory has an event, which drops them.
    pub(crate) fn is_prepared(&self) -> bool {
        self.phase == Phase::Waiting
            && self.hook_history == HookHistory::No
            && self.failures == 0
            && self.unconfirmed_mark.is_none()
            && self.lacks().is_none()
    }

    /// Drops the hook's facts, which may have changed; an observation that has begun may have
    /// missed the change.
    pub(crate) fn forget_preparation(&mut self) {
        // In state 1, or right after the device's first event, no hook has run: a removal hook will
        // not need the facts.
        let untouched = match self.hook_history {
            HookHistory::Unknown => match self.state {
                Some(state) => state == XenbusState::Initialising,
                None => !self.found_by_listing,
            },
            HookHistory::No => true,
            HookHistory::Starting | HookHistory::Yes => false,
        };
        if self.phase == Phase::Waiting && untouched && self.failures == 0 {
            self.hook = None;
            if matches!(self.observation, ObservationState::Begun | ObservationState::Stale) {
                self.observation = ObservationState::Void;
            }
        }
    }

    /// Keeps the hook's facts from a discarded observation, if no others are known: the removal
    /// hook needs them, and the directory may be gone at the next observation.
    pub(crate) fn salvage(&mut self, seen: &Observation<'_>, recent: &mut RecentFacts) {
        if self.hook.is_none() && self.hook_history.may_have_run() && seen.script.is_some() {
            self.hook = Some(recent.of(seen));
        }
    }

    /// May new values of the hook's facts replace the known ones?
    fn may_learn(&self) -> bool {
        match self.phase {
            _ if self.hook.is_none() => true,
            Phase::Waiting | Phase::Attaching(Run::Queued) | Phase::Failed(_) => {
                !self.mark_vanished(self.hotplug)
            }
            Phase::Attaching(Run::Running | Run::Stopping | Run::Ended)
            | Phase::AwaitingQemu
            | Phase::Attached
            | Phase::Detaching(_)
            | Phase::Lingering
            | Phase::Removing => false,
        }
    }

    /// Does a change of `online` matter now? `online` only decides whether a closed device opens
    /// again.
    pub(crate) fn minds_online(&self) -> bool {
        match self.phase {
            Phase::Detaching(_) | Phase::Lingering | Phase::Removing => false,
            Phase::Waiting
            | Phase::Attaching(_)
            | Phase::AwaitingQemu
            | Phase::Attached
            | Phase::Failed(_) => match self.state {
                Some(XenbusState::Closed) => true,
                // The observation under way may find state 6, and reads `online` with it.
                Some(XenbusState::Closing) => self.observation == ObservationState::Begun,
                _ => false,
            },
        }
    }

    /// Does a change of the hook's facts matter now? Only a failed device, whose failure the change
    /// may mend, and an observation that has begun depend on them.
    pub(crate) const fn minds_its_facts(&self) -> bool {
        matches!(self.phase, Phase::Failed(_))
            || matches!(self.observation, ObservationState::Begun)
    }

    /// The fact that the hook requires and the store lacks, as a failure.
    pub(crate) fn lacks(&self) -> Option<Reason> {
        let facts = self.hook.as_ref();
        if self.script_removed || facts.is_none_or(|facts| facts.script.is_none()) {
            return Some(Reason::NoScript);
        }
        let network = self.key.kind.served_by() == ServedBy::NetworkHook;
        (network && facts.is_none_or(|facts| !facts.has_type)).then_some(Reason::NoType)
    }

    /// Does the hook have a second pass, for the emulated interface, still to run?
    pub(crate) fn has_second_pass(&self) -> bool {
        let second = |facts: &Arc<HookFacts>| facts.ioemu && facts.script.is_some();
        !self.tap && self.hook.as_ref().is_some_and(second)
    }

    /// May an add hook have run, with a script that can remove its work?
    pub(crate) fn calls_for_removal_hook(&self) -> bool {
        let has_script = self.hook.as_ref().is_some_and(|facts| facts.script.is_some());
        has_script && self.hook_history.may_have_run()
    }

    /// Is the removal hook, or the removal of the directory, under way? Observations are put off
    /// until it has ended.
    pub(crate) fn is_going(&self) -> bool {
        self.is_being_detached() || self.phase == Phase::Removing
    }

    /// Ends the deferral of an observation. Is an observation due?
    pub(crate) fn take_deferred_look(&mut self) -> bool {
        let deferred = self.observation == ObservationState::Deferred;
        if deferred {
            self.observation = ObservationState::Idle;
        }
        // An observation that is under way may have begun before the last event.
        deferred || self.observation != ObservationState::Idle
    }

    /// Discards the observation that is under way. A queued observation is discarded too: its read
    /// may come before the action whose effect it must see.
    pub(crate) fn void_look(&mut self) {
        self.observation = match self.observation {
            ObservationState::Asked
            | ObservationState::Begun
            | ObservationState::Stale
            | ObservationState::Void => ObservationState::Void,
            ObservationState::Idle | ObservationState::Refused | ObservationState::Deferred => {
                self.observation
            }
        };
    }

    /// Resets the device for a successor with the same key.
    pub(crate) fn renew(&mut self) {
        self.phase = Phase::Waiting;
        self.found = Want::NONE;
        self.state = None;
        self.hook_history = HookHistory::No;
        self.found_by_listing = false;
        self.tap = false;
        self.timed_out = false;
        self.device_gone = false;
        self.exit_unknown = false;
        self.vanished = false;
        self.late_reported = false;
        self.successor = Successor::Unseen;
        self.hotplug = HotplugStatus::Silent;
        self.marked = false;
        self.unconfirmed_mark = None;
        self.closed_at = None;
        self.hook = None;
        self.tried = None;
        self.script_removed = false;
        self.unstarted = 0;
    }
}
