//! The two stores under test, led through the same steps.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use xs_client::embedded::{Options, Quota, Server, Store};
use xs_proto::{Frame, Header, MessageType, PAYLOAD_MAX};

use crate::daemon::Daemon;
use crate::link::{Link, Message, PATIENCE, Stream};
use crate::ring::{PORT, Ring};
use crate::script::{GUESTS, LINKS, Request, Within};

/// The id of the request that marks the end of what a step has caused.
const BARRIER: u32 = u32::MAX;

/// The messages that one link received in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) messages: Vec<Message>,
    pub(crate) closed: bool,
}

/// The real or the embedded store, with the parts that only that one has.
enum Kind {
    Real(Daemon),
    Embedded { store: Store, toolstack: Server, guests: Vec<Server>, _directory: tempfile::TempDir },
}

/// A store with its links.
pub(crate) struct Side {
    kind: Kind,
    links: Vec<Box<dyn Link>>,
    /// Lays out domains and waits for what has no reply.
    toolstack: Stream,
    /// The transactions that are open on each link.
    open: Vec<Vec<u32>>,
}

impl Side {
    pub(crate) fn real(quota: &Quota) -> Self {
        let daemon = Daemon::start(quota);
        let toolstack = Stream::open(&daemon.socket()).unwrap();
        Self::with_links(Kind::Real(daemon), toolstack)
    }

    pub(crate) fn embedded(quota: &Quota) -> Self {
        let store = Store::with_options(&Options { quota: *quota, any_domain_exists: false });
        let directory = tempfile::tempdir().unwrap();
        let serve =
            |domid: u16| store.serve(directory.path().join(domid.to_string()), domid).unwrap();
        let server = serve(0);
        let guests = GUESTS.map(serve).into();
        let toolstack = Stream::open(server.path()).unwrap();
        let kind = Kind::Embedded { store, toolstack: server, guests, _directory: directory };
        Self::with_links(kind, toolstack)
    }

    fn with_links(kind: Kind, toolstack: Stream) -> Self {
        let mut side = Self { kind, links: Vec::new(), toolstack, open: Vec::new() };
        side.ask(MessageType::Watch, b"@releaseDomain\0toolstack\0");
        for domid in LINKS {
            let link = if domid == 0 { side.open_socket() } else { side.make_guest(domid) };
            side.links.push(link);
            side.open.push(Vec::new());
        }
        side
    }

    /// How many transactions are open on each link.
    pub(crate) fn open(&self) -> Vec<usize> {
        self.open.iter().map(Vec::len).collect()
    }

    /// Sends requests on a link and collects what all links receive because of it.
    pub(crate) fn request(&mut self, link: usize, requests: &[Request]) -> Vec<Received> {
        let mut bytes = Vec::new();
        let mut ended = BTreeSet::new();
        let open = self.open[link].clone();
        for (req_id, request) in (1..).zip(requests) {
            let tx_id = match request.within {
                Within::Nothing => 0,
                Within::Open(at) => open[at],
                Within::Unknown => 4_000_000_000,
            };
            let ends = request.kind == MessageType::TransactionEnd.to_wire()
                && matches!(&*request.payload, b"T\0" | b"F\0");
            if ends {
                ended.insert(tx_id);
            }
            push(&mut bytes, request.kind, req_id, tx_id, &request.payload);
        }
        self.links[link].send(&bytes);
        let mut received = vec![Received::default(); self.links.len()];
        let mut replies = 0;
        while replies < requests.len() {
            let Some(message) = self.links[link].receive() else {
                received[link].closed = true;
                break;
            };
            replies += usize::from(!is_event(&message));
            received[link].messages.push(message);
        }
        self.open[link].retain(|tx_id| !ended.contains(tx_id));
        for message in &received[link].messages {
            if message.header.kind == MessageType::TransactionStart.to_wire() {
                let digits = message.payload.strip_suffix(b"\0").unwrap();
                self.open[link].push(std::str::from_utf8(digits).unwrap().parse().unwrap());
            }
        }
        self.settle(received)
    }

    /// A header that announces too long a payload, then a new link in place of the old.
    pub(crate) fn too_long(&mut self, link: usize) -> Vec<Received> {
        let len = u32::try_from(PAYLOAD_MAX).unwrap() + 1;
        let header = Header { kind: MessageType::Read.to_wire(), req_id: 1, tx_id: 0, len };
        self.links[link].send(&header.emit());
        let mut received = vec![Received::default(); self.links.len()];
        while let Some(message) = self.links[link].receive() {
            received[link].messages.push(message);
        }
        received[link].closed = true;
        self.reopen(link);
        self.settle(received)
    }

    pub(crate) fn reopen(&mut self, link: usize) {
        self.links[link] = self.open_socket();
        self.open[link].clear();
    }

    /// A guest shuts down, and is resumed.
    pub(crate) fn shut_down(&mut self, domid: u16) -> Vec<Received> {
        match &self.kind {
            Kind::Real(daemon) => daemon.shut_down(domid),
            Kind::Embedded { store, .. } => store.shut_down(domid),
        }
        while !is_event(&self.toolstack.receive().expect("the toolstack's connection")) {}
        if let Kind::Real(daemon) = &self.kind {
            daemon.run_again(domid);
        }
        assert_eq!(self.ask(MessageType::Resume, format!("{domid}\0").as_bytes()).payload, b"OK\0");
        self.settle(vec![Received::default(); self.links.len()])
    }

    /// Destroys a guest and makes another of its number. The order of the messages that links
    /// receive cannot be compared.
    pub(crate) fn renew(&mut self, domid: u16) -> Vec<Received> {
        self.drop_transactions();
        match &self.kind {
            Kind::Real(daemon) => daemon.destroy(domid),
            Kind::Embedded { store, .. } => store.release(domid),
        }
        let start = Instant::now();
        let introduced = format!("{domid}\0");
        while self.ask(MessageType::IsDomainIntroduced, introduced.as_bytes()).payload != b"F\0" {
            assert!(start.elapsed() < PATIENCE, "domain {domid} does not go away");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The node that was changed last before a domain is made counts as younger than the
        // domain: with what it allows an older one of the same number. Let it be this one.
        self.ask(MessageType::Write, b"/tool/renewed\0");
        let at = LINKS.iter().position(|of| *of == domid).expect("a guest");
        self.links[at] = self.make_guest(domid);
        self.open[at].clear();
        self.settle(vec![Received::default(); self.links.len()])
    }

    /// The whole tree as domain 0 sees it: paths, values, permissions.
    pub(crate) fn dump(&mut self) -> Vec<[String; 3]> {
        let mut nodes = Vec::new();
        let mut paths = vec![b"/".to_vec()];
        while let Some(path) = paths.pop() {
            let argument = [&path[..], b"\0"].concat();
            let value = self.ask(MessageType::Read, &argument);
            let permissions = self.ask(MessageType::GetPerms, &argument);
            let names = self.ask(MessageType::Directory, &argument);
            // A node that is listed but cannot be read: the value says why.
            if names.header.kind == MessageType::Directory.to_wire() {
                let base = if path == b"/" { &b""[..] } else { &path };
                for name in names.payload.split_inclusive(|byte| *byte == 0) {
                    paths.push([base, b"/", &name[..name.len() - 1]].concat());
                }
            }
            let shown = [&path, &value.payload, &permissions.payload];
            nodes.push(shown.map(|bytes| bytes.escape_ascii().to_string()));
        }
        nodes
    }

    fn drop_transactions(&mut self) {
        for (link, open) in self.links.iter_mut().zip(&mut self.open) {
            for tx_id in std::mem::take(open) {
                let mut bytes = Vec::new();
                push(&mut bytes, MessageType::TransactionEnd.to_wire(), 1, tx_id, b"F\0");
                link.send(&bytes);
                link.receive().expect("a reply");
            }
        }
    }

    /// Waits until all messages that the step caused have arrived: a further request on each link
    /// is answered behind them.
    fn settle(&mut self, mut received: Vec<Received>) -> Vec<Received> {
        let mut barrier = Vec::new();
        push(&mut barrier, MessageType::GetDomainPath.to_wire(), BARRIER, 0, b"0\0");
        self.links.iter_mut().for_each(|link| link.send(&barrier));
        for (link, received) in self.links.iter_mut().zip(&mut received) {
            loop {
                match link.receive() {
                    None => {
                        received.closed = true;
                        break;
                    }
                    Some(message) if message.header.req_id == BARRIER => break,
                    Some(message) => received.messages.push(message),
                }
            }
        }
        received
    }

    /// A domain as libxl would lay it out, in short, and its link.
    fn make_guest(&mut self, domid: u16) -> Box<dyn Link> {
        let link: Box<dyn Link> = match &self.kind {
            Kind::Real(daemon) => Box::new(Ring::create(daemon.directory(), domid)),
            Kind::Embedded { guests, .. } => {
                let at = GUESTS.iter().position(|guest| *guest == domid).expect("a guest");
                let mut link = Stream::open(guests[at].path()).unwrap();
                // The domain exists once its connection is there.
                let mut bytes = Vec::new();
                push(&mut bytes, MessageType::GetDomainPath.to_wire(), 1, 0, b"0\0");
                link.send(&bytes);
                link.receive().expect("a reply");
                Box::new(link)
            }
        };
        let home = format!("/local/domain/{domid}");
        for (path, list) in [
            (home.clone(), format!("n0\0r{domid}\0")),
            (format!("{home}/data"), format!("n{domid}\0")),
            (format!("{home}/ro"), format!("n0\0r{domid}\0")),
        ] {
            self.ask(MessageType::Mkdir, format!("{path}\0").as_bytes());
            self.ask(MessageType::SetPerms, format!("{path}\0{list}").as_bytes());
        }
        let introduction = format!("{domid}\x001\0{PORT}\0");
        assert_eq!(self.ask(MessageType::Introduce, introduction.as_bytes()).payload, b"OK\0");
        link
    }

    fn open_socket(&self) -> Box<dyn Link> {
        let path: PathBuf = match &self.kind {
            Kind::Real(daemon) => daemon.socket(),
            Kind::Embedded { toolstack, .. } => toolstack.path().to_path_buf(),
        };
        Box::new(Stream::open(&path).unwrap())
    }

    /// A request of the toolstack's own; returns the reply.
    fn ask(&mut self, kind: MessageType, payload: &[u8]) -> Message {
        let mut bytes = Vec::new();
        push(&mut bytes, kind.to_wire(), 1, 0, payload);
        self.toolstack.send(&bytes);
        loop {
            let message = self.toolstack.receive().expect("the toolstack's connection");
            if !is_event(&message) {
                return message;
            }
        }
    }
}

pub(crate) fn is_event(message: &Message) -> bool {
    message.header.kind == MessageType::WatchEvent.to_wire()
}

fn push(bytes: &mut Vec<u8>, kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap();
    Frame { header: Header { kind, req_id, tx_id, len }, payload }.emit(bytes);
}
