//! The clock by which a client gives up a silent store.

use core::time::Duration;

/// A clock that never goes back.
pub trait Clock: Send {
    /// The time since a moment that stays the same for this clock.
    fn now(&self) -> Duration;
}

/// The operating system's clock.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(std::time::Instant);

#[cfg(feature = "std")]
impl SystemClock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }
}

#[cfg(feature = "std")]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
