//! How much one turn of the loop may do before it looks at epoll again.

use std::time::{Duration, Instant};

/// The most steps of a turn: events that are heard, actions that are carried out. A thousand events
/// take less than a millisecond.
pub(crate) const STEPS: u32 = 1024;
/// A turn ends after this time, whatever is left to do. Signals are heard so much later at most,
/// and asking epoll takes a thousandth of it.
pub(crate) const TIME: Duration = Duration::from_millis(10);

/// The rest of a turn.
///
/// Each kind of work has one step in each turn even if the budget is spent: events must not keep
/// actions from their turn.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u32,
    until: Instant,
}

impl Budget {
    pub(crate) fn begin() -> Self {
        Self { steps: STEPS, until: Instant::now() + TIME }
    }

    /// Takes a step. False if that was the last.
    pub(crate) fn take(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        !self.is_spent()
    }

    /// Is nothing left?
    pub(crate) fn is_spent(&self) -> bool {
        self.steps == 0 || Instant::now() >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_after_its_last_step() {
        let mut budget = Budget { steps: 3, until: Instant::now() + Duration::from_secs(3600) };
        assert_eq!([budget.take(), budget.take(), budget.take()], [true, true, false]);
        assert!(budget.is_spent());
    }

    #[test]
    fn a_turn_ends_when_its_time_is_over() {
        let mut budget = Budget { steps: 3, until: Instant::now() };
        assert!(!budget.take());
    }
}
