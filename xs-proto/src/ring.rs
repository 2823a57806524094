//! The page that a domain shares with the store: two queues of bytes, one each way, and a few
//! fields about the connection.
//!
//! [`SharedPage`] is the memory; [`Page`] is that memory as atomics. A [`Producer`] puts bytes
//! into a queue, a [`Consumer`] takes bytes out. Mapping the page and notifying the other side by
//! the event channel are the caller's.
//!
//! # A page that the other side writes at any moment
//!
//! Bytes and indexes may change between two reads, so no reference into the page exists: bytes are
//! copied, and each index is read once into a local variable. An end keeps its own index outside of
//! the page and believes the page only about the other side's. Wrong indexes are a [`RingError`],
//! never a panic.
//!
//! # Order of accesses
//!
//! An end stores its index with *release* after it has copied the bytes, and loads the other side's
//! index with *acquire* before it copies any. Without that a consumer could see the index before
//! the bytes, and a producer could overwrite bytes that are still being copied out.
//!
//! Source: `struct xenstore_domain_interface` in `xs_wire.h`, and `xenstore-ring.txt`.

use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::Features;

/// Bytes in each of the two queues.
pub const RING_SIZE: usize = 1024;

const SIZE: u32 = 1024;

/// The order of every load of a field by [`SharedPage::load`].
pub const LOAD: Ordering = Ordering::Acquire;

/// The order of every store to a field by [`SharedPage::store`].
pub const STORE: Ordering = Ordering::Release;

/// The memory that a domain and the store share. Implemented by [`Page`], and by callers whose
/// memory is reached in another way.
pub trait SharedPage {
    /// Copies bytes from `offset` on out of the page. No order with other accesses is needed.
    fn copy_out(&self, offset: usize, out: &mut [u8]);

    /// Copies bytes into the page from `offset` on. No order with other accesses is needed.
    fn copy_in(&self, offset: usize, bytes: &[u8]);

    /// Reads a field once, with the order [`LOAD`].
    fn load(&self, field: Field) -> u32;

    /// Writes a field, with the order [`STORE`].
    fn store(&self, field: Field, value: u32);
}

impl<P: SharedPage + ?Sized> SharedPage for &P {
    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        (**self).copy_out(offset, out);
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        (**self).copy_in(offset, bytes);
    }

    fn load(&self, field: Field) -> u32 {
        (**self).load(field)
    }

    fn store(&self, field: Field, value: u32) {
        (**self).store(field, value);
    }
}

/// The 32-bit fields of the page. The value is the field's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Field {
    /// The index up to which the store has taken requests.
    RequestConsumer = 2048,
    /// The index up to which the domain has put requests.
    RequestProducer = 2052,
    /// The index up to which the domain has taken replies.
    ReplyConsumer = 2056,
    /// The index up to which the store has put replies.
    ReplyProducer = 2060,
    /// The store's [`Features`]: [`features`] reads them.
    ServerFeatures = 2064,
    /// The state of the connection: [`Connection::of`] reads it.
    Connection = 2068,
    /// Why the store has given up the connection: [`Error::of`] reads it.
    Error = 2072,
    /// The domain's event channel for the store to signal, filled in by Xen for domains that it
    /// starts itself (dom0less, Hyperlaunch); 0 otherwise.
    EventChannelPort = 2076,
}

impl Field {
    /// The field's offset in the page, in bytes.
    #[must_use]
    pub const fn offset(self) -> usize {
        self as usize
    }
}

/// The features that the store offers on this page. Bits are only ever added.
pub fn features(page: &impl SharedPage) -> Features {
    Features::from_bits(page.load(Field::ServerFeatures))
}

/// The state of the connection, in the page.
///
/// Only with [`Features::RECONNECTION`]: older stores leave the field as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// 0: the queues may be used.
    Connected,
    /// 1: the domain, or Xen before the domain started, has asked for a reset. All other fields
    /// mean nothing until the store writes 0.
    Reconnecting,
    /// A value that has no meaning.
    Unknown(u32),
}

impl Connection {
    /// Reads the state.
    pub fn of(page: &impl SharedPage) -> Self {
        match page.load(Field::Connection) {
            0 => Self::Connected,
            1 => Self::Reconnecting,
            other => Self::Unknown(other),
        }
    }

    /// Asks the store to reset the connection: queues, requests, watches and transactions. Signal
    /// the event channel next, then wait until the state is [`Connected`](Self::Connected).
    pub fn request_reset(page: &impl SharedPage) {
        page.store(Field::Connection, 1);
    }
}

/// Why the store has given up the connection. For messages to people only: newer stores may have
/// more values.
///
/// Only with [`Features::ERROR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 1: the event channel does not work.
    #[error("the store cannot use the event channel")]
    Communication,
    /// 2: an index in the page was wrong.
    #[error("the store found a wrong index in the ring")]
    RingIndex,
    /// 3: a message broke the protocol, such as a payload that is too long.
    #[error("the store found a message that breaks the protocol")]
    Protocol,
    /// A value that has no meaning here.
    #[error("the store gave up the connection, with error {0}")]
    Unknown(u32),
}

impl Error {
    /// Reads the error; `None` while there is none.
    pub fn of(page: &impl SharedPage) -> Option<Self> {
        Some(match page.load(Field::Error) {
            0 => return None,
            1 => Self::Communication,
            2 => Self::RingIndex,
            3 => Self::Protocol,
            other => Self::Unknown(other),
        })
    }
}

/// A queue of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// From the domain to the store.
    Requests,
    /// From the store to the domain.
    Replies,
}

impl Queue {
    /// The offset of the queue's bytes in the page.
    #[must_use]
    pub const fn offset(self) -> usize {
        match self {
            Self::Requests => 0,
            Self::Replies => RING_SIZE,
        }
    }

    const fn consumer(self) -> Field {
        match self {
            Self::Requests => Field::RequestConsumer,
            Self::Replies => Field::ReplyConsumer,
        }
    }

    const fn producer(self) -> Field {
        match self {
            Self::Requests => Field::RequestProducer,
            Self::Replies => Field::ReplyProducer,
        }
    }
}

/// The other side is broken, or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A queue's indexes are further apart than the queue is long.
    #[error(
        "the ring's indexes {consumer} and {producer} are further apart than its {RING_SIZE} bytes"
    )]
    TooFarApart {
        /// Bytes taken since the queue was made, modulo 2³².
        consumer: u32,
        /// Bytes put since the queue was made, modulo 2³².
        producer: u32,
    },
    /// The index that only this side writes has changed in the page.
    #[error("the ring's index {ours} was overwritten with {found}")]
    Overwritten {
        /// The index that this side stored.
        ours: u32,
        /// The value in the page.
        found: u32,
    },
}

/// The end of a queue that puts bytes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    queue: Queue,
    index: u32,
}

impl Producer {
    /// The producing end of a queue, from the index on that is in the page: a queue need not begin
    /// at 0.
    pub fn attach(page: &impl SharedPage, queue: Queue) -> Self {
        Self { queue, index: page.load(queue.producer()) }
    }

    /// How many bytes there is room for.
    ///
    /// # Errors
    ///
    /// [`RingError`].
    pub fn room(&self, page: &impl SharedPage) -> Result<usize, RingError> {
        check_own(page, self.queue.producer(), self.index)?;
        let consumer = page.load(self.queue.consumer());
        Ok(RING_SIZE - distance(consumer, self.index)?)
    }

    /// Copies as many bytes into the queue as there is room for; returns how many. Signal the
    /// event channel afterwards.
    ///
    /// # Errors
    ///
    /// [`RingError`]; nothing is copied then.
    pub fn put(&mut self, page: &impl SharedPage, bytes: &[u8]) -> Result<usize, RingError> {
        let len = bytes.len().min(self.room(page)?);
        let (first, second) = spans(self.index, len);
        let (front, back) = bytes[..len].split_at(first.len());
        page.copy_in(self.queue.offset() + first.start, front);
        page.copy_in(self.queue.offset() + second.start, back);
        self.index = advance(self.index, len);
        page.store(self.queue.producer(), self.index);
        Ok(len)
    }
}

/// The end of a queue that takes bytes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    queue: Queue,
    index: u32,
}

impl Consumer {
    /// The consuming end of a queue, from the index on that is in the page.
    pub fn attach(page: &impl SharedPage, queue: Queue) -> Self {
        Self { queue, index: page.load(queue.consumer()) }
    }

    /// How many bytes there are to take.
    ///
    /// # Errors
    ///
    /// [`RingError`].
    pub fn readable(&self, page: &impl SharedPage) -> Result<usize, RingError> {
        check_own(page, self.queue.consumer(), self.index)?;
        distance(self.index, page.load(self.queue.producer()))
    }

    /// Copies as many bytes out of the queue as `out` has room for; returns how many. Signal the
    /// event channel afterwards: the other side may wait for room.
    ///
    /// # Errors
    ///
    /// [`RingError`]; nothing is taken then.
    pub fn take(&mut self, page: &impl SharedPage, out: &mut [u8]) -> Result<usize, RingError> {
        let len = out.len().min(self.readable(page)?);
        let (first, second) = spans(self.index, len);
        let (front, back) = out[..len].split_at_mut(first.len());
        page.copy_out(self.queue.offset() + first.start, front);
        page.copy_out(self.queue.offset() + second.start, back);
        self.index = advance(self.index, len);
        page.store(self.queue.consumer(), self.index);
        Ok(len)
    }
}

/// Does the page still have the index that this side has stored there?
fn check_own(page: &impl SharedPage, field: Field, ours: u32) -> Result<(), RingError> {
    let found = page.load(field);
    if found == ours { Ok(()) } else { Err(RingError::Overwritten { ours, found }) }
}

/// The bytes between the indexes of a queue.
fn distance(consumer: u32, producer: u32) -> Result<usize, RingError> {
    match producer.wrapping_sub(consumer) {
        distance if distance <= SIZE => Ok(distance as usize),
        _ => Err(RingError::TooFarApart { consumer, producer }),
    }
}

/// The one or two places in a queue of `len` bytes from an index on; `len` is at most the queue's
/// size.
fn spans(index: u32, len: usize) -> (Range<usize>, Range<usize>) {
    let start = (index % SIZE) as usize;
    let first = len.min(RING_SIZE - start);
    (start..start + first, 0..len - first)
}

fn advance(index: u32, len: usize) -> u32 {
    // `len` is at most the queue's size.
    index.wrapping_add(u32::try_from(len).unwrap_or(SIZE))
}

/// The shared page as atomics, laid out as `struct xenstore_domain_interface`. A caller that has
/// mapped the page makes a `&Page` of its address.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page {
    queues: [AtomicU8; 2 * RING_SIZE],
    fields: [AtomicU32; 8],
}

impl Page {
    /// A page of zeros, as a domain has it when it is created.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queues: [const { AtomicU8::new(0) }; 2 * RING_SIZE],
            fields: [const { AtomicU32::new(0) }; 8],
        }
    }

    fn field(&self, field: Field) -> &AtomicU32 {
        &self.fields[(field.offset() - 2 * RING_SIZE) / 4]
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedPage for Page {
    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        for (byte, shared) in out.iter_mut().zip(&self.queues[offset..]) {
            *byte = shared.load(Ordering::Relaxed);
        }
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (byte, shared) in bytes.iter().zip(&self.queues[offset..]) {
            shared.store(*byte, Ordering::Relaxed);
        }
    }

    fn load(&self, field: Field) -> u32 {
        self.field(field).load(LOAD)
    }

    fn store(&self, field: Field, value: u32) {
        self.field(field).store(value, STORE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::mem::{offset_of, size_of};

    fn ends(start: u32, queue: Queue) -> (Page, Producer, Consumer) {
        let page = Page::new();
        page.store(queue.consumer(), start);
        page.store(queue.producer(), start);
        let ends = (Producer::attach(&page, queue), Consumer::attach(&page, queue));
        (page, ends.0, ends.1)
    }

    #[test]
    fn page_is_laid_out_as_in_the_header() {
        assert_eq!(size_of::<Page>(), 4096);
        assert_eq!(offset_of!(Page, fields), Field::RequestConsumer.offset());
        let page = Page::new();
        page.store(Field::EventChannelPort, 7);
        assert_eq!(page.fields[7].load(LOAD), 7);
        assert_eq!(Field::EventChannelPort.offset(), 2048 + 7 * 4);
    }

    #[test]
    fn stream_longer_than_the_ring_crosses_the_index_wrap() {
        let stream: Vec<u8> = (0..9000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for queue in [Queue::Requests, Queue::Replies] {
            let (page, mut producer, mut consumer) = ends(u32::MAX - 1500, queue);
            let (mut sent, mut received) = (0, Vec::new());
            while received.len() < stream.len() {
                let chunk = &stream[sent..stream.len().min(sent + 700)];
                sent += producer.put(&page, chunk).unwrap();
                let mut out = [0; 333];
                let len = consumer.take(&page, &mut out).unwrap();
                received.extend_from_slice(&out[..len]);
                let (readable, room) = (consumer.readable(&page), producer.room(&page));
                assert_eq!(readable.unwrap() + room.unwrap(), RING_SIZE);
            }
            assert_eq!(received, stream);
        }
    }

    #[test]
    fn indexes_too_far_apart_are_an_error_of_both_ends() {
        let (page, mut producer, mut consumer) = ends(5, Queue::Requests);
        page.store(Field::RequestProducer, 5 + 1025);
        let far = RingError::TooFarApart { consumer: 5, producer: 5 + 1025 };
        assert_eq!(consumer.take(&page, &mut [0; 8]), Err(far));
        page.store(Field::RequestProducer, 5);
        page.store(Field::RequestConsumer, 6);
        let far = RingError::TooFarApart { consumer: 6, producer: 5 };
        assert_eq!(producer.put(&page, b"x"), Err(far));
    }

    #[test]
    fn overwritten_own_index_is_an_error() {
        let (page, mut producer, mut consumer) = ends(5, Queue::Requests);
        page.store(Field::RequestProducer, 9);
        let overwritten = RingError::Overwritten { ours: 5, found: 9 };
        assert_eq!(producer.put(&page, b"x"), Err(overwritten));
        page.store(Field::RequestConsumer, 9);
        assert_eq!(consumer.take(&page, &mut [0; 8]), Err(overwritten));
    }

    #[test]
    fn fields_of_the_connection_have_their_values() {
        let page = Page::new();
        assert_eq!(Connection::of(&page), Connection::Connected);
        Connection::request_reset(&page);
        assert_eq!(Connection::of(&page), Connection::Reconnecting);
        page.store(Field::Connection, 9);
        assert_eq!(Connection::of(&page), Connection::Unknown(9));
        assert_eq!(Error::of(&page), None);
        for (value, error) in [
            (1, Error::Communication),
            (2, Error::RingIndex),
            (3, Error::Protocol),
            (4, Error::Unknown(4)),
        ] {
            page.store(Field::Error, value);
            assert_eq!(Error::of(&page), Some(error));
        }
        page.store(Field::ServerFeatures, 5);
        assert!(features(&page).contains(Features::WATCH_DEPTH));
    }
}
