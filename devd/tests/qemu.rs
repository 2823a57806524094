//! Devices that QEMU serves: qdisk and 9pfs.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{DOMID, Device, Later, World, process, wait_until};
use xs_client::embedded::{Fault, Moment};
use xs_proto::MessageType;

/// Nothing of the guest's QEMU is left in the store.
fn assert_no_nodes(world: &World, guest: u16) {
    for node in ["libxl", "device-model"] {
        let path = format!("{node}/{guest}");
        wait_until(&format!("{path} to be gone"), || world.own(&path).is_none());
    }
}

fn wait_ended(pid: i32) {
    wait_until("QEMU's end", || !process::is_alive(pid));
}

#[test]
fn a_guests_disks_share_one_qemu_which_ends_with_the_last() {
    let world = World::new();
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let (first, second) = (Device::qdisk(3, 51712), Device::qdisk(3, 51728));
    world.attach_all(&[first.clone(), second.clone()]);
    world.wait_connected(&first);
    world.wait_connected(&second);
    let [pid] = world.qemus(3)[..] else { panic!("{:?}", world.runs()) };
    assert_eq!(world.own("libxl/3/qdisk-backend-pid"), Some(pid.to_string()));
    assert_eq!(world.own("device-model/3/state").as_deref(), Some("running"));

    world.detach(&first);
    world.wait_gone(&first);
    world.wait_settled();
    assert!(process::is_alive(pid), "the second disk needs it");
    world.detach(&second);
    world.wait_gone(&second);
    wait_ended(pid);
    assert_no_nodes(&world, 3);
    assert_eq!(world.qemus(3).len(), 1);
}

#[test]
fn qemu_is_called_as_xl_calls_it_and_asked_to_end_by_sighup() {
    let world = World::new();
    world.gate("never");
    let qemu = world.qemu_that(
        "echo ready when you are
         trap 'echo hangup > $DIR/hangup; exit 0' HUP
         call write device-model/3/state running
         while :; do read x < $DIR/never; done",
    );
    let _devd = world.devd(&["--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    world.wait_logged("backend/qdisk/3/51712: attached");
    let [pid] = world.qemus(3)[..] else { panic!("{:?}", world.runs()) };

    let expected = format!(
        "/bin/sh {qemu} -xen-domid 3 -xen-attach -name domain-3 -nographic -M xenpv \
         -monitor /dev/null -serial /dev/null -parallel /dev/null -nic none"
    );
    assert_eq!(process::arguments(pid).join(" "), expected);
    assert_eq!(process::stat(pid, 6), pid, "its session");
    // The shell blocks all of them for a moment, whenever it starts something.
    wait_until("no signal to be blocked", || process::signals(pid, "SigBlk") == 0);
    let log = world.file("qdisk-3.log");
    let expected = [(0, "/dev/null".into()), (1, log.clone()), (2, log.clone())];
    // The shell moves them about for a moment, whenever it redirects what it calls.
    wait_until("its files to be these", || {
        let mut files = process::open_files(pid);
        files.retain(|(_, file)| file.to_str() != Some(&qemu)); // The shell's.
        files == expected
    });
    assert!(fs::read_to_string(log).unwrap().contains("ready when you are"));

    world.set(&device, "online", "0");
    world.set(&device, "state", "6");
    world.wait_gone(&device);
    wait_ended(pid);
    wait_until("the signal", || world.file("hangup").exists());
}

#[test]
fn a_share_is_served_by_the_same_qemu_as_the_guests_disks() {
    let world = World::new();
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let (share, disk) = (Device::share(3, 0), Device::qdisk(3, 51712));
    world.attach(&share);
    world.wait_connected(&share);
    world.attach(&disk);
    world.wait_connected(&disk);
    let other = Device::share(4, 0);
    world.attach(&other);
    world.wait_connected(&other);
    assert_eq!((world.qemus(3).len(), world.qemus(4).len()), (1, 1));

    world.detach(&disk);
    world.wait_gone(&disk);
    assert_eq!(world.node(&share, "state").as_deref(), Some("4"));
    world.detach(&share);
    world.wait_gone(&share);
    wait_ended(world.qemus(3)[0]);
    assert_no_nodes(&world, 3);
    assert!(process::is_alive(world.qemus(4)[0]));
}

#[test]
fn dead_qemu_fails_its_devices_and_the_rest_get_a_new_one() {
    let world = World::new();
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let served = [Device::qdisk(3, 51712), Device::qdisk(3, 51728)];
    let unused = Device::qdisk(3, 51744).unused();
    world.attach_all(&served);
    world.attach(&unused);
    served.iter().for_each(|device| world.wait_connected(device));
    world.wait_node(&unused, "state", "2");

    process::signal(world.qemus(3)[0], Signal::SIGKILL);
    for device in &served {
        let reason = world.wait_refused(device);
        assert!(reason.contains("QEMU"), "{reason}");
        assert!(reason.contains("detach"), "{reason}");
    }
    wait_until("another QEMU", || world.qemus(3).len() == 2);
    wait_until("it to take up what was not connected", || {
        world.own("device-model/3/state").as_deref() == Some("running")
            && world.node(&unused, "state").as_deref() == Some("2")
            && world.node(&unused, "hotplug-status").as_deref() == Some("connected")
    });
    world.use_device(&unused);
    world.wait_connected(&unused);

    // The new one knows nothing of the others: the daemon closes them.
    for device in &served {
        assert_eq!(world.node(device, "state").as_deref(), Some("4"));
        world.detach(device);
        world.wait_gone(device);
    }
    let [_, second] = world.qemus(3)[..] else { panic!("{:?}", world.runs()) };
    assert!(process::is_alive(second));
    world.detach(&unused);
    world.wait_gone(&unused);
    wait_ended(second);
    assert_no_nodes(&world, 3);
}

#[test]
fn a_share_that_has_lost_its_qemu_keeps_others_from_a_new_one() {
    let world = World::new();
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let (share, disk) = (Device::share(3, 0), Device::qdisk(3, 51712).unused());
    world.attach_all(&[share.clone(), disk.clone()]);
    world.wait_connected(&share);
    world.wait_node(&disk, "state", "2");
    process::signal(world.qemus(3)[0], Signal::SIGKILL);
    world.wait_refused(&share);
    // A new QEMU would take up the share again, and repeat what the old one had done.
    let reason = world.wait_refused(&disk);
    assert!(reason.contains("9pfs"), "{reason}");
    assert_eq!(world.qemus(3).len(), 1);

    world.detach(&share);
    world.wait_gone(&share);
    world.use_device(&disk);
    world.wait_connected(&disk);
    assert_eq!(world.qemus(3).len(), 2);
}

#[test]
fn a_qemu_that_does_not_heed_sighup_is_killed() {
    let world = World::new();
    world.gate("never");
    let qemu = world.qemu_that(
        "trap '' HUP
         call write device-model/3/state running
         while :; do read x < $DIR/never; done",
    );
    let _devd = world.devd(&["--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    world.wait_logged("backend/qdisk/3/51712: attached");
    world.set(&device, "online", "0");
    world.set(&device, "state", "6");
    world.wait_gone(&device);
    wait_ended(world.qemus(3)[0]);
    assert_no_nodes(&world, 3);
}

#[test]
fn the_disk_of_a_qemu_that_died_can_be_detached() {
    let world = World::new();
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    process::signal(world.qemus(3)[0], Signal::SIGKILL);
    world.wait_refused(&device);
    world.detach(&device);
    world.wait_gone(&device);
    assert_no_nodes(&world, 3);
    assert_eq!(world.qemus(3).len(), 1);
}

#[test]
fn a_daemon_that_is_started_again_keeps_the_qemu_that_runs() {
    let world = World::new();
    let qemu = world.qemu();
    let first = Device::qdisk(3, 51712);
    let devd = world.devd(&["--qemu", &qemu]);
    world.attach(&first);
    world.wait_connected(&first);
    devd.kill();
    let pid = world.qemus(3)[0];
    assert!(process::is_alive(pid));

    let _devd = world.devd(&["--qemu", &qemu]);
    world.wait_logged(&format!("guest 3: process {pid} is its QEMU"));
    let second = Device::qdisk(3, 51728);
    world.attach(&second);
    world.wait_connected(&second);
    for device in [first, second] {
        world.detach(&device);
        world.wait_gone(&device);
    }
    wait_ended(pid);
    assert_no_nodes(&world, 3);
    assert_eq!(world.qemus(3), [pid]);
}

#[test]
fn an_adopted_qemu_that_dies_is_noticed_too() {
    let world = World::new();
    let qemu = world.qemu();
    let device = Device::qdisk(3, 51712);
    let devd = world.devd(&["--qemu", &qemu]);
    world.attach(&device);
    world.wait_connected(&device);
    devd.kill();
    let _devd = world.devd(&["--qemu", &qemu]);
    world.wait_logged("is its QEMU");
    process::signal(world.qemus(3)[0], Signal::SIGKILL);
    world.wait_refused(&device);
}

#[test]
fn nodes_of_an_ended_qemu_go_though_the_connection_breaks() {
    for node in ["qdisk-backend-pid", "device-model/3"] {
        for moment in [Moment::BeforeRequest, Moment::BeforeReply, Moment::AfterReply] {
            let world = World::new();
            let qemu = world.qemu();
            let _devd = world.devd(&["--linger", "0", "--qemu", &qemu]);
            let device = Device::qdisk(3, 51712);
            world.attach(&device);
            world.wait_connected(&device);
            let cut = Fault::disconnect(moment).on(MessageType::Rm).of_domain(DOMID);
            let cut = world.store.inject(cut.at(|path| path.ends_with(node.as_bytes())));
            world.detach(&device);
            world.wait_gone(&device);
            wait_until("the cut", || cut.strikes() == 1);
            assert_no_nodes(&world, 3);
        }
    }
}

#[test]
fn a_qemu_that_died_while_no_daemon_ran_is_noticed_at_the_start() {
    let world = World::new();
    let qemu = world.qemu();
    let (served, unused) = (Device::qdisk(3, 51712), Device::qdisk(3, 51728).unused());
    let devd = world.devd(&["--qemu", &qemu]);
    world.attach_all(&[served.clone(), unused.clone()]);
    world.wait_connected(&served);
    world.wait_node(&unused, "state", "2");
    devd.kill();
    let pid = world.qemus(3)[0];
    process::signal(pid, Signal::SIGKILL);
    wait_ended(pid);

    let _devd = world.devd(&["--qemu", &qemu]);
    let reason = world.wait_refused(&served);
    assert!(reason.contains("has ended"), "{reason}");
    world.use_device(&unused);
    world.wait_connected(&unused);
    assert_eq!(world.qemus(3).len(), 2);
}

#[test]
fn qemu_of_a_guest_without_devices_ends_after_a_restart() {
    let world = World::new();
    let qemu = world.qemu();
    let device = Device::qdisk(3, 51712);
    let devd = world.devd(&["--qemu", &qemu]);
    world.attach(&device);
    world.wait_connected(&device);
    devd.kill();
    world.drop_device(&device);
    let _devd = world.devd(&["--qemu", &qemu]);
    wait_ended(world.qemus(3)[0]);
    assert_no_nodes(&world, 3);
}

#[test]
fn the_qemu_of_another_store_is_none_of_ours() {
    let (theirs, ours) = (World::new(), World::new());
    let _theirs = theirs.devd(&["--qemu", &theirs.qemu()]);
    let device = Device::qdisk(3, 51712);
    theirs.attach(&device);
    theirs.wait_connected(&device);

    let _ours = ours.devd(&["--qemu", &ours.qemu()]);
    ours.attach(&device);
    ours.wait_connected(&device);
    ours.detach(&device);
    ours.wait_gone(&device);
    wait_ended(ours.qemus(3)[0]);
    assert!(process::is_alive(theirs.qemus(3)[0]));
}

#[test]
fn a_destroyed_guests_qemu_ends() {
    let world = World::new();
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let (closed, dropped) = (Device::qdisk(3, 51712), Device::qdisk(4, 51712));
    for device in [&closed, &dropped] {
        world.attach(device);
        world.wait_connected(device);
    }
    // As xl destroy does it: 6, and not a word about online.
    world.crash(&closed);
    world.wait_gone(&closed);
    world.drop_device(&dropped);
    for guest in [3, 4] {
        wait_ended(world.qemus(guest)[0]);
        assert_no_nodes(&world, guest);
    }
}

#[test]
fn guest_config_without_driver_domain_fails_only_its_qemu_disk() {
    let world = World::without_driver_domain();
    let qemu = world.qemu();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--qemu", &qemu]);
    let (disk, vif, vbd) = (Device::qdisk(3, 51712), Device::vif(3, 0), Device::vbd(3, 51728));
    world.attach_all(&[disk.clone(), vif.clone(), vbd.clone()]);
    let reason = world.wait_refused(&disk);
    assert!(reason.contains("driver_domain=1"), "{reason}");
    world.wait_connected(&vif);
    world.wait_connected(&vbd);
    assert_eq!(world.qemus(3), []);
    world.detach(&disk);
    world.wait_gone(&disk);
}

#[test]
fn a_qemu_that_is_missing_is_named() {
    for (options, named) in [
        (&["--no-qemu"][..], "started with --no-qemu"),
        (
            &["--qemu", "/no/such/qemu"],
            "no QEMU at /no/such/qemu: install one there, or correct --qemu",
        ),
        (
            &["--qemu", "/dev/null"],
            "cannot start /dev/null: Permission denied: it is not executable",
        ),
    ] {
        let world = World::new();
        let _devd = world.devd(options);
        let device = Device::qdisk(3, 51712);
        world.attach(&device);
        let reason = world.wait_refused(&device);
        assert!(reason.contains(named), "{reason}");
        world.detach(&device);
        world.wait_gone(&device);
    }
}

#[test]
fn a_qemu_that_fails_to_start_is_reported_and_tried_again() {
    let world = World::new();
    let qemu = world.qemu_that(r"printf 'starting\nno \033[31msuch machine\n\n'; exit 9");
    let _devd = world.devd(&["--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    let expected = format!(
        r#"QEMU ended with exit code 9; its log {} ends with "no \u{{1b}}[31msuch machine""#,
        world.file("qdisk-3.log").display()
    );
    assert_eq!(reason, expected);
    world.wait_logged(&format!("guest 3: process {}: {expected}", world.qemus(3)[0]));
    wait_until("another try", || world.qemus(3).len() > 1);
    world.qemu();
    world.wait_connected(&device);
    assert_eq!(world.node(&device, "hotplug-status").as_deref(), Some("connected"));
    wait_until("the reason to go", || world.node(&device, "hotplug-error").is_none());
}

#[test]
fn silent_qemu_is_not_blamed_for_the_words_of_the_one_before() {
    let world = World::new();
    let qemu = world.qemu_that("echo words of the first; exit 9");
    let _devd = world.devd(&["--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    assert!(world.wait_refused(&device).contains("words of the first"));
    world.qemu_that("exit 8");
    wait_until("another reason", || {
        let reason = world.node(&device, "hotplug-error").unwrap_or_default();
        reason.contains("exit code 8; it wrote nothing to its log")
    });
}

#[test]
fn qemu_never_ready_is_killed_and_fails_each_of_its_devices() {
    let world = World::new();
    world.gate("never");
    let qemu = world.qemu_that("while :; do read x < $DIR/never; done");
    let mut command = world.command(&["--linger", "0", "--qemu", &qemu]);
    let clock = Later::new(world.file("clock"));
    clock.apply(&mut command);
    let _devd = world.devd_by(command);
    let devices = [Device::qdisk(3, 51712), Device::qdisk(3, 51728), Device::share(3, 0)];
    world.attach_all(&devices);
    wait_until("its QEMU", || world.qemus(3).len() == 1);
    let pid = world.qemus(3)[0];
    clock.set(20);
    world.wait_settled();
    assert!(process::is_alive(pid), "it has 60 s");
    for device in &devices {
        assert_eq!(world.node(device, "hotplug-error"), None);
    }

    clock.set(60);
    world.wait_settled();
    for device in &devices {
        let reason = world.wait_refused(device);
        assert!(reason.contains("QEMU was not ready in 60 s and was killed"), "{reason}");
    }
    wait_ended(pid);
    // It is tried again; one that does well serves them all.
    world.qemu();
    for device in &devices {
        if world.node(device, "state").as_deref() != Some("4") {
            clock.set(200); // As for those that were started meanwhile.
            world.wait_settled();
        }
        world.wait_connected(device);
    }
    assert!(world.qemus(3).len() > 1);
}

/// The largest log that the test allows, in bytes: what is written in ten times the time that a
/// look takes to come, and more.
const LOG_BOUND: u64 = 512 * 1024 * 1024;

#[test]
fn log_of_qemu_that_writes_without_end_stays_small() {
    let world = World::new();
    // A program that writes line by line is no faster.
    let qemu = world.qemu_that(
        "call write device-model/3/state running; exec dd if=/dev/zero bs=100 status=none",
    );
    let devd = world.devd(&["--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    let (mut largest, mut emptied, mut last) = (0, 0, 0);
    let log = world.file("qdisk-3.log");
    let begin = Instant::now();
    while emptied < 5 || begin.elapsed() < Duration::from_secs(2) {
        let size = fs::metadata(&log).map_or(0, |log| log.len());
        assert!(size < LOG_BOUND, "{size} bytes, after {emptied} times");
        emptied += u32::from(size < last);
        (largest, last) = (size.max(largest), size);
        assert!(begin.elapsed() < Duration::from_secs(60), "emptied {emptied} times only");
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("at most {largest} bytes; emptied {emptied} times in {:?}", begin.elapsed());
    assert_eq!(world.logged("had grown to"), 1, "one line a minute");
    let [pid] = world.qemus(3)[..] else { panic!("{:?}", world.runs()) };
    process::signal(pid, Signal::SIGKILL);
    devd.terminate();
}
