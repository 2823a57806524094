//! What `--antispoof` means for one device, and how the device says so: in the log, and in its
//! node `antispoof`.

use super::Success;
use super::failure::{Failure, Step};
use super::firewall::{self, Protection};
use super::served::{Checked, Effect};
use super::vif::Interface;

/// The node of the device that tells operators whether its guest is limited.
pub(crate) const NODE: &str = "antispoof";

/// What it means for a device that its rules are missing.
pub(crate) const UNLIMITED: &str = "its guest may send as any address in spite of --antispoof";

/// The value of the node while the rules are missing for this reason.
pub(crate) fn off(reason: &str) -> Vec<u8> {
    format!("off: {reason}").into_bytes()
}

/// Makes the rules again if they are not as they were made. `name`: of the interface.
pub(crate) fn put_right(
    protection: &Protection,
    name: &str,
    checked: &mut Checked,
) -> Result<(), Failure> {
    let holds = firewall::holds(protection, name);
    if !holds.step(|| format!("look at the rules of {name} (nftables)"))? {
        firewall::protect(protection)?;
        checked.put_right.push(format!(
            "the rules against spoofing of {name} were missing or changed: made again"
        ));
    }
    Ok(())
}

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

    /// The interface; `None`: nothing is to be done about it.
    pub(crate) const fn interface(&self) -> Option<&Interface> {
        match self {
            Self::NotAsked => None,
            Self::Unlimited(interface) => Some(interface),
            Self::Limited(protection) => Some(protection.interface()),
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

    /// The interface has this name by now.
    pub(crate) fn follow(&mut self, name: &str) {
        match self {
            Self::NotAsked => {}
            Self::Unlimited(interface) => name.clone_into(&mut interface.name),
            Self::Limited(protection) => protection.follow(name),
        }
    }

    /// Makes the rules again if they are not as they were made. `name`: of the interface.
    pub(crate) fn put_right(&self, name: &str, checked: &mut Checked) -> Result<(), Failure> {
        let Self::Limited(protection) = self else { return Ok(()) };
        put_right(protection, name, checked).inspect_err(|_| checked.effect = Effect::Unlimited)
    }

    /// The table of nftables that has the rules.
    pub(crate) fn table(&self) -> Option<String> {
        match self {
            Self::NotAsked | Self::Unlimited(_) => None,
            Self::Limited(protection) => Some(firewall::table_name(protection.interface())),
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
