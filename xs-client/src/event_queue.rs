//! Watch events that have arrived and were not taken yet.

use alloc::vec::Vec;

use xs_proto::WatchEvent;

/// Something that the store said unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Something under a watched path changed: look at it again.
    Watch(WatchEvent<'a>),
    /// Events were lost, or may have been: look at everything again.
    Resync,
}

impl Event<'_> {
    /// A copy that does not borrow from the client.
    #[must_use]
    pub fn to_owned(&self) -> OwnedEvent {
        match self {
            Self::Watch(event) => {
                OwnedEvent::Watch { path: event.path.to_vec(), token: event.token.to_vec() }
            }
            Self::Resync => OwnedEvent::Resync,
        }
    }
}

/// An [`Event`] to keep or to send to another thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnedEvent {
    /// As [`Event::Watch`].
    Watch {
        /// The node that changed, relative where the watch was.
        path: Vec<u8>,
        /// The token of the watch.
        token: Vec<u8>,
    },
    /// As [`Event::Resync`].
    Resync,
}

/// Events in order of arrival, in one flat buffer that is used again.
///
/// Bounded: when it is full, all that it holds becomes one [`Event::Resync`]. Until that is
/// taken, further events say nothing that it does not, and are dropped.
#[derive(Debug)]
pub(crate) struct EventQueue {
    /// Records: the length of the path, that of the token, path, token.
    records: Vec<u8>,
    /// Where the first record that was not taken begins.
    start: usize,
    resync: bool,
    capacity: usize,
}

impl EventQueue {
    /// An event of a backend is some 60 bytes: room for more of them than a driver domain has
    /// devices, each changed several times.
    pub(crate) const CAPACITY: usize = 1 << 20;

    /// An empty queue for this many bytes of events. Allocates as they come, up to that.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { records: Vec::new(), start: 0, resync: false, capacity }
    }

    /// Appends an event. False if it went into a [`Event::Resync`].
    pub(crate) fn push(&mut self, event: WatchEvent<'_>) -> bool {
        if self.resync {
            return false;
        }
        let len = RECORD_HEAD + event.path.len() + event.token.len();
        if self.records.len() + len > self.capacity && self.start >= self.capacity / 2 {
            // Only when that frees half of it: for less, a queue that stays nearly full would
            // be moved at every event.
            self.records.drain(..self.start);
            self.start = 0;
        }
        let (path_len, token_len) =
            (u16::try_from(event.path.len()), u16::try_from(event.token.len()));
        let (Ok(path_len), Ok(token_len)) = (path_len, token_len) else {
            self.resync();
            return false;
        };
        if self.records.len() + len > self.capacity {
            self.resync();
            return false;
        }
        self.records.extend_from_slice(&path_len.to_ne_bytes());
        self.records.extend_from_slice(&token_len.to_ne_bytes());
        self.records.extend_from_slice(event.path);
        self.records.extend_from_slice(event.token);
        true
    }

    /// Replaces all that is queued by one [`Event::Resync`].
    pub(crate) fn resync(&mut self) {
        self.records.clear();
        self.start = 0;
        self.resync = true;
    }

    /// Takes the oldest event.
    pub(crate) fn pop(&mut self) -> Option<Event<'_>> {
        if self.resync {
            self.resync = false;
            return Some(Event::Resync);
        }
        if self.is_empty() {
            self.records.clear();
            self.start = 0;
            return None;
        }
        let (event, len) = record(&self.records[self.start..])?;
        self.start += len;
        Some(Event::Watch(event))
    }

    /// The oldest event, which stays.
    pub(crate) fn peek(&self) -> Option<Event<'_>> {
        if self.resync {
            return Some(Event::Resync);
        }
        record(&self.records[self.start..]).map(|(event, _)| Event::Watch(event))
    }

    /// Is there nothing to take?
    pub(crate) fn is_empty(&self) -> bool {
        !self.resync && self.start == self.records.len()
    }
}

/// The first record's event, and the record's length in bytes.
fn record(records: &[u8]) -> Option<(WatchEvent<'_>, usize)> {
    let (head, rest) = records.split_first_chunk::<RECORD_HEAD>()?;
    let path_len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
    let token_len = usize::from(u16::from_ne_bytes([head[2], head[3]]));
    let (path, rest) = rest.split_at(path_len);
    let event = WatchEvent { path, token: &rest[..token_len] };
    Some((event, RECORD_HEAD + path_len + token_len))
}

/// Bytes before the path in a record.
const RECORD_HEAD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(path: &'a [u8], token: &'a [u8]) -> WatchEvent<'a> {
        WatchEvent { path, token }
    }

    #[test]
    fn events_come_out_as_they_went_in() {
        let mut queue = EventQueue::new(1000);
        queue.push(event(b"backend/vif/1/0/state", b"t"));
        queue.push(event(b"", b""));
        queue.push(event(b"@releaseDomain", b"gone"));
        let vif = event(b"backend/vif/1/0/state", b"t");
        assert_eq!(queue.pop(), Some(Event::Watch(vif)));
        assert_eq!(queue.pop(), Some(Event::Watch(event(b"", b""))));
        assert_eq!(queue.pop(), Some(Event::Watch(event(b"@releaseDomain", b"gone"))));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_full_queue_becomes_one_resync_and_then_works_again() {
        let mut queue = EventQueue::new(100);
        let pushed = (0..50).filter(|_| queue.push(event(b"0123456789", b"token"))).count();
        assert_eq!(pushed, 100 / 19);
        assert_eq!(queue.pop(), Some(Event::Resync));
        assert_eq!(queue.pop(), None);
        assert!(queue.push(event(b"a", b"b")));
        assert_eq!(queue.pop(), Some(Event::Watch(event(b"a", b"b"))));
    }

    #[test]
    fn what_was_taken_makes_room_while_events_keep_coming() {
        let mut queue = EventQueue::new(100);
        for i in 0..1000u32 {
            let path = i.to_string();
            assert!(queue.push(event(path.as_bytes(), b"token")), "event {i}");
            if i >= 3 {
                let expected = (i - 3).to_string();
                let expected = Some(Event::Watch(event(expected.as_bytes(), b"token")));
                assert_eq!(queue.pop(), expected);
            }
        }
    }

    #[test]
    fn once_warm_no_event_allocates() {
        let mut queue = EventQueue::new(EventQueue::CAPACITY);
        let fill = |queue: &mut EventQueue| {
            for _ in 0..100 {
                queue.push(event(b"backend/vif/1/0/state", b"token"));
            }
            while queue.pop().is_some() {}
        };
        fill(&mut queue);
        let (at, capacity) = (queue.records.as_ptr(), queue.records.capacity());
        for _ in 0..100 {
            fill(&mut queue);
        }
        assert_eq!((queue.records.as_ptr(), queue.records.capacity()), (at, capacity));
    }
}
