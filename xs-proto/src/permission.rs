//! Permissions: the access of each domain to a node.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::{Malformed, text};

/// The access of a domain to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `n`: no access.
    None,
    /// `r`: read.
    Read,
    /// `w`: write.
    Write,
    /// `b`: read and write.
    Both,
}

impl Access {
    /// The letter on the wire.
    const fn letter(self) -> u8 {
        match self {
            Self::None => b'n',
            Self::Read => b'r',
            Self::Write => b'w',
            Self::Both => b'b',
        }
    }

    /// May a domain with this access read the node?
    #[must_use]
    pub const fn may_read(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// May a domain with this access write the node?
    #[must_use]
    pub const fn may_write(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// An entry of a node's permissions, `n5` or `r0` on the wire.
///
/// The first entry of a list names the *owner*, who may do everything; its access is what
/// every domain has that no later entry names. Source: "Permissions" in `xenstore.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// The domain.
    pub domid: u16,
    /// The domain's access.
    pub access: Access,
}

impl Permission {
    /// Reads one entry.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is not a letter of `nrwb` and a domain's number.
    pub fn parse(entry: &[u8]) -> Result<Self, Malformed> {
        let (letter, digits) = entry.split_first().ok_or(Malformed)?;
        let access = match letter {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return Err(Malformed),
        };
        Ok(Self { domid: text::number(digits)?, access })
    }

    /// Appends the entry and its NUL to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.access.letter());
        text::put_number(out, self.domid);
    }
}

/// As on the wire, without the NUL: `n0`.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.access.letter()), self.domid)
    }
}

impl FromStr for Permission {
    type Err = Malformed;

    fn from_str(entry: &str) -> Result<Self, Malformed> {
        Self::parse(entry.as_bytes())
    }
}

/// The permissions of a node, as a message carries them: entries, each ended by a NUL, known
/// to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermissionList<'a>(&'a [u8]);

impl<'a> PermissionList<'a> {
    /// Reads a list; an empty one is not a list of permissions.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if there is no entry, or a malformed one.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (entry, behind) = text::split_nul(rest)?;
            Permission::parse(entry)?;
            rest = behind;
        }
        if bytes.is_empty() { Err(Malformed) } else { Ok(Self(bytes)) }
    }

    /// The entries, the owner's first.
    pub fn iter(&self) -> impl Iterator<Item = Permission> + 'a {
        self.0.split(|byte| *byte == 0).filter_map(|entry| Permission::parse(entry).ok())
    }

    /// The bytes of the list, as they are on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_both_ways() {
        let bytes = b"n7\0r0\0w65535\0b1\0";
        let list: Vec<Permission> = PermissionList::parse(bytes).unwrap().iter().collect();
        assert_eq!(list[0], Permission { domid: 7, access: Access::None });
        assert_eq!(list[2], Permission { domid: 65535, access: Access::Write });
        let mut out = Vec::new();
        list.iter().for_each(|entry| entry.emit(&mut out));
        assert_eq!(out, bytes);
    }

    #[test]
    fn permission_is_shown_and_read_as_on_the_wire() {
        for text in ["n0", "r7", "w65535", "b1"] {
            let permission: Permission = text.parse().unwrap();
            assert_eq!(alloc::format!("{permission}"), text);
        }
        assert_eq!("x1".parse::<Permission>(), Err(Malformed));
    }

    #[test]
    fn what_is_no_permission_is_malformed() {
        for bad in [&b""[..], b"n7", b"n\0", b"x7\0", b"n-1\0", b"n65536\0", b"n7\0\0", b"7\0"] {
            assert_eq!(PermissionList::parse(bad), Err(Malformed), "{bad:?}");
        }
    }
}
