//! Answers of daemons other than the C xenstored 4.17, each by a scripted store. Source: the rows
//! of docs/xenstore.md, "Answers that differ between daemons".

mod support;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::server::{Peer, Server};
use support::store::answer;
use support::{device, event};
use xs_client::embedded;
use xs_client::{Client, Error, Outcome, ProtocolError};
use xs_proto::{ErrorCode, Features, MessageType, Reply};

type Answer = (MessageType, Vec<u8>);
type Asked = Arc<Mutex<Vec<(MessageType, Vec<u8>)>>>;

/// A store that answers each request as `script` says, and what it was asked.
fn scripted(script: impl Fn(MessageType, &[u8]) -> Answer + Send + 'static) -> (Server, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let (server, _thread) = Server::start(move |_, peer: &mut Peer| {
        while let Some((header, payload)) = peer.next() {
            let kind = header.message_type().unwrap();
            let reply = script(kind, &payload);
            seen.lock().unwrap().push((kind, payload));
            peer.answer(header, reply);
        }
    });
    (server, asked)
}

fn refused(code: ErrorCode) -> Answer {
    answer(&Reply::Error(code))
}

fn payloads(asked: &Asked) -> Vec<Vec<u8>> {
    asked.lock().unwrap().iter().map(|(_, payload)| payload.clone()).collect()
}

#[test]
fn panicking_body_ends_its_transaction() {
    let store = embedded::Store::new();
    let mut client = Client::new(store.connect(7).unwrap());
    for _ in 0..40 {
        let body = catch_unwind(AssertUnwindSafe(|| {
            client.transaction(|_| -> Result<Outcome<()>, Error> { resume_unwind(Box::new(())) })
        }));
        assert!(body.is_err());
    }
    client.transaction(|_| Ok(Outcome::Commit(()))).unwrap();
}

#[test]
fn transaction_0_is_an_error_and_runs_no_body() {
    let (server, asked) = scripted(|kind, _| match kind {
        MessageType::TransactionStart => answer(&Reply::TransactionStart(0)),
        kind => answer(&Reply::Ok(kind)),
    });
    let mut runs = 0;
    let result = server.client().transaction(|tx| {
        runs += 1;
        tx.write("a", "v").map(Outcome::Commit)
    });
    let wrong = ProtocolError::Malformed(MessageType::TransactionStart);
    assert!(matches!(result, Err(Error::Protocol(error)) if error == wrong), "{result:?}");
    assert_eq!(runs, 0);
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn watch_that_the_store_forgot_can_be_set_again() {
    let (server, asked) = scripted(|kind, _| match kind {
        MessageType::Unwatch => refused(ErrorCode::NoEnt),
        kind => answer(&Reply::Ok(kind)),
    });
    let mut client = server.client();
    client.watch("backend", "token").unwrap();
    assert!(client.unwatch("backend", "token").unwrap_err().is_missing());
    client.watch("backend", "token").unwrap();
    let kinds: Vec<_> = asked.lock().unwrap().iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [MessageType::Watch, MessageType::Unwatch, MessageType::Watch]);
}

#[test]
fn refused_unwatch_keeps_the_watch() {
    let (server, _) = scripted(|kind, _| match kind {
        MessageType::Unwatch => refused(ErrorCode::Io),
        kind => answer(&Reply::Ok(kind)),
    });
    let mut client = server.client();
    client.watch("backend", "token").unwrap();
    client.unwatch("backend", "token").unwrap_err();
    let again = client.watch("backend", "token").unwrap_err();
    assert_eq!(again.refusal(), Some(&ErrorCode::Exist));
}

#[test]
fn directory_parts_may_end_within_a_name() {
    let (mut client, kernel) = device::client();
    let part = |names: &str| (MessageType::DirectoryPart, format!("7\0{names}").into_bytes());
    kernel.lock().unwrap().store.scripted.extend([
        refused(ErrorCode::TooBig),
        part("vif\0v"),
        part("bd"),
        part("\0qdisk\0"),
        part("\0"),
    ]);
    assert_eq!(client.directory("backend").unwrap(), [&b"vif"[..], b"vbd", b"qdisk"]);
    let kernel = kernel.lock().unwrap();
    assert!(kernel.writes[2].ends_with(b"backend\x005\0"), "the second part begins behind v");
    assert!(kernel.writes[4].ends_with(b"backend\x0014\0"));
}

#[test]
fn watch_acknowledged_with_eight_bytes_is_set() {
    let (server, _) = scripted(|kind, _| (kind, b"OK\0\0\0\0\0\0".to_vec()));
    let mut client = server.client();
    client.watch("backend", "token").unwrap();
    client.unwatch("backend", "token").unwrap();
}

/// The forms of a request without arguments, as each daemon takes them.
#[test]
fn features_are_asked_in_the_form_that_the_daemon_takes() {
    // The refusal of the NUL, if any; the caller's result; the payloads sent.
    let (nul, empty) = (b"\0".to_vec(), b"".to_vec());
    for (refusal, result, sent) in [
        // A daemon that takes the NUL for no argument.
        (None, Some(5), vec![nul.clone()]),
        // The newest C xenstored, to a guest and to domain 0.
        (Some(ErrorCode::Acces), Some(5), vec![nul.clone(), empty.clone()]),
        (Some(ErrorCode::Inval), Some(5), vec![nul.clone(), empty]),
        // The C xenstored 4.17 and oxenstored, which would never answer the empty form.
        (Some(ErrorCode::NoSys), None, vec![nul]),
    ] {
        let (server, asked) = scripted(move |kind, payload| match (&refusal, payload, kind) {
            (Some(code), [0], _) => refused(code.clone()),
            (_, _, MessageType::GetFeature) => answer(&Reply::GetFeature(5)),
            _ => (kind, b"nodes watches\0".to_vec()),
        });
        let mut client = server.client();
        assert_eq!(client.features(None).ok().map(Features::bits), result);
        assert_eq!(payloads(&asked), sent);
        let names = result.map(|_| vec![b"nodes".to_vec(), b"watches".to_vec()]);
        assert_eq!(client.quota_names().ok(), names);
        assert_eq!(payloads(&asked), [sent.clone(), sent].concat());
    }
}

#[test]
fn refused_features_of_a_domain_are_asked_once() {
    let (server, asked) = scripted(|_, _| refused(ErrorCode::Inval));
    assert!(server.client().features(Some(3)).is_err());
    assert_eq!(payloads(&asked), [b"3\0"]);
}

#[test]
fn interrupt_ends_the_wait_for_an_event() {
    let (server, _thread) = Server::start(|_, peer| {
        peer.send(&event(b"a", b"t"));
        peer.next();
    });
    let mut client = server.client();
    let (interrupt, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    client.set_interrupt(interrupt.into());
    assert!(client.wait_event(None).unwrap().is_some());
    let before = Instant::now();
    assert!(client.wait_event(Some(Duration::from_millis(30))).unwrap().is_none());
    assert!(before.elapsed() >= Duration::from_millis(30));

    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        other.write_all(b"!").unwrap();
        other
    });
    assert!(client.wait_event(None).unwrap().is_none());
    assert!(client.wait_event(None).unwrap().is_none(), "as long as it is readable");
    drop(thread.join());
}

#[test]
fn fifteen_clients_change_one_node_and_none_gives_up() {
    const CLIENTS: usize = 15;
    const BODIES: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let store = embedded::Store::new();
    let path = dir.path().join("socket");
    let _server = store.serve(&path, 0).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let address = xs_client::Address::Socket(path.clone());
                let mut client = Client::open(address).unwrap();
                client.set_transaction_tries(1000);
                for _ in 0..BODIES {
                    client.transaction(increment).unwrap();
                }
            });
        }
    });
    let mut client = Client::new(store.connect(0).unwrap());
    let total = (CLIENTS * BODIES).to_string();
    assert_eq!(client.read("/counter").unwrap(), total.as_bytes());
}

fn increment(tx: &mut xs_client::Transaction<'_>) -> Result<Outcome<()>, Error> {
    let value = match tx.read("/counter") {
        Ok(value) => String::from_utf8(value).unwrap().parse().unwrap(),
        Err(error) if error.is_missing() => 0,
        Err(error) => return Err(error),
    };
    tx.write("/counter", (value + 1_u32).to_string())?;
    Ok(Outcome::Commit(()))
}

#[test]
fn caller_chooses_how_often_a_transaction_is_tried() {
    for tries in [1, 3, 20] {
        let (mut client, kernel) = device::client();
        kernel.lock().unwrap().store.conflicts = u32::MAX;
        client.set_transaction_tries(tries);
        client.transaction(|tx| tx.write("a", "v").map(Outcome::Commit)).unwrap_err();
        assert_eq!(kernel.lock().unwrap().store.commits, tries);
    }
}

#[test]
fn embedded_store_knows_commands_of_the_daemon() {
    let store = embedded::Store::new();
    let mut client = Client::new(store.connect(0).unwrap());
    let mut say = |words: &[&str]| {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        client.control(&words).map(|text| String::from_utf8(text).unwrap())
    };
    let help = say(&["help"]).unwrap();
    assert!(help.ends_with("help\t\n\0"), "{help:?}");
    for words in [&["check"][..], &["log", "on"], &["log", "off"], &["print", "hello"]] {
        assert_eq!(say(words).unwrap(), "OK\0", "{words:?}");
    }
    assert_eq!(say(&["quota", "set", "nodes", "77"]).unwrap(), "OK\0");
    assert!(say(&["quota"]).unwrap().contains("nodes            :       77 Nodes per domain\n"));
    assert!(say(&["quota", "0"]).unwrap().starts_with("Domain 0:\nnodes           : "));
    for words in [&["log"][..], &["log", "x"], &["quota", "set", "x", "1"], &["live-update"], &[""]]
    {
        let refusal = say(words).unwrap_err();
        assert_eq!(refusal.refusal(), Some(&ErrorCode::Inval), "{words:?}");
    }
    assert!(say(&["quota", "9"]).unwrap_err().is_missing());
}

#[test]
fn interrupt_ends_the_wait_for_a_store_that_has_only_events() {
    let (server, _thread) = Server::start(|_, peer| {
        peer.next();
        while peer.try_send(&event(b"a", b"t")) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut client = server.client();
    client.set_timeout(Duration::from_secs(3600));
    let (interrupt, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    client.set_interrupt(interrupt.into());
    other.write_all(b"!").unwrap();
    assert!(matches!(client.read("node"), Err(Error::TimedOut)));
}

#[test]
fn interrupt_ends_the_wait_for_a_store_that_answers_slowly() {
    const REQUESTS: usize = 10_000;
    let (server, asked) = scripted(|_, _| {
        std::thread::sleep(Duration::from_millis(100));
        answer(&Reply::Read(b"1"))
    });
    let mut client = server.client();
    let (interrupt, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    client.set_interrupt(interrupt.into());
    other.write_all(b"!").unwrap();
    let mut batch = xs_client::Batch::new();
    for _ in 0..REQUESTS {
        batch.read("node");
    }
    assert!(matches!(client.run(&mut batch), Err(Error::TimedOut)));
    assert!(asked.lock().unwrap().len() < REQUESTS);
}
