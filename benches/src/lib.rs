//! Parts that the benchmarks share: their workloads, their references, and the comparison.

pub mod allocations;
pub mod events;
pub mod life;
mod order;
pub mod raw;
pub mod reference;
pub mod versus;

use devd_core::{DeviceKey, Domid, Kind};

pub use order::Shuffled;

/// The devices that each guest has: two disks, an interface and a disk of QEMU's.
pub const DEVICES: [(Kind, u32); 4] =
    [(Kind::Vif, 0), (Kind::Vbd, 51712), (Kind::Vbd, 51728), (Kind::Qdisk, 51744)];

/// The devices of these guests, guest by guest.
pub fn devices(guests: Domid) -> impl Iterator<Item = DeviceKey> {
    (1..=guests).flat_map(|domid| DEVICES.map(|(kind, devid)| DeviceKey { kind, domid, devid }))
}

/// A device of these guests, computed from its number: a table would take room in the caches.
#[inline]
pub fn any_device(guests: Domid, order: &mut Shuffled) -> DeviceKey {
    let domid = Domid::try_from(order.below(guests.into())).unwrap_or(0) + 1;
    let (kind, devid) = *order.of(&DEVICES);
    DeviceKey { kind, domid, devid }
}
