//! Whole lives of guests' devices before a dispatcher: every event that the store sends, every
//! fact that is asked for, and what comes of each action. What it is to do is checked.

use devd_core::{
    Action, BackendPath, DeviceKey, Dispatcher, Domid, HookEnd, HotplugStatus, Notice, Observation,
    Phase, QemuEvent, Removal, Settings, Time, Verb, XenbusState,
};

use crate::DEVICES;

/// The nodes that the toolstack writes, and those that backend, hook and frontend add. Most of
/// them mean nothing to the daemon.
const TOOLSTACK: [&str; 10] = [
    "",
    "/frontend",
    "/frontend-id",
    "/online",
    "/state",
    "/script",
    "/type",
    "/params",
    "/mac",
    "/hotplug-status",
];
const BACKEND: [&str; 4] = ["/feature-sg", "/feature-rx-copy", "/sectors", "/state"];
const HOOK: [&str; 2] = ["/physical-device", "/hotplug-status"];

/// What the store says about a device.
#[derive(Clone, Copy, Debug)]
struct Node {
    state: Option<XenbusState>,
    online: bool,
    hotplug: HotplugStatus,
}

/// What a guest's life has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    hooks: u32,
    qemus_started: u32,
    qemus_stopped: u32,
    attached: u32,
    gone: u32,
    forgotten: u32,
}

/// A dispatcher, and the guests whose devices it has served so far.
#[derive(Debug)]
pub struct Lives {
    dispatcher: Dispatcher,
    now: Time,
    /// The guest that something happens to, in decimal; its devices.
    domid: Domid,
    digits: Vec<u8>,
    nodes: [Node; DEVICES.len()],
    path: Vec<u8>,
    tally: Tally,
    events: u64,
}

impl Lives {
    /// So many guests, with all their devices served.
    #[must_use]
    pub fn of(guests: Domid) -> Self {
        let nothing = Node { state: None, online: false, hotplug: HotplugStatus::Silent };
        let mut lives = Self {
            dispatcher: Dispatcher::new(Settings::default()),
            now: Time::default(),
            domid: 0,
            digits: Vec::new(),
            nodes: [nothing; DEVICES.len()],
            path: Vec::new(),
            tally: Tally::default(),
            events: 0,
        };
        (1..=guests).for_each(|domid| lives.begin(domid));
        lives
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The devices of this guest live to their ends, and others of their names begin to.
    ///
    /// # Panics
    ///
    /// If the dispatcher does anything else than it should.
    pub fn renew(&mut self, domid: Domid) {
        self.end(domid);
        self.begin(domid);
    }

    fn begin(&mut self, domid: Domid) {
        self.turn_to(domid);
        let made = Node {
            state: Some(XenbusState::Initialising),
            online: true,
            hotplug: HotplugStatus::Silent,
        };
        self.nodes = [made; DEVICES.len()];
        (0..DEVICES.len()).for_each(|device| self.happens(device, &TOOLSTACK));
        self.act();
        for device in 0..DEVICES.len() {
            self.reaches(device, XenbusState::InitWait, &BACKEND);
        }
        for device in 0..DEVICES.len() {
            self.reaches(device, XenbusState::Connected, &["/state"]);
        }
        let attached = Tally { hooks: 3, qemus_started: 1, attached: 4, ..Tally::default() };
        assert_eq!(self.tally, attached);
        let key = self.key(0);
        assert_eq!(self.dispatcher.phase(key), Some(Phase::Attached));
    }

    fn end(&mut self, domid: Domid) {
        self.turn_to(domid);
        let served = Node {
            state: Some(XenbusState::Connected),
            online: true,
            hotplug: HotplugStatus::Connected,
        };
        self.nodes = [served; DEVICES.len()];
        for device in 0..DEVICES.len() {
            self.nodes[device].online = false;
            self.happens(device, &["/online"]);
            self.reaches(device, XenbusState::Closing, &["/state"]);
            self.reaches(device, XenbusState::Closed, &["/state"]);
        }
        while let Some(at) = self.dispatcher.poll_timeout() {
            self.now = at;
            self.dispatcher.handle_timeout(at);
            self.act();
        }
        let gone = Tally { hooks: 3, qemus_stopped: 1, gone: 4, forgotten: 1, ..Tally::default() };
        assert_eq!(self.tally, gone);
        assert_eq!(self.dispatcher.phase(self.key(0)), None);
    }

    fn turn_to(&mut self, domid: Domid) {
        use std::io::Write;
        self.domid = domid;
        self.digits.clear();
        write!(self.digits, "{domid}").expect("memory takes bytes");
        self.tally = Tally::default();
    }

    fn key(&self, device: usize) -> DeviceKey {
        let (kind, devid) = DEVICES[device];
        DeviceKey { kind, domid: self.domid, devid }
    }

    fn index(&self, key: DeviceKey) -> usize {
        assert_eq!(key.domid, self.domid);
        let device = DEVICES.iter().position(|device| *device == (key.kind, key.devid));
        device.expect("it is one of the guest's devices")
    }

    fn reaches(&mut self, device: usize, state: XenbusState, nodes: &[&str]) {
        self.nodes[device].state = Some(state);
        self.happens(device, nodes);
        self.act();
    }

    /// The store says that something has happened at these nodes.
    fn happens(&mut self, device: usize, nodes: &[&str]) {
        for node in nodes {
            self.path.clear();
            self.path.extend_from_slice(PATHS[device].0);
            self.path.extend_from_slice(&self.digits);
            self.path.extend_from_slice(PATHS[device].1);
            self.path.extend_from_slice(node.as_bytes());
            self.dispatcher.handle_event(BackendPath::parse(&self.path));
            self.events += 1;
        }
    }

    /// Does what the dispatcher wants done.
    fn act(&mut self) {
        while let Some(action) = self.dispatcher.poll_action() {
            let now = self.now;
            match action {
                Action::Observe(key, want) => {
                    let Node { state, online, hotplug } = self.nodes[self.index(key)];
                    let seen = Observation {
                        want,
                        state,
                        online,
                        hotplug,
                        script: Some(b"/etc/xen/scripts/the-hook"),
                        vif_type: Some(b"vif"),
                        gatewaydev: None,
                        frontend: true,
                    };
                    self.dispatcher.handle_observation(key, &seen, now);
                }
                Action::RunHook(key) => {
                    let hook = self.dispatcher.hook(key).expect("it is to be run");
                    assert_eq!(hook.script, b"/etc/xen/scripts/the-hook");
                    let verb = hook.verb;
                    let device = self.index(key);
                    self.tally.hooks += 1;
                    if verb == Verb::Add {
                        self.nodes[device].hotplug = HotplugStatus::Connected;
                        self.happens(device, &HOOK);
                    }
                    self.dispatcher.handle_hook_end(key, HookEnd::Success, now);
                }
                Action::FindQemu(domid) => {
                    self.dispatcher.handle_qemu(domid, QemuEvent::Absent, now);
                }
                Action::StartQemu(domid) => {
                    self.tally.qemus_started += 1;
                    self.dispatcher.handle_qemu(domid, QemuEvent::Ready, now);
                }
                Action::StopQemu(domid) => {
                    self.tally.qemus_stopped += 1;
                    self.dispatcher.handle_qemu(domid, QemuEvent::Absent, now);
                }
                Action::MarkDetached(key) => {
                    let device = self.index(key);
                    self.nodes[device].hotplug = HotplugStatus::Silent;
                    self.happens(device, &["/hotplug-status"]);
                }
                Action::Remove(key) => {
                    let device = self.index(key);
                    assert_eq!(self.nodes[device].state, Some(XenbusState::Closed));
                    self.nodes[device].state = None;
                    self.dispatcher.handle_removal(key, Removal::Removed, now);
                    self.happens(device, &[""]);
                }
                Action::ForgetGuest(_) => self.tally.forgotten += 1,
                Action::Report(_, Notice::Attached) => self.tally.attached += 1,
                Action::Report(_, Notice::Gone) => self.tally.gone += 1,
                Action::Report(_, Notice::Found | Notice::Closed) => {}
                other => panic!("{other:?} is not to be done"),
            }
        }
    }
}

/// What is before and behind the guest's number in the path of each of [`DEVICES`].
const PATHS: [(&[u8], &[u8]); DEVICES.len()] = [
    (b"backend/vif/", b"/0"),
    (b"backend/vbd/", b"/51712"),
    (b"backend/vbd/", b"/51728"),
    (b"backend/qdisk/", b"/51744"),
];
