//! What a look amounts to, and which facts that takes.

use crate::device::{Device, Touched};
use crate::{HotplugStatus, Observation, Phase, Reason, Run, Server, State, Want};

/// What an observation amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// There is no such device.
    Gone,
    /// The toolstack has made it; its backend has not taken it up.
    Early,
    /// Its backend has taken it up. Is it connected to its frontend, and what has the hook
    /// said? (Looked up only where it matters.)
    Ready { connected: bool, hotplug: HotplugStatus },
    /// One side wants to close.
    Closing,
    /// Closed, but wanted, and its guest is there: it is being initialised again (kexec, a
    /// boot loader that hands over). Everything stays.
    Reopening,
    /// Closed for good: the toolstack does not want it any more, or its guest is gone.
    Closed,
}

/// Which facts decide what is to be done with a device in this phase, if its state is this.
/// `None`: the state is not known yet; the answer is what to begin with.
pub(crate) fn needed(device: &Device, state: Option<State>) -> Want {
    let first_look = device.touched == Touched::Unknown;
    let served_by_qemu = device.key.kind.server() == Server::Qemu;
    let hook = if device.has_hook() && device.hook.is_none() {
        Want::HOTPLUG | Want::HOOK
    } else if served_by_qemu && first_look {
        // An earlier daemon may have said there that it is lost.
        Want::HOTPLUG
    } else {
        Want::STATE
    };
    let state = match state {
        Some(state) => state,
        // Most probably the backend has taken it up since the last look.
        None if matches!(device.phase, Phase::Waiting) && !first_look => State::InitWait,
        None if matches!(device.phase, Phase::Attaching(Run::Ended)) => State::InitWait,
        None => return Want::STATE,
    };
    match state {
        State::Closed if matches!(device.phase, Phase::Attaching(Run::Ended)) => {
            Want::STATE | Want::ONLINE | Want::HOTPLUG | hook
        }
        // A removal hook may be called for.
        State::Closed if device.touched != Touched::No => Want::STATE | Want::ONLINE | hook,
        State::Closed => Want::STATE | Want::ONLINE,
        State::Closing if served_by_qemu => Want::STATE | Want::HOTPLUG,
        // Its backend may have given it up for what its hook lacks.
        State::Closing if matches!(device.phase, Phase::Waiting) => Want::STATE | hook,
        State::Closing if device.touched != Touched::No => Want::STATE | hook,
        State::Closing => Want::STATE,
        State::Unknown | State::Initialising => match device.phase {
            Phase::Attached | Phase::Attaching(Run::Ended) if device.has_hook() => {
                Want::STATE | Want::HOTPLUG
            }
            _ => Want::STATE,
        },
        State::InitWait | State::Initialised => match device.phase {
            // What it says about its hook may have been put right.
            Phase::Waiting | Phase::Attaching(Run::Queued) | Phase::Failed(_)
                if device.has_hook() =>
            {
                Want::STATE | Want::HOTPLUG | Want::HOOK
            }
            _ if device.has_hook() => Want::STATE | Want::HOTPLUG | hook,
            _ => Want::STATE,
        },
        State::Connected | State::Reconfiguring | State::Reconfigured => match device.phase {
            Phase::Attached => Want::STATE | hook,
            Phase::Failed(Reason::Lost) => Want::STATE | Want::HOTPLUG,
            _ if device.has_hook() => Want::STATE | Want::HOTPLUG | hook,
            _ => Want::STATE | hook,
        },
    }
}

/// What an observation amounts to, or which facts are still missing to tell.
pub(crate) fn sight(device: &Device, seen: &Observation<'_>) -> Result<Sight, Want> {
    let Some(state) = seen.state else { return Ok(Sight::Gone) };
    let needed = needed(device, Some(state));
    if !seen.want.contains(needed) {
        return Err(needed);
    }
    Ok(match state {
        State::Unknown | State::Initialising => Sight::Early,
        State::InitWait | State::Initialised => {
            Sight::Ready { connected: false, hotplug: seen.hotplug }
        }
        State::Connected | State::Reconfiguring | State::Reconfigured => {
            Sight::Ready { connected: true, hotplug: seen.hotplug }
        }
        State::Closing => Sight::Closing,
        State::Closed if !seen.online => Sight::Closed,
        State::Closed if !seen.want.contains(Want::FRONTEND) => {
            return Err(needed | Want::FRONTEND);
        }
        State::Closed if seen.frontend => Sight::Reopening,
        State::Closed => Sight::Closed,
    })
}
