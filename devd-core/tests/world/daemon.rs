//! The daemon around the dispatcher: carries actions out, each at its time, and tells it how
//! that went.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use devd_core::{
    Action, BackendPath, DeviceKey, Dispatcher, Domid, HookEnd, HookFailure, HotplugStatus, Notice,
    Observation, Phase, QemuEvent, QemuFailure, Reason, Removal, Run, Time, Verb, Want,
    XenbusState,
};

use super::chance::Mishap;
use super::hooks::{Manner, Pid, Step, before_start};
use super::qemu::Stage;
use super::store::Life;
use super::{Happening, World};

/// The daemon, and what is on its way to it.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// Each start counts one more.
    pub(crate) number: u32,
    /// `None`: it does not run.
    pub(crate) dispatcher: Option<Dispatcher>,
    pub(crate) acting: bool,
    pub(crate) reading: bool,
    /// When it will wake up next by itself.
    pub(crate) alarm: Option<u64>,
    /// The lives that were seen at the last looks: those that hooks are started for.
    pub(crate) seen: BTreeMap<DeviceKey, Life>,
    /// Guests whose QEMU has ended, of which it has not heard.
    pub(crate) unheard: BTreeSet<Domid>,
    /// Devices that an event or a listing has named to it.
    pub(crate) named: BTreeSet<DeviceKey>,
    /// Guests that it has heard of.
    pub(crate) guests: BTreeSet<Domid>,
    /// Looks that it is about to take.
    pub(crate) looks: VecDeque<(DeviceKey, Want)>,
    pub(crate) notices: Vec<(DeviceKey, Notice)>,
    pub(crate) failures: Vec<(DeviceKey, Reason)>,
}

impl Daemon {
    pub(crate) fn new(number: u32, dispatcher: Option<Dispatcher>) -> Self {
        Self {
            number,
            dispatcher,
            acting: false,
            reading: false,
            alarm: None,
            seen: BTreeMap::new(),
            unheard: BTreeSet::new(),
            named: BTreeSet::new(),
            guests: BTreeSet::new(),
            looks: VecDeque::new(),
            notices: Vec::new(),
            failures: Vec::new(),
        }
    }
}

/// What the daemon hears from those it has asked to do something.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Seen(DeviceKey, Snapshot),
    LookRefused(DeviceKey),
    HookEnd(DeviceKey, HookEnd),
    Service(Domid, QemuEvent),
    Removed(DeviceKey, Removal),
}

/// What was in a device's directory at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    want: Want,
    life: Option<Life>,
    state: Option<u8>,
    online: bool,
    hotplug: Option<&'static str>,
    script: Option<String>,
    vif_type: Option<&'static str>,
    gatewaydev: Option<&'static str>,
    frontend: bool,
}

impl Answer {
    /// For the story.
    fn told(&self) -> String {
        let Self::Seen(key, seen) = self else { return format!("{self:?}") };
        let Snapshot { want, state, online, hotplug, script, frontend, .. } = seen;
        let mut facts = Vec::new();
        for name in names(*want) {
            facts.push(match name {
                "state" => format!("state {state:?}"),
                "online" => format!("online {online}"),
                "hotplug-status" => format!("hotplug-status {hotplug:?}"),
                "frontend" => format!("frontend {frontend}"),
                _ => format!("script {script:?}"),
            });
        }
        format!("sees {key}: {}", facts.join(", "))
    }
}

/// The facts that are to be looked up.
fn names(want: Want) -> Vec<&'static str> {
    let all = [
        (Want::STATE, "state"),
        (Want::ONLINE, "online"),
        (Want::HOTPLUG, "hotplug-status"),
        (Want::HOOK, "script"),
        (Want::FRONTEND, "frontend"),
    ];
    all.into_iter().filter(|(fact, _)| want.contains(*fact)).map(|(_, name)| name).collect()
}

impl Snapshot {
    fn observation(&self) -> Observation<'_> {
        Observation {
            want: self.want,
            state: self.state.map(|state| XenbusState::parse(state.to_string().as_bytes())),
            online: self.online,
            hotplug: HotplugStatus::parse(self.hotplug.map(str::as_bytes)),
            script: self.script.as_deref().map(str::as_bytes),
            vif_type: self.vif_type.map(str::as_bytes),
            gatewaydev: self.gatewaydev.map(str::as_bytes),
            frontend: self.frontend,
        }
    }
}

// Its life.
impl World {
    /// The daemon ends, with all it had in driver. Hooks and QEMUs go on.
    pub(crate) fn stop_daemon(&mut self) {
        self.daemon = Daemon::new(0, None);
        self.invariants.daemon_ends(&self.store);
    }

    /// A daemon starts: sets its watch, looks for what an earlier one has left behind.
    pub(crate) fn start_daemon(&mut self) {
        let mut dispatcher = Dispatcher::new(self.settings);
        let now = self.time();
        let number = self.starts + 1;
        self.starts = number;
        self.daemon = Daemon::new(number, None);
        self.store.reconnect();
        for (pid, hook) in
            self.hooks.running().map(|(pid, hook)| (pid, hook.clone())).collect::<Vec<_>>()
        {
            self.hooks.adopt(pid, number);
            self.daemon.named.insert(hook.key);
            dispatcher.handle_hook_found(hook.key, hook.verb, hook.tap, now);
        }
        self.daemon.dispatcher = Some(dispatcher);
        self.list();
        for domid in self.qemus.nodes.clone() {
            self.daemon.guests.insert(domid);
            self.dispatch(|dispatcher, _| dispatcher.handle_qemu_found(domid));
        }
        self.after_input();
    }

    pub(crate) fn restart_daemon(&mut self) {
        self.stop_daemon();
        self.start_daemon();
    }

    /// Every device in the store is looked at.
    fn list(&mut self) {
        let keys: Vec<DeviceKey> = self.store.list().map(|(key, _)| key).collect();
        for key in keys {
            self.daemon.named.insert(key);
            self.dispatch(|dispatcher, _| dispatcher.look_at(key));
        }
    }

    /// Something goes in.
    fn dispatch(&mut self, input: impl FnOnce(&mut Dispatcher, Time)) {
        let now = self.time();
        if let Some(dispatcher) = &mut self.daemon.dispatcher {
            input(dispatcher, now);
        }
    }

    /// Then actions may be there to be carried out, and another deadline.
    fn after_input(&mut self) {
        if self.chance.is_enumerated() {
            return;
        }
        let Some(dispatcher) = &self.daemon.dispatcher else { return };
        let number = self.daemon.number;
        if let Some(at) = dispatcher.poll_timeout().map(Time::as_millis)
            && self.daemon.alarm.is_none_or(|alarm| alarm > at)
        {
            let late = if self.chance.one_in(10) { self.chance.number(0..=3_000) } else { 0 };
            self.daemon.alarm = Some(at);
            let wait = at.saturating_sub(self.clock.now()) + late;
            self.clock.after(wait, Happening::Alarm(number));
        }
        if !self.daemon.acting {
            self.daemon.acting = true;
            let delay = self.chance.number(0..=3);
            self.clock.after(delay, Happening::Act(number));
        }
    }
}

// What comes in.
impl World {
    /// Reads some of the events that are there.
    pub(crate) fn read_events(&mut self) {
        self.daemon.reading = false;
        if self.store.take_lost() {
            self.dispatch(|dispatcher, _| dispatcher.handle_resync());
            self.list();
        }
        for _ in 0..self.chance.pick(&[64, 1, 2, 5]) {
            let Some(event) = self.store.read_event() else { break };
            if self.chance.mishap(Mishap::Repeat, 50) {
                self.store.fire(event.clone()); // Once more, later.
            }
            self.trace(|| format!("event {event}"));
            let path = BackendPath::parse(event.as_bytes());
            if let BackendPath::Device(key, _) = path {
                self.daemon.named.insert(key);
            }
            self.dispatch(|dispatcher, _| dispatcher.handle_event(path));
        }
        self.after_input();
    }

    pub(crate) fn alarm(&mut self) {
        self.daemon.alarm = None;
        self.dispatch(Dispatcher::handle_timeout);
        self.after_input();
    }

    pub(crate) fn answer(&mut self, answer: &Answer) {
        self.trace(|| answer.told());
        match answer {
            Answer::Seen(key, snapshot) => {
                let key = *key;
                let hook_is_chosen =
                    matches!(self.phase(key), Some(Phase::Attaching(Run::Running | Run::Stopping)));
                match snapshot.life {
                    // The device that is looked at is the one whose state was found.
                    _ if hook_is_chosen || !snapshot.want.contains(Want::STATE) => None,
                    Some(life) => self.daemon.seen.insert(key, life),
                    None => self.daemon.seen.remove(&key),
                };
                if snapshot.script.is_some() {
                    self.invariants.known.insert(key);
                }
                let seen = snapshot.observation();
                self.dispatch(|dispatcher, now| dispatcher.handle_observation(key, &seen, now));
                let judged = self.phase(key) != Some(Phase::Attaching(Run::Ended));
                self.invariants.seen(key, snapshot.life, judged);
            }
            Answer::LookRefused(key) => {
                self.dispatch(|dispatcher, now| dispatcher.handle_observation_refused(*key, now));
            }
            Answer::HookEnd(key, end) => {
                self.invariants.heard(*key, *end, &self.store);
                self.dispatch(|dispatcher, now| dispatcher.handle_hook_end(*key, *end, now));
            }
            Answer::Service(domid, event) => {
                self.daemon.unheard.remove(domid);
                self.dispatch(|dispatcher, now| dispatcher.handle_qemu(*domid, *event, now));
            }
            Answer::Removed(key, removal) => {
                self.dispatch(|dispatcher, now| dispatcher.handle_removal(*key, *removal, now));
            }
        }
        self.after_input();
    }

    /// The daemon hears of something, when that has come to it.
    pub(crate) fn tell(&mut self, answer: Answer) {
        let from_store =
            matches!(answer, Answer::Seen(..) | Answer::LookRefused(_) | Answer::Removed(..));
        if self.chance.is_enumerated() && from_store {
            return self.answer(&answer);
        }
        let delay = self.chance.number(0..=30);
        self.clock.after(delay, Happening::Answer(self.daemon.number, answer));
    }
}

// What goes out.
impl World {
    /// Carries out one action.
    pub(crate) fn act(&mut self) {
        self.daemon.acting = false;
        let Some(dispatcher) = &mut self.daemon.dispatcher else { return };
        let Some(action) = dispatcher.poll_action() else {
            return self.invariants.done();
        };
        self.actions += 1;
        self.trace(|| match action {
            Action::Observe(key, want) => format!("looks at {key}: {}", names(want).join(", ")),
            action => format!("{action:?}"),
        });
        self.check_named(action);
        self.check_mark(action);
        match action {
            // As the daemon does it: when it has carried out all else.
            Action::Observe(key, want) if self.chance.is_enumerated() => {
                self.daemon.looks.push_back((key, want));
            }
            Action::Observe(key, want) => {
                let delay = self.chance.number(0..=10);
                let look = Happening::Look(self.daemon.number, key, want);
                self.clock.after(delay, look);
            }
            Action::RunHook(key) => self.run_hook(key),
            Action::CheckHook(key) => self.check_hook(key),
            Action::StopHook(key) => self.signal_hook(key, false),
            Action::KillHook(key) => self.signal_hook(key, true),
            Action::FindQemu(domid) => self.find_qemu(domid),
            Action::StartQemu(domid) => self.start_qemu(domid),
            Action::StopQemu(domid) => self.stop_qemu(domid),
            Action::Reset(key) => {
                self.mark(key, Some(""));
            }
            Action::MarkConnected(key) => {
                if self.mark(key, Some("connected")) {
                    self.invariants.recorded(key, Verb::Add);
                }
            }
            Action::MarkDetached(key) => {
                if self.chance.mishap(Mishap::Refusal, 20) {
                    self.invariants.not_recorded(key);
                } else {
                    self.store.set_hotplug(key, None);
                    self.invariants.recorded(key, Verb::Remove);
                }
            }
            Action::Fail(key, reason) => {
                let kept = self.mark(key, Some("error"));
                if reason == Reason::Lost
                    && let Some(directory) = self.store.get(key)
                {
                    self.qemus.told(directory.life, self.daemon.number, kept);
                }
                self.daemon.failures.push((key, reason));
            }
            Action::Close(key) if self.state(key) == Some(5) => self.store.set_state(key, 6),
            Action::Rewind(key) if self.state(key) == Some(2) => {
                self.store.set_hotplug(key, Some(""));
                self.store.set_state(key, 1);
            }
            Action::Rewind(key) if self.state(key) == Some(5) => self.store.set_state(key, 6),
            Action::Close(_) | Action::Rewind(_) => {}
            Action::Remove(key) => self.remove(key),
            Action::ForgetGuest(domid) => {
                self.qemus.nodes.remove(&domid);
            }
            Action::Report(key, notice) => {
                self.daemon.notices.push((key, notice));
                // Nobody else sees it: what comes next is part of the same step.
                if self.chance.is_enumerated() {
                    return self.act();
                }
            }
        }
        self.after_input();
    }

    /// Writes to `hotplug-status`, if the store lets it. What the daemon is told of as refused
    /// may have been written, and the reply lost.
    fn mark(&mut self, key: DeviceKey, word: Option<&'static str>) -> bool {
        let refused = self.refuse_marks || self.chance.mishap(Mishap::Refusal, 8);
        *self.marks.entry(key).or_default() += 1;
        let written = !refused || self.chance.fork(4);
        if written {
            self.store.set_hotplug(key, word);
        }
        if word == Some("connected") {
            self.invariants.set_owed(key, refused);
        }
        if refused {
            let mark = HotplugStatus::parse(word.map(str::as_bytes));
            self.trace(|| format!("{key}: {mark:?} is refused, written: {written}"));
            self.dispatch(|dispatcher, now| dispatcher.handle_mark_refused(key, mark, now));
        }
        written
    }

    /// A mark that is meant for one device is put on another that has just taken its place.
    /// Nobody can tell afterwards.
    fn check_mark(&mut self, action: Action) {
        if let Action::MarkConnected(key) | Action::Fail(key, _) = action
            && let Some(directory) = self.store.get(key)
            && self.daemon.seen.get(&key) != Some(&directory.life)
        {
            self.invariants.mistake(key);
        }
    }

    /// No action may be about a device that nobody has named.
    fn check_named(&mut self, action: Action) {
        let unnamed = match action {
            Action::Observe(key, _)
            | Action::RunHook(key)
            | Action::CheckHook(key)
            | Action::StopHook(key)
            | Action::KillHook(key)
            | Action::Reset(key)
            | Action::MarkConnected(key)
            | Action::MarkDetached(key)
            | Action::Fail(key, _)
            | Action::Close(key)
            | Action::Rewind(key)
            | Action::Remove(key)
            | Action::Report(key, _) => !self.daemon.named.contains(&key),
            Action::FindQemu(domid)
            | Action::StartQemu(domid)
            | Action::StopQemu(domid)
            | Action::ForgetGuest(domid) => {
                !self.daemon.guests.contains(&domid)
                    && !self.daemon.named.iter().any(|key| key.domid == domid)
            }
        };
        if unnamed {
            self.violate(format!("{action:?} is about what was never seen"));
        }
    }

    /// A look is taken, now; what it finds is told later.
    pub(crate) fn look(&mut self, key: DeviceKey, want: Want) {
        if self.chance.mishap(Mishap::Refusal, 300) {
            return self.tell(Answer::LookRefused(key));
        }
        let directory = self.store.get(key).cloned();
        // Facts that were not asked for have any value.
        let any = self.chance.one_in(2);
        let asked = |fact: Want| want.contains(fact);
        let snapshot = match directory {
            None => Snapshot {
                want,
                life: None,
                state: if asked(Want::STATE) { None } else { any.then_some(6) },
                online: !asked(Want::ONLINE) && any,
                hotplug: if asked(Want::HOTPLUG) { None } else { any.then_some("connected") },
                script: None,
                vif_type: None,
                gatewaydev: None,
                frontend: !asked(Want::FRONTEND) && any,
            },
            Some(directory) => Snapshot {
                want,
                life: Some(directory.life),
                state: if asked(Want::STATE) { Some(directory.state) } else { any.then_some(6) },
                online: if asked(Want::ONLINE) { directory.online } else { any },
                hotplug: if asked(Want::HOTPLUG) {
                    directory.hotplug
                } else {
                    any.then_some("connected")
                },
                script: directory.script.filter(|_| asked(Want::HOOK)),
                vif_type: directory.vif_type.filter(|_| asked(Want::HOOK)),
                gatewaydev: directory.gatewaydev.filter(|_| asked(Want::HOOK)),
                frontend: if asked(Want::FRONTEND) {
                    self.store.frontend(key).is_some()
                } else {
                    any
                },
            },
        };
        self.tell(Answer::Seen(key, snapshot));
    }

    /// Is what is there that of a closed device? One that is not wanted stays closed.
    fn is_unwanted(&self, key: DeviceKey, state: u8) -> bool {
        let online = self.store.get(key).is_some_and(|directory| directory.online);
        !online || state == 6 && self.store.frontend(key).is_none()
    }

    fn remove(&mut self, key: DeviceKey) {
        let directory = self.store.get(key).map(|directory| (directory.state, directory.since));
        let removed = match directory {
            _ if self.chance.mishap(Mishap::Refusal, 30) => Removal::Refused,
            None => Removal::Changed,
            Some((state, since)) if self.is_unwanted(key, state) => {
                let linger = self.settings.linger.as_millis();
                let seen = self.store.get(key).map(|directory| directory.life)
                    == self.daemon.seen.get(&key).copied();
                if seen && u128::from(self.clock.now() - since) < linger {
                    self.violate(format!("{key} is removed before the toolstack can have read it"));
                }
                // One that has come and closed since the last look may be one that opens again.
                if seen && self.store.is_wanted(key) {
                    self.violate(format!("{key} is removed and is wanted"));
                }
                self.store.remove(key);
                self.removals += 1;
                Removal::Removed
            }
            Some(_) => Removal::Changed,
        };
        self.tell(Answer::Removed(key, removed));
    }
}

// Hooks.
impl World {
    fn run_hook(&mut self, key: DeviceKey) {
        if self.hooks.of(key).is_some() {
            return self.violate(format!("{key}: two hooks at once"));
        }
        let life = self.daemon.seen.get(&key).copied();
        let hook = self.daemon.dispatcher.as_ref().and_then(|dispatcher| dispatcher.hook(key));
        let Some(hook) = hook else {
            return self.violate(format!("{key}: a hook to be run, and nothing says which"));
        };
        let manner = self.chance.one_of(Mishap::Hook, 4);
        let spawned = manner != 4 && (manner != 0 || !self.chance.mishap(Mishap::Hook, 50));
        let failure = match before_start(&hook, self.installed) {
            Some(failure) => Err(failure),
            None if !spawned => Err(HookFailure::Spawn(12)),
            None => Ok(()),
        };
        if let Err(failure) = failure {
            self.invariants.not_started(key, hook.verb, failure, self.daemon.number);
            let answer = Answer::HookEnd(key, HookEnd::Failure(failure));
            // The daemon itself finds out, at once; a thread would tell it later.
            let at_once = self.chance.is_enumerated() || self.chance.one_in(2);
            return if at_once { self.answer(&answer) } else { self.tell(answer) };
        }
        let life = if hook.verb == Verb::Add { life } else { None };
        let pid = self.hooks.start(&hook, life, self.daemon.number, Manner::of_failure(manner));
        self.history.push((key, hook.verb, hook.tap));
        let (_, process) = self.hooks.running().find(|(other, _)| *other == pid).expect("it runs");
        if let Err(violation) = self.invariants.started(process, &self.store) {
            self.violate(violation);
        }
        let started = self.hooks.running().filter(|(_, hook)| !hook.found).count();
        if started > self.settings.max_hooks {
            self.violate(format!("{started} hooks run beside those that were found"));
        }
        let delay = self.chance.number(20..=1_200);
        self.clock.after(delay, Happening::Hook(pid));
    }

    /// The daemon looks whether the hook of a failed device can be started by now.
    fn check_hook(&mut self, key: DeviceKey) {
        let hook = self.daemon.dispatcher.as_ref().and_then(|dispatcher| dispatcher.hook(key));
        let Some(hook) = hook else { return };
        let found = before_start(&hook, self.installed).map_or(Ok(()), Err);
        self.dispatch(|dispatcher, now| dispatcher.handle_hook_check(key, found, now));
    }

    fn signal_hook(&mut self, key: DeviceKey, kill: bool) {
        if let Some(pid) = self.hooks.of(key)
            && let Some(step) = self.hooks.signal(pid, kill)
        {
            self.hook_has(pid, step);
        }
    }

    /// A hook goes on with what it does.
    pub(crate) fn hook_step(&mut self, pid: Pid) {
        if let Some(step) = self.hooks.step(pid, &mut self.store) {
            self.hook_has(pid, step);
        }
    }

    fn hook_has(&mut self, pid: Pid, step: Step) {
        match step {
            Step::Hangs => {}
            Step::Done => {
                let delay = self.chance.number(1..=50);
                self.clock.after(delay, Happening::Hook(pid));
            }
            Step::Exit(hook, end) => {
                self.invariants.ended(&hook, end, &self.store);
                if hook.daemon == self.daemon.number && self.daemon.dispatcher.is_some() {
                    self.tell(Answer::HookEnd(hook.key, end));
                }
            }
        }
    }
}

// QEMUs.
impl World {
    fn find_qemu(&mut self, domid: Domid) {
        let number = self.daemon.number;
        let stage = self.qemus.get_mut(domid).map(|qemu| {
            qemu.daemon = number;
            qemu.stage
        });
        match stage {
            None => self.tell(Answer::Service(domid, QemuEvent::Absent)),
            Some(Stage::Running) => self.tell(Answer::Service(domid, QemuEvent::Ready)),
            // It is heard of when it is ready, or has ended.
            Some(Stage::Starting | Stage::Ending) => {}
        }
    }

    fn start_qemu(&mut self, domid: Domid) {
        if self.qemus.get(domid).is_some() {
            return self.violate(format!("a second QEMU for guest {domid}"));
        }
        if self.fail_qemus > 0 || self.chance.mishap(Mishap::Qemu, 6) {
            self.fail_qemus = self.fail_qemus.saturating_sub(1);
            return self.tell(Answer::Service(domid, QemuEvent::Failed(QemuFailure::Exit(1))));
        }
        for (key, directory) in self.store.list().filter(|(key, _)| key.domid == domid) {
            if self.phase(key).is_none() {
                self.qemus.forgive(directory.life);
                // That the last QEMU had taken it up, no daemon will know.
                if directory.hotplug == Some("connected") {
                    self.qemus.told(directory.life, 0, false);
                }
            }
        }
        let id = self.qemus.start(domid, self.daemon.number);
        self.qemu_starts += 1;
        let delay = self.chance.number(100..=1_500);
        self.clock.after(delay, Happening::QemuReady(domid, id));
    }

    pub(crate) fn qemu_ready(&mut self, domid: Domid, id: u32) {
        if !self.qemus.is(domid, id) {
            return;
        }
        if self.chance.mishap(Mishap::Qemu, 8) {
            return self.end_qemu(domid);
        }
        let Some(qemu) = self.qemus.get_mut(domid) else { return };
        if qemu.stage == Stage::Starting {
            qemu.stage = Stage::Running;
            if qemu.daemon == self.daemon.number {
                self.tell(Answer::Service(domid, QemuEvent::Ready));
            }
            self.wake_guest(domid);
        }
    }

    fn stop_qemu(&mut self, domid: Domid) {
        let Some(qemu) = self.qemus.get_mut(domid) else {
            // It has ended by itself, and that will be heard: once.
            if !self.daemon.unheard.contains(&domid) {
                self.tell(Answer::Service(domid, QemuEvent::Absent));
            }
            return;
        };
        qemu.stage = Stage::Ending;
        let id = self.qemus.id(domid).expect("it runs");
        let delay = self.chance.number(10..=1_000);
        self.clock.after(delay, Happening::QemuEnd(domid, id));
    }

    /// A QEMU ends: as it was told to, or not.
    pub(crate) fn end_qemu(&mut self, domid: Domid) {
        let Some(qemu) = self.qemus.end(domid) else { return };
        if qemu.daemon == self.daemon.number && self.daemon.dispatcher.is_some() {
            let asked = qemu.stage == Stage::Ending;
            let heard = if asked {
                QemuEvent::Absent
            } else {
                self.daemon.unheard.insert(domid);
                QemuEvent::Failed(QemuFailure::Exit(1))
            };
            self.tell(Answer::Service(domid, heard));
        }
    }
}
