//! A domain's own ring to the store, with no kernel between: for unikernels and stub domains.
//!
//! Source: `xenstore-ring.txt`.

use alloc::boxed::Box;
use core::time::Duration;

use xs_proto::Features;
use xs_proto::ring::{self, Consumer, Producer, Queue, SharedPage};

use super::{Stream, Transport, TransportError, WaitFor};
use crate::Quirks;

/// The event channel between a domain and the store.
pub trait EventChannel: Send {
    /// Signals the store.
    fn notify(&mut self);

    /// Sleeps until the store has signalled since the last call, or `timeout` (none: for ever) is
    /// over. Says whether there was a signal; may say so without one.
    fn wait(&mut self, timeout: Option<Duration>) -> bool;
}

/// The ring in the page that the domain shares with the store.
///
/// A wrong index in the page ends the connection with a [`ring::RingError`], an error that the
/// store has written there with that [`ring::Error`]. [`Client::reconnect`](crate::Client::reconnect)
/// has the ring reset where the store can do that ([`Features::RECONNECTION`]); elsewhere it goes
/// on with the same stream of bytes, after a RESET_WATCHES. A domain that was resumed has a new
/// page and a new port: make a new ring of them, and call
/// [`Client::reconnect_over`](crate::Client::reconnect_over).
#[derive(Debug)]
pub struct Ring<P, E> {
    page: P,
    events: E,
    requests: Producer,
    replies: Consumer,
}

/// How often, and how long each time, to wait for the store to reset the ring.
const RESET_WAITS: u32 = 50;
const RESET_WAIT: Duration = Duration::from_millis(100);

/// The store has not reset the ring in time.
#[derive(Debug, thiserror::Error)]
#[error("the store does not reset the ring")]
struct NotReset;

impl<P: SharedPage + Send, E: EventChannel> Ring<P, E> {
    /// The domain's end of the ring in this page. The event channel leads to the store.
    ///
    /// # Errors
    ///
    /// The page says that a reset is under way, as it does in a domain that Xen itself has
    /// started, and the store does not end it.
    pub fn new(page: P, events: E) -> Result<Self, TransportError> {
        let requests = Producer::attach(&page, Queue::Requests);
        let replies = Consumer::attach(&page, Queue::Replies);
        let mut ring = Self { page, events, requests, replies };
        if ring::Connection::of(&ring.page) == ring::Connection::Reconnecting {
            ring.await_reset()?;
        }
        Ok(ring)
    }

    fn await_reset(&mut self) -> Result<(), TransportError> {
        for _ in 0..RESET_WAITS {
            if ring::Connection::of(&self.page) == ring::Connection::Connected {
                self.requests = Producer::attach(&self.page, Queue::Requests);
                self.replies = Consumer::attach(&self.page, Queue::Replies);
                return Ok(());
            }
            self.events.wait(Some(RESET_WAIT));
        }
        Err(other(NotReset))
    }

    /// Fails if the store has given up the connection.
    fn check(&self) -> Result<(), TransportError> {
        let has_error_field = ring::features(&self.page).contains(Features::ERROR);
        match ring::Error::of(&self.page) {
            Some(error) if has_error_field => Err(other(error)),
            _ => Ok(()),
        }
    }
}

impl<P: SharedPage + Send, E: EventChannel> Transport for Ring<P, E> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        match self.replies.take(&self.page, buffer).map_err(other)? {
            0 => {
                self.check()?;
                Err(TransportError::WouldBlock)
            }
            len => {
                self.events.notify();
                Ok(len)
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        match self.requests.put(&self.page, bytes).map_err(other)? {
            0 => {
                self.check()?;
                Err(TransportError::WouldBlock)
            }
            len => {
                self.events.notify();
                Ok(len)
            }
        }
    }

    fn quirks(&self) -> &Quirks {
        &Quirks::RING
    }

    /// The ring stays as it is: only the store could close it.
    fn close(&mut self) {}

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        if !ring::features(&self.page).contains(Features::RECONNECTION) {
            return Ok(Stream::Continued);
        }
        ring::Connection::request_reset(&self.page);
        self.events.notify();
        self.await_reset()?;
        Ok(Stream::Fresh)
    }

    fn wait(&mut self, what: WaitFor, timeout: Option<Duration>) -> Result<bool, TransportError> {
        let readable = self.replies.readable(&self.page).map_err(other)? > 0;
        let ready = match what {
            WaitFor::Input => readable,
            WaitFor::InputOrRoom => readable || self.requests.room(&self.page).map_err(other)? > 0,
        };
        if ready {
            return Ok(true);
        }
        self.check()?;
        Ok(self.events.wait(timeout))
    }
}

fn other(error: impl core::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError::Other(Box::new(error))
}
