//! Deadlines: at most two for each device, one for each guest.

use alloc::vec::Vec;

use crate::Time;
use crate::link::Link;

/// The owner of a deadline: an index into the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Device(u32),
    /// When a look at the device that the store has refused is asked for again.
    Observation(u32),
    Guest(u32),
}

/// A binary heap whose entries know their owners, and (through `place`) are known by them, so
/// that a deadline that is not wanted any more leaves at once: the heap is never larger than
/// the live devices and guests call for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(Time, Owner)>,
}

/// Told where in the heap each owner's entry has moved.
pub(crate) trait Place {
    fn slot(&mut self, owner: Owner) -> &mut Link;
}

impl Timers {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// The deadline in this place, if there is one.
    pub(crate) fn at(&self, slot: Link) -> Option<Time> {
        self.heap.get(slot.get()? as usize).map(|(at, _)| *at)
    }

    /// Sets or moves the owner's deadline.
    pub(crate) fn set(&mut self, owner: Owner, at: Time, place: &mut impl Place) {
        self.clear(owner, place);
        self.heap.push((at, owner));
        self.rise(self.heap.len() - 1, place);
    }

    /// Takes the owner's deadline away, if it has one.
    pub(crate) fn clear(&mut self, owner: Owner, place: &mut impl Place) {
        if let Some(slot) = place.slot(owner).take().get() {
            self.remove(slot as usize, place);
        }
    }

    /// Takes the owner of a deadline that has passed.
    pub(crate) fn pop(&mut self, now: Time, place: &mut impl Place) -> Option<Owner> {
        let (at, owner) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.clear(owner, place);
        Some(owner)
    }

    fn remove(&mut self, at: usize, place: &mut impl Place) {
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.rise(at, place);
            self.sink(at, place);
        }
    }

    fn rise(&mut self, mut at: usize, place: &mut impl Place) {
        while at > 0 && self.heap[at].0 < self.heap[(at - 1) / 2].0 {
            self.heap.swap(at, (at - 1) / 2);
            self.tell(at, place);
            at = (at - 1) / 2;
        }
        self.tell(at, place);
    }

    fn sink(&mut self, mut at: usize, place: &mut impl Place) {
        loop {
            let children = [2 * at + 1, 2 * at + 2];
            let existing = children.into_iter().filter(|child| *child < self.heap.len());
            match existing.min_by_key(|child| self.heap[*child].0) {
                Some(child) if self.heap[child].0 < self.heap[at].0 => {
                    self.heap.swap(at, child);
                    self.tell(at, place);
                    at = child;
                }
                _ => break,
            }
        }
        self.tell(at, place);
    }

    fn tell(&self, at: usize, place: &mut impl Place) {
        *place.slot(self.heap[at].1) = u32::try_from(at).map_or(Link::NONE, Link::to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Slots(Vec<Link>);

    impl Place for Slots {
        fn slot(&mut self, owner: Owner) -> &mut Link {
            match owner {
                Owner::Device(index) | Owner::Observation(index) | Owner::Guest(index) => {
                    &mut self.0[index as usize]
                }
            }
        }
    }

    #[test]
    fn deadlines_come_in_order_whatever_was_set_moved_and_cleared() {
        let mut slots = Slots(alloc::vec![Link::NONE; 200]);
        let mut timers = Timers::default();
        let at = |i: u32| Time::from_millis(u64::from(i * 7919 % 1000));
        for i in 0..200 {
            timers.set(Owner::Device(i), at(i), &mut slots);
        }
        for i in (0..200).step_by(3) {
            timers.clear(Owner::Device(i), &mut slots);
        }
        for i in (1..200).step_by(3) {
            timers.set(Owner::Device(i), at(i + 1000), &mut slots);
        }
        let mut last = Time::default();
        let mut seen = 0;
        while let Some(next) = timers.next() {
            assert_eq!(
                timers.pop(Time::from_millis(0).min(next), &mut slots).is_some(),
                next == Time::default()
            );
            let Some(_) = timers.pop(next, &mut slots) else { continue };
            assert!(next >= last);
            last = next;
            seen += 1;
        }
        assert!((130..=133).contains(&seen), "{seen}");
        assert!(slots.0.iter().all(|slot| slot.is_none()));
    }

    #[test]
    fn a_deadline_does_not_come_before_its_time() {
        let mut slots = Slots(alloc::vec![Link::NONE; 1]);
        let mut timers = Timers::default();
        timers.set(Owner::Guest(0), Time::from_millis(5), &mut slots);
        assert_eq!(timers.pop(Time::from_millis(4), &mut slots), None);
        assert_eq!(timers.pop(Time::from_millis(5), &mut slots), Some(Owner::Guest(0)));
        assert_eq!(timers.next(), None);
    }
}
