//! How often the daemon asks the store in a device's life. Over `/dev/xen/xenbus` each request
//! is a round trip to domain 0.

mod support;

use support::{Device, World, wait_until};

/// What each change of `state` takes, 1, 2, 4, 5 and 6, with all that follows from it. The next
/// comes when the daemon has dealt with the last.
#[track_caller]
fn assert_life_takes(device: &Device, expected: [u64; 5]) {
    let world = World::new();
    let _devd = world.devd(&[]);
    let mut taken = world.counts().total();
    let begin = taken;
    for (state, requests_of_it) in ["1", "2", "4", "5", "6"].into_iter().zip(expected) {
        match state {
            "1" => world.attach(device),
            "5" => world.detach(device),
            _ => world.set(device, "state", state),
        }
        taken += requests_of_it;
        wait_until(&format!("{taken} requests at state {state}"), || {
            world.counts().total() >= taken
        });
    }
    world.wait_logged(": gone");
    assert_eq!(world.counts().total() - begin, expected.iter().sum(), "{}", world.log());
}

#[test]
fn a_disks_life_takes_fourteen() {
    // At 1 `state`, mark and script, so that at 2 `state` is enough, and the mark when the hook has
    // ended; at 6 `online` and `state`, the removal of the mark, and a transaction of four.
    assert_life_takes(&Device::vbd(3, 51712), [3, 1 + 1, 1, 1, 2 + 1 + 4]);
}

#[test]
fn a_network_interfaces_life_takes_fifteen() {
    // It has `type` and `gatewaydev` too, and its mark stays.
    assert_life_takes(&Device::vif(3, 0), [5, 1 + 1, 1, 1, 2 + 4]);
}

#[test]
fn a_device_that_others_serve_takes_ten() {
    assert_life_takes(&Device::plain("vkbd", 3, 0), [1, 1, 1, 1, 2 + 4]);
}

#[test]
fn the_life_of_a_guests_only_qemu_disk_takes_at_most_twenty_six() {
    let world = World::new();
    let qemu = world.qemu();
    let _devd = world.devd(&["--qemu", &qemu]);
    let begin = world.counts().total();
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    world.detach(&device);
    world.wait_gone(&device);
    wait_until("QEMU's nodes to be gone", || world.own("libxl/3").is_none());
    let taken = world.counts().total() - begin;
    assert!((20..=26).contains(&taken), "{taken}\n{}", world.log());
}

#[test]
fn a_qemu_that_is_ready_costs_no_look_at_those_that_are_not() {
    let world = World::new();
    let qemu = world.qemu_that(
        "read x < $DIR/gate$2
         call write device-model/$2/state running
         while :; do read x < $DIR/never; done",
    );
    world.gate("never");
    let _devd = world.devd(&["--qemu", &qemu]);
    let guests = 3..9;
    for guest in guests.clone() {
        world.gate(&format!("gate{guest}"));
        world.attach(&Device::qdisk(guest, 51712));
    }
    wait_until("all QEMUs", || guests.clone().all(|guest| !world.qemus(guest).is_empty()));
    let mut taken = Vec::new();
    for guest in guests {
        world.wait_settled();
        let before = world.counts().total();
        let _open = world.open(&format!("gate{guest}"));
        world.wait_logged(&format!("backend/qdisk/{guest}/51712: attached"));
        taken.push(world.counts().total() - before);
    }
    // After the last one there is a watch less, and that is a request.
    *taken.last_mut().unwrap() -= 1;
    assert!(taken.iter().all(|count| *count == taken[0]), "{taken:?}");
}
