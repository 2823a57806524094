//! The paths of events, mixed as in real life.

use devd_core::Kind;

use crate::Shuffled;

/// The nodes of one life of a device, in the proportion in which they change: mostly such as do
/// not matter.
const LEAVES: [&str; 32] = [
    "",
    "/state",
    "/state",
    "/state",
    "/state",
    "/state",
    "/online",
    "/online",
    "/script",
    "/type",
    "/frontend",
    "/frontend-id",
    "/mac",
    "/bridge",
    "/handle",
    "/ip",
    "/params",
    "/mode",
    "/dev",
    "/removable",
    "/bootable",
    "/hotplug-status",
    "/hotplug-status",
    "/physical-device",
    "/physical-device-path",
    "/feature-sg",
    "/feature-gso-tcpv4",
    "/feature-dynamic-multicast-control",
    "/feature-max-indirect-segments",
    "/multi-queue-max-queues",
    "/discard-granularity",
    "/sectors",
];

/// The numbers that devices have: interfaces', disks' of each bus, and one of the longest.
const DEVIDS: [u32; 8] = [0, 1, 768, 5632, 51712, 51728, 51744, 268_435_456];

/// Paths relative to the driver domain's home: interfaces and disks for the most part, and
/// every other kind; guests of one to five digits; in an order that nothing foresees, and too
/// many for a branch predictor to learn by heart.
#[must_use]
pub fn relative(count: usize) -> Vec<String> {
    let mut order = Shuffled::new(1);
    let mut path = || {
        let kind = match order.below(8) {
            0..3 => Kind::Vif,
            3..6 => Kind::Vbd,
            6 => Kind::Qdisk,
            _ => *order.of(Kind::ALL),
        };
        let most = *order.of(&[10, 100, 1000, 32_752]);
        let (domid, devid, leaf) = (order.below(most), order.of(&DEVIDS), order.of(&LEAVES));
        format!("backend/{}/{domid}/{devid}{leaf}", kind.name())
    };
    (0..count).map(|_| path()).collect()
}

/// The same as upstream hears of them.
#[must_use]
pub fn absolute(relative: &[String]) -> Vec<String> {
    relative.iter().map(|path| format!("/local/domain/7/{path}")).collect()
}
