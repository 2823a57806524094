//! The limits of unprivileged domains.

/// The limits of each unprivileged domain. Domain 0 has none.
///
/// The defaults are those of the C xenstored 4.17, and so are the errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Nodes that a domain may own; `ENOSPC` beyond.
    pub nodes: usize,
    /// Bytes of a node: its value, its children's names, its permissions and the daemon's own
    /// header of it. A node that would *reach* this: `ENOSPC`.
    pub node_size: usize,
    /// Watches of a domain. The daemon refuses once there are *more*, with `E2BIG`.
    pub watches: usize,
    /// Transactions that a domain may have at once. The daemon refuses once there are *more*,
    /// with `ENOSPC`.
    pub transactions: usize,
    /// Nodes that a transaction may touch, reads included; `ENOSPC` beyond.
    pub transaction_nodes: usize,
    /// Entries in the permissions of a node; `ENOSPC` beyond.
    pub permissions: usize,
    /// Replies not yet taken by the domain. At that many the store reads no more of its
    /// requests until it takes some; there is no error.
    pub outstanding: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_size: 2048,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            permissions: 5,
            outstanding: 20,
        }
    }
}
