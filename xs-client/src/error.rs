//! Errors between a client and the store.

use alloc::sync::Arc;
#[cfg(feature = "std")]
use std::io;

use xs_proto::{ErrorCode, FrameError, MessageType, PathError};

#[cfg(feature = "std")]
use crate::Address;
use crate::TransportError;

/// Why an operation did not succeed.
///
/// After [`Error::Disconnected`] and [`Error::TimedOut`] the connection is closed, and every
/// operation fails until [`Client::reconnect`](crate::Client::reconnect) succeeds. After any
/// other error the connection is as good as before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused the request. The client itself refuses, in the store's words, a
    /// watch that it has already (`EEXIST`), the end of one that it does not have (`ENOENT`)
    /// and what the transport does not allow (`ENOSYS`).
    #[error("the store refuses the request: {0}")]
    Refused(ErrorCode),
    /// The path breaks the store's rules; nothing was sent.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A token or an argument has a NUL in it, where the wire would end it; nothing was sent.
    #[error("a token or an argument has a NUL in it")]
    Nul,
    /// The request does not fit a message; nothing was sent.
    #[error("a request of {len} bytes does not fit the {max} that a message may have here")]
    TooLong {
        /// The payload's length in bytes.
        len: usize,
        /// The most that this transport takes.
        max: usize,
    },
    /// The answer is not one to the request.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The store did not answer in time. The request may have been carried out or not.
    #[error("the store does not answer")]
    TimedOut,
    /// There is no connection.
    #[error("no connection to the store: {0}")]
    Disconnected(#[from] Disconnected),
}

impl Error {
    /// The store's reason, if it was the store that refused.
    #[must_use]
    pub const fn refusal(&self) -> Option<&ErrorCode> {
        match self {
            Self::Refused(code) => Some(code),
            _ => None,
        }
    }

    /// Is it that the node, the watch or the transaction is not there?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.refusal() == Some(&ErrorCode::NoEnt)
    }

    /// Is the connection closed, so that only a reconnection helps?
    #[must_use]
    pub const fn ends_connection(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Disconnected(_))
    }
}

/// Why there is no connection. Kept, and told again at every operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Disconnected {
    /// The store closed it, as it does when it stops or restarts.
    #[error("the store closed it")]
    Closed,
    /// Reading, writing or opening failed.
    #[cfg(feature = "std")]
    #[error(transparent)]
    Io(Arc<io::Error>),
    /// A transport that is not the operating system's failed.
    #[error("{0}")]
    Transport(Arc<dyn core::error::Error + Send + Sync>),
    /// A message of the store was longer than the protocol allows: the stream behind it cannot be
    /// trusted.
    #[error(transparent)]
    Frame(FrameError),
    /// The client closed the connection because the store did not answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The client closed the connection because the store refused a watch that it had before, or
    /// refused to end the watches of before.
    #[error("the store refused a watch that it had before")]
    WatchRefused,
}

impl From<TransportError> for Disconnected {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Closed => Self::Closed,
            #[cfg(feature = "std")]
            TransportError::Io(error) => Self::Io(Arc::new(error)),
            TransportError::Other(error) => Self::Transport(error.into()),
            TransportError::WouldBlock | TransportError::Interrupted => {
                Self::Transport(Arc::new(error))
            }
        }
    }
}

/// An answer that does not fit its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The answer has another type than the request.
    #[error("the store answers {asked:?} with {answered:?}")]
    WrongType {
        /// The request's type.
        asked: MessageType,
        /// The answer's.
        answered: MessageType,
    },
    /// The answer's payload does not fit its type.
    #[error("the store's answer to {0:?} makes no sense")]
    Malformed(MessageType),
    /// A list of children in parts that stops growing, or does not stop.
    #[error("the store's list of children does not end")]
    EndlessDirectory,
}

/// The store was found but could not be opened.
#[cfg(feature = "std")]
#[derive(Debug, thiserror::Error)]
#[error("cannot open the store at {address}: {source}{}", remedy(source))]
pub struct OpenError {
    /// Where it is.
    pub address: Address,
    /// The system's error.
    pub source: io::Error,
}

/// The remedy, where one is known.
#[cfg(feature = "std")]
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; it takes root",
        io::ErrorKind::NotFound => "; is this a Xen domain, and the store running?",
        io::ErrorKind::ConnectionRefused => "; is xenstored running?",
        _ => "",
    }
}
