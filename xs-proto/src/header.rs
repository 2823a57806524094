//! The sixteen bytes before every payload (`struct xsd_sockmsg` in `xs_wire.h`).

/// The type of a message. A reply has the type of its request, or [`MessageType::Error`].
///
/// Source: `enum xsd_sockmsg_type` in `xs_wire.h`; the operations are described under
/// "Database read, write and permissions operations" and after in `xenstore.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MessageType {
    /// Orders to the daemon itself.
    Control = 0,
    /// The names of a node's children.
    Directory = 1,
    /// A node's value.
    Read = 2,
    /// A node's permissions.
    GetPerms = 3,
    /// Asks for an event at each change of a node or below it.
    Watch = 4,
    /// Ends a watch.
    Unwatch = 5,
    /// Starts a transaction.
    TransactionStart = 6,
    /// Commits or drops a transaction.
    TransactionEnd = 7,
    /// Tells the store of a new domain.
    Introduce = 8,
    /// Ends the store's connection to a domain.
    Release = 9,
    /// A domain's home, `/local/domain/N`.
    GetDomainPath = 10,
    /// Sets a node's value; makes the node, and its parents, if need be.
    Write = 11,
    /// Makes a node without a value.
    Mkdir = 12,
    /// Removes a node and all below it.
    Rm = 13,
    /// Sets a node's permissions.
    SetPerms = 14,
    /// Sent by the store: something under a watched path changed.
    WatchEvent = 15,
    /// Sent by the store: the request failed.
    Error = 16,
    /// Is the store connected to this domain?
    IsDomainIntroduced = 17,
    /// A domain has resumed after its suspend.
    Resume = 18,
    /// Gives one domain the rights of another over its nodes.
    SetTarget = 19,
    /// Ends all watches and transactions of the connection.
    ResetWatches = 21,
    /// A part of a list of children that is too long for one message.
    DirectoryPart = 22,
    /// Reads the store's features, or those that a domain may see.
    GetFeature = 23,
    /// Sets the features that a domain may see.
    SetFeature = 24,
    /// The limits of the store, or of a domain.
    GetQuota = 25,
    /// Sets a limit of the store, or of a domain.
    SetQuota = 26,
}

impl MessageType {
    /// The type with this number on the wire; `None` for a number that has no meaning.
    #[must_use]
    pub const fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Control,
            1 => Self::Directory,
            2 => Self::Read,
            3 => Self::GetPerms,
            4 => Self::Watch,
            5 => Self::Unwatch,
            6 => Self::TransactionStart,
            7 => Self::TransactionEnd,
            8 => Self::Introduce,
            9 => Self::Release,
            10 => Self::GetDomainPath,
            11 => Self::Write,
            12 => Self::Mkdir,
            13 => Self::Rm,
            14 => Self::SetPerms,
            15 => Self::WatchEvent,
            16 => Self::Error,
            17 => Self::IsDomainIntroduced,
            18 => Self::Resume,
            19 => Self::SetTarget,
            21 => Self::ResetWatches,
            22 => Self::DirectoryPart,
            23 => Self::GetFeature,
            24 => Self::SetFeature,
            25 => Self::GetQuota,
            26 => Self::SetQuota,
            _ => return None,
        })
    }

    /// The type's number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }
}

/// The header of a message: four little-endian words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's type as it is on the wire: [`MessageType::from_wire`] says what it means,
    /// if it means anything.
    pub kind: u32,
    /// Chosen by the client, echoed in the reply. Not set in a watch event from Linux's
    /// `/dev/xen/xenbus`, where it is uninitialised memory.
    pub req_id: u32,
    /// The transaction the request belongs to; 0 outside of any.
    pub tx_id: u32,
    /// Length of the payload in bytes, at most [`PAYLOAD_MAX`](crate::PAYLOAD_MAX) in a
    /// message that keeps to the protocol.
    pub len: u32,
}

impl Header {
    /// Length of a header in bytes.
    pub const LEN: usize = 16;

    /// Reads a header. Every sixteen bytes are one.
    #[must_use]
    pub const fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let b = bytes;
        Self {
            kind: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            req_id: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            tx_id: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            len: u32::from_le_bytes([b[12], b[13], b[14], b[15]]),
        }
    }

    /// The header's bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.req_id.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.tx_id.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The message's type; `None` for a type number that has no meaning.
    #[must_use]
    pub const fn message_type(&self) -> Option<MessageType> {
        MessageType::from_wire(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; 16] = [11, 0, 0, 0, 4, 3, 2, 1, 7, 0, 0, 0, 0, 16, 0, 0];

    #[test]
    fn golden_header_both_ways() {
        let header = Header { kind: 11, req_id: 0x0102_0304, tx_id: 7, len: 4096 };
        assert_eq!(Header::parse(&GOLDEN), header);
        assert_eq!(header.emit(), GOLDEN);
        assert_eq!(header.message_type(), Some(MessageType::Write));
    }

    #[test]
    fn every_type_keeps_its_number() {
        let known = (0..64).filter_map(MessageType::from_wire);
        let numbers: alloc::vec::Vec<u32> = known.map(MessageType::to_wire).collect();
        let expected: alloc::vec::Vec<u32> = (0..=19).chain(21..=26).collect();
        assert_eq!(numbers, expected);
    }
}
