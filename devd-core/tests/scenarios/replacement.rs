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
fn device_replaced_within_one_event_is_removed_then_served() {
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
fn vanished_open_device_is_cleaned_up_before_its_successor() {
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
fn device_created_during_the_removal_is_kept() {
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
fn hook_running_at_a_replacement_does_not_serve_the_successor() {
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
fn mark_of_a_replaced_devices_hook_does_not_count_for_successor() {
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
fn successor_of_a_queued_device_runs_its_own_script() {
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
fn device_with_a_failed_hook_is_replaced_and_then_served() {
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
fn removal_and_arrival_at_once_do_not_interfere() {
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
fn retry_tells_failures_and_the_time_of_the_next_try() {
    let mut world = World::calm();
    let key = world.create(&Spec::new(Kind::Vbd, 1, 0, "fails"));
    let retry = |world: &World| world.daemon.dispatcher.as_ref()?.retry(key);
    for failures in 1..4 {
        world.run_until(|world| retry(world).is_some_and(|retry| retry.failures == failures));
        assert!(retry(&world).unwrap().next.is_some());
        world.run_until(|world| retry(world).is_none());
    }
}
