//! The names of errors.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $errno:literal;)*) => {
        /// Why the store refused a request: on the wire, the name of an error.
        ///
        /// Source: `xsd_errors` in `xs_wire.h`. The numbers are Linux's; they matter where a
        /// kernel reports an error of the store as its own, as `/dev/xen/xenbus` does for a
        /// refused watch.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
            /// A name that is none of the above, as it came.
            Unknown(Box<[u8]>),
        }

        impl ErrorCode {
            /// The code of this name. Names not known are kept.
            #[must_use]
            pub fn from_name(name: &[u8]) -> Self {
                $(if name == $name.as_bytes() { return Self::$variant; })*
                Self::Unknown(name.into())
            }

            /// The name on the wire.
            #[must_use]
            pub fn name(&self) -> &[u8] {
                match self {
                    $(Self::$variant => $name.as_bytes(),)*
                    Self::Unknown(name) => name,
                }
            }

            /// The code of one of Linux's error numbers, if it is one the store has a name for.
            #[must_use]
            pub const fn from_errno(errno: i32) -> Option<Self> {
                Some(match errno {
                    $($errno => Self::$variant,)*
                    _ => return None,
                })
            }

            /// Linux's number for this error.
            #[must_use]
            pub const fn errno(&self) -> Option<i32> {
                Some(match self {
                    $(Self::$variant => $errno,)*
                    Self::Unknown(_) => return None,
                })
            }

            /// Every code that has a meaning.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}

error_codes! {
    /// The request makes no sense: a bad path, a bad number.
    Inval = "EINVAL", 22;
    /// The permissions of the node do not allow it.
    Acces = "EACCES", 13;
    /// The watch exists already.
    Exist = "EEXIST", 17;
    /// Not used by today's daemons.
    IsDir = "EISDIR", 21;
    /// No such node, watch or transaction.
    NoEnt = "ENOENT", 2;
    /// The daemon is out of memory.
    NoMem = "ENOMEM", 12;
    /// A quota is exceeded (the C daemon).
    NoSpc = "ENOSPC", 28;
    /// The daemon failed.
    Io = "EIO", 5;
    /// Not used by today's daemons.
    NotEmpty = "ENOTEMPTY", 39;
    /// The daemon does not know this operation.
    NoSys = "ENOSYS", 38;
    /// The store may only be read.
    RoFs = "EROFS", 30;
    /// Something is in use: another transaction, mostly.
    Busy = "EBUSY", 16;
    /// The transaction conflicts with another: start it again.
    Again = "EAGAIN", 11;
    /// The domain is connected already.
    IsConn = "EISCONN", 106;
    /// Too long, or too many: a quota is exceeded (watches in the C daemon, most in oxenstored).
    TooBig = "E2BIG", 7;
    /// The caller is not privileged.
    Perm = "EPERM", 1;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.name()))
    }
}

impl core::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_number_comes_back() {
        assert_eq!(ErrorCode::KNOWN.len(), 16);
        for code in ErrorCode::KNOWN {
            assert_eq!(&ErrorCode::from_name(code.name()), code);
            assert_eq!(code.errno().and_then(ErrorCode::from_errno).as_ref(), Some(code));
        }
    }

    #[test]
    fn a_name_nobody_knows_is_kept() {
        let code = ErrorCode::from_name(b"EQUOTA");
        assert_eq!(code.name(), b"EQUOTA");
        assert_eq!(alloc::format!("{code}"), "EQUOTA");
        assert_eq!(code.errno(), None);
    }
}
