//! A unix socket of xenstored.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::{Transport, closed};
use crate::Quirks;

/// How long a daemon may take to accept. It has to be waited for: oxenstored lets one
/// connection at a time wait in line. But a daemon that hangs is an error to try again.
const CONNECT_TIMEOUT: TimeVal = TimeVal::new(5, 0);

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
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Of a unix socket this limits connect(2) too.
        setsockopt(&fd, sockopt::SendTimeout, &CONNECT_TIMEOUT)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(&self.path)?)?;
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        self.fd = Some(fd);
        Ok(())
    }
}
