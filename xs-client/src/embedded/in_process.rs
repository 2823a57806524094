//! A connection to the store within the process.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::connection::ConnectionId;
use super::store::Store;
use crate::{Quirks, Stream, Transport, TransportError};

/// A stream of bytes to a [`Store`] in the same process, non-blocking and with a descriptor
/// to poll. The stream keeps the store alive.
#[derive(Debug)]
pub struct InProcess {
    store: Store,
    domid: u16,
    id: ConnectionId,
    stream: Option<UnixStream>,
}

impl InProcess {
    pub(super) fn connect(store: Store, domid: u16) -> io::Result<Self> {
        let (stream, id) = open(&store, domid)?;
        Ok(Self { store, domid, id, stream: Some(stream) })
    }

    /// The store's id of this connection. [`Transport::reopen`] makes another connection.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    fn stream(&self) -> io::Result<&UnixStream> {
        self.stream.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Transport for InProcess {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        Ok(self.stream()?.read(buffer)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        Ok(self.stream()?.write(bytes)?)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    fn quirks(&self) -> &Quirks {
        &Quirks::SOCKET
    }

    fn close(&mut self) {
        self.stream = None;
    }

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        self.stream = None;
        let (stream, id) = open(&self.store, self.domid)?;
        self.stream = Some(stream);
        self.id = id;
        Ok(Stream::Fresh)
    }
}

fn open(store: &Store, domid: u16) -> io::Result<(UnixStream, ConnectionId)> {
    let (here, there) = UnixStream::pair()?;
    here.set_nonblocking(true)?;
    let id = store.with_reactor(|reactor| reactor.serve(there, domid))?;
    Ok((here, id))
}
