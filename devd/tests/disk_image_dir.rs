//! `--image-dir`: what lies elsewhere is never attached, whoever changes the names meanwhile.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::disk::{self, Loop};
use support::{Device, World};

fn disk_at(devid: u32, path: &Path) -> Device {
    Device::vbd(3, devid).with("params", path.to_str().unwrap())
}

/// A world with a directory of images, and a file beside it that no guest is to have.
fn with_secret() -> World {
    let world = World::new();
    fs::create_dir(world.file("images")).unwrap();
    disk::file(&world.file("images/disk.img"), 1 << 20);
    disk::file(&world.file("secret.img"), 1 << 20);
    world
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn disks_elsewhere_are_refused_and_images_are_served() {
    let world = with_secret();
    symlink("disk.img", world.file("images/link.img")).unwrap();
    symlink("../secret.img", world.file("images/up.img")).unwrap();
    symlink(world.file("secret.img"), world.file("images/absolute.img")).unwrap();
    let outer = Loop::new(&world.file("secret.img"));
    let _kernel = world.kernel();
    let images = world.file("images");
    // Xen's script is there, and is not what attaches them.
    let _devd = world.devd(&["--image-dir", images.to_str().unwrap()]);
    for (devid, path, words) in [
        (1, world.file("secret.img"), "does not lie in"),
        (2, world.file("images/../secret.img"), "leads out of"),
        (3, world.file("images/up.img"), "leads out of"),
        (4, world.file("images/absolute.img"), "leads out of"),
        (5, (&outer.0).into(), "does not lie in"),
        (6, "../etc/passwd".into(), "does not lie in"),
    ] {
        let device = disk_at(devid, &path);
        world.attach(&device);
        let reason = world.wait_refused(&device);
        assert!(reason.contains(words) && reason.contains("--image-dir"), "{reason}");
    }
    for (devid, name) in [(7, "images/disk.img"), (8, "images/link.img")] {
        let device = disk_at(devid, &world.file(name));
        world.attach(&device);
        world.wait_connected(&device);
        assert!(world.calls(&device).is_empty(), "no script");
    }
    assert_eq!(disk::loops(&world.file("secret.img")).len(), 1, "the test's own");
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn block_devices_are_served_from_an_image_dir_of_dev() {
    let world = with_secret();
    let outer = Loop::new(&world.file("secret.img"));
    let _kernel = world.kernel();
    let _devd = world.devd(&["--image-dir", "/dev"]);
    for (devid, path) in [(1, &*outer.0), (2, outer.0.trim_start_matches("/dev/"))] {
        let device = disk_at(devid, Path::new(path));
        world.attach(&device);
        world.wait_connected(&device);
    }
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn directory_that_is_swapped_meanwhile_leads_to_no_secret() {
    let world = with_secret();
    let (images, own, outside) =
        (world.file("images"), world.file("images/sub"), world.file("outside"));
    for directory in [&own, &outside] {
        fs::create_dir(directory).unwrap();
        disk::file(&directory.join("disk.img"), 1 << 20);
    }
    let secret = fs::metadata(outside.join("disk.img")).unwrap().ino();
    symlink(&outside, images.join("other")).unwrap();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--image-dir", images.to_str().unwrap(), "--linger", "0"]);
    let stop = AtomicBool::new(false);
    let (served, refused) = thread::scope(|scope| {
        // The directory and the link to the secret change places without an end.
        scope.spawn(|| {
            let [sub, other, third] = ["sub", "other", "third"].map(|name| images.join(name));
            while !stop.load(Ordering::SeqCst) {
                fs::rename(&sub, &third).unwrap();
                fs::rename(&other, &sub).unwrap();
                fs::rename(&third, &other).unwrap();
            }
        });
        let outcomes = (1..=100).map(|devid| {
            let device = disk_at(devid, &images.join("sub/disk.img")).with("mode", "r");
            world.attach(&device);
            let outcome = support::wait_for("an outcome", || {
                match world.node(&device, "hotplug-status").as_deref() {
                    Some("connected") => Some(true),
                    Some("error") => Some(false),
                    _ => None,
                }
            });
            if outcome {
                let name = world.node(&device, "node").unwrap();
                let file = disk::inode_behind(&name);
                assert_ne!(file, Some(secret), "{name}");
            }
            world.detach(&device);
            world.wait_gone(&device);
            outcome
        });
        let outcomes: Vec<_> = outcomes.collect();
        stop.store(true, Ordering::SeqCst);
        let served = outcomes.iter().filter(|outcome| **outcome).count();
        (served, outcomes.len() - served)
    });
    println!("{served} served, {refused} refused");
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
}
