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
    // An earlier daemon may have run its hook, or may have said there that it is lost.
    let marked = device.has_hook() || served_by_qemu;
    let mark = if first_look && marked { Want::STATE | Want::HOTPLUG } else { Want::STATE };
    // The removal hook will need it.
    let hook = if device.has_hook() && device.hook.is_none() { mark | Want::HOOK } else { mark };
    let Some(state) = state else {
        return match device.phase {
            // What an earlier daemon has done is told from all of it, as it was at one time; and
            // whatever the state is, its hook will need the rest.
            _ if first_look && (device.listed || device.has_hook()) => hook,
            Phase::Attaching(Run::Ended) => Want::STATE | Want::HOTPLUG,
            // Most probably its backend has taken it up since.
            Phase::Waiting
                if matches!(device.state, Some(State::Initialising | State::InitWait)) =>
            {
                needed(device, Some(State::InitWait))
            }
            // Most probably it has closed since, or still is.
            _ if matches!(device.state, Some(State::Closing | State::Closed)) => {
                Want::STATE | Want::ONLINE
            }
            _ => Want::STATE,
        };
    };
    match state {
        // It has all that its hook needs, and nobody waits yet.
        State::Initialising if device.phase == Phase::Waiting && device.has_hook() => hook,
        State::Unknown | State::Initialising => Want::STATE,
        State::InitWait | State::Initialised => match device.phase {
            Phase::Waiting if device.is_prepared() => mark,
            // What it says about its hook may have been put right.
            Phase::Waiting | Phase::Attaching(Run::Queued) | Phase::Failed(_)
                if device.has_hook() =>
            {
                Want::HOTPLUG | Want::HOOK | mark
            }
            // What it has done so far is of no account.
            Phase::Attaching(Run::Running | Run::Stopping) => hook,
            _ if device.has_hook() => Want::HOTPLUG | hook,
            _ => mark,
        },
        State::Connected | State::Reconfiguring | State::Reconfigured => match device.phase {
            Phase::Attached | Phase::Attaching(Run::Running | Run::Stopping) => hook,
            Phase::Failed(Reason::Lost) => Want::HOTPLUG | mark,
            _ if device.has_hook() => Want::HOTPLUG | hook,
            _ => hook,
        },
        State::Closing if served_by_qemu => Want::STATE | Want::HOTPLUG,
        // Its backend may have given it up for what its hook lacks.
        State::Closing if matches!(device.phase, Phase::Waiting) => hook,
        // A removal hook may be called for.
        State::Closing if device.touched != Touched::No => hook,
        State::Closing => Want::STATE,
        State::Closed if matches!(device.phase, Phase::Attaching(Run::Ended)) => {
            Want::ONLINE | Want::HOTPLUG | hook
        }
        State::Closed if device.touched != Touched::No => Want::ONLINE | hook,
        State::Closed => Want::STATE | Want::ONLINE,
    }
}

/// What an observation amounts to, or which facts are still missing to tell.
pub(crate) fn sight(device: &Device, seen: &Observation<'_>) -> Result<Sight, Want> {
    let hotplug = device.hotplug;
    if !device.found.contains(Want::STATE) {
        // A hook that has done its work is all there is to see: what else happens has an event.
        let done = hotplug == HotplugStatus::Connected && device.found.contains(Want::HOTPLUG);
        return match device.phase {
            Phase::Attaching(Run::Ended) if done && !device.hurried => {
                Ok(Sight::Ready { connected: false, hotplug })
            }
            _ => Err(needed(device, None)),
        };
    }
    let Some(state) = device.state else { return Ok(Sight::Gone) };
    let needed = needed(device, Some(state));
    if !device.found.contains(needed) {
        return Err(needed);
    }
    Ok(match state {
        State::Unknown | State::Initialising => Sight::Early,
        State::InitWait | State::Initialised => Sight::Ready { connected: false, hotplug },
        State::Connected | State::Reconfiguring | State::Reconfigured => {
            Sight::Ready { connected: true, hotplug }
        }
        State::Closing => Sight::Closing,
        State::Closed if !device.online => Sight::Closed,
        State::Closed if !device.found.contains(Want::FRONTEND) => {
            return Err(needed | Want::FRONTEND);
        }
        State::Closed if seen.frontend => Sight::Reopening,
        State::Closed => Sight::Closed,
    })
}
