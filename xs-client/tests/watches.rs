//! Watches with a depth, and events of watches that are gone.

mod support;

use std::sync::{Arc, Mutex};

use support::server::Server;
use support::store::answer;
use support::{device, event};
use xs_client::{Event, Reach, StaleEvents};
use xs_proto::{ErrorCode, Header, MessageType, Reply, Request, WatchEvent};

/// A store that knows a depth on its first `deep` connections, and the payloads of its WATCHes.
fn store(deep: usize) -> (Server, Arc<Mutex<Vec<Vec<u8>>>>) {
    let watches = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let seen = Arc::clone(&watches);
    let (server, _thread) = Server::start(move |connection, peer| {
        while let Some((header, payload)) = peer.next() {
            let kind = header.message_type().unwrap();
            let refused = match Request::parse(kind, &payload) {
                Ok(Request::Watch { depth: Some(_), .. }) => connection >= deep,
                _ => false,
            };
            if kind == MessageType::Watch {
                seen.lock().unwrap().push(payload);
            }
            let reply = if refused { Reply::Error(ErrorCode::Inval) } else { Reply::Ok(kind) };
            peer.answer(header, answer(&reply));
        }
    });
    (server, watches)
}

#[test]
fn depth_is_set_where_the_store_knows_it() {
    let (server, watches) = store(1);
    let mut client = server.client();
    assert_eq!(client.watch_to_depth("backend", "t", 1).unwrap(), Reach::Limited);
    assert_eq!(*watches.lock().unwrap(), [b"backend\0t\x001\0"]);
}

#[test]
fn store_without_depth_gets_a_plain_watch() {
    let (server, watches) = store(0);
    let mut client = server.client();
    assert_eq!(client.watch_to_depth("backend", "t", 1).unwrap(), Reach::Unlimited);
    assert_eq!(*watches.lock().unwrap(), [&b"backend\0t\x001\0"[..], b"backend\0t\0"]);
    client.unwatch("backend", "t").unwrap();
}

#[test]
fn device_gets_a_plain_watch_at_once() {
    let (mut client, kernel) = device::client();
    assert_eq!(client.watch_to_depth("backend", "t", 1).unwrap(), Reach::Unlimited);
    assert_eq!(&kernel.lock().unwrap().writes[0][Header::LEN..], b"backend\0t\0");
}

#[test]
fn reconnected_client_asks_for_its_depth_again() {
    let (server, watches) = store(2);
    let mut client = server.client();
    client.watch("@releaseDomain/7", "gone").unwrap();
    client.watch_to_depth("backend", "t", 0).unwrap();
    watches.lock().unwrap().clear();
    client.reconnect().unwrap();
    let expected = [&b"@releaseDomain/7\0gone\0"[..], b"backend\0t\x000\0"];
    assert_eq!(*watches.lock().unwrap(), expected);
}

#[test]
fn reconnection_to_an_older_store_drops_the_depth() {
    let (server, watches) = store(1);
    let mut client = server.client();
    for n in 0..40 {
        client.watch_to_depth(format!("backend/{n}"), "t", 3).unwrap();
    }
    client.watch("plain", "t").unwrap();
    watches.lock().unwrap().clear();
    client.reconnect().unwrap();
    let watches = watches.lock().unwrap();
    assert_eq!(watches.len(), 40 + 1 + 40);
    let plain = watches.iter().filter(|payload| payload.iter().filter(|b| **b == 0).count() == 2);
    assert_eq!(plain.count(), 41);
}

#[test]
fn events_of_no_watch_are_dropped_if_asked() {
    let (server, _thread) = Server::start(|_, peer| {
        for (path, token) in [
            (&b"backend"[..], &b"t"[..]),
            (b"backend/vif", b"old"),
            (b"backendish", b"t"),
            (b"backend/vif/1/0/state", b"t"),
            (b"/other", b"root"),
        ] {
            peer.send(&event(path, token));
        }
        while let Some((header, _)) = peer.next() {
            peer.answer(header, answer(&Reply::Ok(header.message_type().unwrap())));
        }
    });
    for (treatment, expected) in [
        (StaleEvents::Kept, &[&b"backend"[..], b"backend/vif", b"backendish"][..]),
        (StaleEvents::Dropped, &[b"backend", b"backend/vif/1/0/state", b"/other"]),
    ] {
        let mut client = server.client();
        client.set_stale_events(treatment);
        client.watch("backend", "t").unwrap();
        client.watch("/", "root").unwrap();
        for path in expected {
            match client.wait_event(None).unwrap() {
                Some(Event::Watch(WatchEvent { path: came, .. })) => assert_eq!(came, *path),
                other => panic!("{other:?}"),
            }
        }
    }
}
