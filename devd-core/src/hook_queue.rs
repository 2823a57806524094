//! Hooks that wait until fewer run: guests take turns, and each guest's devices go in their order.
//!
//! A guest none of whose hooks runs goes before all others, and the last free place is for such a
//! guest only. A guest with many devices, or with one whose hook runs again and again,
//! delays another guest by one run of a hook at most, and not at all while a place is free.

use alloc::collections::VecDeque;
use core::hash::{Hash, Hasher};

use crate::Registry;
use crate::link::Link;

/// A guest's devices whose hooks wait, the first and the last; each knows the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    first: u32,
    last: u32,
}

/// The guests that wait, and the number of hooks that run.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookQueue {
    /// Guests with a line and without a hook that runs, in the order of their turns.
    idle: VecDeque<u32>,
    /// Guests with a line and with hooks that run: no more than there are such hooks.
    busy: VecDeque<u32>,
    running: usize,
}

impl HookQueue {
    /// Hooks that run.
    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    /// Puts a device at the end of its guest's line. The device is in no line.
    pub(crate) fn push(&mut self, index: u32, registry: &mut Registry) {
        let guest = registry.device(index).guest;
        registry.device_mut(index).next_in_line = Link::NONE;
        let line = registry.guest(guest).line;
        let first = line.map_or(index, |line| line.first);
        registry.guest_mut(guest).line = Some(Line { first, last: index });
        match line {
            Some(line) => registry.device_mut(line.last).next_in_line = Link::to(index),
            None if registry.guest(guest).hooks == 0 => self.idle.push_back(guest),
            None => self.busy.push_back(guest),
        }
    }

    /// Takes the device whose turn it is, if fewer hooks run than this. Its hook is to be
    /// [started](Self::started), or the guest has another turn.
    pub(crate) fn pop(&mut self, max: usize, registry: &mut Registry) -> Option<u32> {
        let guest = if self.running < max && !self.idle.is_empty() {
            self.idle.pop_front()?
        } else if self.running + 1 < max {
            self.busy.pop_front()?
        } else {
            return None;
        };
        let state = registry.guest(guest);
        let (line, idle) = (state.line?, state.hooks == 0);
        let next = registry.device(line.first).next_in_line.get();
        registry.guest_mut(guest).line = next.map(|first| Line { first, ..line });
        match next {
            Some(_) if idle => self.idle.push_front(guest),
            Some(_) => self.busy.push_back(guest),
            None => {}
        }
        Some(line.first)
    }

    /// Takes a device out of its guest's line, if it is in it.
    pub(crate) fn remove(&mut self, index: u32, registry: &mut Registry) {
        let guest = registry.device(index).guest;
        let Some(line) = registry.guest(guest).line else { return };
        let mut previous = None;
        let mut at = line.first;
        while at != index {
            previous = Some(at);
            let Some(next) = registry.device(at).next_in_line.get() else { return };
            at = next;
        }
        let next = registry.device(index).next_in_line.get();
        let line = match (previous, next) {
            (None, None) => None,
            (None, Some(next)) => Some(Line { first: next, ..line }),
            (Some(previous), None) => Some(Line { last: previous, ..line }),
            (Some(_), Some(_)) => Some(line),
        };
        if let Some(previous) = previous {
            registry.device_mut(previous).next_in_line = next.map_or(Link::NONE, Link::to);
        }
        registry.guest_mut(guest).line = line;
        if line.is_none() {
            self.idle.retain(|other| *other != guest);
            self.busy.retain(|other| *other != guest);
        }
    }

    /// A hook of this device runs.
    pub(crate) fn started(&mut self, index: u32, registry: &mut Registry) {
        let guest = registry.device(index).guest;
        self.running += 1;
        let state = registry.guest_mut(guest);
        state.hooks += 1;
        if state.hooks == 1 && state.line.is_some() {
            self.idle.retain(|other| *other != guest);
            self.busy.push_back(guest);
        }
    }

    /// A hook of this device has ended.
    pub(crate) fn ended(&mut self, index: u32, registry: &mut Registry) {
        let guest = registry.device(index).guest;
        self.running = self.running.saturating_sub(1);
        let state = registry.guest_mut(guest);
        state.hooks = state.hooks.saturating_sub(1);
        if state.hooks == 0 && state.line.is_some() {
            self.busy.retain(|other| *other != guest);
            self.idle.push_back(guest);
        }
    }

    /// Feeds the turns of guests, and the devices in the line of each.
    pub(crate) fn fingerprint(&self, registry: &Registry, state: &mut impl Hasher) {
        self.running.hash(state);
        for turns in [&self.idle, &self.busy] {
            turns.len().hash(state);
            for guest in turns {
                let guest = registry.guest(*guest);
                (guest.domid, guest.hooks).hash(state);
                let mut next = guest.line.map(|line| line.first);
                while let Some(index) = next {
                    let device = registry.device(index);
                    device.key.hash(state);
                    next = device.next_in_line.get();
                }
            }
        }
    }

    /// The guests that wait, in the order of their turns.
    #[cfg(test)]
    fn turns(&self, registry: &Registry) -> alloc::vec::Vec<crate::Domid> {
        self.idle.iter().chain(&self.busy).map(|guest| registry.guest(*guest).domid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceKey, Domid, Kind};
    use alloc::vec::Vec;

    struct Queue {
        registry: Registry,
        queue: HookQueue,
    }

    impl Queue {
        fn new() -> Self {
            Self { registry: Registry::new(), queue: HookQueue::default() }
        }

        fn index(&mut self, domid: Domid, devid: u32) -> u32 {
            self.registry.insert(DeviceKey { kind: Kind::Vif, domid, devid })
        }

        fn push(&mut self, domid: Domid, devid: u32) {
            let index = self.index(domid, devid);
            self.queue.push(index, &mut self.registry);
        }

        fn remove(&mut self, domid: Domid, devid: u32) {
            let index = self.index(domid, devid);
            self.queue.remove(index, &mut self.registry);
        }

        fn end(&mut self, domid: Domid) {
            let index = self.index(domid, 0);
            self.queue.ended(index, &mut self.registry);
        }

        /// Starts what may run.
        fn start(&mut self, max: usize) -> Vec<(Domid, u32)> {
            core::iter::from_fn(|| {
                let index = self.queue.pop(max, &mut self.registry)?;
                self.queue.started(index, &mut self.registry);
                let key = self.registry.device(index).key;
                Some((key.domid, key.devid))
            })
            .collect()
        }
    }

    #[test]
    fn guests_take_turns_and_their_devices_keep_their_order() {
        let mut queue = Queue::new();
        for devid in 0..3 {
            queue.push(1, devid);
        }
        queue.push(2, 0);
        queue.push(2, 1);
        queue.push(3, 0);
        assert_eq!(queue.start(4), [(1, 0), (2, 0), (3, 0)], "the last place is for a fourth");
        assert_eq!(queue.start(6), [(1, 1), (2, 1)]);
        queue.push(4, 0);
        assert_eq!(queue.start(6), [(4, 0)]);
        assert_eq!(queue.start(8), [(1, 2)]);
        assert_eq!(queue.queue.running(), 7);
    }

    #[test]
    fn guest_with_many_devices_delays_another_by_one_run() {
        for max in 1..=4 {
            let mut queue = Queue::new();
            for devid in 0..20 {
                queue.push(1, devid);
            }
            let running = queue.start(max).len();
            assert_eq!(running, (max - 1).max(1));
            queue.push(2, 0);
            if max == 1 {
                assert_eq!(queue.start(max), []);
                queue.end(1);
            }
            assert_eq!(queue.start(max), [(2, 0)], "of {max}");
        }
    }

    #[test]
    fn guest_that_was_served_last_goes_last() {
        let mut queue = Queue::new();
        for domid in [1, 2, 3] {
            queue.push(domid, 0);
            queue.push(domid, 1);
        }
        let mut turns = Vec::new();
        for _ in 0..6 {
            let started = queue.start(1);
            turns.extend(started.iter().map(|(domid, _)| *domid));
            queue.end(started[0].0);
        }
        assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn devices_leave_their_line_from_any_place() {
        for gone in 0..4 {
            let mut queue = Queue::new();
            (0..4).for_each(|devid| queue.push(1, devid));
            queue.remove(1, gone);
            queue.remove(1, gone);
            queue.push(1, gone);
            let mut order = Vec::new();
            while let [(_, devid)] = queue.start(1)[..] {
                order.push(devid);
                queue.end(1);
            }
            let mut rest: Vec<u32> = (0..4).filter(|devid| *devid != gone).collect();
            rest.push(gone);
            assert_eq!(order, rest);
        }
    }

    #[test]
    fn guest_without_a_line_has_no_turn() {
        let mut queue = Queue::new();
        queue.push(1, 0);
        queue.push(2, 0);
        queue.remove(1, 0);
        assert_eq!(queue.queue.turns(&queue.registry), [2]);
        queue.push(1, 0);
        assert_eq!(queue.queue.turns(&queue.registry), [2, 1]);
        assert_eq!(queue.start(9), [(2, 0), (1, 0)]);
        queue.push(1, 1);
        assert_eq!(queue.queue.turns(&queue.registry), [1]);
        queue.end(1);
        queue.remove(1, 1);
        assert_eq!(queue.queue.turns(&queue.registry), []);
    }
}
