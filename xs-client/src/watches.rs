//! The watches that a client has, to register them again on a new connection.

/// Path and token of each watch, in the order they were made.
///
/// A list, not a table: a domain may have 128 watches and a daemon has a handful.
#[derive(Debug, Default)]
pub(crate) struct Watches(Vec<Watch>);

/// A watch: its path and its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) path: Box<[u8]>,
    pub(crate) token: Box<[u8]>,
}

impl Watches {
    pub(crate) fn contains(&self, path: &[u8], token: &[u8]) -> bool {
        self.position(path, token).is_some()
    }

    pub(crate) fn insert(&mut self, path: &[u8], token: &[u8]) {
        self.0.push(Watch { path: path.into(), token: token.into() });
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
