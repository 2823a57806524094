//! The dispatcher: events and results come in, actions go out, deadlines lie between.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::device::{HookHistory, ObservationState, Successor, is_hollow};
use crate::facts::RecentFacts;
use crate::hook_queue::HookQueue;
use crate::status::{classify, required_facts};
use crate::timer::{Owner, Timers};
use crate::{
    Action, BackendPath, DeviceKey, Domid, Hook, HookEnd, HookFailure, HotplugStatus, Kind, Leaf,
    Notice, Observation, Phase, QemuState, Reason, Registry, Remedy, Retry, Run, ServedBy, Time,
    Verb, Want,
};

/// Limits and waits that the caller chooses.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A device that has not reached InitWait after this time is reported; the dispatcher goes on
    /// waiting.
    pub init_timeout: Duration,
    /// A hook that runs longer is told to end.
    pub hook_timeout: Duration,
    /// How long a hook that was told to end has before it is killed.
    pub kill_grace: Duration,
    /// How long an add hook may go on when its device is gone already.
    pub hurry: Duration,
    /// How long a closed device's directory stays. The toolstack reads `state` in it when it
    /// has heard that it changed; were it gone by then, `xl network-detach` and
    /// `xl block-detach` would fail.
    pub linger: Duration,
    /// The wait after a first failure; each further one doubles it.
    pub retry_first: Duration,
    /// The wait after a look that the store has refused; each further one in a row doubles it.
    pub look_first: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
    /// The wait before the add hook of a device that is served runs for the third time in a short
    /// time; each further run doubles it, up to `retry_max`.
    pub rerun_first: Duration,
    /// After so long without a run the earlier ones are forgotten.
    pub rerun_forget: Duration,
    /// How many hooks may run at once, at least one. The last of them is for a guest none of whose
    /// hooks runs.
    pub max_hooks: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            init_timeout: Duration::from_secs(10),
            hook_timeout: Duration::from_secs(40),
            kill_grace: Duration::from_secs(2),
            hurry: Duration::from_secs(5),
            linger: Duration::from_millis(200),
            retry_first: Duration::from_secs(1),
            look_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(60),
            rerun_first: Duration::from_secs(1),
            rerun_forget: Duration::from_secs(300),
            max_hooks: 16,
        }
    }
}

impl Settings {
    /// The wait after so many failures, if that after the first is this long.
    pub(crate) fn back_off(&self, first: Duration, failures: u8) -> Duration {
        let factor = 1_u32.checked_shl(u32::from(failures.saturating_sub(1))).unwrap_or(u32::MAX);
        first.saturating_mul(factor).min(self.retry_max)
    }
}

/// How the removal of a backend directory ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Removal {
    /// The directory is gone.
    Removed,
    /// The directory stays: its `state` is not 6 any more.
    Changed,
    /// The store refused.
    Refused,
}

/// Decides what the daemon does. See the [crate's](crate) documentation.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) timers: Timers,
    facts: RecentFacts,
    pub(crate) actions: VecDeque<Action>,
    /// Devices whose hooks wait for others to end.
    pub(crate) queue: HookQueue,
    /// No new hooks or QEMUs: the daemon is about to end.
    pub(crate) closing: bool,
}

// Input.
impl Dispatcher {
    /// A dispatcher that knows of no device.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            registry: Registry::new(),
            timers: Timers::default(),
            facts: RecentFacts::default(),
            actions: VecDeque::new(),
            queue: HookQueue::default(),
            closing: false,
        }
    }

    /// Handles a watch event at this path. A path that does not matter costs only its parse.
    pub fn handle_event(&mut self, path: BackendPath<'_>) {
        match path {
            // A device exists as long as its `state` exists.
            BackendPath::Device(key, Leaf::State) => {
                let index = self.registry.insert(key);
                self.look(index);
                if self.registry.device(index).successor == Successor::DirectoryChanged {
                    self.tell_of_successor(index);
                }
            }
            BackendPath::Device(_, Leaf::Other) => {}
            BackendPath::Device(key, leaf) => {
                let Some(index) = self.registry.find(key) else { return };
                let device = self.registry.device_mut(index);
                if leaf != Leaf::Online {
                    device.forget_preparation();
                }
                if leaf == Leaf::Directory && device.is_being_detached() {
                    device.directory_changed();
                }
                let matters = match leaf {
                    // During a removal, this event is the daemon's own; a successor announces
                    // itself through `state`.
                    Leaf::Directory => device.phase != Phase::Removing,
                    Leaf::Online => device.minds_online(),
                    Leaf::Script | Leaf::Type => device.minds_its_facts(),
                    Leaf::State | Leaf::Other => false,
                };
                if matters {
                    self.look(index);
                }
            }
            // The removal of a guest's directory has no events for the devices in it: observe them
            // all.
            BackendPath::Guest(kind, domid) => {
                let guest = self.registry.find_guest(domid);
                let mut next = guest.and_then(|guest| self.registry.first_of(guest));
                while let Some(index) = next {
                    let device = self.registry.device(index);
                    next = device.next.get();
                    if device.key.kind == kind {
                        self.look(index);
                    }
                }
            }
            BackendPath::Kind(kind) => self.look_at_all(|device_kind| device_kind == kind),
            BackendPath::Backend => self.look_at_all(|_| true),
            BackendPath::UnknownKind(_) | BackendPath::Foreign => {}
        }
    }

    /// Observes a device that a listing of the store has found.
    pub fn look_at(&mut self, key: DeviceKey) {
        let index = self.registry.insert(key);
        let device = self.registry.device_mut(index);
        device.found_by_listing |= device.hook_history == HookHistory::Unknown
            && device.observation == ObservationState::Idle;
        self.look(index);
    }

    /// Observes every known device again, because events may have been lost. The caller must list
    /// the store and give the other devices to [`look_at`](Self::look_at).
    pub fn handle_resync(&mut self) {
        for index in 0..self.registry.slots() {
            if let Some(device) = self.registry.get_mut(index) {
                device.forget_preparation();
            }
        }
        self.look_at_all(|_| true);
    }

    /// Records that a hook of an earlier daemon still runs. Call this before the device is
    /// observed. The hook takes no place among [`max_hooks`](Settings::max_hooks), or a guest that
    /// leaves many hooks behind would delay all other devices.
    pub fn handle_hook_found(&mut self, key: DeviceKey, verb: Verb, tap: bool, now: Time) {
        if !matches!(key.kind.served_by(), ServedBy::NetworkHook | ServedBy::BlockHook) {
            return;
        }
        let index = self.registry.insert(key);
        let device = self.registry.device_mut(index);
        device.phase = match verb {
            Verb::Add => Phase::Attaching(Run::Running),
            Verb::Remove => Phase::Detaching(Run::Running),
        };
        device.hook_history = HookHistory::Yes;
        device.tap = tap;
        device.adopted = true;
        self.set_timer(Owner::Device(index), now, self.settings.hook_timeout);
        self.look(index);
    }

    /// Handles the result of an observation.
    pub fn handle_observation(&mut self, key: DeviceKey, seen: &Observation<'_>, now: Time) {
        let Some(index) = self.registry.find(key) else { return };
        let device = self.registry.device_mut(index);
        device.refusals = 0;
        let look = core::mem::replace(&mut device.observation, ObservationState::Idle);
        if look == ObservationState::Void {
            device.salvage(seen, &mut self.facts);
            return self.look(index);
        }
        device.note(seen, &mut self.facts);
        // An event came after the observation had begun: a new one follows.
        let stale = look == ObservationState::Stale;
        let status = classify(device, seen);
        if stale && (status.is_err() || !device.found.contains(Want::STATE)) {
            return self.look(index);
        }
        if is_hollow(seen) {
            // Read all facts again in one observation, so that they belong together.
            device.found = Want::NONE;
            let want = required_facts(device, device.state);
            return self.go_on_looking(index, want);
        }
        match status {
            Ok(status) => self.handle_status(index, status, now),
            Err(want) => self.go_on_looking(index, want),
        }
        if stale {
            // The stale observation may have dropped the device: insert the key again and observe.
            let index = self.registry.insert(key);
            self.look(index);
        }
    }

    /// The store refused the observation: a timer repeats it.
    pub fn handle_observation_refused(&mut self, key: DeviceKey, now: Time) {
        let Some(index) = self.registry.find(key) else { return };
        let device = self.registry.device_mut(index);
        device.observation = ObservationState::Refused;
        device.refusals = device.refusals.saturating_add(1);
        let wait = self.settings.back_off(self.settings.look_first, device.refusals);
        self.set_timer(Owner::Observation(index), now, wait);
    }

    /// The store refused the write of this mark to `hotplug-status`, or the result is unknown. Call
    /// this before the next [`poll_action`](Self::poll_action).
    pub fn handle_mark_refused(&mut self, key: DeviceKey, mark: HotplugStatus, now: Time) {
        let Some(index) = self.registry.find(key) else { return };
        let device = self.registry.device_mut(index);
        device.unconfirmed_mark = Some(mark);
        let stays = match device.phase {
            Phase::Attached => true,
            // A failure whose remedy is time, or a program, has a deadline of its own.
            Phase::Failed(reason) => matches!(reason.remedy(), Remedy::Node(_) | Remedy::Detach),
            _ => false,
        };
        // In the other phases the next try writes the mark again.
        if stays {
            let wait = self.count_failure(index);
            self.set_timer(Owner::Device(index), now, wait);
        }
    }

    /// The device's hook has ended, or could not be started.
    pub fn handle_hook_end(&mut self, key: DeviceKey, end: HookEnd, now: Time) {
        if let Some(index) = self.registry.find(key) {
            self.hook_ended(index, end, now);
        }
    }

    /// The hook of a failed device was looked for: can it be started now?
    pub fn handle_hook_check(&mut self, key: DeviceKey, found: Result<(), HookFailure>, now: Time) {
        if let Some(index) = self.registry.find(key) {
            self.hook_checked(index, found, now);
        }
    }

    /// A removal of a directory has ended.
    pub fn handle_removal(&mut self, key: DeviceKey, removal: Removal, now: Time) {
        let Some(index) = self.registry.find(key) else { return };
        if self.registry.device(index).phase != Phase::Removing {
            return;
        }
        let device = self.registry.device_mut(index);
        match removal {
            // An event during the removal may belong to the next device with this key.
            Removal::Removed if device.take_deferred_look() => self.forget_life(index, now),
            Removal::Removed => self.forget(index, now),
            Removal::Changed => {
                device.take_deferred_look();
                device.phase = Phase::Lingering;
                self.look(index);
            }
            Removal::Refused => {
                device.phase = Phase::Lingering;
                let deferred = device.take_deferred_look();
                let wait = self.count_failure(index);
                self.set_timer(Owner::Device(index), now, wait);
                self.report(index, Notice::RemovalRefused);
                if deferred {
                    self.look(index);
                }
            }
        }
    }

    /// Deals with the deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(owner) = self.timers.pop(now, &mut self.registry) {
            match owner {
                Owner::Device(index) => self.deadline(index, now),
                Owner::Observation(index) => self.look(index),
                Owner::Guest(index) => self.qemu_deadline(index, now),
            }
        }
    }

    /// From now on no hook and no QEMU is started; what runs goes on.
    pub fn close(&mut self) {
        self.closing = true;
    }
}

// Output.
impl Dispatcher {
    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        if let Action::Observe(key, _) = action
            && let Some(index) = self.registry.find(key)
        {
            let device = self.registry.device_mut(index);
            if device.observation == ObservationState::Asked {
                device.observation = ObservationState::Begun;
            }
        }
        Some(action)
    }

    /// Is there something to do?
    #[must_use]
    pub fn has_action(&self) -> bool {
        !self.actions.is_empty()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The run of a hook that the device is at, or that a failed device is to be tried with.
    #[must_use]
    pub fn hook(&self, key: DeviceKey) -> Option<Hook<'_>> {
        let device = self.registry.device(self.registry.find(key)?);
        let verb = match device.phase {
            Phase::Attaching(_) | Phase::Failed(_) => Verb::Add,
            Phase::Detaching(_) => Verb::Remove,
            _ => return None,
        };
        device.hook(verb)
    }

    /// The first pass of the add hook of a device, wherever that is in its life: what an earlier
    /// daemon has run for a device that was [`Adopted`](crate::Notice::Adopted).
    #[must_use]
    pub fn add_hook(&self, key: DeviceKey) -> Option<Hook<'_>> {
        let device = self.registry.device(self.registry.find(key)?);
        Some(Hook { tap: false, ..device.hook(Verb::Add)? })
    }

    /// When a device that is not served is tried again. `None` if it is not known, or served.
    #[must_use]
    pub fn retry(&self, key: DeviceKey) -> Option<Retry> {
        let device = self.registry.device(self.registry.find(key)?);
        let (failures, timer) = match device.phase {
            Phase::Failed(Reason::Qemu(_)) => self.registry.guest(device.guest).retry(),
            Phase::Failed(_) => (device.failures, device.timer),
            _ => return None,
        };
        Some(Retry { failures, next: self.timers.at(timer) })
    }

    /// Where a device is in its life; `None` if it is not known.
    #[must_use]
    pub fn phase(&self, key: DeviceKey) -> Option<Phase> {
        self.registry.find(key).map(|index| self.registry.device(index).phase)
    }

    /// The value of the device's `script` node, if it has been looked up.
    #[must_use]
    pub fn script(&self, key: DeviceKey) -> Option<&[u8]> {
        let device = self.registry.device(self.registry.find(key)?);
        device.hook.as_ref()?.script.as_deref()
    }

    /// All devices and where they are.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceKey, Phase)> {
        self.registry.devices().map(|(_, device)| (device.key, device.phase))
    }

    /// The state of a guest's QEMU; `None` for a guest that is not known.
    #[must_use]
    pub fn qemu(&self, domid: Domid) -> Option<QemuState> {
        self.registry.find_guest(domid).map(|index| self.registry.guest(index).qemu)
    }

    /// All guests and the state of their QEMUs.
    pub fn qemus(&self) -> impl Iterator<Item = (Domid, QemuState)> {
        self.registry.all_guests().map(|guest| (guest.domid, guest.qemu))
    }

    /// Hooks that run.
    #[must_use]
    pub const fn running_hooks(&self) -> usize {
        self.queue.running()
    }

    /// Is there no work under way? A device that waits for its backend or for its next try is
    /// settled.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let device_settled = |phase| match phase {
            Phase::Waiting | Phase::Attached | Phase::Failed(_) => true,
            Phase::Attaching(_)
            | Phase::AwaitingQemu
            | Phase::Detaching(_)
            | Phase::Lingering
            | Phase::Removing => false,
        };
        let guest_settled = |state| match state {
            QemuState::Unknown | QemuState::Absent | QemuState::Running | QemuState::BackingOff => {
                true
            }
            QemuState::Finding | QemuState::Starting | QemuState::Stopping => false,
        };
        self.actions.is_empty()
            && self.registry.devices().all(|(_, device)| {
                device.observation == ObservationState::Idle && device_settled(device.phase)
            })
            && self.qemus().all(|(_, state)| guest_settled(state))
    }
}

// Tools of the state machines.
impl Dispatcher {
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Removes a queued action.
    pub(crate) fn take_back(&mut self, action: Action) {
        self.actions.retain(|other| *other != action);
    }

    pub(crate) fn report(&mut self, index: u32, notice: Notice) {
        self.act(Action::Report(self.registry.device(index).key, notice));
    }

    pub(crate) fn set_timer(&mut self, owner: Owner, now: Time, wait: Duration) {
        self.timers.set(owner, now.after(wait), &mut self.registry);
    }

    pub(crate) fn clear_timer(&mut self, owner: Owner) {
        self.timers.clear(owner, &mut self.registry);
    }

    /// Counts one more failure; returns the wait after it.
    pub(crate) fn count_failure(&mut self, index: u32) -> Duration {
        let device = self.registry.device_mut(index);
        device.failures = device.failures.saturating_add(1);
        self.settings.back_off(self.settings.retry_first, device.failures)
    }

    /// Counts one more failure of a guest's QEMU; returns the wait after it.
    pub(crate) fn count_qemu_failure(&mut self, guest: u32) -> Duration {
        let guest = self.registry.guest_mut(guest);
        guest.failures = guest.failures.saturating_add(1);
        self.settings.back_off(self.settings.retry_first, guest.failures)
    }

    /// Queues an observation of the device, unless one is queued that will cover the latest event.
    pub(crate) fn look(&mut self, index: u32) {
        let device = self.registry.device_mut(index);
        match device.observation {
            // The removal must end first, whatever the store has now.
            ObservationState::Idle | ObservationState::Refused if device.is_going() => {
                device.observation = ObservationState::Deferred
            }
            ObservationState::Idle | ObservationState::Refused => {
                device.found = Want::NONE;
                let want = required_facts(device, None);
                self.observe(index, ObservationState::Asked, want);
            }
            ObservationState::Begun => device.observation = ObservationState::Stale,
            ObservationState::Asked
            | ObservationState::Stale
            | ObservationState::Void
            | ObservationState::Deferred => {}
        }
    }

    /// Reports, once, that a device with the same key waits for the removal hook.
    pub(crate) fn tell_of_successor(&mut self, index: u32) {
        let device = self.registry.device_mut(index);
        if device.is_being_detached() && device.successor != Successor::Told {
            device.successor = Successor::Told;
            self.report(index, Notice::SuccessorWaits);
        }
    }

    /// Queues a read of the facts that the observation still lacks. From here on an event makes the
    /// observation stale, because the facts found so far may change.
    pub(crate) fn go_on_looking(&mut self, index: u32, want: Want) {
        let device = self.registry.device_mut(index);
        if want.contains(Want::ONLINE) {
            // Read `state` and `online` together; separately they may describe two devices, or one
            // device at two times.
            device.found = Want::NONE;
        }
        let rest = want.without(device.found);
        self.observe(index, ObservationState::Begun, rest);
    }

    fn observe(&mut self, index: u32, look: ObservationState, want: Want) {
        let device = self.registry.device_mut(index);
        device.observation = look;
        let key = device.key;
        self.clear_timer(Owner::Observation(index));
        self.act(Action::Observe(key, want));
    }

    fn look_at_all(&mut self, which: impl Fn(Kind) -> bool) {
        for index in 0..self.registry.slots() {
            if self.registry.get(index).is_some_and(|device| which(device.key.kind)) {
                self.look(index);
            }
        }
    }

    /// Queues the device's hook, which runs when a place is free and its pace allows.
    pub(crate) fn queue_hook(&mut self, index: u32, verb: Verb, now: Time) {
        self.clear_timer(Owner::Device(index));
        let device = self.registry.device_mut(index);
        device.tap = false;
        device.device_gone = false;
        device.exit_unknown = false;
        device.phase = match verb {
            Verb::Add => Phase::Attaching(Run::Queued),
            Verb::Remove => Phase::Detaching(Run::Queued),
        };
        if verb == Verb::Add
            && let Some(at) = device.pace.next(now, &self.settings)
        {
            self.timers.set(Owner::Device(index), at, &mut self.registry);
            return self.report(index, Notice::HookWaits { until: at });
        }
        self.enqueue(index, now);
    }

    /// Puts the device's hook into the queue, and starts hooks for which there is a place.
    pub(crate) fn enqueue(&mut self, index: u32, now: Time) {
        self.queue.push(index, &mut self.registry);
        self.start_hooks(now);
    }

    /// Takes a queued add hook out of the queue.
    pub(crate) fn unqueue(&mut self, index: u32) {
        if self.registry.device(index).phase == Phase::Attaching(Run::Queued) {
            self.queue.remove(index, &mut self.registry);
        }
    }

    fn start_hooks(&mut self, now: Time) {
        let max = self.settings.max_hooks.max(1);
        while !self.closing
            && let Some(index) = self.queue.pop(max, &mut self.registry)
        {
            let device = self.registry.device_mut(index);
            // The hook's facts may have gone from the store while the hook was queued.
            if device.phase == Phase::Attaching(Run::Queued)
                && let Some(reason) = device.lacks()
            {
                self.fail(index, reason, now);
                self.look(index);
                continue;
            }
            device.phase = match device.phase {
                Phase::Attaching(Run::Queued) => Phase::Attaching(Run::Running),
                Phase::Detaching(Run::Queued) => Phase::Detaching(Run::Running),
                _ => continue,
            };
            let retry = device.failures > 0;
            if device.phase == Phase::Attaching(Run::Running) {
                device.pace.begin(retry, now, &self.settings);
            }
            self.queue.started(index, &mut self.registry);
            let device = self.registry.device_mut(index);
            let marked = device.hotplug == HotplugStatus::Refused
                || device.failures > 0
                || device.unconfirmed_mark.is_some();
            if marked && device.phase == Phase::Attaching(Run::Running) {
                let key = device.key;
                (device.marked, device.unconfirmed_mark) = (false, None);
                self.act(Action::Reset(key));
            }
            self.run_hook(index, now);
        }
    }

    /// Starts the current pass of the device's hook, in the place that the hook already has. An
    /// adopted hook has no place, so its second pass is queued.
    pub(crate) fn run_hook(&mut self, index: u32, now: Time) {
        let device = self.registry.device_mut(index);
        if core::mem::take(&mut device.adopted) {
            device.phase = match device.phase {
                Phase::Detaching(_) => Phase::Detaching(Run::Queued),
                _ => Phase::Attaching(Run::Queued),
            };
            self.clear_timer(Owner::Device(index));
            return self.enqueue(index, now);
        }
        if device.hook_history != HookHistory::Yes {
            device.hook_history = HookHistory::Starting;
        }
        if device.phase == Phase::Attaching(Run::Running) {
            device.tried.clone_from(&device.hook);
        }
        device.timed_out = false;
        let key = device.key;
        self.set_timer(Owner::Device(index), now, self.settings.hook_timeout);
        self.act(Action::RunHook(key));
    }

    /// Frees the place of a hook that has ended, and starts the next hooks.
    pub(crate) fn release_hook(&mut self, index: u32, now: Time) {
        self.clear_timer(Owner::Device(index));
        if !core::mem::take(&mut self.registry.device_mut(index).adopted) {
            self.queue.ended(index, &mut self.registry);
        }
        self.start_hooks(now);
    }

    pub(crate) const fn is_closing(&self) -> bool {
        self.closing
    }
}
