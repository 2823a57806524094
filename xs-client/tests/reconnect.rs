//! A client whose store goes away and comes back.

mod support;

use std::time::{Duration, Instant};

use support::event;
use support::server::Server;
use support::store::Store;
use xs_client::{Address, Client, Disconnected, Error, Event, Outcome};
use xs_proto::WatchEvent;

#[test]
fn a_reconnected_client_has_its_watches_and_one_resync() {
    let (server, _thread) = Server::start(|nth, peer| {
        let mut store = Store::default();
        if nth == 0 {
            peer.serve(&mut store, 2);
            peer.send(&event(b"backend/vif", b"t"));
            return;
        }
        // The client sets both watches again, in their order, before any other request.
        for expected in [&b"backend\0t\0"[..], b"@releaseDomain\0gone\0"] {
            let (header, payload) = peer.next().unwrap();
            assert_eq!(payload, expected);
            // An event behind the last answer would be one of the new connection.
            peer.send(&event(b"backend", b"t"));
            peer.answer(
                header,
                support::store::answer(&xs_proto::Reply::Ok(header.message_type().unwrap())),
            );
        }
        peer.serve(&mut store, usize::MAX);
    });
    let mut client = server.client();
    client.watch("backend", "t").unwrap();
    client.watch("@releaseDomain", "gone").unwrap();
    let error = loop {
        if let Err(error) = client.receive() {
            break error;
        }
    };
    assert!(matches!(error, Error::Disconnected(Disconnected::Closed)), "{error}");
    assert!(client.as_fd().is_none());
    assert!(matches!(client.read("a"), Err(Error::Disconnected(Disconnected::Closed))));
    assert!(matches!(client.watch("a", "b"), Err(Error::Disconnected(Disconnected::Closed))));
    assert!(matches!(client.receive(), Err(Error::Disconnected(Disconnected::Closed))));

    client.reconnect().unwrap();
    assert_eq!(client.next_event(), Some(Event::Resync));
    client.write("a", "v").unwrap();
    client.watch("new", "t").unwrap();
    assert_eq!(
        client.wait_event(None).unwrap(),
        Some(Event::Watch(WatchEvent { path: b"new", token: b"t" }))
    );
}

#[test]
fn reconnecting_to_nobody_fails_and_can_be_tried_again() {
    let server = Server::absent();
    let first = server.listen(1, |_, peer| peer.serve(&mut Store::default(), 1));
    let mut client = server.client();
    client.watch("backend", "t").unwrap();
    first.join().unwrap();
    assert!(client.read("a").unwrap_err().ends_connection());
    for _ in 0..3 {
        let error = client.reconnect().unwrap_err();
        assert!(matches!(error, Error::Disconnected(Disconnected::Io(_))), "{error}");
    }
    let _second = server.listen(1, |_, peer| peer.serve(&mut Store::default(), usize::MAX));
    client.reconnect().unwrap();
    assert_eq!(client.next_event(), Some(Event::Resync));
    client.unwatch("backend", "t").unwrap();
}

#[test]
fn a_transaction_is_lost_with_its_connection() {
    let (server, _thread) =
        Server::start(|nth, peer| peer.serve(&mut Store::default(), if nth == 0 { 2 } else { 9 }));
    let mut client = server.client();
    let result = client.transaction(|tx| {
        tx.write("a", "v")?;
        Ok(Outcome::Commit(()))
    });
    assert!(result.unwrap_err().ends_connection());
    client.reconnect().unwrap();
    client.transaction(|tx| tx.write("a", "v").map(Outcome::Commit)).unwrap();
}

#[test]
fn events_that_came_before_the_end_can_still_be_taken() {
    let (server, _thread) = Server::start(|_, peer| peer.send(&event(b"last", b"t")));
    let mut client = server.client();
    let expected = Some(Event::Watch(WatchEvent { path: b"last", token: b"t" }));
    assert_eq!(client.wait_event(None).unwrap(), expected);
    let error = client.wait_event(None).unwrap_err();
    assert!(matches!(error, Error::Disconnected(Disconnected::Closed)), "{error}");
}

#[test]
fn events_do_not_keep_a_silent_store_from_timing_out() {
    let (server, _thread) = Server::start(|_, peer| {
        peer.next();
        while peer.try_send(&event(b"a", b"t")) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let mut client = server.client();
    client.set_timeout(Duration::from_millis(100));
    let before = Instant::now();
    assert!(matches!(client.read("a"), Err(Error::TimedOut)));
    assert!(before.elapsed() >= Duration::from_millis(100));
    assert!(matches!(client.read("a"), Err(Error::Disconnected(Disconnected::TimedOut))));
}

#[test]
fn waiting_for_an_event_ends_in_time() {
    let (server, _thread) = Server::start(|_, peer| {
        peer.next();
    });
    let mut client = server.client();
    let before = Instant::now();
    assert_eq!(client.wait_event(Some(Duration::from_millis(30))).unwrap(), None);
    assert!(before.elapsed() >= Duration::from_millis(30));
    assert_eq!(client.wait_event(Some(Duration::ZERO)).unwrap(), None);
}

#[test]
fn a_store_that_is_not_there_says_where_and_why() {
    let server = Server::absent();
    let message = Client::open(Address::Socket(server.path())).unwrap_err().to_string();
    assert!(message.contains(server.path().to_str().unwrap()), "{message}");
}
