//! Anti-spoofing of network interfaces that scripts put in place: the rules are made before the
//! script runs, so that the guest never sends without them, and are looked after from then on.
//! All else of such an interface is the script's.
//!
//! The way of a device: [`Limiter::start`] (the store is read) → [`Limit::run`] (a thread) →
//! [`Limiter::finish`] (the store is written) → the script; from `finish` on, [`Upkeep`] makes
//! rules that others remove again.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;

use devd_core::{DeviceKey, Hook, HookEnd, HookFailure, Time, Verb};
use xs_client::{Client, Error};

use super::antispoof::{self, Antispoof};
use super::failure::{Failure, Step};
use super::firewall::{self, Protection};
use super::link::{Link, Links};
use super::request::LimitedBefore;
use super::served::{self, Checked, Served, SharedServed};
use super::thread::{RunId, Threads};
use super::upkeep::{Pass, Upkeep};
use super::vif::{self, Interface};
use super::{Job, Made, Success, request, result};
use crate::hook::Script;

/// The rules of an interface that a script serves.
#[derive(Debug)]
pub(crate) struct Limited {
    protection: Protection,
    /// The interface as the last check has found it.
    pub(super) link: Option<Link>,
}

impl Limited {
    pub(super) const fn new(protection: Protection, link: Option<Link>) -> Self {
        Self { protection, link }
    }

    pub(super) const fn interface(&self) -> &Interface {
        self.protection.interface()
    }

    /// Makes the rules again if others have removed or changed them, or if the interface has a
    /// name that they do not cover. Nothing else of the interface is compared.
    ///
    /// # Errors
    ///
    /// The rules cannot be made, or the interface is gone.
    pub(super) fn put_right(
        &mut self,
        links: &mut Links,
        checked: &mut Checked,
    ) -> Result<(), Failure> {
        self.link = self.interface().locate(links, self.link.as_ref())?;
        let interface = self.protection.interface();
        let Some(link) = &self.link else {
            // The guest unplugs its emulated interface when it has found the other one.
            return if interface.tap { Ok(()) } else { Err(served::gone(&interface.name)) };
        };
        // Rules that are made before the script renames the interface need both names.
        if link.name != interface.given {
            self.protection.follow(&link.name);
        }
        antispoof::put_right(&self.protection, &link.name, checked)
    }

    pub(super) fn detach(&self) -> Result<Success, Failure> {
        firewall::unprotect(self.interface()).map(|()| Success::default())
    }
}

/// The work of the thread.
#[derive(Debug)]
pub(super) struct Limit {
    antispoof: Antispoof,
    /// The rules of an earlier run for the same interface.
    old: Option<SharedServed>,
}

impl Limit {
    pub(super) fn run(self) -> Result<Success, Failure> {
        // A check of the old rules that ends later would replace the new ones.
        if let Some(old) = &self.old {
            old.retire();
        }
        let Some(interface) = self.antispoof.interface() else { return Ok(Success::default()) };
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        let link = interface.look(&mut links)?;
        let mut success = Success::default();
        if link.is_some() {
            self.antispoof.apply()?;
        } else {
            // A QEMU may make its emulated interface later: a check makes the rules then.
            success = vif::missing(interface)?;
        }
        self.antispoof.tell(interface.tap, &mut success);
        if let Antispoof::Limited(protection) = self.antispoof {
            let served = Served::Limited(Limited::new(protection, link));
            success.made = Some(Made::Interface(SharedServed::new(served)));
        }
        Ok(success)
    }
}

/// What comes next for a device.
#[derive(Debug)]
pub(crate) enum Next {
    /// Its script is run.
    Script(DeviceKey, Script),
    /// Its hook has failed, for this reason.
    Failed(DeviceKey, String),
    /// Nothing; there may be more to be done.
    Step,
}

/// Makes rules for interfaces of scripts. There is one only with `--antispoof`.
#[derive(Debug)]
pub(crate) struct Limiter {
    threads: Threads,
    /// The scripts that run when the rules of their interfaces are made.
    running: HashMap<RunId, (Pass, Script)>,
    /// Interfaces that were served when the daemon started and whose nodes are not read yet.
    adopted: VecDeque<Pass>,
    /// The rules that are in place.
    limited: HashMap<Pass, SharedServed>,
}

impl Limiter {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            threads: Threads::new()?,
            running: HashMap::new(),
            adopted: VecDeque::new(),
            limited: HashMap::new(),
        })
    }

    /// Readable when a run has ended.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.threads.as_fd()
    }

    /// The descriptor is readable no more until the next run ends.
    pub(crate) fn handle_wake(&self) {
        self.threads.handle_wake();
    }

    /// Makes the rules for an interface, behind which its script is to run.
    ///
    /// # Errors
    ///
    /// The connection is lost. Within: the reason why there will be no rules.
    pub(crate) fn start(
        &mut self,
        hook: &Hook<'_>,
        script: Script,
        client: &mut Client,
        upkeep: &mut Upkeep,
    ) -> Result<Result<(), String>, Error> {
        let pass = (hook.key, hook.tap);
        let antispoof = match request::antispoof(client, hook.key, hook.tap)? {
            Ok(antispoof) => antispoof,
            Err(failure) => return Ok(Err(reason(&failure))),
        };
        self.adopted.retain(|other| *other != pass);
        upkeep.remove(pass);
        let limit = Limit { antispoof, old: self.limited.get(&pass).cloned() };
        Ok(match self.threads.start(hook.key, Job::Limit(limit)) {
            Ok(id) => {
                self.running.insert(id, (pass, script));
                Ok(())
            }
            Err(failure) => Err(reason(&failure)),
        })
    }

    /// Takes the end of a run, or reads the nodes of an interface that is served already. `None`:
    /// there is nothing to be done.
    ///
    /// # Errors
    ///
    /// The connection is lost; the next call begins with the same.
    pub(crate) fn finish(
        &mut self,
        client: &mut Client,
        upkeep: &mut Upkeep,
        now: Time,
    ) -> Result<Option<Next>, Error> {
        let Some((id, ended)) = self.threads.next_ended() else {
            return Ok(self.read_adopted(client, upkeep, now)?.then_some(Next::Step));
        };
        let Some((pass, script)) = self.running.remove(&id) else { return Ok(Some(Next::Step)) };
        let (key, _) = pass;
        let mut success = match ended {
            Ok(success) => success,
            Err(failure) => return Ok(Some(Next::Failed(key, reason(&failure)))),
        };
        if let Err(error) = result::tell(client, key, &success.nodes) {
            self.running.insert(id, (pass, script));
            self.threads.put_back(id, Ok(success));
            return Err(error);
        }
        for remark in &success.remarks {
            log::warn!("{key}: {}", remark.words());
        }
        self.limited.remove(&pass);
        if let Some(Made::Interface(served)) = success.made.take() {
            upkeep.add(pass, served.clone(), false, now);
            self.limited.insert(pass, served);
        }
        Ok(Some(Next::Script(key, script)))
    }

    /// A script of an earlier daemon has put the device's interface in place.
    pub(crate) fn handle_served(&mut self, key: DeviceKey, ioemu: bool) {
        self.adopted.push_back((key, false));
        if ioemu {
            self.adopted.push_back((key, true));
        }
    }

    /// Looks after the next interface of an earlier daemon: the first check makes rules that are
    /// missing. True if there was one.
    fn read_adopted(
        &mut self,
        client: &mut Client,
        upkeep: &mut Upkeep,
        now: Time,
    ) -> Result<bool, Error> {
        let Some(pass @ (key, tap)) = self.adopted.front().copied() else { return Ok(false) };
        let limited = request::limited_before(client, key, tap)?.and_then(|before| {
            // The rules may be of a time when the device had an ip node.
            if let Antispoof::Unlimited(interface) = &before.antispoof {
                firewall::unprotect(interface)?;
            }
            Ok(before)
        });
        match limited {
            Ok(LimitedBefore { antispoof, node, reported }) => {
                if let Some(value) = antispoof.node().filter(|value| *value != node) {
                    result::tell(client, key, &[(antispoof::NODE, value.to_owned())])?;
                }
                if let Some(warning) = antispoof.warning().filter(|_| !tap) {
                    log::warn!("{key}: {}", warning.words());
                }
                if let Antispoof::Limited(protection) = antispoof {
                    let served = Served::Limited(Limited::new(protection, None));
                    let served = SharedServed::new(served);
                    upkeep.add(pass, served.clone(), reported, now);
                    self.limited.insert(pass, served);
                }
            }
            Err(failure) => {
                let value = antispoof::off(failure.words());
                result::tell(client, key, &[(antispoof::NODE, value)])?;
                log::error!("{key}: {}: {}", antispoof::UNLIMITED, failure.words());
            }
        }
        self.adopted.pop_front();
        Ok(true)
    }

    /// Gives up the run behind which the device's script was to run.
    pub(crate) fn give_up(&mut self, key: DeviceKey) -> Option<(HookEnd, String)> {
        let id = *self.running.iter().find(|(_, ((other, _), _))| *other == key)?.0;
        if !self.threads.give_up(id) {
            return None; // The run has ended: `finish` takes its end.
        }
        self.running.remove(&id);
        let words = "the rules of --antispoof hang in the kernel (--hook-timeout)".to_owned();
        Some((HookEnd::Failure(HookFailure::TimedOut), words))
    }

    /// The device is gone: removes its rules, if it had any.
    pub(crate) fn handle_gone(&mut self, key: DeviceKey) {
        self.adopted.retain(|(other, _)| *other != key);
        for tap in [false, true] {
            // A check that ends later would make the rules again.
            if let Some(limited) = self.limited.remove(&(key, tap)) {
                limited.retire();
            }
            let removed = Interface::new(key, tap, b"").and_then(|it| firewall::unprotect(&it));
            if let Err(failure) = removed {
                log::warn!("{key}: {}", failure.words());
            }
        }
    }

    /// The devices whose scripts wait.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceKey> {
        self.running.values().map(|((key, _), _)| *key)
    }

    /// Does the hook need rules before it runs?
    pub(crate) fn concerns(hook: &Hook<'_>) -> bool {
        hook.key.kind == devd_core::Kind::Vif && hook.verb == Verb::Add
    }
}

fn reason(failure: &Failure) -> String {
    format!("--antispoof: {}", failure.words())
}
