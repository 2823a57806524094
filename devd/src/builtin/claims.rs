//! Who uses which disk: no two guests one that either of them writes.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use devd_core::DeviceKey;

use super::device_number::DeviceNumber;
use super::file_id::FileId;
use super::file_system::{FileSystem, FileSystems};
use super::loop_device;
use super::place::Place;

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

/// What a block device is: itself, and the file behind it, or a part of both if it is a
/// partition. The file's server is asked for its file.
pub(crate) fn of_device(number: DeviceNumber) -> Vec<(Identity, Extent)> {
    let mut identities = of_block_device(number);
    let (disk, extent) = match *identities {
        [_, (Identity::Device(disk), extent)] => (disk, extent),
        _ => (number, Extent::Whole),
    };
    if disk.is_loop() {
        identities.extend(loop_device::backing(disk).map(|file| (Identity::File(file), extent)));
    }
    identities
}

/// The same without the file: a block device is itself, and a part of its disk if it is a
/// partition.
pub(crate) fn of_block_device(number: DeviceNumber) -> Vec<(Identity, Extent)> {
    let mut identities = vec![(Identity::Device(number), Extent::Whole)];
    identities.extend(number.disk().map(|disk| (Identity::Device(disk), Extent::Part)));
    identities
}

/// Who uses which disk, as far as the daemon knows. For all threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Notified when an identity was found.
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
    unresolved: HashMap<DeviceKey, Unresolved>,
    /// How many of those there were so far.
    notes: u64,
}

/// A disk in use of which it is not known yet what it is.
#[derive(Debug)]
struct Unresolved {
    mode: Mode,
    place: Place,
    /// Tells it from another of the same device.
    note: u64,
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
pub(crate) enum Conflict {
    /// It has the disk.
    Has(DeviceKey, Mode),
    /// It may have the disk: both are files of one file system, whose server has not answered.
    MayHave(DeviceKey, Mode),
}

/// How long a claim waits until it is known what the disks are that may be the same.
const PATIENCE: Duration = Duration::from_secs(2);

impl Claims {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a disk for a device; `file` is the path of its file without links, if it has one.
    pub(crate) fn claim(
        &self,
        key: DeviceKey,
        mode: Mode,
        identities: &[(Identity, Extent)],
        file: Option<&Path>,
    ) -> Result<Claim, Conflict> {
        let deadline = Instant::now() + PATIENCE;
        let mut file_system = None;
        let mut table = self.table();
        loop {
            if let Some(conflict) = table.user(key, mode, identities) {
                return Err(conflict);
            }
            if table.unresolved.is_empty() {
                break;
            }
            // Other threads need the table meanwhile; this is done once.
            let (mounted, own) = file_system.get_or_insert_with(|| {
                let mounted = FileSystems::read();
                let own = file.and_then(|file| mounted.of(file));
                (mounted, own)
            });
            let rival = table.rival(key, mode, identities, mounted, own.as_ref());
            let Some(conflict) = rival else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            if matches!(conflict, Conflict::Has(..)) || left.is_zero() {
                return Err(conflict);
            }
            let waited = self.0.resolved.wait_timeout(table, left);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        table.insert(key, mode, identities);
        drop(table);
        Ok(Claim { claims: self.clone(), key })
    }

    /// Takes note of a disk in use that something else has set up. The work finds out what the
    /// disk is, in a thread of its own: the server of its file may not answer.
    pub(crate) fn note(
        &self,
        key: DeviceKey,
        mode: Mode,
        place: Place,
    ) -> (Claim, impl FnOnce() + Send + use<>) {
        let mut table = self.table();
        table.release(key);
        table.notes += 1;
        let note = table.notes;
        table.unresolved.insert(key, Unresolved { mode, place: place.clone(), note });
        drop(table);
        let claims = self.clone();
        let resolve = move || {
            let identities = place.identities();
            let mut table = claims.table();
            // The device may be gone, or another one by now.
            if table.unresolved.get(&key).is_some_and(|unresolved| unresolved.note == note) {
                table.insert(key, mode, &identities);
            }
            drop(table);
            claims.0.resolved.notify_all();
        };
        (Claim { claims: self.clone(), key }, resolve)
    }

    /// Has this device a claim, or a note of one?
    pub(crate) fn knows(&self, key: DeviceKey) -> bool {
        let table = self.table();
        table.disks.contains_key(&key) || table.unresolved.contains_key(&key)
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
}

impl Table {
    /// A user of the disk that stands in the way.
    fn user(
        &self,
        key: DeviceKey,
        mode: Mode,
        identities: &[(Identity, Extent)],
    ) -> Option<Conflict> {
        identities.iter().find_map(|(identity, extent)| {
            let new = User { key, mode, extent: *extent };
            let mut users = self.users.get(identity).into_iter().flatten();
            let other = users.find(|user| user.excludes(&new))?;
            Some(Conflict::Has(other.key, other.mode))
        })
    }

    /// A disk that stands in the way, of those that are not resolved. `file_system` is that of
    /// the new disk's file: a file of another one is another file.
    fn rival(
        &self,
        key: DeviceKey,
        mode: Mode,
        identities: &[(Identity, Extent)],
        mounted: &FileSystems,
        file_system: Option<&FileSystem>,
    ) -> Option<Conflict> {
        let mut may_have = None;
        for (other, unresolved) in &self.unresolved {
            let excludes = |extent, new_extent| {
                let user = User { key: *other, mode: unresolved.mode, extent };
                user.excludes(&User { key, mode, extent: new_extent })
            };
            if !excludes(Extent::Whole, Extent::Whole) {
                continue;
            }
            let is_same = |(identity, extent): &(Identity, Extent)| {
                let mut new = identities.iter().filter(|(new, _)| new == identity);
                new.any(|(_, new_extent)| excludes(*extent, *new_extent))
            };
            if unresolved.place.known().iter().any(is_same) {
                return Some(Conflict::Has(*other, unresolved.mode));
            }
            let same_file_system = || unresolved.place.file_system(mounted).as_ref() == file_system;
            if file_system.is_some() && same_file_system() {
                may_have = Some(Conflict::MayHave(*other, unresolved.mode));
            }
        }
        may_have
    }

    fn insert(&mut self, key: DeviceKey, mode: Mode, identities: &[(Identity, Extent)]) {
        self.release(key);
        for (identity, extent) in identities {
            self.users.entry(*identity).or_default().push(User { key, mode, extent: *extent });
        }
        self.disks.insert(key, identities.iter().map(|(identity, _)| *identity).collect());
    }

    fn release(&mut self, key: DeviceKey) {
        self.unresolved.remove(&key);
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
            let _first = claims.claim(disk(1, 0), first, &[DISK], None).unwrap();
            let second = claims.claim(disk(2, 0), second, &[DISK], None);
            assert_eq!(second.as_ref().err(), refused.then_some(&Conflict::Has(disk(1, 0), first)));
        }
        let claims = Claims::default();
        let _first = claims.claim(disk(1, 0), Write, &[DISK], None).unwrap();
        claims.claim(disk(1, 1), Write, &[DISK], None).expect("the same guest may");
    }

    #[test]
    fn a_disk_and_its_partitions_are_in_the_way_of_each_other() {
        let part = |number| {
            [(Identity::Device(DeviceNumber(number)), Extent::Whole), (FILE, Extent::Part)]
        };
        let claims = Claims::default();
        let first = claims.claim(disk(1, 0), Mode::Write, &part(1), None).unwrap();
        let second =
            claims.claim(disk(2, 0), Mode::Write, &part(2), None).expect("another partition");
        assert!(claims.claim(disk(3, 0), Mode::Write, &part(2), None).is_err(), "the same");
        assert!(claims.claim(disk(3, 0), Mode::Read, &[DISK], None).is_err(), "both of them");
        drop((first, second));
        let _whole = claims.claim(disk(3, 0), Mode::Write, &[DISK], None).unwrap();
        assert!(claims.claim(disk(1, 0), Mode::Read, &part(1), None).is_err(), "a part of it");
    }

    #[test]
    fn a_claim_ends_with_whoever_holds_it_and_nothing_is_left_of_it() {
        let claims = Claims::default();
        let first = claims.claim(disk(1, 0), Mode::Write, &[DISK], None).unwrap();
        assert!(claims.claim(disk(2, 0), Mode::Write, &[DISK], None).is_err());
        assert!(!claims.knows(disk(2, 0)), "the one that was refused has none");
        drop(first);
        drop(claims.claim(disk(2, 0), Mode::Write, &[DISK], None).unwrap());
        assert!(claims.table().users.is_empty() && claims.table().disks.is_empty());
    }

    #[test]
    fn unresolved_disk_refuses_files_of_its_file_system_only() {
        let claims = Claims::default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, "").unwrap();
        let place = Place::path(path.clone());
        let identities = place.identities();
        let (note, resolve) = claims.note(disk(1, 0), Mode::Write, place);
        assert!(claims.knows(disk(1, 0)));
        let claim = |file| claims.claim(disk(2, 0), Mode::Read, &identities, file);
        let another = path.with_file_name("another");
        let refused = claim(Some(&another)).unwrap_err();
        assert_eq!(refused, Conflict::MayHave(disk(1, 0), Mode::Write));
        drop(claim(Some(Path::new("/proc/version"))).unwrap());
        drop(claim(None).unwrap());
        claims.claim(disk(1, 1), Mode::Write, &identities, Some(&path)).expect("its own guest");
        resolve();
        let refused = claim(Some(&path)).unwrap_err();
        assert_eq!(refused, Conflict::Has(disk(1, 0), Mode::Write));
        drop(note);
        drop(claim(Some(&path)).unwrap());
    }

    #[test]
    fn unresolved_block_device_is_known_by_its_number() {
        let claims = Claims::default();
        let number = DeviceNumber(1);
        let (note, resolve) = claims.note(disk(1, 0), Mode::Write, Place::Device(number));
        let same = [(Identity::Device(number), Extent::Whole)];
        let refused = claims.claim(disk(2, 0), Mode::Read, &same, None).unwrap_err();
        assert_eq!(refused, Conflict::Has(disk(1, 0), Mode::Write));
        drop(note);
        resolve();
        claims.claim(disk(2, 0), Mode::Read, &same, None).expect("a note that ended");
    }
}
