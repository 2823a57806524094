//! Errors of a transport.

use alloc::boxed::Box;
#[cfg(feature = "std")]
use std::io;

/// Why a transport has moved no bytes.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// There is nothing to read, or no room to write, at this moment.
    #[error("nothing to read, or no room to write")]
    WouldBlock,
    /// A signal came in between: try again.
    #[error("interrupted")]
    Interrupted,
    /// The store has closed the stream.
    #[error("the store closed it")]
    Closed,
    /// The system's error.
    #[cfg(feature = "std")]
    #[error(transparent)]
    Io(io::Error),
    /// An error of a transport that is not the operating system's.
    #[error(transparent)]
    Other(Box<dyn core::error::Error + Send + Sync>),
}

impl TransportError {
    /// The system's number of the error, with which the device refuses a request.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            #[cfg(feature = "std")]
            Self::Io(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

#[cfg(feature = "std")]
impl From<io::Error> for TransportError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::WouldBlock,
            io::ErrorKind::Interrupted => Self::Interrupted,
            // How a socket ends whose store did not read all that was written.
            io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

#[cfg(feature = "std")]
impl From<nix::errno::Errno> for TransportError {
    fn from(errno: nix::errno::Errno) -> Self {
        io::Error::from(errno).into()
    }
}
