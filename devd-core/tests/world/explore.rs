//! The world as a search of all its states sees it: what can happen next, one thing at a time,
//! and what tells two states apart.
//!
//! Every party takes its steps in any order and takes any time for them. Only the deadlines of the
//! daemon are points in time: the earliest may pass before or after anything else happens.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

use devd_core::{DeviceKey, Notice, ServedBy, Settings, Time};

use super::chance::{Chance, Choices};
use super::daemon::Answer;
use super::store::Spec;
use super::{Happening, World, kernel};

/// Something that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// The daemon carries out an action, or a look when there is no other action.
    Act,
    /// The daemon reads the events that are there.
    Events,
    /// The daemon's earliest deadline passes.
    Deadline,
    /// The same, although somebody has something to do.
    EarlyDeadline,
    /// The kernel's backend, the guest's frontend or the guest's QEMU takes a step.
    Backend(DeviceKey),
    Frontend(DeviceKey),
    Qemu(DeviceKey),
    /// Something that was under way comes to its end.
    Happen(usize),
    /// The toolstack makes a device after this pattern.
    Create(usize),
    /// The toolstack lets go of a device.
    Detach(DeviceKey),
    /// The guest is destroyed; are its devices told that they are not wanted?
    Destroy(u16, bool),
    /// The directory vanishes.
    Vanish(DeviceKey),
    /// A node that is missing or wrong is put right.
    PutRight(DeviceKey),
    /// Missing programs are installed.
    Install,
    /// The guest starts another kernel.
    Kexec(DeviceKey),
    /// The daemon dies, and another will be started.
    Restart,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Act => f.write_str("the daemon acts"),
            Self::Events => f.write_str("the daemon reads its events"),
            Self::Deadline | Self::EarlyDeadline => f.write_str("a deadline of the daemon passes"),
            Self::Backend(key) => write!(f, "the backend of {key} takes a step"),
            Self::Frontend(key) => write!(f, "the frontend of {key} takes a step"),
            Self::Qemu(key) => write!(f, "QEMU takes a step for {key}"),
            Self::Happen(_) => f.write_str("something comes to its end"),
            Self::Create(_) => f.write_str("the toolstack makes a device"),
            Self::Detach(key) => write!(f, "the toolstack lets go of {key}"),
            Self::Destroy(domid, _) => write!(f, "guest {domid} is destroyed"),
            Self::Vanish(key) => write!(f, "the directory of {key} vanishes"),
            Self::PutRight(key) => write!(f, "{key} is put right"),
            Self::Install => f.write_str("programs are installed"),
            Self::Kexec(key) => write!(f, "the guest of {key} starts another kernel"),
            Self::Restart => f.write_str("the daemon dies"),
        }
    }
}

/// What may happen, and how often.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Plan {
    pub(crate) creations: u8,
    pub(crate) restarts: u8,
    pub(crate) vanishings: u8,
    pub(crate) repairs: u8,
    pub(crate) kexecs: u8,
    /// Deadlines that pass although somebody has something to do: that one is late.
    pub(crate) late: u8,
    /// Devices may be detached, and their guest destroyed.
    pub(crate) detach: bool,
    pub(crate) destroy: bool,
}

/// A world in which everything that can happen is tried.
#[derive(Clone, Debug)]
pub(crate) struct Explored {
    pub(crate) world: World,
    pub(crate) plan: Plan,
}

/// So many actions a device may take without anything else happening: more is a loop.
const ACTIONS_AT_REST: u64 = 40;
/// So many deadlines may pass until all has come to rest.
const DEADLINES_TO_REST: usize = 40;

impl Explored {
    pub(crate) fn new(choices: Choices, settings: Settings, plan: Plan) -> Self {
        Self { world: World::new(Chance::enumerated(choices), settings), plan }
    }

    /// All that may happen next, possible or not.
    pub(crate) fn moves(&self, specs: &[Spec]) -> Vec<Move> {
        let (world, plan) = (&self.world, &self.plan);
        let mut moves = self.own_moves();
        // The daemon hears of deadlines when it has carried out all else.
        if self.has_deadline() && moves.first() != Some(&Move::Act) {
            let party =
                |next: &Move| matches!(next, Move::Backend(_) | Move::Frontend(_) | Move::Qemu(_));
            let busy =
                moves.iter().any(|next| !party(next) || self.clone().apply(*next, specs, &[]));
            if !busy {
                moves.push(Move::Deadline);
            } else if plan.late > 0 {
                moves.push(Move::EarlyDeadline);
            }
        }
        if plan.creations > 0 {
            moves.extend((0..specs.len()).map(Move::Create));
        }
        for (key, directory) in world.store.list() {
            let wanted = world.store.is_wanted(key);
            if plan.detach && wanted {
                moves.push(Move::Detach(key));
            }
            if plan.vanishings > 0 {
                moves.push(Move::Vanish(key));
            }
            let bad = directory.script.as_deref().is_none_or(|script| script != "works")
                || directory.vif_type.is_none()
                || directory.gatewaydev.is_some();
            let has_hook =
                matches!(key.kind.served_by(), ServedBy::NetworkHook | ServedBy::BlockHook);
            if plan.repairs > 0 && has_hook && bad {
                moves.push(Move::PutRight(key));
                if !world.installed {
                    moves.push(Move::Install);
                }
            }
            if plan.kexecs > 0 && wanted && world.store.frontend(key) == Some(4) {
                moves.push(Move::Kexec(key));
            }
            if plan.destroy && world.store.frontend(key).is_some() {
                moves.push(Move::Destroy(key.domid, false));
                moves.push(Move::Destroy(key.domid, true));
            }
        }
        if plan.restarts > 0 && world.daemon.dispatcher.is_some() {
            moves.push(Move::Restart);
        }
        moves
    }

    /// What the parties do by themselves.
    fn own_moves(&self) -> Vec<Move> {
        let world = &self.world;
        let mut moves = Vec::new();
        if let Some(dispatcher) = &world.daemon.dispatcher {
            if dispatcher.has_action() || !world.daemon.looks.is_empty() {
                moves.push(Move::Act);
            }
            if world.store.has_events() {
                moves.push(Move::Events);
            }
        }
        moves.extend((0..world.clock.ahead().count()).map(Move::Happen));
        moves.extend(self.party_moves());
        moves
    }

    fn party_moves(&self) -> impl Iterator<Item = Move> + use<> {
        self.world.store.keys().into_iter().flat_map(|key| {
            let server = match key.kind.served_by() {
                ServedBy::Qemu => Move::Qemu(key),
                ServedBy::NetworkHook | ServedBy::BlockHook | ServedBy::Elsewhere => {
                    Move::Backend(key)
                }
            };
            [server, Move::Frontend(key)]
        })
    }

    /// Lets it happen; false if it changes nothing.
    pub(crate) fn apply(&mut self, next: Move, specs: &[Spec], decisions: &[u8]) -> bool {
        let world = &mut self.world;
        world.chance.begin(decisions);
        let told = world.story.as_ref().map_or(0, Vec::len);
        world.trace(|| format!("{next}:"));
        let mut changed = true;
        match next {
            Move::Act => world.explore_action(),
            Move::Events => world.read_events(),
            Move::Deadline => world.pass_deadline(),
            Move::EarlyDeadline => {
                self.plan.late -= 1;
                world.pass_deadline();
            }
            Move::Backend(key) => {
                kernel::backend(&mut world.store, key);
                changed = world.store.has_changed();
            }
            Move::Frontend(key) => {
                let reviving = world.frontends.reviving.len();
                world.frontends.step(&mut world.store, key);
                changed = world.store.has_changed() || reviving != world.frontends.reviving.len();
            }
            Move::Qemu(key) => {
                let rings = world.qemus.rings();
                if let Err(violation) = world.qemus.step(&mut world.store, key) {
                    world.violate(violation);
                }
                changed = world.store.has_changed() || rings != world.qemus.rings();
            }
            Move::Happen(nth) => match world.clock.take(nth) {
                Some(happening) => world.happen(happening),
                None => changed = false,
            },
            Move::Create(nth) => {
                self.plan.creations -= 1;
                world.create(&specs[nth]);
            }
            Move::Detach(key) => world.detach(key, true),
            Move::Destroy(domid, offline) => world.destroy(domid, offline, true),
            Move::Vanish(key) => {
                self.plan.vanishings -= 1;
                world.delete(key);
            }
            Move::PutRight(key) => {
                self.plan.repairs -= 1;
                world.put_right(key, "works");
            }
            Move::Install => {
                self.plan.repairs -= 1;
                world.installed = true;
            }
            Move::Kexec(key) => {
                self.plan.kexecs -= 1;
                world.kexec(key);
            }
            Move::Restart => {
                self.plan.restarts -= 1;
                world.stop_daemon();
                world.clock.after(1, Happening::Start);
            }
        }
        world.react();
        world.tidy();
        if let (Some(story), false) = (&mut world.story, changed) {
            story.truncate(told);
        }
        changed
    }

    /// A number that tells this state from others.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut state = DefaultHasher::new();
        self.world.fingerprint(&mut state);
        self.plan.hash(&mut state);
        state.finish()
    }

    /// From here on nothing goes wrong, and the toolstack does nothing: does all come to rest, as
    /// it should be? Every party takes its steps in turn, and time passes when nobody has any
    /// to take. `known`: states of which that is known; those on the way are added.
    pub(crate) fn comes_to_rest(
        mut self,
        known: &mut std::collections::HashSet<u64>,
    ) -> Result<(), String> {
        self.still();
        // The states on the way, and the first of them since time has passed.
        let (mut way, mut since) = (Vec::new(), 0);
        let (mut actions, mut deadlines, mut repeats) = (self.world.actions, 0, false);
        loop {
            let state = self.fingerprint();
            if known.contains(&state) {
                break;
            }
            if let Some(place) = way.iter().position(|other| *other == state) {
                if place >= since {
                    return Err("no rest: the same again, and no time has passed".to_owned());
                }
                // Deadlines that lead back to the same state are tries that fail.
                repeats = true;
            }
            way.push(state);
            if self.round()? {
                if self.world.actions - actions > ACTIONS_AT_REST * self.devices() {
                    return Err("no rest: too many actions, and no time has passed".to_owned());
                }
                continue;
            }
            if repeats || !self.has_deadline() {
                self.world.check_quiet()?;
                break;
            }
            deadlines += 1;
            if deadlines > DEADLINES_TO_REST {
                return Err("no rest: deadline after deadline".to_owned());
            }
            self.apply(Move::Deadline, &[], &[]);
            (since, actions) = (way.len(), self.world.actions);
        }
        known.extend(way);
        Ok(())
    }

    fn devices(&self) -> u64 {
        u64::try_from(self.world.store.keys().len()).expect("a few devices") + 1
    }

    fn has_deadline(&self) -> bool {
        self.world.daemon.dispatcher.as_ref().is_some_and(|it| it.poll_timeout().is_some())
    }

    /// The story of that, up to the violation.
    pub(crate) fn story_of_rest(mut self) -> Vec<String> {
        self.still();
        for _ in 0..60 {
            match self.round() {
                Ok(true) => {}
                Ok(false) if self.has_deadline() => {
                    self.apply(Move::Deadline, &[], &[]);
                }
                Ok(false) | Err(_) => break,
            }
        }
        self.world.story.unwrap_or_default()
    }

    /// From here on nothing goes wrong, and the toolstack does nothing.
    fn still(&mut self) {
        self.plan = Plan {
            creations: 0,
            restarts: 0,
            vanishings: 0,
            repairs: 0,
            kexecs: 0,
            late: 0,
            detach: false,
            destroy: false,
        };
        self.world.chance.mishaps = false;
    }

    /// Everybody takes a step; false if nobody has any to take.
    fn round(&mut self) -> Result<bool, String> {
        let mut moved = false;
        for _ in 0..self.world.clock.ahead().count() {
            moved |= self.apply(Move::Happen(0), &[], &[]);
        }
        for next in self.party_moves() {
            moved |= self.apply(next, &[], &[]);
        }
        for next in [Move::Events, Move::Act] {
            if self.own_moves().contains(&next) {
                moved |= self.apply(next, &[], &[]);
            }
        }
        match self.world.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(moved),
        }
    }
}

impl World {
    /// The daemon carries out its next action, or its next look.
    fn explore_action(&mut self) {
        let has_action = |world: &Self| {
            world.daemon.dispatcher.as_ref().is_some_and(|dispatcher| dispatcher.has_action())
        };
        if has_action(self) {
            self.act();
        } else if let Some((key, want)) = self.daemon.looks.pop_front() {
            self.look(key, want);
        }
        if !has_action(self) {
            self.invariants.done();
        }
    }

    fn pass_deadline(&mut self) {
        let deadline = self.daemon.dispatcher.as_ref().and_then(|it| it.poll_timeout());
        if let Some(deadline) = deadline.map(Time::as_millis) {
            self.clock.pass(deadline);
            self.store.set_time(self.clock.now());
            self.alarm();
        }
    }

    /// Forgets what is under way to somebody who is no more.
    fn tidy(&mut self) {
        let (number, hooks, qemus, store) =
            (self.daemon.number, &self.hooks, &self.qemus, &self.store);
        self.clock.retain(|happening| match happening {
            Happening::Answer(to, _) => *to == number,
            Happening::Hook(pid) => hooks.running().any(|(other, _)| other == *pid),
            Happening::QemuReady(domid, id) | Happening::QemuEnd(domid, id) => {
                qemus.is(*domid, *id)
            }
            Happening::Impatience(key, life) => {
                store.get(*key).is_some_and(|directory| directory.life == *life)
            }
            Happening::Start => true,
            Happening::Events(_)
            | Happening::Act(_)
            | Happening::Look(..)
            | Happening::Alarm(_)
            | Happening::Backend(_)
            | Happening::Frontend(_)
            | Happening::Qemu(_) => false,
        });
    }

    /// Feeds all that matters from now on.
    fn fingerprint(&self, state: &mut DefaultHasher) {
        let linger = u64::try_from(self.settings.linger.as_millis()).expect("a short time");
        self.store.fingerprint(linger, state);
        self.qemus.fingerprint(state);
        let mut hooks: Vec<u64> =
            self.hooks.running().map(|(_, process)| hash_of(process)).collect();
        hooks.sort_unstable();
        hooks.hash(state);
        self.frontends.reviving.hash(state);
        self.invariants.hash(state);
        (self.installed, self.chance.left()).hash(state);

        let daemon = &self.daemon;
        (daemon.number, &daemon.seen, &daemon.looks).hash(state);
        (&daemon.unheard, &daemon.named, &daemon.guests).hash(state);
        for key in &daemon.named {
            daemon.notices.contains(&(*key, Notice::Found)).hash(state);
        }
        match &daemon.dispatcher {
            Some(dispatcher) => dispatcher.fingerprint(self.time(), state),
            None => 0.hash(state),
        }

        // Those that are under way can happen in any order.
        let mut under_way: Vec<u64> =
            self.clock.ahead().map(|happening| self.fingerprint_of(happening)).collect();
        under_way.sort_unstable();
        under_way.hash(state);
    }

    fn fingerprint_of(&self, happening: &Happening) -> u64 {
        match happening {
            Happening::Answer(_, Answer::HookEnd(key, end)) => hash_of(&(1, key, end)),
            Happening::Answer(_, Answer::Service(domid, event)) => hash_of(&(2, domid, event)),
            Happening::Hook(pid) => {
                let hook = self.hooks.running().find(|(other, _)| other == pid);
                hash_of(&(3, hook.map(|(_, process)| process)))
            }
            Happening::QemuReady(domid, _) => hash_of(&(4, domid)),
            Happening::QemuEnd(domid, _) => hash_of(&(5, domid)),
            Happening::Impatience(key, life) => hash_of(&(6, key, life)),
            Happening::Start => hash_of(&7),
            other => unreachable!("{other:?} is not put down for later"),
        }
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut state = DefaultHasher::new();
    value.hash(&mut state);
    state.finish()
}
