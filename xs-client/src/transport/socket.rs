//! A unix socket of xenstored.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};

use super::{Transport, closed};
use crate::Quirks;

/// A connection to a unix socket.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    fd: Option<OwnedFd>,
}

impl Socket {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let mut socket = Self { path: path.into(), fd: None };
        socket.reopen()?;
        Ok(socket)
    }

    fn fd(&self) -> io::Result<&OwnedFd> {
        self.fd.as_ref().ok_or_else(closed)
    }
}

impl Transport for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.fd()?.as_raw_fd(), buffer, MsgFlags::empty())?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not write(2): a store that is gone is an error, not a signal.
        Ok(send(self.fd()?.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    fn quirks(&self) -> &Quirks {
        &Quirks::SOCKET
    }

    fn close(&mut self) {
        self.fd = None;
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.fd = None;
        // Non-blocking before it connects: a daemon that hangs, with its backlog full, is an
        // error to try again, not a place to hang too.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(&self.path)?)?;
        self.fd = Some(fd);
        Ok(())
    }
}
