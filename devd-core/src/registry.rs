//! The devices and guests that are known.

use hashbrown::HashTable;
use slab::Slab;

use crate::device::Device;
use crate::hook_queue::Line;
use crate::link::Link;
use crate::qemu::QemuState;
use crate::timer::{Owner, Place};
use crate::{DeviceKey, Domid, Time};

/// One guest: its QEMU, and its list of devices.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) domid: Domid,
    pub(crate) qemu: QemuState,
    /// Starts of its QEMU that have failed since the last that did not.
    pub(crate) failures: u8,
    /// When its QEMU became ready.
    pub(crate) ready_at: Time,
    /// Hooks of its devices that run.
    pub(crate) hooks: u32,
    /// Its devices whose hooks wait.
    pub(crate) line: Option<Line>,
    /// The first of its devices; each knows the next.
    first: Link,
    timer: Link,
}

impl Guest {
    /// How many starts of its QEMU have failed, and where the deadline is of the next.
    pub(crate) const fn retry(&self) -> (u8, Link) {
        (self.failures, self.timer)
    }
}

/// All devices and guests: found by their names in constant time, stored densely, reached by
/// small indexes from there on.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    devices: Slab<Device>,
    guests: Slab<Guest>,
    /// Packed key and index of every device.
    by_key: HashTable<(u64, u32)>,
    /// Domid and index of every guest.
    by_domid: HashTable<(Domid, u32)>,
}

/// Spreads a word over all bits of the hash. Keys are chosen by the toolstack, which is
/// trusted, so nothing stronger is called for.
#[inline]
fn hash(word: u64) -> u64 {
    let product = u128::from(word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    #[allow(clippy::cast_possible_truncation)] // The hash mixes both halves.
    let (high, low) = ((product >> 64) as u64, product as u64);
    high ^ low
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many devices there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Are there no devices?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// How many guests there are.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// The index of a device.
    #[must_use]
    #[inline]
    pub fn find(&self, key: DeviceKey) -> Option<u32> {
        let packed = key.packed();
        self.by_key.find(hash(packed), |(other, _)| *other == packed).map(|(_, index)| *index)
    }

    /// The index of a device, which is made if there is none of this name, and its guest with
    /// it.
    pub fn insert(&mut self, key: DeviceKey) -> u32 {
        if let Some(index) = self.find(key) {
            return index;
        }
        let guest = self.insert_guest(key.domid);
        let index = narrow(self.devices.insert(Device::new(key, guest)));
        let packed = key.packed();
        self.by_key.insert_unique(hash(packed), (packed, index), |(packed, _)| hash(*packed));

        let next = core::mem::replace(&mut self.guest_mut(guest).first, Link::to(index));
        self.device_mut(index).next = next;
        if let Some(next) = next.get() {
            self.device_mut(next).previous = Link::to(index);
        }
        index
    }

    /// Removes a device that [`insert`](Self::insert) made; its guest stays.
    pub fn remove(&mut self, index: u32) {
        let Some(device) = self.devices.try_remove(index as usize) else { return };
        let packed = device.key.packed();
        if let Ok(entry) = self.by_key.find_entry(hash(packed), |(other, _)| *other == packed) {
            entry.remove();
        }
        match device.previous.get() {
            Some(previous) => self.device_mut(previous).next = device.next,
            None => self.guest_mut(device.guest).first = device.next,
        }
        if let Some(next) = device.next.get() {
            self.device_mut(next).previous = device.previous;
        }
    }

    /// Every index of a device is below this.
    pub(crate) fn slots(&self) -> u32 {
        narrow(self.devices.capacity())
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Device> {
        self.devices.get(index as usize)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Device> {
        self.devices.get_mut(index as usize)
    }

    pub(crate) fn device(&self, index: u32) -> &Device {
        &self.devices[index as usize]
    }

    pub(crate) fn device_mut(&mut self, index: u32) -> &mut Device {
        &mut self.devices[index as usize]
    }

    /// All devices.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (u32, &Device)> {
        self.devices.iter().map(|(index, device)| (narrow(index), device))
    }

    /// The first of a guest's devices; `next` of each leads to the others.
    pub(crate) fn first_of(&self, guest: u32) -> Option<u32> {
        self.guest(guest).first.get()
    }

    /// The devices of a guest.
    pub(crate) fn devices_of(&self, guest: u32) -> impl Iterator<Item = (u32, &Device)> {
        core::iter::successors(self.first_of(guest), |index| self.device(*index).next.get())
            .map(|index| (index, self.device(index)))
    }

    pub(crate) fn find_guest(&self, domid: Domid) -> Option<u32> {
        let hash = hash(u64::from(domid));
        self.by_domid.find(hash, |(other, _)| *other == domid).map(|(_, index)| *index)
    }

    pub(crate) fn insert_guest(&mut self, domid: Domid) -> u32 {
        if let Some(index) = self.find_guest(domid) {
            return index;
        }
        let guest = Guest {
            domid,
            qemu: QemuState::Unknown,
            failures: 0,
            ready_at: Time::default(),
            hooks: 0,
            line: None,
            first: Link::NONE,
            timer: Link::NONE,
        };
        let index = narrow(self.guests.insert(guest));
        let rehash = |(domid, _): &(Domid, u32)| hash(u64::from(*domid));
        self.by_domid.insert_unique(hash(u64::from(domid)), (domid, index), rehash);
        index
    }

    /// Removes a guest that has no devices.
    pub(crate) fn remove_guest(&mut self, index: u32) {
        debug_assert!(self.guest(index).first.is_none());
        let domid = self.guests.remove(index as usize).domid;
        let hash = hash(u64::from(domid));
        if let Ok(entry) = self.by_domid.find_entry(hash, |(other, _)| *other == domid) {
            entry.remove();
        }
    }

    pub(crate) fn guest(&self, index: u32) -> &Guest {
        &self.guests[index as usize]
    }

    pub(crate) fn guest_mut(&mut self, index: u32) -> &mut Guest {
        &mut self.guests[index as usize]
    }

    /// All guests.
    pub(crate) fn all_guests(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().map(|(_, guest)| guest)
    }
}

impl Place for Registry {
    fn slot(&mut self, owner: Owner) -> &mut Link {
        match owner {
            Owner::Device(index) => &mut self.device_mut(index).timer,
            Owner::Observation(index) => &mut self.device_mut(index).observation_timer,
            Owner::Guest(index) => &mut self.guest_mut(index).timer,
        }
    }
}

/// Indexes fit: four billion devices would not fit any memory.
fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 devices")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use alloc::vec::Vec;

    fn key(kind: Kind, domid: Domid, devid: u32) -> DeviceKey {
        DeviceKey { kind, domid, devid }
    }

    #[test]
    fn devices_are_found_until_they_are_removed() {
        let mut registry = Registry::new();
        let keys: Vec<DeviceKey> = (0..500)
            .flat_map(|domid| {
                [key(Kind::Vif, domid, 0), key(Kind::Vbd, domid, 0), key(Kind::Vbd, domid, 51712)]
            })
            .collect();
        let indexes: Vec<u32> = keys.iter().map(|key| registry.insert(*key)).collect();
        assert_eq!((registry.len(), registry.guests()), (1500, 500));
        for (key, index) in keys.iter().zip(&indexes) {
            assert_eq!(registry.find(*key), Some(*index));
            assert_eq!(registry.insert(*key), *index);
            assert_eq!(registry.device(*index).key, *key);
        }
        for (i, index) in indexes.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
            registry.remove(*index);
            assert_eq!(registry.find(keys[i]), None);
        }
        assert_eq!(registry.len(), 750);
        assert_eq!(registry.find(key(Kind::Vif, 700, 0)), None);
    }

    #[test]
    fn a_guest_knows_its_devices_in_whatever_order_they_leave() {
        let mut registry = Registry::new();
        let of = |registry: &Registry| -> Vec<u32> {
            let guest = registry.find_guest(3).unwrap();
            let mut devids: Vec<u32> =
                registry.devices_of(guest).map(|(_, device)| device.key.devid).collect();
            devids.sort_unstable();
            devids
        };
        let index: Vec<u32> =
            (0..5).map(|devid| registry.insert(key(Kind::Vif, 3, devid))).collect();
        registry.insert(key(Kind::Vif, 4, 9));
        registry.remove(index[2]);
        assert_eq!(of(&registry), [0, 1, 3, 4]);
        registry.remove(index[4]);
        registry.remove(index[0]);
        assert_eq!(of(&registry), [1, 3]);
        registry.remove(index[1]);
        registry.remove(index[3]);
        assert_eq!(of(&registry), []);
        let guest = registry.find_guest(3).unwrap();
        registry.remove_guest(guest);
        assert_eq!(registry.find_guest(3), None);
        assert!(registry.find_guest(4).is_some());
    }
}
