//! The dispatcher among people who do anything, in any order: what it asks for is always
//! possible, and when all devices are gone it knows of none.
//!
//! The input: a byte of settings, then operations of one to four bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use devd_core::{
    Action, BackendPath, DeviceKey, Dispatcher, Domid, HookEnd, HookFailure, HotplugStatus, Kind,
    Leaf, Notice, Observation, Phase, QemuEvent, QemuFailure, QemuState, Removal, Run, Settings,
    Time, Verb, Want, XenbusState,
};

pub(crate) fn check(input: &[u8]) {
    let mut bytes = Bytes(input);
    let mut people = People::new(bytes.next());
    while !bytes.0.is_empty() {
        people.operate(&mut bytes);
        people.check();
    }
    people.end_the_world();
}

/// The rest of the input; zeros behind its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn key(&mut self) -> DeviceKey {
        const KINDS: [Kind; 8] = [
            Kind::Vif,
            Kind::Vbd,
            Kind::Qdisk,
            Kind::P9,
            Kind::Vkbd,
            Kind::Vbd3,
            Kind::Vif,
            Kind::Qdisk,
        ];
        let byte = usize::from(self.next());
        DeviceKey {
            kind: KINDS[byte % 8],
            domid: if byte & 8 == 0 { 1 } else { 2 },
            devid: u32::from(byte & 16 != 0),
        }
    }
}

/// One of several, by a byte.
fn pick<T: Copy>(from: impl IntoIterator<Item = T>, byte: u8) -> Option<T> {
    let from: Vec<T> = from.into_iter().collect();
    from.get(usize::from(byte) % from.len().max(1)).copied()
}

/// Everybody around the dispatcher, and what they have been asked to do.
struct People {
    dispatcher: Dispatcher,
    now: Time,
    max_hooks: usize,
    /// Are actions carried out as soon as they are there?
    eager: bool,
    /// Does the store refuse to let `hotplug-status` say anything?
    refuses: bool,
    closing: bool,
    /// Devices that the dispatcher was told of.
    named: BTreeSet<DeviceKey>,
    looks: BTreeMap<DeviceKey, Want>,
    hooks: BTreeMap<DeviceKey, Verb>,
    /// Those of them that ran already: they are not asked whether they may.
    found: BTreeSet<DeviceKey>,
    /// The device whose hook has ended just now: its second pass may follow.
    ended: Option<DeviceKey>,
    /// QEMUs that are there, as far as the dispatcher was told.
    qemus: BTreeSet<Domid>,
    removals: BTreeSet<DeviceKey>,
    /// Actions since the last operation.
    actions: usize,
}

impl People {
    fn new(settings: u8) -> Self {
        let max_hooks = 1 + usize::from(settings & 3);
        Self {
            dispatcher: Dispatcher::new(Settings { max_hooks, ..Settings::default() }),
            now: Time::from_millis(1_000),
            max_hooks,
            eager: settings & 4 == 0,
            refuses: settings & 8 != 0,
            closing: false,
            named: BTreeSet::new(),
            looks: BTreeMap::new(),
            hooks: BTreeMap::new(),
            found: BTreeSet::new(),
            ended: None,
            qemus: BTreeSet::new(),
            removals: BTreeSet::new(),
            actions: 0,
        }
    }

    fn operate(&mut self, bytes: &mut Bytes<'_>) {
        self.actions = 0;
        self.ended = None;
        let operation = bytes.next();
        match operation % 16 {
            0..=2 => self.event(bytes),
            3..=6 => self.answer_look(bytes),
            7 => {
                if let Some(key) = pick(self.looks.keys().copied(), bytes.next()) {
                    self.looks.remove(&key);
                    self.dispatcher.handle_observation_refused(key, self.now);
                }
            }
            8 => {
                if let Some(key) = pick(self.hooks.keys().copied(), bytes.next()) {
                    self.end_hook(key, hook_end(bytes.next()));
                }
            }
            9 => self.qemu_event(1 + Domid::from(operation >> 7), bytes.next()),
            10 => {
                if let Some(key) = pick(self.removals.iter().copied(), bytes.next()) {
                    let ends = [Removal::Removed, Removal::Changed, Removal::Refused];
                    self.removals.remove(&key);
                    self.dispatcher.handle_removal(
                        key,
                        ends[usize::from(bytes.next()) % 3],
                        self.now,
                    );
                }
            }
            11 => self.pass(1 << (operation >> 4)),
            12 => match self.dispatcher.poll_timeout() {
                Some(at) => self.pass(at.as_millis().saturating_sub(self.now.as_millis())),
                None => self.pass(0),
            },
            13 => self.rarely(bytes),
            14 => {
                for _ in 0..=operation >> 4 {
                    self.act();
                }
            }
            _ => self.stray(bytes),
        }
        while self.eager && self.act() {}
    }

    fn event(&mut self, bytes: &mut Bytes<'_>) {
        let key = bytes.key();
        let leaves = [Leaf::State, Leaf::Online, Leaf::Directory, Leaf::Script, Leaf::Type];
        let path = match bytes.next() % 16 {
            leaf @ 0..=9 => BackendPath::Device(key, leaves[usize::from(leaf) % 5]),
            10 => BackendPath::Device(key, Leaf::Other),
            11 => BackendPath::Guest(key.kind, key.domid),
            12 => BackendPath::Kind(key.kind),
            13 => BackendPath::Backend,
            14 => BackendPath::UnknownKind(b"floppy"),
            _ => BackendPath::Foreign,
        };
        if let BackendPath::Device(key, _) = path {
            self.named.insert(key);
        }
        self.dispatcher.handle_event(path);
    }

    fn answer_look(&mut self, bytes: &mut Bytes<'_>) {
        let Some(key) = pick(self.looks.keys().copied(), bytes.next()) else { return };
        let Some(want) = self.looks.remove(&key) else { return };
        let (state, facts) = (bytes.next(), bytes.next());
        let fact = |bit: u8| facts & 1 << bit != 0;
        let seen = Observation {
            want,
            state: (state % 10 < 9).then(|| XenbusState::parse(&[b'0' + state % 10])),
            online: fact(0),
            hotplug: HotplugStatus::parse(
                [None, Some(&b""[..]), Some(b"connected"), Some(b"error")]
                    [usize::from(facts >> 1 & 3)],
            ),
            script: fact(3).then_some(b"hook"),
            vif_type: fact(4).then_some(if fact(5) { b"vif_ioemu" } else { b"vif" }),
            gatewaydev: fact(6).then_some(b"xenbr0"),
            frontend: fact(7),
        };
        self.dispatcher.handle_observation(key, &seen, self.now);
    }

    fn end_hook(&mut self, key: DeviceKey, end: HookEnd) {
        self.hooks.remove(&key);
        self.found.remove(&key);
        self.ended = Some(key);
        self.dispatcher.handle_hook_end(key, end, self.now);
    }

    fn qemu_event(&mut self, domid: Domid, byte: u8) {
        let event = match byte % 4 {
            0 | 1 => QemuEvent::Ready,
            2 => QemuEvent::Absent,
            _ => QemuEvent::Failed(QemuFailure::Exit(1)),
        };
        let believed = self.dispatcher.qemu(domid);
        if believed == Some(QemuState::Starting) && !self.qemus.contains(&domid) {
            return; // It has not even been started.
        }
        if event != QemuEvent::Ready {
            self.qemus.remove(&domid);
        } else if believed == Some(QemuState::Finding) {
            self.qemus.insert(domid);
        }
        self.dispatcher.handle_qemu(domid, event, self.now);
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
        self.dispatcher.handle_timeout(self.now);
        let next = self.dispatcher.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "{next:?} is past at {:?}", self.now);
    }

    fn rarely(&mut self, bytes: &mut Bytes<'_>) {
        let key = bytes.key();
        match bytes.next() % 8 {
            0..=2 => self.dispatcher.handle_resync(),
            3 | 4 => self.dispatcher.handle_qemu_found(key.domid),
            5 | 6 if !self.named.contains(&key) => {
                let verb = [Verb::Add, Verb::Remove][usize::from(bytes.next() % 2)];
                self.dispatcher.handle_hook_found(key, verb, false, self.now);
                if self.dispatcher.phase(key).is_some() {
                    self.named.insert(key);
                    self.hooks.insert(key, verb);
                    self.found.insert(key);
                }
            }
            7 if bytes.next() == 0xff => {
                self.closing = true;
                self.dispatcher.close();
            }
            _ => {}
        }
    }

    /// What nobody has asked for changes nothing.
    fn stray(&mut self, bytes: &mut Bytes<'_>) {
        let key = bytes.key();
        let before: Vec<_> = self.dispatcher.devices().collect();
        let phase = self.dispatcher.phase(key);
        let runs = |run| matches!(run, Run::Running | Run::Stopping);
        match phase {
            Some(Phase::Attaching(run) | Phase::Detaching(run)) if runs(run) => {}
            _ => self.dispatcher.handle_hook_end(key, hook_end(bytes.next()), self.now),
        }
        if phase != Some(Phase::Removing) {
            self.dispatcher.handle_removal(key, Removal::Removed, self.now);
        }
        assert!(self.dispatcher.devices().eq(before));
    }

    /// Carries out an action, if there is one.
    fn act(&mut self) -> bool {
        let Some(action) = self.dispatcher.poll_action() else { return false };
        self.actions += 1;
        match action {
            Action::Observe(key, want) => {
                self.check_known(key);
                let facts = [Want::STATE, Want::ONLINE, Want::HOTPLUG, Want::HOOK, Want::FRONTEND];
                assert!(facts.iter().any(|fact| want.contains(*fact)));
                assert!(self.looks.insert(key, want).is_none(), "two looks at {key} at once");
            }
            Action::RunHook(key) => {
                let hook = self.dispatcher.hook(key).expect("a hook that is described");
                assert!(!self.closing || !self.eager || self.ended == Some(key) && hook.tap);
                let other = self.hooks.insert(key, hook.verb);
                assert!(other.is_none(), "two hooks of {key} at once");
                assert!(self.hooks.len() - self.found.len() <= self.max_hooks);
            }
            Action::CheckHook(key) => {
                self.check_known(key);
                let failures = [HookFailure::NotFound, HookFailure::NotExecutable];
                let found = match self.actions % 3 {
                    0 => Ok(()),
                    i => Err(failures[i - 1]),
                };
                self.dispatcher.handle_hook_check(key, found, self.now);
            }
            Action::StopHook(key) | Action::KillHook(key) => {
                assert!(!self.eager || self.hooks.contains_key(&key), "no hook of {key} runs");
            }
            Action::Remove(key) => {
                self.check_known(key);
                assert!(self.removals.insert(key), "{key} is removed twice at once");
            }
            Action::Reset(key) => self.mark(key, HotplugStatus::Silent),
            Action::MarkConnected(key) => self.mark(key, HotplugStatus::Connected),
            Action::Fail(key, _) => self.mark(key, HotplugStatus::Refused),
            Action::MarkDetached(key) | Action::Close(key) | Action::Rewind(key) => {
                assert!(self.named.contains(&key))
            }
            Action::Report(key, notice) => {
                assert!(self.named.contains(&key));
                assert!(notice != Notice::Gone || !self.hooks.contains_key(&key));
            }
            Action::FindQemu(domid) => {
                assert!(!self.eager || !self.qemus.contains(&domid));
            }
            Action::StartQemu(domid) => {
                assert!(!self.closing || !self.eager);
                assert!(self.qemus.insert(domid), "two QEMUs of guest {domid}");
            }
            Action::StopQemu(domid) => {
                assert!(!self.eager || self.qemus.contains(&domid), "guest {domid} has no QEMU");
            }
            Action::ForgetGuest(_) => {}
        }
        true
    }

    fn mark(&mut self, key: DeviceKey, mark: HotplugStatus) {
        assert!(self.named.contains(&key));
        if self.refuses {
            self.dispatcher.handle_mark_refused(key, mark, self.now);
        }
    }

    fn check_known(&self, key: DeviceKey) {
        assert!(self.named.contains(&key));
        assert!(!self.eager || self.dispatcher.phase(key).is_some(), "{key} is forgotten");
    }

    fn check(&self) {
        let devices = self.dispatcher.devices().count();
        let guests = self.dispatcher.qemus().count();
        assert!(self.dispatcher.devices().all(|(key, _)| self.named.contains(&key)));
        assert!(self.dispatcher.running_hooks() <= self.max_hooks);
        if self.eager {
            assert_eq!(self.dispatcher.running_hooks(), self.hooks.len() - self.found.len());
            let bound = 4 + 8 * (self.named.len() + guests);
            assert!(self.actions <= bound, "{} actions, {devices} devices", self.actions);
        }
        if devices == 0 && guests == 0 {
            assert_eq!(self.dispatcher.poll_timeout(), None);
        }
    }

    /// All devices, hooks and QEMUs end: nothing is left.
    fn end_the_world(&mut self) {
        if self.closing {
            return;
        }
        self.eager = false;
        self.dispatcher.handle_resync();
        for _ in 0..100 {
            while self.act() {}
            let looks = std::mem::take(&mut self.looks);
            for (key, want) in looks {
                let gone = Observation { want, ..Observation::GONE };
                self.dispatcher.handle_observation(key, &gone, self.now);
            }
            for key in self.hooks.keys().copied().collect::<Vec<_>>() {
                self.end_hook(key, HookEnd::Success);
            }
            for key in std::mem::take(&mut self.removals) {
                self.dispatcher.handle_removal(key, Removal::Removed, self.now);
            }
            let services: Vec<_> = self.dispatcher.qemus().collect();
            for (domid, state) in services {
                let asked =
                    matches!(state, QemuState::Finding | QemuState::Starting | QemuState::Stopping);
                if asked {
                    self.qemu_event(domid, 2);
                }
            }
            if let Some(at) = self.dispatcher.poll_timeout() {
                self.pass(at.as_millis().saturating_sub(self.now.as_millis()));
            }
            while self.act() {}
            let none = self.dispatcher.devices().next().is_none()
                && self.dispatcher.qemus().next().is_none();
            if none {
                assert_eq!(self.dispatcher.poll_timeout(), None);
                assert_eq!(self.dispatcher.running_hooks(), 0);
                assert!(self.dispatcher.is_settled());
                return;
            }
        }
        panic!(
            "left: {:?}, {:?}",
            self.dispatcher.devices().collect::<Vec<_>>(),
            self.dispatcher.qemus().collect::<Vec<_>>()
        );
    }
}

fn hook_end(byte: u8) -> HookEnd {
    match byte % 8 {
        0..=3 => HookEnd::Success,
        4 => HookEnd::Unknown,
        5 => HookEnd::Failure(HookFailure::Exit(1)),
        6 if byte & 8 == 0 => HookEnd::Failure(HookFailure::BadName),
        6 if byte & 16 == 0 => HookEnd::Failure(HookFailure::NotFound),
        6 => HookEnd::Failure(HookFailure::BadGateway),
        _ => HookEnd::Failure(HookFailure::Reported),
    }
}
