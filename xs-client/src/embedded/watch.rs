//! The watches of all connections.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::ConnectionId;
use super::tree::parent;

/// The watches that a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Watches of the node itself. The node went away with a node above it, which has an event of
    /// its own.
    Exact,
    /// Watches of the node itself and of all nodes above it.
    Subtree,
}

/// A watch of one connection.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) connection: ConnectionId,
    /// The order in which watches were made is the order in which their events are sent.
    sequence: u64,
    pub(super) token: Arc<[u8]>,
    /// Was it asked for with a relative path? Then its events have relative paths.
    pub(super) relative: bool,
}

/// All watches, by absolute or special path.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_path: HashMap<Box<[u8]>, Vec<Watch>>,
    /// The paths of a connection's watches, to find them again when it ends.
    by_connection: HashMap<ConnectionId, Vec<Box<[u8]>>>,
    next_sequence: u64,
}

impl Watches {
    pub(super) fn contains(&self, connection: ConnectionId, path: &[u8], token: &[u8]) -> bool {
        self.by_path.get(path).is_some_and(|watches| {
            watches.iter().any(|watch| watch.connection == connection && *watch.token == *token)
        })
    }

    pub(super) fn add(
        &mut self,
        connection: ConnectionId,
        path: &[u8],
        token: &[u8],
        relative: bool,
    ) {
        self.next_sequence += 1;
        let sequence = self.next_sequence;
        let watch = Watch { connection, sequence, token: token.into(), relative };
        self.by_path.entry(path.into()).or_default().push(watch);
        self.by_connection.entry(connection).or_default().push(path.into());
    }

    /// Ends a watch. Was there one?
    pub(super) fn remove(&mut self, connection: ConnectionId, path: &[u8], token: &[u8]) -> bool {
        if !self.contains(connection, path, token) {
            return false;
        }
        self.retain_at(path, |watch| watch.connection != connection || *watch.token != *token);
        if let Some(paths) = self.by_connection.get_mut(&connection)
            && let Some(at) = paths.iter().position(|other| **other == *path)
        {
            paths.swap_remove(at);
        }
        true
    }

    /// Ends all watches of a connection; returns how many there were.
    pub(super) fn remove_all(&mut self, connection: ConnectionId) -> usize {
        let paths = self.by_connection.remove(&connection).unwrap_or_default();
        for path in &paths {
            self.retain_at(path, |watch| watch.connection != connection);
        }
        paths.len()
    }

    /// The watches that a change of `path` concerns, oldest first.
    pub(super) fn concerned(&self, path: &[u8], reach: Reach) -> Vec<Watch> {
        let mut watches = Vec::new();
        let mut at = path;
        loop {
            watches.extend(self.by_path.get(at).into_iter().flatten().cloned());
            let special = at.starts_with(b"@");
            if special || reach == Reach::Exact || at == b"/" {
                break;
            }
            at = parent(at);
        }
        watches.sort_unstable_by_key(|watch| watch.sequence);
        watches
    }

    fn retain_at(&mut self, path: &[u8], keep: impl Fn(&Watch) -> bool) {
        if let Some(watches) = self.by_path.get_mut(path) {
            watches.retain(keep);
            if watches.is_empty() {
                self.by_path.remove(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ConnectionId = ConnectionId::new(1);
    const TWO: ConnectionId = ConnectionId::new(2);

    fn tokens(watches: &Watches, path: &[u8], reach: Reach) -> Vec<u8> {
        watches.concerned(path, reach).iter().map(|watch| watch.token[0]).collect()
    }

    #[test]
    fn change_concerns_watches_above_it_in_order_of_creation() {
        let mut watches = Watches::default();
        watches.add(ONE, b"/a/b", b"1", false);
        watches.add(TWO, b"/", b"2", false);
        watches.add(ONE, b"/a", b"3", false);
        watches.add(ONE, b"/ab", b"4", false);
        watches.add(ONE, b"@releaseDomain", b"5", false);
        assert_eq!(tokens(&watches, b"/a/b/c", Reach::Subtree), b"123");
        assert_eq!(tokens(&watches, b"/a", Reach::Exact), b"3");
        assert_eq!(tokens(&watches, b"@releaseDomain", Reach::Subtree), b"5");
    }

    #[test]
    fn the_watches_of_a_connection_end_with_it() {
        let mut watches = Watches::default();
        watches.add(ONE, b"/a", b"1", false);
        watches.add(ONE, b"/a", b"2", false);
        watches.add(TWO, b"/a", b"3", false);
        assert!(watches.remove(ONE, b"/a", b"1"));
        assert!(!watches.remove(ONE, b"/a", b"1"));
        assert_eq!(watches.remove_all(ONE), 1);
        assert_eq!(tokens(&watches, b"/a", Reach::Subtree), b"3");
    }
}
