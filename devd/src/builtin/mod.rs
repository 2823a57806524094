//! Hooks that are part of the daemon, and do by system calls what Xen's scripts of the same
//! names do.
//!
//! A run of one never keeps the daemon waiting: it has a short-lived thread of its own, which
//! knows the kernel only. What it is to do is read from the store before, and what it has done
//! is written after it, both by the daemon's one thread. The way of a run: [`Builtins::start`]
//! → [`request`] (the store is read) → [`Job::run`] (the thread) → [`Builtins::finish`] (the
//! store is written).

mod antispoof;
mod backing;
mod block;
mod bridge_vlan;
mod claims;
mod device_number;
mod failure;
mod file_id;
mod file_system;
mod firewall;
mod image;
#[cfg(test)]
mod kernel_replies;
mod limiter;
mod link;
mod local_use;
mod loop_device;
mod mounts;
mod netlink;
mod place;
mod request;
mod result;
mod route;
mod served;
mod thread;
mod upkeep;
mod vif;
mod vif_bridge;
mod vif_route;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use devd_core::{DeviceKey, Hook, HookEnd, HookFailure, Kind, Time, Verb};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use xs_client::{Client, Error};

use self::backing::Backing;
use self::claims::{Claim, Claims};
use self::failure::Failure;
pub(crate) use self::limiter::{Limiter, Next};
use self::served::SharedServed;
use self::thread::{RunId, Threads};
pub(crate) use self::upkeep::Channel;
use self::upkeep::{DiskUpkeep, Upkeep};
use self::vif::Interface;

use crate::cli::Options;
use crate::clock::micros_since;

/// A hook that is part of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    VifBridge,
    VifRoute,
    Block,
}

impl Builtin {
    /// The name that it is known by, which is that of Xen's script.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::VifBridge => "vif-bridge",
            Self::VifRoute => "vif-route",
            Self::Block => "block",
        }
    }

    /// The hook of this name, for devices of this kind.
    pub(crate) fn of(name: &[u8], kind: Kind) -> Option<Self> {
        match (kind, name) {
            (Kind::Vif, b"vif-bridge") => Some(Self::VifBridge),
            (Kind::Vif, b"vif-route") => Some(Self::VifRoute),
            (Kind::Vbd | Kind::Vbd3, b"block") => Some(Self::Block),
            _ => None,
        }
    }

    /// The names of all.
    pub(crate) const KNOWN: &'static str = "vif-bridge, vif-route and block";
}

/// The work of one run: all that it needs to know is in it.
#[derive(Debug)]
enum Job {
    Bridge(vif_bridge::Attach),
    Route(vif_route::Attach),
    Disk(block::Attach),
    Detach(Made),
    /// Rules for an interface that a script puts in place.
    Limit(limiter::Limit),
    /// Something is in place that could not be written down; it is taken away first.
    Anew(Made, Box<Job>),
    /// There is nothing to be done, for this reason.
    Nothing(&'static str),
}

impl Job {
    fn run(self) -> Result<Success, Failure> {
        match self {
            Self::Bridge(attach) => attach.run(),
            Self::Route(attach) => attach.run(),
            Self::Disk(attach) => attach.run(),
            Self::Detach(made) => made.take_away(),
            Self::Limit(limit) => limit.run(),
            Self::Anew(old, job) => {
                old.take_away()?;
                job.run()
            }
            Self::Nothing(why) => Ok(Success { done: why.into(), ..Success::default() }),
        }
    }
}

/// What an add hook has put in place, and how it is known again.
#[derive(Debug)]
enum Made {
    /// An interface that is kept as it was made.
    Interface(SharedServed),
    /// An interface that an earlier daemon has left; what it sends may be limited.
    FoundInterface { interface: Interface, limited: bool },
    /// A disk, and what is claimed for it.
    Disk(block::Disk),
    /// A disk that something else has set up.
    FoundDisk(block::Found),
}

impl Made {
    fn take_away(self) -> Result<Success, Failure> {
        match self {
            Self::Interface(served) => served.take_away(),
            Self::FoundInterface { interface, limited } => {
                vif_bridge::detach(&interface, None, limited)
            }
            Self::Disk(disk) => Ok(disk.detach()),
            Self::FoundDisk(found) => found.detach(),
        }
    }
}

impl Made {
    /// What is behind a disk, as far as that is known.
    fn backing(&self) -> Option<Backing> {
        match self {
            Self::Interface(_) | Self::FoundInterface { .. } => None,
            Self::Disk(disk) => Some(disk.backing()),
            Self::FoundDisk(found) => found.backing(),
        }
    }
}

/// What a run has done.
#[derive(Debug, Default)]
struct Success {
    /// In words, for the log.
    done: String,
    /// What an operator is told though nothing went wrong.
    notes: Vec<String>,
    /// What went wrong on the way and did not matter enough.
    remarks: Vec<Failure>,
    /// The nodes of the device that say so.
    nodes: Vec<(&'static str, Vec<u8>)>,
    /// The MTU that the frontend is to be told.
    mtu: Option<u32>,
    made: Option<Made>,
}

impl Success {
    fn remark(&mut self, failure: Failure) {
        self.remarks.push(failure);
    }
}

/// How long loop devices that are to stay keep the daemon from its end.
const TO_KEEP: Duration = Duration::from_secs(1);

/// A run that has begun and has not been given up.
#[derive(Debug)]
struct Running {
    key: DeviceKey,
    verb: Verb,
    tap: bool,
    builtin: Builtin,
    since: Instant,
}

/// A network interface that was served when the daemon came to see it.
#[derive(Debug)]
struct Adopted {
    key: DeviceKey,
    builtin: Builtin,
    ioemu: bool,
    gatewaydev: Vec<u8>,
}

/// So many adopted devices are read at once: more would keep the daemon from everything else.
const ADOPTED_AT_ONCE: usize = 16;

/// All runs, and what they have put in place.
#[derive(Debug)]
pub(crate) struct Builtins {
    /// Are guests to send as the addresses in `ip` only (`--antispoof`)?
    antispoof: bool,
    /// Where disks must lie; anywhere if there is none.
    image_dirs: Arc<[PathBuf]>,
    threads: Threads,
    running: HashMap<RunId, Running>,
    /// What is in place; the second pass of a network interface's hook has its own.
    made: HashMap<(DeviceKey, bool), Made>,
    upkeep: Upkeep,
    disk_upkeep: DiskUpkeep,
    /// Interfaces that an earlier daemon has left, whose nodes are not read yet.
    adopted: Vec<Adopted>,
    /// Why the last run for a device failed.
    words: HashMap<DeviceKey, String>,
    /// The work of each device's last add hook, in words.
    done: HashMap<DeviceKey, String>,
    /// Who uses which disk.
    claims: Claims,
    /// Disks in use of which no run here has told.
    unread: HashSet<DeviceKey>,
    /// The claims of those that were.
    noted: HashMap<DeviceKey, Claim>,
}

impl Builtins {
    pub(crate) fn new(options: &Options) -> std::io::Result<Self> {
        // Each disk in a file takes a descriptor, and so does each QEMU.
        if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
        }
        let threads = Threads::new()?;
        Ok(Self {
            antispoof: options.antispoof && !options.dry_run,
            image_dirs: options.image_dirs.clone().into(),
            upkeep: Upkeep::new(threads.wake()),
            disk_upkeep: DiskUpkeep::new(threads.wake()),
            threads,
            adopted: Vec::new(),
            running: HashMap::new(),
            made: HashMap::new(),
            words: HashMap::new(),
            done: HashMap::new(),
            claims: Claims::default(),
            unread: HashSet::new(),
            noted: HashMap::new(),
        })
    }

    /// Readable when a run has ended.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.threads.as_fd()
    }

    /// Starts a run.
    ///
    /// # Errors
    ///
    /// The connection is lost. Within: it could not be started, and [`words`](Self::take_words)
    /// say why.
    pub(crate) fn start(
        &mut self,
        builtin: Builtin,
        hook: &Hook<'_>,
        client: &mut Client,
    ) -> Result<Result<(), HookFailure>, Error> {
        let Hook { key, verb, tap, .. } = *hook;
        self.words.remove(&key);
        self.done.remove(&key);
        self.unread.remove(&key);
        self.noted.remove(&key);
        self.adopted.retain(|adopted| adopted.key != key);
        self.upkeep.remove((key, tap));
        if builtin == Builtin::Block && verb == Verb::Add {
            self.read_disks(client)?;
        }
        let job = match verb {
            Verb::Add => {
                let job = request::attach(
                    builtin,
                    hook,
                    client,
                    &self.claims,
                    &self.image_dirs,
                    self.antispoof,
                )?;
                job.map(|job| match self.made.remove(&(key, tap)) {
                    // What another has begun is for this run to end.
                    Some(Made::FoundDisk(_)) | None => job,
                    Some(old) => Job::Anew(old, Box::new(job)),
                })
            }
            Verb::Remove => match self.made.remove(&(key, tap)) {
                Some(made) => Ok(Job::Detach(made)),
                None => request::detach(builtin, hook, client, self.antispoof)?,
            },
        };
        let started = job.and_then(|job| self.threads.start(key, job));
        Ok(match started {
            Ok(id) => {
                let since = Instant::now();
                self.running.insert(id, Running { key, verb, tap, builtin, since });
                Ok(())
            }
            Err(failure) => {
                self.words.insert(key, format!("{}: {}", builtin.name(), failure.words()));
                Err(HookFailure::Reported)
            }
        })
    }

    /// Hears of the runs that have ended and writes down what they say. The next one's end, if
    /// there is one.
    ///
    /// # Errors
    ///
    /// The connection is lost; the run's end will be told again.
    pub(crate) fn finish(
        &mut self,
        client: &mut Client,
        now: Time,
    ) -> Result<Option<(DeviceKey, HookEnd)>, Error> {
        let Some((id, result)) = self.threads.next_ended() else { return Ok(None) };
        let Some(running) = self.running.get(&id) else { return self.finish(client, now) };
        let Running { key, verb, tap, builtin, since } = *running;
        let name = builtin.name();
        let end = match result {
            Ok(mut success) => {
                let written = match verb {
                    Verb::Add => result::write(client, key, tap, &success),
                    Verb::Remove => Ok(Ok(())),
                };
                let written = match written {
                    Ok(written) => written,
                    Err(error) => {
                        self.threads.put_back(id, Ok(success));
                        return Err(error);
                    }
                };
                for remark in &success.remarks {
                    log::warn!("{key}: {name}: {}", remark.words());
                }
                for note in &success.notes {
                    log::info!("{key}: {name}: {note}");
                }
                if let Some(made) = success.made.take() {
                    match &made {
                        Made::Interface(served) => {
                            self.upkeep.add((key, tap), served.clone(), false, now);
                        }
                        Made::Disk(_) | Made::FoundDisk(_) => self.disk_upkeep.add(),
                        Made::FoundInterface { .. } => {}
                    }
                    self.made.insert((key, tap), made);
                }
                let took = micros_since(since);
                log::debug!("{key}: the built-in {name} took {took} µs: {}", success.done);
                if verb == Verb::Add && !tap {
                    self.done.insert(key, success.done.clone());
                }
                match written {
                    Ok(()) => HookEnd::Success,
                    Err(failure) => self.failed(key, builtin, &failure),
                }
            }
            Err(failure) => self.failed(key, builtin, &failure),
        };
        self.running.remove(&id);
        Ok(Some((key, end)))
    }

    fn failed(&mut self, key: DeviceKey, builtin: Builtin, failure: &Failure) -> HookEnd {
        self.words.insert(key, format!("{}: {}", builtin.name(), failure.words()));
        HookEnd::Failure(HookFailure::Reported)
    }

    /// Gives up the device's run, if there is one. Its thread cannot be ended: what it does
    /// from now on it takes back at its end.
    pub(crate) fn give_up(&mut self, key: DeviceKey) -> Option<HookEnd> {
        let id = *self.running.iter().find(|(_, running)| running.key == key)?.0;
        if !self.threads.give_up(id) {
            return None; // It has ended, and will be heard of.
        }
        let running = self.running.remove(&id)?;
        let words = format!(
            "{} hangs in the kernel (--hook-timeout); what it does from now on is undone when it \
             ends",
            running.builtin.name()
        );
        self.words.insert(key, words);
        Some(HookEnd::Failure(HookFailure::TimedOut))
    }

    /// The work of the device's last add hook, in words.
    pub(crate) fn take_done(&mut self, key: DeviceKey) -> Option<String> {
        self.done.remove(&key)
    }

    /// Why the device's hook fails.
    pub(crate) fn set_words(&mut self, key: DeviceKey, words: String) {
        self.words.insert(key, words);
    }

    /// What the device's last run has said of its failure.
    pub(crate) fn take_words(&mut self, key: DeviceKey) -> Option<String> {
        self.words.remove(&key)
    }

    /// A disk is in use, or may be: if nothing is known of it, it will be read from the store
    /// before the next disk is attached.
    pub(crate) fn handle_disk(&mut self, key: DeviceKey) {
        let disk = matches!(key.kind, Kind::Vbd | Kind::Vbd3 | Kind::Qdisk);
        if disk && !self.claims.knows(key) {
            self.unread.insert(key);
        }
    }

    /// A network interface is served already, by this hook of an earlier daemon: it is kept from
    /// now on.
    pub(crate) fn handle_adopted(&mut self, builtin: Builtin, hook: &Hook<'_>) {
        let Hook { key, ioemu, gatewaydev, .. } = *hook;
        if builtin != Builtin::Block && !self.made.contains_key(&(key, false)) {
            self.adopted.push(Adopted { key, builtin, ioemu, gatewaydev: gatewaydev.to_owned() });
        }
    }

    /// Reads what interfaces that were adopted should be like.
    ///
    /// # Errors
    ///
    /// The connection is lost; the rest will be read again.
    fn read_adopted(&mut self, client: &mut Client, now: Time) -> Result<(), Error> {
        let from = self.adopted.len().saturating_sub(ADOPTED_AT_ONCE);
        while self.adopted.len() > from
            && let Some(adopted) = self.adopted.last()
        {
            let Adopted { key, builtin, ioemu, gatewaydev } = adopted;
            let (key, verb) = (*key, Verb::Add);
            for tap in [false, true].into_iter().filter(|tap| *ioemu || !tap) {
                let hook = Hook { key, verb, tap, script: b"", ioemu: *ioemu, gatewaydev };
                match request::served_before(*builtin, &hook, client, self.antispoof)? {
                    Ok(found) => {
                        if let Some(warning) = &found.warning {
                            log::warn!("{key}: {}", warning.words());
                        }
                        if let Some(value) = found.antispoof {
                            result::tell(client, key, &[(antispoof::NODE, value.to_owned())])?;
                        }
                        self.upkeep.add((key, tap), found.served.clone(), found.reported, now);
                        self.made.insert((key, tap), Made::Interface(found.served));
                    }
                    Err(failure) => log::error!(
                        "{key}: served already, but what was made for it is not looked after, nor \
                         limited: {}",
                        failure.words()
                    ),
                }
            }
            self.adopted.pop();
        }
        Ok(())
    }

    /// When what is kept is to be looked at again.
    pub(crate) fn keep_timeout(&self, connected: bool) -> Option<Time> {
        let at_once = connected && !self.adopted.is_empty();
        let at_once = at_once.then_some(Time::from_millis(0));
        let timeouts = [at_once, self.upkeep.poll_timeout(), self.disk_upkeep.poll_timeout()];
        timeouts.into_iter().flatten().min()
    }

    pub(crate) fn is_keeping(&self, now: Time) -> bool {
        !self.adopted.is_empty() || self.upkeep.is_busy(now)
    }

    /// Keeps what is in place as it was made. `add` is given the channels that are opened.
    /// `client`: if there is a connection.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub(crate) fn keep(
        &mut self,
        mut client: Option<&mut Client>,
        now: Time,
        add: impl FnMut(BorrowedFd<'_>, Channel) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        if let Some(client) = &mut client {
            self.read_adopted(client, now)?;
        }
        self.upkeep.run(client.as_deref_mut(), now, add)?;
        let made = &self.made;
        let current = |key| made.get(&(key, false)).and_then(Made::backing);
        let all = || {
            let disks = made.iter().map(|((key, _), made)| Some((*key, made.backing()?)));
            disks.flatten().collect()
        };
        self.disk_upkeep.run(client, now, current, all)
    }

    /// Has events of what is in place handled.
    pub(crate) const fn upkeep(&mut self) -> &mut Upkeep {
        &mut self.upkeep
    }

    /// A run, or a check, has ended.
    pub(crate) fn handle_wake(&self) {
        self.threads.handle_wake();
    }

    /// A device is gone.
    pub(crate) fn handle_gone(&mut self, key: DeviceKey) {
        for tap in [false, true] {
            self.upkeep.remove((key, tap));
        }
        self.disk_upkeep.handle_gone(key);
        self.adopted.retain(|adopted| adopted.key != key);
        self.words.remove(&key);
        self.unread.remove(&key);
        self.noted.remove(&key);
    }

    /// The daemon ends: what is in place stays.
    pub(crate) fn handle_end(&self) {
        let (ended, end) = mpsc::channel::<()>();
        let disks = self.made.values().filter_map(|made| match made {
            Made::Disk(disk) => disk.keep_if_young(),
            Made::Interface(_) | Made::FoundInterface { .. } | Made::FoundDisk(_) => None,
        });
        let works = disks.map(|keep| -> thread::Work {
            let ended = ended.clone();
            Box::new(move || {
                keep();
                drop(ended);
            })
        });
        let works: Vec<_> = works.collect();
        if works.is_empty() {
            return;
        }
        drop(ended);
        match thread::spawn_each(works) {
            Ok(()) if end.recv_timeout(TO_KEEP) == Err(RecvTimeoutError::Timeout) => {
                log::warn!("a disk's file does not answer: a guest may lose a disk that is new");
            }
            Ok(()) => {}
            Err(error) => log::error!("cannot make new loop devices stay: {error}"),
        }
    }

    /// Reads what disks are that others have attached: earlier daemons, scripts, QEMU.
    ///
    /// # Errors
    ///
    /// The connection is lost; they will be read again.
    pub(crate) fn read_disks(&mut self, client: &mut Client) -> Result<(), Error> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = self.unread.iter().copied().collect();
        let mut looks: Vec<thread::Work> = Vec::new();
        for (key, disk) in request::disks(client, &keys)? {
            let (claim, resolve) = self.claims.note(key, disk.mode, disk.place);
            self.noted.insert(key, claim);
            looks.push(Box::new(resolve));
            let Some(found) = disk.found else { continue };
            if let Entry::Vacant(entry) = self.made.entry((key, false)) {
                if let Some(look) = found.look(&self.claims) {
                    looks.push(Box::new(look));
                }
                entry.insert(Made::FoundDisk(found));
                self.disk_upkeep.add();
            }
        }
        if !looks.is_empty() {
            let started = thread::spawn_each(looks);
            if let Err(error) = started {
                log::error!("cannot look at the disks that are in use: {error}");
            }
        }
        self.unread.clear();
        Ok(())
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceKey> {
        self.running.values().map(|running| running.key)
    }
}
