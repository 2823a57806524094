//! The same scenarios on every store, and by every way to it: the embedded one, and the real
//! xenstored by its socket, by a domain's ring and by a file that behaves as
//! `/dev/xen/xenbus` does.

mod support;

use std::time::Duration;

use support::site::Site;
use xs_client::{Batch, Client, Disconnected, Error, Event, Outcome};
use xs_proto::{Access, ErrorCode, Permission};

/// An expected event comes within this time.
const SOON: Option<Duration> = Some(Duration::from_secs(60));
/// An unexpected event does not come within this time.
const NOT_SOON: Option<Duration> = Some(Duration::from_millis(50));

fn values_come_back(site: &Site) {
    let mut client = site.client();
    for value in [&b""[..], b"v", b"a\0b\0", &[0xff; 1500]] {
        client.write(site.path("value"), value).unwrap();
        assert_eq!(client.read(site.path("value")).unwrap(), value);
    }
    // A relative path begins at the client's own /local/domain/N.
    assert_eq!(client.read("data/value").unwrap(), [0xff; 1500]);
}

fn nodes_are_made_and_removed(site: &Site) {
    let mut client = site.client();
    assert!(client.read(site.path("a/b/c")).unwrap_err().is_missing());
    client.mkdir(site.path("a/b/c")).unwrap();
    client.mkdir(site.path("a/b/c")).unwrap();
    assert!(client.exists(site.path("a/b")).unwrap());
    assert_eq!(client.directory(site.path("a")).unwrap(), [b"b"]);
    assert_eq!(client.directory(site.path("a/b/c")).unwrap(), Vec::<Vec<u8>>::new());
    client.rm(site.path("a")).unwrap();
    client.rm(site.path("a")).unwrap();
    assert!(!client.exists(site.path("a/b")).unwrap());
    assert!(client.directory(site.path("a")).unwrap_err().is_missing());
}

fn permissions_come_back(site: &Site) {
    let mut client = site.client();
    client.write(site.path("mine"), "v").unwrap();
    let owner = client.permissions(site.path("mine")).unwrap()[0];
    let list = [owner, Permission { domid: 3, access: Access::Read }];
    client.set_permissions(site.path("mine"), &list).unwrap();
    assert_eq!(client.permissions(site.path("mine")).unwrap(), list);
}

fn a_domain_may_not_touch_what_is_not_its_own(site: &Site) {
    site.toolstack().write("/local/domain/0/secret", "v").unwrap();
    let mut client = site.client();
    let result = client.read("/local/domain/0/secret");
    let written = client.write("/local/domain/0/secret", "w");
    if site.privileged {
        assert_eq!(result.unwrap(), b"v");
        written.unwrap();
    } else {
        assert_eq!(result.unwrap_err().refusal(), Some(&ErrorCode::Acces));
        assert_eq!(written.unwrap_err().refusal(), Some(&ErrorCode::Acces));
    }
}

fn a_batch_of_hundreds_is_answered(site: &Site) {
    let mut client = site.client();
    let mut batch = Batch::new();
    for round in 0..3 {
        batch.clear();
        for i in 0..100 {
            batch.write(site.path(&format!("n/{i}")), format!("{round} {i}"));
        }
        for i in 0..100 {
            batch.read(site.path(&format!("n/{i}")));
        }
        batch.read(site.path("missing"));
        client.run(&mut batch).unwrap();
        for i in 0..100 {
            assert_eq!(batch.reply(i), Ok(&b""[..]));
            assert_eq!(batch.reply(100 + i), Ok(format!("{round} {i}").as_bytes()));
        }
        assert_eq!(batch.reply(200), Err(&ErrorCode::NoEnt));
    }
}

fn a_transaction_is_all_or_nothing(site: &Site) {
    let (mut client, mut other) = (site.client(), site.client());
    client
        .transaction(|tx| {
            tx.write(site.path("t/a"), "1")?;
            tx.write(site.path("t/b"), "2")?;
            assert_eq!(tx.read(site.path("t/a"))?, b"1");
            assert_eq!(tx.directory(site.path("t"))?, [b"a", b"b"]);
            assert!(!other.exists(site.path("t"))?);
            Ok(Outcome::Commit(()))
        })
        .unwrap();
    assert_eq!(other.read(site.path("t/b")).unwrap(), b"2");
    let seen = client.transaction(|tx| {
        tx.rm(site.path("t"))?;
        Ok(Outcome::Abort(tx.exists(site.path("t"))?))
    });
    assert!(!seen.unwrap());
    assert!(other.exists(site.path("t")).unwrap());
}

fn a_transaction_that_conflicts_is_run_again(site: &Site) {
    let (mut client, mut other) = (site.client(), site.client());
    client.write(site.path("count"), "1").unwrap();
    let mut runs = 0;
    client
        .transaction(|tx| {
            runs += 1;
            let mut count = tx.read(site.path("count"))?;
            if runs < 3 {
                other.write(site.path("count"), format!("{}", runs + 4))?;
            }
            count.push(b'0');
            tx.write(site.path("count"), count)?;
            Ok(Outcome::Commit(()))
        })
        .unwrap();
    assert_eq!(runs, 3);
    assert_eq!(client.read(site.path("count")).unwrap(), b"60");
}

fn more_transactions_are_refused_than_allowed(site: &Site) {
    fn nested(clients: &mut [Client]) -> Result<(), Error> {
        let Some((first, rest)) = clients.split_first_mut() else {
            return Ok(());
        };
        first.transaction(|_| nested(rest).map(Outcome::Abort))
    }
    let mut clients: Vec<Client> = (0..12).map(|_| site.client()).collect();
    let result = nested(&mut clients);
    assert_eq!(result.is_ok(), site.privileged);
    clients.iter().for_each(|client| assert!(client.is_connected()));
}

fn a_watch_tells_of_changes_until_it_ends(site: &Site) {
    let (mut client, mut other) = (site.client(), site.toolstack());
    let watched = site.path("w");
    client.watch(&watched, "token").unwrap();
    assert_eq!(await_event(&mut client), (watched.clone(), "token".into()));
    other.write(site.path("w/x"), "v").unwrap();
    assert_eq!(await_event(&mut client), (site.path("w/x"), "token".into()));
    other.write(site.path("elsewhere"), "v").unwrap();
    assert_eq!(client.wait_event(NOT_SOON).unwrap(), None);

    let doubled = client.watch(&watched, "token").unwrap_err();
    assert_eq!(doubled.refusal(), Some(&ErrorCode::Exist));
    client.unwatch(&watched, "token").unwrap();
    other.write(site.path("w/x"), "v").unwrap();
    assert_eq!(client.wait_event(NOT_SOON).unwrap(), None);
    assert!(client.unwatch(&watched, "token").unwrap_err().is_missing());
}

fn a_relative_watch_tells_relative_paths(site: &Site) {
    let (mut client, mut other) = (site.client(), site.toolstack());
    client.watch("data", "token").unwrap();
    assert_eq!(await_event(&mut client), ("data".into(), "token".into()));
    other.write(site.path("x/y"), "v").unwrap();
    let (path, _) = await_event(&mut client);
    assert!(["data/x", "data/x/y"].contains(&&*path), "{path}");
}

fn own_changes_are_told_too(site: &Site) {
    let mut client = site.client();
    client.watch(site.path("w"), "token").unwrap();
    await_event(&mut client);
    client.write(site.path("w"), "v").unwrap();
    assert_eq!(await_event(&mut client), (site.path("w"), "token".into()));
}

fn a_slow_watcher_slows_nobody_and_hears_of_the_last_change(site: &Site) {
    let (mut slow, mut other) = (site.client(), site.toolstack());
    slow.watch(site.home, "token").unwrap();
    let mut batch = Batch::new();
    for i in 0..200 {
        batch.write(site.path(&format!("s/{}", i % 50)), i.to_string());
    }
    for _ in 0..5 {
        other.run(&mut batch).unwrap();
    }
    other.write(site.path("last"), "v").unwrap();
    // An operation while events are waiting to be read.
    assert!(slow.exists(site.path("last")).unwrap());
    while await_event(&mut slow).0 != site.path("last") {}
}

fn too_many_watches_are_refused_and_the_connection_lives(site: &Site) {
    let mut client = site.client();
    let mut refused = None;
    for i in 0..200 {
        if let Err(error) = client.watch(site.path(&format!("w{i}")), "token") {
            refused = Some(error.refusal().expect("a refusal, not a broken connection").clone());
            break;
        }
    }
    assert_eq!(refused.is_none(), site.privileged, "{refused:?}");
    client.write(site.path("x"), "v").unwrap();
    // There are those that were made, and not the one that was refused.
    client.unwatch(site.path("w0"), "token").unwrap();
}

fn a_directory_longer_than_a_message_is_read(site: &Site) {
    let (mut client, mut other) = (site.client(), site.toolstack());
    let mut batch = Batch::new();
    for i in 0..600 {
        batch.mkdir(site.path(&format!("long/entry{i:05}")));
    }
    other.run(&mut batch).unwrap();
    assert!((0..600).all(|i| batch.reply(i).is_ok()));
    let names = client.directory(site.path("long"));
    if !site.ocaml {
        let names = names.unwrap();
        assert_eq!(names.len(), 600);
        assert!((0..600).all(|i| names.contains(&format!("entry{i:05}").into_bytes())));
        let in_transaction =
            client.transaction(|tx| tx.directory(site.path("long")).map(Outcome::Commit));
        assert_eq!(in_transaction.unwrap().len(), 600);
    } else if site.privileged {
        // Sent in one message all the same, which is longer than any may be.
        let error = names.unwrap_err();
        assert!(matches!(error, Error::Disconnected(Disconnected::Frame(_))), "{error}");
    } else {
        assert_eq!(names.unwrap_err().refusal(), Some(&ErrorCode::TooBig));
    }
}

fn what_does_not_fit_is_refused_before_it_is_sent(site: &Site) {
    let mut client = site.client();
    let max = client.quirks().payload_max;
    assert_eq!(max, if site.is_device() { 4080 } else { 4096 });
    let error = client.write("data/x", vec![b'x'; max]).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    // The longest that fits is up to the store's own limit of a node's size.
    let longest = vec![b'x'; max - "data/x\0".len()];
    let result = client.write("data/x", &longest);
    if site.privileged && !site.ocaml {
        result.unwrap();
        assert_eq!(client.read("data/x").unwrap(), longest);
    } else {
        assert!(result.unwrap_err().refusal().is_some());
    }
    client.write("data/x", "v").unwrap();
}

fn domains_are_known(site: &Site) {
    let mut client = site.client();
    assert_eq!(client.domain_path(7).unwrap(), b"/local/domain/7");
    if site.privileged {
        assert!(client.is_domain_introduced(0).unwrap());
        assert!(!client.is_domain_introduced(99).unwrap());
        assert!(!client.control(&[b"help"]).unwrap().is_empty());
    } else {
        // Refused by the C daemon; oxenstored says OK, and does nothing.
        assert!(matches!(client.control(&[b"help"]), Ok(_) | Err(Error::Refused(_))));
    }
    // Not of 4.17, but whatever is said to it is an answer.
    assert!(matches!(client.features(None), Ok(_) | Err(Error::Refused(_))));
    assert!(matches!(client.quota_names(), Ok(_) | Err(Error::Refused(_))));
    assert!(client.is_connected());
}

fn a_reconnected_client_has_its_watches(site: &Site) {
    let (mut client, mut other) = (site.client(), site.toolstack());
    for i in 0..40 {
        client.watch(site.path(&format!("w{i}")), "token").unwrap();
    }
    for _ in 0..3 {
        client.reconnect().unwrap();
        assert_eq!(client.wait_event(SOON).unwrap(), Some(Event::Resync));
    }
    other.write(site.path("w31/x"), "v").unwrap();
    // Behind the first event of each watch.
    let expected = (site.path("w31/x"), "token".to_owned());
    while await_event(&mut client) != expected {}
    (0..40).for_each(|i| client.unwatch(site.path(&format!("w{i}")), "token").unwrap());
}

fn closing_ends_watches_so_that_others_may_be_made(site: &Site) {
    for _ in 0..4 {
        let mut client = site.client();
        for i in 0..60 {
            client.watch(site.path(&format!("w{i}")), "token").unwrap();
        }
    }
}

fn reset_watches_is_for_sockets(site: &Site) {
    let mut client = site.client();
    client.watch(site.path("w"), "token").unwrap();
    let result = client.reset_watches();
    if site.is_device() {
        assert_eq!(result.unwrap_err().refusal(), Some(&ErrorCode::NoSys));
    } else {
        result.unwrap();
        client.watch(site.path("w"), "token").unwrap();
    }
}

fn await_event(client: &mut Client) -> (String, String) {
    match client.wait_event(SOON).unwrap() {
        Some(Event::Watch(event)) => (
            String::from_utf8(event.path.to_vec()).unwrap(),
            String::from_utf8(event.token.to_vec()).unwrap(),
        ),
        other => panic!("{other:?} instead of an event"),
    }
}

macro_rules! at_site {
    ($site:ident: $($scenario:ident)*) => {
        mod $site {
            $(#[test] fn $scenario() { super::$scenario(&super::Site::$site()); })*
        }
    };
    ($site:ident, ignored: it $needs:literal: $($scenario:ident)*) => {
        mod $site {
            $(
                #[test]
                #[ignore = $needs]
                fn $scenario() { super::$scenario(&super::Site::$site()); }
            )*
        }
    };
}

macro_rules! at_every_site {
    ($($name:ident)*) => {
        at_site!(embedded: $($name)*);
        at_site!(embedded_domain: $($name)*);
        at_site!(xenstored, ignored: it "needs the real xenstored: run .ci/test": $($name)*);
        at_site!(xenstored_domain, ignored: it "needs the real xenstored: run .ci/test": $($name)*);
        at_site!(xenstored_device, ignored: it "needs the real xenstored: run .ci/test": $($name)*);
        at_site!(oxenstored, ignored: it "needs the real oxenstored: run .ci/test": $($name)*);
        at_site!(oxenstored_device, ignored: it "needs the real oxenstored: run .ci/test": $($name)*);
    };
}

at_every_site! {
    values_come_back
    nodes_are_made_and_removed
    permissions_come_back
    a_domain_may_not_touch_what_is_not_its_own
    a_batch_of_hundreds_is_answered
    a_transaction_is_all_or_nothing
    a_transaction_that_conflicts_is_run_again
    more_transactions_are_refused_than_allowed
    a_watch_tells_of_changes_until_it_ends
    a_relative_watch_tells_relative_paths
    own_changes_are_told_too
    a_slow_watcher_slows_nobody_and_hears_of_the_last_change
    too_many_watches_are_refused_and_the_connection_lives
    a_directory_longer_than_a_message_is_read
    what_does_not_fit_is_refused_before_it_is_sent
    domains_are_known
    a_reconnected_client_has_its_watches
    closing_ends_watches_so_that_others_may_be_made
    reset_watches_is_for_sockets
}
