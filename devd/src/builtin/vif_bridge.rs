//! `vif-bridge`: a guest's interface becomes a port of a bridge.

use super::antispoof::Antispoof;
use super::failure::{Failure, Step};
use super::link::{Link, Links};
use super::vif::{self, Found, Interface};
use super::{Made, Success, firewall};
use crate::shown;

/// The numerically largest address that is none of a group: a bridge takes the smallest of its
/// ports' for itself, and must not change it with every guest.
const MAC: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) interface: Interface,
    /// The value of `bridge`, empty if there is none.
    pub(crate) bridge: Vec<u8>,
    /// The value of `mtu`, if that is a number.
    pub(crate) mtu: Option<u32>,
    pub(crate) antispoof: Antispoof,
}

impl Attach {
    pub(crate) fn run(self) -> Result<Success, Failure> {
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        let bridge = find_bridge(&mut links, &self.bridge)?;
        let interface = &self.interface;
        let Some(before) = interface.take(&mut links)? else {
            return vif::missing(interface);
        };
        match self.set_up(&mut links, &bridge, &before) {
            Ok(success) => Ok(success),
            Err(failure) => {
                // A guest that could send before could then send as anybody.
                if !before.up {
                    self.antispoof.undo();
                }
                interface.restore(&mut links, &before);
                Err(failure)
            }
        }
    }

    /// The interface is down, and has its name.
    fn set_up(&self, links: &mut Links, bridge: &Link, before: &Link) -> Result<Success, Failure> {
        let (name, index) = (&self.interface.name, before.index);
        let mut success = Success::default();
        // As upstream, these two are tried and may fail.
        if let Err(error) = links.set_mac(index, &MAC) {
            success.remark(Failure::step(&format!("set the address of {name}"), &error));
        }
        links.flush_addresses(index).step(|| format!("take the IP addresses from {name}"))?;
        let mtu = self.mtu.unwrap_or(bridge.mtu);
        if mtu != before.mtu {
            match links.set_mtu(index, mtu) {
                Ok(()) => success.mtu = Some(mtu),
                Err(error) => success
                    .remark(Failure::step(&format!("set the MTU of {name} to {mtu}"), &error)),
            }
        } else {
            success.mtu = Some(mtu);
        }
        self.antispoof.apply()?;
        self.antispoof.tell(self.interface.tap, &mut success);
        if before.master != bridge.index {
            links
                .set_master(index, bridge.index)
                .step(|| format!("put {name} into bridge {}", bridge.name))?;
        }
        links.set_up(index, true).step(|| format!("take {name} up"))?;
        success.done = format!("{name} is in bridge {}", bridge.name);
        let limited = self.antispoof.is_limited();
        success.made = Some(Made::Port { interface: self.interface.clone(), limited });
        Ok(success)
    }
}

/// The bridge of this name; without a name the first one there is.
fn find_bridge(links: &mut Links, wanted: &[u8]) -> Result<Link, Failure> {
    if wanted.is_empty() {
        let first = links.first_bridge().step(|| "list the bridges".into())?;
        return first.ok_or_else(|| {
            Failure::new("the device names no bridge, and this domain has none: make one")
        });
    }
    // What is no text is no interface's name either.
    let name = std::str::from_utf8(wanted).unwrap_or_default();
    let mut look = |name: &str| links.find(name).step(|| format!("look for bridge {name}"));
    let mut found = look(name)?;
    // Configurations of long ago call xenbr0 what is eth0 now.
    if found.is_none()
        && let Some(number) = name.strip_prefix("xenbr")
    {
        found = look(&format!("eth{number}"))?.filter(|link| link.is_bridge);
    }
    let shown = shown::value(wanted);
    match found {
        Some(link) if link.is_bridge => Ok(link),
        Some(_) => Err(Failure::new(format!("{shown} is an interface, but not a bridge"))),
        None => Err(Failure::new(format!(
            "there is no bridge {shown} in this domain: make it, or name another one in the \
             guest's config"
        ))),
    }
}

/// Takes the interface out of its bridge again, or from its addresses, if it still is there.
pub(crate) fn detach(interface: &Interface, limited: bool) -> Result<Success, Failure> {
    let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
    let found = interface.find(&mut links)?;
    // If it is not there, netback has taken it away: the usual case.
    if let Found::Ours(link) = found {
        release(&mut links, &link)?;
    }
    // The guest can send no more: the rules go last.
    if limited {
        firewall::unprotect(interface)?;
    }
    Ok(Success::default())
}

fn release(links: &mut Links, link: &Link) -> Result<(), Failure> {
    let (name, index) = (&link.name, link.index);
    let down = links.set_up(index, false).step(|| format!("take {name} down"));
    links.flush_addresses(index).step(|| format!("take the IP addresses from {name}"))?;
    if link.master != 0 {
        links.set_master(index, 0).step(|| format!("take {name} out of its bridge"))?;
    }
    down
}
