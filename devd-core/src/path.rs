//! Parses the path of a watch event.

use crate::{DeviceKey, Domid, Kind};

/// The node of a device that an event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
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
    /// Any other node, of which nothing depends.
    Other,
}

impl Leaf {
    fn of(name: &[u8]) -> Self {
        match name {
            b"state" => Self::State,
            b"online" => Self::Online,
            b"script" => Self::Script,
            b"type" => Self::Type,
            _ => Self::Other,
        }
    }
}

/// A path in, or above, the driver domain's `backend` directory.
///
/// Parsing is one pass over the bytes, without a copy or an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendPath<'a> {
    /// A device, and which of its nodes.
    Device(DeviceKey, Leaf),
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
        match words::device(path) {
            Some((key, leaf)) => Self::Device(key, leaf),
            None => Self::parse_any(path).unwrap_or(Self::Foreign),
        }
    }

    /// Any path, one component after the other.
    #[cold]
    fn parse_any(path: &'a [u8]) -> Option<Self> {
        let is_slash = |byte: &u8| *byte == b'/';
        let relative = match path.strip_prefix(b"/local/domain/") {
            Some(home) => {
                let end = home.iter().position(is_slash)?;
                number(&home[..end])?;
                &home[end + 1..]
            }
            None => path,
        };
        let mut components = relative.splitn(5, is_slash);
        if components.next() != Some(b"backend") {
            return None;
        }
        let Some(name) = components.next() else { return Some(Self::Backend) };
        let Some(kind) = Kind::from_name(name) else { return Some(Self::UnknownKind(name)) };
        let Some(domid) = components.next() else { return Some(Self::Kind(kind)) };
        let domid = Domid::try_from(number(domid)?).ok()?;
        let Some(devid) = components.next() else { return Some(Self::Guest(kind, domid)) };
        let key = DeviceKey { kind, domid, devid: number(devid)? };
        Some(Self::Device(key, components.next().map_or(Leaf::Directory, Leaf::of)))
    }
}

/// A number as libxl writes it.
fn number(digits: &[u8]) -> Option<u32> {
    if let [] | [b'0', _, ..] = digits {
        return None;
    }
    digits.iter().try_fold(0_u32, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The paths that nearly all events have, read eight bytes at a time: a branch for every byte,
/// whose number nobody can foresee, is what parsing takes its time for.
mod words {
    use super::Leaf;
    use crate::kind::word_of;
    use crate::{DeviceKey, Domid, Kind};

    /// The device and its node; `None` if the path is not a node's, or if it is not of the
    /// usual form, which says nothing about it.
    #[inline(always)]
    pub(super) fn device(path: &[u8]) -> Option<(DeviceKey, Leaf)> {
        let path = if path.starts_with(b"backend/") { path } else { in_home(path)? };
        let (kind, start) = kind(path, 8)?;

        let word = word(path, start)?;
        let Number { value, bits } = Number::of(word)?;
        let domid = Domid::try_from(value).ok()?;
        // With eight digits there is no slash in the word: no domid is so long.
        if first(word >> bits) != b'/' {
            return None;
        }
        let start = start + bits / 8 + 1;

        let Number { value, bits } = Number::of(last_word(path, start)?)?;
        let (devid, end) = match bits {
            56 => more_digits(path, value, start + 7)?,
            _ => (value, start + bits / 8),
        };
        let leaf = match path.get(end) {
            None => Leaf::Directory,
            Some(b'/') => leaf(path, end + 1)?,
            Some(_) => return None,
        };
        Some((DeviceKey { kind, domid, devid }, leaf))
    }

    /// The path behind `/local/domain/<domid>/`, if that path is in `backend`.
    fn in_home(path: &[u8]) -> Option<&[u8]> {
        let path = path.strip_prefix(b"/local/domain/")?;
        let Number { bits, .. } = Number::of(word(path, 0)?)?;
        // A domain's number is short.
        let home = path.get(bits / 8..).filter(|_| bits < 56)?.strip_prefix(b"/")?;
        home.starts_with(b"backend/").then_some(home)
    }

    /// The eight bytes at this place, the first one lowest; zeros where the path has ended.
    #[inline(always)]
    fn word(path: &[u8], at: usize) -> Option<u64> {
        if at > path.len().checked_sub(8)? {
            return last_word(path, at);
        }
        Some(u64::from_le_bytes(*path.get(at..)?.first_chunk()?))
    }

    /// The same without a branch, for a place at which the path may end: takes the path's last
    /// eight bytes and shifts out the bytes before this place.
    #[inline(always)]
    fn last_word(path: &[u8], at: usize) -> Option<u64> {
        let start = at.min(path.len().checked_sub(8)?);
        let before = at - start;
        let chunk = path.get(start..)?.first_chunk()?;
        (before < 8).then(|| u64::from_le_bytes(*chunk) >> (8 * before))
    }

    /// A kind and the slash behind it; the place behind that.
    #[inline(always)]
    fn kind(path: &[u8], at: usize) -> Option<(Kind, usize)> {
        let word = u64::from_le_bytes(*path.get(at..)?.first_chunk()?);
        // No name has a byte below `0`, as the slash is. If there is none, all eight are no kind's
        // name and a slash.
        let lows = word.wrapping_sub(ONES * 0x30) & (ONES * 0x80) | 1 << 63;
        // The bytes up to the first of them.
        let kind = Kind::from_word(word & (lows ^ (lows - 1)))?;
        Some((kind, at + first_byte(lows) / 8 + 1))
    }

    /// The number at the beginning of a word.
    struct Number {
        /// Of its first seven digits.
        value: u32,
        /// How many bits its digits have, 56 if they are seven or more.
        bits: usize,
    }

    impl Number {
        /// `None` if it is none, or has a zero in front of it.
        #[inline(always)]
        fn of(word: u64) -> Option<Self> {
            // A digit is from 0 to 9 now. The first byte that is none has its highest bit set, be
            // it too small here, or too large in the other sum; those before it disturb neither.
            let digits = word.wrapping_sub(ONES * 0x30);
            let others = digits | word.wrapping_add(ONES * (0x7f - 0x39));
            let bits = first_byte(others & (ONES * 0x80));
            if bits == 0 || first(digits) | u8::from(bits == 8) == 0 {
                return None;
            }
            // Zeros before the first digit make them eight; then two, four and all of them are
            // joined, each word one number for two of the last.
            let eight = digits << (64 - bits);
            let pairs = (eight.wrapping_mul((10 << 8) + 1) >> 8) & 0x00ff_00ff_00ff_00ff;
            let fours = (pairs.wrapping_mul((100 << 16) + 1) >> 16) & 0x0000_ffff_0000_ffff;
            let value = fours.wrapping_mul((10_000 << 32) + 1) >> 32;
            #[allow(clippy::cast_possible_truncation)] // The value has at most 32 bits.
            let value = value as u32;
            Some(Self { value, bits })
        }
    }

    /// The rest of a number of seven digits or more.
    #[inline(always)]
    fn more_digits(path: &[u8], mut value: u32, mut end: usize) -> Option<(u32, usize)> {
        while let Some(digit @ b'0'..=b'9') = path.get(end) {
            value = value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
            end += 1;
        }
        Some((value, end))
    }

    /// The rest of the path, as the name of a node.
    #[inline(always)]
    fn leaf(path: &[u8], at: usize) -> Option<Leaf> {
        const KNOWN: [(&[u8], Leaf); 4] = [
            (b"state", Leaf::State),
            (b"online", Leaf::Online),
            (b"script", Leaf::Script),
            (b"type", Leaf::Type),
        ];
        /// By the second letter.
        const fn slot(word: u64) -> usize {
            (word >> 8 & 7) as usize
        }
        /// Each name's word and length, in the slot of the word. In an empty one is the first
        /// name, which is looked for in its own slot only.
        const SLOTS: [(u64, usize); 8] = {
            let mut slots = [(word_of(KNOWN[0].0), KNOWN[0].0.len()); 8];
            let mut i = 0;
            while i < KNOWN.len() {
                let name = KNOWN[i].0;
                slots[slot(word_of(name))] = (word_of(name), name.len());
                i += 1;
            }
            slots
        };
        /// The leaf of each name, and behind them the leaf of all other names.
        const LEAVES: [Leaf; 9] = {
            let mut leaves = [Leaf::Other; 9];
            let mut i = 0;
            while i < KNOWN.len() {
                let leaf = &mut leaves[slot(word_of(KNOWN[i].0))];
                assert!(matches!(leaf, Leaf::Other), "two names in one slot");
                *leaf = KNOWN[i].1;
                i += 1;
            }
            leaves
        };
        let word = last_word(path, at)?;
        let slot = slot(word);
        let (known, len) = SLOTS[slot];
        // Without a branch, which nobody could foresee.
        let is_known = (known == word) & (path.len() == at + len);
        Some(LEAVES[if is_known { slot } else { 8 }])
    }

    /// The lowest byte.
    const fn first(word: u64) -> u8 {
        word.to_le_bytes()[0]
    }

    /// The value 1 in every byte.
    const ONES: u64 = u64::from_ne_bytes([1; 8]);

    /// How many bits are below the lowest byte whose highest bit is set: 56 if that is the last
    /// one, or none.
    const fn first_byte(highest_bits: u64) -> usize {
        ((highest_bits | 1 << 63).trailing_zeros() & 0x38) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Kind, domid: Domid, devid: u32, leaf: Leaf) -> BackendPath<'static> {
        BackendPath::Device(DeviceKey { kind, domid, devid }, leaf)
    }

    #[test]
    fn events_of_devices() {
        let cases = [
            (&b"backend/vif/3/0/state"[..], device(Kind::Vif, 3, 0, Leaf::State)),
            (b"/local/domain/7/backend/vif/3/0/state", device(Kind::Vif, 3, 0, Leaf::State)),
            (b"backend/vbd/32751/51712", device(Kind::Vbd, 32751, 51712, Leaf::Directory)),
            (b"backend/vbd/3/4294967295/online", device(Kind::Vbd, 3, u32::MAX, Leaf::Online)),
            (b"backend/9pfs/3/0/security_model", device(Kind::P9, 3, 0, Leaf::Other)),
            (b"backend/vif/3/0/queue-0/state", device(Kind::Vif, 3, 0, Leaf::Other)),
            (b"backend/virtio_disk/3/0/state", device(Kind::VirtioDisk, 3, 0, Leaf::State)),
            (b"backend/xen_9pfs/3/0/state", device(Kind::Xen9pfs, 3, 0, Leaf::State)),
            (b"backend/vif/3/12345678/type", device(Kind::Vif, 3, 12_345_678, Leaf::Type)),
            (b"backend/vif/3/123456789/type", device(Kind::Vif, 3, 123_456_789, Leaf::Type)),
            (b"backend/vif/3/0/state\0", device(Kind::Vif, 3, 0, Leaf::Other)),
            (b"backend/vif/3/0/states", device(Kind::Vif, 3, 0, Leaf::Other)),
            (b"backend/vif/3/0/", device(Kind::Vif, 3, 0, Leaf::Other)),
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
