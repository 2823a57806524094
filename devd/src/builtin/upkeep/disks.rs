//! The disks that built-in hooks have attached still have their files.
//!
//! The kernel has no event for that, so a thread looks once a minute. A file whose server is away
//! keeps that thread waiting, and nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use devd_core::{DeviceKey, Time};
use xs_client::{Client, Error};

use super::{next_look, write_error};
use crate::builtin::backing::{Backing, Drift};
use crate::builtin::thread::{self, Wake};

/// The looks at all disks.
#[derive(Debug)]
pub(crate) struct DiskUpkeep {
    next: Next,
    /// A thread looks.
    looking: bool,
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
        let (results, wrong) = (Arc::default(), HashMap::new());
        Self { next: Next::Never, looking: false, results, wrong, wake }
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
            Next::At(at) if !self.looking => Some(at),
            Next::Never | Next::At(_) => None,
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
        self.looking &= results.is_empty();
        match self.next {
            Next::Soon => self.next = Next::At(next_look(now)),
            Next::At(at) if at <= now && !self.looking => self.look(all(), now),
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
        let (results, wake) = (Arc::clone(&self.results), self.wake.clone());
        let started = thread::spawn(move || {
            let found: Vec<Look> =
                disks.into_iter().map(|(key, backing)| (key, backing, backing.check())).collect();
            results.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            wake.wake();
        });
        match started {
            Ok(()) => self.looking = true,
            Err(error) => log::warn!(
                "cannot look whether disks have their files: {error}; it is tried again in a minute"
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
            if self.wrong.remove(&key).is_some() && write_error(client, key, None)? {
                log::info!("{key}: the disk is as it should be again");
            }
            return Ok(());
        };
        let words = drift.to_string();
        if self.wrong.get(&key) != Some(&words) && write_error(client, key, Some(&words))? {
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
