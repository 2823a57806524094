//! The order in which things are taken: one that no cache and no branch predictor foresees.

/// Random numbers, the same at every run: xorshift.
#[derive(Clone, Debug)]
pub struct Shuffled(u64);

impl Shuffled {
    /// The numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next one below `limit`.
    #[inline]
    pub const fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[allow(clippy::cast_possible_truncation)] // It is below `limit`.
        return (((self.0 >> 32) * limit as u64) >> 32) as u32;
    }

    /// One of the items.
    #[inline]
    pub fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let limit = u32::try_from(items.len()).unwrap_or(u32::MAX);
        &items[self.below(limit) as usize]
    }
}
