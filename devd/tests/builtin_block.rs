//! The built-in hook of disks, with real files and loop devices. The test's kernel opens no
//! device: where blkback's hold on it matters, a file that the test opens stands in for it.

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use support::disk::{self, Loop};
use support::{DOMID, Devd, Device, World, network, process, wait_until};
use xs_client::embedded::{Fault, Moment};
use xs_proto::{ErrorCode, MessageType};

const BUILTIN: &[&str] = &["--hooks", "builtin"];

/// A world with a file for a disk, and what the toolstack writes for it.
fn with_disk() -> (World, PathBuf, Device) {
    let world = World::new();
    let path = world.file("disk.img");
    disk::file(&path, 1 << 20);
    let device = disk_of(&world, 3, "disk.img");
    (world, path, device)
}

fn disk_of(world: &World, guest: u16, file: &str) -> Device {
    Device::vbd(guest, 51712).with("params", world.file(file).to_str().unwrap())
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn a_file_is_served_by_a_loop_device_that_goes_with_the_disk() {
    let (world, path, device) = with_disk();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    world.attach(&device);
    world.wait_connected(&device);
    let line = disk::loops(&path).join("|");
    let name = disk::only_loop(&path).expect(&line);
    assert!(line.contains(" 0 1 "), "writable, and goes by itself: {line}");
    assert_eq!(world.node(&device, "node").as_deref(), Some(&*name));
    assert_eq!(world.node(&device, "physical-device-path").as_deref(), Some(&*name));
    let minor: u32 = name.trim_start_matches("/dev/loop").parse().unwrap();
    let number = format!("7:{minor:x}");
    assert_eq!(world.node(&device, "physical-device"), Some(number));
    assert_eq!(world.node(&device, "hotplug-status").as_deref(), Some("connected"));
    assert_eq!(world.runs(), [], "no script");

    // As blkback has it.
    let open = File::open(&name).unwrap();
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(disk::only_loop(&path), Some(name), "blkback has not let go of it");
    drop(open);
    wait_until("the loop device to go", || disk::loops(&path).is_empty());
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn the_mode_of_a_disk_is_that_of_its_loop_device() {
    let (world, path, device) = with_disk();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let device = device.with("mode", "r");
    world.attach(&device);
    world.wait_connected(&device);
    let line = disk::loops(&path).join("|");
    assert!(line.contains(" 1 1 "), "read-only, and goes by itself: {line}");
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn a_block_device_is_served_as_it_is_whatever_link_leads_to_it() {
    let (world, path, device) = with_disk();
    let outer = Loop::new(&path);
    symlink(&outer.0, world.file("link")).unwrap();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let bare = outer.0.trim_start_matches("/dev/").to_owned();
    for params in [outer.0.clone(), world.file("link").display().to_string(), bare] {
        let device = device.clone().with("params", &params);
        world.attach(&device);
        world.wait_connected(&device);
        assert_eq!(world.node(&device, "physical-device-path").as_deref(), Some(&*outer.0));
        assert_eq!(world.node(&device, "node"), None);
        world.detach(&device);
        world.wait_gone(&device);
        assert_eq!(disk::only_loop(&path).as_deref(), Some(&*outer.0), "it is not ours to free");
    }
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn an_empty_drive_is_connected_and_a_missing_file_is_an_error() {
    let (world, _, device) = with_disk();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let empty = Device::vbd(3, 51728).with("params", "").with("mode", "r");
    world.attach(&empty);
    world.wait_node(&empty, "hotplug-status", "connected");
    assert_eq!(world.node(&empty, "physical-device"), None);

    let missing = device.with("params", "/no/such/disk.img");
    world.attach(&missing);
    let reason = world.wait_refused(&missing);
    assert!(reason.contains("block: there is no file and no block device /no/such"), "{reason}");
    for device in [&empty, &missing] {
        world.detach(device);
        world.wait_gone(device);
    }
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn what_cannot_be_a_disk_is_refused_by_name_and_leaves_nothing() {
    let (world, path, device) = with_disk();
    let read_only = world.file("ro.img");
    disk::file(&read_only, 4096);
    fs::set_permissions(&read_only, Permissions::from_mode(0o444)).unwrap();
    world.gate("fifo");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    for (devid, params, words) in [
        (1, "/dev/null", "/dev/null is neither a file nor a block device"),
        (2, world.file("").to_str().unwrap(), "is neither a file nor a block device"),
        (3, world.file("fifo").to_str().unwrap(), "is neither a file nor a block device"),
        (4, read_only.to_str().unwrap(), "ro.img is read-only and cannot be used for writing"),
    ] {
        let device = Device::vbd(3, devid).with("params", params);
        world.attach(&device);
        let reason = world.wait_refused(&device);
        assert!(reason.starts_with("block: ") && reason.contains(words), "{reason}");
        world.detach(&device);
        world.wait_gone(&device);
    }
    let modeless = device.without("mode");
    world.attach(&modeless);
    assert_eq!(world.wait_refused(&modeless), "block: the device has no mode node");
    assert_eq!(disk::loops(&path), [""; 0]);
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn a_disk_that_a_guest_writes_is_refused_to_every_other_guest() {
    let (world, path, first) = with_disk();
    symlink(&path, world.file("alias.img")).unwrap();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    world.attach(&first);
    world.wait_connected(&first);
    let through_device = disk::only_loop(&path).unwrap();
    let second = disk_of(&world, 4, "alias.img");
    for refused in [
        second.clone(),
        second.clone().with("mode", "r"),
        second.clone().with("params", &through_device),
    ] {
        world.attach(&refused);
        let reason = world.wait_refused(&refused);
        for word in ["guest 3 has", "for writing", "backend/vbd/3/51712", "guest 4"] {
            assert!(reason.contains(word), "{word}: {reason}");
        }
        world.detach(&refused);
        world.wait_gone(&refused);
        assert_eq!(disk::loops(&path).len(), 1, "nothing was set up");
    }
    // Its own guest may have it twice; and whoever says that it knows may have it too.
    let again = Device { devid: 51728, ..first.clone() };
    let knowing = second.clone().with("mode", "w!");
    for device in [&again, &knowing] {
        world.attach(device);
        world.wait_connected(device);
        world.detach(device);
        world.wait_gone(device);
    }
    // It is free when the first guest has let go of it.
    world.attach(&second);
    world.wait_refused(&second);
    world.detach(&first);
    world.wait_gone(&first);
    world.wait_connected(&second);
    assert_eq!(world.node(&second, "hotplug-error"), None);
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn whole_disk_is_refused_while_guests_have_its_partitions() {
    let (world, path, file) = with_disk();
    let whole = Loop::new(&path);
    let on = |guest, place: &str| Device::vbd(guest, 51712).with("params", place);
    let first = on(3, &whole.partition(1, 512, 512));
    let second = on(4, &whole.partition(2, 1024, 512));
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    for partition in [&first, &second] {
        world.attach(partition);
        world.wait_connected(partition);
    }
    let file = Device { guest: 5, ..file };
    for refused in [&on(5, &whole.0), &file] {
        world.attach(refused);
        let reason = world.wait_refused(refused);
        assert!(reason.contains("guest 3 has"), "{reason}");
        world.detach(refused);
        world.wait_gone(refused);
    }
    for partition in [&first, &second] {
        world.detach(partition);
        world.wait_gone(partition);
    }
    let all = on(5, &whole.0);
    world.attach(&all);
    world.wait_connected(&all);
    world.attach(&first);
    let reason = world.wait_refused(&first);
    assert!(reason.contains("guest 5 has"), "{reason}");
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn guests_that_only_read_share_a_disk() {
    let (world, path, first) = with_disk();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let readers = [first.with("mode", "r"), disk_of(&world, 4, "disk.img").with("mode", "r")];
    for reader in &readers {
        world.attach(reader);
        world.wait_connected(reader);
    }
    assert_eq!(disk::loops(&path).len(), 2);
    let writer = disk_of(&world, 5, "disk.img");
    world.attach(&writer);
    let reason = world.wait_refused(&writer);
    assert!(reason.contains("already, for reading"), "{reason}");
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn a_disk_that_this_domain_has_mounted_is_refused() {
    let (world, path, device) = with_disk();
    disk::file(&path, 8 << 20);
    network::run("mkfs.ext4", &format!("-q {}", path.display()));
    let outer = Loop::new(&path);
    let place = world.file("mnt");
    fs::create_dir(&place).unwrap();
    let mount = |options: &str| {
        network::run("mount", &format!("-o {options} {} {}", outer.0, place.display()));
    };
    let unmount = || network::run("umount", place.to_str().unwrap());
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let through_device = device.clone().with("params", &outer.0);
    let words = format!("it is mounted on {} here", place.display());

    mount("rw");
    for device in [&device, &through_device] {
        for mode in ["w", "r"] {
            let device = device.clone().with("mode", mode);
            world.attach(&device);
            let reason = world.wait_refused(&device);
            assert!(reason.contains(&words), "{reason}");
            world.detach(&device);
            world.wait_gone(&device);
        }
    }
    unmount();
    mount("ro");
    let reader = through_device.clone().with("mode", "r");
    world.attach(&reader);
    world.wait_connected(&reader);
    world.detach(&reader);
    world.wait_gone(&reader);
    world.attach(&through_device);
    assert!(world.wait_refused(&through_device).contains(&words));
    // It is tried again by itself.
    unmount();
    world.wait_connected(&through_device);
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn a_daemon_that_was_started_again_knows_who_uses_what() {
    let (world, path, first) = with_disk();
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    world.attach(&first);
    world.wait_connected(&first);
    let name = disk::only_loop(&path).unwrap();
    // As blkback has it: it outlives the daemon.
    let open = File::open(&name).unwrap();
    devd.kill();
    let _devd = world.devd(BUILTIN);
    let second = disk_of(&world, 4, "disk.img");
    world.attach(&second);
    let reason = world.wait_refused(&second);
    assert!(reason.contains("guest 3 has"), "{reason}");
    // The file and the directory are gone; the loop device goes all the same.
    fs::remove_file(&path).unwrap();
    world.drop_device(&first);
    world.wait_logged("backend/vbd/3/51712: gone");
    drop(open);
    let number = name.trim_start_matches("/dev/");
    wait_until("the loop device to go", || {
        !PathBuf::from(format!("/sys/block/{number}/loop")).exists()
    });
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn removal_frees_a_scripts_loop_device_but_not_another_files() {
    let (world, path, device) = with_disk();
    let other = world.file("other.img");
    disk::file(&other, 4096);
    let _kernel = world.kernel();
    // What a script of an earlier daemon has left.
    let attached = |file: &PathBuf, device: &Device| {
        let outer = Loop::new(file);
        let minor: u32 = outer.0.trim_start_matches("/dev/loop").parse().unwrap();
        let device = device
            .clone()
            .with("node", &outer.0)
            .with("physical-device", format!("7:{minor:x}"))
            .with("hotplug-status", "connected");
        (outer, device)
    };
    let (_ours, ours) = attached(&path, &device);
    let (theirs, lying) = attached(&other, &Device { devid: 51728, ..device.clone() });
    world.attach_all(&[ours.clone(), lying.clone()]);
    for device in [&ours, &lying] {
        world.wait_connected(device);
    }
    let _devd = world.devd(BUILTIN);
    let second = disk_of(&world, 4, "other.img");
    world.attach(&second);
    let reason = world.wait_refused(&second);
    assert!(reason.contains("guest 3 has"), "what scripts serve counts: {reason}");
    for device in [&ours, &lying] {
        world.detach(device);
        world.wait_gone(device);
    }
    assert_eq!(disk::loops(&path), [""; 0]);
    assert_eq!(disk::only_loop(&other), Some(theirs.0.clone()));
    world.wait_logged("is left alone: behind it is");
}

/// Makes whoever opens the file wait until it is dropped: Python, since a lease is what does it.
struct Lease(std::process::Child);

impl Lease {
    fn new(path: &std::path::Path) -> Self {
        let script = "import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()";
        let mut child = std::process::Command::new("python3")
            .args(["-c", script, path.to_str().unwrap()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn threads(devd: &Devd) -> usize {
    process::threads(devd.pid())
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn hung_file_frees_its_place_at_the_timeout_and_leaves_nothing() {
    let (world, path, device) = with_disk();
    let other_path = world.file("other.img");
    disk::file(&other_path, 4096);
    let _kernel = world.kernel();
    let devd = world.devd(&["--hooks", "builtin", "--hook-timeout", "5", "--max-hooks", "1"]);
    assert_eq!(threads(&devd), 1);
    let lease = Lease::new(&path);
    world.attach(&device);
    wait_until("the hook to hang", || threads(&devd) == 2);
    // The one place for hooks is taken until the time is up.
    let other = disk_of(&world, 4, "other.img");
    world.attach(&other);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("block hangs in the kernel"), "{reason}");
    world.wait_connected(&other);
    assert_eq!(threads(&devd), 2, "it cannot be ended");
    // Nothing is lost by its removal.
    world.detach(&device);
    world.wait_gone(&device);
    drop(lease);
    wait_until("the thread's end", || threads(&devd) == 1);
    wait_until("the loop device to go", || disk::loops(&path).is_empty());
    // And the disk is nobody's.
    let next = disk_of(&world, 5, "disk.img");
    world.attach(&next);
    world.wait_connected(&next);
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn threads_are_limited_to_max_hooks_and_one() {
    let (world, path, _) = with_disk();
    let _kernel = world.kernel();
    let devd = world.devd(&["--hooks", "builtin", "--max-hooks", "2"]);
    let lease = Lease::new(&path);
    let devices: Vec<Device> = (1..=5).map(|guest| disk_of(&world, guest, "disk.img")).collect();
    let devices: Vec<Device> = devices.into_iter().map(|disk| disk.with("mode", "r")).collect();
    world.attach_all(&devices);
    wait_until("as many to hang as are allowed", || threads(&devd) == 3);
    world.wait_settled();
    assert_eq!(threads(&devd), 3);
    drop(lease);
    devices.iter().for_each(|device| world.wait_connected(device));
    wait_until("the threads' ends", || threads(&devd) == 1);
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn a_daemon_ends_although_a_hook_hangs() {
    let (world, path, device) = with_disk();
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    let _lease = Lease::new(&path);
    world.attach(&device);
    wait_until("the hook to hang", || threads(&devd) == 2);
    devd.terminate();
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn what_the_store_has_no_room_for_is_taken_back_and_tried_again() {
    let (world, path, device) = with_disk();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let node = |path: &[u8]| path.ends_with(b"/physical-device-path");
    let full = Fault::error(ErrorCode::NoSpc).on(MessageType::Write).of_domain(DOMID).at(node);
    world.store.inject(full.times(1));
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("block: cannot write down what was done"), "{reason}");
    assert_eq!(world.node(&device, "physical-device"), None, "all of it, or nothing");
    world.wait_connected(&device);
    assert_eq!(disk::loops(&path).len(), 1, "the first one has gone");
    assert_eq!(world.node(&device, "node"), disk::only_loop(&path));
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn connection_lost_before_the_result_is_written_loses_no_disk() {
    let (world, path, device) = with_disk();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let node = |path: &[u8]| path.ends_with(b"/physical-device-path");
    let cut = Fault::disconnect(Moment::BeforeReply);
    world.store.inject(cut.on(MessageType::Write).of_domain(DOMID).at(node).times(1));
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(disk::loops(&path).len(), 1);
    assert_eq!(world.node(&device, "node"), disk::only_loop(&path));
    assert_eq!(world.logged("connected to xenstore again"), 1);
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn what_a_script_had_begun_is_taken_over_or_refused() {
    let (world, path, device) = with_disk();
    let other = world.file("other.img");
    disk::file(&other, 4096);
    let begun = |file: &PathBuf| {
        let outer = Loop::new(file);
        let minor: u32 = outer.0.trim_start_matches("/dev/loop").parse().unwrap();
        (outer, format!("7:{minor:x}"))
    };
    let (ours, number) = begun(&path);
    let (_theirs, wrong) = begun(&other);
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    // blkback has opened what the script has told it, and keeps to it.
    let right = device.clone().with("physical-device", &number).unused();
    world.attach(&right);
    world.wait_node(&right, "hotplug-status", "connected");
    assert_eq!(world.node(&right, "node"), Some(ours.0.clone()));
    assert_eq!(disk::loops(&path).len(), 1, "no other was set up");
    world.detach(&right);
    world.wait_gone(&right);
    assert_eq!(disk::loops(&path).len(), 0, "it goes with the disk");
    let stuck = Device { devid: 51728, ..device }.with("physical-device", &wrong).unused();
    world.attach(&stuck);
    let reason = world.wait_refused(&stuck);
    assert!(reason.contains(&format!("physical-device is {wrong} already")), "{reason}");
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn disk_not_yet_opened_by_blkback_outlives_the_daemon() {
    let (world, path, device) = with_disk();
    let _kernel = world.kernel();
    world.attach(&device);
    world.wait_node(&device, "state", "2");
    let (code, said) = world.run(&["--hooks", "builtin", "--once"]);
    assert_eq!(code, Some(0), "{said}");
    world.wait_node(&device, "hotplug-status", "connected");
    assert_eq!(disk::only_loop(&path), world.node(&device, "node"));
    // The next daemon frees it.
    let devd = world.devd(BUILTIN);
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(disk::loops(&path), [""; 0]);
    // One that was killed in that moment has lost it.
    world.attach(&device);
    world.wait_node(&device, "hotplug-status", "connected");
    devd.kill();
    let devd = world.devd(BUILTIN);
    let taken = || world.logged("backend/vbd/3/51712: behind loop") > 0;
    wait_until("the log to name the lost disk", || {
        world.logged("backend/vbd/3/51712: its loop device has lost its file") > 0 || taken()
    });
    // Tests beside this one take free loop devices: then the rest has been shown already.
    if taken() {
        return;
    }
    // Another may have taken the loop device meanwhile.
    devd.kill();
    let name = world.node(&device, "node").unwrap();
    let other = world.file("other.img");
    disk::file(&other, 1 << 20);
    let _other = Loop::at(&name, &other);
    let _devd = world.devd(BUILTIN);
    let name = name.trim_start_matches("/dev/");
    world.wait_logged(&format!("backend/vbd/3/51712: behind {name} is {}", other.display()));
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn restart_finds_a_disks_file_behind_a_link_or_deleted() {
    let (world, path, device) = with_disk();
    let link = world.file("link.img");
    symlink(&path, &link).unwrap();
    let device = device.with("params", link.to_str().unwrap());
    let other = disk_of(&world, 4, "deleted.img");
    let deleted = world.file("deleted.img");
    disk::file(&deleted, 1 << 20);
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    world.attach_all(&[device.clone(), other.clone()]);
    // As blkback has them.
    let _open = [&device, &other].map(|device| {
        world.wait_connected(device);
        File::open(world.node(device, "node").unwrap()).unwrap()
    });
    devd.kill();
    fs::remove_file(&deleted).unwrap();
    let devd = world.devd(BUILTIN);
    wait_until("the end of the look", || process::threads(devd.pid()) == 1);
    assert_eq!(world.logged("has lost its file"), 0, "{}", world.log());
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn failed_test_leaves_no_loop_device_and_no_mount() {
    let world = World::new();
    let (path, place) = (world.file("disk.img"), world.file("mnt"));
    disk::file(&path, 8 << 20);
    network::run("mkfs.ext4", &format!("-q {}", path.display()));
    let outer = std::mem::ManuallyDrop::new(Loop::new(&path));
    fs::create_dir(&place).unwrap();
    network::run("mount", &format!("{} {}", outer.0, place.display()));
    fs::remove_file(&path).unwrap();
    assert!(disk::behind(&outer.0).unwrap().ends_with("disk.img (deleted)"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _world = world;
        std::panic::resume_unwind(Box::new("a test that fails"));
    }));
    assert!(panicked.is_err());
    assert_eq!(disk::behind(&outer.0), None);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(place.to_str().unwrap()), "{mounts}");
}
