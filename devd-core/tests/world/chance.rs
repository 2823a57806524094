//! Where decisions come from: delays and mishaps.

use std::ops::RangeInclusive;

/// Something that goes wrong by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mishap {
    /// The store refuses a request.
    Refusal,
    /// A hook cannot be started for want of memory, or fails.
    Hook,
    /// A QEMU does not start, or ends.
    Qemu,
    /// An event comes twice.
    Repeat,
}

/// The source of decisions.
#[derive(Clone, Debug)]
enum Source {
    /// Everything takes the shortest time, and nothing goes wrong: what a scenario wants.
    Calm,
    /// Anything may happen, the same for the same seed.
    Seeded(u64),
    /// Each decision is one of a few, and whoever asks tries them all.
    Enumerated(Choices),
}

/// The decisions of one step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    /// Those that are to be taken; further ones are the first of what there is.
    wanted: Vec<u8>,
    /// Those that were taken, and of how many.
    taken: Vec<(u8, u8)>,
    /// How often the store may refuse, and hooks and QEMUs may fail.
    refusals: u8,
    hook_failures: u8,
    qemu_failures: u8,
}

impl Choices {
    /// So often the store may refuse a request, a hook may fail and a QEMU may.
    pub(crate) fn new(refusals: u8, hook_failures: u8, qemu_failures: u8) -> Self {
        Self { refusals, hook_failures, qemu_failures, ..Self::default() }
    }

    fn choose(&mut self, options: u8) -> u8 {
        let choice = self.wanted.get(self.taken.len()).copied().unwrap_or(0);
        self.taken.push((choice, options));
        choice
    }

    fn budget(&mut self, mishap: Mishap) -> Option<&mut u8> {
        match mishap {
            Mishap::Refusal => Some(&mut self.refusals),
            Mishap::Hook => Some(&mut self.hook_failures),
            Mishap::Qemu => Some(&mut self.qemu_failures),
            Mishap::Repeat => None,
        }
    }
}

/// Decides.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    source: Source,
    /// Do things go wrong by themselves?
    pub(crate) mishaps: bool,
}

impl Chance {
    pub(crate) fn calm() -> Self {
        Self { source: Source::Calm, mishaps: false }
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self { source: Source::Seeded(seed), mishaps: true }
    }

    pub(crate) fn enumerated(choices: Choices) -> Self {
        Self { source: Source::Enumerated(choices), mishaps: true }
    }

    /// Are all decisions to be tried? Then nothing is put down for later that can happen at any
    /// time: whoever searches says what happens next.
    pub(crate) fn is_enumerated(&self) -> bool {
        matches!(self.source, Source::Enumerated(_))
    }

    /// A number in the range; the first one unless seeded.
    pub(crate) fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = (*range.start(), *range.end());
        match &mut self.source {
            Source::Calm | Source::Enumerated(_) => first,
            Source::Seeded(state) => first + split_mix(state) % (last - first + 1),
        }
    }

    /// Now and then yes; never unless seeded.
    pub(crate) fn one_in(&mut self, often: u64) -> bool {
        matches!(self.source, Source::Seeded(_)) && self.number(1..=often) == 1
    }

    /// Now and then yes, or both when all decisions are tried.
    pub(crate) fn fork(&mut self, often: u64) -> bool {
        match &mut self.source {
            Source::Enumerated(choices) => choices.choose(2) == 1,
            Source::Calm | Source::Seeded(_) => self.one_in(often),
        }
    }

    /// Does something go wrong now, as it does so often?
    pub(crate) fn mishap(&mut self, mishap: Mishap, often: u64) -> bool {
        match self.source {
            Source::Enumerated(_) => self.one_of(mishap, 1) != 0,
            Source::Calm | Source::Seeded(_) => self.mishaps && self.one_in(often),
        }
    }

    /// Which of so many mishaps happens, if all decisions are tried; 0 for none.
    pub(crate) fn one_of(&mut self, mishap: Mishap, kinds: u8) -> u8 {
        let Source::Enumerated(choices) = &mut self.source else { return 0 };
        match choices.budget(mishap) {
            Some(left) if self.mishaps && *left > 0 => {}
            _ => return 0,
        }
        let choice = choices.choose(kinds + 1);
        if choice != 0
            && let Some(left) = choices.budget(mishap)
        {
            *left -= 1;
        }
        choice
    }

    /// One of these; the first one unless seeded.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let last = u64::try_from(of.len()).expect("a short list") - 1;
        of[usize::try_from(self.number(0..=last)).expect("below a length")]
    }

    /// Begins a step whose first decisions are these.
    pub(crate) fn begin(&mut self, wanted: &[u8]) {
        if let Source::Enumerated(choices) = &mut self.source {
            choices.wanted = wanted.to_vec();
            choices.taken.clear();
        }
    }

    /// The decisions of a step after this one; `None` if all were tried.
    pub(crate) fn next_decisions(&self) -> Option<Vec<u8>> {
        let Source::Enumerated(choices) = &self.source else { return None };
        let last = choices.taken.iter().rposition(|(choice, options)| choice + 1 < *options)?;
        let mut next: Vec<u8> = choices.taken[..=last].iter().map(|(choice, _)| *choice).collect();
        next[last] += 1;
        Some(next)
    }

    /// How much may still go wrong.
    pub(crate) fn left(&self) -> [u8; 3] {
        match &self.source {
            Source::Enumerated(choices) if self.mishaps => {
                [choices.refusals, choices.hook_failures, choices.qemu_failures]
            }
            Source::Calm | Source::Seeded(_) | Source::Enumerated(_) => [0; 3],
        }
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
