//! Anti-spoofing of network interfaces that scripts put in place: the rules are made before the
//! script runs, so that the guest never sends without them.
//!
//! The way of a device: [`Limiter::start`] (the store is read) → [`Limit::run`] (a thread) →
//! [`Limiter::finish`] (the store is written) → the script.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;

use devd_core::{DeviceKey, Hook, HookEnd, HookFailure, Verb};
use xs_client::{Client, Error};

use super::antispoof::{Antispoof, NODE};
use super::failure::{Failure, Step};
use super::link::Links;
use super::thread::{RunId, Threads};
use super::vif::{self, Interface};
use super::{Job, Made, Success, firewall, request, result};
use crate::hook::Script;

/// The work of the thread.
#[derive(Debug)]
pub(super) struct Limit {
    antispoof: Antispoof,
    /// The interface is in use: rules that are as they should be stay untouched.
    served: bool,
}

impl Limit {
    pub(super) fn run(self) -> Result<Success, Failure> {
        let Some(interface) = self.antispoof.interface() else { return Ok(Success::default()) };
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        if interface.look(&mut links)?.is_none() {
            return vif::missing(interface);
        }
        let mut success = Success::default();
        self.antispoof.tell(interface.tap, &mut success);
        let holds = match &self.antispoof {
            Antispoof::Limited(protection) if self.served => firewall::holds(protection),
            _ => Ok(false),
        };
        // Rules that cannot be read are made anew.
        if !holds.unwrap_or(false) {
            self.antispoof.apply()?;
            if self.antispoof.is_limited() {
                success.done = format!("{} is limited to its addresses", interface.name);
            }
        }
        success.made = Some(Made::Rules(interface.clone()));
        Ok(success)
    }
}

/// What waits for the rules of an interface.
#[derive(Debug)]
enum Waiting {
    Script(Script),
    /// Nothing: the interface is served already.
    Nobody,
}

/// What comes next for a device.
#[derive(Debug)]
pub(crate) enum Next {
    /// Its script is run.
    Script(DeviceKey, Script),
    /// Its hook has failed, for this reason.
    Failed(DeviceKey, String),
    /// Nothing; there may be more to be heard of.
    Step,
}

/// Makes rules for interfaces of scripts. There is one only with `--antispoof`.
#[derive(Debug)]
pub(crate) struct Limiter {
    threads: Threads,
    running: HashMap<RunId, (DeviceKey, Waiting)>,
    /// Interfaces that were served when the daemon came; true: the emulated one.
    served: VecDeque<(DeviceKey, bool)>,
}

impl Limiter {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { threads: Threads::new()?, running: HashMap::new(), served: VecDeque::new() })
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
    ) -> Result<Result<(), String>, Error> {
        let started = self.start_run(hook.key, hook.tap, Waiting::Script(script), client)?;
        Ok(started.map_err(|failure| words(&failure)))
    }

    fn start_run(
        &mut self,
        key: DeviceKey,
        tap: bool,
        waiting: Waiting,
        client: &mut Client,
    ) -> Result<Result<(), Failure>, Error> {
        let antispoof = match request::antispoof(client, key, tap)? {
            Ok(found) => found,
            Err(failure) => return Ok(Err(failure)),
        };
        let served = matches!(waiting, Waiting::Nobody);
        let limit = Job::Limit(Limit { antispoof, served });
        Ok(self.threads.start(key, limit).map(|id| {
            self.running.insert(id, (key, waiting));
        }))
    }

    /// Hears of a run that has ended, or begins with an interface that is served. `None`: there
    /// is nothing to be done.
    ///
    /// # Errors
    ///
    /// The connection is lost; the same will be told again.
    pub(crate) fn finish(&mut self, client: &mut Client) -> Result<Option<Next>, Error> {
        let Some((id, ended)) = self.threads.next_ended() else {
            return Ok(self.look_at_served(client)?.then_some(Next::Step));
        };
        let Some((key, waiting)) = self.running.remove(&id) else { return Ok(Some(Next::Step)) };
        let told = match &ended {
            Ok(success) => result::tell(client, key, &success.nodes),
            Err(failure) if matches!(waiting, Waiting::Nobody) => {
                let value = format!("off: {}", failure.words()).into_bytes();
                result::tell(client, key, &[(NODE, value)])
            }
            Err(_) => Ok(()),
        };
        if let Err(error) = told {
            self.running.insert(id, (key, waiting));
            self.threads.put_back(id, ended);
            return Err(error);
        }
        Ok(Some(match (ended, waiting) {
            (Ok(success), waiting) => {
                for remark in &success.remarks {
                    log::warn!("{key}: {}", remark.words());
                }
                match waiting {
                    Waiting::Script(script) => Next::Script(key, script),
                    Waiting::Nobody => {
                        if !success.done.is_empty() {
                            log::info!("{key}: {} from now on", success.done);
                        }
                        Next::Step
                    }
                }
            }
            (Err(failure), Waiting::Script(_)) => Next::Failed(key, words(&failure)),
            (Err(failure), Waiting::Nobody) => {
                log::error!(
                    "{key}: its guest may send as any address in spite of --antispoof: {}",
                    failure.words()
                );
                Next::Step
            }
        }))
    }

    /// An interface is served already, as a script has put it in place.
    pub(crate) fn handle_served(&mut self, key: DeviceKey, ioemu: bool) {
        self.served.push_back((key, false));
        if ioemu {
            self.served.push_back((key, true));
        }
    }

    /// Begins with the next of them, one at a time. True if one was taken from the queue.
    fn look_at_served(&mut self, client: &mut Client) -> Result<bool, Error> {
        let busy = self.running.values().any(|(_, waiting)| matches!(waiting, Waiting::Nobody));
        let Some((key, tap)) = self.served.front().copied().filter(|_| !busy) else {
            return Ok(false);
        };
        if let Err(failure) = self.start_run(key, tap, Waiting::Nobody, client)? {
            log::error!(
                "{key}: its guest may send as any address in spite of --antispoof: {}",
                failure.words()
            );
            let value = format!("off: {}", failure.words()).into_bytes();
            result::tell(client, key, &[(NODE, value)])?;
        }
        self.served.pop_front();
        Ok(true)
    }

    /// Gives up the run behind which the device's script was to run.
    pub(crate) fn give_up(&mut self, key: DeviceKey) -> Option<(HookEnd, String)> {
        let waits = |(_, (other, waiting)): &(&RunId, &(DeviceKey, Waiting))| {
            *other == key && matches!(waiting, Waiting::Script(_))
        };
        let id = *self.running.iter().find(waits)?.0;
        if !self.threads.give_up(id) {
            return None; // It has ended, and will be heard of.
        }
        self.running.remove(&id);
        let words = "the rules of --antispoof hang in the kernel (--hook-timeout)".to_owned();
        Some((HookEnd::Failure(HookFailure::TimedOut), words))
    }

    /// A device is gone: its rules go, if it had any.
    pub(crate) fn handle_gone(&mut self, key: DeviceKey) {
        self.served.retain(|(other, _)| *other != key);
        for tap in [false, true] {
            let removed = Interface::new(key, tap, b"").and_then(|it| firewall::unprotect(&it));
            if let Err(failure) = removed {
                log::warn!("{key}: {}", failure.words());
            }
        }
    }

    /// The devices whose scripts wait.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceKey> {
        self.running.values().filter_map(|(key, waiting)| match waiting {
            Waiting::Script(_) => Some(*key),
            Waiting::Nobody => None,
        })
    }

    /// Is the hook one that needs rules before it?
    pub(crate) fn concerns(hook: &Hook<'_>) -> bool {
        hook.key.kind == devd_core::Kind::Vif && hook.verb == Verb::Add
    }
}

fn words(failure: &Failure) -> String {
    format!("--antispoof: {}", failure.words())
}
