//! Two or more ways of doing one thing, measured in turn and told as ratios.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// One way: its name, and what does the thing so many times.
pub struct Way<'a> {
    name: &'a str,
    run: Box<dyn FnMut(u32) + 'a>,
    /// Nanoseconds of one time, in each round.
    took: Vec<f64>,
}

impl<'a> Way<'a> {
    /// `run` does the thing as often as it is told to.
    pub fn new(name: &'a str, run: impl FnMut(u32) + 'a) -> Self {
        Self { name, run: Box::new(run), took: Vec::new() }
    }

    fn time(&mut self, clock: ClockId, count: u32) -> Duration {
        let now = || Duration::from(clock_gettime(clock).expect("the system has this clock"));
        let start = now();
        (self.run)(count);
        now() - start
    }
}

/// Rounds in which each way has its turn: what disturbs the machine for a while disturbs all.
const ROUNDS: usize = 31;
/// How long a turn takes.
const TURN: Duration = Duration::from_millis(20);

/// The time that this thread has had of a CPU: what else runs on the machine does not count.
pub const CPU: ClockId = ClockId::CLOCK_THREAD_CPUTIME_ID;
/// The time that has passed.
pub const WALL: ClockId = ClockId::CLOCK_MONOTONIC;

/// Measures the ways in turn, by this clock; a run does `things`. Prints the median of each, and how its median compares with the
/// last one's, which is the reference; returns the medians in nanoseconds.
pub fn compare(what: &str, clock: ClockId, things: u32, mut ways: Vec<Way<'_>>) -> Vec<f64> {
    let counts: Vec<u32> = ways.iter_mut().map(|way| calibrate(way, clock)).collect();
    for _ in 0..ROUNDS {
        for (way, count) in ways.iter_mut().zip(&counts) {
            let took =
                way.time(clock, *count).as_secs_f64() * 1e9 / f64::from(*count) / f64::from(things);
            way.took.push(took);
        }
    }
    let medians: Vec<f64> = ways.iter_mut().map(|way| median(&mut way.took)).collect();
    let reference = medians.last().copied().unwrap_or(f64::NAN);
    for (way, median) in ways.iter().zip(&medians) {
        println!(
            "{what:<36} {:<28} {median:>10.1} ns  {:>9.1} k/s  {}",
            way.name,
            1e6 / median,
            ratio(*median, reference)
        );
    }
    medians
}

/// How long one thing takes as a part of how long another does: `1/15.2`, or `1.08`.
#[must_use]
pub fn ratio(ours: f64, reference: f64) -> String {
    if ours * 2.0 < reference {
        format!("1/{:.1}", reference / ours)
    } else {
        format!("{:.2}", ours / reference)
    }
}

/// How often the thing is done in a turn.
fn calibrate(way: &mut Way<'_>, clock: ClockId) -> u32 {
    let mut count = 1;
    loop {
        let took = way.time(clock, count);
        if took >= TURN / 4 || count > u32::MAX / 4 {
            let factor = TURN.as_secs_f64() / took.as_secs_f64().max(1e-9);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
            return ((f64::from(count) * factor) as u32).max(1);
        }
        count *= 2;
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
