//! The key of a device: its kind, its guest and its number.

use core::fmt;

use crate::Kind;

/// The number of a domain, below `0x7ff0` for a guest.
pub type Domid = u16;

/// The name of a device in its driver domain. A domid and devid may be used again after a
/// device is gone: the same key then names a new device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    /// The kind of backend.
    pub kind: Kind,
    /// The guest whose device it is.
    pub domid: Domid,
    /// The number of the device among the guest's of this kind.
    pub devid: u32,
}

impl DeviceKey {
    /// The key in one word, different for different keys.
    #[must_use]
    #[inline]
    pub const fn packed(self) -> u64 {
        (self.kind as u64) << 48 | (self.domid as u64) << 32 | self.devid as u64
    }
}

/// The device's directory relative to the driver domain's home: `backend/vif/3/0`.
impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend/{}/{}/{}", self.kind.name(), self.domid, self.devid)
    }
}
