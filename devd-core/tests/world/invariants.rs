//! What must never happen to a device: an account of the work that hooks have done for it.

use std::collections::{BTreeMap, BTreeSet};

use devd_core::{DeviceKey, HookEnd, HookFailure, ServedBy, Verb};

use super::hooks::{Manner, Process};
use super::store::{Life, Store};

/// What a device's hooks have left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Nothing.
    Nothing,
    /// Perhaps something: the add hook runs, or has failed.
    Tried,
    /// All that the add hook puts in place.
    Placed,
}

#[derive(Clone, Debug, Hash)]
struct Account {
    work: Work,
    /// The life for which the last hook was started, and the daemon that did.
    life: Option<Life>,
    daemon: u32,
    /// The store says of this life that its hook has done its work.
    recorded: bool,
    /// The daemon has heard of the add hook's end and not looked at the device since.
    unseen: bool,
    /// At that look, or when it ended, another device was in the place of the one that the hook
    /// ran for, or has got a mark that was meant for that one: nothing in the store tells whose
    /// work it is.
    mistaken: bool,
    /// The daemon has not been able to record it: that no word of it is there does not tell this
    /// device from one that has taken its place.
    owed: bool,
    /// The add hook ended without a word, and unseen, or with that of an earlier try, which the
    /// store did not let go of: it may have failed.
    unsure: bool,
    /// The daemon has heard of the removal hook's end, and is to record it.
    removal_due: bool,
    /// The removal hook's end is in the store, or should be.
    removal_recorded: bool,
    /// No hook has been run for this device.
    fresh: bool,
}

impl Account {
    fn new(daemon: u32) -> Self {
        Self {
            work: Work::Nothing,
            life: None,
            daemon,
            recorded: false,
            unseen: false,
            mistaken: false,
            owed: false,
            unsure: false,
            removal_due: false,
            removal_recorded: false,
            fresh: true,
        }
    }
}

#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Invariants {
    accounts: BTreeMap<DeviceKey, Account>,
    /// Devices of which the daemon knows what their hook needs.
    pub(crate) known: BTreeSet<DeviceKey>,
}

impl Invariants {
    fn work(&self, key: DeviceKey) -> Work {
        self.accounts.get(&key).map_or(Work::Nothing, |account| account.work)
    }

    /// Is the work of the add hook not in place, as far as this daemon can know? (It does not
    /// hear of a second pass that failed while none ran.) `told`: a hook has told blkback of the
    /// device.
    pub(crate) fn is_unfinished(&self, key: DeviceKey, daemon: u32, told: bool) -> bool {
        self.accounts.get(&key).is_none_or(|account| match account.work {
            Work::Placed => false,
            Work::Tried => account.daemon == daemon && !account.mistaken && !told,
            Work::Nothing => !account.mistaken,
        })
    }

    /// Must the daemon think that another device's hook was run for this one?
    pub(crate) fn is_mistaken(&self, key: DeviceKey) -> bool {
        self.accounts.get(&key).is_some_and(|account| account.mistaken)
    }

    /// Devices for which hooks have left something behind that this daemon can know of.
    pub(crate) fn leftovers(&self, daemon: u32) -> impl Iterator<Item = (DeviceKey, Work)> {
        let left = self.accounts.iter().filter(move |(_, account)| match account.work {
            _ if account.mistaken => false,
            Work::Nothing => false,
            Work::Tried => account.daemon == daemon,
            Work::Placed => account.daemon == daemon || account.recorded,
        });
        left.map(|(key, account)| (*key, account.work))
    }

    /// The toolstack has made a device, under the eyes of this daemon (0: of none). What was
    /// done for the one before it, whose name the daemon may know still, can only be known to
    /// a daemon that knew that one.
    pub(crate) fn created(&mut self, key: DeviceKey, daemon: u32, named: bool) {
        if self.work(key) == Work::Nothing || !self.known.contains(&key) {
            let unseen = self.accounts.get(&key).is_some_and(|account| account.unseen);
            let account = Account { unseen, mistaken: named, ..Account::new(daemon) };
            self.accounts.insert(key, account);
        } else if let Some(account) = self.accounts.get_mut(&key) {
            account.mistaken |= account.owed;
        }
    }

    /// A hook is started.
    pub(crate) fn started(&mut self, hook: &Process, store: &Store) -> Result<(), String> {
        let key = hook.key;
        let directory = store.get(key);
        let account = self.accounts.entry(key).or_insert_with(|| Account::new(0));
        let same_daemon = account.daemon == hook.daemon;
        let alive = directory.is_some_and(|directory| {
            directory.online && directory.state != 6 && store.frontend(key).is_some()
        });
        let verdict = match hook.verb {
            _ if hook.tap => Ok(()),
            Verb::Add => {
                let same_life = account.life == hook.life;
                let known = same_daemon || same_life && account.recorded;
                let placed = account.work == Work::Placed && !account.unsure;
                if placed && known && !account.mistaken {
                    Err(format!("{key}: the add hook runs a second time"))
                } else {
                    Ok(())
                }
            }
            Verb::Remove => {
                let current = directory.map(|directory| directory.life);
                // Of an interface that is closed at the first look nobody can tell whether an
                // earlier daemon has run its hook.
                let first = account.fresh && key.kind.served_by() == ServedBy::NetworkHook;
                let known =
                    !first && !account.mistaken && (same_daemon || account.removal_recorded);
                if account.work == Work::Nothing && known {
                    Err(format!("{key}: the removal hook runs, and there is nothing to remove"))
                } else if alive && account.life == current && !account.mistaken {
                    Err(format!("{key}: the removal hook runs for a device that is in use"))
                } else {
                    Ok(())
                }
            }
        };
        if hook.verb == Verb::Add && !hook.tap {
            account.work = Work::Tried;
            account.life = hook.life;
            account.recorded = false;
            // What another's hook has told blkback stays.
            account.mistaken &= directory.is_some_and(|directory| directory.physical_device);
            account.unseen = false;
            account.unsure = false;
            account.owed = false;
        }
        account.removal_due = false;
        account.removal_recorded = false;
        account.fresh = false;
        account.daemon = hook.daemon;
        verdict
    }

    /// A hook has ended.
    pub(crate) fn ended(&mut self, hook: &Process, end: HookEnd, store: &Store) {
        let directory = store.get(hook.key);
        if directory.is_none() && !self.known.contains(&hook.key) {
            return self.write_off(hook.key);
        }
        let account = self.accounts.entry(hook.key).or_insert_with(|| Account::new(0));
        account.daemon = hook.daemon;
        if hook.verb == Verb::Add && directory.is_some_and(|now| Some(now.life) != hook.life) {
            account.mistaken = true;
        }
        match hook.verb {
            Verb::Add if hook.has_done_it(end) => {
                account.work = Work::Placed;
                let word = directory.and_then(|directory| directory.hotplug);
                account.recorded = word == Some("connected");
                account.unsure =
                    hook.manner == Manner::Mute && (hook.found || word == Some("error"));
            }
            Verb::Add => account.work = Work::Tried,
            Verb::Remove => account.work = Work::Nothing,
        }
    }

    /// A hook could not be started: it will be tried again. (That of removing not for ever; that
    /// many failures in a row do not happen here.)
    pub(crate) fn not_started(
        &mut self,
        key: DeviceKey,
        verb: Verb,
        failure: HookFailure,
        daemon: u32,
    ) {
        let spawned = matches!(failure, HookFailure::Spawn(_));
        let account = self.accounts.entry(key).or_insert_with(|| Account::new(0));
        match verb {
            // One that an earlier daemon has run has done it, and so has one that ended well and
            // that nobody can be sure of.
            Verb::Add
                if account.work == Work::Placed && (account.daemon != daemon || account.unsure) => {
            }
            // The daemon knows that no hook was run.
            Verb::Add if !spawned => {}
            Verb::Add => {
                account.daemon = daemon;
                account.work = Work::Tried;
            }
            Verb::Remove if spawned => {}
            // Without its script nobody can take the work away.
            Verb::Remove => self.write_off(key),
        }
    }

    /// The daemon hears of a hook's end, or that it could not be started.
    pub(crate) fn heard(&mut self, key: DeviceKey, end: HookEnd, store: &Store) {
        if let Some(account) = self.accounts.get_mut(&key) {
            account.unseen = true;
            let life = store.get(key).map(|directory| directory.life);
            let same_life = life.is_some() && life == account.life;
            let disk = key.kind.served_by() == ServedBy::BlockHook;
            let ran = !matches!(end, HookEnd::Failure(HookFailure::Spawn(_)));
            account.removal_due = disk && same_life && ran && account.work == Work::Nothing;
        }
    }

    /// The daemon has done all that follows from what it has heard.
    pub(crate) fn done(&mut self) {
        for account in self.accounts.values_mut() {
            account.removal_recorded |= account.removal_due;
        }
    }

    /// The daemon has looked at a device, and found this life. Has it judged the work of the
    /// hook that has ended?
    pub(crate) fn seen(&mut self, key: DeviceKey, life: Option<Life>, judged: bool) {
        if let Some(account) = self.accounts.get_mut(&key)
            && account.unseen
        {
            account.unseen = !judged;
            account.mistaken |= life.is_some() && life != account.life;
        }
    }

    /// The daemon has put a mark on a device that was meant for the one before it.
    pub(crate) fn mistake(&mut self, key: DeviceKey) {
        self.accounts.entry(key).or_insert_with(|| Account::new(0)).mistaken = true;
    }

    /// The store has let the daemon record the end of an add hook, or has refused.
    pub(crate) fn set_owed(&mut self, key: DeviceKey, owed: bool) {
        if let Some(account) = self.accounts.get_mut(&key) {
            account.owed = owed;
        }
    }

    /// The store does not let the daemon record the end of a removal hook.
    pub(crate) fn not_recorded(&mut self, key: DeviceKey) {
        if let Some(account) = self.accounts.get_mut(&key) {
            account.removal_due = false;
        }
    }

    /// The daemon has recorded the end of an add hook, or of a removal hook.
    pub(crate) fn recorded(&mut self, key: DeviceKey, verb: Verb) {
        let Some(account) = self.accounts.get_mut(&key) else { return };
        match verb {
            Verb::Add => account.recorded = true,
            Verb::Remove => account.removal_recorded = true,
        }
    }

    /// The daemon ends. The next one does not hear of directories that have been replaced.
    pub(crate) fn daemon_ends(&mut self, store: &Store) {
        self.known.clear();
        self.accounts.retain(|key, account| {
            account.removal_due = false;
            let life = store.get(*key).map(|directory| directory.life);
            let known = account.life == life || account.mistaken;
            account.work == Work::Nothing || life.is_some() && known
        });
    }

    /// A directory has vanished of which no daemon knows what its hook needs, or in which
    /// nobody could read it any more: its hook's work stays for ever.
    pub(crate) fn write_off(&mut self, key: DeviceKey) {
        self.accounts.remove(&key);
    }
}
