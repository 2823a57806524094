//! The connection to the store: how little is asked of it, and how it is lost and found.

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{DOMID, Device, World, wait_until};
use xs_client::embedded::{ConnectionId, Counts, Fault, Quota};
use xs_proto::{ErrorCode, MessageType};

/// The daemon's connection, and what was asked on it. To be called when there is no other of
/// the driver domain.
fn connection(world: &World) -> (ConnectionId, Counts) {
    let all = world.store.connections().into_iter();
    let [(id, _, counts)] = all.filter(|(_, domid, _)| *domid == DOMID).collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", world.store.connections());
    };
    (id, counts)
}

fn watches(counts: &Counts) -> u64 {
    counts.of(MessageType::Watch) - counts.of(MessageType::Unwatch)
}

#[test]
fn one_watch_is_enough_for_all_devices() {
    // One of the kernel's, ours, and one that we have as long as a QEMU is being started.
    let world = World::with_quota(Quota { watches: 2, nodes: 10_000, ..Quota::default() });
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let (id, counts) = connection(&world);
    assert_eq!(watches(&counts), 1);
    let devices: Vec<Device> = (1..=20)
        .flat_map(|guest| [Device::vif(guest, 0), Device::vbd(guest, 51712)])
        .chain([Device::qdisk(3, 51728), Device::qdisk(4, 51728)])
        .collect();
    let kernel = world.kernel();
    world.attach_all(&devices);
    devices.iter().for_each(|device| world.wait_connected(device));
    wait_until("QEMU's watch to be given back", || {
        let connections = world.store.connections();
        let ours = connections.iter().find(|(other, _, _)| *other == id).unwrap();
        assert!(watches(&ours.2) <= 2);
        watches(&ours.2) == 1
    });
    drop(kernel);
}

#[test]
fn reconnect_finds_what_changed_while_the_store_was_away() {
    let mut world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let [kept, gone, closed, new, later] = [0, 1, 2, 3, 4].map(|devid| Device::vif(3, devid));
    for device in [&kept, &gone, &closed] {
        world.attach(device);
        world.wait_connected(device);
    }
    world.stop_store();
    world.wait_logged("hooks and QEMUs keep running; reconnecting");
    world.drop_device(&gone);
    world.detach(&closed);
    world.attach(&new);
    world.start_store();
    world.wait_gone(&closed);
    world.wait_connected(&new);
    world.wait_logged(&format!("{}: gone", gone.path()));
    world.wait_logged("connected to xenstore again");
    world.attach(&later);
    world.wait_connected(&later);

    assert_eq!(world.calls(&kept).len(), 1);
    assert_eq!(world.calls(&gone).len(), 2);
    assert_eq!(world.calls(&closed).len(), 2);
}

#[test]
fn a_hook_that_ends_while_the_store_is_away_counts() {
    let mut world = World::new();
    world.gate("gate");
    world.hook("vif-bridge", "call connect; read x < $DIR/gate");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    world.stop_store();
    world.wait_logged("; reconnecting");
    let _open = world.open("gate");
    world.wait_logged("backend/vif/3/0: its add hook did well");
    world.start_store();
    world.wait_logged("backend/vif/3/0: attached");
    assert_eq!(world.calls(&device).len(), 1);
}

#[test]
fn qemu_death_during_an_outage_is_reported_after_reconnect() {
    let mut world = World::new();
    // It would end with its connection; as QEMU does not.
    let qemu = world.qemu_that(
        "call write device-model/3/state running
         while :; do read x < $DIR/never; done",
    );
    world.gate("never");
    let _devd = world.devd(&["--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    world.wait_logged("backend/qdisk/3/51712: attached");
    world.set(&device, "state", "4");
    world.stop_store();
    world.wait_logged("; reconnecting");
    support::process::end(world.qemus(3)[0]);
    world.wait_logged("QEMU was ended by signal 9");
    world.start_store();
    let reason = world.wait_refused(&device);
    assert!(reason.contains("has ended"), "{reason}");
}

#[test]
fn without_a_store_it_can_still_be_told_to_end() {
    let mut world = World::new();
    let devd = world.devd(&[]);
    world.stop_store();
    world.wait_logged("; reconnecting");
    devd.terminate();
}

#[test]
fn a_store_that_is_silent_does_not_keep_it_from_ending() {
    let world = World::new();
    let mut devd = world.devd(&[]);
    let silence = Fault::delay(Duration::from_secs(3600)).on(MessageType::Read).of_domain(DOMID);
    let silence = world.store.inject(silence.always());
    world.attach(&Device::vif(3, 0));
    wait_until("the daemon to wait for an answer", || silence.strikes() > 0);
    let told = Instant::now();
    devd.signal(Signal::SIGTERM);
    assert_eq!(devd.wait().code(), Some(0));
    // Not the half minute after which a store counts as lost.
    assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
    world.wait_logged("the store does not answer");
}

#[test]
fn a_store_that_refuses_for_a_while_is_asked_again() {
    let world = World::new();
    let _devd = world.devd(&["--linger", "10"]);
    let (id, _) = connection(&world);
    // The toolstack's transactions always come in between.
    let conflicts = world.store.inject(
        Fault::error(ErrorCode::Again).on(MessageType::TransactionEnd).of_connection(id).times(5),
    );
    let _kernel = world.kernel();
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(conflicts.strikes(), 5);
}

#[test]
fn a_store_without_room_for_the_reason_still_gets_the_status() {
    let world = World::new();
    world.hook("vif-bridge", "exit 1");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let refused = |path: &[u8]| path.ends_with(b"/hotplug-error");
    world.store.inject(
        Fault::error(ErrorCode::NoSpc).on(MessageType::Write).of_domain(DOMID).at(refused).always(),
    );
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_node(&device, "hotplug-status", "error");
    world.wait_logged("failed with exit code 1");
}
