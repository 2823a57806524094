//! Frames as guests send them, honest and forged. Checksums are left out: no filter looks at them.

pub(crate) type Mac = [u8; 6];
pub(crate) type Frame = Vec<u8>;

/// The guest's own.
pub(crate) const MAC: Mac = [0x00, 0x16, 0x3e, 0x00, 0x00, 0x01];
pub(crate) const FOREIGN_MAC: Mac = [0x00, 0x16, 0x3e, 0x00, 0x00, 0x02];
/// The test puts a number here by which it knows the frame again; all go to everybody.
const DESTINATION: Mac = [0; 6];

pub(crate) const IP4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IP6: u16 = 0x86dd;

pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ESP: u8 = 50;
pub(crate) const ICMP6: u8 = 58;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AH: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

pub(crate) const ROUTER_SOLICITATION: u8 = 133;
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(crate) const SOLICITATION: u8 = 135;
pub(crate) const ADVERTISEMENT: u8 = 136;
pub(crate) const REDIRECT: u8 = 137;

pub(crate) fn frame(kind: u16, payload: &[u8]) -> Frame {
    from(MAC, kind, payload)
}

pub(crate) fn from(source: Mac, kind: u16, payload: &[u8]) -> Frame {
    [&DESTINATION[..], &source, &kind.to_be_bytes(), payload].concat()
}

/// The frame with a tag of a VLAN: 0 is no VLAN, but a priority.
pub(crate) fn tagged(kind: u16, vlan: u16, frame: &[u8]) -> Frame {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &kind.to_be_bytes(), &(0x2000 | vlan).to_be_bytes(), rest].concat()
}

pub(crate) fn arp(operation: u16, mac: Mac, sender: &str, target: &str) -> Frame {
    frame(ARP, &arp_packet(operation, mac, sender, target))
}

pub(crate) fn arp_packet(operation: u16, mac: Mac, sender: &str, target: &str) -> Vec<u8> {
    let kinds = [0, 1, 0x08, 0x00, 6, 4];
    [&kinds[..], &operation.to_be_bytes(), &mac, &four(sender), &[0; 6], &four(target)].concat()
}

/// A packet of IPv4 that is whole.
pub(crate) fn ip4(source: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip4_with(source, protocol, 0, &[], payload)
}

/// `fragment`: flags and offset. `options`: a multiple of four bytes.
pub(crate) fn ip4_with(
    source: &str,
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let length = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let mut packet = vec![0x40 | words, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(four(source));
    packet.extend([10, 1, 0, 9]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

pub(crate) fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    header.extend([0, 24, 0, 0]);
    header.extend([0xaa; 16]);
    header
}

/// A packet of IPv6.
pub(crate) fn ip6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(six(source));
    packet.extend(six("ff02::1"));
    packet.extend(payload);
    packet
}

/// A header of eight bytes, with padding for its options, before the payload.
pub(crate) fn behind(next: u8, payload: &[u8]) -> Vec<u8> {
    [&[next, 0, 1, 4, 0, 0, 0, 0][..], payload].concat()
}

/// A routing header of a type that has nothing left to visit.
pub(crate) fn routed(next: u8, payload: &[u8]) -> Vec<u8> {
    [&[next, 0, 4, 0, 0, 0, 0, 0][..], payload].concat()
}

/// An authentication header, of 24 bytes.
pub(crate) fn authenticated(next: u8, payload: &[u8]) -> Vec<u8> {
    [&[next, 4][..], &[0; 22], payload].concat()
}

/// A fragment; `offset` in bytes.
pub(crate) fn fragment(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    [&[next, 0, high, low, 0, 0, 0x12, 0x34][..], payload].concat()
}

pub(crate) fn icmp6(kind: u8) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], &[0; 20]].concat()
}

/// Of a neighbour: a solicitation or an advertisement.
pub(crate) fn neighbour(kind: u8, target: &str, options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &six(target), options].concat()
}

pub(crate) fn router_solicitation(options: &[u8]) -> Vec<u8> {
    [&[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], options].concat()
}

pub(crate) fn source_option(mac: Mac) -> Vec<u8> {
    [&[1, 1][..], &mac].concat()
}

pub(crate) fn target_option(mac: Mac) -> Vec<u8> {
    [&[2, 1][..], &mac].concat()
}

pub(crate) fn nonce() -> Vec<u8> {
    vec![14, 1, 1, 2, 3, 4, 5, 6]
}

/// A report to multicast routers, behind the hop-by-hop header that it has to have.
pub(crate) fn listener(source: &str, kind: u8) -> Frame {
    let router_alert = [ICMP6, 0, 5, 2, 0, 0, 1, 0];
    let report = [&router_alert[..], &icmp6(kind)].concat();
    frame(IP6, &ip6(source, HOP_BY_HOP, &report))
}

fn four(address: &str) -> [u8; 4] {
    address.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

fn six(address: &str) -> [u8; 16] {
    address.parse::<std::net::Ipv6Addr>().unwrap().octets()
}
