//! Faults that broke other clients of the store, each as a test of this one.

mod support;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use support::server::Server;
use support::store::{Store, answer};
use support::{device, event, message};
use xs_client::{
    Batch, Client, Disconnected, Error, Event, Outcome, Quirks, Socket, Stream, Transport,
    TransportError, WaitFor,
};
use xs_proto::{Decoder, ErrorCode, FrameError, Header, MessageType, Reply, Request, WatchEvent};

fn watch_event<'a>(path: &'a [u8], token: &'a [u8]) -> Option<Event<'a>> {
    Some(Event::Watch(WatchEvent { path, token }))
}

#[test]
fn unwatch_sends_the_path_before_the_token() {
    let (mut client, kernel) = device::client();
    client.watch("backend", "token").unwrap();
    client.unwatch("backend", "token").unwrap();
    let kernel = kernel.lock().unwrap();
    assert_eq!(&kernel.writes[1][Header::LEN..], b"backend\0token\0");
    assert!(kernel.watches.is_empty());
}

#[test]
fn too_long_length_from_the_wire_ends_the_connection() {
    for len in [4097, 1 << 20, u32::MAX] {
        let (server, _thread) = Server::start(move |_, peer| {
            let (request, _) = peer.next().unwrap();
            let kind = MessageType::Read.to_wire();
            peer.send(&Header { kind, req_id: request.req_id, tx_id: 0, len }.emit());
            peer.next();
        });
        let mut client = server.client();
        let error = client.read("a").unwrap_err();
        let Error::Disconnected(Disconnected::Frame(FrameError { len: told })) = error else {
            panic!("{error:?}");
        };
        assert_eq!(told, len);
        assert!(client.as_fd().is_none());
        assert!(matches!(client.read("a"), Err(Error::Disconnected(Disconnected::Frame(_)))));
    }
}

/// Counts how often a socket is read, written and polled.
struct Counted(Socket, Arc<AtomicUsize>);

impl Transport for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.write(bytes)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_fd()
    }

    fn quirks(&self) -> &Quirks {
        self.0.quirks()
    }

    fn close(&mut self) {
        self.0.close();
    }

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        self.0.reopen()
    }

    fn wait(&mut self, what: WaitFor, timeout: Option<Duration>) -> Result<bool, TransportError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.wait(what, timeout)
    }
}

#[test]
fn a_store_that_takes_its_time_is_slept_for() {
    let (server, _thread) = Server::start(|_, peer| {
        while let Some((request, _)) = peer.next() {
            thread::sleep(Duration::from_millis(100));
            peer.answer(request, answer(&Reply::Read(b"value")));
        }
    });
    let calls = Arc::new(AtomicUsize::new(0));
    let socket = Socket::open(server.path()).unwrap();
    let mut client = Client::new(Counted(socket, Arc::clone(&calls)));
    assert_eq!(client.read("a").unwrap(), b"value");
    assert_eq!(calls.load(Ordering::Relaxed), 3, "one write, one poll, one read");
}

#[test]
fn answers_to_nothing_and_types_of_nothing_are_passed_over() {
    let (server, _thread) = Server::start(|_, peer| {
        while let Some((request, _)) = peer.next() {
            let read = MessageType::Read.to_wire();
            peer.send(&message(read, request.req_id.wrapping_add(99), 0, b"of nobody"));
            peer.send(&message(read, 0, 0, b"of nobody"));
            peer.send(&message(MessageType::Error.to_wire(), 0, 0, b"EIO\0"));
            peer.send(&message(20, request.req_id, 0, b"?"));
            peer.send(&message(u32::MAX, request.req_id, 0, b"?"));
            peer.answer(request, answer(&Reply::Read(b"value")));
        }
    });
    let mut client = server.client();
    assert_eq!(client.read("a").unwrap(), b"value");
    assert_eq!(client.oddities().stray_answers, 3);
    assert_eq!(client.oddities().unknown_types, 2);
}

#[test]
fn an_event_with_a_token_nobody_gave_is_an_event() {
    let (server, _thread) = Server::start(|_, peer| {
        peer.send(&event(b"a", b"never heard of"));
        peer.next();
    });
    let mut client = server.client();
    let got = client.wait_event(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(got, watch_event(b"a", b"never heard of"));
}

#[test]
fn an_event_that_makes_no_sense_becomes_a_resync() {
    let (server, _thread) = Server::start(|_, peer| {
        peer.send(&message(MessageType::WatchEvent.to_wire(), 0, 0, b"no token"));
        peer.next();
    });
    let mut client = server.client();
    let got = client.wait_event(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(got, Some(Event::Resync));
}

#[test]
fn events_are_known_by_their_type_whatever_their_ids() {
    let (server, _thread) = Server::start(|_, peer| {
        while let Some((request, _)) = peer.next() {
            let kind = MessageType::WatchEvent.to_wire();
            peer.send(&message(kind, request.req_id, request.tx_id, b"path\0token\0"));
            peer.answer(request, answer(&Reply::Read(b"value")));
        }
    });
    let mut client = server.client();
    assert_eq!(client.read("a").unwrap(), b"value");
    assert_eq!(client.next_event(), watch_event(b"path", b"token"));
}

#[test]
fn events_that_nobody_takes_become_one_resync_and_memory_stays() {
    let (server, _thread) = Server::start(|_, peer| {
        let path = [b'a'; 1000];
        for _ in 0..5000 {
            peer.send(&event(&path, b"token"));
        }
        let mut store = Store::default();
        peer.serve(&mut store, usize::MAX);
    });
    let mut client = server.client();
    client.write("a", "v").unwrap();
    assert!(client.oddities().dropped_events > 3000);
    assert_eq!(client.next_event(), Some(Event::Resync));
    assert_eq!(client.next_event(), None);
    // And after that events are events again.
    client.watch("b", "t").unwrap();
    assert_eq!(client.wait_event(None).unwrap(), watch_event(b"b", b"t"));
}

#[test]
fn receive_returns_though_the_store_never_stops_talking() {
    let (server, _thread) =
        Server::start(|_, peer| while peer.try_send(&event(&[b'a'; 3000], b"token")) {});
    let mut client = server.client();
    client.wait_event(None).unwrap();
    for _ in 0..10 {
        client.receive().unwrap();
    }
}

/// An end of a pair of sockets with the smallest buffers.
struct Narrow(UnixStream);

impl Transport for Narrow {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        Ok(self.0.read(buffer)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        Ok(self.0.write(bytes)?)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn quirks(&self) -> &Quirks {
        &Quirks::SOCKET
    }

    fn close(&mut self) {}

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        Ok(Stream::Fresh)
    }
}

#[test]
fn a_store_that_must_be_read_before_it_reads_is_read() {
    let (mine, mut peers) = UnixStream::pair().unwrap();
    for end in [&mine, &peers] {
        setsockopt(&end, sockopt::SndBuf, &2048).unwrap();
    }
    mine.set_nonblocking(true).unwrap();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let mut client = Client::new(Narrow(mine));
        let mut batch = Batch::new();
        for i in 0..64 {
            batch.write(format!("data/{i}"), [b'x'; 4000]);
        }
        client.run(&mut batch).unwrap();
        let answered = (0..64).filter(|i| batch.reply(*i).is_ok()).count();
        let mut events = 0;
        while client.next_event().is_some() {
            events += 1;
        }
        done.send((answered, events)).unwrap();
    });

    // Before it reads another request, the store writes ten messages, and sleeps until the
    // client has made room for them.
    let mut decoder = Decoder::new();
    let mut answered = 0;
    while answered < 64 {
        (0..10).for_each(|_| peers.write_all(&event(&[b'e'; 900], b"t")).unwrap());
        let len = peers.read(decoder.space()).unwrap();
        decoder.filled(len);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let kind = MessageType::Write.to_wire();
            peers.write_all(&message(kind, frame.header.req_id, 0, b"OK\0")).unwrap();
            answered += 1;
        }
    }
    let (answered, events) = is_done.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(answered, 64);
    assert!(events > 100, "{events} events");
}

#[test]
fn a_part_of_a_directory_has_the_number_22() {
    let (mut client, kernel) = device::client();
    kernel.lock().unwrap().store.scripted.extend([
        support::store::refusal(ErrorCode::TooBig),
        (MessageType::DirectoryPart, b"1\0a\0b\0\0".to_vec()),
    ]);
    assert_eq!(client.directory("backend").unwrap(), [b"a", b"b"]);
    let kernel = kernel.lock().unwrap();
    assert_eq!(kernel.writes[1][..4], [22, 0, 0, 0]);
    assert_eq!(&kernel.writes[1][Header::LEN..], b"backend\x000\0");
}

#[test]
fn a_transaction_that_conflicts_is_run_again() {
    let (mut client, kernel) = device::client();
    kernel.lock().unwrap().store.conflicts = 5;
    client.transaction(|tx| tx.write("a", "v").map(Outcome::Commit)).unwrap();
    assert_eq!(kernel.lock().unwrap().store.commits, 6);
}

#[test]
fn a_transaction_that_always_conflicts_is_not_run_for_ever() {
    let (mut client, kernel) = device::client();
    kernel.lock().unwrap().store.conflicts = u32::MAX;
    let result = client.transaction(|tx| tx.write("a", "v").map(Outcome::Commit));
    assert_eq!(result.unwrap_err().refusal(), Some(&ErrorCode::Again));
    assert_eq!(kernel.lock().unwrap().store.commits, Client::TRANSACTION_TRIES);
}

#[test]
fn events_keep_coming_while_a_transaction_waits_to_be_run_again() {
    let (server, _thread) = Server::start(|_, peer| {
        let mut store = Store { conflicts: 8, ..Store::default() };
        while let Some((header, payload)) = peer.next() {
            peer.send(&event(b"between", b"t"));
            let request = Request::parse(header.message_type().unwrap(), &payload).unwrap();
            let reply = store.answer(header.tx_id, &request);
            peer.answer(header, reply);
        }
    });
    let mut client = server.client();
    client.transaction(|tx| tx.write("a", "v").map(Outcome::Commit)).unwrap();
    let mut events = 0;
    while client.next_event().is_some() {
        events += 1;
    }
    assert_eq!(events, 9 * 3);
}
