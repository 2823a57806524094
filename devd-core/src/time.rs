//! Points in time.

use core::time::Duration;

/// A point in time: milliseconds since any fixed moment, on a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The point this many milliseconds after the fixed moment.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the fixed moment.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The point so much later; a part of a millisecond counts as a whole one, so that a
    /// deadline never comes early.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}
