//! What the path of a watch event is about.

use crate::kind::word_of;
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

/// A path in, or above, the driver domain's `backend` directory.
///
/// Parsing is one pass over the bytes, eight at a time: nothing is copied, nothing allocated.
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
        Self::of(path).unwrap_or(Self::Foreign)
    }

    #[inline(always)]
    fn of(path: &'a [u8]) -> Option<Self> {
        let start = Rest { path, at: 0 };
        let rest = match path {
            [b'/', ..] => start.behind(b"/local/domain/")?.number()?.1.behind(b"/backend")?,
            _ => start.behind(b"backend")?,
        };
        if rest.is_empty() {
            return Some(Self::Backend);
        }
        let (kind, rest) = match rest.behind(b"/")?.kind() {
            Ok(found) => found,
            Err(name) => return Some(Self::UnknownKind(name)),
        };
        if rest.is_empty() {
            return Some(Self::Kind(kind));
        }
        let (domid, rest) = rest.behind(b"/")?.number()?;
        let domid = Domid::try_from(domid).ok()?;
        if rest.is_empty() {
            return Some(Self::Guest(kind, domid));
        }
        let (devid, rest) = rest.behind(b"/")?.number()?;
        let leaf = if rest.is_empty() { Leaf::Directory } else { rest.behind(b"/")?.leaf() };
        Some(Self::Device(DeviceKey { kind, domid, devid }, leaf))
    }
}

/// What of a path is behind a place in it.
///
/// It is read by words of eight bytes, since a branch for every byte, whose length nobody can
/// foresee, is what parsing takes its time for.
#[derive(Clone, Copy)]
struct Rest<'a> {
    path: &'a [u8],
    /// At most the length of the path.
    at: usize,
}

impl<'a> Rest<'a> {
    #[inline(always)]
    fn bytes(self) -> &'a [u8] {
        self.path.get(self.at..).unwrap_or_default()
    }

    #[inline(always)]
    fn is_empty(self) -> bool {
        self.at >= self.path.len()
    }

    #[inline(always)]
    fn skip(self, len: usize) -> Self {
        Self { at: self.at + len, ..self }
    }

    /// What is behind `prefix`, with which it is to begin.
    #[inline(always)]
    fn behind(self, prefix: &[u8]) -> Option<Self> {
        self.bytes().starts_with(prefix).then(|| self.skip(prefix.len()))
    }

    /// The next eight bytes, the first one lowest; zeros where the path has ended. Near the
    /// end they are the path's last eight, less what is before this place.
    #[inline(always)]
    fn word(self) -> u64 {
        let last = self.path.len().saturating_sub(8);
        let start = self.at.min(last);
        match self.path.get(start..).and_then(<[u8]>::first_chunk) {
            Some(chunk) if self.at < last + 8 => {
                u64::from_le_bytes(*chunk) >> (8 * (self.at - start))
            }
            _ => 0,
        }
    }

    /// The kind up to the next slash, or to the end; the name, if there is no such kind.
    #[inline(always)]
    fn kind(self) -> Result<(Kind, Self), &'a [u8]> {
        let word = self.word();
        let len = first_byte(zeros(word ^ (ONES * 0x2f)));
        if len < 8
            && let Some(kind) = Kind::from_word(word & !(u64::MAX << (8 * len)), len)
        {
            return Ok((kind, self.skip(len)));
        }
        let bytes = self.bytes();
        let name = bytes.split(|byte| *byte == b'/').next().unwrap_or(bytes);
        Kind::from_name(name).map(|kind| (kind, self.skip(name.len()))).ok_or(name)
    }

    /// A number up to the first byte that is no digit, or to the end.
    #[inline(always)]
    fn number(self) -> Option<(u32, Self)> {
        // A digit is from 0 to 9 now, and nothing else is.
        let digits = self.word() ^ (ONES * 0x30);
        let others = (((digits & (ONES * 0x7f)) + ONES * (0x80 - 10)) | digits) & (ONES * 0x80);
        let len = first_byte(others);
        let leading_zero = (len > 1) & (digits & 0xff == 0);
        if (len == 0) | leading_zero {
            return None;
        }
        // Zeros before the first digit make them eight; then two, four and all of them are
        // joined, each word one number for two of the last.
        let eight = digits << (8 * (8 - len));
        let pairs = (eight.wrapping_mul((10 << 8) + 1) >> 8) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs.wrapping_mul((100 << 16) + 1) >> 16) & 0x0000_ffff_0000_ffff;
        let value = fours.wrapping_mul((10_000 << 32) + 1) >> 32;
        let (value, rest) = (u32::try_from(value).ok()?, self.skip(len));
        if len == 8 { rest.more_digits(value) } else { Some((value, rest)) }
    }

    /// The rest of a number that has begun with `value`.
    fn more_digits(mut self, mut value: u32) -> Option<(u32, Self)> {
        while let Some(digit @ b'0'..=b'9') = self.path.get(self.at) {
            value = value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
            self.at += 1;
        }
        Some((value, self))
    }

    /// All of it, as the name of a node.
    #[inline(always)]
    fn leaf(self) -> Leaf<'a> {
        const STATE: u64 = word_of(b"state");
        const ONLINE: u64 = word_of(b"online");
        const SCRIPT: u64 = word_of(b"script");
        const TYPE: u64 = word_of(b"type");
        let bytes = self.bytes();
        match self.word() {
            STATE if bytes.len() == 5 => Leaf::State,
            ONLINE if bytes.len() == 6 => Leaf::Online,
            SCRIPT if bytes.len() == 6 => Leaf::Script,
            TYPE if bytes.len() == 4 => Leaf::Type,
            _ => Leaf::Other(bytes),
        }
    }
}

/// One in every byte.
const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// The highest bit of the lowest byte that is zero, and perhaps of some above it.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES * 0x80)
}

/// The place of the lowest byte whose highest bit is set: 8 if none is.
const fn first_byte(highest_bits: u64) -> usize {
    (highest_bits.trailing_zeros() / 8) as usize
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
            (b"backend/virtio_disk/3/0/state", device(Kind::VirtioDisk, 3, 0, Leaf::State)),
            (b"backend/xen_9pfs/3/0/state", device(Kind::Xen9pfs, 3, 0, Leaf::State)),
            (b"backend/vif/3/12345678/type", device(Kind::Vif, 3, 12_345_678, Leaf::Type)),
            (b"backend/vif/3/123456789/type", device(Kind::Vif, 3, 123_456_789, Leaf::Type)),
            (b"backend/vif/3/0/state\0", device(Kind::Vif, 3, 0, Leaf::Other(b"state\0"))),
            (b"backend/vif/3/0/states", device(Kind::Vif, 3, 0, Leaf::Other(b"states"))),
            (b"backend/vif/3/0/", device(Kind::Vif, 3, 0, Leaf::Other(b""))),
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
            (b"backend/", BackendPath::UnknownKind(b"")),
            (b"backend/vif\0/3/0", BackendPath::UnknownKind(b"vif\0")),
            (b"backend/vif\x80/3", BackendPath::UnknownKind(b"vif\x80")),
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
            b"backend/vif/3/0000000000",
            b"backend/vif/3/01234567",
            b"backend/vif/3/\xb0",
            b"backend/vif/3/\0",
            b"backend/vif/3x/0",
            b"/local/domain/x/backend/vif/3/0",
            b"/local/domain/7",
            b"/backend/vif/3/0",
        ] {
            assert_eq!(BackendPath::parse(path), BackendPath::Foreign, "{}", path.escape_ascii());
        }
    }
}
