//! The state of one stream of bytes to the store: the requests without an answer, and the events
//! that have come. No I/O, no clock.
//!
//! The caller moves the bytes. Requests are [`queue`](Connection::queue)d and come out of
//! [`transmit`](Connection::transmit) in the pieces that the transport takes; what is read
//! goes into [`space`](Connection::space), and answers come out of
//! [`next_arrival`](Connection::next_arrival), events out of
//! [`next_event`](Connection::next_event).

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use xs_proto::{
    Decoder, ErrorCode, Frame, FrameError, Header, MessageType, Reply, Request, WatchEvent,
};

use crate::event_queue::EventQueue;
use crate::{Event, ProtocolError, Quirks, Stream};

/// Why a request was not queued. The connection is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// As many requests as the window allows have no answer yet.
    #[error("too many requests have no answer yet")]
    WindowFull,
    /// Its payload does not fit a message.
    #[error("a payload of {len} bytes does not fit the {max} of a message")]
    TooLong {
        /// The payload's length in bytes.
        len: usize,
        /// The most that this transport takes.
        max: usize,
    },
}

/// A message of the store, by its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// The answer to a request.
    Answer(Answer<'a>),
    /// A watch event, which is queued for [`Connection::next_event`].
    Event,
    /// A message that no request asked for. [`Oddities`] counts it.
    Ignored,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The number that the caller gave the request.
    pub ticket: usize,
    /// The store's reply: of the request's type, or [`Reply::Error`].
    pub reply: Result<Reply<'a>, ProtocolError>,
}

/// How often the store sent what a client can do nothing with. Only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Answers to no request.
    pub stray_answers: u64,
    /// Messages of a type that has no meaning.
    pub unknown_types: u64,
    /// Watch events without a path and a token. Each makes an [`Event::Resync`].
    pub malformed_events: u64,
    /// Watch events that went into an [`Event::Resync`] since there was no room, or one
    /// was waiting already.
    pub dropped_events: u64,
}

/// A request that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    req_id: u32,
    kind: MessageType,
    ticket: usize,
}

impl Pending {
    const fn is_about_watches(self) -> bool {
        matches!(self.kind, MessageType::Watch | MessageType::Unwatch)
    }
}

/// A stream of bytes to the store and back.
#[derive(Debug)]
pub struct Connection {
    quirks: Quirks,
    decoder: Decoder,
    pending: VecDeque<Pending>,
    /// Whole requests, one behind the other; `outgoing[sent..]` was not written yet.
    outgoing: Vec<u8>,
    sent: usize,
    /// Where in `outgoing` the message that `sent` is in begins.
    message: usize,
    last_req_id: u32,
    events: EventQueue,
    oddities: Oddities,
}

impl Connection {
    /// The bytes of events that [`new`](Self::new) keeps at most, 1 MiB. An event of a backend is
    /// some 60 bytes: room for more than a driver domain has devices, each changed several times.
    pub const EVENTS: usize = EventQueue::CAPACITY;

    /// A connection over a fresh stream.
    #[must_use]
    pub fn new(quirks: Quirks) -> Self {
        Self::with_events(quirks, Self::EVENTS)
    }

    /// A connection that keeps at most this many bytes of events; more become one
    /// [`Event::Resync`]. Memory is taken as events come.
    #[must_use]
    pub fn with_events(quirks: Quirks, events: usize) -> Self {
        Self {
            quirks,
            decoder: Decoder::new(),
            pending: VecDeque::new(),
            outgoing: Vec::new(),
            sent: 0,
            message: 0,
            last_req_id: 0,
            events: EventQueue::new(events),
            oddities: Oddities::default(),
        }
    }

    /// Forgets requests without an answer and queued events, in whose place is an
    /// [`Event::Resync`]. Of a [fresh](Stream::Fresh) stream half messages are forgotten, too; on
    /// one that is [continued](Stream::Continued) they are still to be completed, in both
    /// directions, and answers to forgotten requests are [ignored](Arrival::Ignored).
    pub fn reset(&mut self, stream: Stream) {
        self.pending.clear();
        self.events.resync();
        let half_sent = match stream {
            Stream::Fresh => {
                self.decoder.clear();
                0
            }
            Stream::Continued if self.sent > self.message => self.message_len(),
            Stream::Continued => 0,
        };
        self.outgoing.truncate(self.message + half_sent);
        self.outgoing.drain(..self.message);
        self.sent = if half_sent == 0 { 0 } else { self.sent - self.message };
        self.message = 0;
    }

    /// Goes on with a fresh stream that has these quirks.
    pub(crate) fn replace_stream(&mut self, quirks: Quirks) {
        self.reset(Stream::Fresh);
        self.quirks = quirks;
    }

    /// How the stream differs from others.
    #[must_use]
    pub const fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    /// Does the window allow another request?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pending.len() < self.quirks.window
    }

    /// How many requests have no answer yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// The counts of odd messages so far.
    #[must_use]
    pub const fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// Queues a request, in a transaction unless `tx_id` is 0. Its answer will carry `ticket`.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn queue(
        &mut self,
        ticket: usize,
        tx_id: u32,
        request: &Request<'_>,
    ) -> Result<(), QueueError> {
        self.queue_message(ticket, tx_id, request.message_type(), |out| request.emit(out))
    }

    /// Queues a request whose payload is ready.
    pub(crate) fn queue_payload(
        &mut self,
        ticket: usize,
        tx_id: u32,
        kind: MessageType,
        payload: &[u8],
    ) -> Result<(), QueueError> {
        self.queue_message(ticket, tx_id, kind, |out| out.extend_from_slice(payload))
    }

    fn queue_message(
        &mut self,
        ticket: usize,
        tx_id: u32,
        kind: MessageType,
        emit: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), QueueError> {
        if !self.has_room() {
            return Err(QueueError::WindowFull);
        }
        let start = self.outgoing.len();
        let payload = start + Header::LEN;
        self.outgoing.resize(payload, 0);
        emit(&mut self.outgoing);

        let (len, max) = (self.outgoing.len() - payload, self.quirks.payload_max);
        let wire_len = match u32::try_from(len) {
            Ok(wire_len) if len <= max => wire_len,
            _ => {
                self.outgoing.truncate(start);
                return Err(QueueError::TooLong { len, max });
            }
        };
        let req_id = self.next_req_id();
        let header = Header { kind: kind.to_wire(), req_id, tx_id, len: wire_len };
        self.outgoing[start..payload].copy_from_slice(&header.emit());
        self.pending.push_back(Pending { req_id, kind, ticket });
        Ok(())
    }

    /// Never 0, which is what an answer has that does not say whose it is.
    fn next_req_id(&mut self) -> u32 {
        self.last_req_id = self.last_req_id.checked_add(1).unwrap_or(1);
        self.last_req_id
    }

    /// The bytes to write next; empty if there are none. Every queued request, or the rest of
    /// one message if the transport takes only one a write.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        let unsent = &self.outgoing[self.sent..];
        if self.quirks.one_message_per_write {
            let rest = self.message + self.message_len() - self.sent;
            return unsent.get(..rest).unwrap_or(unsent);
        }
        unsent
    }

    /// Says that the first `len` bytes of [`transmit`](Self::transmit) are written.
    pub fn transmitted(&mut self, len: usize) {
        self.sent = self.sent.saturating_add(len).min(self.outgoing.len());
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
            self.message = 0;
            return;
        }
        while self.message + self.message_len() <= self.sent {
            self.message += self.message_len();
        }
    }

    /// Says that the write of the message in [`transmit`](Self::transmit) failed with this
    /// error number. If that only refuses the request, takes the request out and returns the
    /// answer; if it says that the stream is broken, returns `None`.
    ///
    /// The device reports so what the store says to a WATCH; and, for any request, that it
    /// does not fit its buffer or that there is no memory for it.
    pub fn transmit_refused(&mut self, errno: i32) -> Option<Answer<'static>> {
        if !self.quirks.refusals_as_errno {
            return None;
        }
        let header = self.outgoing[self.message..].first_chunk().map(Header::parse)?;
        let at = self.pending.iter().position(|pending| pending.req_id == header.req_id)?;
        let code = ErrorCode::from_errno(errno)
            .unwrap_or_else(|| ErrorCode::from_name(format!("errno {errno}").as_bytes()));
        let about_buffer = matches!(code, ErrorCode::Inval | ErrorCode::NoMem | ErrorCode::TooBig);
        if !about_buffer && !self.pending[at].is_about_watches() {
            return None;
        }
        let pending = self.pending.remove(at)?;
        let rest = self.message + self.message_len() - self.sent;
        self.transmitted(rest);
        Some(Answer { ticket: pending.ticket, reply: Ok(Reply::Error(code)) })
    }

    /// Length of the message at `self.message`; 0 if nothing is queued. Whole messages are
    /// queued, by this client: their headers are true.
    fn message_len(&self) -> usize {
        match Frame::parse(&self.outgoing[self.message..]) {
            Ok(Some(frame)) => frame.len(),
            _ => self.outgoing.len() - self.message,
        }
    }

    /// Where what is read next goes. Never empty, if arrivals were taken until there was none.
    pub fn space(&mut self) -> &mut [u8] {
        self.decoder.space()
    }

    /// Says that the first `len` bytes of [`space`](Self::space) were read.
    pub fn filled(&mut self, len: usize) {
        self.decoder.filled(len);
    }

    /// Takes the next message that has arrived whole.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the stream cannot be trusted any more. Close it.
    pub fn next_arrival(&mut self) -> Result<Option<Arrival<'_>>, FrameError> {
        let Some(Frame { header, payload }) = self.decoder.next_frame()? else {
            return Ok(None);
        };
        let Some(kind) = header.message_type() else {
            self.oddities.unknown_types += 1;
            return Ok(Some(Arrival::Ignored));
        };
        if kind == MessageType::WatchEvent {
            // By its type alone: the device does not set the ids of an event.
            match WatchEvent::parse(payload) {
                Ok(event) => {
                    let kept = self.events.push(event);
                    self.oddities.dropped_events += u64::from(!kept);
                }
                Err(_) => {
                    self.oddities.malformed_events += 1;
                    self.events.resync();
                }
            }
            return Ok(Some(Arrival::Event));
        }
        let Some(pending) = take_pending(&mut self.pending, &self.quirks, kind, header.req_id)
        else {
            self.oddities.stray_answers += 1;
            return Ok(Some(Arrival::Ignored));
        };
        let reply = if kind == pending.kind || kind == MessageType::Error {
            Reply::parse(kind, payload).map_err(|_| ProtocolError::Malformed(pending.kind))
        } else {
            Err(ProtocolError::WrongType { asked: pending.kind, answered: kind })
        };
        Ok(Some(Arrival::Answer(Answer { ticket: pending.ticket, reply })))
    }

    /// Takes the oldest event.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        self.events.pop()
    }

    /// Drops events from the front of the queue as long as `stale` holds for them.
    pub(crate) fn drop_events(&mut self, stale: impl Fn(&WatchEvent<'_>) -> bool) {
        while let Some(Event::Watch(event)) = self.events.peek()
            && stale(&event)
        {
            self.events.pop();
        }
    }

    /// Is an event there to take?
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }
}

/// Finds the request that an answer is to: by its `req_id`, which is first in line with the
/// daemons that answer in order; else, where it may be missing, the oldest (un)watch.
fn take_pending(
    pending: &mut VecDeque<Pending>,
    quirks: &Quirks,
    kind: MessageType,
    req_id: u32,
) -> Option<Pending> {
    if let Some(at) = pending.iter().position(|pending| pending.req_id == req_id) {
        return pending.remove(at);
    }
    if req_id != 0 || !quirks.acks_may_lack_req_id {
        return None;
    }
    let at = pending.iter().position(|pending| {
        pending.is_about_watches() && (kind == pending.kind || kind == MessageType::Error)
    })?;
    pending.remove(at)
}
