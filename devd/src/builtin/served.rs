//! What is in place for an interface and stays as it was made.

use std::sync::{Arc, Mutex, PoisonError};

use super::failure::{Failure, Step};
use super::limiter::Limited;
use super::link::{Link, Links};
use super::vif_bridge::Port;
use super::vif_route::Routed;
use super::{Success, firewall};

/// What is in place for one pass of a network interface's hook.
#[derive(Debug)]
pub(crate) enum Served {
    Port(Port),
    Routed(Routed),
    /// A script serves the interface: only the rules of `--antispoof` are the daemon's.
    Limited(Limited),
}

/// The same, shared by the daemon, the thread that checks it and the thread that takes it away:
/// whoever works on the interface holds the lock. `None`: it was taken away.
#[derive(Clone, Debug)]
pub(crate) struct SharedServed(Arc<Mutex<Option<Served>>>);

/// What a check has found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// What had changed, and was put right: a sentence each.
    pub(crate) put_right: Vec<String>,
    /// What had changed since the last check, and was left alone.
    pub(crate) left_alone: Vec<String>,
    /// What cannot be put right.
    pub(crate) wrong: Option<Failure>,
    /// What `wrong` means for the guest.
    pub(crate) effect: Effect,
    /// The bridge that must be there before it can be: its name, empty for any.
    pub(crate) awaited_bridge: Option<Vec<u8>>,
    /// The interface as the check has left it; `None`: there is none.
    pub(crate) link: Option<Link>,
    /// The name that the interface has, or has when it comes back.
    pub(crate) name: String,
}

/// What a fault that cannot be put right means for the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Effect {
    #[default]
    CutOff,
    /// The guest has a network, and no rules limit what it sends.
    Unlimited,
}

impl SharedServed {
    pub(crate) fn new(served: Served) -> Self {
        Self(Arc::new(Mutex::new(Some(served))))
    }

    /// Is it this one, and not another of the same device?
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The table of nftables that has its rules, if what it sends is limited.
    pub(crate) fn table(&self) -> Option<String> {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match served.as_ref()? {
            Served::Port(port) => port.wanted.antispoof.table(),
            Served::Routed(routed) => routed.wanted.antispoof.table(),
            Served::Limited(limited) => Some(firewall::table_name(limited.interface())),
        }
    }

    /// Compares what is with what was made, and puts it right. `None`: it was taken away.
    pub(crate) fn check(&self) -> Option<Checked> {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let served = served.as_mut()?;
        let mut checked = Checked { effect: served.effect(), ..Checked::default() };
        let put_right = Links::open()
            .step(|| "talk to the kernel's network".into())
            .and_then(|mut links| served.put_right(&mut links, &mut checked));
        checked.wrong = put_right.err();
        checked.link = served.link().cloned();
        checked.name = served.name().to_owned();
        Some(checked)
    }

    /// Takes it away; a check that runs ends first, and none begins afterwards.
    pub(crate) fn take_away(&self) -> Result<Success, Failure> {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match served {
            Some(Served::Port(port)) => port.detach(),
            Some(Served::Routed(routed)) => routed.detach(),
            Some(Served::Limited(limited)) => limited.detach(),
            None => Ok(Success::default()),
        }
    }
}

impl SharedServed {
    /// Ends the checks and leaves what is in place: a check that runs ends first.
    pub(crate) fn retire(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Served {
    const fn effect(&self) -> Effect {
        match self {
            Self::Port(_) | Self::Routed(_) => Effect::CutOff,
            Self::Limited(_) => Effect::Unlimited,
        }
    }

    fn put_right(&mut self, links: &mut Links, checked: &mut Checked) -> Result<(), Failure> {
        match self {
            Self::Port(port) => port.put_right(links, checked),
            Self::Routed(routed) => routed.put_right(links, checked),
            Self::Limited(limited) => limited.put_right(links, checked),
        }
    }

    /// The interface as it was when it was last looked at.
    fn link(&self) -> Option<&Link> {
        match self {
            Self::Port(port) => port.link.as_ref(),
            Self::Routed(routed) => routed.link.as_ref(),
            Self::Limited(limited) => limited.link.as_ref(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Port(port) => &port.wanted.interface.name,
            Self::Routed(routed) => &routed.wanted.interface.name,
            Self::Limited(limited) => &limited.interface().name,
        }
    }
}

/// An interface that is served has gone.
pub(crate) fn gone(name: &str) -> Failure {
    Failure::new(format!(
        "interface {name} is gone from this domain's network: bring it back, or detach the device \
         and attach it again"
    ))
}
