//! Addresses and routes that lead to a guest.
//!
//! Source: `include/uapi/linux/rtnetlink.h`, `if_addr.h`, `if_link.h`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::link::{
    IFA_ADDRESS, IFA_LOCAL, IFLA_AF_SPEC, Links, RTM_DELADDR, RTM_SETLINK, address_header,
    link_header,
};
use super::netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, attributes, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

const IFLA_INET_CONF: u16 = 1;
/// The number of `proxy_arp` among the settings of an interface for IPv4.
const IPV4_DEVCONF_PROXY_ARP: u16 = 3;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;

const AF_INET: u16 = 2;
const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// An address, or all that begin like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl Network {
    /// Reads `10.0.0.5`, `10.0.0.0/24` and the same in IPv6.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse().ok())?;
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// The bits behind the prefix are not all zero: `10.0.0.5/24`.
    pub(crate) fn has_host_bits(&self) -> bool {
        let host_bits = |address: u128, width: u32| {
            let bits = width - u32::from(self.prefix);
            bits > 0 && address << (128 - bits) != 0
        };
        match self.address {
            IpAddr::V4(address) => host_bits(u32::from(address).into(), 32),
            IpAddr::V6(address) => host_bits(address.into(), 128),
        }
    }

    /// The address alone.
    pub(crate) const fn single(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    const fn family(&self) -> u8 {
        match self.address {
            IpAddr::V4(_) => FAMILY_INET,
            IpAddr::V6(_) => FAMILY_INET6,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A route through one interface.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) to: Network,
    /// The address that packets of this domain have there.
    pub(crate) source: Ipv4Addr,
    pub(crate) metric: u32,
}

impl Route {
    fn message(&self, kind: u16, flags: u16, index: u32) -> Message {
        let v4 = self.to.address.is_ipv4();
        let scope = if v4 { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
        let (family, prefix) = (self.to.family(), self.to.prefix);
        // `struct rtmsg`.
        let header =
            [family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
        let mut message = Message::new(kind, flags, &header);
        message.put(RTA_DST, &self.to.octets()).put_u32(RTA_OIF, index);
        message.put_u32(RTA_PRIORITY, self.metric);
        if v4 {
            message.put(RTA_PREFSRC, &self.source.octets());
        }
        message
    }
}

impl Links {
    /// Gives the interface an address that is its alone.
    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        self.address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address)
    }

    pub(crate) fn remove_address(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        self.address_message(RTM_DELADDR, 0, index, address)
    }

    fn address_message(
        &mut self,
        kind: u16,
        flags: u16,
        index: u32,
        address: Ipv4Addr,
    ) -> io::Result<()> {
        let header = address_header(FAMILY_INET, 32, RT_SCOPE_UNIVERSE, index);
        let mut message = Message::new(kind, flags, &header);
        message.put(IFA_LOCAL, &address.octets()).put(IFA_ADDRESS, &address.octets());
        self.0.change(message)
    }

    /// A route that is there already, with the same metric, is taken over.
    pub(crate) fn add_route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        self.0.change(route.message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, index))
    }

    /// Makes the route unless it is there. True if it was missing.
    pub(crate) fn restore_route(&mut self, index: u32, route: &Route) -> io::Result<bool> {
        match self.0.change(route.message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index)) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn remove_route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        self.0.change(route.message(RTM_DELROUTE, 0, index))
    }

    /// Answers, on this interface, questions for addresses that lie elsewhere.
    pub(crate) fn set_proxy_arp(&mut self, index: u32, on: bool) -> io::Result<()> {
        let mut message = Message::new(RTM_SETLINK, 0, &link_header(index, 0, 0));
        message.nest(IFLA_AF_SPEC, |message| {
            message.nest(AF_INET, |message| {
                message.nest(IFLA_INET_CONF, |message| {
                    message.put_u32(IPV4_DEVCONF_PROXY_ARP, u32::from(on));
                });
            });
        });
        self.0.change(message)
    }
}

/// Is `proxy_arp` set among the settings of an interface for IPv4, which are in `IFLA_AF_SPEC`?
pub(super) fn proxy_arp(families: &[u8]) -> io::Result<bool> {
    let mut on = false;
    for family in attributes(families) {
        let (family, settings) = family?;
        for setting in attributes(settings).filter(|_| family == AF_INET) {
            let (kind, values) = setting?;
            if kind == IFLA_INET_CONF {
                // An array; the settings are numbered from 1.
                let at = usize::from(IPV4_DEVCONF_PROXY_ARP - 1) * 4;
                on = u32_at(values, at).is_some_and(|value| value != 0);
            }
        }
    }
    Ok(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_as_they_are_written_in_a_guests_config() {
        let shown = |text| Network::parse(text).map(|network| network.to_string());
        assert_eq!(shown("10.0.0.5").as_deref(), Some("10.0.0.5/32"));
        assert_eq!(shown("10.0.0.0/24").as_deref(), Some("10.0.0.0/24"));
        assert_eq!(shown("fd00::1").as_deref(), Some("fd00::1/128"));
        for bad in ["", "10.0.0", "10.0.0.5/33", "10.0.0.5/", "fd00::/129", "ten", "10.0.0.5/-1"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
