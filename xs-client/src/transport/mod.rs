//! The stream of bytes that a connection runs over.

mod device;
mod socket;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::device::Device;
pub use self::socket::Socket;
use crate::Quirks;

/// The condition to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Something to read.
    Input,
    /// Something to read, or room to write. Never asked of a transport without
    /// [`Quirks::poll_out`].
    InputOrRoom,
}

/// A stream of bytes to the store and back.
pub trait Transport: Send {
    /// Reads what is there, without waiting: [`WouldBlock`](io::ErrorKind::WouldBlock) if that
    /// is nothing, `Ok(0)` if the store has closed the stream. `buffer` is never empty.
    ///
    /// # Errors
    ///
    /// The system's. All but `WouldBlock` and `Interrupted` end the connection.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as there is room for: `WouldBlock` if that is nothing. With
    /// [`Quirks::one_message_per_write`] the bytes are one message, or the rest of one.
    ///
    /// # Errors
    ///
    /// The system's. Every error ends the connection, except `WouldBlock`, `Interrupted` and, with
    /// [`Quirks::refusals_as_errno`], the refusal of this message.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// The descriptor to poll for input; `None` while closed, or if the transport has none.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// How this transport differs from others. Does not change.
    fn quirks(&self) -> &Quirks;

    /// Closes the stream, and with it the store's memory of its watches and transactions.
    fn close(&mut self);

    /// Opens the stream anew, once.
    ///
    /// # Errors
    ///
    /// The system's.
    fn reopen(&mut self) -> io::Result<()>;

    /// Sleeps until there is what is waited for, or `timeout` (none: for ever) is over, and
    /// says which. May wake up early and say yes.
    ///
    /// Polls [`as_fd`](Self::as_fd). Without one there is nothing to sleep on: says no at
    /// once, which is right for a transport that has every answer ready when it is written to.
    ///
    /// # Errors
    ///
    /// The system's.
    fn wait(&mut self, what: WaitFor, timeout: Option<Duration>) -> io::Result<bool> {
        let Some(fd) = self.as_fd() else {
            return Ok(false);
        };
        let flags = match what {
            WaitFor::Input => PollFlags::POLLIN,
            WaitFor::InputOrRoom => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        match poll(&mut [PollFd::new(fd, flags)], poll_timeout(timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads the bytes that are there; sleeps first, up to `timeout` (none: for ever), if there
    /// are none. `None`: the time is over and no byte has come.
    ///
    /// # Errors
    ///
    /// The errors of [`wait`](Self::wait) and [`read`](Self::read).
    fn read_within(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> io::Result<Option<usize>> {
        if self.wait(WaitFor::Input, timeout)? { self.read(buffer).map(Some) } else { Ok(None) }
    }
}

/// In whole milliseconds, rounded up: rounded down, the last one would be spent spinning.
fn in_milliseconds(timeout: Duration) -> Duration {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
}

pub(crate) fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    let Some(timeout) = timeout else {
        return PollTimeout::NONE;
    };
    PollTimeout::try_from(in_milliseconds(timeout)).unwrap_or(PollTimeout::MAX)
}

/// The error of every use of a closed transport.
fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up_and_never_become_for_ever() {
        assert_eq!(poll_timeout(None), PollTimeout::NONE);
        assert_eq!(poll_timeout(Some(Duration::ZERO)), PollTimeout::ZERO);
        assert_eq!(poll_timeout(Some(Duration::from_nanos(1))), PollTimeout::from(1u8));
        assert_eq!(poll_timeout(Some(Duration::MAX)), PollTimeout::MAX);
    }
}
