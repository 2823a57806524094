//! The thread that carries bytes between sockets and the store.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use xs_proto::{Decoder, FrameError, Header};

use super::connection::ConnectionId;
use super::domain::PRIVILEGED;
use super::state::{Outcome, State};

/// Tells the reactors of a store apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReactorId(u64);

impl ReactorId {
    #[cfg(test)]
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }
}

/// A reactor's mailbox. The store puts in the connections that have output to send or are
/// closed.
#[derive(Debug)]
pub(super) struct Mailbox {
    posted: Vec<ConnectionId>,
    control: Arc<Control>,
}

impl Mailbox {
    /// Leaves word. A reactor that is awake need not be woken.
    pub(super) fn post(&mut self, id: ConnectionId, awake: bool) {
        if self.posted.is_empty() && !awake {
            self.control.wake();
        }
        self.posted.push(id);
    }
}

/// The state that a reactor's thread shares with its owner.
#[derive(Debug)]
struct Control {
    wakeup: EventFd,
    stop: AtomicBool,
    /// Streams that wait to be served.
    arrivals: Mutex<Vec<(ConnectionId, UnixStream)>>,
}

impl Control {
    fn wake(&self) {
        // Fails only if the counter is full, and then the thread is awake already.
        let _ = self.wakeup.write(1);
    }
}

/// A running thread; dropping it closes its connections and waits until it has ended.
#[derive(Debug)]
pub(super) struct Reactor {
    id: ReactorId,
    state: Arc<Mutex<State>>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Reactor {
    /// Starts the thread, which accepts connections of a domain from the listener, if any.
    pub(super) fn start(
        state: Arc<Mutex<State>>,
        listener: Option<(UnixListener, u16)>,
    ) -> io::Result<Self> {
        let wakeup = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wakeup, EpollEvent::new(EpollFlags::EPOLLIN, WAKEUP))?;
        if let Some((listener, _)) = &listener {
            listener.set_nonblocking(true)?;
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        }
        let stop = AtomicBool::new(false);
        let control = Arc::new(Control { wakeup, stop, arrivals: Mutex::default() });
        let id = {
            let mut state = lock(&state);
            state.last_reactor += 1;
            let id = ReactorId(state.last_reactor);
            state.reactors.insert(id, Mailbox { posted: Vec::new(), control: control.clone() });
            id
        };
        let peers = HashMap::new();
        let (state_there, control_there) = (state.clone(), control.clone());
        let body = Loop {
            id,
            state: state_there,
            control: control_there,
            epoll,
            listener,
            peers,
            delayed: Vec::new(),
        };
        let thread = thread::Builder::new().name("xenstored".into()).spawn(move || body.run())?;
        Ok(Self { id, state, control, thread: Some(thread) })
    }

    /// Serves one end of a stream as a connection of a domain.
    pub(super) fn serve(&self, stream: UnixStream, domid: u16) -> io::Result<ConnectionId> {
        stream.set_nonblocking(true)?;
        let id = lock(&self.state).open(domid, self.id);
        self.control.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push((id, stream));
        self.control.wake();
        Ok(id)
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::SeqCst);
        self.control.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The store, even if a thread that held it has panicked: a test that failed must not make
/// others hang.
pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No connection has these numbers: connections are counted from 1.
const WAKEUP: u64 = 0;
const LISTENER: u64 = u64::MAX;

/// How much is taken from the store for one write.
const BATCH: usize = 64 * 1024;

/// Replies that may wait for a client of domain 0 before no more of its requests are read.
const PRIVILEGED_OUTSTANDING: usize = 1024;

struct Loop {
    id: ReactorId,
    state: Arc<Mutex<State>>,
    control: Arc<Control>,
    epoll: Epoll,
    listener: Option<(UnixListener, u16)>,
    peers: HashMap<ConnectionId, Peer>,
    /// Connections with a delayed request, and when that is due.
    delayed: Vec<(Instant, ConnectionId)>,
}

/// The socket of a connection.
struct Peer {
    stream: UnixStream,
    decoder: Decoder,
    /// Bytes on their way out; those before `sent` are gone.
    unsent: Vec<u8>,
    sent: usize,
    /// Requests are left in the decoder until the client takes its replies.
    stalled: bool,
    delayed: Option<(Header, Vec<u8>)>,
    /// Is it to be closed once everything is sent?
    closing: bool,
    interest: EpollFlags,
}

impl Peer {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            unsent: Vec::new(),
            sent: 0,
            stalled: false,
            delayed: None,
            closing: false,
            interest: EpollFlags::EPOLLIN,
        }
    }

    const fn takes_requests(&self) -> bool {
        !self.stalled && !self.closing && self.delayed.is_none()
    }
}

impl Loop {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        while !self.control.stop.load(Ordering::SeqCst) {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                // The descriptors are valid: this thread owns them.
                Err(error) => panic!("epoll_wait: {error}"),
            };
            for event in &events[..count] {
                match event.data() {
                    // Only resets the counter.
                    WAKEUP => drop(self.control.wakeup.read()),
                    LISTENER => self.accept(),
                    number => self.serve(ConnectionId::new(number), event.events()),
                }
            }
            self.take_arrivals();
            self.carry_out_delayed();
            self.deliver();
        }
        let mut state = lock(&self.state);
        state.reactors.remove(&self.id);
        self.peers.keys().for_each(|id| state.close(*id));
    }

    fn timeout(&self) -> EpollTimeout {
        let Some((due, _)) = self.delayed.iter().min() else { return EpollTimeout::NONE };
        // Rounded up: waking up early would be to spin until it is due.
        let left = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
    }

    fn accept(&mut self) {
        while let Some((listener, domid)) = &self.listener
            && let Ok((stream, _)) = listener.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                let id = lock(&self.state).open(*domid, self.id);
                self.add(id, stream);
            }
        }
    }

    fn take_arrivals(&mut self) {
        let arrivals = {
            let mut arrivals = self.control.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *arrivals)
        };
        arrivals.into_iter().for_each(|(id, stream)| self.add(id, stream));
    }

    fn add(&mut self, id: ConnectionId, stream: UnixStream) {
        let peer = Peer::new(stream);
        match self.epoll.add(&peer.stream, EpollEvent::new(peer.interest, id.number())) {
            Ok(()) => drop(self.peers.insert(id, peer)),
            Err(_) => lock(&self.state).close(id),
        }
    }

    /// Something happened on a connection's socket.
    fn serve(&mut self, id: ConnectionId, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.send(id);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if events.intersects(EpollFlags::EPOLLIN | gone) && peer.takes_requests() {
            match peer.stream.read(peer.decoder.space()) {
                Ok(0) => return self.remove(id),
                Ok(len) => peer.decoder.filled(len),
                Err(error) if is_temporary(&error) => return,
                Err(_) => return self.remove(id),
            }
            self.take_requests(id);
            self.deliver();
        } else if events.intersects(gone) {
            self.remove(id);
        }
    }

    /// Hands the whole requests that have arrived to the store.
    fn take_requests(&mut self, id: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut state = lock(&self.state);
        state.running = Some(self.id);
        let limit = match state.connections.get(&id).map(|connection| connection.domid) {
            Some(PRIVILEGED) | None => PRIVILEGED_OUTSTANDING,
            Some(_) => state.quota.outstanding,
        };
        while peer.takes_requests() {
            let waiting = state.connections.get(&id).map_or(0, |peer| peer.output.replies());
            if waiting >= limit {
                peer.stalled = true;
                break;
            }
            let frame = match peer.decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(FrameError { .. }) => {
                    peer.closing = true;
                    break;
                }
            };
            match state.receive(id, frame.header, frame.payload) {
                Outcome::Done => {}
                Outcome::Close => peer.closing = true,
                Outcome::Delay(time) => {
                    peer.delayed = Some((frame.header, frame.payload.to_vec()));
                    self.delayed.push((Instant::now() + time, id));
                }
            }
        }
        state.running = None;
        drop(state);
        if self.peers.get(&id).is_some_and(|peer| peer.closing) {
            self.send(id);
        } else {
            self.set_interest(id);
        }
    }

    fn carry_out_delayed(&mut self) {
        let now = Instant::now();
        while let Some(at) = self.delayed.iter().position(|(due, _)| *due <= now) {
            let (_, id) = self.delayed.swap_remove(at);
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if let Some((header, payload)) = peer.delayed.take() {
                lock(&self.state).carry_out(id, header, &payload);
                self.take_requests(id);
            }
        }
    }

    /// Sends what the store has for this thread's clients.
    fn deliver(&mut self) {
        loop {
            let posted = match lock(&self.state).reactors.get_mut(&self.id) {
                Some(mailbox) => std::mem::take(&mut mailbox.posted),
                None => return,
            };
            if posted.is_empty() {
                return;
            }
            posted.into_iter().for_each(|id| self.send(id));
        }
    }

    /// Sends as much as the socket takes. When that is all there is, requests that had to
    /// wait for it go on.
    fn send(&mut self, id: ConnectionId) {
        while let Some(peer) = self.peers.get_mut(&id) {
            if peer.unsent.is_empty() {
                let mut state = lock(&self.state);
                let Some(connection) = state.connections.get_mut(&id) else {
                    drop(state);
                    return self.remove(id);
                };
                connection.output.take(&mut peer.unsent, BATCH);
                if peer.unsent.is_empty() {
                    connection.output.announced = false;
                    break;
                }
            }
            match peer.stream.write(&peer.unsent[peer.sent..]) {
                Ok(len) => peer.sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_temporary(&error) => return self.set_interest(id),
                Err(_) => return self.remove(id),
            }
            if peer.sent == peer.unsent.len() {
                peer.unsent.clear();
                peer.sent = 0;
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.closing {
            self.remove(id);
        } else if std::mem::take(&mut peer.stalled) {
            self.take_requests(id);
        } else {
            self.set_interest(id);
        }
    }

    fn set_interest(&mut self, id: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, peer.takes_requests());
        interest.set(EpollFlags::EPOLLOUT, !peer.unsent.is_empty());
        if std::mem::replace(&mut peer.interest, interest) != interest {
            let mut event = EpollEvent::new(interest, id.number());
            if self.epoll.modify(&peer.stream, &mut event).is_err() {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: ConnectionId) {
        lock(&self.state).close(id);
        // Closing the socket takes it out of the epoll set.
        self.peers.remove(&id);
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
