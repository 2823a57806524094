//! Time, and what is to happen in it.

use std::collections::BTreeMap;

/// What will happen, in the order of its time; what has the same time, in the order it was
/// put down.
#[derive(Debug)]
pub(crate) struct Clock<T> {
    now: u64,
    count: u64,
    ahead: BTreeMap<(u64, u64), T>,
}

impl<T> Clock<T> {
    pub(crate) fn new() -> Self {
        Self { now: 1_000, count: 0, ahead: BTreeMap::new() }
    }

    /// Milliseconds on the daemon's clock.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Puts down what happens so many milliseconds from now.
    pub(crate) fn after(&mut self, delay: u64, happening: T) {
        self.count += 1;
        self.ahead.insert((self.now + delay, self.count), happening);
    }

    /// Goes on to what happens next, unless that is after this time.
    pub(crate) fn advance(&mut self, until: u64) -> Option<T> {
        match self.ahead.first_entry() {
            Some(entry) if entry.key().0 <= until => {
                self.now = entry.key().0;
                Some(entry.remove())
            }
            _ => {
                self.now = self.now.max(until);
                None
            }
        }
    }
}
