//! Raw connections: bytes out, whole messages in.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use xs_proto::{Frame, Header};

/// How long a daemon may take to say something that it has to say.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

/// A connection to a xenstored.
pub(crate) trait Link {
    fn send(&mut self, bytes: &[u8]);

    /// The next message; `None` once the daemon has closed the connection.
    fn receive(&mut self) -> Option<Message>;
}

/// Takes the first message out of what was received.
pub(crate) fn take_message(received: &mut Vec<u8>) -> Option<Message> {
    let frame = Frame::parse(received).expect("a daemon sends no payload over 4096 bytes")?;
    let message = Message { header: frame.header, payload: frame.payload.to_vec() };
    let len = frame.len();
    received.drain(..len);
    Some(message)
}

/// A unix socket.
pub(crate) struct Stream {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Stream {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new() })
    }
}

impl Link for Stream {
    fn send(&mut self, bytes: &[u8]) {
        // Where it fails the connection is closed, which `receive` will say.
        let _ = self.stream.write_all(bytes);
    }

    fn receive(&mut self) -> Option<Message> {
        let mut buffer = [0; 8192];
        loop {
            if let Some(message) = take_message(&mut self.received) {
                return Some(message);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.received.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }
}
