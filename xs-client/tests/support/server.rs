//! A server on a unix socket, whose every step a test decides.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;
use xs_client::{Address, Client};
use xs_proto::{Decoder, Header, MessageType, Reply, Request};

use super::store::{Store, answer};
use super::{event, message};

/// A socket, in a directory of its own.
pub struct Server {
    dir: TempDir,
}

/// The server's end of one connection.
pub struct Peer {
    stream: UnixStream,
    decoder: Decoder,
}

impl Server {
    /// Serves connections, one after the other, with `serve`, which is told how many there
    /// were before.
    pub fn start(serve: impl FnMut(usize, &mut Peer) + Send + 'static) -> (Self, JoinHandle<()>) {
        let server = Self { dir: tempfile::tempdir().unwrap() };
        let thread = server.listen(usize::MAX, serve);
        (server, thread)
    }

    /// Nobody listens yet.
    pub fn absent() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Serves so many connections, then closes the socket.
    pub fn listen(
        &self,
        connections: usize,
        mut serve: impl FnMut(usize, &mut Peer) + Send + 'static,
    ) -> JoinHandle<()> {
        let _ = std::fs::remove_file(self.path());
        let listener = UnixListener::bind(self.path()).unwrap();
        thread::spawn(move || {
            for (n, stream) in listener.incoming().take(connections).enumerate() {
                serve(n, &mut Peer { stream: stream.unwrap(), decoder: Decoder::new() });
            }
        })
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub fn client(&self) -> Client {
        Client::open(Address::find(Some(Path::new(&self.path()))).unwrap()).unwrap()
    }
}

impl Peer {
    /// The next request: its header and payload. `None` when the client has closed.
    pub fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some((frame.header, frame.payload.to_vec()));
            }
            match self.stream.read(self.decoder.space()) {
                Ok(0) | Err(_) => return None,
                Ok(len) => self.decoder.filled(len),
            }
        }
    }

    /// Sends bytes; the client may be gone.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes);
    }

    /// Sends bytes; false if the client is gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Answers a request.
    pub fn answer(&mut self, to: Header, (kind, payload): (MessageType, Vec<u8>)) {
        self.send(&message(kind.to_wire(), to.req_id, to.tx_id, &payload));
    }

    /// Serves the client from `store` until it closes, or has sent `limit` requests. Watches
    /// are acknowledged and fire once.
    pub fn serve(&mut self, store: &mut Store, limit: usize) {
        for _ in 0..limit {
            let Some((header, payload)) = self.next() else {
                return;
            };
            let kind = header.message_type().unwrap();
            match Request::parse(kind, &payload).unwrap() {
                Request::Watch { path, token, .. } => {
                    store.seen.push(kind);
                    self.answer(header, answer(&Reply::Ok(kind)));
                    self.send(&event(path, token));
                }
                Request::Unwatch { .. } => self.answer(header, answer(&Reply::Ok(kind))),
                request => {
                    let reply = store.answer(header.tx_id, &request);
                    self.answer(header, reply);
                }
            }
        }
    }
}
