//! A unix socket of xenstored.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::{Stream, Transport, TransportError, closed, in_milliseconds};
use crate::Quirks;

/// How long a daemon may take to accept. Connecting has to wait, because oxenstored's queue holds
/// a single connection. A daemon that hangs is an error to try again.
const CONNECT_TIMEOUT: TimeVal = TimeVal::new(5, 0);

/// A connection to a unix socket.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    fd: Option<OwnedFd>,
    /// How long a `recv` sleeps that may; a new socket's does for ever.
    sleeps: Option<Duration>,
}

impl Socket {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let mut socket = Self { path: path.into(), fd: None, sleeps: None };
        socket.connect()?;
        Ok(socket)
    }

    fn connect(&mut self) -> io::Result<()> {
        self.fd = None;
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Of a unix socket this limits connect(2) too.
        setsockopt(&fd, sockopt::SendTimeout, &CONNECT_TIMEOUT)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(&self.path)?)?;
        self.fd = Some(fd);
        self.sleeps = None;
        Ok(())
    }

    fn fd(&self) -> Result<&OwnedFd, TransportError> {
        self.fd.as_ref().ok_or_else(closed)
    }
}

impl Transport for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        Ok(recv(self.fd()?.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
    }

    /// In one call, where waiting and reading would be two.
    fn read_within(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Option<usize>, TransportError> {
        let fd = self.fd()?;
        // The kernel counts in milliseconds or coarser, so the time left of a wait that has just
        // begun rounds to the value that is set already, and needs no call.
        let timeout = timeout.map(in_milliseconds);
        if timeout != self.sleeps {
            setsockopt(fd, sockopt::ReceiveTimeout, &time_val(timeout))?;
        }
        let received = recv(fd.as_raw_fd(), buffer, MsgFlags::empty());
        self.sleeps = timeout;
        match received {
            Ok(len) => Ok(Some(len)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        // Not write(2): a store that is gone is an error, not a signal.
        Ok(send(self.fd()?.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
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

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        self.connect()?;
        Ok(Stream::Fresh)
    }
}

/// No time at all would be for ever, so that it is a microsecond at least.
fn time_val(timeout: Option<Duration>) -> TimeVal {
    let Some(timeout) = timeout else { return TimeVal::new(0, 0) };
    let timeout = timeout.max(Duration::from_micros(1));
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    TimeVal::new(seconds, timeout.subsec_micros().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_read_sleeps_only_if_it_may_and_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let mut socket = Socket::open(dir.path().join("socket")).unwrap();
        let (mut store, _) = listener.accept().unwrap();
        let mut buffer = [0; 8];

        let is_nothing = |result| matches!(result, Err(TransportError::WouldBlock));
        assert!(is_nothing(socket.read(&mut buffer)));
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1)] {
            assert_eq!(socket.read_within(&mut buffer, Some(timeout)).unwrap(), None);
        }
        assert!(is_nothing(socket.read(&mut buffer)));

        store.write_all(b"abc").unwrap();
        assert_eq!(socket.read_within(&mut buffer, Some(Duration::MAX)).unwrap(), Some(3));
        store.write_all(b"de").unwrap();
        assert_eq!(socket.read_within(&mut buffer, None).unwrap(), Some(2));
        drop(store);
        assert_eq!(socket.read_within(&mut buffer, None).unwrap(), Some(0));
    }
}
