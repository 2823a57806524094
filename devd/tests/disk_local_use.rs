//! This domain and a guest do not both use a disk.

mod support;

use std::fs;
use std::process::{Command, Stdio};

use support::disk::{self, Loop};
use support::network::run;
use support::{Device, World};

const BUILTIN: &[&str] = &["--hooks", "builtin"];

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn disk_that_a_guest_writes_cannot_be_mounted_here() {
    let world = World::new();
    let path = world.file("disk.img");
    disk::file(&path, 8 << 20);
    run("mkfs.ext4", &format!("-q {}", path.display()));
    fs::create_dir(world.file("mnt")).unwrap();
    let outer = Loop::new(&path);
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    for params in [path.to_str().unwrap(), &outer.0] {
        let device = Device::vbd(3, 51712).with("params", params);
        world.attach(&device);
        world.wait_connected(&device);
        let place = world.node(&device, "physical-device-path").unwrap();
        let mount = || Command::new("mount").arg(&place).arg(world.file("mnt")).output().unwrap();
        assert!(!mount().status.success(), "{place}");
        world.detach(&device);
        world.wait_gone(&device);
    }
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn mount_in_another_mount_namespace_refuses_the_disk() {
    let world = World::new();
    let path = world.file("disk.img");
    disk::file(&path, 8 << 20);
    run("mkfs.ext4", &format!("-q {}", path.display()));
    let place = world.file("mnt");
    fs::create_dir(&place).unwrap();
    let outer = Loop::new(&path);
    let script = format!("mount {} {} && echo mounted && exec cat", outer.0, place.display());
    let mut other = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = other.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert_eq!(line, "mounted\n");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    for mode in ["w", "r"] {
        let device = Device::vbd(3, 51712).with("params", &outer.0).with("mode", mode);
        world.attach(&device);
        let reason = world.wait_refused(&device);
        assert!(reason.contains("in the mount namespace of process"), "{reason}");
        world.detach(&device);
        world.wait_gone(&device);
    }
    drop(other.stdin.take());
    other.wait().unwrap();
}
