//! `vif-route`: a guest's interface has the address of another interface of this domain, and
//! routes lead to the guest's addresses.

use devd_core::DeviceKey;

use super::antispoof::Antispoof;
use super::failure::{Failure, Step};
use super::link::Links;
use super::route::{Network, Route};
use super::vif::{self, Found, Interface};
use super::{Made, Success, firewall};
use crate::shown;

/// The interface whose address the guest is given for its gateway, if the device names none.
const GATEWAY: &str = "eth0";

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) interface: Interface,
    /// The value of `gatewaydev`, empty if there is none.
    pub(crate) gateway: Vec<u8>,
    /// The value of `ip`: the guest's addresses.
    pub(crate) guest: Vec<Network>,
    pub(crate) antispoof: Antispoof,
}

/// What is in place.
#[derive(Debug)]
pub(crate) struct Routed {
    interface: Interface,
    source: std::net::Ipv4Addr,
    routes: Vec<Route>,
    /// There are rules about what it may send.
    limited: bool,
}

impl Attach {
    pub(crate) fn run(self) -> Result<Success, Failure> {
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        let source = gateway(&mut links, &self.gateway)?;
        let Some(before) = self.interface.take(&mut links)? else {
            return vif::missing(&self.interface);
        };
        // The emulated interface's routes go first: it is there as long as the guest has not
        // come to its own.
        let metric = if self.interface.tap { 1 } else { 2 };
        let routes = self.guest.iter().map(|to| Route { to: *to, source, metric }).collect();
        let limited = self.antispoof.is_limited();
        let routed = Routed { interface: self.interface, source, routes, limited };
        let set_up = self.antispoof.apply().and_then(|()| routed.set_up(&mut links, before.index));
        match set_up {
            Ok(()) => {
                let done = format!("{} has {source}", routed.interface.name);
                let mut success = Success { done, ..Success::default() };
                self.antispoof.tell(routed.interface.tap, &mut success);
                success.made = Some(Made::Routed(routed));
                Ok(success)
            }
            Err(failure) => {
                // A guest that could send before could then send as anybody.
                if !before.up {
                    self.antispoof.undo();
                }
                routed.take_down(&mut links, before.index);
                routed.interface.restore(&mut links, &before);
                Err(failure)
            }
        }
    }
}

impl Routed {
    fn set_up(&self, links: &mut Links, index: u32) -> Result<(), Failure> {
        let (name, source) = (&self.interface.name, self.source);
        links.add_address(index, source).step(|| format!("give {name} the address {source}"))?;
        links.set_up(index, true).step(|| format!("take {name} up"))?;
        links.set_proxy_arp(index, true).step(|| format!("set proxy_arp of {name}"))?;
        for route in &self.routes {
            let to = route.to;
            links.add_route(index, route).step(|| format!("make a route to {to} by {name}"))?;
        }
        Ok(())
    }

    /// Takes away what is there of it: the kernel has done so if the interface has gone down.
    fn take_down(&self, links: &mut Links, index: u32) {
        for route in &self.routes {
            let _ = links.remove_route(index, route);
        }
        let _ = links.set_proxy_arp(index, false);
        let _ = links.remove_address(index, self.source);
    }

    pub(crate) fn detach(&self) -> Result<Success, Failure> {
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        if let Found::Ours(link) = self.interface.find(&mut links)? {
            self.take_down(&mut links, link.index);
            let name = &link.name;
            links.set_up(link.index, false).step(|| format!("take {name} down"))?;
        }
        // Else netback has taken the interface away, and its routes with it: the usual case.
        // The guest can send no more: the rules go last.
        if self.limited {
            firewall::unprotect(&self.interface)?;
        }
        Ok(Success::default())
    }
}

/// The address that the guest's gateway is to have.
fn gateway(links: &mut Links, name: &[u8]) -> Result<std::net::Ipv4Addr, Failure> {
    let name = if name.is_empty() { GATEWAY.as_bytes() } else { name };
    let shown = shown::value(name);
    // What is no text is no interface's name either.
    let link = links.find(std::str::from_utf8(name).unwrap_or_default());
    let link = link.step(|| format!("look for interface {shown}"))?;
    let link = link.ok_or_else(|| {
        Failure::new(format!(
            "there is no interface {shown}, whose address the guest's gateway would have: name \
             another one as gatewaydev in the guest's config"
        ))
    })?;
    let address = links.address(link.index).step(|| format!("list the addresses of {shown}"))?;
    address.ok_or_else(|| {
        Failure::new(format!(
            "{shown} has no IPv4 address for the guest's gateway: give it one, or name another \
             interface as gatewaydev in the guest's config"
        ))
    })
}

/// The guest's addresses and networks, blanks between them, each of them once. An address with
/// the length of its network's prefix, as in 10.0.0.5/24, is the address alone.
///
/// # Errors
///
/// One of them is neither, or no guest's.
pub(crate) fn networks(key: DeviceKey, ip: &[u8]) -> Result<Vec<Network>, Failure> {
    let mut networks = Vec::new();
    for word in ip.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let shown = || shown::value(word);
        let network = std::str::from_utf8(word).ok().and_then(Network::parse).ok_or_else(|| {
            Failure::new(format!(
                "ip has \"{}\", which is neither an address nor a network",
                shown()
            ))
        })?;
        let network = if network.has_host_bits() {
            let address = network.address;
            log::warn!(
                "{key}: ip has {network}, which is an address and not a network: {address} alone \
                 is taken; a network is named by its first address"
            );
            Network::single(address)
        } else {
            network
        };
        let one = network == Network::single(network.address);
        if one && (network.address.is_unspecified() || network.address.is_multicast()) {
            return Err(Failure::new(format!(
                "ip has \"{}\", which cannot be the address of a guest",
                shown()
            )));
        }
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}
