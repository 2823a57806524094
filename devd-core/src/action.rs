//! Actions: the work that the dispatcher asks the daemon for.

use crate::{DeviceKey, Domid, Reason, Time, Want};

/// An action of the daemon. No action waits for the end of another: carry them out in their order.
/// If the store refuses what [`Reset`](Self::Reset), [`MarkConnected`](Self::MarkConnected) or
/// [`Fail`](Self::Fail) is to write to `hotplug-status`, call
/// [`handle_mark_refused`](crate::Dispatcher::handle_mark_refused).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look these facts up, then call
    /// [`handle_observation`](crate::Dispatcher::handle_observation).
    Observe(DeviceKey, Want),
    /// Start the hook that [`hook`](crate::Dispatcher::hook) describes, then, when it has
    /// ended, call [`handle_hook_end`](crate::Dispatcher::handle_hook_end).
    RunHook(DeviceKey),
    /// Find out whether the hook that [`hook`](crate::Dispatcher::hook) describes can be started
    /// by now, without starting it and without a write to the store, then call
    /// [`handle_hook_check`](crate::Dispatcher::handle_hook_check).
    CheckHook(DeviceKey),
    /// Ask the device's hook, and all it has started, to end (SIGTERM).
    StopHook(DeviceKey),
    /// End the device's hook and all it has started (SIGKILL).
    KillHook(DeviceKey),
    /// Find out whether a QEMU for the guest runs already, then call
    /// [`handle_qemu`](crate::Dispatcher::handle_qemu) with `Ready` or `Absent`.
    FindQemu(Domid),
    /// Start a QEMU for the guest; `Ready` or `Failed` when that is known.
    StartQemu(Domid),
    /// End the guest's QEMU and remove its nodes, then call `handle_qemu` exactly once, with
    /// `Absent` or `Failed`.
    StopQemu(Domid),
    /// Empty the `hotplug-status` and remove the `hotplug-error` of an earlier try.
    Reset(DeviceKey),
    /// Write `hotplug-status`=`connected` for a hook that exited well without a mark.
    MarkConnected(DeviceKey),
    /// Remove `hotplug-status`: the removal hook has run and must not run again.
    MarkDetached(DeviceKey),
    /// Write `hotplug-status`=`error` and, if the hook left none, `hotplug-error`.
    Fail(DeviceKey, Reason),
    /// Write `state` 6 for a device that no QEMU can close, if its `state` still is 5.
    Close(DeviceKey),
    /// Write `state` 1 for a device whose QEMU ended before it was connected, and empty its
    /// `hotplug-status`, if its `state` still is 2: the next QEMU takes it up. If `state` is 5 by
    /// now, write 6 as for `Close`: the next QEMU would never close a device that it has not taken
    /// up.
    Rewind(DeviceKey),
    /// Remove the backend directory, unless another device is there by now (`online` is 1, and
    /// `state` is not 6 or the frontend's directory exists), then call
    /// [`handle_removal`](crate::Dispatcher::handle_removal).
    Remove(DeviceKey),
    /// The last device of this guest is gone: remove the daemon's other nodes and files for the
    /// guest.
    ForgetGuest(Domid),
    /// Log the notice.
    Report(DeviceKey, Notice),
}

/// When a device that is not served is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Consecutive failures of the device's hook, or of its guest's QEMU.
    pub failures: u8,
    /// The time of the next try; `None`: the next try waits for a change in the store.
    pub next: Option<Time>,
}

/// A step in a device's life that is worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The daemon has observed the device for the first time.
    Found,
    /// The device is served.
    Attached,
    /// The device was served already when the daemon found it.
    Adopted,
    /// Its backend has not reached InitWait within `init_timeout`. The daemon goes on waiting.
    Slow,
    /// The guest or the toolstack has closed the device.
    Closed,
    /// Another device has the same key, and waits until the removal hook of this one has ended.
    SuccessorWaits,
    /// Its add hook has run often in a short time, and runs again then.
    HookWaits {
        /// The time of the next run, if fewer hooks run then than are allowed.
        until: Time,
    },
    /// Another device has replaced this one under the same key.
    Replaced,
    /// Its removal hook failed; it is removed all the same.
    RemovalHook(crate::HookFailure),
    /// Its backend directory could not be removed; tried again later.
    RemovalRefused,
    /// The device is gone.
    Gone,
}
