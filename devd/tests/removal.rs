//! Devices that are let go at the same moment, as all of a guest's are when it ends.

mod support;

use support::{DOMID, Device, World};
use xs_client::Outcome;
use xs_client::embedded::Fault;
use xs_proto::{ErrorCode, MessageType};

fn devices() -> Vec<Device> {
    (0..20).map(|devid| Device::plain("vkbd", 3, devid)).collect()
}

/// All are there, and all are closed for good, in one transaction.
fn let_go(world: &World, devices: &[Device]) {
    world.attach_all(devices);
    world.wait_settled();
    let closed = world.toolstack().transaction(|transaction| {
        for device in devices {
            transaction.write(format!("{}/online", device.backend()), "0")?;
            transaction.write(format!("{}/state", device.backend()), "6")?;
        }
        Ok(Outcome::Commit(()))
    });
    closed.unwrap();
}

fn transactions(world: &World) -> u64 {
    world.counts().of(MessageType::TransactionStart)
}

#[test]
fn they_go_in_few_transactions() {
    let world = World::new();
    let _devd = world.devd(&["--linger", "100"]);
    let before = transactions(&world);
    let devices = devices();
    let_go(&world, &devices);
    devices.iter().for_each(|device| world.wait_gone(device));
    // One for all, as a rule, and one for the device that was there to settle.
    let taken = transactions(&world) - before;
    assert!(taken <= 5, "{taken}\n{}", world.log());
}

#[test]
fn one_that_cannot_be_removed_does_not_keep_the_others() {
    let world = World::new();
    let _devd = world.devd(&["--linger", "100"]);
    let devices = devices();
    let stuck = &devices[7];
    let refusal = Fault::error(ErrorCode::Acces).on(MessageType::Rm).of_domain(DOMID);
    let path = stuck.path();
    let report = world.store.inject(refusal.at(move |at| at == path.as_bytes()).times(2));
    let_go(&world, &devices);
    let others = devices.iter().filter(|device| device.path() != stuck.path());
    others.for_each(|device| world.wait_gone(device));
    world.wait_logged(&format!("{}: cannot remove the directory", stuck.path()));
    // With the others and by itself; the next time it goes.
    assert_eq!(report.strikes(), 2);
    world.wait_gone(stuck);
}
