//! The table of `docs/hooks.md`: each row's frames, and what becomes of them.

use super::frames::*;

/// The verdict on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Allowed,
    Dropped,
}
use Fate::{Allowed, Dropped};

/// The `ip` node of the guest that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    BothFamilies,
    OnlyIp4,
    OnlyIp6,
}

impl Guest {
    pub(crate) const fn ip(self) -> &'static str {
        match self {
            Self::BothFamilies => "10.1.2.3 10.1.4.0/24 10.1.6.5/24 fd00::7 fd00:1::/64",
            Self::OnlyIp4 => "10.1.2.3",
            Self::OnlyIp6 => "fd00::7",
        }
    }
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) fate: Fate,
    pub(crate) guest: Guest,
    pub(crate) frames: Vec<Frame>,
}

const OWN: &str = "10.1.2.3";
const FOREIGN: &str = "10.1.0.1";
const OWN6: &str = "fd00::7";
const FOREIGN6: &str = "fd00::1";
const OWN_LINK_LOCAL: &str = "fe80::216:3eff:fe00:1";
const GATEWAY: &str = "fe80::1";

const REPLY: u16 = 2;
const REQUEST: u16 = 1;
const REVERSE_REQUEST: u16 = 3;
const MORE_FRAGMENTS: u16 = 0x2000;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |fate, name, frames| {
        rows.push(Row { name, fate, guest: Guest::BothFamilies, frames });
    };
    ip4_rows(&mut add);
    arp_rows(&mut add);
    ip6_rows(&mut add);
    neighbour_rows(&mut add);
    ethernet_rows(&mut add);
    let udp4 = frame(IP4, &ip4(OWN, UDP, &ports(1000, 2000)));
    let udp6 = frame(IP6, &ip6(OWN6, UDP, &ports(1000, 2000)));
    let link_local = frame(IP6, &ip6(OWN_LINK_LOCAL, UDP, &ports(1000, 2000)));
    rows.push(Row {
        name: "IPv6 of a guest without an IPv6 address in `ip`",
        fate: Dropped,
        guest: Guest::OnlyIp4,
        frames: vec![
            udp6,
            link_local,
            frame(IP6, &ip6("::", ICMP6, &neighbour(SOLICITATION, OWN_LINK_LOCAL, &[]))),
        ],
    });
    rows.push(Row {
        name: "IPv4 and ARP of a guest without an IPv4 address in `ip`",
        fate: Dropped,
        guest: Guest::OnlyIp6,
        frames: vec![
            udp4,
            frame(IP4, &ip4("0.0.0.0", UDP, &ports(68, 67))),
            arp(REQUEST, MAC, OWN, FOREIGN),
            arp(REQUEST, MAC, "0.0.0.0", OWN),
        ],
    });
    rows
}

type Add<'a> = dyn FnMut(Fate, &'static str, Vec<Frame>) + 'a;

fn ip4_rows(add: &mut Add<'_>) {
    let whole = |source, protocol, payload: &[u8]| frame(IP4, &ip4(source, protocol, payload));
    let part = |protocol, fragment, options: &[u8], payload: &[u8]| {
        frame(IP4, &ip4_with(OWN, protocol, fragment, options, payload))
    };
    let udp = ports(1000, 2000);
    let options = [7, 7, 4, 0, 0, 0, 0, 0];
    add(
        Allowed,
        "IPv4 from an own address or network",
        vec![
            whole(OWN, UDP, &udp),
            whole(OWN, TCP, &udp),
            whole(OWN, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]),
            whole(OWN, IGMP, &[0x16, 0, 0, 0, 239, 1, 1, 1]),
            whole("10.1.4.200", UDP, &udp),
            whole("10.1.6.5", UDP, &udp),
        ],
    );
    add(
        Allowed,
        "the same with IPv4 options, or in fragments",
        vec![
            part(UDP, 0, &options, &udp),
            part(UDP, MORE_FRAGMENTS, &[], &udp),
            part(UDP, 3, &[], &ports(67, 68)),
            part(ICMP, 185, &[], &[5; 40]),
        ],
    );
    add(
        Allowed,
        "a DHCP request from 0.0.0.0 or an own address",
        vec![whole("0.0.0.0", UDP, &ports(68, 67)), whole(OWN, UDP, &ports(68, 67))],
    );
    add(
        Dropped,
        "IPv4 from another address",
        vec![
            whole(FOREIGN, UDP, &udp),
            whole("10.1.2.4", TCP, &udp),
            whole("10.1.6.6", UDP, &udp),
            whole("255.255.255.255", UDP, &udp),
            whole("127.0.0.1", UDP, &udp),
            frame(IP4, &ip4_with(FOREIGN, UDP, 3, &[], &udp)),
            frame(IP4, &ip4_with(FOREIGN, UDP, 0, &options, &udp)),
        ],
    );
    add(
        Dropped,
        "anything else from 0.0.0.0",
        vec![
            whole("0.0.0.0", UDP, &udp),
            whole("0.0.0.0", UDP, &ports(67, 68)),
            whole("0.0.0.0", TCP, &ports(68, 67)),
            whole("0.0.0.0", IGMP, &[0x16, 0, 0, 0, 239, 1, 1, 1]),
            frame(IP4, &ip4_with("0.0.0.0", UDP, 3, &[], &ports(68, 67))),
            frame(IP4, &ip4_with("0.0.0.0", UDP, MORE_FRAGMENTS, &[], &ports(68, 67))),
        ],
    );
    add(
        Dropped,
        "what a DHCP server sends",
        vec![
            whole(OWN, UDP, &ports(67, 68)),
            whole(OWN, UDP, &ports(1067, 68)),
            whole(OWN, UDP, &ports(67, 1068)),
            part(UDP, 0, &options, &ports(67, 68)),
            part(UDP, MORE_FRAGMENTS, &[], &ports(67, 68)),
            // The ports could come in another fragment.
            part(UDP, MORE_FRAGMENTS, &[], &[0, 99]),
        ],
    );
    add(
        Dropped,
        "ICMP redirects and router advertisements, IGMP queries",
        vec![
            whole(OWN, ICMP, &[5, 0, 0, 0, 10, 1, 0, 1]),
            whole(OWN, ICMP, &[9, 0, 0, 0, 1, 2, 0, 60]),
            part(ICMP, MORE_FRAGMENTS, &options, &[5, 1, 0, 0, 10, 1, 0, 1]),
            whole(OWN, IGMP, &[0x11, 0, 0, 0, 0, 0, 0, 0]),
        ],
    );
    let mut short = ip4(OWN, UDP, &udp);
    short.truncate(30);
    let mut bad_version = ip4(OWN, UDP, &udp);
    bad_version[0] = 0x65;
    let mut short_header = ip4(OWN, UDP, &udp);
    short_header[0] = 0x44;
    add(
        Dropped,
        "IPv4 that is cut short, or whose header makes no sense",
        vec![
            frame(IP4, &short),
            frame(IP4, &short[..14]),
            frame(IP4, &[]),
            frame(IP4, &bad_version),
            frame(IP4, &short_header),
        ],
    );
}

fn arp_rows(add: &mut Add<'_>) {
    add(
        Allowed,
        "ARP with the own MAC address and an own address",
        vec![
            arp(REQUEST, MAC, OWN, FOREIGN),
            arp(REPLY, MAC, OWN, FOREIGN),
            arp(REQUEST, MAC, "10.1.4.9", FOREIGN),
            // With what fills the frame up to its least length.
            [arp(REPLY, MAC, OWN, FOREIGN), vec![0; 18]].concat(),
        ],
    );
    add(
        Allowed,
        "gratuitous ARP for an own address",
        vec![arp(REQUEST, MAC, OWN, OWN), arp(REPLY, MAC, OWN, OWN)],
    );
    add(
        Allowed,
        "an ARP probe (from 0.0.0.0) for an own address",
        vec![arp(REQUEST, MAC, "0.0.0.0", OWN), arp(REQUEST, MAC, "0.0.0.0", "10.1.4.9")],
    );
    add(
        Dropped,
        "ARP from another address, gratuitous or not",
        vec![
            arp(REQUEST, MAC, FOREIGN, "10.1.0.9"),
            arp(REPLY, MAC, FOREIGN, "10.1.0.9"),
            arp(REQUEST, MAC, FOREIGN, FOREIGN),
            arp(REPLY, MAC, FOREIGN, FOREIGN),
            arp(REQUEST, MAC, "10.1.6.6", "10.1.0.9"),
        ],
    );
    add(
        Dropped,
        "ARP with another MAC address as the sender's",
        vec![
            arp(REQUEST, FOREIGN_MAC, OWN, FOREIGN),
            arp(REPLY, FOREIGN_MAC, OWN, FOREIGN),
            arp(REQUEST, FOREIGN_MAC, "0.0.0.0", OWN),
        ],
    );
    add(
        Dropped,
        "an ARP probe for another address, a reply from 0.0.0.0",
        vec![arp(REQUEST, MAC, "0.0.0.0", FOREIGN), arp(REPLY, MAC, "0.0.0.0", OWN)],
    );
    let mut ieee802 = arp_packet(REPLY, MAC, OWN, FOREIGN);
    ieee802[1] = 6;
    let mut long_address = arp_packet(REPLY, MAC, OWN, FOREIGN);
    long_address[4] = 8;
    add(
        Dropped,
        "ARP of other kinds, or cut short",
        vec![
            arp(REVERSE_REQUEST, MAC, OWN, OWN),
            arp(4, MAC, OWN, OWN),
            frame(ARP, &ieee802),
            frame(ARP, &long_address),
            frame(ARP, &arp_packet(REPLY, MAC, OWN, FOREIGN)[..16]),
            frame(ARP, &[]),
        ],
    );
}

fn ip6_rows(add: &mut Add<'_>) {
    let whole = |source, next, payload: &[u8]| frame(IP6, &ip6(source, next, payload));
    let own = |next, payload: &[u8]| whole(OWN6, next, payload);
    let udp = ports(1000, 2000);
    add(
        Allowed,
        "IPv6 from an own address or network, or from the link-local address of the own MAC address",
        vec![
            own(UDP, &udp),
            own(TCP, &udp),
            own(ESP, &udp),
            whole("fd00:1::99", UDP, &udp),
            whole(OWN_LINK_LOCAL, UDP, &ports(546, 547)),
        ],
    );
    let more = [behind(UDP, &[0xff; 24]), vec![0; 16]].concat();
    add(
        Allowed,
        "the same behind extension headers, or in fragments",
        vec![
            own(HOP_BY_HOP, &behind(UDP, &udp)),
            own(DESTINATION_OPTIONS, &behind(TCP, &udp)),
            own(ROUTING, &routed(UDP, &udp)),
            own(HOP_BY_HOP, &behind(DESTINATION_OPTIONS, &behind(UDP, &udp))),
            own(FRAGMENT, &fragment(UDP, 0, true, &udp)),
            own(FRAGMENT, &fragment(UDP, 24, false, &ports(547, 546))),
            own(FRAGMENT, &fragment(DESTINATION_OPTIONS, 0, true, &behind(UDP, &udp))),
            own(FRAGMENT, &fragment(DESTINATION_OPTIONS, 40, false, &more)),
            own(FRAGMENT, &fragment(ICMP6, 0, true, &icmp6(128))),
            own(FRAGMENT, &fragment(ICMP6, 24, false, &icmp6(ADVERTISEMENT))),
        ],
    );
    let common = [1, 2, 3, 4, 128, 129];
    add(
        Allowed,
        "ICMPv6 echo and errors",
        common.map(|kind| own(ICMP6, &icmp6(kind))).into_iter().collect(),
    );
    add(
        Allowed,
        "multicast listener reports, from `::` too",
        vec![
            listener(OWN_LINK_LOCAL, 143),
            listener(OWN_LINK_LOCAL, 131),
            listener(OWN_LINK_LOCAL, 132),
            listener("::", 143),
        ],
    );
    add(
        Dropped,
        "IPv6 from another address, link-local ones included",
        vec![
            whole(FOREIGN6, UDP, &udp),
            whole("fd00:2::7", TCP, &udp),
            whole(GATEWAY, UDP, &udp),
            whole(GATEWAY, ICMP6, &icmp6(128)),
            whole("fe80::216:3eff:fe00:2", UDP, &udp),
            whole(FOREIGN6, HOP_BY_HOP, &behind(UDP, &udp)),
            whole(FOREIGN6, FRAGMENT, &fragment(UDP, 24, false, &udp)),
            whole("ff02::1", UDP, &udp),
            listener(GATEWAY, 143),
        ],
    );
    add(
        Dropped,
        "anything else from `::`",
        vec![
            whole("::", UDP, &udp),
            whole("::", ICMP6, &icmp6(128)),
            whole("::", FRAGMENT, &fragment(UDP, 24, false, &udp)),
            listener("::", 130),
        ],
    );
    add(
        Dropped,
        "what a DHCPv6 server sends",
        vec![
            own(UDP, &ports(547, 546)),
            own(UDP, &ports(1547, 546)),
            own(UDP, &ports(547, 1546)),
            own(DESTINATION_OPTIONS, &behind(UDP, &ports(547, 546))),
            own(FRAGMENT, &fragment(UDP, 0, true, &ports(547, 546))),
            // The ports would come in another fragment.
            own(FRAGMENT, &fragment(DESTINATION_OPTIONS, 0, true, &behind(UDP, &[]))),
        ],
    );
    let routers = [ROUTER_ADVERTISEMENT, REDIRECT];
    let mut routing: Vec<_> = routers.map(|kind| own(ICMP6, &icmp6(kind))).into();
    routing.extend(routers.map(|kind| whole(OWN_LINK_LOCAL, ICMP6, &icmp6(kind))));
    routing.extend(routers.map(|kind| own(HOP_BY_HOP, &behind(ICMP6, &icmp6(kind)))));
    routing.extend(
        routers.map(|kind| own(FRAGMENT, &fragment(ICMP6, 0, true, &behind(kind, &icmp6(kind))))),
    );
    add(Dropped, "router advertisements and redirects", routing);
    add(
        Dropped,
        "multicast listener queries, and ICMPv6 of any other type",
        vec![
            listener(OWN_LINK_LOCAL, 130),
            own(ICMP6, &icmp6(130)),
            own(ICMP6, &icmp6(138)),
            own(ICMP6, &icmp6(140)),
            own(ICMP6, &icmp6(142)),
            own(ICMP6, &icmp6(151)),
        ],
    );
    let mut short = ip6(OWN6, UDP, &udp);
    short.truncate(50);
    let mut bad_version = ip6(OWN6, UDP, &udp);
    bad_version[0] = 0x40;
    let mut long_options = behind(UDP, &udp);
    long_options[1] = 200;
    add(
        Dropped,
        "IPv6 that is cut short, or whose headers cannot be followed",
        vec![
            frame(IP6, &short),
            frame(IP6, &short[..39]),
            frame(IP6, &short[..20]),
            frame(IP6, &[]),
            frame(IP6, &bad_version),
            own(DESTINATION_OPTIONS, &[UDP, 0, 1]),
            own(AH, &authenticated(UDP, &udp)),
            own(FRAGMENT, &fragment(DESTINATION_OPTIONS, 0, true, &long_options)),
        ],
    );
}

fn neighbour_rows(add: &mut Add<'_>) {
    let icmp = |source, message: &[u8]| frame(IP6, &ip6(source, ICMP6, message));
    let solicit =
        |source, target, options: &[u8]| icmp(source, &neighbour(SOLICITATION, target, options));
    let advertise =
        |source, target, options: &[u8]| icmp(source, &neighbour(ADVERTISEMENT, target, options));
    add(
        Allowed,
        "a neighbour advertisement for an own address",
        vec![
            advertise(OWN6, OWN6, &target_option(MAC)),
            advertise(OWN_LINK_LOCAL, OWN6, &target_option(MAC)),
            advertise(OWN_LINK_LOCAL, OWN_LINK_LOCAL, &[]),
            advertise(OWN6, "fd00:1::5", &[]),
        ],
    );
    add(
        Allowed,
        "a neighbour solicitation from an own address, for any address",
        vec![
            solicit(OWN6, FOREIGN6, &source_option(MAC)),
            solicit(OWN_LINK_LOCAL, GATEWAY, &source_option(MAC)),
            solicit(OWN_LINK_LOCAL, GATEWAY, &[]),
        ],
    );
    add(
        Allowed,
        "a neighbour solicitation from `::` for an own address",
        vec![
            solicit("::", OWN6, &[]),
            solicit("::", OWN_LINK_LOCAL, &nonce()),
            solicit("::", "fd00:1::5", &nonce()),
        ],
    );
    add(
        Allowed,
        "a router solicitation",
        vec![
            icmp(OWN_LINK_LOCAL, &router_solicitation(&source_option(MAC))),
            icmp(OWN_LINK_LOCAL, &router_solicitation(&[])),
            icmp("::", &router_solicitation(&[])),
        ],
    );
    add(
        Dropped,
        "a neighbour advertisement for another address",
        vec![
            advertise(OWN6, FOREIGN6, &target_option(MAC)),
            advertise(OWN_LINK_LOCAL, FOREIGN6, &[]),
            advertise(OWN6, GATEWAY, &target_option(MAC)),
            advertise(OWN_LINK_LOCAL, GATEWAY, &[]),
            advertise(GATEWAY, GATEWAY, &target_option(MAC)),
            advertise("::", OWN6, &[]),
        ],
    );
    let forged = neighbour(ADVERTISEMENT, GATEWAY, &target_option(MAC));
    let own = neighbour(ADVERTISEMENT, OWN6, &target_option(MAC));
    let mut hidden = Vec::new();
    for message in [&forged, &own] {
        let behind_icmp = behind(ICMP6, message);
        let packets = [
            (HOP_BY_HOP, behind_icmp.clone()),
            (DESTINATION_OPTIONS, behind_icmp.clone()),
            (ROUTING, routed(ICMP6, message)),
            (AH, authenticated(ICMP6, message)),
            (HOP_BY_HOP, behind(DESTINATION_OPTIONS, &behind_icmp)),
            (DESTINATION_OPTIONS, behind(FRAGMENT, &fragment(ICMP6, 0, false, message))),
        ];
        hidden.extend(packets.map(|(next, payload)| frame(IP6, &ip6(OWN6, next, &payload))));
    }
    // The end of the target stands where the option of a message without such a header does.
    let crafted = neighbour(SOLICITATION, "fe80::101:16:3e00:1", &[]);
    let crafted = behind(ICMP6, &crafted);
    hidden.push(frame(IP6, &ip6(OWN6, DESTINATION_OPTIONS, &crafted)));
    add(Dropped, "neighbour discovery behind extension headers", hidden);
    let fragments = |message: &[u8]| {
        [
            fragment(ICMP6, 0, false, message),
            fragment(ICMP6, 0, true, message),
            fragment(ICMP6, 0, true, &message[..8]),
            // The message would come in another fragment.
            fragment(DESTINATION_OPTIONS, 0, true, &behind(ICMP6, &[])),
            fragment(FRAGMENT, 0, false, &fragment(ICMP6, 0, true, message)),
        ]
        .map(|payload| frame(IP6, &ip6(OWN6, FRAGMENT, &payload)))
    };
    add(
        Dropped,
        "neighbour discovery in fragments",
        [fragments(&forged), fragments(&own)].concat(),
    );
    add(
        Dropped,
        "a neighbour solicitation from another address, or from `::` for another",
        vec![
            solicit(FOREIGN6, OWN6, &source_option(MAC)),
            solicit(GATEWAY, OWN6, &source_option(MAC)),
            solicit("::", FOREIGN6, &[]),
            solicit("::", GATEWAY, &nonce()),
        ],
    );
    let twice = [target_option(MAC), target_option(FOREIGN_MAC)].concat();
    let nonce_first = [nonce(), target_option(FOREIGN_MAC)].concat();
    let mut short = neighbour(ADVERTISEMENT, OWN6, &target_option(FOREIGN_MAC));
    short.truncate(28);
    add(
        Dropped,
        "neighbour discovery with another MAC address, or with more than one option",
        vec![
            advertise(OWN6, OWN6, &target_option(FOREIGN_MAC)),
            advertise(OWN6, OWN6, &source_option(MAC)),
            advertise(OWN6, OWN6, &twice),
            advertise(OWN6, OWN6, &nonce_first),
            solicit(OWN6, FOREIGN6, &source_option(FOREIGN_MAC)),
            solicit(OWN6, FOREIGN6, &[source_option(MAC), nonce()].concat()),
            solicit("::", OWN6, &source_option(MAC)),
            icmp(OWN_LINK_LOCAL, &router_solicitation(&source_option(FOREIGN_MAC))),
            icmp("::", &router_solicitation(&source_option(MAC))),
            icmp(OWN6, &short),
        ],
    );
}

fn ethernet_rows(add: &mut Add<'_>) {
    let udp4 = ip4(OWN, UDP, &ports(1000, 2000));
    let udp6 = ip6(OWN6, UDP, &ports(1000, 2000));
    let reply = arp_packet(REPLY, MAC, OWN, FOREIGN);
    let honest = [frame(IP4, &udp4), frame(IP6, &udp6), frame(ARP, &reply)];
    add(
        Dropped,
        "another MAC address as the frame's source",
        vec![
            from(FOREIGN_MAC, IP4, &udp4),
            from(FOREIGN_MAC, IP6, &udp6),
            from(FOREIGN_MAC, ARP, &reply),
        ],
    );
    let mut tags: Vec<Frame> = Vec::new();
    for frame in &honest {
        tags.push(tagged(0x8100, 10, frame));
        tags.push(tagged(0x8100, 0, frame));
        tags.push(tagged(0x88a8, 10, frame));
        tags.push(tagged(0x8100, 10, &tagged(0x8100, 20, frame)));
        tags.push(tagged(0x88a8, 10, &tagged(0x8100, 0, frame)));
    }
    add(Dropped, "a VLAN tag: 802.1Q, 802.1ad, of a priority alone, or two", tags);
    let mut others: Vec<Frame> = Vec::new();
    // RARP, LLDP, MPLS, PPPoE, EAPOL, MACsec, and a type that nobody has.
    for kind in [0x8035, 0x88cc, 0x8847, 0x8864, 0x888e, 0x88e5, 0x9999] {
        others.push(frame(kind, &udp4));
        others.push(frame(kind, &[0; 46]));
    }
    add(Dropped, "any other type of frame: LLDP, RARP, MPLS, PPPoE, …", others);
    let bpdu = [&[0x42, 0x42, 3][..], &[0; 35]].concat();
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x00][..], &udp4].concat();
    let snap_length = u16::try_from(snap.len()).unwrap();
    add(
        Dropped,
        "802.3 frames with LLC: spanning tree, SNAP",
        vec![frame(38, &bpdu), frame(snap_length, &snap)],
    );
}
