//! The daemon ends, one way or another, and is started again.

mod support;

use nix::sys::signal::Signal;
use support::{Device, World, process, wait_until};

const VIF_ON: &str = "vif-bridge online type_if=vif";
const VIF_OFF: &str = "vif-bridge offline type_if=vif";
/// Hooks that wait at the gate named as their first argument, and that a word to a pipe that
/// nobody can read would end.
const GATED: &str = "read x < $DIR/$1; echo open; case $1 in add|online) call connect;; esac";

fn gated() -> World {
    let world = World::new();
    for script in ["vif-bridge", "block"] {
        world.hook(script, GATED);
    }
    for gate in ["online", "offline", "add", "remove"] {
        world.gate(gate);
    }
    world
}

#[test]
fn sigterm_lets_the_hook_finish_and_leaves_devices_served() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = gated();
        let _kernel = world.kernel();
        let mut devd = world.devd(&[]);
        let (served, busy, late) = (Device::vif(3, 0), Device::vbd(3, 51712), Device::vif(4, 0));
        let _online = world.open("online");
        world.attach(&served);
        world.wait_connected(&served);
        world.attach(&busy);
        world.wait_run(&busy, 1);
        devd.signal(signal);
        world.wait_logged("ending; devices stay served");
        world.attach(&late);
        world.wait_node(&late, "state", "2");
        let _add = world.open("add");
        assert_eq!(devd.wait().code(), Some(0));

        for device in [&served, &busy] {
            world.wait_connected(device);
            assert_eq!(world.calls(device).len(), 1);
        }
        assert_eq!(world.calls(&late), [""; 0], "nothing new is begun");
    }
}

#[test]
fn hook_that_outlives_the_daemon_is_found_by_the_next() {
    let world = gated();
    let _kernel = world.kernel();
    let device = Device::vbd(3, 51712);
    let devd = world.devd(&[]);
    world.attach(&device);
    let pid = world.wait_run(&device, 1);
    devd.terminate();
    assert!(process::is_alive(pid));
    world.wait_logged("its hook still runs, and is left to the next daemon");

    let _devd = world.devd(&[]);
    world.wait_logged(&format!("process {pid} is its hook"));
    let _add = world.open("add");
    world.wait_logged("backend/vbd/3/51712: attached");
    world.wait_connected(&device);
    assert_eq!(world.calls(&device), ["block add"]);
}

#[test]
fn an_add_hook_of_a_killed_daemon_is_not_run_twice() {
    for device in [Device::vif(3, 0), Device::vbd(3, 51712)] {
        let world = gated();
        let _kernel = world.kernel();
        let devd = world.devd(&[]);
        world.attach(&device);
        let pid = world.wait_run(&device, 1);
        devd.kill();
        let _devd = world.devd(&[]);
        world.wait_logged(&format!("process {pid} is its hook"));
        let _open = ["online", "add"].map(|gate| world.open(gate));
        world.wait_connected(&device);
        world.wait_logged(&format!("{}: attached", device.path()));
        assert_eq!(world.calls(&device).len(), 1);

        let _open = ["offline", "remove"].map(|gate| world.open(gate));
        world.detach(&device);
        world.wait_gone(&device);
        assert_eq!(world.calls(&device).len(), 2);
    }
}

#[test]
fn a_hook_that_ended_while_no_daemon_ran_is_not_run_again() {
    let world = gated();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let devd = world.devd(&[]);
    world.attach(&device);
    let pid = world.wait_run(&device, 1);
    devd.kill();
    let _online = world.open("online");
    world.wait_connected(&device);
    wait_until("the hook's end", || !process::is_alive(pid));
    let _devd = world.devd(&[]);
    world.wait_logged("backend/vif/3/0: served already");
    assert_eq!(world.calls(&device), [VIF_ON]);
}

#[test]
fn killed_daemons_second_pass_is_resumed() {
    let world = gated();
    let _kernel = world.kernel();
    let device = Device::vif_ioemu(3, 0);
    let _online = world.open("online");
    let devd = world.devd(&[]);
    world.attach(&device);
    let pid = world.wait_run(&device, 2);
    devd.kill();
    let _devd = world.devd(&[]);
    world.wait_logged(&format!("process {pid} is its hook"));
    let _add = world.open("add");
    world.wait_connected(&device);
    world.wait_logged("backend/vif/3/0: attached");
    assert_eq!(world.calls(&device), [VIF_ON, "vif-bridge add type_if=tap"]);
}

#[test]
fn a_removal_hook_of_a_killed_daemon_is_not_run_twice() {
    for device in [Device::vif(3, 0), Device::vbd(3, 51712)] {
        let world = gated();
        let _kernel = world.kernel();
        let _open = ["online", "add"].map(|gate| world.open(gate));
        let devd = world.devd(&[]);
        world.attach(&device);
        world.wait_connected(&device);
        world.detach(&device);
        let pid = world.wait_run(&device, 2);
        devd.kill();
        let _devd = world.devd(&[]);
        world.wait_logged(&format!("process {pid} is its hook"));
        let _open = ["offline", "remove"].map(|gate| world.open(gate));
        world.wait_gone(&device);
        assert_eq!(world.calls(&device).len(), 2);
    }
}

#[test]
fn a_found_hook_that_hangs_is_killed_like_any_other() {
    let world = gated();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let devd = world.devd(&[]);
    world.attach(&device);
    let pid = world.wait_run(&device, 1);
    devd.kill();
    let _devd = world.devd(&["--hook-timeout", "1"]);
    world.wait_refused(&device);
    wait_until("the hook's end", || !process::is_alive(pid));
}

#[test]
fn device_gone_while_no_daemon_ran_is_forgotten_with_its_hook() {
    let world = gated();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let devd = world.devd(&[]);
    world.attach(&device);
    world.wait_run(&device, 1);
    devd.kill();
    world.drop_device(&device);
    let _open = ["online", "offline"].map(|gate| world.open(gate));
    let _devd = world.devd(&[]);
    world.wait_settled();

    world.attach(&device);
    world.wait_connected(&device);
}

#[test]
fn devices_in_every_state_are_taken_up_where_they_are() {
    let world = World::new();
    let new = Device::vif(1, 0);
    let waiting = Device::vif(2, 0).with("state", "2");
    let connected = Device::vif(4, 0).with("state", "4").with("hotplug-status", "connected");
    let closing = Device::vif(5, 0).with("state", "5").with("online", "0");
    let closed = Device::vif(6, 0).with("state", "6").with("online", "0");
    let reopening = Device::vif(8, 0).with("state", "6");
    let disk = Device::vbd(4, 51712).with("state", "4").with("hotplug-status", "connected");
    let closed_disk = Device::vbd(6, 51712)
        .with("state", "6")
        .with("online", "0")
        .with("hotplug-status", "connected");
    let untouched_disk = Device::vbd(6, 51728).with("state", "6").with("online", "0");
    let all = [
        &new,
        &waiting,
        &connected,
        &closing,
        &closed,
        &reopening,
        &disk,
        &closed_disk,
        &untouched_disk,
    ];
    all.iter().for_each(|device| world.attach(device));

    let _devd = world.devd(&[]);
    world.wait_node(&waiting, "hotplug-status", "connected");
    for device in [&closed, &closed_disk, &untouched_disk] {
        world.wait_gone(device);
    }
    world.wait_logged(&format!("{}: served already", connected.path()));
    world.wait_logged(&format!("{}: served already", disk.path()));
    assert_eq!(world.calls(&new), [""; 0]);
    assert_eq!(world.calls(&closing), [""; 0]);
    assert_eq!(world.calls(&closed), [VIF_OFF]);
    assert_eq!(world.calls(&closed_disk), ["block remove"]);
    assert_eq!(world.calls(&untouched_disk), [""; 0]);
    assert_eq!(world.node(&reopening, "state").as_deref(), Some("6"));

    let _kernel = world.kernel();
    world.wait_connected(&new);
    world.wait_connected(&waiting);
    world.wait_gone(&closing);
    world.set(&reopening, "state", "2");
    world.wait_connected(&reopening);
    for device in [&connected, &disk, &reopening] {
        world.detach(device);
        world.wait_gone(device);
    }
    assert_eq!(world.calls(&new), [VIF_ON]);
    assert_eq!(world.calls(&waiting), [VIF_ON]);
    assert_eq!(world.calls(&connected), [VIF_OFF]);
    assert_eq!(world.calls(&closing), [VIF_OFF]);
    assert_eq!(world.calls(&reopening), [VIF_ON, VIF_OFF]);
    assert_eq!(world.calls(&disk), ["block remove"]);
}

#[test]
fn a_failure_of_an_earlier_daemon_is_tried_again_at_once() {
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0).with("hotplug-error", "no such bridge");
    world.attach(&device.clone().with("hotplug-status", "error"));
    let _devd = world.devd(&[]);
    world.wait_connected(&device);
    assert_eq!(world.node(&device, "hotplug-error"), None);
}

#[test]
fn killed_in_the_middle_of_many_devices_it_leaves_none_behind() {
    let world = World::new();
    let _kernel = world.kernel();
    let devices: Vec<Device> =
        (1..=10).flat_map(|guest| [Device::vif(guest, 0), Device::vbd(guest, 51712)]).collect();
    let devd = world.devd(&["--max-hooks", "3"]);
    world.attach_all(&devices);
    wait_until("some hooks to have run", || world.runs().len() > 5);
    devd.kill();
    let devd = world.devd(&["--max-hooks", "3"]);
    devices.iter().for_each(|device| world.wait_connected(device));
    for device in &devices {
        assert_eq!(world.calls(device).len(), 1, "{}", device.path());
    }
    devices.iter().for_each(|device| world.detach(device));
    wait_until("some devices to be gone", || devices.iter().any(|device| !world.exists(device)));
    devd.kill();
    let _devd = world.devd(&[]);
    devices.iter().for_each(|device| world.wait_gone(device));
    // Killed between a hook's end and the note of it, it must run the hook again.
    for device in &devices {
        let removals = world.calls(device).len() - 1;
        assert!((1..=2).contains(&removals), "{}: {removals}", device.path());
    }
    assert_eq!(world.said(), "");
}
