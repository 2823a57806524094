//! A simulated world around the real dispatcher: store, kernel, guests, QEMUs, hooks and
//! toolstack, and a daemon that carries actions out with delay and may die at any point.
//!
//! Everything that happens has its time; what a party does about it, it does some time later.
//! What must never happen is checked as it happens ([`World::violation`]), what must have
//! happened in the end by [`World::settle`].

// Each test program uses a part of it.
#![allow(dead_code)]

pub(crate) mod chance;
mod clock;
mod daemon;
pub(crate) mod explore;
mod hooks;
mod invariants;
mod kernel;
mod qemu;
mod quiet;
pub(crate) mod store;
pub(crate) mod storm;
mod toolstack;
mod view;

use std::collections::BTreeMap;

use devd_core::{
    BackendPath, DeviceKey, Dispatcher, Domid, Leaf, ServedBy, Settings, Time, Verb, Want,
};

use chance::Chance;
use clock::Clock;
use daemon::{Answer, Daemon};
use hooks::{Hooks, Pid};
use invariants::Invariants;
use kernel::Frontends;
use qemu::Qemus;
use store::{Life, Store};

pub(crate) use store::Spec;

/// What happens at some time. Numbers tell which daemon it happens to: a dead one hears and
/// does nothing.
#[derive(Clone, Debug)]
enum Happening {
    /// The daemon reads events.
    Events(u32),
    /// The daemon carries out an action.
    Act(u32),
    /// The daemon takes a look.
    Look(u32, DeviceKey, Want),
    /// The daemon hears of something that it had asked for.
    Answer(u32, Answer),
    /// The daemon's timer goes off.
    Alarm(u32),
    /// The kernel's backend sees that a device has changed.
    Backend(DeviceKey),
    /// The guest's frontend sees it.
    Frontend(DeviceKey),
    /// The guest's QEMU sees it.
    Qemu(DeviceKey),
    /// A hook goes on.
    Hook(Pid),
    QemuReady(Domid, u32),
    QemuEnd(Domid, u32),
    /// The toolstack has waited long enough for this one to go.
    Impatience(DeviceKey, Life),
    /// A daemon is started.
    Start,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) chance: Chance,
    pub(crate) store: Store,
    pub(crate) hooks: Hooks,
    pub(crate) qemus: Qemus,
    pub(crate) daemon: Daemon,
    frontends: Frontends,
    clock: Clock<Happening>,
    invariants: Invariants,
    /// Until then the kernel does nothing, nor do the guests, and the daemon reads no events.
    backends_held: u64,
    frontends_held: u64,
    daemon_held: u64,
    /// Daemons started so far.
    starts: u32,
    /// All hooks that were run.
    pub(crate) history: Vec<(DeviceKey, Verb, bool)>,
    pub(crate) qemu_starts: u32,
    /// So many more will fail to start.
    pub(crate) fail_qemus: u32,
    /// Are the programs there whose names say that they are missing?
    pub(crate) installed: bool,
    /// Does the store refuse all marks?
    pub(crate) refuse_marks: bool,
    /// Directories that the daemon has removed.
    pub(crate) removals: u32,
    pub(crate) steps: u64,
    /// Actions that the daemon has carried out, and the marks that it has written.
    pub(crate) actions: u64,
    marks: BTreeMap<DeviceKey, u64>,
    /// What has happened that must not.
    pub(crate) violation: Option<String>,
    /// What happened, told one line at a time, if anybody wants to know.
    pub(crate) story: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(chance: Chance, settings: Settings) -> Self {
        let mut world = Self {
            settings,
            chance,
            store: Store::default(),
            hooks: Hooks::default(),
            qemus: Qemus::default(),
            daemon: Daemon::new(0, None),
            frontends: Frontends::default(),
            clock: Clock::new(),
            invariants: Invariants::default(),
            backends_held: 0,
            frontends_held: 0,
            daemon_held: 0,
            starts: 0,
            history: Vec::new(),
            qemu_starts: 0,
            fail_qemus: 0,
            installed: false,
            refuse_marks: false,
            removals: 0,
            steps: 0,
            actions: 0,
            marks: BTreeMap::new(),
            violation: None,
            story: None,
        };
        world.start_daemon();
        world.react();
        world
    }

    pub(crate) fn time(&self) -> Time {
        Time::from_millis(self.clock.now())
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, millis: u64) {
        let until = self.clock.now() + millis;
        while self.violation.is_none() && self.step(until) {}
    }

    /// The next thing happens, if it is not after this time.
    fn step(&mut self, until: u64) -> bool {
        let Some(happening) = self.clock.advance(until) else { return false };
        self.steps += 1;
        self.store.set_time(self.clock.now());
        self.happen(happening);
        self.react();
        true
    }

    fn happen(&mut self, happening: Happening) {
        let number = self.daemon.number;
        match happening {
            Happening::Events(to) if to == number => self.read_events(),
            Happening::Act(to) if to == number => self.act(),
            Happening::Look(to, key, want) if to == number => self.look(key, want),
            Happening::Answer(to, answer) if to == number => self.answer(&answer),
            Happening::Alarm(to) if to == number => self.alarm(),
            Happening::Events(_)
            | Happening::Act(_)
            | Happening::Look(..)
            | Happening::Answer(..)
            | Happening::Alarm(_) => {}
            Happening::Backend(key) if self.clock.now() < self.backends_held => {
                self.clock.after(1_000, Happening::Backend(key));
            }
            Happening::Backend(key) => kernel::backend(&mut self.store, key),
            Happening::Frontend(key) if self.clock.now() < self.frontends_held => {
                self.clock.after(1_000, Happening::Frontend(key));
            }
            Happening::Frontend(key) => self.frontends.step(&mut self.store, key),
            Happening::Qemu(key) => {
                if let Err(violation) = self.qemus.step(&mut self.store, key) {
                    self.violate(violation);
                }
            }
            Happening::Hook(pid) => self.hook_step(pid),
            Happening::QemuReady(domid, id) => self.qemu_ready(domid, id),
            Happening::QemuEnd(domid, id) if self.qemus.is(domid, id) => self.end_qemu(domid),
            Happening::QemuEnd(..) => {}
            Happening::Impatience(key, life) => self.lose_patience(key, life),
            Happening::Start => self.start_daemon(),
        }
    }

    /// Everybody who watches what has changed will see to it, each at some time.
    fn react(&mut self) {
        for key in self.store.take_changed() {
            self.trace_device(key);
            if self.store.get(key).is_none() {
                // The toolstack sees to the other side.
                if self.store.frontend(key).is_some() {
                    self.store.set_frontend(key, None);
                    self.store.take_changed();
                }
                if !self.invariants.known.contains(&key) {
                    self.invariants.write_off(key);
                }
            }
            self.wake(key);
        }
        if self.chance.is_enumerated() {
            // The dispatcher does nothing at these.
            let other = |path: &str| {
                matches!(BackendPath::parse(path.as_bytes()), BackendPath::Device(_, Leaf::Other))
            };
            return self.store.drop_events(other);
        }
        if self.store.has_events() && self.daemon.dispatcher.is_some() && !self.daemon.reading {
            self.daemon.reading = true;
            let slow = self.chance.one_in(40);
            let delay = self.chance.number(0..=if slow { 2_000 } else { 15 });
            let held = self.daemon_held.saturating_sub(self.clock.now());
            self.clock.after(delay.max(held), Happening::Events(self.daemon.number));
        }
    }

    fn wake(&mut self, key: DeviceKey) {
        if self.chance.is_enumerated() {
            return;
        }
        for (who, latest) in [
            (Happening::Backend(key), 40),
            (Happening::Frontend(key), 60),
            (Happening::Qemu(key), 60),
        ] {
            let served_by_qemu = key.kind.served_by() == ServedBy::Qemu;
            let concerned = match who {
                Happening::Qemu(_) => served_by_qemu,
                Happening::Backend(_) => !served_by_qemu,
                _ => true,
            };
            if concerned {
                let delay = self.chance.number(1..=latest);
                self.clock.after(delay, who);
            }
        }
    }

    /// A QEMU looks at all that its guest has.
    fn wake_guest(&mut self, domid: Domid) {
        for key in self.store.keys().into_iter().filter(|key| key.domid == domid) {
            self.wake(key);
        }
    }

    fn violate(&mut self, violation: String) {
        self.trace(|| format!("VIOLATION {violation}"));
        self.violation.get_or_insert(violation);
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9} {}", self.clock.now(), line()));
        }
    }

    fn trace_device(&mut self, key: DeviceKey) {
        if self.story.is_some() {
            let frontend = self.store.frontend(key);
            let line = match self.store.get(key) {
                None => format!("    {key}: no directory, frontend {frontend:?}"),
                Some(directory) => format!(
                    "    {key}: life {} state {} online {} hotplug {:?} frontend {frontend:?}",
                    directory.life, directory.state, directory.online, directory.hotplug
                ),
            };
            self.trace(|| line);
        }
    }

    fn dispatcher(&self) -> &Dispatcher {
        self.daemon.dispatcher.as_ref().expect("the daemon runs")
    }
}
