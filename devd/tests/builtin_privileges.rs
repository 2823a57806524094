//! The built-in hooks need the capabilities that `docs/hooks.md` says, and no others.

mod support;

use support::{Devd, Device, World, disk, network};

/// A daemon that is root, but with these capabilities only.
#[track_caller]
fn devd_with(world: &World, capabilities: &str) -> Devd {
    let whole = world.command(&["--hooks", "builtin", "--antispoof"]);
    let set = format!("-all{capabilities}");
    let none = ["--inh-caps", "-all", "--ambient-caps", "-all"];
    let setpriv = ["setpriv", "--bounding-set", &set].into_iter().chain(none);
    world.devd_by(Devd::under(setpriv, &whole))
}

#[test]
#[ignore = "needs root, ip, nft and loop devices: run .ci/test"]
fn network_interfaces_need_net_admin() {
    network::isolate();
    network::bridge("xenbr0", 1500);
    network::vif("vif3.0", "guest");
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = devd_with(&world, ",+net_admin");
    let device = Device::vif(3, 0).with("ip", "10.1.2.3");
    world.attach(&device);
    world.wait_connected(&device);
    world.detach(&device);
    world.wait_gone(&device);
}

#[test]
#[ignore = "needs root, ip, nft and loop devices: run .ci/test"]
fn disks_need_none() {
    let world = World::new();
    let path = world.file("disk.img");
    disk::file(&path, 4096);
    let outer = disk::Loop::new(&path);
    let _kernel = world.kernel();
    let _devd = devd_with(&world, "");
    let device = Device::vbd(3, 51712).with("params", &outer.0);
    let file = Device::vbd(3, 51728).with("params", path.to_str().unwrap());
    // A loop device may be set up by whoever may open it.
    for device in [device, file.clone(), file.with("mode", "r")] {
        world.attach(&device);
        world.wait_connected(&device);
        world.detach(&device);
        world.wait_gone(&device);
    }
}

#[test]
#[ignore = "needs root, ip, nft and loop devices: run .ci/test"]
fn what_is_lacking_is_said() {
    network::isolate();
    network::bridge("xenbr0", 1500);
    network::vif("vif3.0", "guest");
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = devd_with(&world, "");
    let device = Device::vif(3, 0);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert_eq!(reason, "vif-bridge: cannot take vif3.0 down: Operation not permitted (EPERM)");
}
