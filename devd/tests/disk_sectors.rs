//! A guest sees sectors of 512 bytes, whatever the disk is like that its image lies on.

mod support;

use std::fs;
use std::path::Path;

use support::disk::{self, Loop};
use support::network::run;
use support::{Device, World};

/// Mounts a file system in a file, on a loop device with these options.
fn mounted(world: &World, size: u64, losetup: &str, mkfs: &str) -> Loop {
    let (image, place) = (world.file("outer.img"), world.file("mnt"));
    disk::file(&image, size);
    let name = run("losetup", &format!("-f --show {losetup} {}", image.display()));
    let outer = Loop(name.trim().to_owned(), image);
    let (program, options) = mkfs.split_once(' ').unwrap();
    run(program, &format!("{options} {}", outer.0));
    fs::create_dir(&place).unwrap();
    run("mount", &format!("{} {}", outer.0, place.display()));
    outer
}

/// Attaches the image; its loop device must have small sectors and no direct I/O.
fn is_shown_with_512(world: &World, image: &Path) {
    let _kernel = world.kernel();
    let _devd = world.devd(&["--hooks", "builtin"]);
    let device = Device::vbd(3, 51712).with("params", image.to_str().unwrap());
    world.attach(&device);
    world.wait_connected(&device);
    let name = world.node(&device, "node").unwrap();
    let name = name.trim_start_matches("/dev/");
    let value = |node| fs::read_to_string(format!("/sys/block/{name}/{node}")).unwrap();
    assert_eq!(value("queue/logical_block_size").trim(), "512");
    assert_eq!(value("loop/dio").trim(), "0");
    world.wait_logged("works without direct I/O");
    world.detach(&device);
    world.wait_gone(&device);
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn image_on_4096_byte_sectors_is_shown_with_512() {
    let world = World::new();
    let _outer = mounted(&world, 64 << 20, "-b 4096", "mkfs.ext4 -q");
    let image = world.file("mnt/disk.img");
    disk::file(&image, 1 << 20);
    is_shown_with_512(&world, &image);
    run("umount", world.file("mnt").to_str().unwrap());
}

#[test]
#[ignore = "needs root, XFS and loop devices: run .ci/test"]
fn image_with_a_reflink_on_xfs_is_shown_with_512() {
    let world = World::new();
    let _outer = mounted(&world, 400 << 20, "--direct-io=off", "mkfs.xfs -q");
    let (image, copy) = (world.file("mnt/disk.img"), world.file("mnt/copy.img"));
    fs::write(&image, vec![1; 1 << 20]).unwrap();
    run("cp", &format!("--reflink=always {} {}", image.display(), copy.display()));
    is_shown_with_512(&world, &image);
    run("umount", world.file("mnt").to_str().unwrap());
}
