//! The stream of bytes that a connection runs over.

#[cfg(feature = "std")]
mod device;
mod error;
mod ring;
#[cfg(feature = "std")]
mod socket;

use core::time::Duration;
#[cfg(feature = "std")]
use std::{io, os::fd::BorrowedFd};

#[cfg(feature = "std")]
use nix::errno::Errno;
#[cfg(feature = "std")]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[cfg(feature = "std")]
pub use self::device::Device;
pub use self::error::TransportError;
pub use self::ring::{EventChannel, Ring};
#[cfg(feature = "std")]
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

/// The stream of a transport that was opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A new stream: the store knows nothing of the old one's requests, watches and transactions.
    Fresh,
    /// The old stream goes on where it was, within a message perhaps, and the store has all of it
    /// in mind. The client ends watches and transactions by RESET_WATCHES.
    Continued,
}

/// A stream of bytes to the store and back.
pub trait Transport: Send {
    /// Reads the bytes that are there, without waiting: [`TransportError::WouldBlock`] if there
    /// are none, `Ok(0)` if the store has closed the stream. `buffer` is never empty.
    ///
    /// # Errors
    ///
    /// All but `WouldBlock` and `Interrupted` end the connection.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError>;

    /// Writes as much as there is room for: `WouldBlock` if that is nothing. With
    /// [`Quirks::one_message_per_write`] the bytes are one message, or the rest of one.
    ///
    /// # Errors
    ///
    /// Every error ends the connection, except `WouldBlock`, `Interrupted` and, with
    /// [`Quirks::refusals_as_errno`], the refusal of this message.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError>;

    /// The descriptor to poll for input; `None` while closed, or if the transport has none.
    #[cfg(feature = "std")]
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How this transport differs from others. Does not change.
    fn quirks(&self) -> &Quirks;

    /// Closes the stream, and with it the store's memory of its watches and transactions.
    fn close(&mut self);

    /// Opens the stream anew, once.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    fn reopen(&mut self) -> Result<Stream, TransportError>;

    /// Sleeps until there is what is waited for, or `timeout` (none: for ever) is over, and
    /// says which. May wake up early and say yes.
    ///
    /// With the feature `std` the default polls [`as_fd`](Self::as_fd).
    /// Without a descriptor there is nothing to sleep on: says no at once, which is right for a
    /// transport that has every answer ready when it is written to.
    ///
    /// # Errors
    ///
    /// The system's.
    #[cfg(feature = "std")]
    fn wait(&mut self, what: WaitFor, timeout: Option<Duration>) -> Result<bool, TransportError> {
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

    /// Sleeps until the condition holds, or `timeout` (none: for ever) is over, and says which.
    /// May wake up early and say yes.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    #[cfg(not(feature = "std"))]
    fn wait(&mut self, what: WaitFor, timeout: Option<Duration>) -> Result<bool, TransportError>;

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
    ) -> Result<Option<usize>, TransportError> {
        if self.wait(WaitFor::Input, timeout)? { self.read(buffer).map(Some) } else { Ok(None) }
    }
}

#[cfg(feature = "std")]
/// In whole milliseconds, rounded up: rounded down, the last one would be spent spinning.
fn in_milliseconds(timeout: Duration) -> Duration {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
}

#[cfg(feature = "std")]
pub(crate) fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    let Some(timeout) = timeout else {
        return PollTimeout::NONE;
    };
    PollTimeout::try_from(in_milliseconds(timeout)).unwrap_or(PollTimeout::MAX)
}

/// The error of every use of a closed transport.
#[cfg(feature = "std")]
fn closed() -> TransportError {
    io::Error::from(io::ErrorKind::NotConnected).into()
}

#[cfg(all(test, feature = "std"))]
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
