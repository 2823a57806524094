//! A device that behaves as Linux's `/dev/xen/xenbus` does, old kernels' too.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::Duration;

use xs_client::{Client, Quirks, Stream, Transport, TransportError, WaitFor};
use xs_proto::{Header, MessageType, Request, WatchEvent};

use super::message;
use super::store::Store;

/// Bytes of the kernel's buffer for one request, its header included.
const BUFFER: usize = 4096;

const EINVAL: i32 = 22;
const E2BIG: i32 = 7;

/// The kernel's side of the device, and the store behind it.
pub struct Kernel {
    pub store: Store,
    /// Before 4.11: the answers that the kernel makes up have no ids.
    pub old: bool,
    /// The store refuses the next watch with this error.
    pub refuse_watch: Option<i32>,
    /// How long the store takes to answer a WATCH or UNWATCH.
    pub watch_takes: Duration,
    /// The first event of a watch comes before the answer to the WATCH.
    pub event_first: bool,
    /// A read returns no more than this.
    pub read_limit: usize,
    /// How many writes find no room, though the device should always have it.
    pub no_room: u32,
    pub watches: Vec<(Vec<u8>, Vec<u8>)>,
    /// The requests that the kernel has not put in the ring yet: it does while the client
    /// sleeps. Their payloads are still in `buffer`.
    under_way: VecDeque<Header>,
    /// The payload of the last request, which is that of all under way.
    buffer: Vec<u8>,
    /// The most that were under way at once.
    pub most_under_way: usize,
    /// What each write brought.
    pub writes: Vec<Vec<u8>>,
    /// What was waited for.
    pub waits: Vec<WaitFor>,
    pub reads: usize,
    pub opened: u32,
    is_open: bool,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// What an event has where its ids would be.
    garbage: u32,
}

impl Kernel {
    /// An event for every watch on this path or above it.
    pub fn fire(&mut self, path: &[u8]) {
        let tokens: Vec<Vec<u8>> = self
            .watches
            .iter()
            .filter(|(watched, _)| path.starts_with(watched))
            .map(|(_, token)| token.clone())
            .collect();
        for token in tokens {
            self.send_event(path, &token);
        }
    }

    /// Bytes for the client to read.
    pub fn send(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
    }

    /// With ids that may well be those of a request.
    fn send_event(&mut self, path: &[u8], token: &[u8]) {
        self.garbage = (self.garbage + 1) % 8;
        let mut payload = Vec::new();
        WatchEvent { path, token }.emit(&mut payload);
        let kind = MessageType::WatchEvent.to_wire();
        self.output.extend(message(kind, self.garbage, 0xdead_beef, &payload));
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.push(bytes.to_vec());
        if self.no_room > 0 {
            self.no_room -= 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if bytes.len() > BUFFER - self.input.len() {
            self.input.clear();
            return Err(io::Error::from_raw_os_error(EINVAL));
        }
        self.input.extend_from_slice(bytes);
        let Some(header) = self.input.first_chunk().map(Header::parse) else {
            return Ok(bytes.len());
        };
        let len = Header::LEN + usize::try_from(header.len).unwrap();
        if len > BUFFER {
            self.input.clear();
            return Err(io::Error::from_raw_os_error(E2BIG));
        }
        if self.input.len() < len {
            return Ok(bytes.len());
        }
        let input = std::mem::take(&mut self.input);
        // What is behind the first whole message is lost.
        self.request(header, &input[Header::LEN..len])?;
        Ok(bytes.len())
    }

    fn request(&mut self, header: Header, payload: &[u8]) -> io::Result<()> {
        let kind = header.message_type().unwrap();
        match Request::parse(kind, payload).unwrap() {
            Request::Watch { path, token, .. } => {
                sleep(self.watch_takes);
                if let Some(errno) = self.refuse_watch.take() {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                self.watches.push((path.to_vec(), token.to_vec()));
                if self.event_first {
                    self.send_event(path, token);
                }
                self.acknowledge(header);
                if !self.event_first {
                    self.send_event(path, token);
                }
            }
            Request::Unwatch { path, token } => {
                sleep(self.watch_takes);
                let found = self.watches.iter().position(|(p, t)| p == path && t == token);
                found.map(|at| self.watches.remove(at));
                self.acknowledge(header);
            }
            _ => {
                self.under_way.push_back(header);
                let kept = self.buffer.len().max(payload.len());
                self.buffer.resize(kept, 0);
                self.buffer[..payload.len()].copy_from_slice(payload);
                self.most_under_way = self.most_under_way.max(self.under_way.len());
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, header: Header) {
        let (req_id, tx_id) = if self.old { (0, 0) } else { (header.req_id, header.tx_id) };
        self.output.extend(message(header.kind, req_id, tx_id, b"OK\0"));
    }

    /// The store answers all that it was asked.
    fn answer(&mut self) {
        while let Some(header) = self.under_way.pop_front() {
            let kind = header.message_type().unwrap();
            let payload = &self.buffer[..usize::try_from(header.len).unwrap()];
            let (kind, payload) = match Request::parse(kind, payload) {
                Ok(request) => self.store.answer(header.tx_id, &request),
                Err(_) => (MessageType::Error, b"EINVAL\0".to_vec()),
            };
            self.output.extend(message(kind.to_wire(), header.req_id, header.tx_id, &payload));
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "the device would sleep");
        self.reads += 1;
        let len = buffer.len().min(self.output.len()).min(self.read_limit);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (byte, from) in buffer.iter_mut().zip(self.output.drain(..len)) {
            *byte = from;
        }
        Ok(len)
    }

    /// Ends the watches and transactions of the file.
    fn close(&mut self) {
        self.is_open = false;
        self.watches.clear();
        self.store.transactions.clear();
        self.under_way.clear();
        self.input.clear();
        self.output.clear();
    }
}

/// The device's file.
pub struct FakeDevice(Arc<Mutex<Kernel>>);

/// A client of a device, and the kernel below it.
pub fn client() -> (Client, Arc<Mutex<Kernel>>) {
    let kernel = Kernel {
        store: Store::default(),
        old: false,
        refuse_watch: None,
        watch_takes: Duration::ZERO,
        event_first: false,
        read_limit: usize::MAX,
        no_room: 0,
        watches: Vec::new(),
        under_way: VecDeque::new(),
        buffer: Vec::new(),
        most_under_way: 0,
        writes: Vec::new(),
        waits: Vec::new(),
        reads: 0,
        opened: 1,
        is_open: true,
        input: Vec::new(),
        output: VecDeque::new(),
        garbage: 0,
    };
    let kernel = Arc::new(Mutex::new(kernel));
    (Client::new(FakeDevice(Arc::clone(&kernel))), kernel)
}

impl FakeDevice {
    fn kernel(&self) -> io::Result<MutexGuard<'_, Kernel>> {
        let kernel = self.0.lock().unwrap();
        if kernel.is_open { Ok(kernel) } else { Err(io::ErrorKind::NotConnected.into()) }
    }
}

impl Transport for FakeDevice {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        Ok(self.kernel()?.read(buffer)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        Ok(self.kernel()?.write(bytes)?)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn quirks(&self) -> &Quirks {
        &Quirks::DEVICE
    }

    fn close(&mut self) {
        self.0.lock().unwrap().close();
    }

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.close();
        kernel.is_open = true;
        kernel.opened += 1;
        Ok(Stream::Fresh)
    }

    fn wait(&mut self, what: WaitFor, _: Option<Duration>) -> Result<bool, TransportError> {
        let mut kernel = self.kernel()?;
        kernel.waits.push(what);
        kernel.answer();
        Ok(!kernel.output.is_empty())
    }
}
