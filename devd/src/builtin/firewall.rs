//! Anti-spoofing: what a port of a bridge may send, as rules of nftables.
//!
//! One table for all: a chain before anything else of the bridge looks up the interface in a
//! map, which leads to a chain of that interface's own. So a packet is looked at as long as its
//! own rules are many, whatever the number of guests, and all of an interface is found again by
//! the interface's name.
//!
//!     table bridge devd {
//!         map vifs { type ifname : verdict; elements = { "vif3.0" : goto vif3.0 } }
//!         chain prerouting {
//!             type filter hook prerouting priority filter; policy accept;
//!             iifname vmap @vifs
//!         }
//!         chain vif3.0 { ...; drop }
//!     }
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`, whose numbers are big-endian.

use std::io;
use std::net::IpAddr;

use super::failure::{Failure, Step};
use super::netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, Netlink};
use super::route::Network;

const TABLE: &str = "devd";
const MAP: &str = "vifs";
const BASE: &str = "prerouting";

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const NEWRULE: u16 = SUBSYSTEM | 6;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;

/// `struct nfgenmsg`: the family, a version, and of a batch the subsystem, big-endian.
const FAMILY_BRIDGE: [u8; 4] = [7, 0, 0, 0];
const BATCH: [u8; 4] = [0, 0, 0, 10];

const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

const ACCEPT: u32 = 1;
const DROP: u32 = 0;
const GOTO: u32 = (-4_i32).cast_unsigned();
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

/// Where in a packet: which header, how far in it, how many bytes.
type Field = (u32, u32, u32);
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const ETHER_TYPE: Field = (LINK, 12, 2);
const ARP_SENDER: Field = (NETWORK, 14, 4);
const IP4_PROTOCOL: Field = (NETWORK, 9, 1);
const IP4_SOURCE: Field = (NETWORK, 12, 4);
const IP6_NEXT: Field = (NETWORK, 6, 1);
const IP6_SOURCE: Field = (NETWORK, 8, 16);
const PORTS: Field = (TRANSPORT, 0, 4);
const ICMP6_TYPE: Field = (TRANSPORT, 0, 1);
const ADVERTISED: Field = (TRANSPORT, 8, 16);

const ARP: &[u8] = &[0x08, 0x06];
const IP4: &[u8] = &[0x08, 0x00];
const IP6: &[u8] = &[0x86, 0xdd];
const UDP: &[u8] = &[17];
const ICMP6: &[u8] = &[58];
const NEIGHBOUR_ADVERTISEMENT: &[u8] = &[136];
/// From a client of DHCP to a server.
const DHCP: &[u8] = &[0, 68, 0, 67];

/// A test of a packet.
enum Test<'a> {
    /// The field is this.
    Is(Field, &'a [u8]),
    /// The address in the field belongs to the network.
    In(Field, &'a Network),
    /// It does not.
    NotIn(Field, &'a Network),
}

/// Lets the interface send as these addresses only.
pub(crate) fn protect(interface: &str, allowed: &[Network]) -> Result<(), Failure> {
    let mut batch = Batch::new();
    batch.add(NEWTABLE, NLM_F_CREATE, |message| {
        message.put_name(1, TABLE);
    });
    batch.add(NEWCHAIN, NLM_F_CREATE, |message| {
        message.put_name(1, TABLE).put_name(3, BASE).nest(4, |hook| {
            hook.put_be(1, 0).put_be(2, (-200_i32).cast_unsigned());
        });
        message.put_be(5, ACCEPT).put_name(7, "filter");
    });
    batch.add(NEWSET, NLM_F_CREATE, |message| {
        const MAP_FLAG: u32 = 8;
        const IFNAME: u32 = 41;
        const VERDICT: u32 = 0xffff_ff00;
        message.put_name(1, TABLE).put_name(2, MAP).put_be(3, MAP_FLAG);
        message.put_be(4, IFNAME).put_be(5, 16).put_be(6, VERDICT).put_be(10, 1);
        // For `nft list`, which would read the names backwards: "the key is in host order".
        message.put(13, &[[0, 4].as_slice(), &1_u32.to_ne_bytes()].concat());
    });
    // The one rule for all is written anew, all in one step with the rest.
    batch.flush(BASE);
    batch.rule(BASE, |rule| {
        const IIFNAME: u32 = 6;
        expression(rule, "meta", |data| {
            data.put_be(1, REGISTER).put_be(2, IIFNAME);
        });
        expression(rule, "lookup", |data| {
            data.put_name(1, MAP).put_be(2, REGISTER).put_be(3, VERDICT_REGISTER);
        });
    });
    batch.add(NEWCHAIN, NLM_F_CREATE, |message| {
        message.put_name(1, TABLE).put_name(3, interface);
    });
    batch.flush(interface);
    allow(&mut batch, interface, allowed);
    batch.element(NEWSETELEM, NLM_F_CREATE, interface);
    batch.run().step(|| format!("limit what {interface} may send (nftables)"))
}

/// Takes away what [`protect`] has made, if anything.
pub(crate) fn unprotect(interface: &str) -> Result<(), Failure> {
    let mut batch = Batch::new();
    batch.element(DELSETELEM, 0, interface);
    batch.flush(interface);
    batch.add(DELCHAIN, 0, |message| {
        message.put_name(1, TABLE).put_name(3, interface);
    });
    match batch.run() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.step(|| format!("take away the rules for {interface} (nftables)")),
    }
}

/// The rules of one interface. What none of them lets pass is dropped: packets with a tag of a
/// VLAN too, behind which there could be anything.
fn allow(batch: &mut Batch, chain: &str, allowed: &[Network]) {
    use Test::{In, Is, NotIn};
    let (four, six): (Vec<&Network>, Vec<&Network>) =
        allowed.iter().partition(|network| network.address.is_ipv4());
    for network in &four {
        batch.verdict(chain, &[Is(ETHER_TYPE, IP4), In(IP4_SOURCE, network)], ACCEPT);
        batch.verdict(chain, &[Is(ETHER_TYPE, ARP), In(ARP_SENDER, network)], ACCEPT);
    }
    // Who has no address yet asks whether one is free, and asks for one.
    let nobody: &[u8] = &[0; 4];
    batch.verdict(chain, &[Is(ETHER_TYPE, ARP), Is(ARP_SENDER, nobody)], ACCEPT);
    let dhcp =
        [Is(ETHER_TYPE, IP4), Is(IP4_SOURCE, nobody), Is(IP4_PROTOCOL, UDP), Is(PORTS, DHCP)];
    batch.verdict(chain, &dhcp, ACCEPT);
    if !six.is_empty() {
        let link_local =
            Network { address: IpAddr::V6([0xfe80, 0, 0, 0, 0, 0, 0, 0].into()), prefix: 10 };
        // The address of another, claimed in an answer, whatever the sender's.
        let mut claims_another =
            vec![Is(ETHER_TYPE, IP6), Is(IP6_NEXT, ICMP6), Is(ICMP6_TYPE, NEIGHBOUR_ADVERTISEMENT)];
        let allowed = six.iter().copied().chain([&link_local]);
        claims_another.extend(allowed.map(|network| NotIn(ADVERTISED, network)));
        batch.verdict(chain, &claims_another, DROP);
        for network in six.iter().copied().chain([&link_local]) {
            batch.verdict(chain, &[Is(ETHER_TYPE, IP6), In(IP6_SOURCE, network)], ACCEPT);
        }
        batch.verdict(chain, &[Is(ETHER_TYPE, IP6), Is(IP6_SOURCE, &[0; 16])], ACCEPT);
    }
    batch.verdict(chain, &[], DROP);
}

/// Requests that are carried out all together or not at all.
struct Batch(Message);

impl Batch {
    fn new() -> Self {
        Self(Message::new(BATCH_BEGIN, 0, &BATCH))
    }

    fn add(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Message)) {
        self.0.begin(kind, flags, &FAMILY_BRIDGE);
        self.0.acknowledge();
        body(&mut self.0);
    }

    fn flush(&mut self, chain: &str) {
        self.add(DELRULE, 0, |message| {
            message.put_name(1, TABLE).put_name(2, chain);
        });
    }

    fn rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Message)) {
        self.add(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |message| {
            message.put_name(1, TABLE).put_name(2, chain).nest(4, expressions);
        });
    }

    fn verdict(&mut self, chain: &str, tests: &[Test<'_>], code: u32) {
        self.rule(chain, |rule| {
            tests.iter().for_each(|test| test.put(rule));
            expression(rule, "immediate", |data| {
                data.put_be(1, VERDICT_REGISTER).nest(2, |data| verdict(data, code, None));
            });
        });
    }

    /// The interface's place in the map.
    fn element(&mut self, kind: u16, flags: u16, interface: &str) {
        let mut key = [0; 16];
        key[..interface.len()].copy_from_slice(interface.as_bytes());
        self.add(kind, flags, |message| {
            message.put_name(1, TABLE).put_name(2, MAP).nest(3, |list| {
                list.nest(LIST_ELEM, |element| {
                    element.nest(1, |data| {
                        data.put(DATA_VALUE, &key);
                    });
                    if kind == NEWSETELEM {
                        element.nest(2, |data| verdict(data, GOTO, Some(interface)));
                    }
                });
            });
        });
    }

    fn run(mut self) -> io::Result<()> {
        self.0.begin(BATCH_END, 0, &BATCH);
        Netlink::open(libc::NETLINK_NETFILTER)?.change_all(self.0)
    }
}

impl Test<'_> {
    fn put(&self, rule: &mut Message) {
        let ((base, offset, len), value, mask) = match self {
            Self::Is(field, value) => (*field, value.to_vec(), None),
            Self::In(field, network) | Self::NotIn(field, network) => {
                let mask = mask(network.prefix, field.2);
                let value = network.octets();
                let masked = value.iter().zip(&mask).map(|(value, mask)| value & mask).collect();
                (*field, masked, Some(mask))
            }
        };
        expression(rule, "payload", |data| {
            data.put_be(1, REGISTER).put_be(2, base).put_be(3, offset).put_be(4, len);
        });
        if let Some(mask) = mask.filter(|mask| mask.iter().any(|byte| *byte != 0xff)) {
            expression(rule, "bitwise", |data| {
                data.put_be(1, REGISTER).put_be(2, REGISTER).put_be(3, len);
                data.nest(4, |data| {
                    data.put(DATA_VALUE, &mask);
                });
                data.nest(5, |data| {
                    data.put(DATA_VALUE, &vec![0; mask.len()]);
                });
            });
        }
        expression(rule, "cmp", |data| {
            // Equal, or not.
            let operator = u32::from(matches!(self, Self::NotIn(..)));
            data.put_be(1, REGISTER).put_be(2, operator).nest(3, |data| {
                data.put(DATA_VALUE, &value);
            });
        });
    }
}

/// So many ones from the left, in so many bytes.
fn mask(prefix: u8, len: u32) -> Vec<u8> {
    let bits = |byte: u32| u32::from(prefix).saturating_sub(8 * byte).min(8);
    (0..len).map(|byte| !(0xff_u8.checked_shr(bits(byte)).unwrap_or(0))).collect()
}

fn expression(rule: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    rule.nest(LIST_ELEM, |element| {
        element.put_name(1, name).nest(2, data);
    });
}

fn verdict(data: &mut Message, code: u32, chain: Option<&str>) {
    data.nest(DATA_VERDICT, |data| {
        data.put_be(1, code);
        if let Some(chain) = chain {
            data.put_name(2, chain);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_their_ones_on_the_left() {
        assert_eq!(mask(32, 4), [0xff; 4]);
        assert_eq!(mask(0, 4), [0; 4]);
        assert_eq!(mask(20, 4), [0xff, 0xff, 0xf0, 0]);
        assert_eq!(mask(10, 16)[..2], [0xff, 0xc0]);
    }
}
