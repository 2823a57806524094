//! A client as small as it can be written by hand for one purpose: what there is to reach.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use xs_proto::{Header, MessageType, Request};

/// A connection that blocks.
#[derive(Debug)]
pub struct Raw {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// What was read and not used is `buffer[start..end]`.
    start: usize,
    end: usize,
}

impl Raw {
    /// A connection to the socket.
    ///
    /// # Panics
    ///
    /// As all that is here if something is not as it should be.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the store is there");
        Self { stream, buffer: vec![0; 1 << 16], start: 0, end: 0 }
    }

    /// Reads the node `count` times, `depth` of them under way at once.
    pub fn read_pipelined(&mut self, path: &[u8], expected: &[u8], count: u32, depth: usize) {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        let mut requests = Vec::new();
        let (mut asked, mut answered) = (0, 0);
        while answered < count {
            requests.clear();
            while asked < count && asked - answered < depth {
                Request::Read { path }.encode(asked, 0, &mut requests).expect("it fits");
                asked += 1;
            }
            self.stream.write_all(&requests).expect("the store takes requests");
            // All that has come, and at least one.
            loop {
                let (header, payload) = self.next();
                assert_eq!((header.kind, header.req_id), (MessageType::Read.to_wire(), answered));
                assert_eq!(payload, expected);
                answered += 1;
                if !self.has_whole() {
                    break;
                }
            }
        }
    }

    /// Registers a watch, and takes its first event.
    pub fn watch(&mut self, path: &[u8]) {
        let mut request = Vec::new();
        let watch = Request::Watch { path, token: b"raw", depth: None };
        watch.encode(1, 0, &mut request).expect("it fits");
        self.stream.write_all(&request).expect("the store takes requests");
        assert_eq!(self.next().0.kind, MessageType::Watch.to_wire());
        self.events(1);
    }

    /// Waits for so many events.
    pub fn events(&mut self, count: u32) {
        for _ in 0..count {
            assert_eq!(self.next().0.kind, MessageType::WatchEvent.to_wire());
        }
    }

    fn header(&self) -> Option<Header> {
        self.buffer[self.start..self.end].first_chunk().map(Header::parse)
    }

    fn has_whole(&self) -> bool {
        self.header().is_some_and(|header| self.end - self.start >= message_len(&header))
    }

    fn next(&mut self) -> (Header, &[u8]) {
        while !self.has_whole() {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            } else if self.buffer.len() - self.end < 8192 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let len = self.stream.read(&mut self.buffer[self.end..]).expect("the store answers");
            assert!(len > 0, "the store has closed the connection");
            self.end += len;
        }
        let header = self.header().expect("there is a whole message");
        let at = self.start;
        self.start += message_len(&header);
        (header, &self.buffer[at + Header::LEN..self.start])
    }
}

fn message_len(header: &Header) -> usize {
    Header::LEN + usize::try_from(header.len).unwrap_or(usize::MAX)
}
