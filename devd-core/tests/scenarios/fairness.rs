//! A guest at its worst: its hooks run as often as it likes, and other guests do not wait for it.

use devd_core::{Kind, Notice, Phase, Run, Settings};

use crate::world::{Spec, World};

fn adds(hooks: &[&str]) -> usize {
    hooks.iter().filter(|hook| **hook == "add").count()
}

#[test]
fn guest_that_reconnects_all_the_time_gets_ever_fewer_hooks() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.settle_well();
    for _ in 0..6_000 {
        world.rebirth(vif);
        world.run(10);
    }
    // At once twice, then after 1, 2, 4, 8, 16 and 32 s; if all that is over by then.
    let hooks = world.hooks_of(vif);
    assert!((6..=8).contains(&adds(&hooks)), "{hooks:?}");
    assert!(hooks.len() <= 2 * adds(&hooks), "{hooks:?}");
    let waits = |notice: &&Notice| matches!(notice, Notice::HookWaits { .. });
    let notices = world.notices_of(vif);
    assert!(notices.iter().filter(waits).count() <= adds(&hooks), "each wait is told once");
    world.settle_well();
    assert!(world.is_served(vif));
}

#[test]
fn guest_that_reconnects_now_and_then_waits_for_nothing() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.settle_well();
    // Once at any time; each ten seconds for a minute; each five minutes for ever.
    for pause in [0, 10_000, 10_000, 10_000, 300_000, 10_000, 300_000, 0] {
        world.run(pause);
        world.rebirth(vif);
        world.run(200);
        assert!(world.is_served(vif), "{:?}", world.hooks_of(vif));
    }
    let waits = |notice: &Notice| matches!(notice, Notice::HookWaits { .. });
    assert!(!world.notices_of(vif).iter().any(waits));
}

#[test]
fn device_that_goes_while_its_hook_waits_goes_at_once() {
    let mut world = World::calm();
    let vif = world.create(&Spec::new(Kind::Vif, 1, 0, "works"));
    world.settle_well();
    // Runs of long ago are forgotten.
    for _ in 0..3 {
        world.rebirth(vif);
        world.run(200);
    }
    assert_eq!(world.phase(vif), Some(Phase::Attaching(Run::Queued)));
    let hooks = world.hooks_of(vif);
    world.detach(vif, true);
    world.run(500);
    assert!(world.is_gone(vif));
    assert_eq!(world.hooks_of(vif), hooks, "its work was undone already");
    world.settle_well();
}

#[test]
fn guest_with_many_devices_delays_another_by_one_run() {
    for max_hooks in [1, 2, 16] {
        let mut world = World::calm_with(Settings { max_hooks, ..Settings::default() });
        for devid in 0..40 {
            world.create(&Spec::new(Kind::Vif, 1, devid, "works"));
        }
        world.run_until(|world| world.hooks.running().count() > 0);
        world.run(10);
        let other = world.create(&Spec::new(Kind::Vif, 2, 0, "works"));
        world.run_until(|world| {
            world.phase(other) == Some(Phase::Attaching(Run::Queued))
                || !world.hooks_of(other).is_empty()
        });
        let before = world.history.len();
        world.run_until(|world| !world.hooks_of(other).is_empty());
        let ahead = world.history.len() - before;
        assert!(ahead <= 1, "{ahead} hooks were started before it with {max_hooks} places");
        world.settle_well();
    }
}

#[test]
fn removal_hooks_run_while_a_guest_reconnects_all_the_time() {
    for max_hooks in [1, 2] {
        let mut world = World::calm_with(Settings { max_hooks, ..Settings::default() });
        let vifs = [0, 1, 2, 3].map(|devid| world.create(&Spec::new(Kind::Vif, 1, devid, "works")));
        let own = world.create(&Spec::new(Kind::Vbd, 1, 0, "works"));
        let other = world.create(&Spec::new(Kind::Vbd, 2, 0, "works"));
        world.settle_well();
        for step in 0..500 {
            vifs.iter().for_each(|vif| world.rebirth(*vif));
            if step == 100 {
                world.detach(own, true);
                world.detach(other, true);
            }
            world.run(10);
        }
        assert!(world.is_gone(own) && world.is_gone(other));
        assert_eq!(
            (world.hooks_of(own), world.hooks_of(other)),
            (vec!["add", "remove"], vec!["add", "remove"])
        );
        world.settle_well();
    }
}
