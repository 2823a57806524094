//! Whole messages out of a stream of bytes.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::{Header, PAYLOAD_MAX};

/// A header announces a payload longer than [`PAYLOAD_MAX`]: the stream cannot be trusted any
/// more and its connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message announces a payload of {len} bytes, more than the protocol's {PAYLOAD_MAX}")]
pub struct FrameError {
    /// The length that the header claims.
    pub len: u32,
}

/// A whole message, whose payload is borrowed from the bytes that it arrived in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message's header; `len` is the payload's length.
    pub header: Header,
    /// The message's payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The longest message: header and payload.
    pub const MAX: usize = Header::LEN + PAYLOAD_MAX;

    /// Takes the first message from `bytes`. `Ok(None)` while it is not there whole: come
    /// back with more bytes.
    ///
    /// # Errors
    ///
    /// [`FrameError`] as soon as the header claims too long a payload.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<{ Header::LEN }>() else {
            return Ok(None);
        };
        let header = Header::parse(header);
        let len = match usize::try_from(header.len) {
            Ok(len) if len <= PAYLOAD_MAX => len,
            _ => return Err(FrameError { len: header.len }),
        };
        Ok(rest.get(..len).map(|payload| Self { header, payload }))
    }

    /// Length of the whole message in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        Header::LEN + self.payload.len()
    }

    /// Always false: a message has a header at least.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Appends the message's bytes to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header.emit());
        out.extend_from_slice(self.payload);
    }
}

/// Puts a stream of bytes back together as messages, in one buffer of fixed size.
///
/// Read into [`space`](Self::space), say how much it was with [`filled`](Self::filled), then
/// take messages with [`next_frame`](Self::next_frame) until there is none. As long as the
/// caller does take them, `space` always holds room for a whole message.
#[derive(Debug)]
pub struct Decoder {
    buffer: Box<[u8]>,
    /// The bytes not taken yet are `buffer[start..end]`.
    start: usize,
    end: usize,
}

impl Decoder {
    /// Several whole messages; a batch of short replies comes in one read.
    const CAPACITY: usize = 4 * Frame::MAX;

    /// An empty decoder. This is its only allocation.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; Self::CAPACITY].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Where the next bytes of the stream go. Empty only if messages were left untaken.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.buffer.len() - self.end < Frame::MAX {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// Says that the first `len` bytes of [`space`](Self::space) are of the stream now.
    /// More than `space` had counts as all of it.
    pub fn filled(&mut self, len: usize) {
        self.end = self.end.saturating_add(len).min(self.buffer.len());
    }

    /// Copies bytes of the stream in; returns how many there was room for.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let space = self.space();
        let len = bytes.len().min(space.len());
        space[..len].copy_from_slice(&bytes[..len]);
        self.filled(len);
        len
    }

    /// Takes the next whole message, or `None` while it has not arrived.
    ///
    /// # Errors
    ///
    /// [`FrameError`], from then on at every call: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let frame = Frame::parse(&self.buffer[self.start..self.end])?;
        self.start += frame.map_or(0, |frame| frame.len());
        Ok(frame)
    }

    /// Bytes of a message that has not arrived whole.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Forgets everything, for a new connection.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(req_id: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap();
        let mut out = Vec::new();
        Frame { header: Header { kind: 2, req_id, tx_id: 0, len }, payload }.emit(&mut out);
        out
    }

    #[test]
    fn a_message_in_single_bytes_is_whole_only_at_its_last() {
        let bytes = message(9, b"value");
        let mut decoder = Decoder::new();
        for (i, byte) in bytes.iter().enumerate() {
            assert_eq!(decoder.next_frame(), Ok(None), "after {i} bytes");
            assert_eq!(decoder.push(&[*byte]), 1);
        }
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!((frame.header.req_id, frame.payload), (9, &b"value"[..]));
        assert_eq!(decoder.pending(), 0);
    }

    #[test]
    fn several_messages_in_one_read_come_one_by_one() {
        let mut decoder = Decoder::new();
        let stream: Vec<u8> = (0..5).flat_map(|i| message(i, &[0; 7])).collect();
        assert_eq!(decoder.push(&stream), stream.len());
        for i in 0..5 {
            assert_eq!(decoder.next_frame().unwrap().unwrap().header.req_id, i);
        }
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn the_longest_payload_passes_and_one_more_byte_is_refused() {
        let mut decoder = Decoder::new();
        decoder.push(&message(1, &[1; PAYLOAD_MAX]));
        assert_eq!(decoder.next_frame().unwrap().unwrap().payload.len(), PAYLOAD_MAX);

        let header = Header { kind: 2, req_id: 0, tx_id: 0, len: 4097 };
        decoder.push(&header.emit());
        assert_eq!(decoder.next_frame(), Err(FrameError { len: 4097 }));
        assert_eq!(decoder.next_frame(), Err(FrameError { len: 4097 }));
    }

    #[test]
    fn there_is_always_room_for_a_whole_message() {
        let stream: Vec<u8> = (0..200).flat_map(|i| message(i, &[7; 4000])).collect();
        let mut decoder = Decoder::new();
        let (mut at, mut seen) = (0, 0);
        while at < stream.len() {
            assert!(decoder.space().len() >= Frame::MAX);
            at += decoder.push(&stream[at..stream.len().min(at + 3001)]);
            while let Some(frame) = decoder.next_frame().unwrap() {
                assert_eq!(frame.header.req_id, seen);
                seen += 1;
            }
        }
        assert_eq!(seen, 200);
    }
}
