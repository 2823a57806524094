//! Everything a store holds, and who is connected to it.

use std::collections::HashMap;

use xs_proto::{ErrorCode, Header, MessageType, WatchEvent};

use super::Options;
use super::connection::{Connection, ConnectionId};
use super::counts::Counts;
use super::domain::{Domains, PRIVILEGED};
use super::faults::{Effect, Faults, Incoming, Moment};
use super::permissions::{Caller, Permissions};
use super::quota::Quota;
use super::reactor::{Mailbox, ReactorId};
use super::tree::{Node, Tree, child};
use super::watch::{Reach, Watches};

/// A new domain is connected.
pub(super) const INTRODUCE_DOMAIN: &[u8] = b"@introduceDomain";
/// A domain is gone, or has shut down.
pub(super) const RELEASE_DOMAIN: &[u8] = b"@releaseDomain";

/// The store behind its lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) quota: Quota,
    pub(super) tree: Tree,
    pub(super) domains: Domains,
    pub(super) watches: Watches,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    /// The permissions of the special paths: the domains that get their events.
    pub(super) special: HashMap<&'static [u8], Permissions>,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    /// The threads that carry bytes, to be told when there is something to send.
    pub(super) reactors: HashMap<ReactorId, Mailbox>,
    /// The reactor whose thread holds the lock. It reads its mailbox afterwards, so no wakeup is
    /// sent to it.
    pub(super) running: Option<ReactorId>,
    last_connection: u64,
    pub(super) last_reactor: u64,
}

/// The next step for a connection after a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The request was carried out; what there is to send is queued.
    Done,
    /// A fault: carry the request out, but only after this time, and no other before.
    Delay(std::time::Duration),
    /// A fault: close the connection once what is queued was sent.
    Close,
}

impl State {
    pub(super) fn new(options: &Options) -> Self {
        let domains = Domains::new(options.any_domain_exists);
        let permissions = Permissions::privileged(&domains);
        let mut tree = Tree::new(Node::new(permissions.clone(), b""));
        // The C xenstored makes these when it starts.
        let mut above: Vec<u8> = b"/".to_vec();
        for name in [&b"tool"[..], b"xenstored"] {
            if let Some(mut node) = tree.get(&above).cloned() {
                std::sync::Arc::make_mut(&mut node).children.add(name);
                tree.put(&above, node);
            }
            above = child(&above, name);
            tree.put(&above, Node::new(permissions.clone(), b"").into());
        }
        let special = [INTRODUCE_DOMAIN, RELEASE_DOMAIN].map(|path| (path, permissions.clone()));
        Self {
            quota: options.quota,
            tree,
            domains,
            watches: Watches::default(),
            connections: HashMap::new(),
            special: special.into(),
            faults: Faults::default(),
            counts: Counts::default(),
            reactors: HashMap::new(),
            running: None,
            last_connection: 0,
            last_reactor: 0,
        }
    }

    /// A new connection of a domain, which exists from now on if it did not.
    pub(super) fn open(&mut self, domid: u16, reactor: ReactorId) -> ConnectionId {
        self.domains.create(domid);
        self.last_connection += 1;
        let id = ConnectionId::new(self.last_connection);
        self.connections.insert(id, Connection::new(domid, reactor));
        id
    }

    /// Ends a connection, its watches and its transactions. Its reactor closes the socket.
    pub(super) fn close(&mut self, id: ConnectionId) {
        self.reset(id);
        if let Some(connection) = self.connections.remove(&id) {
            self.post(connection.reactor, id);
        }
    }

    /// Ends all connections of a domain.
    pub(super) fn close_all_of(&mut self, domid: u16) {
        self.connections_of(domid).into_iter().for_each(|id| self.close(id));
    }

    pub(super) fn connections_of(&self, domid: u16) -> Vec<ConnectionId> {
        let of_domain = |(id, connection): (&ConnectionId, &Connection)| {
            (connection.domid == domid).then_some(*id)
        };
        self.connections.iter().filter_map(of_domain).collect()
    }

    /// Ends the watches and transactions of a connection.
    pub(super) fn reset(&mut self, id: ConnectionId) {
        let watches = self.watches.remove_all(id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let transactions = std::mem::take(&mut connection.transactions).len();
        if let Some(domain) = self.domains.get_mut(connection.domid) {
            domain.watches = domain.watches.saturating_sub(watches);
            domain.transactions = domain.transactions.saturating_sub(transactions);
        }
    }

    /// A request came in: counts it, lets faults strike, and else carries it out.
    pub(super) fn receive(&mut self, id: ConnectionId, header: Header, payload: &[u8]) -> Outcome {
        let Some(connection) = self.connections.get_mut(&id) else { return Outcome::Close };
        let kind = header.message_type();
        connection.counts.count(kind);
        self.counts.count(kind);
        let domid = connection.domid;
        let incoming = Incoming { connection: id, domid, kind, payload };
        match self.faults.strike(&incoming) {
            None => {}
            Some(Effect::Delay(time)) => return Outcome::Delay(time),
            Some(Effect::Error(code)) => {
                self.refuse(id, header, &code);
                return Outcome::Done;
            }
            Some(Effect::Disconnect(moment)) => {
                if moment == Moment::BeforeReply {
                    self.mute(id);
                }
                if moment != Moment::BeforeRequest {
                    self.carry_out(id, header, payload);
                }
                return Outcome::Close;
            }
        }
        self.carry_out(id, header, payload);
        Outcome::Done
    }

    /// Answers with an error that was asked for. A transaction whose end is refused is over.
    fn refuse(&mut self, id: ConnectionId, header: Header, code: &ErrorCode) {
        if header.message_type() == Some(MessageType::TransactionEnd) {
            drop(self.take_transaction(id, header.tx_id));
        }
        let payload = [code.name(), b"\0"].concat();
        self.queue_reply(id, MessageType::Error, header, &payload);
    }

    /// Connects the store to a domain; to one that it is connected to, anew.
    pub(super) fn introduce(&mut self, domid: u16) {
        let domain = self.domains.create(domid);
        if domain.introduced {
            if domid != PRIVILEGED {
                self.connections_of(domid).into_iter().for_each(|id| self.reset(id));
            }
            return;
        }
        domain.introduced = true;
        self.fire(INTRODUCE_DOMAIN, None, None, Reach::Subtree);
    }

    /// Forgets a domain: its connections, its nodes and whatever it was allowed.
    pub(super) fn release(&mut self, domid: u16) {
        let Some(domain) = self.domains.get(domid) else { return };
        let introduced = domain.introduced;
        self.close_all_of(domid);
        self.remove_nodes_of(domid);
        self.domains.remove(domid);
        if introduced {
            self.fire(RELEASE_DOMAIN, None, None, Reach::Subtree);
        }
    }

    /// A domain has shut down, but is still there.
    pub(super) fn shut_down(&mut self, domid: u16) {
        if let Some(domain) = self.domains.introduced(domid)
            && !std::mem::replace(&mut domain.shut_down, true)
        {
            self.fire(RELEASE_DOMAIN, None, None, Reach::Subtree);
        }
    }

    pub(super) fn caller(&self, domid: u16) -> Caller {
        Caller { domid, target: self.domains.get(domid).and_then(|domain| domain.target) }
    }

    pub(super) fn queue_reply(
        &mut self,
        id: ConnectionId,
        kind: MessageType,
        request: Header,
        payload: &[u8],
    ) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.output.reply(kind, request, payload);
            self.announce(id);
        }
    }

    pub(super) fn queue_event(&mut self, id: ConnectionId, event: WatchEvent<'_>) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let mut payload = Vec::with_capacity(event.path.len() + event.token.len() + 2);
            event.emit(&mut payload);
            connection.output.event(&payload);
            self.announce(id);
        }
    }

    fn mute(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.output.mute();
        }
    }

    /// Tells the reactor of a connection that there is something to send, if it does not know.
    fn announce(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.output.announced, true) {
            let reactor = connection.reactor;
            self.post(reactor, id);
        }
    }

    fn post(&mut self, reactor: ReactorId, id: ConnectionId) {
        if let Some(mailbox) = self.reactors.get_mut(&reactor) {
            mailbox.post(id, self.running == Some(reactor));
        }
    }
}
