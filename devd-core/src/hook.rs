//! The hotplug hook of a device: what is to be run, and how it ended.

use crate::{DeviceKey, HookFailure};

/// What a hook is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Put in place what the device needs.
    Add,
    /// Take it away again.
    Remove,
}

/// One run of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook<'a> {
    /// The device.
    pub key: DeviceKey,
    /// What to do.
    pub verb: Verb,
    /// Is this the second pass, for the emulated interface (`-emu`) of a `vif_ioemu`?
    pub tap: bool,
    /// The value of the device's `script` node.
    pub script: &'a [u8],
    /// Is `type` `vif_ioemu`?
    pub ioemu: bool,
    /// The value of `gatewaydev`, empty if there is none.
    pub gatewaydev: &'a [u8],
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookEnd {
    /// It said that it did its work.
    Success,
    /// It ended without saying how: a hook that an earlier daemon had started.
    Unknown,
    /// It failed, or could not be started.
    Failure(HookFailure),
}
