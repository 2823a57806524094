//! The blocking face of a connection.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;
#[cfg(feature = "std")]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(feature = "std")]
use nix::errno::Errno;
#[cfg(feature = "std")]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xs_proto::{MessageType, Reply, Request};

use crate::connection::{Arrival, Connection, Oddities};
use crate::exchange::{Exchange, Nothing, Rewatch, Single};
#[cfg(feature = "std")]
use crate::transport::{Device, Socket, poll_timeout};
use crate::transport::{Transport, TransportError, WaitFor};
use crate::watches::Watches;
#[cfg(feature = "std")]
use crate::{Address, OpenError, SystemClock};
use crate::{Batch, Clock, Disconnected, Error, Event, Quirks, Stream, operations};

/// A client of the store, on one connection.
///
/// Operations wait for their answer, at most for the [timeout](Self::set_timeout). Events
/// that come meanwhile are queued: after any operation, take them with
/// [`next_event`](Self::next_event) *before* polling [`as_fd`](Self::as_fd) again, which
/// knows nothing of them.
///
/// The client retries conflicting [transactions](Self::transaction), and no other request.
pub struct Client {
    transport: Box<dyn Transport>,
    pub(crate) clock: Box<dyn Clock>,
    connection: Connection,
    pub(crate) watches: Watches,
    /// Why there is no connection any more.
    lost: Option<Disconnected>,
    timeout: Duration,
    pub(crate) transaction_tries: u32,
    stale_events: StaleEvents,
    /// Readable when nobody wants to wait any more.
    #[cfg(feature = "std")]
    interrupt: Option<OwnedFd>,
}

/// The treatment of events of a watch that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaleEvents {
    /// Stale events are given to the caller like others.
    #[default]
    Kept,
    /// Events whose token and path fit no watch of this client are dropped.
    Dropped,
}

impl Client {
    /// How long the store may be silent while a request is without an answer, unless
    /// [`set_timeout`](Self::set_timeout) says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// Opens a connection to the store at `address`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] with the system's error.
    #[cfg(feature = "std")]
    pub fn open(address: Address) -> Result<Self, OpenError> {
        let opened = match &address {
            Address::Device(path) => Device::open(path).map(Self::new),
            Address::Socket(path) => Socket::open(path).map(Self::new),
        };
        opened.map_err(|source| OpenError { address, source })
    }

    /// A client over a stream that is open already.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn new(transport: impl Transport + 'static) -> Self {
        Self::with_clock(transport, SystemClock::start(), Connection::EVENTS)
    }

    /// A client over a stream that is open already, which gives up a silent store by this clock
    /// and keeps at most this many bytes of events ([`Connection::EVENTS`] is ample).
    #[must_use]
    pub fn with_clock(
        transport: impl Transport + 'static,
        clock: impl Clock + 'static,
        events: usize,
    ) -> Self {
        Self {
            connection: Connection::with_events(*transport.quirks(), events),
            transport: Box::new(transport),
            clock: Box::new(clock),
            watches: Watches::default(),
            lost: None,
            timeout: Self::TIMEOUT,
            transaction_tries: Self::TRANSACTION_TRIES,
            stale_events: StaleEvents::default(),
            #[cfg(feature = "std")]
            interrupt: None,
        }
    }

    /// Sets how long the store may be silent while a request is without an answer. After
    /// that the operation fails with [`Error::TimedOut`] and the connection is closed, so that
    /// nothing is left under way of which nobody knows.
    ///
    /// Cannot shorten what [`Device`] says about writing a WATCH.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Ends waits while this descriptor is readable: a signalfd, say, of the signals that ask the
    /// program to end. A silent store is given up within
    /// [`INTERRUPTED`](Self::INTERRUPTED), as if the timeout were over, and
    /// [`wait_event`](Self::wait_event) returns at once. The descriptor is not read from.
    #[cfg(feature = "std")]
    pub fn set_interrupt(&mut self, readable: OwnedFd) {
        self.interrupt = Some(readable);
    }

    /// How long a store may be silent at most when the client is
    /// [interrupted](Self::set_interrupt).
    pub const INTERRUPTED: Duration = Duration::from_secs(1);

    /// The descriptor to poll for input; `None` while there is no connection.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.transport.as_fd()
    }

    /// How the way to the store differs from others.
    #[must_use]
    pub const fn quirks(&self) -> &Quirks {
        self.connection.quirks()
    }

    /// Is there a connection, as far as is known?
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.lost.is_none()
    }

    /// Counts of messages that a client has no use for.
    #[must_use]
    pub const fn oddities(&self) -> Oddities {
        self.connection.oddities()
    }

    /// Takes the oldest event that was read already. No I/O.
    ///
    /// The events of a watch may come before [`watch`](Self::watch) returns, and after
    /// [`unwatch`](Self::unwatch) has, unless [`set_stale_events`](Self::set_stale_events) drops
    /// those.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        self.drop_stale_events();
        self.connection.next_event()
    }

    /// Sets the treatment of events whose watch is gone by the time they are taken, or whose
    /// token is in use again for another path. (An event of a path that is watched anew with the
    /// same token cannot be told apart.) They are kept unless this is called.
    pub const fn set_stale_events(&mut self, treatment: StaleEvents) {
        self.stale_events = treatment;
    }

    fn drop_stale_events(&mut self) {
        if self.stale_events == StaleEvents::Dropped {
            let watches = &self.watches;
            self.connection.drop_events(|event| !watches.cover(event.path, event.token));
        }
    }

    /// Is an event queued? With [`StaleEvents::Dropped`] [`next_event`](Self::next_event) may drop
    /// it all the same. No I/O.
    #[must_use]
    pub fn has_event(&self) -> bool {
        self.connection.has_event()
    }

    /// Reads what is there, without waiting, and queues the events in it.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`].
    pub fn receive(&mut self) -> Result<(), Error> {
        /// A store that never stops talking must not keep the caller from its other
        /// descriptors: bytes that are left make this one readable again.
        const READS: usize = 64;
        self.check()?;
        for _ in 0..READS {
            if self.read_once(&mut Nothing)? != Read::Full {
                break;
            }
        }
        Ok(())
    }

    /// Takes the oldest event; waits for one, for ever or up to `timeout`, if there is none.
    /// `None`: the time is over, or the client is [interrupted](Self::set_interrupt).
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`].
    pub fn wait_event(&mut self, timeout: Option<Duration>) -> Result<Option<Event<'_>>, Error> {
        let deadline = timeout.and_then(|timeout| self.clock.now().checked_add(timeout));
        loop {
            self.drop_stale_events();
            if self.connection.has_event() {
                break;
            }
            self.check()?;
            let left = self.time_left(deadline);
            let read = match self.wait_or_interrupt(left)? {
                Waited::Input => self.read_once(&mut Nothing)?,
                Waited::Unknown => self.read_within(left, &mut Nothing)?,
                Waited::Interrupted | Waited::TooLong => break,
            };
            // A transport may wake up early: the time decides.
            if read == Read::Nothing || read == Read::Empty && left == Some(Duration::ZERO) {
                break;
            }
        }
        Ok(self.connection.next_event())
    }

    /// Sleeps until the store has sent something, or the interrupt is readable, or the time is
    /// over.
    #[cfg(feature = "std")]
    fn wait_or_interrupt(&mut self, timeout: Option<Duration>) -> Result<Waited, Error> {
        let (Some(interrupt), Some(store)) = (&self.interrupt, self.transport.as_fd()) else {
            return Ok(Waited::Unknown);
        };
        let mut both = [interrupt.as_fd(), store].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut both, poll_timeout(timeout)) {
            Ok(_) if both[0].any() == Some(true) => Ok(Waited::Interrupted),
            Ok(0) => Ok(Waited::TooLong),
            Ok(_) | Err(Errno::EINTR) => Ok(Waited::Input),
            Err(errno) => Err(self.lose(TransportError::from(errno).into()).into()),
        }
    }

    #[cfg(not(feature = "std"))]
    fn wait_or_interrupt(&mut self, _: Option<Duration>) -> Result<Waited, Error> {
        Ok(Waited::Unknown)
    }

    /// Lets events come in for this long.
    pub(crate) fn pause(&mut self, duration: Duration) -> Result<(), Error> {
        let deadline = self.clock.now() + duration;
        while self.read_within(self.time_left(Some(deadline)), &mut Nothing)? != Read::Nothing {
            if self.clock.now() >= deadline {
                break;
            }
        }
        Ok(())
    }

    /// Opens the connection anew, once, whether it was lost or not; registers all watches
    /// again, and queues [`Event::Resync`] in the place of all events. Transactions are lost.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`] or [`Error::TimedOut`] if the store is not there;
    /// [`Error::Refused`] if it does not take a watch back, or does not end those of before on a
    /// [continued](Stream::Continued) stream. There is no connection then, and
    /// the watches are kept for the next try, which is the caller's to time.
    pub fn reconnect(&mut self) -> Result<(), Error> {
        self.transport.close();
        let stream = match self.transport.reopen() {
            Ok(stream) => stream,
            Err(error) => return Err(self.lose(error.into()).into()),
        };
        self.connection.reset(stream);
        self.lost = None;
        if stream == Stream::Continued
            && let Err(error) = self.ask(0, &Request::ResetWatches, operations::done)
        {
            // The store still has the old watches and transactions: nothing may go on beside them.
            if !error.ends_connection() {
                self.lose(Disconnected::WatchRefused);
            }
            return Err(error);
        }

        self.rewatch()
    }

    /// Sets all watches on a connection that has none.
    fn rewatch(&mut self) -> Result<(), Error> {
        let watches = core::mem::take(&mut self.watches);
        let mut rewatch = Rewatch::new(watches.as_slice());
        let result = self.drive(&mut rewatch).and_then(|()| match rewatch.refused() {
            None => Ok(()),
            Some(error) => {
                self.lose(Disconnected::WatchRefused);
                Err(error)
            }
        });
        self.watches = watches;
        result
    }

    /// As [`reconnect`](Self::reconnect), over another stream that is open already, such as the
    /// ring in the new page of a domain that was resumed.
    ///
    /// # Errors
    ///
    /// As [`reconnect`](Self::reconnect).
    pub fn reconnect_over(&mut self, transport: impl Transport + 'static) -> Result<(), Error> {
        self.transport.close();
        self.transport = Box::new(transport);
        self.connection.replace_stream(*self.transport.quirks());
        self.lost = None;
        self.rewatch()
    }

    /// Sends all requests of the batch, as many at a time as the window allows, and waits for
    /// all answers, which are in the batch then.
    ///
    /// # Errors
    ///
    /// Errors of the connection. A request that the store refuses is no error here: its reply in
    /// the batch says so.
    pub fn run(&mut self, batch: &mut Batch) -> Result<(), Error> {
        self.run_in(0, batch)
    }

    pub(crate) fn run_in(&mut self, tx_id: u32, batch: &mut Batch) -> Result<(), Error> {
        let mut running = batch.start(tx_id);
        self.drive(&mut running)?;
        running.into_result()
    }

    /// Sends one request and waits for its answer, of which `take` makes the result; `None`
    /// if it is none that the request can have.
    pub(crate) fn ask<T>(
        &mut self,
        tx_id: u32,
        request: &Request<'_>,
        take: impl FnOnce(Reply<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut single = Single::new(tx_id, request, take);
        self.drive(&mut single)?;
        single.into_result()
    }

    /// Sends a request of this type with an empty payload.
    pub(crate) fn ask_nothing<T>(
        &mut self,
        kind: MessageType,
        take: impl FnOnce(Reply<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut single = Single::empty(kind, take);
        self.drive(&mut single)?;
        single.into_result()
    }

    /// Fails if there is no connection, as far as is known. No I/O.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`] with the reason, as often as it is asked for.
    pub fn check(&self) -> Result<(), Error> {
        self.lost.clone().map_or(Ok(()), |lost| Err(lost.into()))
    }

    /// Moves bytes until the exchange is over.
    ///
    /// Reads whenever there is something to read, also while there is more to write: a store
    /// that is stuck writing to this client does not read from it.
    fn drive(&mut self, exchange: &mut dyn Exchange) -> Result<(), Error> {
        self.check()?;
        let mut silence = Silence::default();
        loop {
            exchange.feed(&mut self.connection)?;
            let unsent = self.flush(exchange)?;
            if exchange.is_over() {
                return Ok(());
            }
            let patience = silence.left(self.timeout, &*self.clock);
            #[cfg(feature = "std")]
            let left = match self.interrupt {
                Some(_) => patience.min(Self::INTERRUPTED),
                None => patience,
            };
            #[cfg(not(feature = "std"))]
            let left = patience;
            let outstanding = self.connection.outstanding();
            let read = match (unsent, self.connection.quirks().poll_out) {
                (false, _) => self.read_within(Some(left), exchange)?,
                (true, true) if self.wait(WaitFor::InputOrRoom, Some(left))? => {
                    self.read_once(exchange)?
                }
                (true, true) => Read::Nothing,
                (true, false) => {
                    self.wait(WaitFor::Input, Some(left.min(RETRY_WRITE)))?;
                    self.read_once(exchange)?
                }
            };
            let answered = self.connection.outstanding() < outstanding;
            let over = match read {
                Read::Nothing => left == patience,
                Read::Empty | Read::Some | Read::Full => patience.is_zero() && !answered,
            };
            // A store that has news all the time, or answers slowly, is given up as well.
            let long = read == Read::Nothing || silence.is_long(Self::INTERRUPTED);
            if over || long && !exchange.is_over() && self.is_interrupted() {
                self.lose(Disconnected::TimedOut);
                return Err(Error::TimedOut);
            }
            if answered {
                silence.end();
            }
        }
    }

    /// Writes what is queued, as far as there is room. True if something is left.
    fn flush(&mut self, exchange: &mut dyn Exchange) -> Result<bool, Error> {
        loop {
            let bytes = self.connection.transmit();
            if bytes.is_empty() {
                return Ok(false);
            }
            let error = match self.transport.write(bytes) {
                Ok(0) => TransportError::Closed,
                Ok(len) => {
                    self.connection.transmitted(len);
                    continue;
                }
                Err(TransportError::WouldBlock) => return Ok(true),
                Err(TransportError::Interrupted) => continue,
                Err(error) => error,
            };
            let refused = error.errno().and_then(|no| self.connection.transmit_refused(no));
            match refused {
                Some(answer) => exchange.answer(answer),
                None => return Err(self.lose(error.into()).into()),
            }
        }
    }

    /// Reads what is there and hands out the answers in it.
    fn read_once(&mut self, exchange: &mut dyn Exchange) -> Result<Read, Error> {
        let read = self.transport.read(self.connection.space());
        self.take_in(read.map(Some), exchange)
    }

    /// Waits for something to read first.
    fn read_within(
        &mut self,
        timeout: Option<Duration>,
        exchange: &mut dyn Exchange,
    ) -> Result<Read, Error> {
        let read = self.transport.read_within(self.connection.space(), timeout);
        self.take_in(read, exchange)
    }

    fn take_in(
        &mut self,
        read: Result<Option<usize>, TransportError>,
        exchange: &mut dyn Exchange,
    ) -> Result<Read, Error> {
        let len = match read {
            Ok(None) => return Ok(Read::Nothing),
            Ok(Some(0)) => return Err(self.lose(Disconnected::Closed).into()),
            Ok(Some(len)) => len,
            Err(TransportError::WouldBlock | TransportError::Interrupted) => {
                return Ok(Read::Empty);
            }
            Err(error) => return Err(self.lose(error.into()).into()),
        };
        let room = self.connection.space().len();
        self.connection.filled(len);
        loop {
            match self.connection.next_arrival() {
                Ok(Some(Arrival::Answer(answer))) => exchange.answer(answer),
                Ok(Some(Arrival::Event | Arrival::Ignored)) => {}
                Ok(None) => break,
                Err(error) => return Err(self.lose(Disconnected::Frame(error)).into()),
            }
        }
        Ok(if len == room { Read::Full } else { Read::Some })
    }

    fn wait(&mut self, what: WaitFor, timeout: Option<Duration>) -> Result<bool, Error> {
        match self.transport.wait(what, timeout) {
            Ok(ready) => Ok(ready),
            Err(error) => Err(self.lose(error.into()).into()),
        }
    }

    /// The time that is left until `deadline`; `None` without a deadline.
    fn time_left(&self, deadline: Option<Duration>) -> Option<Duration> {
        deadline.map(|deadline| deadline.saturating_sub(self.clock.now()))
    }

    #[cfg(not(feature = "std"))]
    fn is_interrupted(&self) -> bool {
        false
    }

    #[cfg(feature = "std")]
    fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|fd| {
            let readable = &mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            poll(readable, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        })
    }

    /// Closes the connection, and remembers why.
    fn lose(&mut self, why: Disconnected) -> Disconnected {
        self.transport.close();
        self.lost = Some(why.clone());
        why
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connection", &self.connection)
            .field("watches", &self.watches)
            .field("lost", &self.lost)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// When to write again to a transport that has no room and cannot say when it has.
const RETRY_WRITE: Duration = Duration::from_millis(10);

/// How long the store has not answered. The clock is not read before there is need to wait.
#[derive(Default)]
struct Silence {
    /// Since the last answer.
    since: Option<Duration>,
    /// Since the operation has begun to wait, and how long that was at the last look.
    begin: Option<Duration>,
    length: Duration,
}

impl Silence {
    /// The part of `timeout` that is left.
    fn left(&mut self, timeout: Duration, clock: &dyn Clock) -> Duration {
        let now = clock.now();
        self.length = now.saturating_sub(*self.begin.get_or_insert(now));
        timeout.saturating_sub(now.saturating_sub(*self.since.get_or_insert(now)))
    }

    /// The store has answered.
    const fn end(&mut self) {
        self.since = None;
    }

    /// Has the whole operation taken so long?
    fn is_long(&self, time: Duration) -> bool {
        self.length >= time
    }
}

/// How a wait for the store or the interrupt ended.
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "there is no interrupt"))]
enum Waited {
    /// There may be something to read.
    Input,
    /// There is no interrupt, or the transport has no descriptor: the transport itself waits.
    Unknown,
    /// The interrupt is readable.
    Interrupted,
    /// The time is over.
    TooLong,
}

/// The result of one read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// The time passed and no byte came.
    Nothing,
    Empty,
    Some,
    /// As much as there was room for: there may be more.
    Full,
}
