//! A client on a domain's ring. The other side is the embedded store; what carries its bytes is a
//! peer that moves random numbers of them, and no more than the ring has room for.

use std::time::Duration;

use xs_client::embedded::{Fault, InProcess, Store};
use xs_client::{
    Batch, Client, Disconnected, Error, Event, EventChannel, Outcome, Ring, SystemClock, Transport,
    TransportError, WaitFor,
};
use xs_proto::ring::{self, Consumer, Field, Page, Producer, Queue, SharedPage};
use xs_proto::{ErrorCode, Features, MessageType};

const DOMAIN: u16 = 7;

/// The store's side of the page, and the event channel to it: the peer works while the client
/// sleeps.
struct Peer {
    page: &'static Page,
    requests: Consumer,
    replies: Producer,
    stream: InProcess,
    /// Bytes of the store that the ring had no room for.
    backlog: Vec<u8>,
    random: u64,
    /// Does the peer answer a request for a reset?
    resets: bool,
}

impl Peer {
    fn new(store: &Store, page: &'static Page, seed: u64) -> Self {
        Self {
            page,
            requests: Consumer::attach(&page, Queue::Requests),
            replies: Producer::attach(&page, Queue::Replies),
            stream: store.connect(DOMAIN).unwrap(),
            backlog: Vec::new(),
            random: seed | 1,
            resets: true,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).unwrap() % limit
    }

    /// Moves a few bytes each way.
    fn step(&mut self) {
        if ring::Connection::of(&self.page) == ring::Connection::Reconnecting {
            if self.resets {
                self.reset();
            }
            return;
        }
        let mut bytes = vec![0; 1 + self.below(300)];
        let len = self.requests.take(&self.page, &mut bytes).unwrap();
        let mut rest = &bytes[..len];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(TransportError::WouldBlock) => {}
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.wait(WaitFor::Input, Some(Duration::from_millis(1))).unwrap();
        let mut bytes = [0; 4096];
        if let Ok(len) = self.stream.read(&mut bytes) {
            self.backlog.extend_from_slice(&bytes[..len]);
        }
        let chunk = self.backlog.len().min(1 + self.below(300));
        let put = self.replies.put(&self.page, &self.backlog[..chunk]).unwrap();
        self.backlog.drain(..put);
    }

    /// The ring reconnection feature of `xenstore-ring.txt`.
    fn reset(&mut self) {
        self.stream.reopen().unwrap();
        self.backlog.clear();
        for field in [
            Field::RequestConsumer,
            Field::RequestProducer,
            Field::ReplyConsumer,
            Field::ReplyProducer,
        ] {
            self.page.store(field, 0);
        }
        self.requests = Consumer::attach(&self.page, Queue::Requests);
        self.replies = Producer::attach(&self.page, Queue::Replies);
        self.page.store(Field::Connection, 0);
    }
}

impl EventChannel for Peer {
    fn notify(&mut self) {}

    fn wait(&mut self, _: Option<Duration>) -> bool {
        self.step();
        true
    }
}

/// A domain that owns its `data`, and the page of its ring. The indexes are about to wrap.
fn domain() -> (Store, &'static Page) {
    let store = Store::new();
    store.introduce(DOMAIN);
    let owner = format!("n{DOMAIN}\0");
    store.mkdir(b"/local/domain/7/data").unwrap();
    store.set_permissions(b"/local/domain/7/data", owner.as_bytes()).unwrap();
    let page: &'static Page = Box::leak(Box::default());
    for field in
        [Field::RequestConsumer, Field::RequestProducer, Field::ReplyConsumer, Field::ReplyProducer]
    {
        page.store(field, u32::MAX - 700);
    }
    (store, page)
}

fn client(store: &Store, page: &'static Page, seed: u64) -> Client {
    Client::new(Ring::new(page, Peer::new(store, page, seed)).unwrap())
}

#[test]
fn operations_work_in_chunks_of_any_size() {
    for seed in 0..8 {
        let (store, page) = domain();
        let mut client = client(&store, page, seed * 77);
        client.watch("data", "t").unwrap();
        let long = vec![b'x'; 2000];
        client.write("data/long", &long).unwrap();
        assert_eq!(client.read("data/long").unwrap(), long);
        let mut batch = Batch::new();
        for n in 0..60 {
            batch.write(format!("data/n/{n}"), n.to_string());
            batch.read(format!("data/n/{n}"));
        }
        client.run(&mut batch).unwrap();
        for n in 0..60 {
            assert_eq!(batch.reply(2 * n + 1), Ok(n.to_string().as_bytes()));
        }
        client.transaction(|tx| tx.rm("data/n").map(Outcome::Commit)).unwrap();
        assert!(!client.exists("data/n/5").unwrap());
        let mut last = Vec::new();
        while let Some(Event::Watch(event)) = client.next_event() {
            last = event.path.to_vec();
        }
        assert!(last.starts_with(b"data"), "{}", last.escape_ascii());
    }
}

#[test]
fn wrong_index_ends_the_connection_with_words() {
    let (store, page) = domain();
    let mut client = client(&store, page, 1);
    client.write("data/a", "v").unwrap();
    page.store(Field::ReplyProducer, 99_999);
    let error = client.read("data/a").unwrap_err();
    assert!(matches!(&error, Error::Disconnected(Disconnected::Transport(_))), "{error:?}");
    assert!(error.to_string().contains("further apart"), "{error}");
}

#[test]
fn error_of_the_store_ends_the_connection_with_words() {
    let (store, page) = domain();
    let mut client = client(&store, page, 1);
    page.store(Field::Error, 3);
    client.write("data/a", "v").unwrap();
    page.store(Field::ServerFeatures, Features::ERROR.bits());
    let error = client.read("data/a").unwrap_err();
    assert!(error.to_string().contains("breaks the protocol"), "{error}");
}

#[test]
fn ring_is_reset_where_the_store_can() {
    let (store, page) = domain();
    page.store(Field::ServerFeatures, Features::RECONNECTION.bits());
    let mut client = client(&store, page, 5);
    client.watch("data", "t").unwrap();
    client.reconnect().unwrap();
    assert_eq!(client.next_event(), Some(Event::Resync));
    assert_eq!(page.load(Field::Connection), 0);
    client.write("data/a", "v").unwrap();
    assert_eq!(client.read("data/a").unwrap(), b"v");
}

#[test]
fn ring_that_is_not_reset_is_an_error_and_can_be_tried_again() {
    let (store, page) = domain();
    page.store(Field::ServerFeatures, Features::RECONNECTION.bits());
    let mut peer = Peer::new(&store, page, 5);
    peer.resets = false;
    let mut client = Client::new(Ring::new(page, peer).unwrap());
    let error = client.reconnect().unwrap_err();
    assert!(error.to_string().contains("does not reset the ring"), "{error}");
    page.store(Field::Connection, 0);
    page.store(Field::ServerFeatures, 0);
    client.reconnect().unwrap();
    client.write("data/a", "v").unwrap();
}

/// Without the feature half messages are completed, in both directions, and the watches of before
/// are ended first.
#[test]
fn stream_goes_on_where_the_store_cannot_reset() {
    for seed in 0..20 {
        let (store, page) = domain();
        let mut client = client(&store, page, seed);
        client.watch("data", "t").unwrap();
        let long = vec![b'y'; 1500];
        client.write("data/long", &long).unwrap();
        // Given up at once: the request is half written, or its answer half read.
        client.set_timeout(Duration::ZERO);
        let given_up = client.write("data/other", &long);
        assert!(matches!(given_up, Err(Error::TimedOut) | Ok(())), "{given_up:?}");
        client.set_timeout(Client::TIMEOUT);
        client.reconnect().unwrap();
        assert_eq!(client.read("data/long").unwrap(), long);
        assert_eq!(client.next_event(), Some(Event::Resync));
        client.write("data/a", "v").unwrap();
        let mut seen = false;
        while let Some(Event::Watch(event)) = client.wait_event(Some(Duration::ZERO)).unwrap() {
            seen |= event.path == b"data/a";
        }
        assert!(seen, "the watch is set again");
    }
}

/// Old watches and transactions that the store keeps would go on beside the new ones.
#[test]
fn refused_reset_of_watches_leaves_no_connection() {
    let (store, page) = domain();
    let mut client = client(&store, page, 1);
    client.watch("data", "t").unwrap();
    let refusal = Fault::error(ErrorCode::Io).on(MessageType::ResetWatches);
    let _report = store.inject(refusal);
    assert_eq!(client.reconnect().unwrap_err().refusal(), Some(&ErrorCode::Io));
    assert!(!client.is_connected());
    client.reconnect().unwrap();
    client.write("data/a", "v").unwrap();
}

#[test]
fn resumed_domain_goes_on_over_its_new_page() {
    let (store, page) = domain();
    let mut client = client(&store, page, 1);
    client.watch("data", "t").unwrap();
    let new: &'static Page = Box::leak(Box::default());
    let ring = Ring::new(new, Peer::new(&store, new, 2)).unwrap();
    client.reconnect_over(ring).unwrap();
    assert_eq!(client.next_event(), Some(Event::Resync));
    client.write("data/a", "v").unwrap();
    assert_eq!(client.read("data/a").unwrap(), b"v");
}

#[test]
fn reset_that_xen_has_begun_is_waited_for() {
    let (store, page) = domain();
    page.store(Field::Connection, 1);
    let mut client = client(&store, page, 1);
    client.write("data/a", "v").unwrap();
}

/// A domain of 2 MB cannot spare 1 MiB for events.
#[test]
fn queue_of_events_is_as_large_as_the_caller_says() {
    let (store, page) = domain();
    let ring = Ring::new(page, Peer::new(&store, page, 3)).unwrap();
    let mut client = Client::with_clock(ring, SystemClock::start(), 100);
    client.watch("data", "t").unwrap();
    for n in 0..20 {
        client.write(format!("data/{n}"), "v").unwrap();
    }
    while client.wait_event(Some(Duration::ZERO)).unwrap() != Some(Event::Resync) {}
}
