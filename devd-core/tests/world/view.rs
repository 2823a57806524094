//! What a scenario does to the world and asks of it.

use devd_core::{DeviceKey, Dispatcher, Domid, Notice, Phase, Reason, ServedBy, Settings, Verb};

use super::World;
use super::chance::Chance;

impl World {
    /// A world where nothing goes wrong by itself, and a daemon in it.
    pub(crate) fn calm() -> Self {
        Self::calm_with(Settings::default())
    }

    pub(crate) fn calm_with(settings: Settings) -> Self {
        let mut world = Self::new(Chance::calm(), settings);
        world.story = Some(Vec::new());
        world
    }

    /// Lets time pass until it is so: not more than a minute.
    pub(crate) fn run_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..60_000 {
            if is_so(self) {
                return;
            }
            self.run(1);
            self.expect_no_violation();
        }
        panic!("it does not become so\n{}", self.story.clone().unwrap_or_default().join("\n"));
    }

    /// The kernel takes so long to do anything.
    pub(crate) fn hold_backends(&mut self, millis: u64) {
        self.backends_held = self.clock.now() + millis;
    }

    /// The guests take so long to do anything.
    pub(crate) fn hold_frontends(&mut self, millis: u64) {
        self.frontends_held = self.clock.now() + millis;
    }

    /// The daemon takes so long to read its events.
    pub(crate) fn hold_daemon(&mut self, millis: u64) {
        self.daemon_held = self.clock.now() + millis;
    }

    /// A watch event.
    pub(crate) fn fire(&mut self, path: String) {
        self.store.fire(path);
        self.react();
    }

    /// All events that are not read are lost.
    pub(crate) fn lose_events(&mut self) {
        self.trace(|| "events are lost".to_owned());
        self.store.lose_events();
        self.react();
    }

    /// A guest's QEMU crashes.
    pub(crate) fn crash_qemu(&mut self, domid: Domid) {
        self.trace(|| format!("the QEMU of {domid} crashes"));
        self.end_qemu(domid);
        self.react();
    }

    /// The daemon is told that it will end.
    pub(crate) fn close_dispatcher(&mut self) {
        self.daemon.dispatcher.as_mut().expect("the daemon runs").close();
    }

    pub(crate) fn phase(&self, key: DeviceKey) -> Option<Phase> {
        self.daemon.dispatcher.as_ref().and_then(|dispatcher| dispatcher.phase(key))
    }

    pub(crate) fn state(&self, key: DeviceKey) -> Option<u8> {
        self.store.get(key).map(|directory| directory.state)
    }

    pub(crate) fn hotplug(&self, key: DeviceKey) -> Option<&'static str> {
        self.store.get(key).and_then(|directory| directory.hotplug)
    }

    /// Is it connected, does the daemon know, and would the next daemon?
    pub(crate) fn is_served(&self, key: DeviceKey) -> bool {
        let marked =
            key.kind.served_by() == ServedBy::Elsewhere || self.hotplug(key) == Some("connected");
        self.phase(key) == Some(Phase::Attached) && self.state(key) == Some(4) && marked
    }

    /// Is nothing left of it, neither in the store nor in the daemon?
    pub(crate) fn is_gone(&self, key: DeviceKey) -> bool {
        self.state(key).is_none() && self.phase(key).is_none()
    }

    /// The hooks that were run for it: `add`, `remove`, `add tap`, `remove tap`.
    pub(crate) fn hooks_of(&self, key: DeviceKey) -> Vec<&'static str> {
        let of_it = self.history.iter().filter(|(other, ..)| *other == key);
        of_it
            .map(|(_, verb, tap)| match (verb, tap) {
                (Verb::Add, false) => "add",
                (Verb::Add, true) => "add tap",
                (Verb::Remove, false) => "remove",
                (Verb::Remove, true) => "remove tap",
            })
            .collect()
    }

    /// What this daemon has reported of it.
    pub(crate) fn notices_of(&self, key: DeviceKey) -> Vec<Notice> {
        let of_it = self.daemon.notices.iter().filter(|(other, _)| *other == key);
        of_it.map(|(_, notice)| *notice).collect()
    }

    /// Why it was not served, as this daemon has told.
    pub(crate) fn failures_of(&self, key: DeviceKey) -> Vec<Reason> {
        let of_it = self.daemon.failures.iter().filter(|(other, _)| *other == key);
        of_it.map(|(_, reason)| *reason).collect()
    }

    pub(crate) fn known_devices(&self) -> usize {
        self.daemon
            .dispatcher
            .as_ref()
            .map_or(0, |dispatcher: &Dispatcher| dispatcher.devices().count())
    }
}
