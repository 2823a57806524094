//! The embedded store, from outside: over sockets and within the process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xs_client::embedded::{Fault, InProcess, Moment, Options, Quota, Server, Store};
use xs_client::{Client, Error, Event, Outcome, Transport, TransportError, WaitFor};
use xs_proto::{Access, ErrorCode, Frame, Header, MessageType, Permission, Request};

/// An expected event comes within this time, on a busy machine too.
const SOON: Option<Duration> = Some(Duration::from_secs(60));

/// A store on a socket, as a domain.
fn served(store: &Store, domid: u16) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = store.serve(directory.path().join("socket"), domid).unwrap();
    (directory, server)
}

fn client(store: &Store, domid: u16) -> Client {
    Client::new(store.connect(domid).unwrap())
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.unwrap_err().refusal().expect("a refusal").clone()
}

fn next_path(client: &mut Client) -> Vec<u8> {
    match client.wait_event(SOON).unwrap() {
        Some(Event::Watch(event)) => event.path.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A raw connection: bytes out, whole messages in.
struct Raw {
    stream: InProcess,
    received: Vec<u8>,
}

impl Raw {
    fn new(store: &Store, domid: u16) -> Self {
        Self { stream: store.connect(domid).unwrap(), received: Vec::new() }
    }

    fn send(&mut self, request: Request<'_>, req_id: u32) {
        let mut bytes = Vec::new();
        request.encode(req_id, 0, &mut bytes).unwrap();
        assert_eq!(self.stream.write(&bytes).unwrap(), bytes.len());
    }

    /// The next message, or `None` once the store has closed the connection.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some(frame) = Frame::parse(&self.received).unwrap() {
                let message = (frame.header, frame.payload.to_vec());
                self.received.drain(..frame.len());
                return Some(message);
            }
            assert!(self.stream.wait(WaitFor::Input, SOON).unwrap(), "nothing comes");
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.received.extend_from_slice(&buffer[..len]),
                Err(error) => assert!(matches!(error, TransportError::WouldBlock), "{error}"),
            }
        }
    }
}

#[test]
fn a_client_within_the_process_reads_writes_and_watches() {
    let store = Store::new();
    let mut toolstack = client(&store, 0);
    let mut watcher = client(&store, 0);
    watcher.watch("/local/domain/3", "w").unwrap();
    assert_eq!(next_path(&mut watcher), b"/local/domain/3");
    toolstack.write("/local/domain/3/name", "guest").unwrap();
    assert_eq!(toolstack.read("/local/domain/3/name").unwrap(), b"guest");
    assert_eq!(next_path(&mut watcher), b"/local/domain/3/name");
    store.rm(b"/local/domain/3").unwrap();
    assert_eq!(next_path(&mut watcher), b"/local/domain/3");
    assert_eq!(store.read(b"/local/domain/3/name"), Err(ErrorCode::NoEnt));
}

#[test]
fn domain_has_relative_paths_and_relative_events() {
    let store = Store::new();
    store.write(b"/local/domain/7/domid", b"7").unwrap();
    store.set_permissions(b"/local/domain/7", b"n7\0").unwrap();
    store.set_permissions(b"/local/domain/7/domid", b"n0\0r7\0").unwrap();
    let mut guest = client(&store, 7);
    assert_eq!(guest.read("domid").unwrap(), b"7");
    assert_eq!(refusal(guest.write("domid", "8")), ErrorCode::Acces);
    guest.watch("backend", "b").unwrap();
    assert_eq!(next_path(&mut guest), b"backend");
    store.write(b"/local/domain/7/backend/vif/3/0/state", b"1").unwrap();
    assert_eq!(next_path(&mut guest), b"backend/vif/3/0/state");
    assert_eq!(refusal(guest.read("/tool")), ErrorCode::Acces);
}

#[test]
fn a_domain_that_is_released_loses_its_connection_and_its_nodes() {
    let store = Store::new();
    store.introduce(7);
    store.write(b"/local/domain/7/data", b"").unwrap();
    store.set_permissions(b"/local/domain/7/data", b"n7\0").unwrap();
    let mut watcher = client(&store, 0);
    watcher.watch("@releaseDomain", "r").unwrap();
    assert_eq!(next_path(&mut watcher), b"@releaseDomain");
    let mut guest = client(&store, 7);
    guest.write("data/mine", "x").unwrap();
    assert!(watcher.is_domain_introduced(7).unwrap());

    store.release(7);
    assert_eq!(next_path(&mut watcher), b"@releaseDomain");
    assert!(matches!(guest.read("data/mine"), Err(Error::Disconnected(_))));
    assert_eq!(store.read(b"/local/domain/7/data"), Err(ErrorCode::NoEnt));
    assert!(!watcher.is_domain_introduced(7).unwrap());
}

#[test]
fn a_list_of_children_longer_than_a_message_comes_in_parts() {
    let store = Store::new();
    let names: Vec<String> = (0..1000).map(|i| format!("name-{i:05}")).collect();
    for name in &names {
        store.write(format!("/many/{name}").as_bytes(), b"").unwrap();
    }
    let listed = client(&store, 0).directory("/many").unwrap();
    assert!(listed.iter().map(Vec::as_slice).eq(names.iter().map(|name| name.as_bytes())));
    assert!(store.counts().of(MessageType::DirectoryPart) > 1);
}

#[test]
fn quotas_are_configurable_and_domain_0_has_none() {
    let quota = Quota { nodes: 4, watches: 2, transactions: 1, ..Quota::default() };
    let store = Store::with_options(&Options { quota, ..Options::default() });
    store.mkdir(b"/local/domain/7").unwrap();
    let mut guest = client(&store, 7);
    store.set_permissions(b"/local/domain/7", b"n7\0").unwrap();
    for name in ["a", "b", "c"] {
        guest.write(name, "").unwrap();
    }
    assert_eq!(refusal(guest.write("d", "")), ErrorCode::NoSpc);
    guest.rm("a").unwrap();
    guest.write("d", "").unwrap();
    assert_eq!(refusal(guest.write("e", "")), ErrorCode::NoSpc);
    assert_eq!(refusal(guest.write("d", vec![1; 2048])), ErrorCode::NoSpc);

    for token in ["1", "2", "3"] {
        guest.watch("a", token).unwrap();
    }
    assert_eq!(refusal(guest.watch("a", "4")), ErrorCode::TooBig);

    let entry = |domid| Permission { domid, access: Access::Read };
    let list: Vec<Permission> = [7, 1, 2, 3, 4, 5].map(entry).to_vec();
    guest.set_permissions("b", &list[..5]).unwrap();
    assert_eq!(refusal(guest.set_permissions("b", &list)), ErrorCode::NoSpc);
    client(&store, 0).set_permissions("/tool", &list).unwrap();
}

#[test]
fn client_that_does_not_read_hinders_no_other() {
    let store = Store::new();
    store.set_permissions(b"/tool", b"r0\0").unwrap();
    let mut lazy = Raw::new(&store, 7);
    let mut sent = 0_u32;
    let mut bytes = Vec::new();
    Request::Directory { path: b"/tool" }.encode(1, 0, &mut bytes).unwrap();
    // Until its own socket takes no more, since the store does not read on.
    let full = Instant::now() + Duration::from_secs(2);
    while Instant::now() < full {
        match lazy.stream.write(&bytes) {
            Ok(len) => {
                assert_eq!(len, bytes.len());
                sent += 1;
            }
            Err(_) => break,
        }
    }
    let mut other = client(&store, 0);
    other.write("/a", "b").unwrap();
    assert_eq!(other.read("/a").unwrap(), b"b");
    for _ in 0..sent {
        assert_eq!(lazy.next().unwrap().1, b"xenstored\0");
    }
}

#[test]
fn too_long_payload_ends_its_own_connection_only() {
    let store = Store::new();
    let mut other = client(&store, 0);
    let mut raw = Raw::new(&store, 0);
    let header = Header { kind: 2, req_id: 1, tx_id: 0, len: 4097 };
    raw.stream.write(&header.emit()).unwrap();
    assert!(raw.next().is_none());
    assert!(other.exists("/tool").unwrap());
}

#[test]
fn dropped_server_closes_connections_and_removes_socket() {
    let store = Store::new();
    let (_directory, server) = served(&store, 0);
    let path = server.path().to_path_buf();
    let mut stream = UnixStream::connect(&path).unwrap();
    let mut bytes = Vec::new();
    Request::Read { path: b"/tool" }.encode(1, 0, &mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
    assert_eq!(store.connections().len(), 1);
    drop(server);
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    assert!(store.connections().is_empty());
    assert!(!path.exists());
    assert!(client(&store, 0).exists("/tool").unwrap());
}

#[test]
fn connection_can_be_cut_before_or_after_each_message() {
    for moment in [Moment::BeforeRequest, Moment::BeforeReply, Moment::AfterReply] {
        for n in 1..=4 {
            let store = Store::new();
            let report = store.inject(Fault::disconnect(moment).nth(n));
            let mut raw = Raw::new(&store, 0);
            // In one write: a store that has closed already would refuse another.
            let mut bytes = Vec::new();
            for i in 1..=4_u32 {
                let path = format!("/n/{i}");
                let request = Request::Write { path: path.as_bytes(), value: b"v" };
                request.encode(i, 0, &mut bytes).unwrap();
            }
            assert_eq!(raw.stream.write(&bytes).unwrap(), bytes.len());
            let replies = std::iter::from_fn(|| raw.next()).count() as u64;
            let done = store.directory(b"/n").map_or(0, |names| names.len() as u64);
            let expected = match moment {
                Moment::BeforeRequest => (n - 1, n - 1),
                Moment::BeforeReply => (n, n - 1),
                Moment::AfterReply => (n, n),
            };
            assert_eq!((done, replies), expected, "{moment:?} {n}");
            assert_eq!((report.matches(), report.strikes()), (n, 1));
        }
    }
}

#[test]
fn errors_strike_what_they_are_asked_to() {
    let store = Store::new();
    let mut toolstack = client(&store, 0);
    let conflict = store.inject(Fault::error(ErrorCode::Again).on(MessageType::TransactionEnd));
    let full = store.inject(
        Fault::error(ErrorCode::NoSpc).on(MessageType::Write).at(|path| path == b"/b").always(),
    );
    let mut rounds = 0;
    toolstack
        .transaction(|transaction| {
            rounds += 1;
            transaction.write("/a", "1")?;
            Ok(Outcome::Commit(()))
        })
        .unwrap();
    assert_eq!(rounds, 2);
    assert_eq!(refusal(toolstack.write("/b", "1")), ErrorCode::NoSpc);
    assert_eq!((conflict.strikes(), full.strikes()), (1, 1));
    store.clear_faults();
    toolstack.write("/b", "1").unwrap();
}

#[test]
fn a_delayed_request_holds_up_its_own_connection_only() {
    // A busy machine may hold up the other one as long: the longest delay counts.
    for delay in [150, 2_000, 20_000].map(Duration::from_millis) {
        let store = Store::new();
        let mut slow = Raw::new(&store, 0);
        let mut other = client(&store, 0);
        store.inject(Fault::delay(delay).of_connection(slow.stream.id()));
        let start = Instant::now();
        slow.send(Request::Write { path: b"/a", value: b"1" }, 1);
        slow.send(Request::Read { path: b"/a" }, 2);
        let is_written = other.exists("/a").unwrap();
        let is_in_time = start.elapsed() < delay;
        assert_eq!(slow.next().unwrap().0.req_id, 1);
        assert!(start.elapsed() >= delay);
        assert_eq!(slow.next().unwrap().1, b"1");
        if is_in_time {
            assert!(!is_written);
            return;
        }
    }
    panic!("the other connection was held up too");
}

#[test]
fn requests_are_counted_by_connection_and_type() {
    let store = Store::new();
    let stream = store.connect(0).unwrap();
    let id = stream.id();
    let mut one = Client::new(stream);
    let mut two = client(&store, 0);
    one.write("/a", "").unwrap();
    one.read("/a").unwrap();
    two.read("/a").unwrap();
    assert_eq!(store.counts().of(MessageType::Read), 2);
    let (_, domid, counts) = store.connections().into_iter().find(|(it, ..)| *it == id).unwrap();
    assert_eq!((domid, counts.total(), counts.of(MessageType::Read)), (0, 2, 1));
}

#[test]
fn a_connection_within_the_process_can_be_opened_anew() {
    let store = Store::new();
    let mut guest = client(&store, 0);
    guest.watch("/a", "t").unwrap();
    store.disconnect(0);
    assert!(matches!(guest.read("/tool"), Err(Error::Disconnected(_))));
    guest.reconnect().unwrap();
    assert!(guest.exists("/tool").unwrap());
}

/// Runs one of Debian's programs against the socket.
fn tool(socket: &PathBuf, name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name)
        .args(arguments)
        .env("XENSTORED_PATH", socket)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name}, of xenstore-utils: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs Debian's xenstore-utils: run .ci/test"]
fn debians_own_programs_work_on_it() {
    let store = Store::new();
    let (_directory, server) = served(&store, 0);
    let socket = server.path().to_path_buf();
    tool(&socket, "xenstore-write", &["/local/domain/7/name", "guest", "/local/domain/7/x/y", "1"]);
    tool(&socket, "xenstore-chmod", &["/local/domain/7", "n0", "r7"]);
    assert_eq!(tool(&socket, "xenstore-read", &["/local/domain/7/name"]), "guest\n");
    assert_eq!(tool(&socket, "xenstore-list", &["/local/domain/7"]), "name\nx\n");
    let listing = tool(&socket, "xenstore-ls", &["-f", "-p", "/local"]);
    assert!(listing.contains("/local/domain/7 = \"\"   (n0,r7)"), "{listing}");
    assert!(listing.contains("/local/domain/7/x/y = \"1\"   (n0)"), "{listing}");
    let watch = Command::new("xenstore-watch")
        .args(["-n", "2", "/local/domain/7/x"])
        .env("XENSTORED_PATH", &socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.counts().of(MessageType::Watch) == 0 {
        assert!(Instant::now() < deadline, "xenstore-watch does not watch");
        std::thread::sleep(Duration::from_millis(2));
    }
    tool(&socket, "xenstore-rm", &["/local/domain/7/x/y"]);
    let seen = String::from_utf8(watch.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(seen, "/local/domain/7/x\n/local/domain/7/x/y\n");
}
