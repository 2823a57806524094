//! What the benchmarks share: what they work on, what they are compared with, and how.

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

/// One of the devices of these guests. Takes no memory, of which the caches would have to have
/// a part.
#[inline]
pub fn any_device(guests: Domid, order: &mut Shuffled) -> DeviceKey {
    let domid = Domid::try_from(order.below(guests.into())).unwrap_or(0) + 1;
    let (kind, devid) = *order.of(&DEVICES);
    DeviceKey { kind, domid, devid }
}
