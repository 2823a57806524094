//! What is left to chance: delays and mishaps, all from one seed.

use std::ops::RangeInclusive;

/// Calm, everything takes the shortest time it can and nothing goes wrong by itself: what a
/// scenario wants. Seeded, anything may happen, the same for the same seed.
#[derive(Debug)]
pub(crate) struct Chance {
    seeded: Option<u64>,
    /// Do things go wrong by themselves?
    pub(crate) mishaps: bool,
}

impl Chance {
    pub(crate) fn calm() -> Self {
        Self { seeded: None, mishaps: false }
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self { seeded: Some(seed), mishaps: true }
    }

    /// A number in the range; the first one when calm.
    pub(crate) fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = (*range.start(), *range.end());
        match &mut self.seeded {
            None => first,
            Some(state) => first + split_mix(state) % (last - first + 1),
        }
    }

    /// Now and then yes; never when calm.
    pub(crate) fn one_in(&mut self, often: u64) -> bool {
        self.seeded.is_some() && self.number(1..=often) == 1
    }

    /// Does something go wrong now, as it does so often?
    pub(crate) fn mishap(&mut self, often: u64) -> bool {
        self.mishaps && self.one_in(often)
    }

    /// One of these; the first one when calm.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let last = u64::try_from(of.len()).expect("a short list") - 1;
        of[usize::try_from(self.number(0..=last)).expect("below a length")]
    }
}

/// The generator of Steele, Lea and Flood: any seed is a good one.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
