//! Random worlds: whatever comes, in whatever order, what must not happen does not.

mod world;

use std::env;

use world::storm::storm;

/// Steps of one world. A new one starts from nothing: failures are found and told sooner.
const STEPS_OF_A_WORLD: u64 = 3_000;

/// `DEVD_WORLD_STEPS` says how many steps to take in all, `DEVD_WORLD_SEED` which one world to
/// take them in.
#[test]
fn whatever_happens_every_device_is_served_once_and_taken_away_once() {
    if let Some(seed) = number("DEVD_WORLD_SEED") {
        weather(seed);
        return;
    }
    let steps = number("DEVD_WORLD_STEPS").unwrap_or(200_000);
    let (mut taken, mut seed) = (0, 0);
    while taken < steps {
        taken += weather(seed);
        seed += 1;
    }
    println!("{taken} steps in {seed} worlds");
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
