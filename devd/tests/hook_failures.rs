//! Hooks that fail, hang, or are too many.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use support::{DOMID, Devd, Device, Later, World, process, wait_until};
use xs_client::embedded::Fault;
use xs_proto::{ErrorCode, MessageType};

#[test]
fn failed_hook_is_reported_and_retried_until_it_succeeds() {
    let world = World::new();
    let broken = world.file("broken");
    fs::write(&broken, "").unwrap();
    world.hook("vif-bridge", "[ -e $DIR/broken ] && exit 3; call connect");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);

    let reason = world.wait_refused(&device);
    assert!(reason.contains("vif-bridge failed with exit code 3"), "{reason}");
    world.wait_run(&device, 3);
    let failed = "not served: /etc/xen/scripts/vif-bridge failed with exit code 3";
    wait_until("the third failure in the log", || world.logged(failed) >= 3);
    assert_eq!(world.node(&device, "state").as_deref(), Some("2"), "netback waits");
    // Each wait is longer than the one before.
    let times = world.log_times("backend/vif/3/0: process ");
    let gap = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default();
    assert!(gap(times[0], times[1]) >= Duration::from_millis(990), "{times:?}");
    assert!(gap(times[1], times[2]) >= Duration::from_millis(1990), "{times:?}");

    fs::remove_file(broken).unwrap();
    world.wait_connected(&device);
    assert_eq!(world.node(&device, "hotplug-error"), None);
}

#[test]
fn exit_status_is_known_though_sigchld_was_ignored_at_start() {
    let world = World::new();
    world.hook("vif-bridge", "exit 3");
    let _kernel = world.kernel();
    let _devd = world.devd_by(Devd::under(["env", "--ignore-signal=CHLD"], &world.command(&[])));
    let device = Device::vif(3, 0);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("vif-bridge failed with exit code 3"), "{reason}");
}

#[test]
fn refused_error_mark_is_retried_and_the_device_kept() {
    let world = World::new();
    let broken = world.file("broken");
    fs::write(&broken, "").unwrap();
    world.hook("vif-bridge", "[ -e $DIR/broken ] && exit 3; call connect");
    world.hook("block", "[ -e $DIR/broken ] && exit 3; call connect");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    // The hooks write nothing yet.
    let marks = Fault::error(ErrorCode::NoSpc).on(MessageType::Write).of_domain(DOMID);
    world.store.inject(marks.at(|path| path.ends_with(b"/hotplug-status")).always());
    let devices = [Device::vif(3, 0), Device::vbd(3, 51712)];
    world.attach_all(&devices);
    devices.iter().for_each(|device| {
        world.wait_run(device, 3);
    });
    let refused = "cannot report its failure: the store refuses the request: ENOSPC";
    wait_until("the third failure of both", || world.logged(refused) >= 6);
    for device in &devices {
        assert_ne!(world.node(device, "hotplug-status").as_deref(), Some("error"));
        let calls = world.calls(device);
        assert!(calls.iter().all(|call| *call == calls[0]), "{calls:?}");
    }
    assert_eq!(world.logged("another device has taken its place"), 0, "{}", world.log());

    world.store.clear_faults();
    fs::remove_file(broken).unwrap();
    devices.iter().for_each(|device| world.wait_connected(device));
}

#[test]
fn what_the_hook_itself_says_is_left_to_stand() {
    let world = World::new();
    world.hook(
        "vif-bridge",
        "call write hotplug-error 'no bridge xenbr0'; call write hotplug-status error; exit 1",
    );
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_logged("no bridge xenbr0");
    assert_eq!(world.wait_refused(&device), "no bridge xenbr0");
}

#[test]
fn a_network_hook_that_ends_well_without_a_word_has_failed() {
    let world = World::new();
    world.hook("vif-bridge", "exit 0");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("did not write hotplug-status connected"), "{reason}");
}

#[test]
fn a_failed_device_can_be_detached() {
    let world = World::new();
    world.hook("vif-bridge", "[ $1 = offline ] || exit 1");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_refused(&device);
    world.detach(&device);
    world.wait_gone(&device);
    // What a failed hook has left half done is its removal's to clean up.
    let last = world.calls(&device).pop();
    assert_eq!(last.as_deref(), Some("vif-bridge offline type_if=vif"));
}

#[test]
fn a_removal_hook_that_fails_does_not_keep_the_device() {
    let world = World::new();
    world.hook("block", "case $1 in add) call connect;; *) exit 5;; esac");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    world.detach(&device);
    world.wait_gone(&device);
    world.wait_logged("failed with exit code 5; the device goes all the same");
    assert_eq!(world.calls(&device), ["block add", "block remove"]);
}

/// The shell heeds SIGTERM, the child that it waits for does not.
const CHILD_STAYS: &str = "(trap '' TERM; read x < $DIR/never) & echo $! > $DIR/child; wait";
/// Nothing heeds it.
const ALL_STAYS: &str = "trap '' TERM; while :; do read x < $DIR/never; done";

/// A daemon whose clock the test can put ahead: no hook that does well is late on a busy machine.
fn with_clock(world: &World, options: &[&str]) -> (Devd, Later) {
    let mut command = world.command(options);
    let clock = Later::new(world.file("clock"));
    clock.apply(&mut command);
    (world.devd_by(command), clock)
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_it_has_started() {
    let world = World::new();
    world.gate("never");
    world.hook("child-stays", CHILD_STAYS);
    world.hook("all-stays", ALL_STAYS);
    let _kernel = world.kernel();
    let (devd, clock) = with_clock(&world, &["--hook-timeout", "30", "--max-hooks", "3"]);
    let hanging = [
        Device::vbd(3, 51712).with("script", "child-stays"),
        Device::vbd(3, 51728).with("script", "all-stays"),
    ];
    world.attach_all(&hanging);
    let leaders = hanging.each_ref().map(|device| world.wait_run(device, 1));
    let child = support::wait_for("the child", || {
        fs::read_to_string(world.file("child")).ok()?.trim().parse().ok()
    });
    assert!(process::is_alive(child));

    // Others do not wait for them.
    let other = Device::vif(3, 0);
    world.attach(&other);
    world.wait_connected(&other);

    clock.set(31);
    world.wait_settled();
    for device in &hanging {
        let reason = world.wait_refused(device);
        assert!(reason.contains("did not end in 30 s and was killed"), "{reason}");
        assert!(reason.contains("--hook-timeout"), "{reason}");
    }
    // Their next tries would be found too.
    devd.kill();
    for pid in leaders.into_iter().chain([child]) {
        wait_until("the whole group's end", || !process::is_alive(pid));
    }
}

#[test]
fn a_removal_hook_that_hangs_does_not_keep_the_device() {
    let world = World::new();
    world.gate("never");
    world.hook("block", "case $1 in add) call connect;; *) read x < $DIR/never;; esac");
    let _kernel = world.kernel();
    let (_devd, clock) = with_clock(&world, &["--hook-timeout", "30"]);
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    world.detach(&device);
    let pid = world.wait_run(&device, 2);
    clock.set(31);
    world.wait_settled();
    world.wait_gone(&device);
    assert!(!process::is_alive(pid));
    world.wait_logged("the device goes all the same");
}

#[test]
fn no_more_hooks_run_at_once_than_are_allowed() {
    let world = World::new();
    world.gate("gate");
    world.hook(
        "block",
        "echo start >> $DIR/order; read x < $DIR/gate; call connect; echo end >> $DIR/order",
    );
    let _kernel = world.kernel();
    let devd = world.devd(&["--max-hooks", "4"]);
    let devices: Vec<Device> = (0..50).map(|guest| Device::vbd(guest + 1, 51712)).collect();
    world.attach_all(&devices);
    let order = || fs::read_to_string(world.file("order")).unwrap_or_default();
    wait_until("as many as are allowed to run", || order().lines().count() == 4);
    assert_eq!(process::threads(devd.pid()), 1, "scripts take none");
    let _open = world.open("gate");
    devices.iter().for_each(|device| world.wait_connected(device));

    let mut running = 0;
    for line in order().lines() {
        running += if line == "start" { 1 } else { -1 };
        assert!(running <= 4, "{}", order());
    }
    assert_eq!(world.runs().len(), 50);
}

#[test]
fn failed_hook_is_quoted_with_its_last_line() {
    let world = World::new();
    world.hook("vif-bridge", "echo begin; printf '\\033[31mno such bridge\\n\\n' >&2; exit 3");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    let expected = "/etc/xen/scripts/vif-bridge failed with exit code 3; its last line: \
                    \"\\u{1b}[31mno such bridge\"";
    assert_eq!(world.wait_refused(&device), expected);
    world.wait_logged(&format!("backend/vif/3/0: not served: {expected}"));
    // The next failure has a line of its own, or none.
    world.hook("vif-bridge", "exit 4");
    wait_until("another reason", || {
        world.node(&device, "hotplug-error").is_some_and(|reason| reason.ends_with("exit code 4"))
    });
}

#[test]
fn silent_failure_of_a_hook_that_did_well_is_quoted_too() {
    let world = World::new();
    world.hook("vif-bridge", "echo nothing to do");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("did not write hotplug-status"), "{reason}");
    assert!(reason.ends_with("; its last line: \"nothing to do\""), "{reason}");
}

#[test]
fn script_that_cannot_be_run_says_why() {
    let world = World::new();
    let path = world.scripts().join("vif-bridge");
    let name = path.display().to_string();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--hooks", "script"]);
    let mut device = Device::vif(3, 0);
    let mut reason_of = |mode, text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        device.devid += 1;
        world.attach(&device);
        world.wait_refused(&device)
    };
    let shell = "#!/bin/sh\n";
    assert_eq!(reason_of(0o644, shell), format!("{name} is not executable: chmod +x {name}"));
    let missing = "which its first line names and which is missing: install it";
    let reason = reason_of(0o755, "#!/no/such/shell\n");
    assert_eq!(reason, format!("{name} needs /no/such/shell, {missing}"));
    let reason = reason_of(0o755, "#!/bin/sh\r\n");
    assert_eq!(reason, format!("{name} needs /bin/sh\\r, {missing}"));
    let reason = reason_of(0o755, "exit 0\n");
    assert!(reason.contains("its first line must name an interpreter"), "{reason}");
}

#[test]
fn unusable_script_yields_to_the_built_in_hook_with_a_warning() {
    let world = World::new();
    let path = world.scripts().join("vif-bridge");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    world.attach(&Device::vif(3, 0));
    world.wait_logged("hook vif-bridge: built in");
    world.wait_logged("the script of that name is not used: it is not executable (chmod +x)");
}
