//! Random worlds: whatever comes, in whatever order, what must not happen does not.

mod world;

use std::env;

use world::storm::storm;

/// Steps of one world. A new one starts from nothing: failures are found and told sooner.
const STEPS_OF_A_WORLD: u64 = 3_000;

/// `DEVD_WORLD_STEPS` says how many steps to take in all, `DEVD_WORLD_FIRST` from which world on
/// (they are numbered from 0); `DEVD_WORLD_SEED` says which one world to take, and no other.
#[test]
fn any_order_of_events_serves_and_removes_each_device_once() {
    if let Some(seed) = number("DEVD_WORLD_SEED") {
        weather(seed);
        return;
    }
    let steps = number("DEVD_WORLD_STEPS").unwrap_or(1_000_000);
    let first = number("DEVD_WORLD_FIRST").unwrap_or(0);
    let (mut taken, mut seed) = (0, first);
    while taken < steps {
        taken += weather(seed);
        seed += 1;
    }
    println!("{taken} steps in {} worlds", seed - first);
}

/// What makes a failure replayable.
#[test]
fn a_world_is_the_same_each_time_it_is_made_from_a_seed() {
    let [first, second] = [0, 1].map(|_| storm(42, STEPS_OF_A_WORLD, true).story);
    assert!(first.len() > 1_000);
    assert!(first == second);
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect(name))
}

/// One world; the steps it took.
fn weather(seed: u64) -> u64 {
    let replay = Replay(seed);
    let quick = storm(seed, STEPS_OF_A_WORLD, false);
    if quick.violation.is_some() {
        let told = storm(seed, STEPS_OF_A_WORLD, true);
        let lines = number("DEVD_WORLD_STORY").unwrap_or(300);
        let lines = usize::try_from(lines).expect("a number of lines");
        let first = told.story.len().saturating_sub(lines);
        println!("{}", told.story[first..].join("\n"));
        panic!("{}", told.violation.expect("the same as before"));
    }
    std::mem::forget(replay);
    quick.steps
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        println!("again: DEVD_WORLD_SEED={} cargo test -p devd-core --test interleavings", self.0);
    }
}
