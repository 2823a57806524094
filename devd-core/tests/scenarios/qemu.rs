//! Disks and shares that a guest's QEMU serves.

use devd_core::{Kind, Notice, Phase, QemuFailure, Reason};

use crate::world::{Spec, World};

#[test]
fn the_first_disk_starts_a_qemu_and_the_last_one_ends_it() {
    let mut world = World::calm();
    let first = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    let second = world.create(&Spec::new(Kind::Qdisk, 1, 1, ""));
    world.settle_well();
    assert!(world.is_served(first) && world.is_served(second));
    assert_eq!(world.qemu_starts, 1);
    world.detach(first, true);
    world.settle_well();
    assert!(world.is_gone(first) && world.is_served(second));
    assert_eq!(world.qemus.guests().count(), 1);
    world.detach(second, true);
    world.settle_well();
    assert!(world.is_gone(second));
    assert_eq!(world.qemus.guests().count(), 0);
    assert!(world.qemus.nodes.is_empty(), "nothing is left of the guest");
}

#[test]
fn disks_and_shares_of_a_guest_share_a_qemu_and_guests_do_not() {
    let mut world = World::calm();
    for domid in [1, 2, 3] {
        for kind in [Kind::Qdisk, Kind::P9] {
            world.create(&Spec::new(kind, domid, 0, ""));
        }
    }
    world.settle_well();
    assert_eq!(world.qemu_starts, 3);
}

#[test]
fn destroying_a_guest_ends_its_qemu_and_leaves_nothing_behind() {
    let mut world = World::calm();
    let disk = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    world.destroy(1, false, true);
    let before = world.time().as_millis();
    world.run_until(|world| world.qemus.nodes.is_empty() && world.qemus.guests().count() == 0);
    assert!(world.is_gone(disk));
    assert!(world.time().as_millis() - before < 1_000);
}

#[test]
fn qemu_that_fails_to_start_is_retried_and_fails_its_disks() {
    let mut world = World::calm();
    world.fail_qemus = 2;
    let disk = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.run(500);
    let failure = Reason::Qemu(QemuFailure::Exit(1));
    assert_eq!(world.phase(disk), Some(Phase::Failed(failure)));
    world.settle_well();
    assert_eq!(world.failures_of(disk), [failure, failure]);
    assert!(world.is_served(disk));
    assert!(!world.notices_of(disk).contains(&Notice::Replaced));
}

#[test]
fn connected_disk_whose_qemu_died_is_lost_for_good() {
    let mut world = World::calm();
    let lost = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    world.crash_qemu(1);
    world.settle_well();
    assert_eq!(world.phase(lost), Some(Phase::Failed(Reason::Lost)));
    assert_eq!(world.qemu_starts, 1, "for nobody");

    let next = world.create(&Spec::new(Kind::Qdisk, 1, 1, ""));
    world.settle_well();
    assert!(world.is_served(next));
    assert_eq!(world.phase(lost), Some(Phase::Failed(Reason::Lost)));
    assert_eq!(world.state(lost), Some(4), "as it was");
}

#[test]
fn lost_disk_can_be_detached_with_and_without_a_new_qemu() {
    for with_another in [false, true] {
        for restart in [false, true] {
            let mut world = World::calm();
            let lost = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
            world.settle_well();
            world.crash_qemu(1);
            world.settle_well();
            if with_another {
                world.create(&Spec::new(Kind::Qdisk, 1, 1, ""));
                world.settle_well();
            }
            if restart {
                world.restart_daemon();
                world.settle_well();
                assert_eq!(world.phase(lost), Some(Phase::Failed(Reason::Lost)));
            }
            world.detach(lost, true);
            world.settle_well();
            assert!(world.is_gone(lost));
        }
    }
}

#[test]
fn unconnected_disk_is_rewound_for_the_next_qemu() {
    let mut world = World::calm();
    let connected = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    world.hold_frontends(30_000);
    let waits = world.create(&Spec::new(Kind::Qdisk, 1, 1, ""));
    world.run(1_000);
    assert_eq!(world.state(waits), Some(2));
    world.crash_qemu(1);
    world.settle_well();
    assert_eq!(world.phase(connected), Some(Phase::Failed(Reason::Lost)));
    assert!(world.is_served(waits));
    assert_eq!(world.qemu_starts, 2);
}

#[test]
fn a_lost_share_hinders_a_new_qemu_until_it_is_gone() {
    let mut world = World::calm();
    let share = world.create(&Spec::new(Kind::P9, 1, 0, ""));
    world.settle_well();
    world.crash_qemu(1);
    world.settle_well();
    assert_eq!(world.phase(share), Some(Phase::Failed(Reason::Lost)));

    let disk = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    let hindered = Reason::Qemu(QemuFailure::LostShare);
    assert_eq!(world.phase(disk), Some(Phase::Failed(hindered)));
    assert_eq!(world.qemu_starts, 1);

    world.detach(share, true);
    world.settle_well();
    assert!(world.is_gone(share) && world.is_served(disk));
}

#[test]
fn disk_added_while_qemu_ends_is_served_by_the_next_qemu() {
    for late in 0..40 {
        let mut world = World::calm();
        let first = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
        world.settle_well();
        world.hold_frontends(1_000);
        world.destroy(1, true, true);
        world.run(late);
        let second = world.create(&Spec::new(Kind::Qdisk, 1, 1, ""));
        world.settle_well();
        assert!(world.is_gone(first) && world.is_served(second), "{late} ms later");
    }
}

#[test]
fn disk_detached_before_qemu_is_closed_by_the_daemon() {
    for after in [0, 5, 50, 90, 99, 100, 101, 102, 103, 110] {
        let mut world = World::calm();
        let disk = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
        world.run(after);
        world.detach(disk, true);
        world.settle_well();
        assert!(world.is_gone(disk), "after {after} ms");
        assert_eq!(world.removals, 1);
    }
}

#[test]
fn a_disk_that_was_there_before_the_daemon_is_served() {
    let mut world = World::calm();
    world.stop_daemon();
    let disk = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.run(1_000);
    assert_eq!(world.state(disk), Some(1));
    world.start_daemon();
    world.settle_well();
    assert!(world.is_served(disk));
}

#[test]
fn a_restart_keeps_the_qemu_that_runs() {
    let mut world = World::calm();
    let first = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    world.restart_daemon();
    world.settle_well();
    let second = world.create(&Spec::new(Kind::Qdisk, 1, 1, ""));
    world.settle_well();
    assert!(world.is_served(first) && world.is_served(second));
    assert_eq!(world.qemu_starts, 1);
    for key in [first, second] {
        world.detach(key, true);
    }
    world.settle_well();
    assert_eq!(world.qemus.guests().count(), 0);
}

#[test]
fn a_qemu_whose_guest_went_while_no_daemon_ran_is_ended() {
    let mut world = World::calm();
    world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    world.stop_daemon();
    world.destroy(1, true, false);
    world.run(20_000);
    world.start_daemon();
    world.settle_well();
    assert_eq!(world.qemus.guests().count(), 0);
    assert!(world.qemus.nodes.is_empty());
}

#[test]
fn a_qemu_that_died_while_no_daemon_ran_has_lost_its_disk() {
    let mut world = World::calm();
    let disk = world.create(&Spec::new(Kind::Qdisk, 1, 0, ""));
    world.settle_well();
    world.stop_daemon();
    world.crash_qemu(1);
    world.start_daemon();
    world.settle_well();
    assert_eq!(world.phase(disk), Some(Phase::Failed(Reason::Lost)));
}
