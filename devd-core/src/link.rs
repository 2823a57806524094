//! An index that may be missing.

/// An index, or none, in four bytes: an `Option<u32>` has eight, and a device has five of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link(u32);

impl Link {
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// A link to this index. The index is never the highest `u32`: no memory holds that many
    /// devices.
    pub(crate) const fn to(index: u32) -> Self {
        debug_assert!(index != u32::MAX);
        Self(index)
    }

    pub(crate) const fn get(self) -> Option<u32> {
        if self.0 == u32::MAX { None } else { Some(self.0) }
    }

    pub(crate) const fn is_none(self) -> bool {
        self.0 == u32::MAX
    }

    /// Returns the link, and leaves `NONE` in its place.
    pub(crate) const fn take(&mut self) -> Self {
        core::mem::replace(self, Self::NONE)
    }
}
