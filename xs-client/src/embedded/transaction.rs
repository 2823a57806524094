//! Transactions: the nodes that one has touched, and its changes.

use std::collections::HashMap;
use std::sync::Arc;

use xs_proto::ErrorCode;

use super::domain::Domains;
use super::permissions::Permissions;
use super::tree::{Node, Tree};
use super::watch::Reach;

/// A transaction that is under way.
///
/// A transaction copies each node when it first touches that node, not the whole tree when it
/// starts. The commit succeeds if no touched node, read or missing, has changed since.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// In the order they were first touched, which is the order of the commit.
    touched: Vec<Touched>,
    by_path: HashMap<Box<[u8]>, usize>,
    failed: bool,
}

#[derive(Debug)]
struct Touched {
    path: Box<[u8]>,
    /// As it was outside when first touched.
    before: Option<Arc<Node>>,
    /// As it is inside.
    now: Option<Arc<Node>>,
    changed: bool,
    event: Option<Reach>,
}

/// The effect of a commit on one node.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) path: Box<[u8]>,
    pub(super) action: Action,
    /// The watches that get an event, if any do.
    pub(super) event: Option<Reach>,
    /// The node's permissions before the transaction.
    pub(super) before: Option<Permissions>,
}

#[derive(Debug)]
pub(super) enum Action {
    /// The node was only read.
    Keep,
    Put(Arc<Node>),
    Remove,
}

impl Transaction {
    /// The node as the transaction sees it.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if it would be more than `limit` nodes that the transaction touches, which
    /// [fails](Self::fail) then.
    pub(super) fn read(
        &mut self,
        path: &[u8],
        tree: &Tree,
        limit: usize,
    ) -> Result<Option<Arc<Node>>, ErrorCode> {
        if let Some(&at) = self.by_path.get(path) {
            return Ok(self.touched[at].now.clone());
        }
        if self.touched.len() >= limit {
            self.fail();
            return Err(ErrorCode::NoSpc);
        }
        let node = tree.get(path).cloned();
        self.by_path.insert(path.into(), self.touched.len());
        self.touched.push(Touched {
            path: path.into(),
            before: node.clone(),
            now: node.clone(),
            changed: false,
            event: None,
        });
        Ok(node)
    }

    /// Writes a node that was read before, or removes it.
    pub(super) fn write(&mut self, path: &[u8], node: Option<Arc<Node>>) {
        if let Some(touched) = self.entry(path) {
            touched.now = node;
            touched.changed = true;
        }
    }

    /// Keeps an event for the commit. Of several of a node the one that reaches further counts.
    pub(super) fn queue_event(&mut self, path: &[u8], reach: Reach) {
        if let Some(touched) = self.entry(path) {
            touched.event = touched.event.max(Some(reach));
        }
    }

    /// By how many its nodes change what each domain owns. A domain that is gone by now owns
    /// none, though another may have its number.
    pub(super) fn owned(&self, domains: &Domains) -> HashMap<u16, isize> {
        let mut owned = HashMap::new();
        for touched in self.touched.iter().filter(|touched| touched.changed) {
            for (node, change) in [(&touched.before, -1), (&touched.now, 1)] {
                if let Some(node) = node {
                    *owned.entry(node.permissions.owner(domains)).or_default() += change;
                }
            }
        }
        owned
    }

    /// A request has failed half-way and cannot be undone: there is to be no commit.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Has somebody else changed a node since the transaction first touched it?
    pub(super) fn conflicts(&self, tree: &Tree) -> bool {
        let generation = |node: &Arc<Node>| node.generation;
        self.touched.iter().any(|touched| {
            tree.get(&touched.path).map(generation) != touched.before.as_ref().map(generation)
        })
    }

    /// The changes of a commit, to be made one after another in this order. An event goes to the
    /// watches that may see the node after the changes before it and before the changes behind it.
    pub(super) fn into_changes(self) -> impl Iterator<Item = Change> {
        self.touched.into_iter().map(|Touched { path, before, now, changed, event }| {
            let action = match now {
                _ if !changed => Action::Keep,
                Some(node) => Action::Put(node),
                None => Action::Remove,
            };
            let before = before.map(|node| node.permissions.clone());
            Change { path, action, event, before }
        })
    }

    fn entry(&mut self, path: &[u8]) -> Option<&mut Touched> {
        let at = *self.by_path.get(path)?;
        self.touched.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: &[u8]) -> Arc<Node> {
        Arc::new(Node::new(Permissions::privileged(&Domains::new(false)), value))
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(Arc::unwrap_or_clone(node(b"")));
        tree.put(b"/a", node(b"a"));
        tree.put(b"/b", node(b"b"));
        tree
    }

    #[test]
    fn nothing_shows_outside_before_the_commit() {
        let tree = tree();
        let mut transaction = Transaction::default();
        transaction.read(b"/a", &tree, 9).unwrap();
        transaction.write(b"/a", Some(node(b"new")));
        transaction.queue_event(b"/a", Reach::Subtree);
        assert_eq!(*tree.get(b"/a").unwrap().value, *b"a");
        assert_eq!(*transaction.read(b"/a", &tree, 9).unwrap().unwrap().value, *b"new");
        let changes: Vec<Change> = transaction.into_changes().collect();
        let [Change { action: Action::Put(node), event: Some(Reach::Subtree), .. }] = &changes[..]
        else {
            panic!("{changes:?}");
        };
        assert_eq!(*node.value, *b"new");
    }

    #[test]
    fn a_node_that_was_only_read_conflicts_too() {
        let mut tree = tree();
        let mut transaction = Transaction::default();
        transaction.read(b"/a", &tree, 9).unwrap();
        transaction.read(b"/b", &tree, 9).unwrap();
        assert!(!transaction.conflicts(&tree));
        tree.put(b"/a", node(b"a"));
        assert!(transaction.conflicts(&tree));
    }

    #[test]
    fn a_node_that_was_missing_conflicts_with_its_making() {
        let mut tree = tree();
        let mut transaction = Transaction::default();
        assert!(transaction.read(b"/c", &tree, 9).unwrap().is_none());
        tree.put(b"/c", node(b""));
        assert!(transaction.read(b"/c", &tree, 9).unwrap().is_none());
        assert!(transaction.conflicts(&tree));
    }

    #[test]
    fn node_of_a_gone_domain_does_not_count_for_its_successor() {
        let mut domains = Domains::new(false);
        domains.create(7);
        let list = xs_proto::PermissionList::parse(b"n7\0").unwrap();
        let given = Arc::new(Node::new(Permissions::new(list, &domains), b""));
        let mut transaction = Transaction::default();
        transaction.read(b"/c", &tree(), 9).unwrap();
        transaction.write(b"/c", Some(given));
        assert_eq!(transaction.owned(&domains), HashMap::from([(7, 1)]));
        domains.remove(7);
        domains.create(7);
        assert_eq!(transaction.owned(&domains), HashMap::from([(0, 1)]));
    }

    #[test]
    fn a_transaction_may_touch_only_so_many_nodes() {
        let tree = tree();
        let mut transaction = Transaction::default();
        transaction.read(b"/a", &tree, 1).unwrap();
        transaction.read(b"/a", &tree, 1).unwrap();
        assert_eq!(transaction.read(b"/b", &tree, 1).unwrap_err(), ErrorCode::NoSpc);
    }
}
