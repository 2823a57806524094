//! The hotplug hook of a device: its arguments, and its end.

use crate::{DeviceKey, HookFailure};

/// The task of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Set up the device.
    Add,
    /// Undo the setup.
    Remove,
}

/// The arguments for a run of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook<'a> {
    /// The device.
    pub key: DeviceKey,
    /// The task.
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
    /// The hook exited with code 0.
    Success,
    /// The exit code is unknown, because an earlier daemon started the hook.
    Unknown,
    /// The hook failed, or could not be started.
    Failure(HookFailure),
}
