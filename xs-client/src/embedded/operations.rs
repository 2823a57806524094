//! The operations of the store, one for each type of request.
//!
//! Source: the operation of the same name in `xenstore.txt`; where that leaves a question open,
//! the answer of the C xenstored 4.17.

use xs_proto::{
    ErrorCode, Header, Malformed, MessageType, PAYLOAD_MAX, PermissionList, Reply, Request,
    WatchEvent,
};

use super::connection::ConnectionId;
use super::domain::{Domain, PRIVILEGED, home};
use super::nodes::Scope;
use super::paths::{absolute, is_relative, watched};
use super::permissions::Rights;
use super::state::State;
use super::transaction::Transaction;

impl State {
    /// Carries out a request and queues its reply.
    pub(super) fn carry_out(&mut self, id: ConnectionId, header: Header, payload: &[u8]) {
        let mut reply = Vec::new();
        let done = self.answer(id, header, payload, &mut reply);
        let done = done.and_then(|kind| {
            if reply.len() > PAYLOAD_MAX { Err(ErrorCode::TooBig) } else { Ok(kind) }
        });
        let kind = done.unwrap_or_else(|code| {
            reply.clear();
            Reply::Error(code).emit(&mut reply);
            MessageType::Error
        });
        self.queue_reply(id, kind, header, &reply);
        if kind == MessageType::Watch {
            self.first_event(id, payload);
        }
    }

    /// Carries out a request and writes its reply's payload; returns the reply's type.
    fn answer(
        &mut self,
        id: ConnectionId,
        header: Header,
        payload: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<MessageType, ErrorCode> {
        let connection = self.connections.get(&id).ok_or(ErrorCode::Inval)?;
        let domid = connection.domid;
        let caller = self.caller(domid);
        let kind = header.message_type().filter(is_known).ok_or(ErrorCode::NoSys)?;
        if is_privileged(kind) && !caller.is_privileged() {
            return Err(ErrorCode::Acces);
        }
        let outside = matches!(kind, MessageType::Watch | MessageType::Unwatch);
        let within = if outside { 0 } else { header.tx_id };
        if within != 0 && !connection.transactions.contains_key(&within) {
            return Err(ErrorCode::NoEnt);
        }
        let payload = whole_strings(kind, payload);
        if kind == MessageType::SetPerms && !caller.is_privileged() {
            self.check_permission_count(payload)?;
        }
        let request = Request::parse(kind, payload).map_err(|Malformed| ErrorCode::Inval)?;
        match request {
            Request::Watch { .. }
            | Request::Unwatch { .. }
            | Request::TransactionStart
            | Request::TransactionEnd { .. }
            | Request::ResetWatches => {
                let made = self.of_connection(id, within, request)?;
                made.unwrap_or(Reply::Ok(kind)).emit(reply);
            }
            Request::Control { .. }
            | Request::Introduce { .. }
            | Request::Release { .. }
            | Request::GetDomainPath { .. }
            | Request::IsDomainIntroduced { .. }
            | Request::Resume { .. }
            | Request::SetTarget { .. } => self.of_domains(request, reply)?,
            _ => {
                let transaction = self.borrow_transaction(id, within);
                let mut scope = Scope { caller, transaction };
                let done = self.of_nodes(&mut scope, request, reply);
                self.return_transaction(id, within, scope.transaction);
                done?;
            }
        }
        Ok(kind)
    }

    /// Requests about nodes.
    pub(super) fn of_nodes(
        &mut self,
        scope: &mut Scope,
        request: Request<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), ErrorCode> {
        let kind = request.message_type();
        let absolute = |path| absolute(scope.caller.domid, path);
        match request {
            Request::Read { path } => {
                let path = absolute(path)?;
                let node = self.node(scope, &path, Rights::READ)?;
                reply.extend_from_slice(&node.value);
                return Ok(());
            }
            Request::Directory { path } => {
                let path = absolute(path)?;
                let node = self.node(scope, &path, Rights::READ)?;
                reply.extend_from_slice(node.children.as_bytes());
                return Ok(());
            }
            Request::DirectoryPart { path, offset } => {
                let path = absolute(path)?;
                let node = self.node(scope, &path, Rights::READ)?;
                part_of(node.generation, node.children.as_bytes(), offset, reply);
                return Ok(());
            }
            Request::GetPerms { path } => {
                let path = absolute(path)?;
                let node = self.node(scope, &path, Rights::READ)?;
                node.permissions.emit(&self.domains, reply);
                return Ok(());
            }
            Request::Write { path, value } => {
                let path = absolute(path)?;
                self.write(scope, &path, value)?;
            }
            Request::Mkdir { path } => {
                let path = absolute(path)?;
                self.mkdir(scope, &path)?;
            }
            Request::Rm { path } => {
                let path = absolute(path)?;
                self.rm(scope, &path)?;
            }
            Request::SetPerms { path, permissions } if path.starts_with(b"@") => {
                self.set_special_permissions(scope, path, permissions)?;
            }
            Request::SetPerms { path, permissions } => {
                let checked = absolute(path);
                // Bad permissions come before a bad path.
                let path = match checked {
                    Ok(path) => path,
                    Err(error) => {
                        self.new_permissions(permissions)?;
                        return Err(error);
                    }
                };
                self.set_permissions(scope, &path, permissions)?;
            }
            _ => return Err(ErrorCode::NoSys),
        }
        Reply::Ok(kind).emit(reply);
        Ok(())
    }

    /// Requests about the connection itself. `None` is a plain "done".
    fn of_connection(
        &mut self,
        id: ConnectionId,
        within: u32,
        request: Request<'_>,
    ) -> Result<Option<Reply<'static>>, ErrorCode> {
        match request {
            Request::Watch { path, token, depth: None } => self.watch(id, path, token)?,
            Request::Watch { .. } => return Err(ErrorCode::Inval),
            Request::Unwatch { path, token } => self.unwatch(id, path, token)?,
            Request::TransactionStart => {
                return self.start_transaction(id, within).map(Some);
            }
            Request::TransactionEnd { commit } => {
                let transaction = self.take_transaction(id, within).ok_or(ErrorCode::NoEnt)?;
                if commit {
                    let domid = self.connections.get(&id).map_or(PRIVILEGED, |it| it.domid);
                    self.commit(self.caller(domid), transaction)?;
                }
            }
            Request::ResetWatches => self.reset(id),
            _ => return Err(ErrorCode::NoSys),
        }
        Ok(None)
    }

    /// Requests about domains and the daemon.
    fn of_domains(&mut self, request: Request<'_>, out: &mut Vec<u8>) -> Result<(), ErrorCode> {
        let reply = match request {
            Request::Control { command } => {
                Reply::Control(&self.control(command)?).emit(out);
                return Ok(());
            }
            Request::GetDomainPath { domid } => {
                Reply::GetDomainPath(&home(domid)).emit(out);
                return Ok(());
            }
            Request::IsDomainIntroduced { domid } => {
                Reply::IsDomainIntroduced(self.domains.introduced(domid).is_some())
            }
            Request::Introduce { domid, port, .. } => {
                if port == 0 {
                    return Err(ErrorCode::Inval);
                }
                if !self.domains.exists(domid) {
                    return Err(ErrorCode::NoEnt);
                }
                self.introduce(domid);
                Reply::Ok(MessageType::Introduce)
            }
            Request::Release { domid } => {
                self.connected(domid)?;
                self.release(domid);
                Reply::Ok(MessageType::Release)
            }
            Request::Resume { domid } => {
                self.connected(domid)?.shut_down = false;
                Reply::Ok(MessageType::Resume)
            }
            Request::SetTarget { domid, target } => {
                self.domains.introduced(target).ok_or(ErrorCode::NoEnt)?;
                let domain = self.domains.introduced(domid).ok_or(ErrorCode::NoEnt)?;
                domain.target = Some(target);
                Reply::Ok(MessageType::SetTarget)
            }
            _ => return Err(ErrorCode::NoSys),
        };
        reply.emit(out);
        Ok(())
    }

    /// Is the store connected to this domain, and is it one that can be without?
    fn connected(&mut self, domid: u16) -> Result<&mut Domain, ErrorCode> {
        if domid == PRIVILEGED {
            return Err(ErrorCode::Inval);
        }
        self.domains.introduced(domid).ok_or(ErrorCode::NoEnt)
    }

    fn watch(&mut self, id: ConnectionId, path: &[u8], token: &[u8]) -> Result<(), ErrorCode> {
        let connection = self.connections.get(&id).ok_or(ErrorCode::Inval)?;
        let domid = connection.domid;
        let place = watched(domid, path)?;
        if self.watches.contains(id, &place, token) {
            return Err(ErrorCode::Exist);
        }
        let domain = self.domains.get_mut(domid).ok_or(ErrorCode::Inval)?;
        if domid != PRIVILEGED && domain.watches > self.quota.watches {
            return Err(ErrorCode::TooBig);
        }
        domain.watches += 1;
        self.watches.add(id, &place, token, is_relative(path));
        Ok(())
    }

    /// The event that every watch begins with: the watched path itself, there or not.
    fn first_event(&mut self, id: ConnectionId, payload: &[u8]) {
        let payload = whole_strings(MessageType::Watch, payload);
        if let Ok(Request::Watch { path, token, .. }) = Request::parse(MessageType::Watch, payload)
        {
            self.queue_event(id, WatchEvent { path, token });
        }
    }

    fn unwatch(&mut self, id: ConnectionId, path: &[u8], token: &[u8]) -> Result<(), ErrorCode> {
        let connection = self.connections.get(&id).ok_or(ErrorCode::Inval)?;
        let domid = connection.domid;
        // A path that is none is one that nobody watches.
        let place = watched(domid, path).map_err(|_| ErrorCode::NoEnt)?;
        if !self.watches.remove(id, &place, token) {
            return Err(ErrorCode::NoEnt);
        }
        if let Some(domain) = self.domains.get_mut(domid) {
            domain.watches = domain.watches.saturating_sub(1);
        }
        Ok(())
    }

    fn start_transaction(
        &mut self,
        id: ConnectionId,
        within: u32,
    ) -> Result<Reply<'static>, ErrorCode> {
        if within != 0 {
            return Err(ErrorCode::Busy);
        }
        let connection = self.connections.get_mut(&id).ok_or(ErrorCode::Inval)?;
        let domain = self.domains.get_mut(connection.domid).ok_or(ErrorCode::Inval)?;
        if connection.domid != PRIVILEGED && domain.transactions > self.quota.transactions {
            return Err(ErrorCode::NoSpc);
        }
        domain.transactions += 1;
        Ok(Reply::TransactionStart(connection.start_transaction()))
    }

    /// Ends a transaction of a connection, with nothing done yet.
    pub(super) fn take_transaction(
        &mut self,
        id: ConnectionId,
        number: u32,
    ) -> Option<Transaction> {
        let connection = self.connections.get_mut(&id)?;
        let transaction = connection.transactions.remove(&number)?;
        if let Some(domain) = self.domains.get_mut(connection.domid) {
            domain.transactions = domain.transactions.saturating_sub(1);
        }
        Some(transaction)
    }

    /// Takes a transaction for the time of one request.
    fn borrow_transaction(&mut self, id: ConnectionId, number: u32) -> Option<Transaction> {
        let transaction = self.connections.get_mut(&id)?.transactions.get_mut(&number)?;
        Some(std::mem::take(transaction))
    }

    fn return_transaction(&mut self, id: ConnectionId, number: u32, back: Option<Transaction>) {
        if let Some(back) = back
            && let Some(connection) = self.connections.get_mut(&id)
            && let Some(transaction) = connection.transactions.get_mut(&number)
        {
            *transaction = back;
        }
    }

    /// Refuses a payload of `SET_PERMS` with too many permissions, before they are parsed: the
    /// C xenstored counts first.
    fn check_permission_count(&self, payload: &[u8]) -> Result<(), ErrorCode> {
        let strings = payload.iter().filter(|byte| **byte == 0).count();
        if strings > self.quota.permissions + 1 { Err(ErrorCode::NoSpc) } else { Ok(()) }
    }

    fn set_special_permissions(
        &mut self,
        scope: &Scope,
        path: &[u8],
        list: PermissionList<'_>,
    ) -> Result<(), ErrorCode> {
        let new = self.new_permissions(list)?;
        let old = self.special.get_mut(path).ok_or(ErrorCode::Inval)?;
        if !old.rights(scope.caller, &self.domains).contains(Rights::CONTROL) {
            return Err(ErrorCode::Acces);
        }
        *old = new;
        Ok(())
    }
}

/// Does the C xenstored 4.17 know requests of this type?
fn is_known(kind: &MessageType) -> bool {
    !matches!(
        kind,
        MessageType::WatchEvent
            | MessageType::Error
            | MessageType::GetFeature
            | MessageType::SetFeature
            | MessageType::GetQuota
            | MessageType::SetQuota
    )
}

/// Is it for domain 0 only?
fn is_privileged(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::Control
            | MessageType::Introduce
            | MessageType::Release
            | MessageType::IsDomainIntroduced
            | MessageType::Resume
            | MessageType::SetTarget
    )
}

/// A payload of several strings, without what is behind its last NUL: the C xenstored counts
/// strings by their NULs and does not see the rest.
fn whole_strings(kind: MessageType, payload: &[u8]) -> &[u8] {
    let several = matches!(
        kind,
        MessageType::Watch
            | MessageType::Unwatch
            | MessageType::SetPerms
            | MessageType::SetTarget
            | MessageType::DirectoryPart
    );
    let end = payload.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
    if several { &payload[..end] } else { payload }
}

/// The payload of `DIRECTORY_PART`: the generation, then as many whole names from an offset on
/// as fit, and an empty one behind the last.
fn part_of(generation: u64, names: &[u8], offset: u32, reply: &mut Vec<u8>) {
    reply.extend_from_slice(format!("{generation}\0").as_bytes());
    let rest = usize::try_from(offset).ok().and_then(|offset| names.get(offset..));
    let rest = rest.unwrap_or_default();
    let room = PAYLOAD_MAX - reply.len() - 1;
    let end = match rest.get(..room) {
        Some(fits) => fits.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1),
        None => rest.len(),
    };
    reply.extend_from_slice(&rest[..end]);
    if end == rest.len() {
        reply.push(0);
    }
}
