//! What the running daemon allocates.

mod support;

use nix::sys::signal::Signal;
use support::{Devd, Device, GUEST_HOME, Memory, World, wait_until};
use xs_client::embedded::Quota;

fn started(world: &World) -> (Devd, Memory) {
    let memory = Memory::new(world.file("memory"));
    let mut command = world.command(&["--log-level", "info"]);
    memory.apply(&mut command);
    (world.devd_by(command), memory)
}

/// A network interface, a disk and a keyboard, all served.
fn devices_of(guest: u16) -> [Device; 3] {
    let hooked = [Device::vif(guest, 0), Device::vbd(guest, 51712)];
    let [vif, vbd] = hooked.map(|device| device.with("hotplug-status", "connected"));
    [vif, vbd, Device::plain("vkbd", guest, 0)].map(|device| device.with("state", "4"))
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
    let devices: Vec<Device> = (1..=10).flat_map(devices_of).collect();
    world.attach_all(&devices);
    world.wait_settled();
    // Warm: it has had more at once than will come.
    (0..20).for_each(|_| flood(&world, &devd, &devices, 2));
    let before = memory.calls();
    (0..20).for_each(|_| flood(&world, &devd, &devices, 1));
    assert_eq!(memory.calls() - before, 0, "allocations");
    assert!(before > 100, "only {before} allocations by a daemon that has started: not counted");
}

/// Of guests with a network interface, a disk and a keyboard each, all served: what a daemon
/// that finds so many has in use.
fn bytes_with(guests: u16) -> i64 {
    let world = World::with_quota(Quota { nodes: 100_000, ..Quota::default() });
    let devices: Vec<Device> = (1..=guests).flat_map(devices_of).collect();
    world.attach_all(&devices);
    let (_devd, memory) = started(&world);
    assert_eq!(world.logged("served already"), 2 * usize::from(guests));
    memory.bytes()
}

#[test]
fn it_takes_32_kib_and_512_bytes_a_device_at_most() {
    // Tables grow by doubling: with a thousand and a few devices they have just done so.
    for guests in [0, 10, 34, 342] {
        let (devices, bytes) = (3 * i64::from(guests), bytes_with(guests));
        println!("{devices} devices: {bytes} bytes");
        assert!((1..=32 * 1024 + 512 * devices).contains(&bytes), "{bytes}, {devices} devices");
    }
}
