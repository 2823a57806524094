//! The watches that a client has, to register them again on a new connection.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Path and token of each watch, in the order they were made.
///
/// A list, not a table: a domain may have 128 watches and a daemon has a handful.
#[derive(Debug, Default)]
pub(crate) struct Watches(Vec<Watch>);

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) path: Box<[u8]>,
    pub(crate) token: Box<[u8]>,
    /// The depth that the caller has asked for.
    pub(crate) depth: Option<u32>,
}

impl Watch {
    /// May an event of this path and token be of this watch?
    fn covers(&self, path: &[u8], token: &[u8]) -> bool {
        let below = match path.strip_prefix(&*self.path) {
            Some(rest) => rest.is_empty() || rest[0] == b'/' || *self.path == *b"/",
            None => false,
        };
        below && *self.token == *token
    }
}

impl Watches {
    pub(crate) fn contains(&self, path: &[u8], token: &[u8]) -> bool {
        self.position(path, token).is_some()
    }

    pub(crate) fn insert(&mut self, path: &[u8], token: &[u8], depth: Option<u32>) {
        self.0.push(Watch { path: path.into(), token: token.into(), depth });
    }

    /// Is there a watch that an event of this path and token may be of?
    pub(crate) fn cover(&self, path: &[u8], token: &[u8]) -> bool {
        self.0.iter().any(|watch| watch.covers(path, token))
    }

    pub(crate) fn remove(&mut self, path: &[u8], token: &[u8]) {
        if let Some(at) = self.position(path, token) {
            self.0.remove(at);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn as_slice(&self) -> &[Watch] {
        &self.0
    }

    fn position(&self, path: &[u8], token: &[u8]) -> Option<usize> {
        self.0.iter().position(|watch| *watch.path == *path && *watch.token == *token)
    }
}
