//! The dispatcher's clock.

use std::time::Instant;

use devd_core::Time;

/// How long something that began then has taken, in microseconds.
pub(crate) fn micros_since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since the daemon began, on a clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Time {
        // A u64 holds the milliseconds of half a billion years.
        Time::from_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
