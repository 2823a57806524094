//! Hooks that fail, hang, say nothing, or are many.

use devd_core::{HookFailure, Kind, Notice, Phase, Reason, Settings};

use crate::world::{Spec, World};

#[test]
fn a_hook_that_fails_is_tried_again_and_each_time_later() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "fails-3"));
    let mut starts = Vec::new();
    for tries in 1..=4 {
        world.run_until(|world| world.hooks_of(vif).len() == tries);
        starts.push(world.time().as_millis());
    }
    let waits: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000).collect();
    assert_eq!(waits, [1, 2, 4]);
    world.settle_well();
    assert!(world.is_served(vif));
}

#[test]
fn a_hook_that_always_fails_is_tried_once_a_minute_in_the_end() {
    let mut world = World::calm();
    let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, "fails"));
    world.run(600_000);
    let before = world.hooks_of(vbd).len();
    world.run(600_000);
    assert!((9..=10).contains(&(world.hooks_of(vbd).len() - before)));
    assert_eq!(world.phase(vbd), Some(Phase::Failed(Reason::Hook(HookFailure::Exit(1)))));
    assert_eq!(world.hotplug(vbd), Some("error"));
}

#[test]
fn a_device_whose_hook_failed_gets_its_removal_hook_once() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let mut world = World::calm();
        let key = world.create(&Spec::new(kind, 1, 0, "fails"));
        world.run(500);
        world.detach(key, true);
        world.settle_well();
        assert_eq!(world.hooks_of(key), ["add", "remove"]);
        assert!(world.is_gone(key));
    }
}

#[test]
fn a_hook_that_says_error_has_failed_although_it_exits_well() {
    let mut world = World::calm();
    let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, "reports-1"));
    world.run(500);
    assert_eq!(world.phase(vbd), Some(Phase::Failed(Reason::Hook(HookFailure::Reported))));
    world.settle_well();
    assert!(world.is_served(vbd));
}

#[test]
fn network_hook_must_write_connected_and_block_hook_need_not() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "mute"));
    let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, "mute"));
    world.run(500);
    assert_eq!(world.phase(vif), Some(Phase::Failed(Reason::Hook(HookFailure::Silent))));
    assert!(world.is_served(vbd));
    assert_eq!(world.hotplug(vbd), Some("connected"), "for a daemon that is started later");
}

#[test]
fn refused_marks_do_not_change_how_often_hooks_run() {
    let mut world = World::calm();
    world.refuse_marks = true;
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "fails-2"));
    let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, "mute"));
    world.run(10_000);
    world.lose_events();
    world.run(10_000);
    assert_eq!(world.hooks_of(vif), ["add", "add", "add"]);
    assert_eq!(world.hooks_of(vbd), ["add"]);
    assert_eq!(world.hotplug(vbd), Some(""));
    world.refuse_marks = false;
    world.settle_well();
    for key in [vif, vbd] {
        assert!(world.is_served(key));
        assert!(!world.notices_of(key).contains(&Notice::Replaced));
        world.detach(key, true);
        world.settle_well();
        assert!(world.is_gone(key));
        assert_eq!(world.hooks_of(key).iter().filter(|hook| **hook == "remove").count(), 1);
    }
}

#[test]
fn a_hook_that_hangs_is_ended_and_tried_again() {
    for script in ["hangs-1", "deaf-1"] {
        let mut world = World::calm();
        let vif = world.create(&Spec::new(Kind::Vif, 1, 0, script));
        world.run(39_000);
        assert!(world.hooks.of(vif).is_some());
        world.run_until(|world| world.hooks.of(vif).is_none());
        world.settle_well();
        assert_eq!(world.failures_of(vif), [Reason::Hook(HookFailure::TimedOut)], "{script}");
        assert_eq!(world.hooks_of(vif), ["add", "add"]);
        assert!(world.is_served(vif));
    }
}

#[test]
fn removal_hook_that_hangs_or_fails_lets_the_device_go() {
    for (script, failure) in [
        ("works+deaf", HookFailure::TimedOut),
        ("works+hangs", HookFailure::TimedOut),
        ("works+fails", HookFailure::Exit(1)),
    ] {
        let mut world = World::calm();
        let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, script));
        world.settle_well();
        world.detach(vbd, true);
        world.settle_well();
        assert_eq!(world.hooks_of(vbd), ["add", "remove"]);
        assert!(world.notices_of(vbd).contains(&Notice::RemovalHook(failure)));
        assert!(world.is_gone(vbd));
    }
}

#[test]
fn device_gone_during_a_hanging_add_hook_skips_the_timeout() {
    for vanishes in [true, false] {
        let mut world = World::calm();
        let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, "deaf"));
        world.run(1_000);
        if vanishes {
            world.delete(vbd);
        } else {
            world.detach(vbd, true);
        }
        world.run(8_000);
        assert_eq!(world.hooks_of(vbd), ["add", "remove"]);
        assert!(world.is_gone(vbd));
        world.settle_well();
    }
}

#[test]
fn missing_script_or_type_fails_the_device_until_it_is_there() {
    for (script, vif_type, reason) in [
        (None, Some("vif"), Reason::NoScript),
        (Some("works"), None, Reason::NoType),
        (None, None, Reason::NoScript),
    ] {
        let mut world = World::calm();
        let mut spec = Spec::new(Kind::Vif, 1, 0, "works");
        (spec.script, spec.vif_type) = (script.map(str::to_owned), vif_type);
        let vif = world.create(&spec);
        let other = world.create(&Spec::new(Kind::Vbd, 1, 0, "works"));
        world.settle_well();
        assert_eq!(world.phase(vif), Some(Phase::Failed(reason)));
        assert_eq!(world.failures_of(vif), [reason], "told once");
        assert!(world.is_served(other));
        world.put_right(vif, "works");
        world.settle_well();
        assert!(world.is_served(vif));
    }
}

#[test]
fn vif_closed_by_netback_without_script_fails_with_no_script() {
    let mut world = World::calm();
    world.hold_backends(1000);
    let vif = world.create(&Spec { script: None, ..Spec::new(Kind::Vif, 1, 0, "") });
    world.run(100);
    world.store.set_state(vif, 5);
    world.fire(format!("{vif}/state"));
    world.run(100);
    assert_eq!(world.failures_of(vif), [Reason::NoScript]);
    world.delete(vif);
    world.settle_well();
    assert_eq!(world.known_devices(), 0);
    assert_eq!(world.hooks_of(vif), [""; 0]);
}

#[test]
fn no_more_hooks_run_than_are_allowed_and_none_is_forgotten() {
    let settings = Settings { max_hooks: 3, ..Settings::default() };
    let mut world = World::calm_with(settings);
    let vifs: Vec<_> =
        (1..=40).map(|domid| world.create(&Spec::new(Kind::Vif, domid, 0, "works"))).collect();
    let mut most = 0;
    for _ in 0..400 {
        world.run(1);
        most = most.max(world.hooks.running().count());
    }
    assert_eq!(most, 3);
    world.settle_well();
    assert!(vifs.iter().all(|vif| world.is_served(*vif)));
}

#[test]
fn hooks_that_wait_run_in_the_order_in_which_they_came() {
    let mut world = World::calm_with(Settings { max_hooks: 1, ..Settings::default() });
    for devid in 0..10 {
        world.create(&Spec::new(Kind::Vif, 1, devid, "works"));
        world.run(10);
    }
    world.settle_well();
    let devids: Vec<u32> = world.history.iter().map(|(key, ..)| key.devid).collect();
    assert_eq!(devids, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_hook_that_hangs_keeps_nobody_else_waiting() {
    let mut world = World::calm();
    let hanging = world.create(&Spec::new(Kind::Vif, 1, 0, "deaf"));
    let other = world.create(&Spec::new(Kind::Vif, 1, 1, "works"));
    world.run(200);
    assert!(world.is_served(other));
    assert!(world.hooks.of(hanging).is_some());
    world.detach(other, true);
    world.run(500);
    assert!(world.is_gone(other));
}

#[test]
fn a_device_that_goes_before_its_turn_has_no_hook_run_at_all() {
    let mut world = World::calm_with(Settings { max_hooks: 1, ..Settings::default() });
    world.create(&Spec::new(Kind::Vif, 1, 0, "deaf"));
    world.run(100);
    let queued = world.create(&Spec::new(Kind::Vif, 1, 1, "works"));
    world.run(100);
    world.detach(queued, true);
    world.run(1_000);
    assert!(world.is_gone(queued));
    assert!(world.hooks_of(queued).is_empty());
}

#[test]
fn a_daemon_that_is_about_to_end_starts_no_more_hooks() {
    let mut world = World::calm();
    world.close_dispatcher();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    let disk = world.create(&Spec::new(Kind::Qdisk, 1, 0, "works"));
    world.run(5_000);
    assert_eq!((world.hooks_of(vif).len(), world.qemu_starts), (0, 0));
    world.restart_daemon();
    world.settle_well();
    assert!(world.is_served(vif) && world.is_served(disk));
}
