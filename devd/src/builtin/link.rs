//! Network interfaces, as the kernel's rtnetlink has them.
//!
//! Source: `include/uapi/linux/rtnetlink.h`, `if_link.h`, `if_addr.h`.

use std::io;
use std::net::Ipv4Addr;

use super::netlink::{MALFORMED, Message, Netlink, attributes, u32_at};
use super::route;

pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;
pub(super) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_EXT_MASK: u16 = 29;
pub(super) const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
/// Statistics are left out of what is told of an interface.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
const IFA_F_SECONDARY: u8 = 1;

const IFF_UP: u32 = 1;
/// The longest name of an interface.
const NAME_MAX: usize = 15;
/// Where the attributes begin behind `struct ifinfomsg`.
pub(super) const LINK_HEADER: usize = 16;
/// The same for `struct ifaddrmsg`.
pub(super) const ADDRESS_HEADER: usize = 8;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Vec<u8>,
    /// The index of what it is in, a bridge for instance; 0: nothing.
    pub(crate) master: u32,
    pub(crate) is_bridge: bool,
    /// It is a bridge that filters VLANs.
    pub(crate) filters_vlans: bool,
    /// It answers ARP requests for addresses that lie elsewhere.
    pub(crate) proxy_arp: bool,
}

impl Link {
    pub(super) fn parse(body: &[u8]) -> io::Result<Self> {
        let (header, rest) = body.split_at_checked(LINK_HEADER).ok_or(MALFORMED)?;
        let mut link = Self { index: u32_or_malformed(header, 4)?, ..Self::default() };
        link.up = u32_or_malformed(header, 8)? & IFF_UP != 0;
        for attribute in attributes(rest) {
            let (kind, value) = attribute?;
            match kind {
                IFLA_IFNAME => {
                    let name = value.strip_suffix(b"\0").unwrap_or(value);
                    link.name = String::from_utf8_lossy(name).into_owned();
                }
                IFLA_MTU => link.mtu = u32_or_malformed(value, 0)?,
                IFLA_ADDRESS => link.mac = value.to_owned(),
                IFLA_MASTER => link.master = u32_or_malformed(value, 0)?,
                IFLA_LINKINFO => link.parse_info(value)?,
                IFLA_AF_SPEC => link.proxy_arp = route::proxy_arp(value)?,
                _ => {}
            }
        }
        Ok(link)
    }

    /// The kind of interface, and what is particular to it, which comes behind its kind.
    fn parse_info(&mut self, info: &[u8]) -> io::Result<()> {
        for attribute in attributes(info) {
            match attribute? {
                (IFLA_INFO_KIND, kind) => self.is_bridge = kind.starts_with(b"bridge\0"),
                (IFLA_INFO_DATA, data) if self.is_bridge => {
                    for attribute in attributes(data) {
                        let (kind, value) = attribute?;
                        if kind == IFLA_BR_VLAN_FILTERING {
                            self.filters_vlans = value.first().is_some_and(|on| *on != 0);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn u32_or_malformed(bytes: &[u8], at: usize) -> io::Result<u32> {
    u32_at(bytes, at).ok_or_else(|| MALFORMED.into())
}

/// An address of an interface.
#[derive(Debug)]
pub(super) struct Address {
    header: [u8; ADDRESS_HEADER],
    /// Its own, and with some kinds of interfaces the other end's.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    pub(super) fn parse(body: &[u8]) -> io::Result<Self> {
        let (header, rest) = body.split_first_chunk().ok_or(MALFORMED)?;
        let mut address = Self { header: *header, attributes: Vec::new() };
        for attribute in attributes(rest) {
            let (kind, value) = attribute?;
            if matches!(kind, IFA_LOCAL | IFA_ADDRESS) {
                address.attributes.push((kind, value.to_owned()));
            }
        }
        Ok(address)
    }

    fn index(&self) -> Option<u32> {
        u32_at(&self.header, 4)
    }

    fn is_secondary(&self) -> bool {
        self.header[2] & IFA_F_SECONDARY != 0
    }

    /// Its own, of IPv4.
    fn local(&self) -> Option<Ipv4Addr> {
        let (_, value) = self.attributes.iter().find(|(kind, _)| *kind == IFA_LOCAL)?;
        <[u8; 4]>::try_from(&value[..]).ok().map(Ipv4Addr::from)
    }
}

/// May an interface be called so? (`dev_valid_name` in the kernel; a `%` would have the kernel
/// choose a name.)
pub(crate) fn is_name(name: &str) -> bool {
    let usable = |c: char| !matches!(c, '/' | ':' | '%') && !c.is_whitespace() && !c.is_control();
    (1..=NAME_MAX).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(usable)
}

/// All interfaces of this network namespace.
#[derive(Debug)]
pub(crate) struct Links(pub(super) Netlink);

impl Links {
    pub(crate) fn open() -> io::Result<Self> {
        Netlink::open(libc::NETLINK_ROUTE).map(Self)
    }

    /// The interface of this name, if there is one.
    pub(crate) fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        if !is_name(name) {
            return Ok(None);
        }
        let mut message = Message::new(RTM_GETLINK, 0, &[0; LINK_HEADER]);
        message.put_name(IFLA_IFNAME, name);
        self.get(message)
    }

    /// The interface of this index, if there is one.
    pub(crate) fn at(&mut self, index: u32) -> io::Result<Option<Link>> {
        self.get(Message::new(RTM_GETLINK, 0, &link_header(index, 0, 0)))
    }

    fn get(&mut self, mut message: Message) -> io::Result<Option<Link>> {
        message.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let mut found = None;
        let got = self.0.get(message, |body| {
            found = Some(Link::parse(body)?);
            Ok(())
        });
        match got {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            result => result.map(|()| found),
        }
    }

    /// The bridge whose name is first of all.
    pub(crate) fn first_bridge(&mut self) -> io::Result<Option<Link>> {
        let mut message = Message::new(RTM_GETLINK, 0, &[0; LINK_HEADER]);
        message.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        message.nest(IFLA_LINKINFO, |message| {
            message.put(IFLA_INFO_KIND, b"bridge");
        });
        let bridge = |link: Link| Some(link).filter(|link| link.is_bridge);
        let bridges = self.0.list(message, |body| Link::parse(body).map(bridge))?;
        Ok(bridges.into_iter().min_by(|one, other| one.name.cmp(&other.name)))
    }

    /// All interfaces.
    pub(crate) fn all(&mut self) -> io::Result<Vec<Link>> {
        let mut message = Message::new(RTM_GETLINK, 0, &[0; LINK_HEADER]);
        message.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.0.list(message, |body| Link::parse(body).map(Some))
    }

    pub(crate) fn set_name(&mut self, index: u32, name: &str) -> io::Result<()> {
        self.set(index, 0, 0, |message| {
            message.put_name(IFLA_IFNAME, name);
        })
    }

    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        self.set(index, if up { IFF_UP } else { 0 }, IFF_UP, |_| ())
    }

    pub(crate) fn set_mac(&mut self, index: u32, mac: &[u8]) -> io::Result<()> {
        self.set(index, 0, 0, |message| {
            message.put(IFLA_ADDRESS, mac);
        })
    }

    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.set(index, 0, 0, |message| {
            message.put_u32(IFLA_MTU, mtu);
        })
    }

    /// Puts it into a bridge, or (0) takes it out of what it is in.
    pub(crate) fn set_master(&mut self, index: u32, master: u32) -> io::Result<()> {
        self.set(index, 0, 0, |message| {
            message.put_u32(IFLA_MASTER, master);
        })
    }

    fn set(
        &mut self,
        index: u32,
        flags: u32,
        mask: u32,
        attributes: impl FnOnce(&mut Message),
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_SETLINK, 0, &link_header(index, flags, mask));
        attributes(&mut message);
        self.0.change(message)
    }

    /// Takes all addresses from the interface.
    pub(crate) fn flush_addresses(&mut self, index: u32) -> io::Result<()> {
        for address in self.addresses(index, libc::AF_UNSPEC)? {
            let mut message = Message::new(RTM_DELADDR, 0, &address.header);
            address.attributes.iter().for_each(|(kind, value)| {
                message.put(*kind, value);
            });
            match self.0.change(message) {
                // A secondary address goes with its primary one.
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// The first primary IPv4 address of an interface.
    pub(crate) fn address(&mut self, index: u32) -> io::Result<Option<Ipv4Addr>> {
        let addresses = self.addresses(index, libc::AF_INET)?;
        Ok(addresses.iter().filter(|address| !address.is_secondary()).find_map(Address::local))
    }

    /// Does the interface have this IPv4 address?
    pub(crate) fn has_address(&mut self, index: u32, address: Ipv4Addr) -> io::Result<bool> {
        let addresses = self.addresses(index, libc::AF_INET)?;
        Ok(addresses.iter().any(|of| of.local() == Some(address)))
    }

    fn addresses(&mut self, index: u32, family: libc::c_int) -> io::Result<Vec<Address>> {
        let header = address_header(u8::try_from(family).unwrap_or(0), 0, 0, index);
        let message = Message::new(RTM_GETADDR, 0, &header);
        // An older kernel lists those of all.
        let own = |address: Address| Some(address).filter(|it| it.index() == Some(index));
        match self.0.list(message, |body| Address::parse(body).map(own)) {
            // It went meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            result => result,
        }
    }
}

/// `struct ifinfomsg`.
pub(super) fn link_header(index: u32, flags: u32, mask: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&mask.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
pub(super) fn address_header(
    family: u8,
    prefix: u8,
    scope: u8,
    index: u32,
) -> [u8; ADDRESS_HEADER] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix, 0, scope, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_or_change_are_none() {
        for name in ["vif3.0", "guest-dns", "v", "fifteen-letters"] {
            assert!(is_name(name), "{name}");
        }
        let bad = ["", ".", "..", "a/b", "a:b", "vif%d", "a b", "a\nb", "a\0b", "sixteen-letters-"];
        for name in bad {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn there_is_a_loopback_interface_with_an_address() {
        let mut links = Links::open().unwrap();
        let lo = links.find("lo").unwrap().unwrap();
        assert_eq!((lo.name.as_str(), lo.is_bridge, lo.master), ("lo", false, 0));
        assert_eq!(links.find("no-such-link").unwrap(), None);
        if lo.up {
            assert_eq!(links.address(lo.index).unwrap(), Some(Ipv4Addr::LOCALHOST));
        }
    }
}
