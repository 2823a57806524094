//! A domain's ring to the real xenstored, with no kernel between.
//!
//! The page is a file here, which the daemon maps and this side reads and writes. `fxguest`
//! would add what Linux makes of the protocol; this is the daemon's own word.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use xs_proto::ring::{Consumer, Field, Producer, Queue, RING_SIZE, SharedPage};

use crate::link::{Link, Message, PATIENCE, take_message};

/// The event channel's port on the domain's side.
pub(crate) const PORT: u32 = 1;

/// The page, as a file that the daemon maps. A system call orders more than enough.
struct PageFile(File);

impl SharedPage for PageFile {
    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        self.0.read_exact_at(out, offset as u64).unwrap();
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.0.write_all_at(bytes, offset as u64).unwrap();
    }

    fn load(&self, field: Field) -> u32 {
        let mut bytes = [0; 4];
        self.copy_out(field.offset(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn store(&self, field: Field, value: u32) {
        self.copy_in(field.offset(), &value.to_le_bytes());
    }
}

/// The domain's end of the ring.
pub(crate) struct Ring {
    page: PageFile,
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
        Self {
            page: PageFile(page),
            domid,
            events,
            daemon: directory.join("evtchn"),
            received: Vec::new(),
        }
    }

    fn notify(&self) {
        let event = [u32::from(self.domid).to_le_bytes(), PORT.to_le_bytes()].concat();
        self.events.send_to(&event, &self.daemon).unwrap();
    }

    /// Takes what the daemon has put into the ring. Was there anything?
    fn pull(&mut self) -> bool {
        let mut bytes = [0; RING_SIZE];
        // Attached anew each time: INTRODUCE changes this side's index too.
        let mut replies = Consumer::attach(&self.page, Queue::Replies);
        let len = replies.take(&self.page, &mut bytes).expect("the daemon's indexes");
        if len == 0 {
            return false;
        }
        self.received.extend_from_slice(&bytes[..len]);
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
            let mut requests = Producer::attach(&self.page, Queue::Requests);
            let len = requests.put(&self.page, bytes).expect("the daemon's indexes");
            if len == 0 {
                assert!(start.elapsed() < PATIENCE, "the daemon takes no request");
                if !self.pull() {
                    self.sleep();
                }
                continue;
            }
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
