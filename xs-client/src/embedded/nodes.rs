//! Reading and changing nodes with a caller's rights, quotas and transaction.

use std::sync::Arc;

use xs_proto::{ErrorCode, PermissionList, WatchEvent};

use super::domain::home;
use super::permissions::{Caller, Permissions, Rights};
use super::state::State;
use super::transaction::{Action, Change, Transaction};
use super::tree::{Node, child, name, parent};
use super::watch::Reach;

/// The caller of a request, and the transaction that the request is in.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) caller: Caller,
    pub(super) transaction: Option<Transaction>,
}

impl Scope {
    /// The toolstack, outside of any transaction.
    pub(super) const fn privileged() -> Self {
        Self { caller: Caller::PRIVILEGED, transaction: None }
    }
}

impl State {
    /// The node, if the caller may do with it what is `wanted`.
    ///
    /// # Errors
    ///
    /// `EACCES` if it may not. `ENOENT` if there is no such node, but only to a caller that
    /// has a right of those wanted on the closest node above; `EACCES` to others, who are not
    /// to know what there is.
    pub(super) fn node(
        &self,
        scope: &mut Scope,
        path: &[u8],
        wanted: Rights,
    ) -> Result<Arc<Node>, ErrorCode> {
        let node = self.look_up(scope, path)?;
        if let Some(node) = &node
            && node.permissions.rights(scope.caller, &self.domains).contains(wanted)
        {
            return Ok(node.clone());
        }
        // Also where it makes no difference to the answer: in a transaction it is a look at
        // the nodes above, whose changes conflict from now on.
        let above = self.closest_above(scope, path)?;
        let known = above.permissions.rights(scope.caller, &self.domains).intersects(wanted);
        Err(if node.is_none() && known { ErrorCode::NoEnt } else { ErrorCode::Acces })
    }

    /// Sets the value of a node, made if need be.
    pub(super) fn write(
        &mut self,
        scope: &mut Scope,
        path: &[u8],
        value: &[u8],
    ) -> Result<(), ErrorCode> {
        match self.node(scope, path, Rights::WRITE) {
            Ok(mut node) => {
                Arc::make_mut(&mut node).value = value.into();
                self.put(scope, path, node)?;
            }
            Err(ErrorCode::NoEnt) => self.create(scope, path, value)?,
            Err(error) => return Err(error),
        }
        self.changed(scope, path, None, None, Reach::Subtree);
        Ok(())
    }

    /// Makes a node; nothing happens if it is there.
    pub(super) fn mkdir(&mut self, scope: &mut Scope, path: &[u8]) -> Result<(), ErrorCode> {
        match self.node(scope, path, Rights::WRITE) {
            Ok(_) => Ok(()),
            Err(ErrorCode::NoEnt) => {
                self.create(scope, path, b"")?;
                self.changed(scope, path, None, None, Reach::Subtree);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a node and all below it. A node that is missing is no error if the one above
    /// it is there.
    pub(super) fn rm(&mut self, scope: &mut Scope, path: &[u8]) -> Result<(), ErrorCode> {
        let node = match self.node(scope, path, Rights::WRITE) {
            Ok(node) => node,
            Err(ErrorCode::NoEnt) if self.look_up(scope, parent(path))?.is_some() => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if path == b"/" {
            return Err(ErrorCode::Inval);
        }
        let Some(mut above) = self.look_up(scope, parent(path))? else {
            return Err(ErrorCode::Inval);
        };
        self.remove_subtree(scope, path, &node, Reach::Subtree)?;
        // In a transaction the node can be newer than what was seen of the one above.
        if !Arc::make_mut(&mut above).children.remove(name(path)) {
            return Err(ErrorCode::Io);
        }
        // No check of the node's size: without the child the node is shorter than before.
        self.store(scope, parent(path), Some(above));
        Ok(())
    }

    /// Sets the permissions of a node.
    pub(super) fn set_permissions(
        &mut self,
        scope: &mut Scope,
        path: &[u8],
        list: PermissionList<'_>,
    ) -> Result<(), ErrorCode> {
        let permissions = self.new_permissions(list)?;
        let mut node = self.node(scope, path, Rights::CONTROL)?;
        let (old, new) = (node.permissions.owner(&self.domains), permissions.owner(&self.domains));
        if old != new && !scope.caller.is_privileged() {
            return Err(ErrorCode::Perm);
        }
        let before = std::mem::replace(&mut Arc::make_mut(&mut node).permissions, permissions);
        self.put(scope, path, node)?;
        self.count_nodes(scope, old, -1);
        self.count_nodes(scope, new, 1);
        self.changed(scope, path, None, Some(&before), Reach::Subtree);
        Ok(())
    }

    /// Checks the permissions that somebody wants to give a node.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the owner does not exist.
    pub(super) fn new_permissions(
        &mut self,
        list: PermissionList<'_>,
    ) -> Result<Permissions, ErrorCode> {
        // From the last to the first: it is the owner's existence that counts.
        let mut owner_exists = false;
        for entry in list.iter().collect::<Vec<_>>().into_iter().rev() {
            owner_exists = self.domains.exists(entry.domid);
        }
        if !owner_exists {
            return Err(ErrorCode::NoEnt);
        }
        Ok(Permissions::new(list, &self.domains))
    }

    /// Ends a transaction and keeps what was done in it.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if it has failed before, `ENOSPC` if a domain would own too many nodes,
    /// `EAGAIN` if it conflicts with others' changes. The tree is as it was before then.
    pub(super) fn commit(
        &mut self,
        caller: Caller,
        transaction: Transaction,
    ) -> Result<(), ErrorCode> {
        if transaction.has_failed() {
            return Err(ErrorCode::NoMem);
        }
        let owned = transaction.owned(&self.domains);
        for (&domid, &change) in &owned {
            let before = self.domains.get(domid).map_or(0, |domain| domain.nodes);
            let limited = !caller.is_privileged() && domid != Caller::PRIVILEGED.domid;
            if limited && change > 0 && before.saturating_add_signed(change) >= self.quota.nodes {
                return Err(ErrorCode::NoSpc);
            }
        }
        if transaction.conflicts(&self.tree) {
            return Err(ErrorCode::Again);
        }
        for (domid, change) in owned {
            self.domains.count_nodes(domid, change);
        }
        for Change { path, action, event, before } in transaction.into_changes() {
            match action {
                Action::Keep => {}
                Action::Put(node) => self.tree.put(&path, node),
                Action::Remove => self.tree.remove(&path),
            }
            if let Some(reach) = event {
                self.fire(&path, None, before.as_ref(), reach);
            }
        }
        Ok(())
    }

    /// Removes all nodes of a domain that is gone, with what is below them.
    ///
    /// Its home is searched first, after the nodes above, and the rest of the tree only if it
    /// owns nodes elsewhere.
    pub(super) fn remove_nodes_of(&mut self, domid: u16) {
        for above in [&b"/local"[..], b"/local/domain"] {
            let owned = |node: &Arc<Node>| node.permissions.owner(&self.domains) == domid;
            if self.tree.get(above).is_some_and(owned) {
                let _ = self.rm(&mut Scope::privileged(), above);
            }
        }
        for start in [home(domid), b"/".to_vec()] {
            let mut paths = vec![start];
            while let Some(path) = paths.pop() {
                if self.domains.get(domid).is_none_or(|domain| domain.nodes == 0) {
                    return;
                }
                let Some(node) = self.tree.get(&path).cloned() else { continue };
                if node.permissions.owner(&self.domains) == domid && path != b"/" {
                    // Cannot fail: the toolstack may remove every node but the root.
                    let _ = self.rm(&mut Scope::privileged(), &path);
                } else {
                    let below = node.children.iter().map(|name| child(&path, name));
                    paths.extend(below.collect::<Vec<_>>().into_iter().rev());
                }
            }
        }
    }

    /// Tells the watchers of a path that it changed.
    ///
    /// A connection is told if its domain may read the node, or could before, or may read the
    /// node above. A node that a transaction makes and removes again has no event, not even for
    /// domain 0. `node` is what was at the path, where the tree does not
    /// say.
    pub(super) fn fire(
        &mut self,
        path: &[u8],
        node: Option<&Node>,
        before: Option<&Permissions>,
        reach: Reach,
    ) {
        for watch in self.watches.concerned(path, reach) {
            let Some(connection) = self.connections.get(&watch.connection) else { continue };
            let domid = connection.domid;
            if !self.may_see(self.caller(domid), path, node, before) {
                continue;
            }
            let home = home(domid);
            let shown = match path.strip_prefix(&*home).and_then(|rest| rest.strip_prefix(b"/")) {
                Some(relative) if watch.relative => relative,
                _ => path,
            };
            self.queue_event(watch.connection, WatchEvent { path: shown, token: &watch.token });
        }
    }

    fn may_see(
        &self,
        caller: Caller,
        path: &[u8],
        node: Option<&Node>,
        before: Option<&Permissions>,
    ) -> bool {
        let readable = |permissions: &Permissions| {
            permissions.rights(caller, &self.domains).contains(Rights::READ)
        };
        if path.starts_with(b"@") {
            return self.special.get(path).is_some_and(readable);
        }
        if before.is_some_and(readable) {
            return true;
        }
        let Some(node) = node.or_else(|| self.tree.get(path).map(|node| &**node)) else {
            return false;
        };
        readable(&node.permissions)
            || self.tree.get(parent(path)).is_some_and(|above| readable(&above.permissions))
    }

    /// Makes a node that is missing, and what is missing above it.
    fn create(&mut self, scope: &mut Scope, path: &[u8], value: &[u8]) -> Result<(), ErrorCode> {
        // The new nodes' paths, deepest first, and the node that is there already.
        let mut missing = vec![path];
        let (mut top, top_path) = loop {
            let above = parent(missing[missing.len() - 1]);
            match self.look_up(scope, above)? {
                Some(node) => break (node, above),
                None => missing.push(above),
            }
        };
        let permissions = top.permissions.inherited(scope.caller, &self.domains);
        let owner = permissions.owner(&self.domains);
        Arc::make_mut(&mut top).children.add(name(missing[missing.len() - 1]));

        let mut made = 0;
        let mut done = Ok(());
        for (at, path) in missing.iter().enumerate() {
            let mut node = Node::new(permissions.clone(), if at == 0 { value } else { b"" });
            if at > 0 {
                node.children.add(name(missing[at - 1]));
            }
            done = self
                .check_node_quota(scope.caller)
                .and_then(|()| self.put(scope, path, node.into()));
            if done.is_err() {
                break;
            }
            self.count_nodes(scope, owner, 1);
            made += 1;
        }
        let done = done.and_then(|()| self.put(scope, top_path, top));
        if done.is_err() {
            for path in &missing[..made] {
                self.store(scope, path, None);
                self.count_nodes(scope, owner, -1);
            }
            if let Some(transaction) = &mut scope.transaction
                && made > 0
            {
                transaction.fail();
            }
        }
        done
    }

    /// Removes what is below a node, then the node, but does not tell the one above.
    fn remove_subtree(
        &mut self,
        scope: &mut Scope,
        path: &[u8],
        node: &Node,
        reach: Reach,
    ) -> Result<(), ErrorCode> {
        for name in node.children.iter() {
            let below = child(path, name);
            // In a transaction a child can be missing whose parent was seen before somebody
            // else removed it; the commit will conflict. Or it is one too many to be touched.
            let node = self.look_up(scope, &below).ok().flatten().ok_or(ErrorCode::Io)?;
            self.remove_subtree(scope, &below, &node, Reach::Exact)?;
        }
        // While the permissions of the node and the one above are still there.
        self.changed(scope, path, Some(node), None, reach);
        let owner = node.permissions.owner(&self.domains);
        self.count_nodes(scope, owner, -1);
        self.store(scope, path, None);
        Ok(())
    }

    /// The node, whoever asks.
    fn look_up(&self, scope: &mut Scope, path: &[u8]) -> Result<Option<Arc<Node>>, ErrorCode> {
        let limit =
            if scope.caller.is_privileged() { usize::MAX } else { self.quota.transaction_nodes };
        match &mut scope.transaction {
            Some(transaction) => transaction.read(path, &self.tree, limit),
            None => Ok(self.tree.get(path).cloned()),
        }
    }

    /// The closest node above a path that is there. The root always is.
    fn closest_above(&self, scope: &mut Scope, path: &[u8]) -> Result<Arc<Node>, ErrorCode> {
        let mut at = path;
        loop {
            at = parent(at);
            if let Some(node) = self.look_up(scope, at)? {
                return Ok(node);
            }
            if at == b"/" {
                return Err(ErrorCode::NoEnt);
            }
        }
    }

    /// Writes a node, if it is not too long.
    fn put(&mut self, scope: &mut Scope, path: &[u8], node: Arc<Node>) -> Result<(), ErrorCode> {
        if !scope.caller.is_privileged() && node.size() >= self.quota.node_size {
            if let Some(transaction) = &mut scope.transaction {
                transaction.fail();
            }
            return Err(ErrorCode::NoSpc);
        }
        self.store(scope, path, Some(node));
        Ok(())
    }

    /// Writes a node, or removes it, where the scope's changes go.
    fn store(&mut self, scope: &mut Scope, path: &[u8], node: Option<Arc<Node>>) {
        match (&mut scope.transaction, node) {
            (Some(transaction), node) => transaction.write(path, node),
            (None, Some(node)) => self.tree.put(path, node),
            (None, None) => self.tree.remove(path),
        }
    }

    /// Tells watchers, at once or with the commit.
    fn changed(
        &mut self,
        scope: &mut Scope,
        path: &[u8],
        node: Option<&Node>,
        before: Option<&Permissions>,
        reach: Reach,
    ) {
        match &mut scope.transaction {
            Some(transaction) => transaction.queue_event(path, reach),
            None => self.fire(path, node, before, reach),
        }
    }

    /// Counts nodes that a domain got, or lost; what a transaction has done, its commit counts.
    fn count_nodes(&mut self, scope: &Scope, domid: u16, change: isize) {
        if scope.transaction.is_none() {
            self.domains.count_nodes(domid, change);
        }
    }

    /// May the caller make one more node? Nodes made in its transaction count only when the
    /// transaction commits.
    fn check_node_quota(&self, caller: Caller) -> Result<(), ErrorCode> {
        let owned = self.domains.get(caller.domid).map_or(0, |domain| domain.nodes);
        if !caller.is_privileged() && owned >= self.quota.nodes {
            return Err(ErrorCode::NoSpc);
        }
        Ok(())
    }
}
