//! Classifies a device's facts, and names the facts that this takes.

use crate::device::{Device, HookHistory};
use crate::{HotplugStatus, Observation, Phase, Reason, Run, ServedBy, Want, XenbusState};

/// The status of a device in the store, as an observation shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceStatus {
    /// The device's directory is gone.
    Gone,
    /// State 1: the backend has not taken the device up.
    Early,
    /// The backend has taken the device up. `connected`: is the frontend connected? `hotplug`: the
    /// hook's mark, read only where a decision depends on the mark.
    Ready { connected: bool, hotplug: HotplugStatus },
    /// State 5: one side wants to close.
    Closing,
    /// State 6, but `online` is 1 and the frontend exists: the guest initialises the device again
    /// (kexec, a boot loader that hands over). The daemon removes nothing.
    Reopening,
    /// State 6 for good: `online` is 0, or the frontend is gone.
    Closed,
}

/// The facts that decide the next step of a device in its phase, given its state. `None`: the state
/// is not known yet; the result is the set to begin with.
pub(crate) fn required_facts(device: &Device, state: Option<XenbusState>) -> Want {
    let first_look = device.hook_history == HookHistory::Unknown;
    let served_by_qemu = device.key.kind.served_by() == ServedBy::Qemu;
    // An earlier daemon may have run the hook, or may have marked a QEMU device as lost.
    let marked = device.has_hook() || served_by_qemu;
    let mark = if first_look && marked { Want::STATE | Want::HOTPLUG } else { Want::STATE };
    // The removal hook needs these facts when the directory may be gone.
    let hook = if device.has_hook() && device.hook.is_none() { mark | Want::HOOK } else { mark };
    let Some(state) = state else {
        return match device.phase {
            // All facts of one moment together show what an earlier daemon has done; and the hook
            // needs its facts whatever the state is.
            _ if first_look && (device.found_by_listing || device.has_hook()) => hook,
            Phase::Attaching(Run::Ended) => Want::STATE | Want::HOTPLUG,
            // The backend has most probably reached state 2 since: save a second observation.
            Phase::Waiting
                if matches!(
                    device.state,
                    Some(XenbusState::Initialising | XenbusState::InitWait)
                ) =>
            {
                required_facts(device, Some(XenbusState::InitWait))
            }
            // The device has most probably closed since, or is still closed: save a second
            // observation.
            _ if matches!(device.state, Some(XenbusState::Closing | XenbusState::Closed)) => {
                Want::STATE | Want::ONLINE
            }
            _ => Want::STATE,
        };
    };
    match state {
        // Read the hook's facts while no one waits, so that the hook starts without a delay in
        // state 2.
        XenbusState::Initialising if device.phase == Phase::Waiting && device.has_hook() => hook,
        XenbusState::Unknown | XenbusState::Initialising => Want::STATE,
        XenbusState::InitWait | XenbusState::Initialised => match device.phase {
            Phase::Waiting if device.is_prepared() => mark,
            // The hook's facts may have been corrected: read them again.
            Phase::Waiting | Phase::Attaching(Run::Queued) | Phase::Failed(_)
                if device.has_hook() =>
            {
                Want::HOTPLUG | Want::HOOK | mark
            }
            // Ignore `hotplug-status` while the add hook runs.
            Phase::Attaching(Run::Running | Run::Stopping) => hook,
            _ if device.has_hook() => Want::HOTPLUG | hook,
            _ => mark,
        },
        XenbusState::Connected | XenbusState::Reconfiguring | XenbusState::Reconfigured => {
            match device.phase {
                Phase::Attached | Phase::Attaching(Run::Running | Run::Stopping) => hook,
                Phase::Failed(Reason::Lost) => Want::HOTPLUG | mark,
                _ if device.has_hook() => Want::HOTPLUG | hook,
                _ => hook,
            }
        }
        XenbusState::Closing if served_by_qemu => Want::STATE | Want::HOTPLUG,
        // netback closes a device whose `script` is missing: the hook's facts tell.
        XenbusState::Closing if matches!(device.phase, Phase::Waiting) => hook,
        // A removal hook may have to run.
        XenbusState::Closing if device.hook_history != HookHistory::No => hook,
        XenbusState::Closing => Want::STATE,
        XenbusState::Closed if matches!(device.phase, Phase::Attaching(Run::Ended)) => {
            Want::ONLINE | Want::HOTPLUG | hook
        }
        XenbusState::Closed if device.hook_history != HookHistory::No => Want::ONLINE | hook,
        XenbusState::Closed => Want::STATE | Want::ONLINE,
    }
}

/// Classifies the device's facts, or returns the facts that are still missing.
pub(crate) fn classify(device: &Device, seen: &Observation<'_>) -> Result<DeviceStatus, Want> {
    let hotplug = device.hotplug;
    if !device.found.contains(Want::STATE) {
        // After the add hook, `connected` alone is enough: any other change has an event of its
        // own.
        let done = hotplug == HotplugStatus::Connected && device.found.contains(Want::HOTPLUG);
        return match device.phase {
            Phase::Attaching(Run::Ended) if done && !device.device_gone => {
                Ok(DeviceStatus::Ready { connected: false, hotplug })
            }
            _ => Err(required_facts(device, None)),
        };
    }
    let Some(state) = device.state else { return Ok(DeviceStatus::Gone) };
    let required = required_facts(device, Some(state));
    if !device.found.contains(required) {
        return Err(required);
    }
    Ok(match state {
        XenbusState::Unknown | XenbusState::Initialising => DeviceStatus::Early,
        XenbusState::InitWait | XenbusState::Initialised => {
            DeviceStatus::Ready { connected: false, hotplug }
        }
        XenbusState::Connected | XenbusState::Reconfiguring | XenbusState::Reconfigured => {
            DeviceStatus::Ready { connected: true, hotplug }
        }
        XenbusState::Closing => DeviceStatus::Closing,
        XenbusState::Closed if !device.online => DeviceStatus::Closed,
        XenbusState::Closed if !device.found.contains(Want::FRONTEND) => {
            return Err(required | Want::FRONTEND);
        }
        XenbusState::Closed if seen.frontend => DeviceStatus::Reopening,
        XenbusState::Closed => DeviceStatus::Closed,
    })
}
