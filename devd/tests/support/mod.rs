//! What the tests run the real daemon in: a driver domain without Xen.
//!
//! * [`World`]: the store, laid out as libxl does, with the toolstack's hands on it; the
//!   directory of hooks; the daemon's log.
//! * [`Device`]: what the toolstack writes for a device.
//! * [`Kernel`]: the driver domain's backends.
//! * [`Devd`]: the daemon.
//! * [`disk`]: loop devices.
//! * [`fuse`]: a file system that can stop answering.
//! * [`hostile`]: what no toolstack writes.
//! * [`network`]: a network namespace with real interfaces.
//! * [`Stage`]: one life after the other, for mishaps to happen in; [`Failing`]: mishaps of the
//!   system; [`Later`]: its clock; [`Memory`]: what is allocated.
//! * [`Hanging`]: a process whose memory nobody can read; [`OtherUser`]: what another user runs.
//! * [`process`]: processes as `/proc` shows them.
//! * [`toolstack`]: what it writes.
//! * [`stand_in`]: what hooks call to reach the store, and the QEMU.
//! * [`xenstored`]: the real one, for tests that are about it.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test uses its part of it")]

mod daemon;
mod device;
pub mod disk;
mod failing;
pub mod fuse;
pub mod hanging;
pub mod hostile;
mod kernel;
mod later;
mod memory;
pub mod network;
mod preload;
pub mod process;
mod stage;
pub mod stand_in;
pub mod toolstack;
mod world;
pub mod xenstored;

use std::thread;
use std::time::{Duration, Instant};

pub use daemon::Devd;
pub use device::Device;
pub use failing::Failing;
pub use hanging::{Hanging, OtherUser};
pub use kernel::Kernel;
pub use later::Later;
pub use memory::Memory;
pub use stage::{Stage, Story, side_by_side, within};
pub use world::{GUEST_HOME, World};

/// The driver domain.
pub const DOMID: u16 = 7;

/// How long anything may take. Machines that run tests are busy; nothing here is about speed.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the probe finds something, and returns it.
#[track_caller]
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < LIMIT, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut probe: impl FnMut() -> bool) {
    wait_for(what, || probe().then_some(()));
}
