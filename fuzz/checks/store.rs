//! The embedded store among clients that send anything: it answers every whole request once,
//! in order, closes who breaks the protocol, and has lost count of nothing in the end.
//!
//! The input: segments of a byte that says whose and which, a byte of length, and so many
//! bytes, which are a request's type, transaction and payload, or just bytes.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use xs_client::embedded::{InProcess, Options, Quota, Store};
use xs_client::{Transport, TransportError, WaitFor};
use xs_proto::{ErrorCode, Frame, Header, MessageType, PermissionList, Reply, Request, WatchEvent};

/// Small, to be reached.
const QUOTA: Quota = Quota {
    nodes: 8,
    node_size: 200,
    watches: 3,
    transactions: 2,
    transaction_nodes: 12,
    permissions: 3,
    outstanding: 4,
};

const DOMAINS: [u16; 4] = [0, 7, 7, 9];

/// What there is to send waits for a segment of the same client without this.
const KEEP: u8 = 8;
/// The bytes are not a request but go as they are.
const RAW: u8 = 4;

pub(crate) fn check(input: &[u8]) {
    let mut site = Site::new();
    let mut rest = input;
    while let [which, len, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        rest = behind;
        let peer = usize::from(which & 3);
        match bytes {
            _ if which & RAW != 0 => site.peers[peer].outgoing.extend_from_slice(bytes),
            [kind, tx_id, payload @ ..] => {
                site.peers[peer].queue(u32::from(*kind), u32::from(tx_id & 3), payload);
            }
            _ => continue,
        }
        if which & KEEP == 0 {
            site.exchange(peer);
        }
    }
    for peer in 0..site.peers.len() {
        site.complete(peer);
    }
    site.check_quotas(1);
    site.check_quotas(3);
    assert_eq!(site.store.counts().total(), site.requests);
}

/// A store and its clients.
struct Site {
    store: Store,
    peers: Vec<Peer>,
    /// Whole requests that were sent.
    requests: u64,
}

struct Peer {
    domid: u16,
    stream: InProcess,
    requests: u32,
    outgoing: Vec<u8>,
    /// Bytes sent of a message that is not whole.
    begun: Vec<u8>,
    /// Requests that the store has not answered.
    unanswered: VecDeque<(Header, Vec<u8>)>,
    incoming: Vec<u8>,
    tokens: HashSet<Vec<u8>>,
}

impl Site {
    fn new() -> Self {
        let store = Store::with_options(&Options { quota: QUOTA, any_domain_exists: true });
        for domid in [7, 9] {
            store.introduce(domid);
            let home = format!("/local/domain/{domid}");
            store.mkdir(home.as_bytes()).expect("a home");
            store
                .set_permissions(home.as_bytes(), format!("n{domid}\0").as_bytes())
                .expect("an owner");
        }
        let peers = DOMAINS.map(|domid| Peer {
            domid,
            stream: store.connect(domid).expect("a connection"),
            requests: 0,
            outgoing: Vec::new(),
            begun: Vec::new(),
            unanswered: VecDeque::new(),
            incoming: Vec::new(),
            tokens: HashSet::new(),
        });
        Self { store, peers: peers.into(), requests: 0 }
    }

    /// Sends what is there to be sent, and takes the answers, which it returns.
    fn exchange(&mut self, peer: usize) -> Vec<(MessageType, Vec<u8>)> {
        let mut answers = Vec::new();
        let broken = self.send(peer);
        while let Some((header, payload)) = self.peers[peer].unanswered.pop_front() {
            let answer = self.peers[peer].next_answer().expect("an answer");
            let kind = check_answer(header, answer.0, &answer.1);
            if kind == MessageType::Watch {
                let token = payload.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                self.peers[peer].tokens.insert(token.to_vec());
            } else if kind == MessageType::Release
                && let Ok(Request::Release { domid }) = Request::parse(kind, &payload)
            {
                let gone = self.peers.iter_mut().filter(|peer| peer.domid == domid);
                gone.for_each(Peer::reopen);
            }
            answers.push((kind, answer.1));
        }
        if broken {
            assert_eq!(self.peers[peer].next_answer(), None, "after a broken message");
            self.peers[peer].reopen();
        }
        answers
    }

    /// Sends what is there to be sent. Is the protocol broken by it?
    fn send(&mut self, peer: usize) -> bool {
        let peer = &mut self.peers[peer];
        let outgoing = std::mem::take(&mut peer.outgoing);
        peer.begun.extend_from_slice(&outgoing);
        let mut at = 0;
        let broken = loop {
            match Frame::parse(&peer.begun[at..]) {
                Ok(Some(frame)) => {
                    at += frame.len();
                    self.requests += 1;
                    peer.unanswered.push_back((frame.header, frame.payload.to_vec()));
                }
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        peer.begun.drain(..at);
        peer.write(&outgoing);
        broken
    }

    /// Ends the message that a client has begun.
    fn complete(&mut self, peer: usize) {
        self.exchange(peer);
        while !self.peers[peer].begun.is_empty() {
            self.peers[peer].outgoing.push(0);
            self.exchange(peer);
        }
    }

    /// The store counts what a domain has: it may have as much more as its quotas leave.
    fn check_quotas(&mut self, peer: usize) {
        let domid = DOMAINS[peer];
        for peer in (0..DOMAINS.len()).filter(|peer| DOMAINS[*peer] == domid) {
            self.ask(peer, &[Request::ResetWatches]);
        }

        let tokens: Vec<String> = (0..=QUOTA.watches + 1).map(|n| n.to_string()).collect();
        let watch = |token| Request::Watch { path: b"/probe", token, depth: None };
        let watches: Vec<_> = tokens.iter().map(|token| watch(token.as_bytes())).collect();
        assert_eq!(self.ask(peer, &watches), QUOTA.watches + 1);

        let transactions = vec![Request::TransactionStart; QUOTA.transactions + 2];
        assert_eq!(self.ask(peer, &transactions), QUOTA.transactions + 1);

        let owned = self.nodes_of(domid);
        let _ = self.store.rm(b"/probe");
        self.store.mkdir(b"/probe").expect("a directory");
        self.store.set_permissions(b"/probe", b"b0\0").expect("a directory for all");
        let paths: Vec<String> = (0..=QUOTA.nodes).map(|n| format!("/probe/{n}")).collect();
        let nodes: Vec<_> =
            paths.iter().map(|path| Request::Mkdir { path: path.as_bytes() }).collect();
        assert_eq!(self.ask(peer, &nodes), QUOTA.nodes.saturating_sub(owned), "{owned} nodes");
    }

    /// Makes requests; returns how many were not refused.
    fn ask(&mut self, peer: usize, requests: &[Request<'_>]) -> usize {
        for request in requests {
            let mut payload = Vec::new();
            request.emit(&mut payload);
            self.peers[peer].queue(request.message_type().to_wire(), 0, &payload);
        }
        let answers = self.exchange(peer);
        answers.iter().filter(|(kind, _)| *kind != MessageType::Error).count()
    }

    /// How many nodes a domain owns, by a look at all there are.
    fn nodes_of(&mut self, domid: u16) -> usize {
        let mut paths = vec![b"/".to_vec()];
        let mut at = 0;
        while let Some(path) = paths.get(at) {
            let above = if path == b"/" { b"".to_vec() } else { path.clone() };
            let names = self.store.directory(path).expect("a node");
            paths.extend(names.iter().map(|name| [&above[..], b"/", name].concat()));
            at += 1;
        }
        assert_eq!(self.store.nodes(), paths.len(), "nodes that nobody can reach");
        for path in &paths {
            let kind = MessageType::GetPerms.to_wire();
            self.peers[0].queue(kind, 0, &[path, &b"\0"[..]].concat());
        }
        let owner = |list: &[u8]| {
            PermissionList::parse(list).expect("permissions").iter().next().expect("an owner").domid
        };
        self.exchange(0).iter().filter(|(_, list)| owner(list) == domid).count()
    }
}

impl Peer {
    fn queue(&mut self, kind: u32, tx_id: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("a short payload");
        self.requests += 1;
        let header = Header { kind, req_id: self.requests, tx_id, len };
        Frame { header, payload }.emit(&mut self.outgoing);
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(TransportError::WouldBlock) => self.wait(WaitFor::InputOrRoom),
                // The store has closed the stream before all of it was sent.
                Err(_) => return,
            }
        }
    }

    /// The next message that is no event; `None` when the store has closed the stream.
    fn next_answer(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some(frame) = Frame::parse(&self.incoming).expect("a message") {
                let message = (frame.header, frame.payload.to_vec());
                self.incoming.drain(..frame.len());
                if message.0.message_type() != Some(MessageType::WatchEvent) {
                    return Some(message);
                }
                let event = WatchEvent::parse(&message.1).expect("an event");
                assert!(self.tokens.contains(event.token), "an event of no watch");
                continue;
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.incoming.extend_from_slice(&buffer[..len]),
                Err(TransportError::WouldBlock) => self.wait(WaitFor::Input),
                Err(_) => return None,
            }
        }
    }

    fn wait(&mut self, what: WaitFor) {
        let soon = Some(Duration::from_secs(60));
        assert!(self.stream.wait(what, soon).expect("a poll"), "the store says nothing");
    }

    fn reopen(&mut self) {
        self.stream.reopen().expect("a connection");
        self.outgoing.clear();
        self.begun.clear();
        self.unanswered.clear();
        self.incoming.clear();
        self.tokens.clear();
    }
}

/// An answer belongs to its request and is well-formed; returns its type.
fn check_answer(request: Header, answer: Header, payload: &[u8]) -> MessageType {
    assert_eq!((answer.req_id, answer.tx_id), (request.req_id, request.tx_id));
    let kind = answer.message_type().expect("a type");
    match Reply::parse(kind, payload).expect("a reply") {
        Reply::Error(code) => assert!(ErrorCode::KNOWN.contains(&code)),
        _ => assert_eq!(kind.to_wire(), request.kind),
    }
    kind
}
