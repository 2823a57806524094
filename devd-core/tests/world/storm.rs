//! A random life of a world: devices come and go, everything that can go wrong does.

use std::time::Duration;

use devd_core::{DeviceKey, Kind, ServedBy, Settings};

use super::chance::Chance;
use super::{Happening, Spec, World};

/// How a storm went.
#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) steps: u64,
    pub(crate) violation: Option<String>,
    pub(crate) story: Vec<String>,
}

/// Devices that take part: few enough for things to happen to one and the same.
const KINDS: [Kind; 8] =
    [Kind::Vif, Kind::Vif, Kind::Vbd, Kind::Vbd, Kind::Qdisk, Kind::Qdisk, Kind::P9, Kind::Vkbd];

const SCRIPTS: [&str; 16] = [
    "works",
    "works",
    "works",
    "mute",
    "fails-2",
    "reports-1",
    "hangs-1",
    "deaf-1",
    "fails",
    "works+fails",
    "works+deaf",
    "hangs-1+hangs",
    "bad/",
    "missing",
    "locked",
    "uninterpreted",
];

/// Runs a world from this seed for so many steps, then lets it come to rest.
pub(crate) fn storm(seed: u64, steps: u64, tell: bool) -> Storm {
    let mut chance = Chance::seeded(seed);
    let settings = Settings {
        max_hooks: chance.pick(&[2, 1, 4, 16]),
        hook_timeout: Duration::from_secs(chance.pick(&[2, 5, 40])),
        hurry: Duration::from_millis(chance.pick(&[300, 5_000])),
        ..Settings::default()
    };
    let mut world = World::new(chance, settings);
    world.story = tell.then(Vec::new);
    let mut key = world.any_key();
    while world.steps < steps && world.violation.is_none() {
        let longest = world.chance.pick(&[20, 60, 200, 1_000, 6_000]);
        let pause = world.chance.number(0..=longest);
        world.run(pause);
        // What happens to one device in a row is what surprises a daemon most.
        if world.chance.one_in(2) {
            key = world.any_key();
        }
        world.disturb(key);
    }
    if world.daemon.dispatcher.is_none() {
        world.run(60_000);
    }
    world.settle();
    Storm { steps: world.steps, violation: world.violation, story: world.story.unwrap_or_default() }
}

impl World {
    /// Something happens.
    fn disturb(&mut self, key: DeviceKey) {
        let exists = self.store.get(key).is_some();
        match self.chance.number(0..=29) {
            0..=9 if !exists => {
                let spec = self.any_spec(key);
                self.create(&spec);
            }
            0..=1 => {
                let spec = self.any_spec(key);
                self.create(&spec);
            }
            2..=9 if self.store.is_wanted(key) => {
                let patient = self.chance.one_in(2);
                self.detach(key, patient);
            }
            10..=11 => {
                let (offline, patient) = (self.chance.one_in(2), self.chance.one_in(2));
                self.destroy(key.domid, offline, patient);
            }
            12 => self.delete(key),
            13..=14 => self.kexec(key),
            15 if key.kind == Kind::Vif && self.is_in_use(key) => self.rebirth(key),
            16..=17 => self.crash_qemu(key.domid),
            18..=19 if self.daemon.dispatcher.is_some() => {
                self.trace(|| "the daemon dies".to_owned());
                self.stop_daemon();
                let slow = self.chance.one_in(3);
                let delay = self.chance.number(0..=if slow { 30_000 } else { 300 });
                self.clock.after(delay, Happening::Start);
            }
            20 => self.lose_events(),
            21..=24 => self.put_right(key, "works"),
            25 => {
                let path = match self.chance.number(0..=3) {
                    0 => "backend".to_owned(),
                    1 => format!("backend/{}", key.kind.name()),
                    2 => format!("backend/{}/{}", key.kind.name(), key.domid),
                    _ => format!("{key}/state"),
                };
                self.fire(path);
            }
            27 => {
                self.installed = !self.installed;
                self.trace(|| "programs are installed, or taken away".to_owned());
            }
            // Devices are there and not used yet.
            26 => {
                let millis = self.chance.number(0..=20_000);
                self.hold_frontends(millis);
            }
            _ => {}
        }
    }

    fn is_in_use(&self, key: DeviceKey) -> bool {
        let connected = self.store.get(key).is_some_and(|directory| directory.state == 4);
        connected && self.store.is_wanted(key)
    }

    fn any_key(&mut self) -> DeviceKey {
        DeviceKey {
            kind: self.chance.pick(&KINDS),
            domid: self.chance.pick(&[1, 2, 3]),
            devid: self.chance.pick(&[0, 1]),
        }
    }

    fn any_spec(&mut self, key: DeviceKey) -> Spec {
        let script = self.chance.pick(&SCRIPTS);
        let mut spec = Spec::new(key.kind, key.domid, key.devid, script);
        if key.kind.served_by() == ServedBy::NetworkHook && self.chance.one_in(5) {
            spec.vif_type = Some("vif_ioemu");
        }
        if self.chance.one_in(12) {
            spec.script = None;
        }
        if self.chance.one_in(20) {
            spec.vif_type = None;
        }
        if key.kind.served_by() == ServedBy::NetworkHook && self.chance.one_in(20) {
            spec.gatewaydev = Some("eth\0");
        }
        spec
    }
}
