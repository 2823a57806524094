//! The state of a dispatcher as a search of all states sees it: two dispatchers with the same
//! fingerprint do the same from now on.

use core::hash::{Hash, Hasher};
use core::time::Duration;

use crate::device::Device;
use crate::dispatcher::Dispatcher;
use crate::{Action, Notice, Settings, Time};

impl Dispatcher {
    /// Feeds all that decides what the dispatcher does from now on. Points in time are fed as
    /// what is left until then, or has passed since, so that the same state at another time is the
    /// same. Counts of failures are fed up to the number from which on the wait does not grow.
    pub fn fingerprint(&self, now: Time, state: &mut impl Hasher) {
        let mut devices: alloc::vec::Vec<&Device> =
            self.registry.devices().map(|(_, device)| device).collect();
        devices.sort_unstable_by_key(|device| device.key);
        devices.len().hash(state);
        for device in devices {
            self.fingerprint_device(device, now, state);
        }
        let mut guests: alloc::vec::Vec<_> = self.registry.all_guests().collect();
        guests.sort_unstable_by_key(|guest| guest.domid);
        guests.len().hash(state);
        for guest in guests {
            (guest.domid, guest.qemu, guest.hooks).hash(state);
            let (failures, timer) = guest.retry();
            self.settings.waits(self.settings.retry_first, failures).hash(state);
            left(self.timers.at(timer), now).hash(state);
            passed(Some(guest.ready_at), self.settings.retry_max, now).hash(state);
            // Actions for a guest's devices come in the order of its list.
            let index = self.registry.find_guest(guest.domid);
            for (_, device) in index.into_iter().flat_map(|guest| self.registry.devices_of(guest)) {
                device.key.hash(state);
            }
        }
        self.actions.len().hash(state);
        for action in &self.actions {
            match action {
                Action::Report(key, Notice::HookWaits { until }) => {
                    (key, left(Some(*until), now)).hash(state);
                }
                action => action.hash(state),
            }
        }
        self.queue.fingerprint(&self.registry, state);
        self.closing.hash(state);
    }

    fn fingerprint_device(&self, device: &Device, now: Time, state: &mut impl Hasher) {
        // Every field is named, so that a new one cannot be forgotten here.
        let Device {
            key,
            phase,
            observation,
            found,
            state: xenbus_state,
            online,
            hook_history,
            found_by_listing,
            adopted,
            tap,
            timed_out,
            device_gone,
            exit_unknown,
            vanished,
            late_reported,
            successor,
            hotplug,
            marked,
            unconfirmed_mark,
            pace,
            failures,
            unstarted,
            refusals,
            closed_at,
            hook,
            tried,
            script_removed,
            guest: _,
            next: _,
            previous: _,
            next_in_line: _,
            timer,
            observation_timer,
        } = device;
        (key, phase, observation, found, xenbus_state, online, hook_history, found_by_listing)
            .hash(state);
        (tap, timed_out, device_gone, exit_unknown, vanished, late_reported, hotplug, marked)
            .hash(state);
        (unconfirmed_mark, unstarted, hook, tried, script_removed, adopted, successor).hash(state);
        pace.fingerprint(now, &self.settings, state);
        self.settings.waits(self.settings.retry_first, *failures).hash(state);
        self.settings.waits(self.settings.look_first, *refusals).hash(state);
        passed(*closed_at, self.settings.linger, now).hash(state);
        left(self.timers.at(*timer), now).hash(state);
        left(self.timers.at(*observation_timer), now).hash(state);
    }
}

impl Settings {
    /// Were there any, and the wait after the last of so many failures, and after the next.
    pub(crate) fn waits(&self, first: Duration, failures: u8) -> (bool, Duration, Duration) {
        let next = failures.saturating_add(1);
        (failures > 0, self.back_off(first, failures), self.back_off(first, next))
    }
}

fn left(at: Option<Time>, now: Time) -> Option<u64> {
    at.map(|at| at.as_millis().saturating_sub(now.as_millis()))
}

/// The time since then, which matters up to a certain time only.
pub(crate) fn passed(at: Option<Time>, most: Duration, now: Time) -> Option<u64> {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    at.map(|at| now.as_millis().saturating_sub(at.as_millis()).min(most))
}
