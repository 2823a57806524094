//! Requests: a client's messages to the store.

use alloc::vec::Vec;

use crate::{Header, Malformed, MessageType, PAYLOAD_MAX, PermissionList, text};

/// A request whose payload does not fit a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {len} bytes does not fit the {PAYLOAD_MAX} of a message")]
pub struct TooLong {
    /// The payload's length in bytes.
    pub len: usize,
}

/// A request. Paths are as they came: a client checks them with [`Path`](crate::Path) before
/// it sends, a server after it has parsed.
///
/// Source: the operation of the same name in `xenstore.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// A command to the daemon and its arguments, each ended by a NUL.
    Control {
        /// The bytes behind the header, unread.
        command: &'a [u8],
    },
    /// The names of the children of a node.
    Directory {
        /// The node.
        path: &'a [u8],
    },
    /// The value of a node.
    Read {
        /// The node.
        path: &'a [u8],
    },
    /// The permissions of a node.
    GetPerms {
        /// The node.
        path: &'a [u8],
    },
    /// Events from now on for a node and all below it.
    Watch {
        /// The node, which need not exist.
        path: &'a [u8],
        /// The token, which each event of this watch carries.
        token: &'a [u8],
        /// How far below the node events are wanted; not understood by every daemon, and
        /// dropped by Linux's `/dev/xen/xenbus`.
        depth: Option<u32>,
    },
    /// No more events for this watch.
    Unwatch {
        /// The path of the watch.
        path: &'a [u8],
        /// The token of the watch.
        token: &'a [u8],
    },
    /// Begins a transaction.
    TransactionStart,
    /// Ends the transaction of the header's `tx_id`.
    TransactionEnd {
        /// Keep what was done in it?
        commit: bool,
    },
    /// Connects the store to a domain.
    Introduce {
        /// The domain.
        domid: u16,
        /// The frame that its ring is in.
        frame: u64,
        /// The event channel's port on its side.
        port: u32,
    },
    /// Disconnects the store from a domain.
    Release {
        /// The domain.
        domid: u16,
    },
    /// The home of a domain.
    GetDomainPath {
        /// The domain.
        domid: u16,
    },
    /// Sets the value of a node.
    Write {
        /// The node, made if need be, and its parents with it.
        path: &'a [u8],
        /// Any bytes, with no NUL behind them.
        value: &'a [u8],
    },
    /// Makes a node, if it is not there.
    Mkdir {
        /// The node; its parents are made too.
        path: &'a [u8],
    },
    /// Removes a node and all below it.
    Rm {
        /// The node.
        path: &'a [u8],
    },
    /// Sets the permissions of a node.
    SetPerms {
        /// The node.
        path: &'a [u8],
        /// All its permissions, the owner's first.
        permissions: PermissionList<'a>,
    },
    /// Is the store connected to this domain?
    IsDomainIntroduced {
        /// The domain.
        domid: u16,
    },
    /// The domain has resumed.
    Resume {
        /// The domain.
        domid: u16,
    },
    /// Gives a domain the rights of another.
    SetTarget {
        /// The domain that gets the rights.
        domid: u16,
        /// The domain whose rights they are.
        target: u16,
    },
    /// Ends all watches and transactions of this connection.
    ResetWatches,
    /// A part of the names of the children of a node.
    DirectoryPart {
        /// The node.
        path: &'a [u8],
        /// How many bytes of the list to skip.
        offset: u32,
    },
    /// The store's features, its own or as one domain sees them.
    GetFeature {
        /// The domain.
        domid: Option<u16>,
    },
    /// Sets the features that a domain sees.
    SetFeature {
        /// The domain.
        domid: u16,
        /// A bit for each feature.
        features: u32,
    },
    /// The names of the quotas; or the value of one, the store's own or a domain's.
    GetQuota {
        /// The domain.
        domid: Option<u16>,
        /// The quota.
        name: Option<&'a [u8]>,
    },
    /// Sets a quota, the store's own or a domain's.
    SetQuota {
        /// The domain.
        domid: Option<u16>,
        /// The quota.
        name: &'a [u8],
        /// Its new value.
        value: u32,
    },
}

impl<'a> Request<'a> {
    /// Reads the payload of a request of this type.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is none, or if the type is one that only the store sends.
    pub fn parse(kind: MessageType, payload: &'a [u8]) -> Result<Self, Malformed> {
        let domid = || text::one(payload).and_then(text::number);
        let path = || text::one(payload);
        Ok(match kind {
            MessageType::Control => Self::Control { command: payload },
            MessageType::Directory => Self::Directory { path: path()? },
            MessageType::Read => Self::Read { path: path()? },
            MessageType::GetPerms => Self::GetPerms { path: path()? },
            MessageType::Watch => {
                let (path, rest) = text::split_nul(payload)?;
                let (token, rest) = text::split_nul(rest)?;
                let depth = match rest {
                    [] => None,
                    _ => Some(text::number(text::one(rest)?)?),
                };
                Self::Watch { path, token, depth }
            }
            MessageType::Unwatch => {
                let (path, token) = text::two(payload)?;
                Self::Unwatch { path, token }
            }
            // Clients send a NUL or nothing at all.
            MessageType::TransactionStart => Self::TransactionStart,
            MessageType::TransactionEnd => match payload {
                b"T\0" => Self::TransactionEnd { commit: true },
                b"F\0" => Self::TransactionEnd { commit: false },
                _ => return Err(Malformed),
            },
            MessageType::Introduce => {
                let (domid, rest) = text::split_nul(payload)?;
                let (frame, rest) = text::split_nul(rest)?;
                // Old clients send a fourth string, which has no meaning any more.
                let (port, _) = text::split_nul(rest)?;
                Self::Introduce {
                    domid: text::number(domid)?,
                    frame: text::number(frame)?,
                    port: text::number(port)?,
                }
            }
            MessageType::Release => Self::Release { domid: domid()? },
            MessageType::GetDomainPath => Self::GetDomainPath { domid: domid()? },
            MessageType::Write => {
                let (path, value) = text::split_nul(payload)?;
                Self::Write { path, value }
            }
            MessageType::Mkdir => Self::Mkdir { path: path()? },
            MessageType::Rm => Self::Rm { path: path()? },
            MessageType::SetPerms => {
                let (path, list) = text::split_nul(payload)?;
                Self::SetPerms { path, permissions: PermissionList::parse(list)? }
            }
            MessageType::IsDomainIntroduced => Self::IsDomainIntroduced { domid: domid()? },
            MessageType::Resume => Self::Resume { domid: domid()? },
            MessageType::SetTarget => {
                let (domid, target) = text::two(payload)?;
                Self::SetTarget { domid: text::number(domid)?, target: text::number(target)? }
            }
            MessageType::ResetWatches => Self::ResetWatches,
            MessageType::DirectoryPart => {
                let (path, offset) = text::two(payload)?;
                Self::DirectoryPart { path, offset: text::number(offset)? }
            }
            MessageType::GetFeature => Self::GetFeature {
                domid: match payload {
                    [] | [0] => None,
                    _ => Some(domid()?),
                },
            },
            MessageType::SetFeature => {
                let (domid, features) = text::two(payload)?;
                Self::SetFeature { domid: text::number(domid)?, features: text::number(features)? }
            }
            MessageType::GetQuota => Self::parse_get_quota(payload)?,
            MessageType::SetQuota => Self::parse_set_quota(payload)?,
            MessageType::WatchEvent | MessageType::Error => return Err(Malformed),
        })
    }

    /// Reads no argument, a quota's name, or a domain and a quota's name.
    fn parse_get_quota(payload: &'a [u8]) -> Result<Self, Malformed> {
        if matches!(payload, [] | [0]) {
            return Ok(Self::GetQuota { domid: None, name: None });
        }
        Ok(match text::split_nul(payload)? {
            (name, []) => Self::GetQuota { domid: None, name: Some(name) },
            (domid, rest) => {
                Self::GetQuota { domid: Some(text::number(domid)?), name: Some(text::one(rest)?) }
            }
        })
    }

    /// Reads an optional domain, a quota's name, and its value.
    fn parse_set_quota(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (first, rest) = text::split_nul(payload)?;
        Ok(match text::split_nul(rest)? {
            (value, []) => Self::SetQuota { domid: None, name: first, value: text::number(value)? },
            (name, rest) => Self::SetQuota {
                domid: Some(text::number(first)?),
                name,
                value: text::number(text::one(rest)?)?,
            },
        })
    }

    /// The type of message this is.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::Control { .. } => MessageType::Control,
            Self::Directory { .. } => MessageType::Directory,
            Self::Read { .. } => MessageType::Read,
            Self::GetPerms { .. } => MessageType::GetPerms,
            Self::Watch { .. } => MessageType::Watch,
            Self::Unwatch { .. } => MessageType::Unwatch,
            Self::TransactionStart => MessageType::TransactionStart,
            Self::TransactionEnd { .. } => MessageType::TransactionEnd,
            Self::Introduce { .. } => MessageType::Introduce,
            Self::Release { .. } => MessageType::Release,
            Self::GetDomainPath { .. } => MessageType::GetDomainPath,
            Self::Write { .. } => MessageType::Write,
            Self::Mkdir { .. } => MessageType::Mkdir,
            Self::Rm { .. } => MessageType::Rm,
            Self::SetPerms { .. } => MessageType::SetPerms,
            Self::IsDomainIntroduced { .. } => MessageType::IsDomainIntroduced,
            Self::Resume { .. } => MessageType::Resume,
            Self::SetTarget { .. } => MessageType::SetTarget,
            Self::ResetWatches => MessageType::ResetWatches,
            Self::DirectoryPart { .. } => MessageType::DirectoryPart,
            Self::GetFeature { .. } => MessageType::GetFeature,
            Self::SetFeature { .. } => MessageType::SetFeature,
            Self::GetQuota { .. } => MessageType::GetQuota,
            Self::SetQuota { .. } => MessageType::SetQuota,
        }
    }

    /// Appends the payload to `out`. Requests without arguments have one NUL: oxenstored does
    /// not answer an empty payload before more bytes come.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Control { command } => out.extend_from_slice(command),
            Self::Directory { path }
            | Self::Read { path }
            | Self::GetPerms { path }
            | Self::Mkdir { path }
            | Self::Rm { path } => text::put(out, path),
            Self::Watch { path, token, depth } => {
                text::put(out, path);
                text::put(out, token);
                if let Some(depth) = depth {
                    text::put_number(out, depth);
                }
            }
            Self::Unwatch { path, token } => {
                text::put(out, path);
                text::put(out, token);
            }
            Self::TransactionStart | Self::ResetWatches => out.push(0),
            Self::TransactionEnd { commit } => text::put(out, if commit { b"T" } else { b"F" }),
            Self::Introduce { domid, frame, port } => {
                text::put_number(out, domid);
                text::put_number(out, frame);
                text::put_number(out, port);
            }
            Self::Release { domid }
            | Self::GetDomainPath { domid }
            | Self::IsDomainIntroduced { domid }
            | Self::Resume { domid } => text::put_number(out, domid),
            Self::Write { path, value } => {
                text::put(out, path);
                out.extend_from_slice(value);
            }
            Self::SetPerms { path, permissions } => {
                text::put(out, path);
                out.extend_from_slice(permissions.as_bytes());
            }
            Self::SetTarget { domid, target } => {
                text::put_number(out, domid);
                text::put_number(out, target);
            }
            Self::DirectoryPart { path, offset } => {
                text::put(out, path);
                text::put_number(out, offset);
            }
            Self::GetFeature { domid } => match domid {
                Some(domid) => text::put_number(out, domid),
                None => out.push(0),
            },
            Self::SetFeature { domid, features } => {
                text::put_number(out, domid);
                text::put_number(out, features);
            }
            Self::GetQuota { domid, name } => {
                if let Some(domid) = domid {
                    text::put_number(out, domid);
                }
                text::put(out, name.unwrap_or_default());
            }
            Self::SetQuota { domid, name, value } => {
                if let Some(domid) = domid {
                    text::put_number(out, domid);
                }
                text::put(out, name);
                text::put_number(out, value);
            }
        }
    }

    /// Appends the whole message, header and payload, to `out`.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if the payload does not fit a message; `out` is then as it was.
    pub fn encode(&self, req_id: u32, tx_id: u32, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let start = out.len();
        out.extend_from_slice(&[0; Header::LEN]);
        self.emit(out);
        let len = out.len() - start - Header::LEN;
        match u32::try_from(len) {
            Ok(wire_len) if len <= PAYLOAD_MAX => {
                let kind = self.message_type().to_wire();
                let header = Header { kind, req_id, tx_id, len: wire_len };
                out[start..start + Header::LEN].copy_from_slice(&header.emit());
                Ok(())
            }
            _ => {
                out.truncate(start);
                Err(TooLong { len })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Every kind of request beside its bytes, as `xenstore.txt` describes them.
    fn golden() -> Vec<(Request<'static>, &'static [u8])> {
        let permissions = PermissionList::parse(b"n7\0r3\0").unwrap();
        vec![
            (Request::Control { command: b"log\0on\0" }, b"log\0on\0"),
            (Request::Directory { path: b"/local" }, b"/local\0"),
            (Request::Read { path: b"domid" }, b"domid\0"),
            (Request::GetPerms { path: b"/" }, b"/\0"),
            (Request::Watch { path: b"backend", token: b"t", depth: None }, b"backend\0t\0"),
            (Request::Watch { path: b"b", token: b"", depth: Some(2) }, b"b\0\x002\0"),
            (Request::Unwatch { path: b"backend", token: b"t" }, b"backend\0t\0"),
            (Request::TransactionStart, b"\0"),
            (Request::TransactionEnd { commit: true }, b"T\0"),
            (Request::TransactionEnd { commit: false }, b"F\0"),
            (
                Request::Introduce { domid: 3, frame: 1 << 40, port: 5 },
                b"3\x001099511627776\x005\0",
            ),
            (Request::Release { domid: 3 }, b"3\0"),
            (Request::GetDomainPath { domid: 0 }, b"0\0"),
            (Request::Write { path: b"/a", value: b"v\0w" }, b"/a\0v\0w"),
            (Request::Write { path: b"/a", value: b"" }, b"/a\0"),
            (Request::Mkdir { path: b"/a" }, b"/a\0"),
            (Request::Rm { path: b"/a" }, b"/a\0"),
            (Request::SetPerms { path: b"/a", permissions }, b"/a\0n7\0r3\0"),
            (Request::IsDomainIntroduced { domid: 9 }, b"9\0"),
            (Request::Resume { domid: 9 }, b"9\0"),
            (Request::SetTarget { domid: 4, target: 3 }, b"4\x003\0"),
            (Request::ResetWatches, b"\0"),
            (Request::DirectoryPart { path: b"/a", offset: 4000 }, b"/a\x004000\0"),
            (Request::GetFeature { domid: None }, b"\0"),
            (Request::GetFeature { domid: Some(1) }, b"1\0"),
            (Request::SetFeature { domid: 1, features: 3 }, b"1\x003\0"),
            (Request::GetQuota { domid: None, name: None }, b"\0"),
            (Request::GetQuota { domid: None, name: Some(b"nodes") }, b"nodes\0"),
            (Request::GetQuota { domid: Some(1), name: Some(b"nodes") }, b"1\0nodes\0"),
            (Request::SetQuota { domid: None, name: b"nodes", value: 9 }, b"nodes\x009\0"),
            (Request::SetQuota { domid: Some(1), name: b"nodes", value: 9 }, b"1\0nodes\x009\0"),
        ]
    }

    #[test]
    fn golden_requests_both_ways() {
        for (request, bytes) in golden() {
            let mut out = Vec::new();
            request.emit(&mut out);
            assert_eq!(out, bytes, "{request:?}");
            assert_eq!(Request::parse(request.message_type(), bytes), Ok(request));
        }
    }

    #[test]
    fn every_type_a_client_may_send_has_its_golden_bytes() {
        let shown = golden();
        for kind in (0..32).filter_map(MessageType::from_wire) {
            let from_store = matches!(kind, MessageType::WatchEvent | MessageType::Error);
            let has_one = shown.iter().any(|(request, _)| request.message_type() == kind);
            assert_eq!(has_one, !from_store, "{kind:?}");
        }
    }

    #[test]
    fn a_payload_cut_short_or_with_junk_never_parses_as_the_same() {
        for (request, bytes) in golden() {
            let free_form = matches!(
                request,
                Request::Control { .. }
                    | Request::Write { .. }
                    | Request::TransactionStart
                    | Request::ResetWatches
                    | Request::GetFeature { .. }
                    | Request::GetQuota { .. }
            );
            if free_form {
                continue;
            }
            for len in 0..bytes.len() {
                let cut = Request::parse(request.message_type(), &bytes[..len]);
                assert_ne!(cut, Ok(request), "{len} bytes of {request:?}");
            }
        }
        assert_eq!(Request::parse(MessageType::Read, b"/a\0junk\0"), Err(Malformed));
        assert_eq!(Request::parse(MessageType::Read, b"/a"), Err(Malformed));
        assert_eq!(Request::parse(MessageType::TransactionEnd, b"X\0"), Err(Malformed));
    }

    #[test]
    fn a_payload_that_does_not_fit_leaves_the_buffer_as_it_was() {
        let value = vec![1; PAYLOAD_MAX];
        let mut out = b"before".to_vec();
        let request = Request::Write { path: b"/a", value: &value };
        assert_eq!(request.encode(1, 0, &mut out), Err(TooLong { len: PAYLOAD_MAX + 3 }));
        assert_eq!(out, b"before");
        let request = Request::Write { path: b"/a", value: &value[3..] };
        assert_eq!(request.encode(1, 0, &mut out), Ok(()));
    }
}
