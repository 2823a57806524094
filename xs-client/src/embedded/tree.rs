//! The nodes.

use std::collections::HashMap;
use std::sync::Arc;

use super::permissions::Permissions;

/// A node: the value, the children and the permissions of one path.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Changes at every change of the node. No two changes in a store have the same.
    pub(super) generation: u64,
    pub(super) permissions: Permissions,
    pub(super) value: Box<[u8]>,
    pub(super) children: Children,
}

impl Node {
    /// A node that is not yet part of a tree.
    pub(super) fn new(permissions: Permissions, value: &[u8]) -> Self {
        Self { generation: 0, permissions, value: value.into(), children: Children::default() }
    }

    /// Length in bytes of the record that the C xenstored keeps of such a node; what its quota
    /// is about.
    pub(super) fn size(&self) -> usize {
        const HEADER: usize = 24;
        const PERMISSION: usize = 8;
        HEADER
            + self.permissions.len() * PERMISSION
            + self.value.len()
            + self.children.as_bytes().len()
    }
}

/// The names of a node's children, oldest first, each ended by a NUL: as the wire has them.
///
/// A single block of bytes, in the form of a `DIRECTORY` reply: fast to copy for a transaction, and
/// ready to send.
#[derive(Clone, Debug, Default)]
pub(super) struct Children(Vec<u8>);

impl Children {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split_inclusive(|byte| *byte == 0).map(|name| &name[..name.len() - 1])
    }

    /// Adds a name, which must not be there.
    pub(super) fn add(&mut self, name: &[u8]) {
        self.0.extend_from_slice(name);
        self.0.push(0);
    }

    /// Removes a name. Was it there?
    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        let mut at = 0;
        let found = self.iter().any(|other| {
            let is_it = other == name;
            at += if is_it { 0 } else { other.len() + 1 };
            is_it
        });
        if found {
            self.0.drain(at..=at + name.len());
        }
        found
    }
}

/// All nodes by absolute path.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<Box<[u8]>, Arc<Node>>,
    generation: u64,
}

impl Tree {
    /// A tree of a root alone.
    pub(super) fn new(root: Node) -> Self {
        let mut tree = Self { nodes: HashMap::new(), generation: 0 };
        tree.put(b"/", Arc::new(root));
        tree
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<&Arc<Node>> {
        self.nodes.get(path)
    }

    /// Stores a node, with a new generation.
    pub(super) fn put(&mut self, path: &[u8], mut node: Arc<Node>) {
        Arc::make_mut(&mut node).generation = self.next_generation();
        match self.nodes.get_mut(path) {
            Some(slot) => *slot = node,
            None => {
                self.nodes.insert(path.into(), node);
            }
        }
    }

    pub(super) fn remove(&mut self, path: &[u8]) {
        self.nodes.remove(path);
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }
}

/// The path of the node above; the root's is the root.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

/// The last name of a path.
pub(super) fn name(path: &[u8]) -> &[u8] {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    &path[at..]
}

/// The path of a child.
pub(super) fn child(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        b"/" => [b"/", name].concat(),
        _ => [path, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_names_and_children_of_paths() {
        assert_eq!(parent(b"/a/b"), b"/a");
        assert_eq!(parent(b"/a"), b"/");
        assert_eq!(parent(b"/"), b"/");
        assert_eq!(name(b"/a/b"), b"b");
        assert_eq!(child(b"/", b"a"), b"/a");
        assert_eq!(child(b"/a", b"b"), b"/a/b");
    }

    #[test]
    fn children_keep_the_order_they_came_in() {
        let mut children = Children::default();
        for name in [&b"bb"[..], b"b", b"bbb", b"a"] {
            children.add(name);
        }
        assert!(children.remove(b"b"));
        assert!(!children.remove(b"nobody"));
        assert_eq!(children.as_bytes(), b"bb\0bbb\0a\0");
        children.add(b"b");
        children.remove(b"bb");
        assert_eq!(children.iter().collect::<Vec<_>>(), [&b"bbb"[..], b"a", b"b"]);
    }
}
