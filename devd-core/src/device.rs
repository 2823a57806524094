//! What is known about one device.

use alloc::sync::Arc;

use crate::facts::{HookFacts, RecentFacts};
use crate::link::Link;
use crate::pace::Pace;
use crate::{
    DeviceKey, Hook, HotplugStatus, Node, Observation, Reason, Server, State, Time, Verb, Want,
};

/// How far a hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// Waits until fewer hooks run.
    Queued,
    /// Runs.
    Running,
    /// Was told to end and has not yet.
    Stopping,
    /// Has ended; the store has not been looked at since.
    Ended,
}

/// Where a device is in its life, as far as the daemon is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing of ours is in place yet.
    Waiting,
    /// The add hook is at work.
    Attaching(Run),
    /// It waits for its guest's QEMU.
    Starting,
    /// It is served.
    Attached,
    /// The removal hook is at work.
    Detaching(Run),
    /// Nothing of ours is in place any more; the directory stays a while, so that the
    /// toolstack can read in it that the device has closed.
    Lingering,
    /// The directory is being removed.
    Removing,
    /// It is not served, and why.
    Failed(Reason),
}

/// Is a look at the store under way?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    /// No.
    Idle,
    /// It is asked for and has not begun: it will see all that happens until then.
    Asked,
    /// It has begun: it may have missed what happens now.
    Begun,
    /// It has begun, and something has happened since: it does not go on.
    Stale,
    /// It is under way, and what it finds may be of a time, or of a device, that is past: it
    /// does not count, and another will be asked for.
    Void,
    /// The store refused it; it is tried again later.
    Refused,
    /// It will be asked for when the removal hook, or the removal, has ended.
    Deferred,
}

/// Has the add hook of this life run?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Touched {
    /// Not known yet: the device has never been looked at.
    Unknown,
    No,
    /// The first run is being started, and does not count if the start fails.
    Starting,
    Yes,
}

impl Touched {
    /// May a hook have run?
    pub(crate) const fn may_have_run(self) -> bool {
        match self {
            Self::Starting | Self::Yes => true,
            Self::Unknown | Self::No => false,
        }
    }
}

/// What is known, while a removal hook runs, of another device with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Successor {
    Unseen,
    /// The directory went, or was made anew: the next event of `state` is the successor's.
    DirectoryChanged,
    /// It was reported.
    Told,
}

#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) key: DeviceKey,
    pub(crate) phase: Phase,
    pub(crate) look: Look,
    /// What this look has found so far.
    pub(crate) found: Want,
    /// What `state` was when that was last looked up.
    pub(crate) state: Option<State>,
    /// The same of `online`.
    pub(crate) online: bool,
    pub(crate) touched: Touched,
    /// It was there before it was heard of: an earlier daemon may have served it.
    pub(crate) listed: bool,
    /// The hook was started by an earlier daemon, and takes no place from others.
    pub(crate) adopted: bool,
    /// The second pass of a hook, for the emulated interface, is (to be) run.
    pub(crate) tap: bool,
    /// The hook was told to end because it took too long.
    pub(crate) overdue: bool,
    /// The device went while its add hook ran, which has less time left therefore, and whose
    /// work is not for the device that may be there afterwards.
    pub(crate) hurried: bool,
    /// Nobody knows how the hook ended.
    pub(crate) unsure: bool,
    /// The directory was gone when the removal hook was called for.
    pub(crate) vanished: bool,
    /// It was reported for not reaching InitWait.
    pub(crate) slow: bool,
    /// Does another device of this name wait for the removal hook?
    pub(crate) successor: Successor,
    /// What its hook had said when that was last looked up.
    pub(crate) hotplug: HotplugStatus,
    /// It says there what has become of the add hook, for all that is known.
    pub(crate) marked: bool,
    /// What `hotplug-status` is to say and the store has refused to let it say, or may have:
    /// until that is there, what is there tells nothing.
    pub(crate) owed: Option<HotplugStatus>,
    /// How often its add hook runs.
    pub(crate) pace: Pace,
    /// Tries that have failed, since the last that did not, be it for another device of this
    /// name: whoever replaces devices that fail waits no less than who does not.
    pub(crate) failures: u8,
    /// How often its removal hook could not be started.
    pub(crate) unstarted: u8,
    /// Looks that the store has refused, since the last that it did not.
    pub(crate) refusals: u8,
    /// When the device was first seen closed.
    pub(crate) closed_at: Option<Time>,
    /// What the hook needs, remembered: the store may not have it any more when it is needed.
    pub(crate) hook: Option<Arc<HookFacts>>,
    /// The values that the last run of the add hook was given: a try with the same values fails
    /// for the same reason.
    pub(crate) tried: Option<Arc<HookFacts>>,
    /// `script` is not there any more.
    pub(crate) bare: bool,
    /// The list of its guest's devices.
    pub(crate) guest: u32,
    pub(crate) next: Link,
    pub(crate) previous: Link,
    /// The next of its guest's devices whose hooks wait.
    pub(crate) next_in_line: Link,
    /// Where its deadlines are.
    pub(crate) timer: Link,
    pub(crate) look_timer: Link,
}

/// Was `script` missing when `state` was not looked at? It may have gone with the whole
/// directory.
pub(crate) fn is_hollow(seen: &Observation<'_>) -> bool {
    let alone = seen.want.contains(Want::HOOK) && !seen.want.contains(Want::STATE);
    alone && seen.script.is_none()
}

impl Device {
    pub(crate) const fn new(key: DeviceKey, guest: u32) -> Self {
        Self {
            key,
            phase: Phase::Waiting,
            look: Look::Idle,
            found: Want::NONE,
            state: None,
            online: false,
            touched: Touched::Unknown,
            listed: false,
            adopted: false,
            tap: false,
            overdue: false,
            hurried: false,
            unsure: false,
            vanished: false,
            slow: false,
            successor: Successor::Unseen,
            hotplug: HotplugStatus::Silent,
            marked: false,
            owed: None,
            pace: Pace::NONE,
            failures: 0,
            unstarted: 0,
            refusals: 0,
            closed_at: None,
            hook: None,
            tried: None,
            bare: false,
            guest,
            next: Link::NONE,
            previous: Link::NONE,
            next_in_line: Link::NONE,
            timer: Link::NONE,
            look_timer: Link::NONE,
        }
    }

    /// What its hook is run with, if that is known.
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

    /// Is it of a kind whose hook the daemon runs?
    pub(crate) const fn has_hook(&self) -> bool {
        match self.key.kind.server() {
            Server::NetworkHook | Server::BlockHook => true,
            Server::Qemu | Server::Elsewhere => false,
        }
    }

    /// Is its removal hook at work, with all that it needs known?
    pub(crate) const fn is_being_detached(&self) -> bool {
        matches!(self.phase, Phase::Detaching(Run::Queued | Run::Running | Run::Stopping))
            && self.hook.is_some()
    }

    /// The directory went, or was made anew, while the removal hook runs.
    pub(crate) fn directory_changed(&mut self) {
        if self.successor == Successor::Unseen {
            self.successor = Successor::DirectoryChanged;
        }
    }

    /// Is this another device than the one that has failed or was served? A mark in the store
    /// shows that one until its hook is run again, if the store has not refused the mark.
    pub(crate) fn is_unmarked(&self, hotplug: HotplugStatus) -> bool {
        self.marked && self.owed.is_none() && hotplug == HotplugStatus::Silent
    }

    /// Has this node the value that the last run of the add hook was given?
    pub(crate) fn has_tried(&self, node: Node) -> bool {
        match (&self.hook, &self.tried) {
            (Some(facts), Some(tried)) => facts.agree_on(node, tried),
            _ => false,
        }
    }

    /// Takes note of what a look has found.
    pub(crate) fn note(&mut self, seen: &Observation<'_>, recent: &mut RecentFacts) {
        self.found = self.found | seen.want;
        if seen.want.contains(Want::STATE) {
            self.state = seen.state;
            if seen.state.is_none() {
                return; // What was there is what the removal hook is for.
            }
        }
        if seen.want.contains(Want::ONLINE) {
            self.online = seen.online;
        }
        if seen.want.contains(Want::HOTPLUG) {
            self.hotplug = seen.hotplug;
            self.owed = self.owed.filter(|owed| *owed != seen.hotplug);
        }
        let facts = seen.want.contains(Want::HOOK) && self.state.is_some();
        if facts && !is_hollow(seen) && self.may_learn() {
            self.bare = seen.script.is_none();
            // What an earlier try has left behind is still its hook's to take away.
            if !self.bare || !self.calls_for_removal_hook() {
                self.hook = Some(recent.of(seen));
            }
        }
    }

    /// Was all that its hook needs seen before its backend took it up? It is the same still: a
    /// change, and another device of this name, have an event of `script` or of the directory.
    pub(crate) fn is_prepared(&self) -> bool {
        self.phase == Phase::Waiting
            && self.touched == Touched::No
            && self.failures == 0
            && self.owed.is_none()
            && self.lacks().is_none()
    }

    /// What its hook needs may have changed, and a look that has begun may have missed that.
    pub(crate) fn forget_preparation(&mut self) {
        // No hook has run of a device that is so early, or that has only just come: there is
        // nothing to be taken away by it.
        let untouched = match self.touched {
            Touched::Unknown => match self.state {
                Some(state) => state == State::Initialising,
                None => !self.listed,
            },
            Touched::No => true,
            Touched::Starting | Touched::Yes => false,
        };
        if self.phase == Phase::Waiting && untouched && self.failures == 0 {
            self.hook = None;
            if matches!(self.look, Look::Begun | Look::Stale) {
                self.look = Look::Void;
            }
        }
    }

    /// A look does not count. But it may be the last that anybody sees of what a hook needs that
    /// has run, and has to take its work away.
    pub(crate) fn salvage(&mut self, seen: &Observation<'_>, recent: &mut RecentFacts) {
        if self.hook.is_none() && self.touched.may_have_run() && seen.script.is_some() {
            self.hook = Some(recent.of(seen));
        }
    }

    /// May what its hook needs have changed, to be taken notice of?
    fn may_learn(&self) -> bool {
        match self.phase {
            _ if self.hook.is_none() => true,
            Phase::Waiting | Phase::Attaching(Run::Queued) | Phase::Failed(_) => {
                !self.is_unmarked(self.hotplug)
            }
            Phase::Attaching(Run::Running | Run::Stopping | Run::Ended)
            | Phase::Starting
            | Phase::Attached
            | Phase::Detaching(_)
            | Phase::Lingering
            | Phase::Removing => false,
        }
    }

    /// Does it matter now that `online` has changed? That tells only whether what is closed is
    /// to open again.
    pub(crate) fn minds_online(&self) -> bool {
        match self.phase {
            Phase::Detaching(_) | Phase::Lingering | Phase::Removing => false,
            Phase::Waiting
            | Phase::Attaching(_)
            | Phase::Starting
            | Phase::Attached
            | Phase::Failed(_) => match self.state {
                Some(State::Closed) => true,
                // A look that finds it closed has looked at `online` as well.
                Some(State::Closing) => self.look == Look::Begun,
                _ => false,
            },
        }
    }

    /// Does it matter now that something has changed of what its hook needs? It does for a
    /// device that waits for that to be put right, and for a look that has begun.
    pub(crate) const fn minds_its_facts(&self) -> bool {
        matches!(self.phase, Phase::Failed(_)) || matches!(self.look, Look::Begun)
    }

    /// What its hook cannot be run without and the store does not have.
    pub(crate) fn lacks(&self) -> Option<Reason> {
        let facts = self.hook.as_ref();
        if self.bare || facts.is_none_or(|facts| facts.script.is_none()) {
            return Some(Reason::NoScript);
        }
        let network = self.key.kind.server() == Server::NetworkHook;
        (network && facts.is_none_or(|facts| !facts.has_type)).then_some(Reason::NoType)
    }

    /// Is its hook to be run once more, for the emulated interface?
    pub(crate) fn has_second_pass(&self) -> bool {
        let second = |facts: &Arc<HookFacts>| facts.ioemu && facts.script.is_some();
        !self.tap && self.hook.as_ref().is_some_and(second)
    }

    /// Is there something that only the removal hook can take away?
    pub(crate) fn calls_for_removal_hook(&self) -> bool {
        let has_script = self.hook.as_ref().is_some_and(|facts| facts.script.is_some());
        has_script && self.touched.may_have_run()
    }

    /// Is it being removed, by its hook, or with its directory? The store is looked at again
    /// when that has ended.
    pub(crate) fn is_going(&self) -> bool {
        self.is_being_detached() || self.phase == Phase::Removing
    }

    /// Was a look put off until the removal hook, or the removal, has ended?
    pub(crate) fn take_deferred_look(&mut self) -> bool {
        let deferred = self.look == Look::Deferred;
        if deferred {
            self.look = Look::Idle;
        }
        // One that is under way may have begun before the last event.
        deferred || self.look != Look::Idle
    }

    /// What a look finds that is under way does not count; nor does one that is asked for only:
    /// it may be before the action that it is to see.
    pub(crate) fn void_look(&mut self) {
        self.look = match self.look {
            Look::Asked | Look::Begun | Look::Stale | Look::Void => Look::Void,
            Look::Idle | Look::Refused | Look::Deferred => self.look,
        };
    }

    /// Begins a new life under the same key.
    pub(crate) fn renew(&mut self) {
        self.phase = Phase::Waiting;
        self.found = Want::NONE;
        self.state = None;
        self.touched = Touched::No;
        self.listed = false;
        self.tap = false;
        self.overdue = false;
        self.hurried = false;
        self.unsure = false;
        self.vanished = false;
        self.slow = false;
        self.successor = Successor::Unseen;
        self.hotplug = HotplugStatus::Silent;
        self.marked = false;
        self.owed = None;
        self.closed_at = None;
        self.hook = None;
        self.tried = None;
        self.bare = false;
        self.unstarted = 0;
    }
}
