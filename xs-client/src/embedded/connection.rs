//! The store's state of each connection.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use xs_proto::{Header, MessageType, PAYLOAD_MAX};

use super::counts::Counts;
use super::reactor::ReactorId;
use super::transaction::Transaction;

/// Tells the connections of a store apart; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

/// A connection as the store sees it; the bytes go through its reactor.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) domid: u16,
    pub(super) reactor: ReactorId,
    pub(super) transactions: HashMap<u32, Transaction>,
    last_transaction: u32,
    pub(super) output: Output,
    pub(super) counts: Counts,
}

impl Connection {
    pub(super) fn new(domid: u16, reactor: ReactorId) -> Self {
        Self {
            domid,
            reactor,
            transactions: HashMap::new(),
            last_transaction: 0,
            output: Output::default(),
            counts: Counts::default(),
        }
    }

    /// Starts a transaction and returns its number, which is not 0.
    pub(super) fn start_transaction(&mut self) -> u32 {
        loop {
            self.last_transaction = self.last_transaction.wrapping_add(1);
            let number = self.last_transaction;
            if number != 0 && !self.transactions.contains_key(&number) {
                self.transactions.insert(number, Transaction::default());
                return number;
            }
        }
    }
}

/// The bytes that wait to be sent to a client.
#[derive(Debug, Default)]
pub(super) struct Output {
    queue: VecDeque<Message>,
    /// The payloads of events in the queue: an event that is there already is not sent again.
    events: HashSet<Arc<[u8]>>,
    /// How many of the messages are replies.
    replies: usize,
    /// Is nothing more to be queued, because the connection is about to be closed?
    muted: bool,
    /// Does the reactor know that there is something?
    pub(super) announced: bool,
}

#[derive(Debug)]
struct Message {
    header: Header,
    payload: Arc<[u8]>,
}

impl Output {
    /// Queues the reply to a request.
    pub(super) fn reply(&mut self, kind: MessageType, request: Header, payload: &[u8]) {
        let header = Header { kind: kind.to_wire(), ..request };
        self.replies += 1;
        self.push(header, payload.into());
    }

    /// Queues an event, unless the same one waits already, or is too long for a message.
    pub(super) fn event(&mut self, payload: &[u8]) {
        if payload.len() > PAYLOAD_MAX || self.events.contains(payload) {
            return;
        }
        let payload: Arc<[u8]> = payload.into();
        self.events.insert(payload.clone());
        let kind = MessageType::WatchEvent.to_wire();
        self.push(Header { kind, req_id: 0, tx_id: 0, len: 0 }, payload);
    }

    /// Moves messages into `out` until that is at least `enough` bytes long.
    pub(super) fn take(&mut self, out: &mut Vec<u8>, enough: usize) {
        while out.len() < enough {
            let Some(Message { header, payload }) = self.queue.pop_front() else { break };
            if header.kind == MessageType::WatchEvent.to_wire() {
                self.events.remove(&payload);
            } else {
                self.replies -= 1;
            }
            out.extend_from_slice(&header.emit());
            out.extend_from_slice(&payload);
        }
    }

    /// Replies that wait.
    pub(super) const fn replies(&self) -> usize {
        self.replies
    }

    /// From now on nothing is queued any more.
    pub(super) fn mute(&mut self) {
        self.muted = true;
    }

    fn push(&mut self, header: Header, payload: Arc<[u8]>) {
        if self.muted {
            return;
        }
        // Neither a reply nor an event is longer than a message may be.
        let len = u32::try_from(payload.len()).unwrap_or(0);
        self.queue.push_back(Message { header: Header { len, ..header }, payload });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xs_proto::Decoder;

    fn payloads(output: &mut Output) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        output.take(&mut bytes, usize::MAX);
        let mut decoder = Decoder::new();
        assert_eq!(decoder.push(&bytes), bytes.len());
        std::iter::from_fn(|| Some(decoder.next_frame().unwrap()?.payload.to_vec())).collect()
    }

    #[test]
    fn equal_events_merge_until_they_are_taken() {
        let mut output = Output::default();
        output.event(b"a\0t\0");
        output.event(b"b\0t\0");
        output.event(b"a\0t\0");
        assert_eq!(payloads(&mut output), [b"a\0t\0", b"b\0t\0"]);
        output.event(b"a\0t\0");
        assert_eq!(payloads(&mut output), [b"a\0t\0"]);
    }

    #[test]
    fn an_event_too_long_for_a_message_is_dropped() {
        let mut output = Output::default();
        output.event(&[b'a'; PAYLOAD_MAX + 1]);
        assert!(payloads(&mut output).is_empty());
    }

    #[test]
    fn transaction_numbers_are_not_used_twice_at_once() {
        let mut connection = Connection::new(0, ReactorId::new(1));
        assert_eq!(connection.start_transaction(), 1);
        connection.last_transaction = u32::MAX;
        assert_eq!(connection.start_transaction(), 2);
    }
}
