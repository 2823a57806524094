//! A name that is used again: the device that comes is not the one that was.

use devd_core::{Kind, Notice, Phase, Settings};

use crate::world::{Spec, World};

#[test]
fn a_name_is_used_again_as_soon_as_its_device_is_gone() {
    for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk, Kind::P9] {
        let mut world = World::calm();
        for _ in 0..3 {
            let key = world.create(&Spec::new(kind, 1, 0, "works"));
            world.settle_well();
            assert!(world.is_served(key));
            world.detach(key, true);
            world.run_until(|world| world.state(key).is_none());
        }
        world.settle_well();
        assert_eq!(world.removals, 3);
    }
}

#[test]
fn a_device_replaced_within_one_event_is_removed_and_the_new_one_is_served() {
    for kind in [Kind::Vif, Kind::Vbd] {
        for unread in [0, 1, 2, 5, 20, 100] {
            let mut world = World::calm();
            let key = world.create(&Spec::new(kind, 1, 0, "works"));
            world.settle_well();
            world.hold_daemon(unread);
            world.create(&Spec::new(kind, 1, 0, "works"));
            world.settle_well();
            assert_eq!(world.hooks_of(key), ["add", "remove", "add"], "{kind:?} {unread}");
            assert!(world.is_served(key));
        }
    }
}

#[test]
fn a_directory_that_vanishes_before_it_was_seen_closed_leaves_no_ghost() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        world.delete(key);
        world.run(5);
        world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        assert_eq!(world.hooks_of(key), ["add", "remove", "add"]);
        assert!(world.is_served(key));
    }
}

#[test]
fn a_disk_of_qemu_that_is_replaced_at_once_is_served_again() {
    for kind in [Kind::Qdisk, Kind::P9] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, ""));
        world.settle_well();
        world.create(&Spec::new(kind, 1, 0, ""));
        world.settle_well();
        assert!(world.is_served(key));
        assert_eq!(world.qemus.guests().count(), 1);
    }
}

#[test]
fn a_device_that_comes_during_the_linger_is_not_removed() {
    for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk, Kind::Vkbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        world.detach(key, true);
        world.run_until(|world| world.phase(key) == Some(Phase::Lingering));
        world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        assert!(world.state(key) == Some(4), "{key}");
        assert_eq!(world.removals, 0);
    }
}

#[test]
fn a_device_that_comes_just_when_the_directory_is_to_be_removed_is_left_alone() {
    for late in 0..8 {
        let mut world = World::calm();
        let key = world.create(&Spec::new(Kind::Vbd, 1, 0, "works"));
        world.settle_well();
        world.detach(key, true);
        world.run_until(|world| world.phase(key) == Some(Phase::Lingering));
        let left = Settings::default().linger - std::time::Duration::from_millis(40);
        world.run(u64::try_from(left.as_millis()).expect("short"));
        world.run_until(|world| world.phase(key) != Some(Phase::Lingering));
        world.run(late);
        world.create(&Spec::new(Kind::Vbd, 1, 0, "works"));
        world.settle_well();
        assert_eq!(world.hooks_of(key), ["add", "remove", "add"], "{late} ms later");
        assert!(world.is_served(key));
    }
}

#[test]
fn a_hook_that_runs_when_its_device_is_replaced_is_not_the_new_ones() {
    for script in ["works", "deaf", "hangs", "fails", "mute"] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(Kind::Vbd, 1, 0, script));
        world.run_until(|world| world.hooks.of(key).is_some());
        world.create(&Spec::new(Kind::Vbd, 1, 0, "works"));
        world.settle_well();
        assert_eq!(world.hooks_of(key), ["add", "remove", "add"], "{script}");
        assert!(world.notices_of(key).contains(&Notice::Replaced));
    }
}

#[test]
fn what_a_hook_says_after_its_device_was_replaced_is_not_believed_of_the_new_one() {
    for kind in [Kind::Vif, Kind::Vbd] {
        for later in 0..200 {
            let mut world = World::calm();
            let key = world.create(&Spec::new(kind, 1, 0, "works"));
            world.run_until(|world| world.hooks.of(key).is_some());
            world.run(later);
            // The new one stays in state 1 until the old one's hooks have ended.
            world.hold_backends(60_000);
            world.hold_daemon(100);
            world.create(&Spec::new(kind, 1, 0, "works"));
            world.settle_well();
            assert_eq!(world.hooks_of(key), ["add", "remove", "add"], "{kind:?} {later} ms later");
            assert!(world.is_served(key));
        }
    }
}

#[test]
fn the_new_device_gets_its_own_script_although_the_old_one_waited_with_another() {
    let mut world = World::calm_with(Settings { max_hooks: 1, ..Settings::default() });
    world.create(&Spec::new(Kind::Vif, 1, 0, "hangs-1"));
    world.run(100);
    let key = world.create(&Spec::new(Kind::Vif, 1, 1, "fails"));
    world.run(100);
    world.create(&Spec::new(Kind::Vif, 1, 1, "works"));
    world.settle_well();
    assert_eq!(world.hooks_of(key), ["add"]);
    assert!(world.is_served(key));
}

#[test]
fn a_device_whose_hook_fails_is_replaced_by_one_whose_hook_works() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "fails"));
        world.run(5_000);
        let tries = world.hooks_of(key).len();
        world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        assert_eq!(world.hooks_of(key)[tries..], ["remove", "add"]);
        assert!(world.is_served(key));
    }
}

#[test]
fn a_devices_removal_and_anothers_coming_at_once_do_not_disturb_each_other() {
    let mut world = World::calm();
    let stays = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    let goes: Vec<_> =
        (0..8).map(|devid| world.create(&Spec::new(Kind::Vbd, 2, devid, "works"))).collect();
    world.settle_well();
    for key in &goes {
        world.detach(*key, true);
    }
    let comes: Vec<_> =
        (8..16).map(|devid| world.create(&Spec::new(Kind::Vbd, 2, devid, "works"))).collect();
    world.settle_well();
    assert!(goes.iter().all(|key| world.is_gone(*key)));
    assert!(comes.iter().all(|key| world.is_served(*key)));
    assert_eq!(world.hooks_of(stays), ["add"]);
}

#[test]
fn new_device_that_waits_for_a_removal_hook_is_told_of_once() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        world.detach(key, true);
        world.run_until(|world| world.hooks.of(key).is_some());
        let told = |world: &World| {
            let notices = world.notices_of(key).into_iter();
            notices.filter(|notice| *notice == Notice::SuccessorWaits).count()
        };
        assert_eq!(told(&world), 0, "the device itself closes");
        world.create(&Spec::new(kind, 1, 0, "works"));
        world.settle_well();
        assert_eq!(told(&world), 1, "{kind:?}");
        assert!(world.is_served(key));
        world.detach(key, true);
        world.settle_well();
        assert_eq!(told(&world), 1, "{kind:?}");
    }
}

#[test]
fn failed_device_says_how_often_it_was_tried_and_when_it_is_again() {
    let mut world = World::calm();
    let key = world.create(&Spec::new(Kind::Vbd, 1, 0, "fails"));
    let retry = |world: &World| world.daemon.dispatcher.as_ref()?.retry(key);
    for failures in 1..4 {
        world.run_until(|world| retry(world).is_some_and(|retry| retry.failures == failures));
        assert!(retry(&world).unwrap().next.is_some());
        world.run_until(|world| retry(world).is_none());
    }
}
