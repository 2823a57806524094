//! What the running daemon allocates.

mod support;

use nix::sys::signal::Signal;
use support::{Devd, Device, GUEST_HOME, Memory, World, wait_until};

fn started(world: &World) -> (Devd, Memory) {
    let memory = Memory::new(world.file("memory"));
    let mut command = world.command(&["--log-level", "info"]);
    memory.apply(&mut command);
    (world.devd_by(command), memory)
}

fn served(device: Device) -> Device {
    device.with("state", "4").with("hotplug-status", "connected")
}

/// Events of all these devices, so many of each node, all there before the daemon hears one:
/// of `state`, one each, upon which it looks, and of what does not matter to it. Returns when
/// it has looked.
fn flood(world: &World, devd: &Devd, devices: &[Device], times: usize) {
    const OTHERS: [&str; 2] = ["floppy", "floppy/3/0/state"];
    let before = world.counts().total();
    devd.signal(Signal::SIGSTOP);
    for _ in 0..times {
        for path in OTHERS {
            let path = format!("{GUEST_HOME}/backend/{path}");
            world.store.write(path.as_bytes(), b"").unwrap();
        }
        for device in devices {
            for node in ["online", "frontend", "hotplug-status", "feature-sg", "deep/below"] {
                let value = world.node(device, node).unwrap_or_default();
                world.set(device, node, &value);
            }
        }
    }
    devices.iter().for_each(|device| world.set(device, "state", "4"));
    devd.signal(Signal::SIGCONT);
    let looks = devices.len() as u64;
    wait_until("a look at each", || world.counts().total() >= before + looks);
    assert_eq!(world.counts().total(), before + looks);
}

#[test]
fn a_warm_daemon_allocates_nothing_for_events_and_looks() {
    let world = World::new();
    let (devd, memory) = started(&world);
    let devices: Vec<Device> = (1..=10)
        .flat_map(|guest| {
            let vkbd = Device::plain("vkbd", guest, 0).with("state", "4");
            [served(Device::vif(guest, 0)), served(Device::vbd(guest, 51712)), vkbd]
        })
        .collect();
    world.attach_all(&devices);
    world.wait_settled();
    // Warm: it has had more at once than will come.
    (0..20).for_each(|_| flood(&world, &devd, &devices, 2));
    let before = memory.calls();
    (0..20).for_each(|_| flood(&world, &devd, &devices, 1));
    assert_eq!(memory.calls() - before, 0, "allocations");
    assert!(before > 100, "only {before} allocations by a daemon that has started: not counted");
}
