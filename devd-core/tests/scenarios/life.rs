//! The life of a device that nothing goes wrong with, kind by kind.

use devd_core::{Kind, Notice, Phase, Settings};

use crate::world::{Spec, World};

#[test]
fn vif_in_state_2_gets_its_hook_and_connects() {
    let mut world = World::calm();
    world.hold_backends(500);
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.run(400);
    assert!(world.hooks_of(vif).is_empty(), "in state 1 there is no interface yet");
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add"]);
    assert!(world.is_served(vif));
    assert_eq!(world.notices_of(vif), [Notice::Found, Notice::Attached]);
}

#[test]
fn a_disk_gets_its_hook_in_state_2_and_is_connected() {
    for kind in [Kind::Vbd, Kind::Vbd3] {
        let mut world = World::calm();
        let disk = world.create(&Spec::new(kind, 1, 51712, "works"));
        world.settle_well();
        assert_eq!(world.hooks_of(disk), ["add"]);
        assert!(world.is_served(disk));
    }
}

#[test]
fn detached_device_gets_its_removal_hook_and_is_removed() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        world.detach(key, true);
        world.settle_well();
        assert_eq!(world.hooks_of(key), ["add", "remove"]);
        assert!(world.is_gone(key));
        assert_eq!(world.removals, 1, "by the daemon, not by the toolstack");
        assert_eq!(
            world.notices_of(key),
            [Notice::Found, Notice::Attached, Notice::Closed, Notice::Gone]
        );
    }
}

#[test]
fn closed_directory_lingers_for_the_toolstack() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.settle_well();
    world.detach(vif, true);
    world.run_until(|world| world.state(vif) == Some(6));
    let closed = world.time().as_millis();
    world.run_until(|world| world.state(vif).is_none());
    let stayed = world.time().as_millis() - closed;
    let linger = Settings::default().linger.as_millis();
    assert!((linger..linger + 50).contains(&u128::from(stayed)), "{stayed} ms");
}

#[test]
fn linger_runs_during_the_removal_hook() {
    let mut world = World::calm();
    let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, "works+hangs"));
    world.settle_well();
    world.detach(vbd, true);
    world.run_until(|world| world.hooks_of(vbd).len() == 2);
    world.run_until(|world| world.hooks.of(vbd).is_none());
    world.run(100);
    assert!(world.is_gone(vbd));
}

#[test]
fn a_guest_that_is_initialised_again_keeps_everything() {
    for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        let before = world.hooks_of(key);
        world.kexec(key);
        world.run_until(|world| world.state(key) == Some(6));
        world.settle_well();
        assert_eq!(world.hooks_of(key), before);
        assert!(world.is_served(key));
        assert_eq!(world.removals, 0);
    }
}

#[test]
fn an_interface_that_netback_has_made_anew_gets_its_hook_again() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.settle_well();
    world.rebirth(vif);
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add", "remove", "add"]);
    assert!(world.is_served(vif));
}

#[test]
fn crashed_guests_devices_go_without_online_0() {
    for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk, Kind::P9, Kind::Vkbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        world.destroy(1, false, true);
        world.settle_well();
        assert!(world.is_gone(key), "{key}");
        assert_eq!(world.removals, 1);
    }
}

#[test]
fn a_directory_that_vanishes_is_a_device_that_was_removed() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        world.delete(key);
        world.settle_well();
        assert_eq!(world.hooks_of(key), ["add", "remove"]);
        assert!(world.is_gone(key));
    }
}

#[test]
fn device_late_to_state_2_is_reported_and_gets_its_hook() {
    let mut world = World::calm();
    world.hold_backends(60_000);
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.run(59_000);
    assert_eq!(world.notices_of(vif), [Notice::Found, Notice::Slow]);
    assert_eq!(world.phase(vif), Some(Phase::Waiting));
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add"]);
    assert!(world.is_served(vif));
}

#[test]
fn a_device_that_its_backend_has_given_up_is_reported_once() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let mut world = World::calm();
        world.hold_backends(60_000);
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.give_up(key);
        world.run(50_000);
        assert_eq!(world.notices_of(key), [Notice::Found, Notice::Slow]);
        assert_eq!(world.phase(key), Some(Phase::Waiting));
        world.delete(key);
        world.settle_well();
        assert!(world.is_gone(key));
    }
}

#[test]
fn an_emulated_interface_gets_a_second_pass_both_ways() {
    let mut world = World::calm();
    let mut spec = Spec::new(Kind::Vif, 1, 0, "works");
    spec.vif_type = Some("vif_ioemu");
    let vif = world.create(&spec);
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add", "add tap"]);
    world.detach(vif, true);
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add", "add tap", "remove", "remove tap"]);
}

#[test]
fn of_what_others_serve_only_the_directory_is_removed() {
    for kind in [Kind::Vfb, Kind::Vkbd, Kind::Console, Kind::Pci, Kind::VirtioDisk] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        assert_eq!(world.phase(key), Some(Phase::Attached));
        world.detach(key, true);
        world.settle_well();
        assert!(world.history.is_empty());
        assert_eq!((world.removals, world.qemu_starts), (1, 0));
        assert!(world.is_gone(key));
    }
}

#[test]
fn lost_events_are_made_up_for_by_looking_at_everything() {
    let mut world = World::calm();
    let stays = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    let goes = world.create(&Spec::new(Kind::Vbd, 2, 0, "works"));
    world.settle_well();
    world.detach(goes, true);
    let comes = world.create(&Spec::new(Kind::Vif, 3, 0, "works"));
    for _ in 0..40 {
        world.lose_events();
        world.run(10);
    }
    world.settle_well();
    assert_eq!(world.hooks_of(stays), ["add"]);
    assert_eq!(world.hooks_of(goes), ["add", "remove"]);
    assert_eq!(world.hooks_of(comes), ["add"]);
}

#[test]
fn twenty_thousand_events_of_one_device_leave_nothing_behind() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.settle_well();
    for _ in 0..20_000 {
        world.fire(format!("{vif}/state"));
        world.run(1);
    }
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add"]);
    assert_eq!(world.known_devices(), 1);
}
