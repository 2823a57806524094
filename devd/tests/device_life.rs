//! Devices that come and go in every order.

mod support;

use std::time::{Duration, Instant};

use support::{DOMID, Device, World, wait_until};
use xs_client::embedded::{Fault, Quota};
use xs_proto::MessageType;

const VIF_ON: &str = "vif-bridge online type_if=vif";
const VIF_OFF: &str = "vif-bridge offline type_if=vif";

#[test]
fn devices_that_others_serve_are_only_removed() {
    let world = World::new();
    let _devd = world.devd(&[]);
    let kinds = [
        "vfb",
        "vkbd",
        "qusb",
        "pci",
        "console",
        "vtpm",
        "vusb",
        "vdispl",
        "vuart",
        "pvcalls",
        "vsnd",
        "vinput",
        "virtio",
        "virtio_disk",
        "xen_9pfs",
    ];
    let devices: Vec<Device> =
        kinds.iter().map(|kind| Device::plain(kind, 3, 0).with("state", "4")).collect();
    world.attach_all(&devices);
    for device in &devices {
        world.detach(device);
        world.set(device, "state", "6");
    }
    devices.iter().for_each(|device| world.wait_gone(device));
    assert_eq!(world.runs(), []);
}

#[test]
fn a_kind_that_is_not_known_is_left_alone_and_named_once() {
    let world = World::new();
    let _devd = world.devd(&[]);
    for devid in 0..2 {
        let device = Device::plain("floppy", 3, devid);
        world.attach(&device);
        world.set(&device, "online", "0");
        world.set(&device, "state", "6");
    }
    world.wait_settled();
    for devid in 0..2 {
        assert_eq!(world.node(&Device::plain("floppy", 3, devid), "state").as_deref(), Some("6"));
    }
    assert_eq!(world.logged("backend/floppy: left alone: no kind"), 1);
}

#[test]
fn directory_gone_before_its_hook_ran_needs_no_removal() {
    let world = World::new();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_logged("backend/vif/3/0: found");
    world.drop_device(&device);
    world.wait_logged("backend/vif/3/0: gone");
    assert_eq!(world.runs(), []);

    let _kernel = world.kernel();
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(world.calls(&device), [VIF_ON]);
}

#[test]
fn a_directory_that_goes_while_its_hook_runs_is_undone_once() {
    let world = World::new();
    world.gate("gate");
    // As Xen's scripts would: what they write has no place to go any more.
    world.hook("vif-bridge", "[ $1 = offline ] || { read x < $DIR/gate; call connect; }");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_run(&device, 1);
    world.store.rm(b"/local/domain/7/backend/vif").unwrap();
    let _open = world.open("gate");
    world.wait_run(&device, 2);
    world.wait_logged("backend/vif/3/0: gone");
    assert_eq!(world.calls(&device), [VIF_ON, VIF_OFF]);
}

#[test]
fn device_replaced_while_its_hook_runs_is_undone_then_served() {
    let world = World::new();
    world.gate("gate");
    world.hook("vif-bridge", "[ $1 = offline ] || { read x < $DIR/gate; call connect; }");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_run(&device, 1);
    world.drop_device(&device);
    world.wait_settled();
    let _open = world.open("gate");
    world.wait_run(&device, 2);
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(world.calls(&device), [VIF_ON, VIF_OFF, VIF_ON]);
}

#[test]
fn a_directory_that_goes_from_a_served_device_is_undone_once() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let devices = [Device::vif(3, 0), Device::vbd(3, 51712)];
    for device in &devices {
        world.attach(device);
        world.wait_connected(device);
        world.drop_device(device);
        world.wait_logged(&format!("{}: gone", device.path()));
        assert_eq!(world.calls(device).len(), 2);
        assert!(!world.exists(device), "nothing may bring it back");
    }
}

#[test]
fn the_same_numbers_at_once_are_a_new_device() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    for device in [Device::vif(3, 0), Device::vbd(3, 51712)] {
        world.attach(&device);
        world.wait_connected(&device);
        for life in 2..5 {
            // The last that the hook writes, which must not end up in the next device; and the
            // daemon has seen it, or it would take the next device for one that still waits.
            world.wait_node(&device, "hotplug-status", "connected");
            let attached = format!("{}: attached", device.path());
            wait_until("the daemon to have seen it", || world.logged(&attached) > life - 2);
            world.drop_device(&device);
            world.attach(&device);
            world.wait_connected(&device);
            let calls = world.calls(&device);
            assert_eq!(calls.len(), 2 * life - 1, "{calls:?}");
            assert_eq!(calls[calls.len() - 3], calls[calls.len() - 1]);
        }
    }
}

#[test]
fn crashed_guests_online_devices_are_removed() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let (vif, vbd) = (Device::vif(3, 0), Device::vbd(4, 51712));
    world.attach_all(&[vif.clone(), vbd.clone()]);
    for device in [&vif, &vbd] {
        world.wait_connected(device);
        world.crash(device);
        world.wait_gone(device);
    }
    assert_eq!(world.calls(&vif), [VIF_ON, VIF_OFF]);
    assert_eq!(world.calls(&vbd), ["block add", "block remove"]);
}

#[test]
fn a_guest_that_initialises_again_keeps_its_devices() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--linger", "0"]);
    let devices = [Device::vif(3, 0), Device::vbd(3, 51712)];
    for device in &devices {
        world.attach(device);
        world.wait_connected(device);
        world.set(device, "state", "6");
    }
    world.wait_settled();
    for device in &devices {
        assert_eq!(world.node(device, "state").as_deref(), Some("6"), "it must stay");
        world.set(device, "state", "2");
        world.wait_connected(device);
    }
    world.wait_settled();
    assert_eq!(world.calls(&devices[0]), [VIF_ON]);
    assert_eq!(world.calls(&devices[1]), ["block add"]);
}

#[test]
fn slow_removal_of_a_directory_spares_the_next_device() {
    let world = World::new();
    let _devd = world.devd(&["--linger", "0"]);
    let ours = world.store.connections().into_iter().find(|(_, domid, _)| *domid == DOMID);
    let kernel = world.kernel();
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    let slow = Fault::delay(Duration::from_secs(2)).on(MessageType::TransactionStart);
    let slow = world.store.inject(slow.of_connection(ours.unwrap().0));
    world.detach(&device);
    wait_until("the removal to begin", || slow.strikes() == 1);
    // Meanwhile another has come, and its guest has closed it to begin anew.
    drop(kernel);
    world.drop_device(&device);
    world.attach(&device.clone().with("state", "6"));
    world.wait_settled();
    assert_eq!(world.node(&device, "state").as_deref(), Some("6"), "it must stay");
    world.set(&device, "state", "2");
    let _kernel = world.kernel();
    world.wait_connected(&device);
    assert_eq!(world.calls(&device), ["block add", "block remove", "block add"]);
}

#[test]
fn a_vif_that_netback_made_anew_gets_its_hook_again() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    // The kernel takes `hotplug-status` away when the interface dies.
    world.set(&device, "state", "5");
    world.wait_node(&device, "state", "6");
    world.set(&device, "state", "1");
    world.wait_connected(&device);
    assert_eq!(world.calls(&device).last().map(String::as_str), Some(VIF_ON));
    assert!(world.calls(&device).len() > 1);
}

#[test]
fn a_backend_that_is_late_is_waited_for() {
    let world = World::new();
    let _devd = world.devd(&["--init-timeout", "1"]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_logged("backend/vif/3/0: its backend is not ready after 1 s");
    let _kernel = world.kernel();
    world.wait_connected(&device);
    assert_eq!(world.calls(&device), [VIF_ON]);
}

#[test]
fn a_closed_directory_lingers_as_long_as_is_asked() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--linger", "1500"]);
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    let begin = Instant::now();
    world.detach(&device);
    world.wait_node(&device, "state", "6");
    world.wait_gone(&device);
    assert!(begin.elapsed() >= Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[test]
fn a_closed_directory_need_not_linger() {
    let world = World::new();
    let _devd = world.devd(&["--linger", "0"]);
    // A busy machine may delay a removal beyond the default linger: repeat until one is fast.
    wait_until("a device that goes at once", || {
        let device = Device::plain("vkbd", 3, 0).with("state", "4");
        world.attach(&device);
        world.set(&device, "online", "0");
        let begin = Instant::now();
        world.set(&device, "state", "6");
        world.wait_gone(&device);
        begin.elapsed() < Duration::from_millis(150)
    });
}

#[test]
fn eighty_devices_at_once() {
    let world = World::with_quota(Quota { nodes: 10_000, ..Quota::default() });
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let devices: Vec<Device> =
        (1..=40).flat_map(|guest| [Device::vif(guest, 0), Device::vbd(guest, 51712)]).collect();
    world.attach_all(&devices);
    devices.iter().for_each(|device| world.wait_connected(device));
    devices.iter().for_each(|device| world.detach(device));
    devices.iter().for_each(|device| world.wait_gone(device));
    for device in &devices {
        assert_eq!(world.calls(device).len(), 2, "{}", device.path());
    }
}
