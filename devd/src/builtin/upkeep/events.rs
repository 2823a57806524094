//! What the kernel tells of interfaces and of rules of nftables that change.
//!
//! Source: `include/uapi/linux/rtnetlink.h`, `include/uapi/linux/netfilter/nfnetlink.h` and
//! `nf_tables.h`.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use devd_core::Time;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};

use super::Channel;
use crate::builtin::link::Link;
use crate::builtin::netlink::{attributes, messages, u32_at};

/// `RTNLGRP_LINK` and `RTNLGRP_IPV4_IFADDR`, as a mask.
const LINKS: u32 = 1 << 0 | 1 << 4;

/// `NFNLGRP_NFTABLES`, as a mask.
const NFTABLES: u32 = 1 << 6;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const FAMILY_BRIDGE: u8 = 7;
const FAMILY_NETDEV: u8 = 5;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and the like are all the same.
const NFTA_TABLE: u16 = 1;

/// The kernel's longest event is about 2 KiB.
const BUFFER: usize = 8 * 1024;
/// So many messages are taken at once: more would keep the daemon from everything else.
const AT_ONCE: usize = 64;

/// How long to wait after a socket was refused.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// A channel that is open only while there is something that its events can be about.
#[derive(Debug)]
pub(super) enum Listener {
    Closed,
    Open(Events),
    /// The system has refused it, and is asked again at this time.
    Refused(Time),
}

impl Listener {
    /// Opens or closes it. `add` is to have the socket polled. True if it was opened: what has
    /// happened before has told nobody.
    pub(super) fn set(
        &mut self,
        wanted: bool,
        channel: Channel,
        now: Time,
        add: impl FnOnce(BorrowedFd<'_>, Channel) -> io::Result<()>,
    ) -> bool {
        match self {
            _ if !wanted => *self = Self::Closed,
            Self::Refused(until) if now < *until => {}
            Self::Open(_) => {}
            Self::Closed | Self::Refused(_) => {
                let opened = Events::open(channel).and_then(|events| {
                    add(events.socket.as_fd(), channel)?;
                    Ok(events)
                });
                match opened {
                    Ok(events) => {
                        *self = Self::Open(events);
                        return true;
                    }
                    Err(error) => {
                        let what = match channel {
                            Channel::Links => "interfaces",
                            Channel::Rules => "rules of nftables",
                        };
                        log::warn!(
                            "cannot hear of changes of {what}: {error}; until that works, served \
                             interfaces are checked every {} s",
                            TRY_AGAIN.as_secs()
                        );
                        *self = Self::Refused(now.after(TRY_AGAIN));
                    }
                }
            }
        }
        false
    }
}

/// A socket that events come in by.
#[derive(Debug)]
pub(super) struct Events {
    socket: File,
    buffer: Vec<u8>,
}

/// Events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl Events {
    fn open(channel: Channel) -> io::Result<Self> {
        let (protocol, groups) = match channel {
            Channel::Links => (SockProtocol::NetlinkRoute, LINKS),
            Channel::Rules => (SockProtocol::NetlinkNetFilter, NFTABLES),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { socket: socket.into(), buffer: vec![0; BUFFER] })
    }

    /// Hands out the messages that have come: kind and body. Those that are malformed are events
    /// that were lost.
    pub(super) fn receive(&mut self, mut handle: impl FnMut(u16, &[u8])) -> Result<(), Overrun> {
        for _ in 0..AT_ONCE {
            let len = match self.socket.read(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // ENOBUFS: the kernel had no room for more.
                Err(_) => return Err(Overrun),
            };
            for message in messages(&self.buffer[..len]) {
                let (kind, body) = message.map_err(|_| Overrun)?;
                handle(kind, body);
            }
        }
        Ok(())
    }
}

/// What an event of rtnetlink tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LinkEvent {
    /// The interface is like this now.
    Is(Link),
    /// Something else has happened to the interface of this index.
    Touched(u32),
}

impl LinkEvent {
    /// `None`: it tells of nothing that matters.
    pub(super) fn parse(kind: u16, body: &[u8]) -> Option<Self> {
        let index = u32_at(body, 4);
        match kind {
            // Those of a bridge tell of its port: of VLANs, and that it has left.
            RTM_NEWLINK if body.first() == Some(&FAMILY_BRIDGE) => index.map(Self::Touched),
            RTM_NEWLINK => match Link::parse(body) {
                Ok(link) if !link.name.is_empty() => Some(Self::Is(link)),
                _ => index.map(Self::Touched),
            },
            RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => index.map(Self::Touched),
            _ => None,
        }
    }
}

/// The table of the family netdev that an event of nftables tells of.
pub(super) fn changed_table(body: &[u8]) -> Option<&str> {
    let (header, rest) = body.split_first_chunk::<4>()?;
    let mut attributes = attributes(rest).map_while(Result::ok);
    let (_, name) = attributes.find(|(kind, _)| *kind == NFTA_TABLE)?;
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    std::str::from_utf8(name).ok().filter(|_| header[0] == FAMILY_NETDEV)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::netlink::Message;

    #[test]
    fn link_events_tell_of_the_interface_or_of_its_index() {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        let mut message = Message::new(RTM_NEWLINK, 0, &header);
        message.put_name(3, "vif3.0").put_u32(4, 1500).put_u32(10, 2);
        message.finish(0);
        let body = &message.bytes[16..];
        let link =
            Link { index: 7, name: "vif3.0".into(), mtu: 1500, master: 2, ..Link::default() };
        assert_eq!(LinkEvent::parse(RTM_NEWLINK, body), Some(LinkEvent::Is(link)));
        assert_eq!(LinkEvent::parse(RTM_DELLINK, body), Some(LinkEvent::Touched(7)));
        let mut of_bridge = body.to_owned();
        of_bridge[0] = FAMILY_BRIDGE;
        assert_eq!(LinkEvent::parse(RTM_NEWLINK, &of_bridge), Some(LinkEvent::Touched(7)));
        assert_eq!(LinkEvent::parse(24, body), None);
        for cut in 0..body.len() {
            LinkEvent::parse(RTM_NEWLINK, &body[..cut]);
        }
    }

    #[test]
    fn event_of_nftables_names_the_table_that_has_changed() {
        let body = |family: u8| {
            let mut message = Message::new(10 << 8 | 2, 0, &[family, 0, 0, 0]);
            message.put_name(1, "devd-vif3.0").put_name(3, "guest");
            message.finish(0);
            message.bytes[16..].to_owned()
        };
        assert_eq!(changed_table(&body(FAMILY_NETDEV)), Some("devd-vif3.0"));
        assert_eq!(changed_table(&body(2)), None);
        assert_eq!(changed_table(&[FAMILY_NETDEV, 0, 0, 0]), None, "the number of a change");
        assert_eq!(changed_table(&[FAMILY_NETDEV]), None);
    }
}
