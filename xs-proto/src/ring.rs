//! The page that a domain shares with the store: two rings of bytes, one each way.
//!
//! Only the arithmetic of their indexes is here; mapping the page, ordering its accesses and
//! notifying the other side are the caller's. The caller must copy an index out of the page
//! once and use the copy: the other side can change the page at any moment.
//!
//! Source: `struct xenstore_domain_interface` in `xs_wire.h`, and `xenstore-ring.txt`.

use core::ops::Range;

/// Bytes in each of the two rings.
pub const RING_SIZE: usize = 1024;
/// Offset in the page of the requests' ring.
pub const REQUESTS: usize = 0;
/// Offset of the replies' ring.
pub const REPLIES: usize = 1024;
/// Offset of the 32-bit index up to which the store has taken requests.
pub const REQUEST_CONSUMER: usize = 2048;
/// Offset of the index up to which the domain has put requests.
pub const REQUEST_PRODUCER: usize = 2052;
/// Offset of the index up to which the domain has taken replies.
pub const REPLY_CONSUMER: usize = 2056;
/// Offset of the index up to which the store has put replies.
pub const REPLY_PRODUCER: usize = 2060;

const SIZE: u32 = 1024;

/// The two indexes of a ring are further apart than the ring is long: the other side is
/// broken, or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ring's indexes {consumer} and {producer} are further apart than its {RING_SIZE} bytes"
)]
pub struct BadIndexes {
    /// Bytes taken since the beginning, modulo 2³².
    pub consumer: u32,
    /// Bytes put since the beginning, modulo 2³².
    pub producer: u32,
}

/// The indexes of one ring. An index counts bytes since the ring was made, and wraps at 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Indexes {
    consumer: u32,
    producer: u32,
}

impl Indexes {
    /// Checks the indexes that are in the page.
    ///
    /// # Errors
    ///
    /// [`BadIndexes`] if there would be more bytes in the ring than it holds.
    pub const fn new(consumer: u32, producer: u32) -> Result<Self, BadIndexes> {
        if producer.wrapping_sub(consumer) > SIZE {
            return Err(BadIndexes { consumer, producer });
        }
        Ok(Self { consumer, producer })
    }

    /// How many bytes are there to be taken.
    #[must_use]
    pub const fn readable(&self) -> usize {
        self.producer.wrapping_sub(self.consumer) as usize
    }

    /// How many bytes can be put.
    #[must_use]
    pub const fn writable(&self) -> usize {
        RING_SIZE - self.readable()
    }

    /// Copies bytes out of the ring; returns how many. The new consumer index, to be stored
    /// in the page *after* the copy, is [`consumer`](Self::consumer).
    pub fn take(&mut self, ring: &[u8; RING_SIZE], out: &mut [u8]) -> usize {
        let len = out.len().min(self.readable());
        let (first, second) = spans(self.consumer, len);
        let split = first.len();
        out[..split].copy_from_slice(&ring[first]);
        out[split..len].copy_from_slice(&ring[second]);
        self.consumer = advance(self.consumer, len);
        len
    }

    /// Copies bytes into the ring; returns how many. The new producer index, to be stored in
    /// the page *after* the copy, is [`producer`](Self::producer).
    pub fn put(&mut self, ring: &mut [u8; RING_SIZE], bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.writable());
        let (first, second) = spans(self.producer, len);
        let split = first.len();
        ring[first].copy_from_slice(&bytes[..split]);
        ring[second].copy_from_slice(&bytes[split..len]);
        self.producer = advance(self.producer, len);
        len
    }

    /// The index up to which bytes were taken.
    #[must_use]
    pub const fn consumer(&self) -> u32 {
        self.consumer
    }

    /// The index up to which bytes were put.
    #[must_use]
    pub const fn producer(&self) -> u32 {
        self.producer
    }
}

/// The one or two places in the ring of `len` bytes from an index on; `len` is at most the
/// ring's size.
fn spans(index: u32, len: usize) -> (Range<usize>, Range<usize>) {
    let start = (index % SIZE) as usize;
    let first = len.min(RING_SIZE - start);
    (start..start + first, 0..len - first)
}

fn advance(index: u32, len: usize) -> u32 {
    // `len` is at most the ring's size.
    index.wrapping_add(u32::try_from(len).unwrap_or(SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn stream_longer_than_the_ring_crosses_the_index_wrap() {
        let mut ring = [0; RING_SIZE];
        let start = u32::MAX - 1500;
        let mut indexes = Indexes::new(start, start).unwrap();
        let stream: Vec<u8> = (0..9000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let (mut sent, mut received) = (0, Vec::new());
        while received.len() < stream.len() {
            sent += indexes.put(&mut ring, &stream[sent..stream.len().min(sent + 700)]);
            let mut out = [0; 333];
            let len = indexes.take(&ring, &mut out);
            received.extend_from_slice(&out[..len]);
            assert_eq!(indexes.readable() + indexes.writable(), RING_SIZE);
        }
        assert_eq!(received, stream);
    }

    #[test]
    fn indexes_too_far_apart_are_refused() {
        assert!(Indexes::new(5, 5 + 1024).is_ok());
        let bad = BadIndexes { consumer: 5, producer: 5 + 1025 };
        assert_eq!(Indexes::new(5, 5 + 1025), Err(bad));
        assert!(Indexes::new(1, 0).is_err());
        assert!(Indexes::new(u32::MAX, 3).is_ok());
    }
}
