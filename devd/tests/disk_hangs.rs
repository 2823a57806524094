//! An image whose server stops answering keeps no other disk waiting: with a FUSE file system
//! that does so. In each test the file system is made last, so that it ends first.

mod support;

use std::fs::File;
use std::path::Path;

use support::disk::{self, Loop};
use support::fuse::Fuse;

use support::{Device, Later, World, process, wait_until};

const OPTIONS: &[&str] = &["--hooks", "builtin", "--hook-timeout", "10"];

fn disk_of(guest: u16, path: &Path) -> Device {
    Device::vbd(guest, 51712).with("params", path.to_str().unwrap())
}

fn local_disk(world: &World, guest: u16, name: &str) -> Device {
    let path = world.file(name);
    disk::file(&path, 1 << 20);
    disk_of(guest, &path)
}

/// What an earlier daemon has left: the disk is served.
fn served(path: &Path, guest: u16) -> (Loop, Device) {
    let outer = Loop::new(path);
    let minor: u32 = outer.0.trim_start_matches("/dev/loop").parse().unwrap();
    let device = disk_of(guest, path).with("node", &outer.0);
    let device = device.with("physical-device", format!("7:{minor:x}"));
    (outer, device.with("hotplug-status", "connected"))
}

#[test]
#[ignore = "needs root, loop devices and FUSE: run .ci/test"]
fn hung_image_stops_no_other_guests_disk() {
    let world = World::new();
    let kernel = world.kernel();
    let fuse = Fuse::mount(&world.file("fuse"));
    // Three of guest 3: a disk behind a loop device, and two of its QEMU by a link.
    let (outer, hung) = served(&fuse.file("hung.img"), 3);
    std::os::unix::fs::symlink(fuse.file(""), world.file("link")).unwrap();
    let params = format!("aio:{}", world.file("link/hung.img").display());
    let qdisk = Device::qdisk(3, 51728).with("params", params).with("state", "4");
    world.attach_all(&[hung.clone(), qdisk]);
    world.wait_connected(&hung);
    fuse.hang("hung.img");
    let devd = world.devd(OPTIONS);
    wait_until("the look at the disk to hang", || fuse.has_hung());

    // A file elsewhere, a reader that shares its own, and a block device.
    let own = local_disk(&world, 4, "own.img");
    let lone = local_disk(&world, 5, "block.img");
    let block = Loop::new(&world.file("block.img"));
    let device = lone.with("params", &block.0);
    for device in [&own, &device] {
        world.attach(device);
        world.wait_connected(device);
        assert_eq!(world.node(device, "hotplug-error"), None);
        world.detach(device);
        world.wait_gone(device);
    }
    // A file of the same server may be the same one.
    let near = disk_of(6, &fuse.file("near.img"));
    world.attach(&near);
    let reason = world.wait_refused(&near);
    assert!(reason.contains("guest 3 may have") && reason.contains("does not answer"), "{reason}");
    // Nothing of it keeps the daemon from its work, nor from its end.
    devd_is_idle_but_for(&devd, 4);
    devd.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until("the daemon to say that it ends", || world.logged("ending; devices stay") > 0);
    drop(fuse);
    drop((devd, outer, kernel));
}

/// Waits until no more threads are there than those that hang.
fn devd_is_idle_but_for(devd: &support::Devd, hung: usize) {
    wait_until("the threads' ends", || process::threads(devd.pid()) <= 1 + hung);
}

#[test]
#[ignore = "needs root, loop devices and FUSE: run .ci/test"]
fn hung_loop_device_is_asked_once_and_stops_no_file_elsewhere() {
    let world = World::new();
    let kernel = world.kernel();
    let devd = world.devd(OPTIONS);
    let fuse = Fuse::mount(&world.file("fuse"));
    let outer = Loop::new(&fuse.file("hung.img"));
    let (own, near) = (local_disk(&world, 4, "own.img"), disk_of(5, &fuse.file("near.img")));
    // Others have them open, so it is looked for who.
    let _open = [File::open(world.file("own.img")).unwrap()];
    let _near = File::open(fuse.file("near.img")).unwrap();
    fuse.hang("hung.img");
    world.attach(&own);
    world.wait_connected(&own);
    assert_eq!(world.node(&own, "hotplug-error"), None);
    world.attach(&near);
    let reason = world.wait_refused(&near);
    assert!(reason.contains("does not answer"), "{reason}");
    assert!(fuse.has_hung());
    // Tried again and again, it takes one thread.
    wait_until("three tries", || world.logged("does not answer") >= 3);
    devd_is_idle_but_for(&devd, 1);
    drop((_near, fuse, outer, devd, kernel));
}

#[test]
#[ignore = "needs root, loop devices and FUSE: run .ci/test"]
fn hung_image_does_not_keep_the_daemon_from_its_end() {
    let world = World::new();
    let kernel = world.kernel();
    let devd = world.devd(OPTIONS);
    let fuse = Fuse::mount(&world.file("fuse"));
    let device = disk_of(3, &fuse.file("hung.img"));
    world.attach(&device);
    world.wait_connected(&device);
    fuse.hang("hung.img");
    // The guest reads while the daemon is told to end, and has no answer.
    let name = world.node(&device, "node").unwrap();
    let made = Loop(name.clone(), fuse.file("hung.img"));
    let reader = std::thread::spawn(move || std::fs::read(name).is_ok());
    wait_until("the read to hang", || fuse.has_hung());
    let begin = std::time::Instant::now();
    devd.signal(nix::sys::signal::Signal::SIGTERM);
    let pid = devd.pid();
    // Its thread hangs in the kernel; all that the daemon does is done.
    wait_until("the daemon's main thread to end", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat"));
        stat.map_or(true, |stat| stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
    });
    println!("{} ms", begin.elapsed().as_millis());
    assert!(world.logged("does not answer") <= 1, "{}", world.log());
    drop(fuse);
    drop((devd, kernel));
    reader.join().unwrap();
    drop(made);
}

#[test]
#[ignore = "needs root, loop devices and FUSE: run .ci/test"]
fn hung_image_stops_no_look_at_other_disks() {
    let world = World::new();
    let kernel = world.kernel();
    let clock = Later::new(world.file("clock"));
    let mut command = world.command(OPTIONS);
    clock.apply(&mut command);
    let devd = world.devd_by(command);
    let fuse = Fuse::mount(&world.file("fuse"));
    let hung: Vec<Device> =
        (3..7).map(|guest| disk_of(guest, &fuse.file(&format!("hung{guest}.img")))).collect();
    let own = local_disk(&world, 7, "own.img");
    for device in hung.iter().chain([&own]) {
        world.attach(device);
        world.wait_connected(device);
    }
    for guest in 3..7 {
        fuse.hang(&format!("hung{guest}.img"));
    }
    std::fs::remove_file(world.file("own.img")).unwrap();
    clock.set(121);
    world.wait_settled();
    world.wait_logged("backend/vbd/7/51712: ");
    wait_until("the look at the disk whose file is deleted", || {
        world.node(&own, "hotplug-error").is_some_and(|error| error.contains("deleted"))
    });
    assert!(fuse.has_hung());
    drop((fuse, devd, kernel));
}
