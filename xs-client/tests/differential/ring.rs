//! A domain's ring to the real xenstored, with no kernel between.
//!
//! The page is a file here, which the daemon maps and this side reads and writes. `fxguest`
//! would add what Linux makes of the protocol; this is the daemon's own word.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use xs_proto::ring::{
    Indexes, REPLIES, REPLY_CONSUMER, REPLY_PRODUCER, REQUEST_CONSUMER, REQUEST_PRODUCER, REQUESTS,
    RING_SIZE,
};

use crate::link::{Link, Message, PATIENCE, take_message};

/// The event channel's port on the domain's side.
pub(crate) const PORT: u32 = 1;

/// The domain's end of the ring.
pub(crate) struct Ring {
    page: File,
    domid: u16,
    events: UnixDatagram,
    daemon: PathBuf,
    received: Vec<u8>,
}

impl Ring {
    /// Makes the page, with which the domain exists.
    pub(crate) fn create(directory: &Path, domid: u16) -> Self {
        let path = directory.join(format!("dom{domid}.ring"));
        let mut options = File::options();
        let page = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
        page.set_len(4096).unwrap();
        let port = directory.join(format!("dom{domid}.evtchn"));
        let _ = std::fs::remove_file(&port);
        let events = UnixDatagram::bind(port).unwrap();
        // Long enough not to spin, short enough that an event lost does no harm.
        events.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
        Self { page, domid, events, daemon: directory.join("evtchn"), received: Vec::new() }
    }

    fn index(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        self.page.read_exact_at(&mut bytes, at as u64).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn set_index(&self, at: usize, value: u32) {
        self.page.write_all_at(&value.to_le_bytes(), at as u64).unwrap();
    }

    fn notify(&self) {
        let event = [u32::from(self.domid).to_le_bytes(), PORT.to_le_bytes()].concat();
        self.events.send_to(&event, &self.daemon).unwrap();
    }

    /// Takes what the daemon has put into the ring. Was there anything?
    fn pull(&mut self) -> bool {
        let (consumer, producer) = (self.index(REPLY_CONSUMER), self.index(REPLY_PRODUCER));
        let mut indexes = Indexes::new(consumer, producer).expect("the daemon's indexes");
        let mut ring = [0; RING_SIZE];
        self.page.read_exact_at(&mut ring, REPLIES as u64).unwrap();
        let mut bytes = [0; RING_SIZE];
        let len = indexes.take(&ring, &mut bytes);
        if len == 0 {
            return false;
        }
        self.received.extend_from_slice(&bytes[..len]);
        self.set_index(REPLY_CONSUMER, indexes.consumer());
        self.notify();
        true
    }

    fn sleep(&self) {
        // An event, or the time-out: either way it is the ring that says what there is.
        let _ = self.events.recv(&mut [0; 8]);
    }
}

impl Link for Ring {
    fn send(&mut self, mut bytes: &[u8]) {
        let start = Instant::now();
        while !bytes.is_empty() {
            let (consumer, producer) = (self.index(REQUEST_CONSUMER), self.index(REQUEST_PRODUCER));
            let mut indexes = Indexes::new(consumer, producer).expect("the daemon's indexes");
            let mut ring = [0; RING_SIZE];
            self.page.read_exact_at(&mut ring, REQUESTS as u64).unwrap();
            let len = indexes.put(&mut ring, bytes);
            if len == 0 {
                assert!(start.elapsed() < PATIENCE, "the daemon takes no request");
                if !self.pull() {
                    self.sleep();
                }
                continue;
            }
            self.page.write_all_at(&ring, REQUESTS as u64).unwrap();
            self.set_index(REQUEST_PRODUCER, indexes.producer());
            self.notify();
            bytes = &bytes[len..];
        }
    }

    fn receive(&mut self) -> Option<Message> {
        let start = Instant::now();
        loop {
            if let Some(message) = take_message(&mut self.received) {
                return Some(message);
            }
            if !self.pull() {
                assert!(start.elapsed() < PATIENCE, "no answer");
                self.sleep();
            }
        }
    }
}
