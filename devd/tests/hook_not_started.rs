//! Hooks that cannot be started: only another value of a node, or a program that is installed,
//! can help. The daemon stays quiet until then.

mod support;

use support::{Device, World, wait_until};
use xs_proto::MessageType;

/// What the daemon has written to the store so far.
fn writes(world: &World) -> u64 {
    let counts = world.counts();
    counts.of(MessageType::Write) + counts.of(MessageType::Rm)
}

/// Attaches a device whose `script` names no file, and has the daemon look at it again and again.
/// Another device is served meanwhile. Then the value is put right.
fn stays_quiet(options: &[&str], script: &str) {
    let world = World::new();
    let _kernel = world.kernel();
    let devd = world.devd(options);
    let device = Device::vif(3, 0).with("script", script);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("names no file"), "{reason}");

    let other = Device::vif(4, 0);
    world.attach(&other);
    world.wait_connected(&other);
    world.wait_settled();
    // What the device takes that shows that the daemon has settled.
    let before = writes(&world);
    world.wait_settled();
    let each = writes(&world) - before;
    let (before, log) = (writes(&world), world.log());
    for _ in 0..20 {
        world.set(&device, "state", "2");
        world.set(&device, "script", script);
        world.wait_settled();
    }
    assert_eq!(writes(&world) - before, 20 * each, "{}", world.log());
    let of_it = |log: &str| log.matches("backend/vif/3/0: ").count();
    assert_eq!(of_it(&world.log()), of_it(&log), "{}", world.log());
    assert_eq!(world.logged("backend/vif/3/0: not served"), 1, "{}", world.log());

    world.set(&device, "script", "/etc/xen/scripts/vif-bridge");
    world.wait_connected(&device);
    assert_eq!(world.node(&device, "hotplug-error"), None);
    devd.terminate();
}

#[test]
fn script_that_names_a_directory_is_refused_once() {
    stays_quiet(&[], "/etc/xen/scripts/");
}

#[test]
fn empty_script_is_refused_once() {
    stays_quiet(&["--hooks", "script"], "");
}

#[test]
fn program_that_is_missing_is_looked_for_without_a_write() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--log-level", "debug"]);
    let device = Device::vif(3, 0).with("script", "vif-later");
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("no program named like vif-later"), "{reason}");
    let before = writes(&world);
    let looks = "backend/vif/3/0: its hook cannot be started yet";
    wait_until("the second look for the program", || world.logged(looks) >= 2);
    assert_eq!(writes(&world), before, "{}", world.log());
    assert_eq!(world.logged("backend/vif/3/0: not served"), 1, "{}", world.log());

    // An operator installs it.
    world.hook("vif-later", "call connect");
    world.wait_connected(&device);
    assert_eq!(world.node(&device, "hotplug-error"), None);
    assert_eq!(world.calls(&device), ["vif-later online type_if=vif"]);
}

#[test]
fn hook_that_never_started_has_no_removal() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vbd(3, 51712).with("script", "/etc/xen/scripts/");
    world.attach(&device);
    world.wait_refused(&device);
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(world.logged("goes all the same"), 0, "{}", world.log());
}
