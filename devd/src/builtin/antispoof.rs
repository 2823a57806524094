//! What `--antispoof` means for one device, and how the device says so: in the log, and in its
//! node `antispoof`.

use super::Success;
use super::failure::Failure;
use super::firewall::{self, Protection};
use super::vif::Interface;

/// The node of the device, for whoever wants to know.
pub(crate) const NODE: &str = "antispoof";

/// May the device's guest send what it wants?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Antispoof {
    /// The daemon was started without the option.
    NotAsked,
    /// The device has no `ip` node: nothing says which addresses are its guest's.
    Unlimited(Interface),
    Limited(Protection),
}

impl Antispoof {
    /// Makes the rules, or takes away those that an earlier device has left.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        match self {
            Self::NotAsked => Ok(()),
            Self::Unlimited(interface) => firewall::unprotect(interface),
            Self::Limited(protection) => firewall::protect(protection),
        }
    }

    /// The value of the device's node; `None`: it has none.
    pub(crate) fn node(&self) -> Option<&'static [u8]> {
        match self {
            Self::NotAsked => None,
            Self::Unlimited(_) => Some(b"off: the device has no ip node"),
            Self::Limited(_) => Some(b"on"),
        }
    }

    /// What an operator should know.
    pub(crate) fn warning(&self) -> Option<Failure> {
        match self {
            Self::NotAsked | Self::Limited(_) => None,
            Self::Unlimited(interface) => Some(Failure::new(format!(
                "{} may send as any address in spite of --antispoof, for the device has no ip \
                 node: name the guest's addresses as ip in its config",
                interface.name
            ))),
        }
    }

    /// Puts the node and the warning among what a hook has done, once for a device.
    pub(crate) fn tell(&self, tap: bool, success: &mut Success) {
        success.nodes.extend(self.node().map(|value| (NODE, value.to_owned())));
        if let Some(warning) = self.warning().filter(|_| !tap) {
            success.remark(warning);
        }
    }

    /// Takes the rules away of a device that could not be attached.
    pub(crate) fn undo(&self) {
        if let Self::Limited(protection) = self {
            // Why the device failed is what is told.
            let _ = firewall::unprotect(protection.interface());
        }
    }

    pub(crate) const fn is_limited(&self) -> bool {
        matches!(self, Self::Limited(_))
    }
}
