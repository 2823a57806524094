//! The daemon is started again: that changes nothing, whatever was under way.

use devd_core::{DeviceKey, Kind, Notice, Settings};

use crate::world::{Spec, World};

/// A device on its way up or down, at the moment it comes to this state.
fn in_state(kind: Kind, state: u8) -> (World, DeviceKey) {
    let mut world = World::calm();
    let key = world.create(&Spec::new(kind, 1, 0, "works"));
    if state >= 5 {
        world.settle_well();
        world.detach(key, true);
    }
    world.run_until(|world| world.state(key) == Some(state));
    (world, key)
}

#[test]
fn a_restart_in_any_state_runs_each_hook_once() {
    for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk, Kind::P9, Kind::Vkbd] {
        for state in [1, 2, 4, 5, 6] {
            let (mut world, key) = in_state(kind, state);
            world.restart_daemon();
            world.settle_well();
            if state < 5 {
                assert!(world.is_served(key) || kind == Kind::Vkbd, "{kind:?} in state {state}");
                world.detach(key, true);
                world.settle_well();
            }
            assert!(world.is_gone(key), "{kind:?} in state {state}");
            assert_eq!(world.removals, 1);
            let hooks = world.hooks_of(key);
            let expected: &[&str] = match kind {
                Kind::Vif | Kind::Vbd => &["add", "remove"],
                _ => &[],
            };
            assert_eq!(hooks, expected, "{kind:?} in state {state}");
        }
    }
}

#[test]
fn restart_in_state_3_runs_the_hook_as_in_state_2() {
    let (mut world, key) = in_state(Kind::Vbd, 1);
    world.stop_daemon();
    world.run(100);
    world.hold_backends(2_000);
    world.store.set_state(key, 3);
    world.start_daemon();
    world.run(200);
    assert_eq!(world.hooks_of(key), ["add"]);
    world.store.set_state(key, 2);
    world.settle_well();
    assert!(world.is_served(key));
}

#[test]
fn a_served_device_is_adopted_and_its_removal_is_seen() {
    for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk] {
        let (mut world, key) = in_state(kind, 4);
        world.settle_well();
        world.restart_daemon();
        world.settle_well();
        assert_eq!(world.notices_of(key), [Notice::Found, Notice::Adopted]);
        world.detach(key, true);
        world.settle_well();
        assert!(world.is_gone(key));
    }
}

#[test]
fn a_hook_that_runs_over_a_restart_is_found_and_not_run_again() {
    for kind in [Kind::Vif, Kind::Vbd] {
        for removal in [false, true] {
            let mut world = World::calm();
            let key = world.create(&Spec::new(kind, 1, 0, "works"));
            if removal {
                world.settle_well();
                world.detach(key, true);
            }
            let runs = if removal { 2 } else { 1 };
            world.run_until(|world| world.hooks_of(key).len() == runs);
            world.restart_daemon();
            world.settle_well();
            assert_eq!(world.hooks_of(key).len(), runs, "{kind:?} {removal}");
            assert_eq!(world.is_gone(key), removal);
        }
    }
}

#[test]
fn a_hook_that_hangs_over_a_restart_is_ended_and_tried_again() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "deaf-1"));
    world.run(30_000);
    world.restart_daemon();
    world.run(20_000);
    assert!(world.hooks.of(vif).is_some(), "it has its time anew");
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add", "add"]);
    assert!(world.is_served(vif));
}

#[test]
fn device_that_closes_during_an_adopted_hook_is_removed() {
    for script in ["works", "hangs", "deaf"] {
        let mut world = World::calm();
        let vbd = world.create(&Spec::new(Kind::Vbd, 1, 0, script));
        world.run_until(|world| world.hooks.of(vbd).is_some());
        world.stop_daemon();
        world.detach(vbd, true);
        world.run(5);
        world.start_daemon();
        world.settle_well();
        assert_eq!(world.hooks_of(vbd), ["add", "remove"], "{script}");
        assert!(world.is_gone(vbd));
    }
}

#[test]
fn the_second_pass_runs_although_the_first_ended_unseen() {
    let mut world = World::calm();
    let mut spec = Spec::new(Kind::Vif, 1, 0, "works");
    spec.vif_type = Some("vif_ioemu");
    let vif = world.create(&spec);
    world.run_until(|world| world.hooks.of(vif).is_some());
    world.restart_daemon();
    world.settle_well();
    assert_eq!(world.hooks_of(vif), ["add", "add tap"]);
}

#[test]
fn restart_at_any_moment_serves_once_and_leaves_nothing() {
    for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk] {
        for moment in 0..600 {
            let mut world = World::calm();
            let key = world.create(&Spec::new(kind, 1, 0, "works"));
            let detached = 250;
            if moment < detached {
                world.run(moment);
                world.restart_daemon();
                world.run(detached - moment);
            } else {
                world.run(detached);
            }
            world.detach(key, true);
            if moment >= detached {
                world.run(moment - detached);
                world.restart_daemon();
            }
            world.settle_well();
            assert!(world.is_gone(key));
            let adds = world.hooks_of(key).iter().filter(|hook| **hook == "add").count();
            let removals = world.hooks_of(key).len() - adds;
            let hooked = usize::from(kind != Kind::Qdisk);
            assert_eq!(adds, hooked, "{kind:?} after {moment} ms");
            // A network hook that has run leaves no mark; doing it twice does no harm.
            let most = if kind == Kind::Vif { 2 } else { hooked };
            assert!((hooked..=most).contains(&removals), "{kind:?} after {moment} ms: {removals}");
        }
    }
}

#[test]
fn found_hooks_that_hang_take_no_place_from_others() {
    let mut world = World::calm_with(Settings { max_hooks: 2, ..Settings::default() });
    let hanging = [0, 1].map(|devid| world.create(&Spec::new(Kind::Vif, 1, devid, "deaf")));
    world.run(200);
    world.restart_daemon();
    let others = [2, 3].map(|guest| world.create(&Spec::new(Kind::Vif, guest, 0, "works")));
    world.run(200);
    assert!(hanging.iter().all(|key| world.hooks.of(*key).is_some()));
    assert!(others.iter().all(|key| world.is_served(*key)));
    // Nor is a place lost, or won, when the found hooks end.
    world.settle_well();
    let last = world.create(&Spec::new(Kind::Vif, 1, 4, "works"));
    world.settle_well();
    assert!(world.is_served(last));
}

#[test]
fn second_pass_of_a_found_hook_waits_for_a_place() {
    let mut world = World::calm_with(Settings { max_hooks: 1, ..Settings::default() });
    let mut spec = Spec::new(Kind::Vif, 1, 0, "works");
    spec.vif_type = Some("vif_ioemu");
    let emulated = world.create(&spec);
    world.run_until(|world| world.hooks.of(emulated).is_some());
    world.restart_daemon();
    world.create(&Spec::new(Kind::Vif, 1, 1, "deaf"));
    world.settle_well();
    assert!(world.is_served(emulated));
    assert_eq!(world.hooks_of(emulated), ["add", "add tap"]);
}
