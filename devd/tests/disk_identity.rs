//! A loop device is known by its file, not by the file's name. The test's kernel opens no device:
//! a file that the test opens stands in for blkback.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::disk::{self, Loop};
use support::{Device, World, wait_until};

const BUILTIN: &[&str] = &["--hooks", "builtin"];

fn with_disk() -> (World, PathBuf, Device) {
    let world = World::new();
    let path = world.file("disk.img");
    disk::file(&path, 1 << 20);
    let device = Device::vbd(3, 51712).with("params", path.to_str().unwrap());
    (world, path, device)
}

/// What a script of an earlier daemon has left.
fn by_script(path: &Path, device: &Device) -> (Loop, Device) {
    let outer = Loop::new(path);
    let minor: u32 = outer.0.trim_start_matches("/dev/loop").parse().unwrap();
    let device = device.clone().with("node", &outer.0);
    let device = device.with("physical-device", format!("7:{minor:x}"));
    (outer, device.with("hotplug-status", "connected"))
}

/// Is no file of this world behind the loop device? It may be another test's by then.
fn is_free(world: &World, name: &str) -> bool {
    !disk::behind(name).is_some_and(|file| Path::new(&file).starts_with(world.file("")))
}

/// The daemon is told to end as soon as the disk is attached, so it makes the loop device stay.
fn restarted_with(change: impl FnOnce(&World, &Device, &Path)) {
    let (world, path, device) = with_disk();
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    world.attach(&device);
    world.wait_connected(&device);
    let name = world.node(&device, "node").unwrap();
    let _made = Loop(name.clone(), path.clone());
    devd.terminate();
    assert!(!is_free(&world, &name), "it stays");
    change(&world, &device, &path);
    let _devd = world.devd(BUILTIN);
    world.detach(&device);
    world.wait_gone(&device);
    assert!(is_free(&world, &name), "{}", world.log());
    for words in ["lost its file", "behind loop", "left alone"] {
        assert_eq!(world.logged(words), 0, "{}", world.log());
    }
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn renamed_file_frees_its_loop_device_after_restart() {
    restarted_with(|world, _, path| fs::rename(path, world.file("renamed.img")).unwrap());
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn replaced_file_frees_its_loop_device_after_restart() {
    restarted_with(|world, _, path| {
        fs::rename(path, world.file("renamed.img")).unwrap();
        disk::file(path, 4096);
    });
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn changed_params_free_the_loop_device_after_restart() {
    restarted_with(|world, device, _| {
        disk::file(&world.file("other.img"), 4096);
        world.set(device, "params", world.file("other.img").to_str().unwrap());
    });
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn scripts_loop_device_is_freed_though_file_is_renamed() {
    for changed_while_running in [false, true] {
        let (world, path, device) = with_disk();
        let (outer, device) = by_script(&path, &device);
        let _kernel = world.kernel();
        world.attach(&device);
        world.wait_connected(&device);
        let change = || fs::rename(&path, world.file("renamed.img")).unwrap();
        if !changed_while_running {
            change();
        }
        let devd = world.devd(BUILTIN);
        wait_until("the look at the disk", || support::process::threads(devd.pid()) == 1);
        if changed_while_running {
            change();
            world.set(&device, "params", "/no/such/file");
        }
        world.detach(&device);
        world.wait_gone(&device);
        assert!(is_free(&world, &outer.0), "{}", world.log());
        assert_eq!(world.logged("lost its file"), 0, "{}", world.log());
    }
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn loop_device_of_another_disk_is_left_alone_and_logged() {
    let (world, path, device) = with_disk();
    let other = world.file("other.img");
    disk::file(&other, 4096);
    let (theirs, lying) = by_script(&other, &device);
    let (ours, unsure) = by_script(&path, &Device { devid: 51728, ..device });
    let unsure = unsure.with("node", &theirs.0);
    let _kernel = world.kernel();
    world.attach_all(&[lying.clone(), unsure.clone()]);
    world.wait_connected(&lying);
    world.wait_connected(&unsure);
    let _devd = world.devd(BUILTIN);
    for device in [&lying, &unsure] {
        world.detach(device);
        world.wait_gone(device);
    }
    assert!(!is_free(&world, &theirs.0) && !is_free(&world, &ours.0));
    let info = "info: backend/vbd/3/51712: block:";
    world.wait_logged(&format!("{info} {} is left alone: behind it", &theirs.0["/dev/".len()..]));
    let info = "info: backend/vbd/3/51728: block:";
    world.wait_logged(&format!("{info} {} is left alone: physical", &ours.0["/dev/".len()..]));
}
