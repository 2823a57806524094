//! The features that a store may have.

use core::fmt;

/// A set of the store's features: a bit for each.
///
/// Bits without a name are kept: a newer store may have more. Source:
/// `XENSTORE_SERVER_FEATURE_*` in `xs_wire.h`, and "Server feature bitmap" in
/// `xenstore-ring.txt`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u32);

impl Features {
    /// A domain can have its ring reset by writing [`ring::Connection`](crate::ring::Connection).
    pub const RECONNECTION: Self = Self(1);
    /// The ring's page has an error field: [`ring::Error`](crate::ring::Error).
    pub const ERROR: Self = Self(2);
    /// A WATCH may have a depth, and `@releaseDomain/N` can be watched for one domain.
    pub const WATCH_DEPTH: Self = Self(4);
    /// [`DOMID_ANY`](crate::DOMID_ANY) can stand in permissions.
    pub const DOMID_ANY: Self = Self(8);

    /// The set with these bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The set's bits, as they are on the wire and in the ring's page.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Are all features of `other` in this set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The names of the features, and the rest as a number.
impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Features, &str); 4] = [
            (Features::RECONNECTION, "RECONNECTION"),
            (Features::ERROR, "ERROR"),
            (Features::WATCH_DEPTH, "WATCH_DEPTH"),
            (Features::DOMID_ANY, "DOMID_ANY"),
        ];
        let mut set = f.debug_set();
        let mut rest = self.0;
        for (feature, name) in NAMES.into_iter().filter(|(feature, _)| self.contains(*feature)) {
            set.entry(&format_args!("{name}"));
            rest &= !feature.0;
        }
        if rest != 0 {
            set.entry(&format_args!("{rest:#x}"));
        }
        set.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn features_have_the_bits_of_the_header() {
        let all =
            Features::RECONNECTION | Features::ERROR | Features::WATCH_DEPTH | Features::DOMID_ANY;
        assert_eq!(all.bits(), 15);
        assert!(all.contains(Features::WATCH_DEPTH));
        assert!(!Features::from_bits(3).contains(Features::WATCH_DEPTH));
        assert_eq!(format!("{:?}", Features::from_bits(0x14)), "{WATCH_DEPTH, 0x10}");
    }
}
