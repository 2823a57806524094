//! The looks at disks that built-in hooks have attached: does each of them still have its file?
//!
//! The kernel has no event for a lost file, so the daemon looks once a minute, at each disk in a
//! thread of its own. A file whose server is away keeps its own thread waiting, and no other disk.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use devd_core::{DeviceKey, Time};
use xs_client::{Client, Error};

use super::{next_look, write_error};
use crate::builtin::backing::{Backing, Drift};
use crate::builtin::thread::{self, Wake, Work};

/// The looks at all disks.
#[derive(Debug)]
pub(crate) struct DiskUpkeep {
    next: Next,
    /// Disks whose look has not ended. None of them is looked at again before it has.
    looking: HashSet<DeviceKey>,
    results: Arc<Mutex<Vec<Look>>>,
    /// What was reported of which disk.
    wrong: HashMap<DeviceKey, String>,
    wake: Wake,
}

type Look = (DeviceKey, Backing, Result<(), Drift>);

/// When to look next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// There is no disk.
    Never,
    /// There is a disk, and the time is not set.
    Soon,
    At(Time),
}

impl DiskUpkeep {
    pub(crate) fn new(wake: Wake) -> Self {
        let (looking, results) = (HashSet::new(), Arc::default());
        Self { next: Next::Never, looking, results, wrong: HashMap::new(), wake }
    }

    /// There is a disk.
    pub(crate) fn add(&mut self) {
        if self.next == Next::Never {
            self.next = Next::Soon;
        }
    }

    pub(crate) fn handle_gone(&mut self, key: DeviceKey) {
        self.wrong.remove(&key);
    }

    /// When [`run`](Self::run) is to be called again, if nothing happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        match self.next {
            Next::Soon => Some(Time::from_millis(0)),
            Next::At(at) => Some(at),
            Next::Never => None,
        }
    }

    /// Tells what the last look has found, and starts the next. `all`: the disks that there are;
    /// `current`: what is behind a disk now.
    ///
    /// # Errors
    ///
    /// The connection is lost; the next look finds the same.
    pub(crate) fn run(
        &mut self,
        client: Option<&mut Client>,
        now: Time,
        current: impl Fn(DeviceKey) -> Option<Backing>,
        all: impl FnOnce() -> Vec<(DeviceKey, Backing)>,
    ) -> Result<(), Error> {
        let results =
            std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner));
        for (key, ..) in &results {
            self.looking.remove(key);
        }
        match self.next {
            Next::Soon => self.next = Next::At(next_look(now)),
            Next::At(at) if at <= now => self.look(all(), now),
            Next::Never | Next::At(_) => {}
        }
        let Some(client) = client else { return Ok(()) };
        for (key, backing, result) in results {
            if current(key) == Some(backing) {
                self.tell(client, key, result.err())?;
            }
        }
        Ok(())
    }

    fn look(&mut self, disks: Vec<(DeviceKey, Backing)>, now: Time) {
        if disks.is_empty() {
            self.next = Next::Never;
            return;
        }
        self.next = Next::At(next_look(now));
        let mut looks: Vec<Work> = Vec::new();
        let mut begun = Vec::new();
        for (key, backing) in disks {
            if self.looking.contains(&key) {
                continue;
            }
            let (results, wake) = (Arc::clone(&self.results), self.wake.clone());
            looks.push(Box::new(move || {
                let look = (key, backing, backing.check());
                results.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                wake.wake();
            }));
            begun.push(key);
        }
        match thread::spawn_each(looks) {
            Ok(()) => self.looking.extend(begun),
            Err(error) => log::warn!(
                "cannot look whether disks have their files: {error}; trying again in a minute"
            ),
        }
    }

    fn tell(
        &mut self,
        client: &mut Client,
        key: DeviceKey,
        drift: Option<Drift>,
    ) -> Result<(), Error> {
        let Some(drift) = drift else {
            if self.wrong.remove(&key).is_some() && write_error(client, key, None, None)? {
                log::info!("{key}: the disk is as it should be again");
            }
            return Ok(());
        };
        let words = drift.to_string();
        if self.wrong.get(&key) != Some(&words) && write_error(client, key, Some(&words), None)? {
            match drift {
                Drift::FileDeleted(_) => log::warn!("{key}: {words}"),
                Drift::DeviceGone(_) | Drift::FileLost(_) | Drift::OtherFile(..) => {
                    log::error!("{key}: {words}");
                }
            }
            self.wrong.insert(key, words);
        }
        Ok(())
    }
}
