//! Drives a dispatcher by single events and observations, and returns the actions that follow.

#![allow(dead_code, reason = "each program uses its part of it")]

use devd_core::{
    Action, BackendPath, DeviceKey, Dispatcher, HookEnd, HotplugStatus, Kind, Observation, Phase,
    QemuEvent, Settings, Time, Want, XenbusState,
};

pub(crate) const VIF: DeviceKey = DeviceKey { kind: Kind::Vif, domid: 1, devid: 0 };
pub(crate) const VBD: DeviceKey = DeviceKey { kind: Kind::Vbd, domid: 1, devid: 0 };
pub(crate) const QDISK: DeviceKey = DeviceKey { kind: Kind::Qdisk, domid: 1, devid: 0 };
pub(crate) const P9: DeviceKey = DeviceKey { kind: Kind::P9, domid: 1, devid: 0 };

/// All facts of a device that is wanted, and whose hook can be run.
pub(crate) fn facts(state: XenbusState, hotplug: HotplugStatus) -> Observation<'static> {
    Observation {
        want: Want::STATE | Want::ONLINE | Want::HOTPLUG | Want::HOOK | Want::FRONTEND,
        state: Some(state),
        online: true,
        hotplug,
        script: Some(b"script"),
        vif_type: Some(b"vif"),
        gatewaydev: None,
        frontend: true,
    }
}

pub(crate) fn silent(state: XenbusState) -> Observation<'static> {
    facts(state, HotplugStatus::Silent)
}

/// A dispatcher, and a clock for it.
pub(crate) struct Driver {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) now: u64,
}

impl Driver {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self { dispatcher: Dispatcher::new(settings), now: 1_000 }
    }

    pub(crate) fn time(&self) -> Time {
        Time::from_millis(self.now)
    }

    /// All that is to be done now.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.dispatcher.poll_action()).collect()
    }

    pub(crate) fn event(&mut self, key: DeviceKey) {
        self.dispatcher.handle_event(BackendPath::parse(format!("{key}/state").as_bytes()));
    }

    /// What a look has found that began before.
    pub(crate) fn seen(&mut self, key: DeviceKey, seen: Observation<'_>) -> Vec<Action> {
        self.dispatcher.handle_observation(key, &seen, self.time());
        self.actions()
    }

    /// A look from its cause to its result.
    pub(crate) fn look(&mut self, key: DeviceKey, seen: Observation<'_>) -> Vec<Action> {
        self.event(key);
        self.actions();
        self.seen(key, seen)
    }

    pub(crate) fn hook_ends(&mut self, key: DeviceKey, end: HookEnd) -> Vec<Action> {
        self.dispatcher.handle_hook_end(key, end, self.time());
        self.actions()
    }

    pub(crate) fn mark_refused(&mut self, key: DeviceKey, mark: HotplugStatus) {
        self.dispatcher.handle_mark_refused(key, mark, self.time());
        assert_eq!(self.actions(), []);
    }

    pub(crate) fn qemu(&mut self, event: QemuEvent) -> Vec<Action> {
        self.dispatcher.handle_qemu(1, event, self.time());
        self.actions()
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, millis: u64) -> Vec<Action> {
        self.now += millis;
        self.dispatcher.handle_timeout(self.time());
        self.actions()
    }

    pub(crate) fn phase(&self, key: DeviceKey) -> Option<Phase> {
        self.dispatcher.phase(key)
    }

    /// A device of the kernel's that is served.
    pub(crate) fn attach(&mut self, key: DeviceKey) {
        assert!(self.look(key, silent(XenbusState::InitWait)).contains(&Action::RunHook(key)));
        self.hook_ends(key, HookEnd::Success);
        self.seen(key, facts(XenbusState::InitWait, HotplugStatus::Connected));
        assert_eq!(self.phase(key), Some(Phase::Attached));
    }

    /// A served device, until its directory is being removed.
    pub(crate) fn remove(&mut self, key: DeviceKey) {
        let closed = Observation { online: false, ..silent(XenbusState::Closed) };
        assert!(self.look(key, closed).contains(&Action::RunHook(key)));
        self.hook_ends(key, HookEnd::Success);
        assert_eq!(self.wait(200), [Action::Remove(key)]);
    }

    /// A guest's QEMU that serves this device.
    pub(crate) fn serve(&mut self, key: DeviceKey) {
        self.look(key, silent(XenbusState::Initialising));
        self.qemu(QemuEvent::Absent);
        self.seen(key, silent(XenbusState::Initialising));
        self.qemu(QemuEvent::Ready);
        assert_eq!(self.phase(key), Some(Phase::Attached));
    }
}
