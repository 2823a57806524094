//! How often a device's add hook may run.
//!
//! A guest can make its interface be made anew, and so the hook run again, as often as it likes:
//! netback removes `hotplug-status` when the frontend reconnects. The first time the hook runs at
//! once, as a guest that has just started another kernel needs it. From then on the wait grows.

use core::hash::{Hash, Hasher};

use crate::fingerprint::passed;
use crate::{Settings, Time};

/// The runs of a device's add hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Runs in quick succession. The tries of a failed run count as one run, because each try has a
    /// back-off already.
    runs: u8,
    /// When the last began.
    last: Time,
}

impl Pace {
    /// The hook has never run.
    pub(crate) const NONE: Self = Self { runs: 0, last: Time::from_millis(0) };

    /// The hook runs. Is it the next try of one that has failed?
    pub(crate) fn begin(&mut self, is_retry: bool, now: Time, settings: &Settings) {
        if self.is_forgotten(now, settings) {
            self.runs = 0;
        }
        if !is_retry {
            self.runs = self.runs.saturating_add(1);
        }
        self.last = now;
    }

    /// When it may run again; `None`: at once.
    pub(crate) fn next(&self, now: Time, settings: &Settings) -> Option<Time> {
        let again = self.runs.checked_sub(1).filter(|again| *again > 0)?;
        if self.is_forgotten(now, settings) {
            return None;
        }
        let wait = settings.back_off(settings.rerun_first, again);
        Some(self.last.after(wait)).filter(|at| *at > now)
    }

    /// Feeds what decides about the next runs.
    pub(crate) fn fingerprint(&self, now: Time, settings: &Settings, state: &mut impl Hasher) {
        if self.runs == 0 || self.is_forgotten(now, settings) {
            return false.hash(state);
        }
        settings.waits(settings.rerun_first, self.runs - 1).hash(state);
        passed(Some(self.last), settings.rerun_forget, now).hash(state);
    }

    fn is_forgotten(&self, now: Time, settings: &Settings) -> bool {
        self.last.after(settings.rerun_forget) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// The waits of a hook that is called for as soon as it has run, in seconds.
    fn waits(pace: &mut Pace, now: &mut u64, count: usize) -> Vec<u64> {
        let settings = Settings::default();
        (0..count)
            .map(|_| {
                let time = Time::from_millis(*now);
                let next = pace.next(time, &settings).map_or(*now, Time::as_millis);
                let wait = (next - *now) / 1000;
                *now = next;
                pace.begin(false, Time::from_millis(next), &settings);
                wait
            })
            .collect()
    }

    #[test]
    fn wait_grows_from_the_second_rerun_and_is_forgotten() {
        let (mut pace, mut now) = (Pace::NONE, 10_000);
        assert_eq!(waits(&mut pace, &mut now, 9), [0, 0, 1, 2, 4, 8, 16, 32, 60]);
        now += u64::try_from(Settings::default().rerun_forget.as_millis()).unwrap();
        assert_eq!(waits(&mut pace, &mut now, 4), [0, 0, 1, 2]);
    }

    #[test]
    fn tries_of_a_hook_that_fails_count_as_one_run() {
        let (mut pace, settings) = (Pace::NONE, Settings::default());
        for second in 0..20 {
            pace.begin(second > 0, Time::from_millis(second * 1000), &settings);
        }
        assert_eq!(pace.next(Time::from_millis(19_000), &settings), None);
    }
}
