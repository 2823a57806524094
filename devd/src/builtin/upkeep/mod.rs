//! Served interfaces stay as their hooks have made them.
//!
//! The kernel tells of what changes ([`events`]); an interface that looks other than after its
//! last check is due for the next ([`pace`] says when). A thread checks all that are due and puts
//! right what it can ([`SharedServed::check`]), and [`Upkeep::run`] tells of it. The daemon's own
//! repairs cause events like all others: the check that follows finds nothing and ends it.

mod disks;
mod events;
mod pace;

pub(super) use self::disks::DiskUpkeep;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devd_core::{DeviceKey, Time, XenbusState};
use xs_client::{Client, Error, Outcome};

use self::events::{LinkEvent, Listener, Overrun};
use self::pace::Pace;
use super::antispoof;
use super::failure::Failure;
use super::link::Link;
use super::served::{Checked, Effect, SharedServed};
use super::thread::{self, Wake};
use super::vif_bridge;

/// A device, and which pass of its hook.
pub(super) type Pass = (DeviceKey, bool);

/// What no event tells of, routes for instance, is looked at this often.
const SLOW: Duration = Duration::from_secs(60);

/// Where events come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Links,
    Rules,
}

/// All interfaces that are kept as they were made.
#[derive(Debug)]
pub(crate) struct Upkeep {
    entries: HashMap<Pass, Entry>,
    /// Whose interface has this index.
    by_index: HashMap<u32, Pass>,
    /// Whose rules are in this table of nftables.
    by_table: HashMap<String, Pass>,
    links: Listener,
    rules: Listener,
    /// No entry is due before.
    earliest: Option<Time>,
    /// A thread checks.
    checking: bool,
    /// Since it has begun, there were events of interfaces that are not known to be anybody's.
    unclaimed: bool,
    /// What the thread has found.
    results: Arc<Mutex<Vec<Found>>>,
    wake: Wake,
}

/// An interface.
#[derive(Debug)]
struct Entry {
    served: SharedServed,
    /// The table of nftables that has its rules, if what it sends is limited.
    table: Option<String>,
    /// The interface as the last check has left it.
    link: Option<Link>,
    /// The name that it has, or has when it comes back.
    name: String,
    due: Option<Time>,
    pace: Pace,
    health: Health,
    /// `hotplug-error` says that it is not right.
    reported: bool,
}

/// Is an interface as it should be?
#[derive(Debug)]
enum Health {
    /// It is, for all that is known.
    Right,
    /// It is not, and may be by itself in a moment; or its device is about to go.
    Suspect { wait: Duration, awaited_bridge: Option<Vec<u8>> },
    /// It is not, for this reason, which was reported.
    Wrong { words: String, wait: Duration, awaited_bridge: Option<Vec<u8>> },
}

impl Health {
    /// The bridge without which it will not be right.
    fn awaited_bridge(&self) -> Option<&[u8]> {
        match self {
            Self::Right => None,
            Self::Suspect { awaited_bridge, .. } | Self::Wrong { awaited_bridge, .. } => {
                awaited_bridge.as_deref()
            }
        }
    }
}

/// What a check has found; `None`: there was nothing to be checked any more.
type Found = (Pass, SharedServed, Option<Checked>);

// What is kept.
impl Upkeep {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            entries: HashMap::new(),
            by_index: HashMap::new(),
            by_table: HashMap::new(),
            links: Listener::Closed,
            rules: Listener::Closed,
            earliest: None,
            checking: false,
            unclaimed: false,
            results: Arc::default(),
            wake,
        }
    }

    /// Keeps an interface from now on. `reported`: the device has a `hotplug-error`.
    pub(super) fn add(&mut self, pass: Pass, served: SharedServed, reported: bool, now: Time) {
        self.remove(pass);
        let table = served.table();
        self.by_table.extend(table.clone().map(|table| (table, pass)));
        let entry = Entry {
            served,
            table,
            link: None,
            name: String::new(),
            due: None,
            pace: Pace::default(),
            health: Health::Right,
            reported,
        };
        self.entries.insert(pass, entry);
        // What has happened since it was made has told nobody.
        self.set_due(pass, now);
    }

    /// Keeps it no more: it is to be made anew or taken away.
    pub(super) fn remove(&mut self, pass: Pass) {
        let Some(entry) = self.entries.remove(&pass) else { return };
        if let Some(link) = entry.link {
            self.by_index.remove(&link.index);
        }
        if let Some(table) = entry.table {
            self.by_table.remove(&table);
        }
    }

    fn set_due(&mut self, pass: Pass, at: Time) {
        let Some(entry) = self.entries.get_mut(&pass) else { return };
        let due = entry.due.map_or(at, |due| due.min(at));
        entry.due = Some(due);
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
    }

    /// Something may have happened to it.
    fn touch(&mut self, pass: Pass, now: Time) {
        if let Some(entry) = self.entries.get(&pass) {
            let at = entry.pace.after_event(now);
            self.set_due(pass, at);
        }
    }

    fn touch_all(&mut self, now: Time, which: impl Fn(&Entry) -> bool) {
        let passes = self.entries.iter().filter(|(_, entry)| which(entry)).map(|(pass, _)| *pass);
        for pass in passes.collect::<Vec<_>>() {
            self.touch(pass, now);
        }
    }
}

// What the kernel tells.
impl Upkeep {
    /// Takes in what has come by a channel.
    pub(crate) fn handle_events(&mut self, channel: Channel, now: Time) {
        let received = match channel {
            Channel::Links => self.handle_links(now),
            Channel::Rules => self.handle_rules(now),
        };
        if received == Err(Overrun) {
            log::info!("events of the network were lost: all served interfaces are checked");
            self.touch_all(now, |entry| channel == Channel::Links || entry.table.is_some());
        }
    }

    fn handle_links(&mut self, now: Time) -> Result<(), Overrun> {
        let Listener::Open(links) = &mut self.links else { return Ok(()) };
        let mut events = Vec::new();
        let received = links.receive(|kind, body| events.extend(LinkEvent::parse(kind, body)));
        for event in events {
            match event {
                LinkEvent::Touched(index) => match self.by_index.get(&index) {
                    Some(pass) => self.touch(*pass, now),
                    None => self.unclaimed = true,
                },
                LinkEvent::Is(link) => self.handle_link(&link, now),
            }
        }
        received
    }

    fn handle_link(&mut self, link: &Link, now: Time) {
        if let Some(pass) = self.by_index.get(&link.index).copied() {
            // What a check that is under way has seen is not known yet.
            let same = |entry: &Entry| !self.checking && entry.link.as_ref() == Some(link);
            if !self.entries.get(&pass).is_some_and(same) {
                self.touch(pass, now);
            }
            return;
        }
        self.unclaimed = true;
        self.touch_all(now, |entry| {
            let back = entry.link.is_none() && entry.name == link.name;
            let bridge = entry.health.awaited_bridge().filter(|_| link.is_bridge);
            back || bridge.is_some_and(|wanted| vif_bridge::is_wanted(wanted, &link.name))
        });
    }

    fn handle_rules(&mut self, now: Time) -> Result<(), Overrun> {
        let Listener::Open(rules) = &mut self.rules else { return Ok(()) };
        let mut changed = HashSet::new();
        let received = rules.receive(|_, body| {
            let pass = events::changed_table(body).and_then(|table| self.by_table.get(table));
            changed.extend(pass.copied());
        });
        for pass in changed {
            self.touch(pass, now);
        }
        received
    }
}

// Checks.
impl Upkeep {
    /// When [`run`](Self::run) is to be called again, if nothing happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.earliest.filter(|_| !self.checking)
    }

    /// Is an interface being checked, or about to be?
    pub(crate) fn is_busy(&self, now: Time) -> bool {
        self.checking || self.earliest.is_some_and(|at| at <= now)
    }

    /// Tells what the last check has found, and starts the next. `add` is given the channels that
    /// are opened. `client`: if there is a connection.
    ///
    /// # Errors
    ///
    /// The connection is lost; what was not told will be.
    pub(crate) fn run(
        &mut self,
        mut client: Option<&mut Client>,
        now: Time,
        mut add: impl FnMut(BorrowedFd<'_>, Channel) -> io::Result<()>,
    ) -> Result<(), Error> {
        let found =
            std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner));
        self.checking &= found.is_empty();
        let mut result = Ok(());
        for (pass, served, checked) in found {
            let current = self.entries.get(&pass).is_some_and(|entry| entry.served.is(&served));
            if let Some(checked) = checked.filter(|_| current) {
                let told = self.handle_checked(client.as_deref_mut(), pass, checked, now);
                // The rest is told to the log alone.
                client = client.filter(|_| told.is_ok());
                result = result.and(told);
            }
        }
        if self.links.set(!self.entries.is_empty(), Channel::Links, now, &mut add) {
            self.touch_all(now, |_| true);
        }
        if self.rules.set(!self.by_table.is_empty(), Channel::Rules, now, &mut add) {
            self.touch_all(now, |entry| entry.table.is_some());
        }
        if !self.checking && self.earliest.is_some_and(|at| at <= now) {
            self.check(now);
        }
        result
    }

    /// Has a thread check all that are due.
    fn check(&mut self, now: Time) {
        let next = next_look(now);
        let mut due = Vec::new();
        self.earliest = None;
        for (pass, entry) in &mut self.entries {
            if entry.due.is_some_and(|at| at <= now) {
                entry.due = Some(next);
                due.push((*pass, entry.served.clone()));
            }
            self.earliest = self.earliest.into_iter().chain(entry.due).min();
        }
        let (results, wake) = (Arc::clone(&self.results), self.wake.clone());
        let started = thread::spawn(move || {
            let found: Vec<Found> = due
                .into_iter()
                .map(|(pass, served)| {
                    let checked = served.check();
                    (pass, served, checked)
                })
                .collect();
            results.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            wake.wake();
        });
        match started {
            Ok(()) => (self.checking, self.unclaimed) = (true, false),
            Err(error) => log::warn!(
                "cannot check whether served interfaces are as they should be: {error}; it is \
                 tried again at the next event, or in {} s",
                SLOW.as_secs()
            ),
        }
    }

    fn handle_checked(
        &mut self,
        client: Option<&mut Client>,
        pass: Pass,
        checked: Checked,
        now: Time,
    ) -> Result<(), Error> {
        let (key, _) = pass;
        let Some(entry) = self.entries.get_mut(&pass) else { return Ok(()) };
        let missed = match entry.link.take() {
            Some(old) => {
                self.by_index.remove(&old.index);
                false
            }
            None => self.unclaimed && (entry.name.is_empty() || checked.link.is_some()),
        };
        if let Some(link) = &checked.link {
            self.by_index.insert(link.index, pass);
        }
        entry.link = checked.link;
        entry.name = checked.name;
        let changes = [checked.left_alone, checked.put_right].concat();
        if changes.is_empty() {
            entry.pace.handle_quiet(now);
        } else {
            let waits = match entry.pace.handle_change(now).as_secs() {
                0 | 1 => String::new(),
                wait => format!(
                    "; something changes it again and again: the next repair waits {wait} s"
                ),
            };
            log::warn!("{key}: {}{waits}", changes.join("; "));
        }
        let judged =
            entry.judge(client, key, (checked.wrong, checked.effect), checked.awaited_bridge);
        let again = judged.as_ref().map_or(Some(SLOW), |wait| *wait);
        if let Some(wait) = again {
            self.set_due(pass, now.after(wait));
        }
        if missed {
            self.touch(pass, now);
        }
        judged.map(drop)
    }
}

impl Entry {
    /// Takes note of whether the interface is right, and tells of it if that has changed. When to
    /// check again, if it is not.
    fn judge(
        &mut self,
        mut client: Option<&mut Client>,
        key: DeviceKey,
        (wrong, effect): (Option<Failure>, Effect),
        awaited_bridge: Option<Vec<u8>>,
    ) -> Result<Option<Duration>, Error> {
        let Some(wrong) = wrong else {
            let limited = self.table.is_some().then_some(&b"on"[..]);
            if self.reported
                && let Some(client) = &mut client
                && write_error(client, key, None, limited)?
            {
                log::info!("{key}: {} is as it should be again", self.name);
            }
            // Without a connection that is made up for at the next check.
            self.reported &= client.is_none();
            self.health = Health::Right;
            return Ok(None);
        };
        let words = wrong.words();
        let (effect, antispoof) = match effect {
            Effect::CutOff => ("its guest is cut off", None),
            Effect::Unlimited => (antispoof::UNLIMITED, Some(antispoof::off(words))),
        };
        let antispoof = antispoof.as_deref();
        let (wait, told) = match &self.health {
            // An interface goes before its device does; a network that is restarted comes back.
            Health::Right => (Duration::ZERO, false),
            Health::Wrong { words: before, wait, .. } if before == words => (*wait, true),
            Health::Suspect { wait, .. } | Health::Wrong { wait, .. } => match client {
                Some(client) => (*wait, write_error(client, key, Some(words), antispoof)?),
                None => (*wait, false),
            },
        };
        let wait = pace::next_wait(wait);
        if told && !matches!(&self.health, Health::Wrong { words: before, .. } if before == words) {
            log::error!("{key}: {effect}: {words}");
        }
        self.reported |= told;
        self.health = if told {
            Health::Wrong { words: words.to_owned(), wait, awaited_bridge }
        } else {
            Health::Suspect { wait, awaited_bridge }
        };
        Ok(Some(wait))
    }
}

/// When to look again although no event came: at the same moment for all, so that an idle daemon
/// wakes up once.
fn next_look(now: Time) -> Time {
    let slow = u64::try_from(SLOW.as_millis()).unwrap_or(u64::MAX);
    Time::from_millis((now.as_millis() / slow + 2) * slow)
}

/// Writes `hotplug-error`, or removes it, if the device is served. `hotplug-status` stays
/// `connected`: netback and the toolstack take any other value for a device that has never been
/// served. `antispoof`: the new value of that node. False if the device is not served (any more).
fn write_error(
    client: &mut Client,
    key: DeviceKey,
    words: Option<&str>,
    antispoof: Option<&[u8]>,
) -> Result<bool, Error> {
    let written = client.transaction(|transaction| {
        let mut is = |node, wanted: &dyn Fn(&[u8]) -> bool| match transaction
            .read(format!("{key}/{node}"))
        {
            Ok(value) => Ok(wanted(&value)),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        };
        let served = |value: &[u8]| {
            matches!(
                XenbusState::parse(value),
                XenbusState::InitWait | XenbusState::Initialised | XenbusState::Connected
            )
        };
        if !is("state", &served)? || !is("hotplug-status", &|value| value == b"connected")? {
            return Ok(Outcome::Abort(false));
        }
        if let Some(value) = antispoof {
            transaction.write(format!("{key}/{}", antispoof::NODE), value)?;
        }
        let node = format!("{key}/hotplug-error");
        let written = match words {
            Some(words) => transaction.write(node, words),
            None => transaction.rm(node),
        };
        match written {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(Outcome::Commit(true)),
        }
    });
    match written {
        Err(error) if !error.ends_connection() => {
            log::warn!("{key}: cannot write hotplug-error: {error}");
            Ok(true)
        }
        result => result,
    }
}
