//! Replies: the store's answers to requests.

use alloc::vec::Vec;

use crate::{ErrorCode, Malformed, MessageType, PermissionList, text};

/// The names of the children of a node, each ended by a NUL, known to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a>(&'a [u8]);

impl<'a> Names<'a> {
    /// Reads a list of names, which may be empty.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the last name has no NUL.
    pub const fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes {
            [] | [.., 0] => Ok(Self(bytes)),
            _ => Err(Malformed),
        }
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (name, behind) = text::split_nul(rest).ok()?;
            rest = behind;
            Some(name)
        })
    }

    /// The bytes of the list, as they are on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// A reply. Its type is its request's, so parsing it takes no more than its own header.
///
/// Source: the operation of the same name in `xenstore.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The daemon's answer to a command, as text.
    Control(&'a [u8]),
    /// The names of a node's children.
    Directory(Names<'a>),
    /// A node's value.
    Read(&'a [u8]),
    /// A node's permissions.
    GetPerms(PermissionList<'a>),
    /// The new transaction.
    TransactionStart(u32),
    /// A domain's home.
    GetDomainPath(&'a [u8]),
    /// Is the store connected to the domain?
    IsDomainIntroduced(bool),
    /// A part of the names of a node's children.
    DirectoryPart {
        /// Changes whenever the node does: a different one means to begin again.
        generation: &'a [u8],
        /// The bytes of the list from the request's offset on: names, each ended by a NUL. An
        /// empty name ends the whole list. The part may end before the list does, and within a
        /// name (QEMU's store cuts where its buffer is full): join the parts before looking for
        /// names.
        names: &'a [u8],
    },
    /// The store's features, one bit each.
    GetFeature(u32),
    /// The names of the quotas, or the value of one.
    GetQuota(&'a [u8]),
    /// The request was carried out and has no result. Carries the type of the request.
    Ok(MessageType),
    /// The request was refused.
    Error(ErrorCode),
}

impl<'a> Reply<'a> {
    /// Reads the payload of a reply of this type.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is none, or if the message is a watch event.
    pub fn parse(kind: MessageType, payload: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match kind {
            MessageType::Control => Self::Control(payload),
            MessageType::Directory => Self::Directory(Names::parse(payload)?),
            MessageType::Read => Self::Read(payload),
            MessageType::GetPerms => Self::GetPerms(PermissionList::parse(payload)?),
            MessageType::TransactionStart => {
                Self::TransactionStart(text::one(payload).and_then(text::number)?)
            }
            MessageType::GetDomainPath => Self::GetDomainPath(text::one(payload)?),
            MessageType::IsDomainIntroduced => match payload {
                b"T\0" => Self::IsDomainIntroduced(true),
                b"F\0" => Self::IsDomainIntroduced(false),
                _ => return Err(Malformed),
            },
            MessageType::DirectoryPart => {
                let (generation, names) = text::split_nul(payload)?;
                Self::DirectoryPart { generation, names }
            }
            MessageType::GetFeature => Self::GetFeature(text::one(payload).and_then(text::number)?),
            MessageType::GetQuota => Self::GetQuota(payload),
            MessageType::Error => Self::Error(ErrorCode::from_name(text::one(payload)?)),
            MessageType::Watch
            | MessageType::Unwatch
            | MessageType::TransactionEnd
            | MessageType::Introduce
            | MessageType::Release
            | MessageType::Write
            | MessageType::Mkdir
            | MessageType::Rm
            | MessageType::SetPerms
            | MessageType::Resume
            | MessageType::SetTarget
            | MessageType::ResetWatches
            | MessageType::SetFeature
            // FreeBSD's kernel answers a WATCH with eight bytes, of which three are `OK` and its
            // NUL.
            | MessageType::SetQuota => match payload {
                [b'O', b'K', ..] => Self::Ok(kind),
                _ => return Err(Malformed),
            },
            MessageType::WatchEvent => return Err(Malformed),
        })
    }

    /// The type of message this is.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::Control(_) => MessageType::Control,
            Self::Directory(_) => MessageType::Directory,
            Self::Read(_) => MessageType::Read,
            Self::GetPerms(_) => MessageType::GetPerms,
            Self::TransactionStart(_) => MessageType::TransactionStart,
            Self::GetDomainPath(_) => MessageType::GetDomainPath,
            Self::IsDomainIntroduced(_) => MessageType::IsDomainIntroduced,
            Self::DirectoryPart { .. } => MessageType::DirectoryPart,
            Self::GetFeature(_) => MessageType::GetFeature,
            Self::GetQuota(_) => MessageType::GetQuota,
            Self::Ok(kind) => *kind,
            Self::Error(_) => MessageType::Error,
        }
    }

    /// Appends the payload to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Control(bytes) | Self::Read(bytes) | Self::GetQuota(bytes) => {
                out.extend_from_slice(bytes);
            }
            Self::Directory(names) => out.extend_from_slice(names.as_bytes()),
            Self::GetPerms(list) => out.extend_from_slice(list.as_bytes()),
            Self::TransactionStart(number) | Self::GetFeature(number) => {
                text::put_number(out, *number);
            }
            Self::GetDomainPath(path) => text::put(out, path),
            Self::IsDomainIntroduced(yes) => text::put(out, if *yes { b"T" } else { b"F" }),
            Self::DirectoryPart { generation, names } => {
                text::put(out, generation);
                out.extend_from_slice(names);
            }
            Self::Ok(_) => text::put(out, b"OK"),
            Self::Error(code) => text::put(out, code.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn golden_replies_both_ways() {
        let permissions = PermissionList::parse(b"n7\0r3\0").unwrap();
        let golden: Vec<(Reply<'_>, &[u8])> = vec![
            (Reply::Control(b"help me"), b"help me"),
            (Reply::Directory(Names::parse(b"vif\0vbd\0").unwrap()), b"vif\0vbd\0"),
            (Reply::Directory(Names::parse(b"").unwrap()), b""),
            (Reply::Read(b"4"), b"4"),
            (Reply::GetPerms(permissions), b"n7\0r3\0"),
            (Reply::TransactionStart(17), b"17\0"),
            (Reply::GetDomainPath(b"/local/domain/3"), b"/local/domain/3\0"),
            (Reply::IsDomainIntroduced(true), b"T\0"),
            (Reply::IsDomainIntroduced(false), b"F\0"),
            (Reply::DirectoryPart { generation: b"12", names: b"a\0b\0\0" }, b"12\0a\0b\0\0"),
            (Reply::DirectoryPart { generation: b"12", names: b"a\0b" }, b"12\0a\0b"),
            (Reply::GetFeature(3), b"3\0"),
            (Reply::GetQuota(b"nodes\0"), b"nodes\0"),
            (Reply::Ok(MessageType::Write), b"OK\0"),
            (Reply::Error(ErrorCode::NoEnt), b"ENOENT\0"),
            (Reply::Error(ErrorCode::from_name(b"EQUOTA")), b"EQUOTA\0"),
        ];
        for (reply, bytes) in golden {
            let mut out = Vec::new();
            reply.emit(&mut out);
            assert_eq!(out, bytes, "{reply:?}");
            assert_eq!(Reply::parse(reply.message_type(), bytes), Ok(reply));
        }
    }

    #[test]
    fn names_come_one_by_one() {
        let names = Names::parse(b"vif\0vbd\0\0").unwrap();
        assert_eq!(names.iter().collect::<Vec<_>>(), [&b"vif"[..], b"vbd", b""]);
        assert_eq!(Names::parse(b"vif"), Err(Malformed));
    }

    #[test]
    fn acknowledgement_may_have_bytes_behind_ok() {
        for payload in [&b"OK"[..], b"OK\0", b"OK\0\0\0\0\0\0"] {
            let reply = Reply::parse(MessageType::Watch, payload);
            assert_eq!(reply, Ok(Reply::Ok(MessageType::Watch)));
        }
    }

    #[test]
    fn what_is_no_reply_is_malformed() {
        assert_eq!(Reply::parse(MessageType::Write, b"NO\0"), Err(Malformed));
        assert_eq!(Reply::parse(MessageType::Error, b"ENOENT"), Err(Malformed));
        assert_eq!(Reply::parse(MessageType::TransactionStart, b"-1\0"), Err(Malformed));
        assert_eq!(Reply::parse(MessageType::WatchEvent, b"a\0b\0"), Err(Malformed));
        assert_eq!(Reply::parse(MessageType::IsDomainIntroduced, b"maybe\0"), Err(Malformed));
    }
}
