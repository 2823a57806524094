//! Time, and what is to happen in it.

use std::collections::BTreeMap;

/// What will happen, in the order of its time; what has the same time, in the order it was
/// put down.
#[derive(Clone, Debug)]
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

    /// All that is to happen, in its order.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = &T> {
        self.ahead.values()
    }

    /// Takes one of what is to happen, which happens now.
    pub(crate) fn take(&mut self, nth: usize) -> Option<T> {
        let key = *self.ahead.keys().nth(nth)?;
        self.ahead.remove(&key)
    }

    /// Forgets what does not matter any more.
    pub(crate) fn retain(&mut self, matters: impl Fn(&T) -> bool) {
        self.ahead.retain(|_, happening| matters(happening));
    }

    /// Lets time pass until then.
    pub(crate) fn pass(&mut self, until: u64) {
        self.now = self.now.max(until);
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
