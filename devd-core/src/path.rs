//! What the path of a watch event is about.

use crate::{DeviceKey, Domid, Kind};

/// The node of a device that an event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf<'a> {
    /// The device's directory itself: made, or removed with all that is in it.
    Directory,
    /// `state`: the backend's `XenbusState`.
    State,
    /// `online`: does the toolstack want the device?
    Online,
    /// `script`: the hotplug hook.
    Script,
    /// `type`: of a network interface, `vif` or `vif_ioemu`.
    Type,
    /// Any other node, by its path under the device's directory.
    Other(&'a [u8]),
}

impl<'a> Leaf<'a> {
    #[inline]
    fn parse(name: &'a [u8]) -> Self {
        match name {
            b"state" => Self::State,
            b"online" => Self::Online,
            b"script" => Self::Script,
            b"type" => Self::Type,
            _ => Self::Other(name),
        }
    }
}

/// A path in, or above, the driver domain's `backend` directory.
///
/// Parsing is one pass over the bytes: nothing is copied, nothing allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendPath<'a> {
    /// A device, and which of its nodes.
    Device(DeviceKey, Leaf<'a>),
    /// `backend/<kind>/<domid>`: all devices of a kind of one guest.
    Guest(Kind, Domid),
    /// `backend/<kind>`: all devices of a kind.
    Kind(Kind),
    /// `backend`: all devices.
    Backend,
    /// A kind that means nothing to the daemon.
    UnknownKind(&'a [u8]),
    /// Not of the backend directory, or not of the form that libxl gives it.
    Foreign,
}

impl<'a> BackendPath<'a> {
    /// Reads the path of an event: relative (`backend/vif/3/0/state`), as it is when the watch
    /// was set on `backend`, or absolute (`/local/domain/7/backend/vif/3/0/state`).
    ///
    /// Numbers are decimal without sign or leading zero: two spellings of one device would be
    /// two directories.
    #[must_use]
    #[inline]
    pub fn parse(path: &'a [u8]) -> Self {
        Self::relative(path).unwrap_or(Self::Foreign)
    }

    #[inline]
    fn relative(path: &'a [u8]) -> Option<Self> {
        let path = match path {
            [b'/', ..] => {
                let (_, rest) = number(path.strip_prefix(b"/local/domain/")?)?;
                rest.strip_prefix(b"/")?
            }
            _ => path,
        };
        let rest = match path.strip_prefix(b"backend")? {
            [] => return Some(Self::Backend),
            rest => rest.strip_prefix(b"/")?,
        };
        let (name, rest) = component(rest);
        let Some(kind) = Kind::from_name(name) else { return Some(Self::UnknownKind(name)) };
        let Some(rest) = rest else { return Some(Self::Kind(kind)) };
        let (domid, rest) = number(rest)?;
        let domid = Domid::try_from(domid).ok()?;
        let rest = match rest {
            [] => return Some(Self::Guest(kind, domid)),
            rest => rest.strip_prefix(b"/")?,
        };
        let (devid, rest) = number(rest)?;
        let leaf = match rest {
            [] => Leaf::Directory,
            rest => Leaf::parse(rest.strip_prefix(b"/")?),
        };
        Some(Self::Device(DeviceKey { kind, domid, devid }, leaf))
    }
}

/// The name up to the next slash, and what is behind that, if there is one.
#[inline]
fn component(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// A number at the beginning, and what is behind it.
#[inline]
fn number(path: &[u8]) -> Option<(u32, &[u8])> {
    let mut value: u32 = 0;
    let mut len = 0;
    while let Some(byte @ b'0'..=b'9') = path.get(len) {
        value = value.checked_mul(10)?.checked_add(u32::from(byte - b'0'))?;
        len += 1;
    }
    let leading_zero = len > 1 && path.starts_with(b"0");
    if len == 0 || leading_zero { None } else { Some((value, &path[len..])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Kind, domid: Domid, devid: u32, leaf: Leaf<'_>) -> BackendPath<'_> {
        BackendPath::Device(DeviceKey { kind, domid, devid }, leaf)
    }

    #[test]
    fn events_of_devices() {
        let cases = [
            (&b"backend/vif/3/0/state"[..], device(Kind::Vif, 3, 0, Leaf::State)),
            (b"/local/domain/7/backend/vif/3/0/state", device(Kind::Vif, 3, 0, Leaf::State)),
            (b"backend/vbd/32751/51712", device(Kind::Vbd, 32751, 51712, Leaf::Directory)),
            (b"backend/vbd/3/4294967295/online", device(Kind::Vbd, 3, u32::MAX, Leaf::Online)),
            (
                b"backend/9pfs/3/0/security_model",
                device(Kind::P9, 3, 0, Leaf::Other(b"security_model")),
            ),
            (
                b"backend/vif/3/0/queue-0/state",
                device(Kind::Vif, 3, 0, Leaf::Other(b"queue-0/state")),
            ),
            (b"backend/vif/3/0/script", device(Kind::Vif, 3, 0, Leaf::Script)),
            (b"backend/vif/3/0/type", device(Kind::Vif, 3, 0, Leaf::Type)),
        ];
        for (path, expected) in cases {
            assert_eq!(BackendPath::parse(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn events_above_devices() {
        let cases = [
            (&b"backend"[..], BackendPath::Backend),
            (b"/local/domain/0/backend", BackendPath::Backend),
            (b"backend/vif", BackendPath::Kind(Kind::Vif)),
            (b"backend/vif/3", BackendPath::Guest(Kind::Vif, 3)),
            (b"backend/floppy/3/0/state", BackendPath::UnknownKind(b"floppy")),
            (b"backend/floppy", BackendPath::UnknownKind(b"floppy")),
        ];
        for (path, expected) in cases {
            assert_eq!(BackendPath::parse(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn what_libxl_never_writes_is_foreign() {
        for path in [
            &b""[..],
            b"/",
            b"device/vif/0",
            b"backends",
            b"backend/vif/",
            b"backend/vif/x",
            b"backend/vif/03/0",
            b"backend/vif/3/00",
            b"backend/vif/-3/0",
            b"backend/vif/65536/0",
            b"backend/vif/3/4294967296",
            b"backend/vif/3/0x",
            b"backend/vif/3x/0",
            b"/local/domain/x/backend/vif/3/0",
            b"/local/domain/7",
            b"/backend/vif/3/0",
        ] {
            assert_eq!(BackendPath::parse(path), BackendPath::Foreign, "{}", path.escape_ascii());
        }
    }
}
