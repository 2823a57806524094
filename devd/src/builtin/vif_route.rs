//! `vif-route`: a guest's interface has the address of another interface of this domain, and
//! routes lead to the guest's addresses.

use std::net::Ipv4Addr;
use std::{fs, io};

use devd_core::DeviceKey;

use super::antispoof::Antispoof;
use super::failure::{Failure, Step};
use super::link::{Link, Links};
use super::route::{Network, Route};
use super::served::{self, Checked, Served, SharedServed};
use super::vif::{self, Found, Interface};
use super::{Made, Success, firewall, vif_bridge};
use crate::shown;

/// The interface whose address the guest is given for its gateway, if the device names none.
const GATEWAY: &str = "eth0";

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    pub(crate) interface: Interface,
    /// The value of `gatewaydev`, empty if there is none.
    pub(crate) gateway: Vec<u8>,
    /// The value of `ip`: the guest's addresses.
    pub(crate) guest: Vec<Network>,
    pub(crate) antispoof: Antispoof,
}

/// An interface that is in place.
#[derive(Debug)]
pub(crate) struct Routed {
    /// As the device's nodes ask for it; the interface has the name that it was last seen with.
    pub(super) wanted: Attach,
    /// The address of the guest's gateway; `None`: an earlier daemon has chosen it, and it is not
    /// known yet.
    source: Option<Ipv4Addr>,
    /// The interface as it was when it was last looked at.
    pub(super) link: Option<Link>,
    /// It is down, and the log has told so.
    left_down: bool,
}

impl Attach {
    pub(crate) fn run(self) -> Result<Success, Failure> {
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        let source = gateway(&mut links, &self.gateway)?;
        let Some(before) = self.interface.take(&mut links)? else {
            return vif::missing(&self.interface);
        };
        let link = Some(before.clone());
        let routed = Routed { wanted: self, source: Some(source), link, left_down: false };
        let mut success = Success::default();
        match routed.set_up(&mut links, before.index, source, &mut success) {
            Ok(()) => {
                let Self { interface, antispoof, .. } = &routed.wanted;
                success.done = format!("{} has {source}", interface.name);
                antispoof.tell(interface.tap, &mut success);
                success.made = Some(Made::Interface(SharedServed::new(Served::Routed(routed))));
                Ok(success)
            }
            Err(failure) => {
                // A guest that could send before could then send as anybody.
                if !before.up {
                    routed.wanted.antispoof.undo();
                }
                routed.take_down(&mut links, before.index);
                routed.wanted.interface.restore(&mut links, &before);
                Err(failure)
            }
        }
    }

    fn routes(&self, source: Ipv4Addr) -> impl Iterator<Item = Route> {
        // The emulated interface's routes go first: it is there as long as the guest has not
        // come to its own.
        let metric = if self.interface.tap { 1 } else { 2 };
        self.guest.iter().map(move |to| Route { to: *to, source, metric })
    }
}

impl Routed {
    fn set_up(
        &self,
        links: &mut Links,
        index: u32,
        source: Ipv4Addr,
        success: &mut Success,
    ) -> Result<(), Failure> {
        let name = &self.wanted.interface.name;
        self.wanted.antispoof.apply()?;
        links.add_address(index, source).step(|| format!("give {name} the address {source}"))?;
        links.set_up(index, true).step(|| format!("take {name} up"))?;
        links.set_proxy_arp(index, true).step(|| format!("set proxy_arp of {name}"))?;
        for route in self.wanted.routes(source) {
            let to = route.to;
            match links.add_route(index, &route) {
                Err(_) if to.address.is_ipv6() && ipv6_is_off(name) => {
                    success.remark(without_ipv6(&route, name));
                }
                result => result.step(|| format!("make a route to {to} by {name}"))?,
            }
        }
        Ok(())
    }

    /// One that an earlier daemon has made, for all that the device's nodes tell.
    pub(crate) const fn found(wanted: Attach) -> Self {
        Self { wanted, source: None, link: None, left_down: false }
    }

    /// Compares the interface with what was made, and puts right what others have changed; see
    /// docs/hooks.md for what is left alone.
    ///
    /// # Errors
    ///
    /// It cannot be put right, for now.
    pub(super) fn put_right(
        &mut self,
        links: &mut Links,
        checked: &mut Checked,
    ) -> Result<(), Failure> {
        let Some(link) = self.wanted.interface.locate(links, self.link.as_ref())? else {
            self.link = None;
            let tap = self.wanted.interface.tap;
            return if tap { Ok(()) } else { Err(served::gone(&self.wanted.interface.name)) };
        };
        let (name, index) = (&link.name, link.index);
        if *name != self.wanted.interface.name {
            let old = std::mem::replace(&mut self.wanted.interface.name, name.clone());
            self.wanted.antispoof.follow(name);
            checked.left_alone.push(format!("{old} is called {name} now, and served by that name"));
        }
        self.wanted.antispoof.put_right(name, checked)?;
        // Routes lead nowhere by an interface that is down: they come back with it.
        if !link.up {
            if !self.left_down {
                checked.left_alone.push(format!(
                    "{name} was taken down and cuts its guest off: it stays so until you take it \
                     up (ip link set dev {name} up)"
                ));
            }
            (self.left_down, self.link) = (true, Some(link));
            return Ok(());
        }
        self.left_down = false;
        let source = match self.source {
            Some(source) => source,
            None => gateway(links, &self.wanted.gateway)?,
        };
        self.source = Some(source);
        if !links.has_address(index, source).step(|| format!("list the addresses of {name}"))? {
            links
                .add_address(index, source)
                .step(|| format!("give {name} the address {source}"))?;
            checked.put_right.push(format!("{name} lacked the address {source}: given again"));
        }
        if !link.proxy_arp {
            links.set_proxy_arp(index, true).step(|| format!("set proxy_arp of {name}"))?;
            checked.put_right.push(format!("proxy_arp of {name} was off: turned on again"));
        }
        let mut missing = Vec::new();
        for route in self.wanted.routes(source) {
            match links.restore_route(index, &route) {
                Ok(true) => missing.push(route.to.to_string()),
                Ok(false) => {}
                Err(_) if route.to.address.is_ipv6() && ipv6_is_off(name) => {}
                Err(error) => {
                    let step = format!("make the route to {} by {name} again", route.to);
                    return Err(Failure::step(&step, &error));
                }
            }
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            checked.put_right.push(format!("routes by {name} were gone: made again ({missing})"));
        }
        self.link = links.at(index).step(|| format!("look at {name}"))?;
        Ok(())
    }

    /// Takes away what is there of it: the kernel has done so if the interface has gone down.
    fn take_down(&self, links: &mut Links, index: u32) {
        let Some(source) = self.source else { return };
        for route in self.wanted.routes(source) {
            let _ = links.remove_route(index, &route);
        }
        let _ = links.set_proxy_arp(index, false);
        let _ = links.remove_address(index, source);
    }

    pub(super) fn detach(&self) -> Result<Success, Failure> {
        if self.source.is_none() {
            // An earlier daemon has made it, and no check has come to it.
            let limited = self.wanted.antispoof.is_limited();
            return vif_bridge::detach(&self.wanted.interface, None, limited);
        }
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        if let Found::Ours(link) = self.wanted.interface.find(&mut links, self.link.as_ref())? {
            self.take_down(&mut links, link.index);
            let name = &link.name;
            links.set_up(link.index, false).step(|| format!("take {name} down"))?;
        }
        // Else netback has taken the interface away, and its routes with it: the usual case.
        // The guest can send no more: the rules go last.
        if self.wanted.antispoof.is_limited() {
            firewall::unprotect(&self.wanted.interface)?;
        }
        Ok(Success::default())
    }
}

/// Does the kernel refuse IPv6 on this interface?
fn ipv6_is_off(name: &str) -> bool {
    let setting = fs::read(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
    match setting {
        Ok(value) => value.starts_with(b"1"),
        // The kernel has no IPv6 at all.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn without_ipv6(route: &Route, name: &str) -> Failure {
    Failure::new(format!(
        "there is no route to {} by {name}, because IPv6 is off there: IPv4 is served; to serve \
         both, turn it on (sysctl net/ipv6/conf/{name}/disable_ipv6=0)",
        route.to
    ))
}

/// The address that the guest's gateway is to have.
fn gateway(links: &mut Links, name: &[u8]) -> Result<Ipv4Addr, Failure> {
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
