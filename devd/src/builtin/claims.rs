//! Who uses which disk: no two guests one that either of them writes.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use devd_core::DeviceKey;

use super::device_number::DeviceNumber;
use super::file_id::FileId;
use super::loop_device;

/// What a disk is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    Device(DeviceNumber),
    File(FileId),
}

/// How much of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// A partition; others are others' business.
    Part,
}

/// How a guest uses a disk: the value of `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Others may read too, none may write.
    Read,
    /// For itself alone.
    Write,
    /// Writes, and says that it knows what it does: whoever else uses the disk.
    Shared,
}

impl Mode {
    /// Upstream's reading: a `w` anywhere is for writing, with a `!` for sharing.
    pub(crate) fn parse(value: &[u8]) -> Self {
        match (value.contains(&b'w'), value.contains(&b'!')) {
            (false, _) => Self::Read,
            (true, false) => Self::Write,
            (true, true) => Self::Shared,
        }
    }

    /// Must a guest that wants it so be refused, since another uses it like that?
    const fn conflicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Shared, _) | (Self::Read, Self::Read | Self::Shared) => false,
            (Self::Write, _) | (Self::Read, Self::Write) => true,
        }
    }

    /// Is it one that toolstacks write? All others are read as upstream reads them.
    pub(crate) fn is_usual(value: &[u8]) -> bool {
        matches!(value, b"r" | b"ro" | b"w" | b"rw" | b"w!" | b"rw!")
    }

    /// How, in words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Read => "for reading",
            Self::Write | Self::Shared => "for writing",
        }
    }
}

/// Where a disk is whose identity is not known yet.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Device(DeviceNumber),
    /// A file or a block device.
    Path(PathBuf),
}

impl Place {
    /// Asks the kernel; that may take as long as the file's server does not answer.
    fn identities(&self) -> Vec<(Identity, Extent)> {
        match self {
            Self::Device(number) => of_device(*number),
            Self::Path(path) => match std::fs::metadata(path) {
                Ok(file) if file.is_file() => {
                    vec![(Identity::File(FileId::of(&file)), Extent::Whole)]
                }
                Ok(file) => of_device(DeviceNumber(file.rdev())),
                Err(_) => Vec::new(),
            },
        }
    }
}

/// What a block device is: itself, and the file behind it, or a part of both if it is a
/// partition.
pub(crate) fn of_device(number: DeviceNumber) -> Vec<(Identity, Extent)> {
    let mut identities = vec![(Identity::Device(number), Extent::Whole)];
    let (disk, extent) = match number.disk() {
        None => (number, Extent::Whole),
        Some(disk) => {
            identities.push((Identity::Device(disk), Extent::Part));
            (disk, Extent::Part)
        }
    };
    if disk.is_loop() {
        identities.extend(loop_device::backing(disk).map(|file| (Identity::File(file), extent)));
    }
    identities
}

/// Who uses which disk, as far as the daemon knows. For all threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Notified when nobody looks for identities any more.
    resolved: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    users: HashMap<Identity, Vec<User>>,
    /// What a device has a claim to.
    disks: HashMap<DeviceKey, Vec<Identity>>,
    /// The block devices that the daemon has for itself, for guests that alone write them.
    held: HashMap<DeviceNumber, Weak<File>>,
    /// Disks in use of which it is not known yet what they are.
    places: Vec<(DeviceKey, Mode, Place)>,
    /// Threads that look for that.
    resolving: usize,
}

#[derive(Debug)]
struct User {
    key: DeviceKey,
    mode: Mode,
    extent: Extent,
}

impl User {
    /// Can both not have it? Devices of one guest do not exclude each other.
    fn excludes(&self, other: &Self) -> bool {
        let overlap = self.extent == Extent::Whole || other.extent == Extent::Whole;
        overlap && self.key.domid != other.key.domid && other.mode.conflicts(self.mode)
    }
}

/// A device's right to its disk, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Claims,
    key: DeviceKey,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.table().release(self.key);
    }
}

/// Another guest's device that stands in the way, and how it uses the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict(pub(crate) DeviceKey, pub(crate) Mode);

/// How long a thread waits for another that looks for identities. One that hangs must not keep
/// all disks waiting.
const PATIENCE: Duration = Duration::from_secs(2);

impl Claims {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a disk for a device.
    pub(crate) fn claim(
        &self,
        key: DeviceKey,
        mode: Mode,
        identities: &[(Identity, Extent)],
    ) -> Result<Claim, Conflict> {
        self.resolve();
        let mut table = self.table();
        for (identity, extent) in identities {
            let new = User { key, mode, extent: *extent };
            let mut users = table.users.get(identity).into_iter().flatten();
            if let Some(other) = users.find(|user| user.excludes(&new)) {
                return Err(Conflict(other.key, other.mode));
            }
        }
        table.insert(key, mode, identities);
        drop(table);
        Ok(Claim { claims: self.clone(), key })
    }

    /// Takes note of a disk in use that something else has set up.
    pub(crate) fn note(&self, key: DeviceKey, mode: Mode, place: Place) -> Claim {
        self.table().places.push((key, mode, place));
        Claim { claims: self.clone(), key }
    }

    /// Has this device a claim, or a note of one?
    pub(crate) fn knows(&self, key: DeviceKey) -> bool {
        let table = self.table();
        table.disks.contains_key(&key) || table.places.iter().any(|(other, ..)| *other == key)
    }

    /// Has the block device for itself as long as one of its disks has the hold.
    pub(crate) fn hold(&self, number: DeviceNumber, device: Arc<File>) -> Arc<File> {
        let mut table = self.table();
        table.held.retain(|_, hold| hold.strong_count() > 0);
        table.held.insert(number, Arc::downgrade(&device));
        device
    }

    pub(crate) fn held(&self, number: DeviceNumber) -> Option<Arc<File>> {
        self.table().held.get(&number)?.upgrade()
    }

    pub(crate) fn all_held(&self) -> Vec<DeviceNumber> {
        let table = self.table();
        let held = table.held.iter().filter(|(_, hold)| hold.strong_count() > 0);
        held.map(|(number, _)| *number).collect()
    }

    /// Finds out what the disks are of which that is not known.
    fn resolve(&self) {
        let mut table = self.table();
        let places = std::mem::take(&mut table.places);
        if places.is_empty() {
            let busy = |table: &mut Table| table.resolving > 0;
            let waited = self.0.resolved.wait_timeout_while(table, PATIENCE, busy);
            drop(waited);
            return;
        }
        table.resolving += 1;
        // So that one that is released meanwhile is not claimed afterwards.
        places.iter().for_each(|(key, ..)| {
            table.disks.insert(*key, Vec::new());
        });
        drop(table);
        for (key, mode, place) in places {
            let identities = place.identities();
            let mut table = self.table();
            if table.disks.contains_key(&key) {
                table.insert(key, mode, &identities);
            }
        }
        self.table().resolving -= 1;
        self.0.resolved.notify_all();
    }
}

impl Table {
    fn insert(&mut self, key: DeviceKey, mode: Mode, identities: &[(Identity, Extent)]) {
        self.release(key);
        for (identity, extent) in identities {
            self.users.entry(*identity).or_default().push(User { key, mode, extent: *extent });
        }
        self.disks.insert(key, identities.iter().map(|(identity, _)| *identity).collect());
    }

    fn release(&mut self, key: DeviceKey) {
        self.places.retain(|(other, ..)| *other != key);
        for identity in self.disks.remove(&key).into_iter().flatten() {
            if let Some(users) = self.users.get_mut(&identity) {
                users.retain(|user| user.key != key);
                if users.is_empty() {
                    self.users.remove(&identity);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devd_core::Kind;

    const FILE: Identity = Identity::File(FileId { device: 1, inode: 2 });
    const DISK: (Identity, Extent) = (FILE, Extent::Whole);

    fn disk(domid: u16, devid: u32) -> DeviceKey {
        DeviceKey { kind: Kind::Vbd, domid, devid }
    }

    #[test]
    fn modes_as_upstream_reads_them() {
        for (value, mode) in [
            (&b"r"[..], Mode::Read),
            (b"ro", Mode::Read),
            (b"w", Mode::Write),
            (b"rw", Mode::Write),
            (b"w!", Mode::Shared),
            (b"!", Mode::Read),
            (b"", Mode::Read),
        ] {
            assert_eq!(Mode::parse(value), mode, "{}", value.escape_ascii());
        }
        assert!(Mode::is_usual(b"w!") && !Mode::is_usual(b"write") && !Mode::is_usual(b""));
    }

    #[test]
    fn who_writes_has_the_disk_for_its_guest_alone() {
        use Mode::{Read, Shared, Write};
        for (first, second, refused) in [
            (Read, Read, false),
            (Read, Write, true),
            (Write, Read, true),
            (Write, Write, true),
            (Write, Shared, false),
            (Shared, Write, true),
            (Shared, Read, false),
        ] {
            let claims = Claims::default();
            let _first = claims.claim(disk(1, 0), first, &[DISK]).unwrap();
            let second = claims.claim(disk(2, 0), second, &[DISK]);
            assert_eq!(second.as_ref().err(), refused.then_some(&Conflict(disk(1, 0), first)));
        }
        let claims = Claims::default();
        let _first = claims.claim(disk(1, 0), Write, &[DISK]).unwrap();
        claims.claim(disk(1, 1), Write, &[DISK]).expect("the same guest may");
    }

    #[test]
    fn a_disk_and_its_partitions_are_in_the_way_of_each_other() {
        let part = |number| {
            [(Identity::Device(DeviceNumber(number)), Extent::Whole), (FILE, Extent::Part)]
        };
        let claims = Claims::default();
        let first = claims.claim(disk(1, 0), Mode::Write, &part(1)).unwrap();
        let second = claims.claim(disk(2, 0), Mode::Write, &part(2)).expect("another partition");
        assert!(claims.claim(disk(3, 0), Mode::Write, &part(2)).is_err(), "the same");
        assert!(claims.claim(disk(3, 0), Mode::Read, &[DISK]).is_err(), "both of them");
        drop((first, second));
        let _whole = claims.claim(disk(3, 0), Mode::Write, &[DISK]).unwrap();
        assert!(claims.claim(disk(1, 0), Mode::Read, &part(1)).is_err(), "a part of it");
    }

    #[test]
    fn a_claim_ends_with_whoever_holds_it_and_nothing_is_left_of_it() {
        let claims = Claims::default();
        let first = claims.claim(disk(1, 0), Mode::Write, &[DISK]).unwrap();
        assert!(claims.claim(disk(2, 0), Mode::Write, &[DISK]).is_err());
        assert!(!claims.knows(disk(2, 0)), "the one that was refused has none");
        drop(first);
        drop(claims.claim(disk(2, 0), Mode::Write, &[DISK]).unwrap());
        assert!(claims.table().users.is_empty() && claims.table().disks.is_empty());
    }

    #[test]
    fn a_disk_that_was_only_noted_is_looked_at_before_the_next_claim() {
        let claims = Claims::default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, "").unwrap();
        let place = Place::Path(path.clone());
        let note = claims.note(disk(1, 0), Mode::Write, place.clone());
        assert!(claims.knows(disk(1, 0)));
        let identities = place.identities();
        let refused = claims.claim(disk(2, 0), Mode::Read, &identities).unwrap_err();
        assert_eq!(refused, Conflict(disk(1, 0), Mode::Write));
        drop(note);
        claims.claim(disk(2, 0), Mode::Read, &identities).unwrap();
    }
}
