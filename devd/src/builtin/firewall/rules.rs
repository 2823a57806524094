//! What a guest whose addresses are known may send. `docs/hooks.md` has the same as a table.
//!
//! Frames that no rule accepts are dropped. IPv6 extension headers are the difficulty: a
//! neighbour advertisement may stand behind several of them, or in a fragment. Three kinds of
//! packets are told apart:
//! - a packet whose transport header the kernel finds: that header is tested;
//! - a fragment that is not the first: accepted, for its packet is never put together again
//!   without its first fragment, in which the transport header has to be;
//! - all others (headers that are cut short, a transport header that is missing in the first
//!   fragment, AH): dropped.
//!
//! Neighbour discovery is accepted directly behind the IPv6 header only, and with the one option
//! that it needs.
//!
//! Sources: RFC 826, 2131, 4861, 4862, 6980, 7112, 7527, 8200, 8415, 9777.

use std::net::{IpAddr, Ipv6Addr};

use super::nftables::Comparison::{AtLeast, AtMost, Equal, NotEqual};
use super::nftables::{Base, Chain, Field, Rule, Subject, Test, Verdict};
use super::{Mac, Network};

const fn field(base: Base, offset: u8, len: u8) -> Subject {
    Subject::Field(Field { base, offset, len })
}

/// `include/uapi/linux/if_arp.h`
const ARPHRD_ETHER: u16 = 1;
const ETHER_SOURCE: Subject = field(Base::Link, 6, 6);
const ETHER_TYPE: Subject = field(Base::Link, 12, 2);
const ETHER_TYPE_IP4: &[u8] = &[0x08, 0x00];
const ETHER_TYPE_ARP: &[u8] = &[0x08, 0x06];
const ETHER_TYPE_IP6: &[u8] = &[0x86, 0xdd];

/// Kinds of addresses, their lengths, and what is asked.
const ARP_KINDS: Subject = field(Base::Network, 0, 6);
const ARP_ETHERNET_AND_IP4: &[u8] = &[0, 1, 0x08, 0x00, 6, 4];
const ARP_OPERATION: Subject = field(Base::Network, 6, 2);
const ARP_REQUEST: &[u8] = &[0, 1];
const ARP_REPLY: &[u8] = &[0, 2];
const ARP_SENDER_MAC: Subject = field(Base::Network, 8, 6);
const ARP_SENDER_IP: Subject = field(Base::Network, 14, 4);
const ARP_TARGET_IP: Subject = field(Base::Network, 24, 4);

const IP4_FRAGMENT: Subject = field(Base::Network, 6, 2);
/// All but "don't fragment" of the flags, and the offset.
const IP4_FRAGMENT_MASK: [u8; 2] = [0x3f, 0xff];
const IP4_FRAGMENT_OFFSET_MASK: [u8; 2] = [0x1f, 0xff];
const IP4_SOURCE: Subject = field(Base::Network, 12, 4);

const IP6_PAYLOAD_LENGTH: Subject = field(Base::Network, 4, 2);
const IP6_NEXT_HEADER: Subject = field(Base::Network, 6, 1);
const IP6_SOURCE: Subject = field(Base::Network, 8, 16);
const IP6_FRAGMENT_OFFSET_MASK: [u8; 2] = [0xff, 0xf8];
const HOP_BY_HOP: u8 = 0;
/// What comes behind a hop-by-hop header that follows the IPv6 header, and its length.
const HOP_BY_HOP_START: Subject = field(Base::Network, 40, 2);
/// ICMPv6 comes next, and the header has eight bytes, its least.
const HOP_BY_HOP_ICMP6: &[u8] = &[ICMP6, 0];
const ICMP6_TYPE_BEHIND_HOP_BY_HOP: Subject = field(Base::Network, 48, 1);

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const UDP: u8 = 17;
const AH: u8 = 51;
const ICMP6: u8 = 58;

const SOURCE_PORT: Subject = field(Base::Transport, 0, 2);
const DESTINATION_PORT: Subject = field(Base::Transport, 2, 2);
const BOTH_PORTS: Subject = field(Base::Transport, 0, 4);
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP6_CLIENT: u16 = 546;
const DHCP6_SERVER: u16 = 547;

/// The type of ICMP, ICMPv6 and IGMP.
const ICMP_TYPE: Subject = field(Base::Transport, 0, 1);
const ICMP_REDIRECT: u8 = 5;
const ICMP_ROUTER_ADVERTISEMENT: u8 = 9;
const IGMP_QUERY: u8 = 0x11;
const ICMP6_LAST_COMMON_ERROR: u8 = 4;
const ICMP6_ECHO_REQUEST: u8 = 128;
const ICMP6_ECHO_REPLY: u8 = 129;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD2_REPORT: u8 = 143;
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Of neighbour discovery directly behind the IPv6 header.
const DISCOVERY_TYPE: Subject = field(Base::Network, 40, 1);
const DISCOVERY_TARGET: Subject = field(Base::Network, 48, 16);
/// The lengths of the messages without their options.
const ROUTER_SOLICITATION_LENGTH: u8 = 8;
const NEIGHBOUR_LENGTH: u8 = 24;
/// The length of the options that are accepted: one of eight bytes.
const OPTION_LENGTH: u8 = 8;
const IP6_HEADER_LENGTH: u8 = 40;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const NONCE: u8 = 14;

/// The first of the chains is the base chain.
const GUEST: &str = "guest";
const ARP: &str = "guest-arp";
const IP4: &str = "guest-ip4";
const IP6: &str = "guest-ip6";
const ICMPV6: &str = "guest-icmp6";
const ADVERTISEMENT: &str = "guest-advertisement";
const UNSPECIFIED: &str = "guest-unspecified";
const DUPLICATE_ADDRESS_DETECTION: &str = "guest-dad";

/// The link-local address that belongs to a MAC address (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Network {
    let [a, b, c, d, e, f] = mac;
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Network { address: IpAddr::V6(Ipv6Addr::from(octets)), prefix: 128 }
}

/// The chains for a guest with this MAC address and these addresses and networks. Without an
/// IPv6 address it sends no IPv6, and without an IPv4 address neither IPv4 nor ARP.
pub(super) fn chains(mac: Mac, allowed: &[Network]) -> Vec<Chain> {
    let (four, mut six): (Vec<Network>, Vec<Network>) =
        allowed.iter().partition(|network| network.address.is_ipv4());
    let mut guest = vec![drop(vec![ethernet(), not(ETHER_SOURCE, &mac)])];
    let mut chains = Vec::new();
    if !four.is_empty() {
        guest.extend(ip4_and_arp(mac, &four));
        chains.extend([arp(&four), ip4()]);
    }
    if !six.is_empty() {
        six.push(link_local(mac));
        let from = |source| vec![ethernet(), is(ETHER_TYPE, ETHER_TYPE_IP6), source];
        guest.extend(six.iter().map(|network| goto(IP6, from(within(IP6_SOURCE, network)))));
        guest.push(goto(UNSPECIFIED, from(is(IP6_SOURCE, &[0; 16]))));
        chains.extend([ip6(), icmp6(mac, &six), advertisement(mac), unspecified_source(&six)]);
        chains.push(duplicate_address_detection());
    }
    chains.insert(0, Chain { name: GUEST, rules: guest });
    chains
}

fn ip4_and_arp(mac: Mac, four: &[Network]) -> Vec<Rule> {
    let from = |source| vec![ethernet(), is(ETHER_TYPE, ETHER_TYPE_IP4), source];
    let mut rules: Vec<Rule> =
        four.iter().map(|network| goto(IP4, from(within(IP4_SOURCE, network)))).collect();
    let mut dhcp_request = from(is(IP4_SOURCE, &[0; 4]));
    dhcp_request.extend([
        Test { mask: Some(IP4_FRAGMENT_MASK.to_vec()), ..is(IP4_FRAGMENT, &[0, 0]) },
        transport(UDP),
        is(BOTH_PORTS, &[DHCP_CLIENT.to_be_bytes(), DHCP_SERVER.to_be_bytes()].concat()),
    ]);
    rules.push(accept(dhcp_request));
    rules.push(goto(
        ARP,
        vec![
            ethernet(),
            is(ETHER_TYPE, ETHER_TYPE_ARP),
            is(ARP_KINDS, ARP_ETHERNET_AND_IP4),
            is(ARP_SENDER_MAC, &mac),
        ],
    ));
    rules
}

fn arp(four: &[Network]) -> Chain {
    let mut rules = Vec::new();
    for network in four {
        for operation in [ARP_REQUEST, ARP_REPLY] {
            rules.push(accept(vec![is(ARP_OPERATION, operation), within(ARP_SENDER_IP, network)]));
        }
        // The guest asks whether anybody else has its address already (RFC 5227).
        rules.push(accept(vec![
            is(ARP_OPERATION, ARP_REQUEST),
            is(ARP_SENDER_IP, &[0; 4]),
            within(ARP_TARGET_IP, network),
        ]));
    }
    Chain { name: ARP, rules }
}

/// The source is the guest's. What only a router or a DHCP server sends is dropped.
fn ip4() -> Chain {
    let later_fragment =
        Test { mask: Some(IP4_FRAGMENT_OFFSET_MASK.to_vec()), ..not(IP4_FRAGMENT, &[0, 0]) };
    // What is tested has to be there: another fragment could bring it.
    let rules = vec![
        accept(vec![any_transport(), later_fragment]),
        accept(vec![
            transport(UDP),
            not(SOURCE_PORT, &DHCP_SERVER.to_be_bytes()),
            not(DESTINATION_PORT, &DHCP_CLIENT.to_be_bytes()),
        ]),
        drop(vec![transport(UDP)]),
        accept(vec![
            transport(ICMP),
            not(ICMP_TYPE, &[ICMP_REDIRECT]),
            not(ICMP_TYPE, &[ICMP_ROUTER_ADVERTISEMENT]),
        ]),
        drop(vec![transport(ICMP)]),
        accept(vec![transport(IGMP), not(ICMP_TYPE, &[IGMP_QUERY])]),
        drop(vec![transport(IGMP)]),
        accept(vec![any_transport()]),
    ];
    Chain { name: IP4, rules }
}

/// The source is the guest's.
fn ip6() -> Chain {
    let later_fragment = Test {
        mask: Some(IP6_FRAGMENT_OFFSET_MASK.to_vec()),
        ..not(Subject::FragmentOffset, &[0, 0])
    };
    let rules = vec![
        accept(vec![later_fragment]),
        // The kernel does not look behind it.
        drop(vec![transport(AH)]),
        goto(ICMPV6, vec![transport(ICMP6)]),
        // The ports have to be there: another fragment could bring them.
        accept(vec![
            transport(UDP),
            not(SOURCE_PORT, &DHCP6_SERVER.to_be_bytes()),
            not(DESTINATION_PORT, &DHCP6_CLIENT.to_be_bytes()),
        ]),
        drop(vec![transport(UDP)]),
        accept(vec![any_transport()]),
    ];
    Chain { name: IP6, rules }
}

/// The source is the guest's; there may be extension headers.
fn icmp6(mac: Mac, six: &[Network]) -> Chain {
    let mut rules = vec![
        accept(vec![Test { comparison: AtMost, ..is(ICMP_TYPE, &[ICMP6_LAST_COMMON_ERROR]) }]),
        accept(vec![is(ICMP_TYPE, &[ICMP6_ECHO_REQUEST])]),
        accept(vec![is(ICMP_TYPE, &[ICMP6_ECHO_REPLY])]),
    ];
    rules.extend(multicast_listener());
    let own = |kind| [&[kind, 1][..], &mac].concat();
    let source = own(SOURCE_LINK_LAYER_ADDRESS);
    rules.extend(discovery(ROUTER_SOLICITATION, ROUTER_SOLICITATION_LENGTH, Some(&source)));
    rules.extend(discovery(NEIGHBOUR_SOLICITATION, NEIGHBOUR_LENGTH, Some(&source)));
    for network in six {
        let mut tests = directly(NEIGHBOUR_ADVERTISEMENT);
        tests.push(within(DISCOVERY_TARGET, network));
        rules.push(goto(ADVERTISEMENT, tests));
    }
    Chain { name: ICMPV6, rules }
}

/// The target is the guest's.
fn advertisement(mac: Mac) -> Chain {
    let target = [&[TARGET_LINK_LAYER_ADDRESS, 1][..], &mac].concat();
    let rules = discovery(NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_LENGTH, Some(&target));
    Chain { name: ADVERTISEMENT, rules }
}

/// The guest has no address yet: it asks whether anybody else has one of its addresses, asks for
/// a router, and tells that it listens to the multicast address that belongs to its address.
fn unspecified_source(six: &[Network]) -> Chain {
    let mut rules = multicast_listener();
    rules.extend(discovery(ROUTER_SOLICITATION, ROUTER_SOLICITATION_LENGTH, None));
    for network in six {
        let mut tests = directly(NEIGHBOUR_SOLICITATION);
        tests.push(within(DISCOVERY_TARGET, network));
        rules.push(goto(DUPLICATE_ADDRESS_DETECTION, tests));
    }
    Chain { name: UNSPECIFIED, rules }
}

/// The target is the guest's. A nonce tells the question from its own echo.
fn duplicate_address_detection() -> Chain {
    let nonce = [NONCE, 1];
    let rules = discovery(NEIGHBOUR_SOLICITATION, NEIGHBOUR_LENGTH, Some(&nonce));
    Chain { name: DUPLICATE_ADDRESS_DETECTION, rules }
}

/// Reports to multicast routers, which switches listen to as well. They have a hop-by-hop header.
fn multicast_listener() -> Vec<Rule> {
    let report = |kind| {
        accept(vec![
            is(IP6_NEXT_HEADER, &[HOP_BY_HOP]),
            is(HOP_BY_HOP_START, HOP_BY_HOP_ICMP6),
            is(ICMP6_TYPE_BEHIND_HOP_BY_HOP, &[kind]),
        ])
    };
    [MLD_REPORT, MLD_DONE, MLD2_REPORT].map(report).into()
}

/// A message of neighbour discovery of this type and length, without options, or with the one
/// that begins like this.
fn discovery(kind: u8, length: u8, option: Option<&[u8]>) -> Vec<Rule> {
    let of_length = |length: u8| {
        let mut tests = directly(kind);
        tests.push(is(IP6_PAYLOAD_LENGTH, &[0, length]));
        tests
    };
    let mut rules = vec![accept(of_length(length))];
    if let Some(option) = option {
        let mut tests = of_length(length + OPTION_LENGTH);
        // An option has 255 × 8 bytes at most, this one has eight.
        let len = u8::try_from(option.len()).unwrap_or(OPTION_LENGTH);
        tests.push(is(field(Base::Network, IP6_HEADER_LENGTH + length, len), option));
        rules.push(accept(tests));
    }
    rules
}

/// ICMPv6 of this type, without extension headers.
fn directly(kind: u8) -> Vec<Test> {
    vec![is(IP6_NEXT_HEADER, &[ICMP6]), is(DISCOVERY_TYPE, &[kind])]
}

fn accept(tests: Vec<Test>) -> Rule {
    Rule { tests, verdict: Verdict::Accept }
}

fn drop(tests: Vec<Test>) -> Rule {
    Rule { tests, verdict: Verdict::Drop }
}

fn goto(chain: &'static str, tests: Vec<Test>) -> Rule {
    Rule { tests, verdict: Verdict::Goto(chain) }
}

fn is(subject: Subject, value: &[u8]) -> Test {
    Test { subject, mask: None, comparison: Equal, value: value.to_vec() }
}

fn not(subject: Subject, value: &[u8]) -> Test {
    Test { comparison: NotEqual, ..is(subject, value) }
}

/// The frame is Ethernet's. (`nft list` reads the tests of its header behind this one only.)
fn ethernet() -> Test {
    is(Subject::InterfaceType, &ARPHRD_ETHER.to_ne_bytes())
}

fn transport(protocol: u8) -> Test {
    is(Subject::TransportProtocol, &[protocol])
}

/// The kernel could follow the headers: it knows a protocol, whatever that is.
fn any_transport() -> Test {
    Test { comparison: AtLeast, ..is(Subject::TransportProtocol, &[0]) }
}

/// The address in the field belongs to the network.
fn within(subject: Subject, network: &Network) -> Test {
    let octets = network.octets();
    let mask = mask(network.prefix, octets.len());
    let value = octets.iter().zip(&mask).map(|(octet, mask)| octet & mask).collect();
    let whole = mask.iter().all(|byte| *byte == 0xff);
    Test { subject, mask: (!whole).then_some(mask), comparison: Equal, value }
}

/// So many ones from the left, in so many bytes.
fn mask(prefix: u8, len: usize) -> Vec<u8> {
    let bits = |byte: usize| usize::from(prefix).saturating_sub(8 * byte).min(8);
    (0..len).map(|byte| !(0xff_u8 >> bits(byte).min(7) >> (bits(byte) / 8))).collect()
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

    #[test]
    fn link_local_address_is_made_of_the_mac() {
        let network = link_local([0x00, 0x16, 0x3e, 0x01, 0x02, 0x03]);
        assert_eq!(network.to_string(), "fe80::216:3eff:fe01:203/128");
    }

    #[test]
    fn families_without_an_address_have_no_chains() {
        let names = |allowed: &[&str]| -> Vec<&str> {
            let allowed: Vec<_> =
                allowed.iter().map(|text| Network::parse(text).unwrap()).collect();
            chains([2; 6], &allowed).iter().map(|chain| chain.name).collect()
        };
        assert_eq!(names(&["10.0.0.3"]), [GUEST, ARP, IP4]);
        let six = [GUEST, IP6, ICMPV6, ADVERTISEMENT, UNSPECIFIED, DUPLICATE_ADDRESS_DETECTION];
        assert_eq!(names(&["fd00::3"]), six);
    }

    #[test]
    fn every_chain_that_a_rule_leads_to_is_there() {
        let allowed = ["10.0.0.3", "fd00::3"].map(|text| Network::parse(text).unwrap());
        let chains = chains([2; 6], &allowed);
        for rule in chains.iter().flat_map(|chain| &chain.rules) {
            if let Verdict::Goto(name) = rule.verdict {
                assert!(chains.iter().any(|chain| chain.name == name), "{name}");
            }
        }
    }
}
