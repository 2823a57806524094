//! What the dispatcher wants done.

use crate::{DeviceKey, Domid, Reason, Time, Want};

/// Something for the daemon to do. None of them waits for another: carry them out in their
/// order. If the store refuses what [`Reset`](Self::Reset), [`MarkConnected`](Self::MarkConnected)
/// or [`Fail`](Self::Fail) is to write to `hotplug-status`, call
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
    /// End the guest's QEMU and remove its nodes; `Absent` when that is done, or `Failed`: one of
    /// them, and once.
    StopQemu(Domid),
    /// Empty the `hotplug-status` and remove the `hotplug-error` of an earlier try.
    Reset(DeviceKey),
    /// Write `hotplug-status` for a hook that did well without saying so.
    MarkConnected(DeviceKey),
    /// Remove `hotplug-status`: the removal hook has run and must not run again.
    MarkDetached(DeviceKey),
    /// Write `hotplug-status`=`error` and, if the hook left none, `hotplug-error`.
    Fail(DeviceKey, Reason),
    /// Write `state` 6 for a device whose QEMU is not there to do so, if its `state` still
    /// is 5.
    Close(DeviceKey),
    /// Write `state` 1 for a device whose QEMU ended before it was connected, and empty its
    /// `hotplug-status`, if its `state` still is 2: the next QEMU takes it up. If it is 5 by now,
    /// write 6 as for `Close`: the next QEMU would not know of it, and nobody could tell.
    Rewind(DeviceKey),
    /// Remove the backend directory, unless another device is there by now (`online` is 1, and
    /// `state` is not 6 or the frontend's directory exists), then call
    /// [`handle_removal`](crate::Dispatcher::handle_removal).
    Remove(DeviceKey),
    /// The last device of this guest is gone: remove what else is there for it.
    ForgetGuest(Domid),
    /// Tell people.
    Report(DeviceKey, Notice),
}

/// When a device that is not served is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many tries have failed, of the device's hook or of its guest's QEMU.
    pub failures: u8,
    /// When the next begins; `None`: not before something changes in the store.
    pub next: Option<Time>,
}

/// What is worth telling about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// It is seen for the first time.
    Found,
    /// It is served.
    Attached,
    /// It was served already when the daemon came to see it.
    Adopted,
    /// Its backend has not reached InitWait after the time that should take. It is still
    /// waited for.
    Slow,
    /// The guest, or the toolstack, let go of it.
    Closed,
    /// Another device has its numbers, and waits until the removal hook of this one has ended.
    SuccessorWaits,
    /// Its add hook has run often in a short time, and runs again then.
    HookWaits {
        /// The time of the next run, if fewer hooks run then than are allowed.
        until: Time,
    },
    /// Another device has taken its place under the same numbers.
    Replaced,
    /// Its removal hook failed; it is removed all the same.
    RemovalHook(crate::HookFailure),
    /// Its backend directory could not be removed; tried again later.
    RemovalRefused,
    /// It is gone.
    Gone,
}
