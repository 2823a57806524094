//! The facts of a device that the store has now.

use core::ops::BitOr;

/// The state of a backend or frontend: `enum xenbus_state` in Xen's `io/xenbus.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum XenbusState {
    /// 0, or any value that is not a state.
    Unknown,
    /// 1: the toolstack has made the device.
    Initialising,
    /// 2: the backend waits for its hook and its frontend.
    InitWait,
    /// 3: the frontend has offered its rings.
    Initialised,
    /// 4: backend and frontend are connected.
    Connected,
    /// 5: the backend or the frontend wants to close.
    Closing,
    /// 6: closed.
    Closed,
    /// 7: being changed.
    Reconfiguring,
    /// 8: has been changed.
    Reconfigured,
}

impl XenbusState {
    /// Parses the value of a `state` node. Any other value counts as [`XenbusState::Unknown`].
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        match value {
            b"1" => Self::Initialising,
            b"2" => Self::InitWait,
            b"3" => Self::Initialised,
            b"4" => Self::Connected,
            b"5" => Self::Closing,
            b"6" => Self::Closed,
            b"7" => Self::Reconfiguring,
            b"8" => Self::Reconfigured,
            _ => Self::Unknown,
        }
    }
}

/// The mark of the hook in the node `hotplug-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HotplugStatus {
    /// The node is missing, or empty as libxl makes it: no hook has spoken.
    Silent,
    /// `connected`: the hook has done its work.
    Connected,
    /// `error`, `busy`, or any other word: the hook has failed.
    Refused,
}

impl HotplugStatus {
    /// Reads the value of the node; `None` if it is missing.
    #[must_use]
    pub fn parse(value: Option<&[u8]>) -> Self {
        match value {
            None | Some(b"") => Self::Silent,
            Some(b"connected") => Self::Connected,
            Some(_) => Self::Refused,
        }
    }
}

/// A set of facts to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Want(u8);

impl Want {
    /// The empty set.
    pub(crate) const NONE: Self = Self(0);
    /// `state`.
    pub const STATE: Self = Self(1);
    /// `online`.
    pub const ONLINE: Self = Self(2);
    /// `hotplug-status`.
    pub const HOTPLUG: Self = Self(4);
    /// The hook's facts: `script`, and for a network interface `type` and `gatewaydev`.
    pub const HOOK: Self = Self(8);
    /// Does the directory that `frontend` names exist?
    pub const FRONTEND: Self = Self(16);

    /// Is all of `other` in this set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The facts in this set that are not in `other`.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Want {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The facts that one observation found. A fact that is not in `want` has any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation<'a> {
    /// The facts that were read.
    pub want: Want,
    /// `None`, if `want` has `STATE`: there is no `state` node, so there is no device.
    pub state: Option<XenbusState>,
    /// Does the toolstack want the device? False if the node is missing or not `1`.
    pub online: bool,
    /// The hook's mark.
    pub hotplug: HotplugStatus,
    /// The value of `script`.
    pub script: Option<&'a [u8]>,
    /// The value of `type`.
    pub vif_type: Option<&'a [u8]>,
    /// The value of `gatewaydev`.
    pub gatewaydev: Option<&'a [u8]>,
    /// Does the frontend's directory exist?
    pub frontend: bool,
}

impl Observation<'_> {
    /// An observation that found no device.
    pub const GONE: Self = Self {
        want: Want::STATE,
        state: None,
        online: false,
        hotplug: HotplugStatus::Silent,
        script: None,
        vif_type: None,
        gatewaydev: None,
        frontend: false,
    };
}
