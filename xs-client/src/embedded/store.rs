//! The handle of a store.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use xs_proto::{ErrorCode, PermissionList, Request};

use super::connection::ConnectionId;
use super::counts::Counts;
use super::faults::{Fault, FaultReport};
use super::in_process::InProcess;
use super::nodes::Scope;
use super::quota::Quota;
use super::reactor::{Reactor, lock};
use super::server::Server;
use super::state::State;

/// How a store is to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The limits of unprivileged domains.
    pub quota: Quota,
    /// There is no hypervisor to ask which domains exist. True: all do. False: only those
    /// made known by [`Store::introduce`], [`Store::connect`] or [`Store::serve`]; others
    /// cannot be introduced by a client, nor own nodes.
    pub any_domain_exists: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { quota: Quota::default(), any_domain_exists: true }
    }
}

/// A store. Clones are handles of the same one, which lives as long as any of them, of its
/// [`Server`]s and of its connections.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) state: Arc<Mutex<State>>,
    /// Serves the connections within the process; started with the first of them.
    reactor: Arc<Mutex<Option<Reactor>>>,
}

impl Store {
    /// A store as the C xenstored starts with: domain 0, `/` and `/tool/xenstored`.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(&Options::default())
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_options(options: &Options) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(options))), reactor: Arc::default() }
    }

    /// Serves the store on a unix socket; all who connect are that domain. Domain 0 is
    /// privileged, others have their permissions and quotas.
    ///
    /// # Errors
    ///
    /// The system's, as when there is something at the path already.
    pub fn serve(&self, path: impl AsRef<Path>, domid: u16) -> io::Result<Server> {
        Server::start(self, path.as_ref(), domid)
    }

    /// Connects within the process, as that domain.
    ///
    /// # Errors
    ///
    /// The system's, as when there are too many open files.
    pub fn connect(&self, domid: u16) -> io::Result<InProcess> {
        InProcess::connect(self.clone(), domid)
    }

    /// Tells the store of a domain, as `INTRODUCE` does: `@introduceDomain` fires, and nothing
    /// is laid out. The watches and transactions of one that is known already are ended.
    pub fn introduce(&self, domid: u16) {
        lock(&self.state).introduce(domid);
    }

    /// A domain is gone: its connections, watches and transactions end, the nodes it owns are
    /// removed with all below them, what it was allowed elsewhere is void even for a later
    /// domain of its number, and `@releaseDomain` fires.
    pub fn release(&self, domid: u16) {
        lock(&self.state).release(domid);
    }

    /// A domain has shut down but is still there: `@releaseDomain` fires, once until the domain
    /// is resumed.
    pub fn shut_down(&self, domid: u16) {
        lock(&self.state).shut_down(domid);
    }

    /// Closes all connections of a domain, as the daemon does with one that breaks the
    /// protocol.
    pub fn disconnect(&self, domid: u16) {
        lock(&self.state).close_all_of(domid);
    }

    /// Sets the value of a node as domain 0, without a connection. Watches fire as ever.
    ///
    /// # Errors
    ///
    /// As the reply to `WRITE`.
    pub fn write(&self, path: &[u8], value: &[u8]) -> Result<(), ErrorCode> {
        self.ask(Request::Write { path, value }).map(drop)
    }

    /// Makes a node as domain 0, without a connection.
    ///
    /// # Errors
    ///
    /// As the reply to `MKDIR`.
    pub fn mkdir(&self, path: &[u8]) -> Result<(), ErrorCode> {
        self.ask(Request::Mkdir { path }).map(drop)
    }

    /// Removes a node and all below it as domain 0, without a connection.
    ///
    /// # Errors
    ///
    /// As the reply to `RM`.
    pub fn rm(&self, path: &[u8]) -> Result<(), ErrorCode> {
        self.ask(Request::Rm { path }).map(drop)
    }

    /// The value of a node.
    ///
    /// # Errors
    ///
    /// As the reply to `READ`.
    pub fn read(&self, path: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        self.ask(Request::Read { path })
    }

    /// The names of the children of a node, however many, oldest first.
    ///
    /// # Errors
    ///
    /// As the reply to `DIRECTORY`.
    pub fn directory(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, ErrorCode> {
        let names = self.ask(Request::Directory { path })?;
        Ok(names
            .split_inclusive(|byte| *byte == 0)
            .map(|name| name[..name.len() - 1].to_vec())
            .collect())
    }

    /// Sets the permissions of a node as domain 0, from a list as the wire has it, such as
    /// `b"n0\0r3\0"`.
    ///
    /// # Errors
    ///
    /// As the reply to `SET_PERMS`.
    pub fn set_permissions(&self, path: &[u8], list: &[u8]) -> Result<(), ErrorCode> {
        let permissions = PermissionList::parse(list).map_err(|_| ErrorCode::Inval)?;
        self.ask(Request::SetPerms { path, permissions }).map(drop)
    }

    /// How many nodes there are, the root among them.
    #[must_use]
    pub fn nodes(&self) -> usize {
        lock(&self.state).tree.len()
    }

    /// Requests of all connections there ever were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// All connections, each with its domain and the counts of its requests.
    #[must_use]
    pub fn connections(&self) -> Vec<(ConnectionId, u16, Counts)> {
        let state = lock(&self.state);
        let connections = state.connections.iter();
        connections.map(|(id, connection)| (*id, connection.domid, connection.counts)).collect()
    }

    /// From now on something goes wrong; the report says how often it has.
    pub fn inject(&self, fault: Fault) -> FaultReport {
        lock(&self.state).faults.inject(fault)
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        lock(&self.state).faults.clear();
    }

    /// Calls `f` with the reactor of the connections within the process.
    pub(super) fn with_reactor<T>(
        &self,
        f: impl FnOnce(&Reactor) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut reactor = self.reactor.lock().unwrap_or_else(PoisonError::into_inner);
        match &*reactor {
            Some(reactor) => f(reactor),
            None => f(reactor.insert(Reactor::start(self.state.clone(), None)?)),
        }
    }

    fn ask(&self, request: Request<'_>) -> Result<Vec<u8>, ErrorCode> {
        let mut reply = Vec::new();
        lock(&self.state).of_nodes(&mut Scope::privileged(), request, &mut reply)?;
        Ok(reply)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}
