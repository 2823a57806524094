//! What the benchmarks share: the events and the guests that they work on.

use devd_core::{DeviceKey, Domid, Kind};

/// The paths of one life of a vif and a vbd as xenstored tells them: mostly of nodes that do
/// not matter, as in real life.
pub const EVENTS: &[&str] = &[
    "backend/vif/3/0",
    "backend/vif/3/0/frontend",
    "backend/vif/3/0/frontend-id",
    "backend/vif/3/0/online",
    "backend/vif/3/0/state",
    "backend/vif/3/0/script",
    "backend/vif/3/0/mac",
    "backend/vif/3/0/bridge",
    "backend/vif/3/0/handle",
    "backend/vif/3/0/type",
    "backend/vif/3/0/hotplug-status",
    "backend/vif/3/0/feature-sg",
    "backend/vif/3/0/feature-gso-tcpv4",
    "backend/vif/3/0/feature-dynamic-multicast-control",
    "backend/vif/3/0/multi-queue-max-queues",
    "backend/vif/3/0/state",
    "backend/vif/3/0/hotplug-status",
    "backend/vif/3/0/state",
    "backend/vbd/32751/51712",
    "backend/vbd/32751/51712/params",
    "backend/vbd/32751/51712/physical-device",
    "backend/vbd/32751/51712/feature-max-indirect-segments",
    "backend/vbd/32751/51712/discard-granularity",
    "backend/vbd/32751/51712/state",
    "backend/qdisk/3/51776/state",
    "backend/virtio_disk/3/0/state",
];

/// The devices of these guests, four each: two disks, an interface and a disk of QEMU's.
pub fn devices(guests: Domid) -> impl Iterator<Item = DeviceKey> {
    (1..=guests).flat_map(|domid| {
        [(Kind::Vif, 0), (Kind::Vbd, 51712), (Kind::Vbd, 51728), (Kind::Qdisk, 51744)]
            .map(|(kind, devid)| DeviceKey { kind, domid, devid })
    })
}

/// Numbers in an order that no cache foresees: xorshift, the same at every run.
pub fn shuffled(seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0)
    })
}
