//! How often an interface is checked and put right, so that neither events without an end nor
//! somebody who undoes each repair makes the daemon spin.

use std::time::Duration;

use devd_core::Time;

/// Events of an interface that was checked so lately wait until then.
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);
/// A repair that was needed again within this time did not hold.
const HOLDS: Duration = Duration::from_secs(5);
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// When an interface may be checked next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    last_check: Option<Time>,
    /// When a check last found a change.
    last_change: Option<Time>,
    /// How long to wait after that.
    wait: Duration,
}

impl Pace {
    /// When to check after an event that has come now.
    pub(super) fn after_event(&self, now: Time) -> Time {
        let checked = self.last_check.map_or(now, |last| last.after(BETWEEN_CHECKS));
        let changed = self.last_change.map_or(now, |last| last.after(self.wait));
        now.max(checked).max(changed)
    }

    /// A check has ended and found nothing to tell.
    pub(super) const fn handle_quiet(&mut self, now: Time) {
        self.last_check = Some(now);
    }

    /// A check has ended and found a change. How long the next one waits at least: not at all, if
    /// the repair before has held.
    pub(super) fn handle_change(&mut self, now: Time) -> Duration {
        let since = |last: Time| now.as_millis().saturating_sub(last.as_millis());
        let holds = HOLDS.max(self.wait * 2).as_millis();
        let undone = self.last_change.is_some_and(|last| u128::from(since(last)) <= holds);
        self.wait = match (undone, self.wait) {
            (false, _) => Duration::ZERO,
            (true, Duration::ZERO) => WAIT_FIRST,
            (true, wait) => (wait * 2).min(WAIT_MAX),
        };
        (self.last_check, self.last_change) = (Some(now), Some(now));
        self.wait
    }
}

/// The waits between tries of what cannot be put right.
pub(super) fn next_wait(wait: Duration) -> Duration {
    (wait * 2).clamp(WAIT_FIRST, WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn first_event_is_answered_at_once_and_a_burst_is_not() {
        let mut pace = Pace::default();
        assert_eq!(pace.after_event(at(5)), at(5));
        pace.handle_quiet(at(10));
        assert_eq!(pace.after_event(at(11)), at(110));
        assert_eq!(pace.after_event(at(500)), at(500));
    }

    #[test]
    fn repair_that_somebody_undoes_waits_ever_longer() {
        let mut pace = Pace::default();
        let mut now = at(1000);
        assert_eq!(pace.handle_change(now), Duration::ZERO);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            now = pace.after_event(now.after(Duration::from_millis(1)));
            assert_eq!(pace.handle_change(now), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn repair_that_held_is_followed_by_one_at_once() {
        let mut pace = Pace::default();
        assert_eq!(pace.handle_change(at(0)), Duration::ZERO);
        assert_eq!(pace.handle_change(at(100)), WAIT_FIRST);
        assert_eq!(pace.handle_change(at(6000)), Duration::ZERO);
        assert_eq!(pace.after_event(at(6200)), at(6200));
    }
}
