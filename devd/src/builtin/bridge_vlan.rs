//! VLANs of a bridge's port: what the node `vlan` asks for, and what the kernel has.
//!
//! Source: `docs/man/xl-network-configuration.5.pod.in` of Xen for the node,
//! `include/uapi/linux/if_bridge.h` and `rtnetlink.h` for the kernel.

use std::collections::BTreeMap;
use std::io;

use super::failure::Failure;
use super::link::{IFLA_AF_SPEC, IFLA_EXT_MASK, LINK_HEADER, Links, RTM_GETLINK, RTM_SETLINK};
use super::link::{link_header, u32_or_malformed};
use super::netlink::{MALFORMED, Message, attributes, u16_at};
use crate::shown;

const RTM_DELLINK: u16 = 17;
const AF_BRIDGE: u8 = 7;
const RTEXT_FILTER_BRVLAN: u32 = 2;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;

const FLAG_PVID: u16 = 2;
const FLAG_UNTAGGED: u16 = 4;
const FLAG_RANGE_BEGIN: u16 = 8;
const FLAG_RANGE_END: u16 = 16;

/// The smallest and the largest number of a VLAN.
const FIRST: u16 = 1;
const LAST: u16 = 4094;

/// How a port belongs to a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// Frames have a tag.
    Tagged,
    /// Frames leave by this port without a tag.
    Untagged,
    /// The same, and frames that come without a tag belong to this VLAN.
    Pvid,
}

impl Membership {
    const fn flags(self) -> u16 {
        match self {
            Self::Tagged => 0,
            Self::Untagged => FLAG_UNTAGGED,
            Self::Pvid => FLAG_PVID | FLAG_UNTAGGED,
        }
    }

    const fn of(flags: u16) -> Self {
        if flags & FLAG_PVID != 0 {
            Self::Pvid
        } else if flags & FLAG_UNTAGGED != 0 {
            Self::Untagged
        } else {
            Self::Tagged
        }
    }
}

/// The VLANs of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vlans(BTreeMap<u16, Membership>);

impl Vlans {
    /// Reads the value of a `vlan` node: terms with slashes between them, each of them `10`,
    /// `10-20` or `10+5x3` (10, 15, 20 and 25), with a `u` behind it for untagged VLANs, or behind
    /// a single one a `p` for the PVID.
    ///
    /// # Errors
    ///
    /// The value is none, or does not name one PVID.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, Failure> {
        let refused = |why: &str| {
            let shown = shown::value(value);
            Failure::new(format!("vlan is \"{shown}\", {why}: correct it in the guest's config"))
        };
        let terms: Option<Vec<Term>> =
            std::str::from_utf8(value).ok().and_then(|text| text.split('/').map(term).collect());
        let terms = terms.ok_or_else(|| {
            refused("which is not like 10p/20/30-40: numbers from 1 to 4094 with slashes between")
        })?;
        let mut vlans = BTreeMap::new();
        for Term { numbers, membership } in &terms {
            for number in numbers {
                if vlans.insert(*number, *membership).is_some() {
                    return Err(refused(&format!("which names VLAN {number} twice")));
                }
            }
        }
        let pvids = vlans.values().filter(|membership| **membership == Membership::Pvid).count();
        if let (0, 1, Some(mut only)) = (pvids, vlans.len(), vlans.first_entry()) {
            only.insert(Membership::Pvid);
        } else if pvids != 1 {
            return Err(refused("which must mark one VLAN as the PVID, as in 10p/20"));
        }
        Ok(Self(vlans))
    }

    /// Reads what the kernel says of a port of a bridge.
    pub(super) fn parse_port(body: &[u8]) -> io::Result<(u32, Self)> {
        let (header, rest) = body.split_at_checked(LINK_HEADER).ok_or(MALFORMED)?;
        let index = u32_or_malformed(header, 4)?;
        let mut vlans = BTreeMap::new();
        for attribute in attributes(rest) {
            let (kind, value) = attribute?;
            if kind != IFLA_AF_SPEC {
                continue;
            }
            for attribute in attributes(value) {
                let (kind, info) = attribute?;
                if kind == IFLA_BRIDGE_VLAN_INFO {
                    let flags = u16_at(info, 0).ok_or(MALFORMED)?;
                    let number = u16_at(info, 2).ok_or(MALFORMED)?;
                    vlans.insert(number, Membership::of(flags));
                }
            }
        }
        Ok((index, Self(vlans)))
    }

    /// A request about these VLANs of a port; those that follow each other and are of one kind
    /// are one range.
    fn message(&self, kind: u16, index: u32) -> Message {
        let mut message = Message::new(kind, 0, &bridge_header(index));
        message.nest(IFLA_AF_SPEC, |message| {
            for (first, last, membership) in self.ranges() {
                let mut put = |flags: u16, number: u16| {
                    let info = [(membership.flags() | flags).to_ne_bytes(), number.to_ne_bytes()];
                    message.put(IFLA_BRIDGE_VLAN_INFO, &info.concat());
                };
                if first == last {
                    put(0, first);
                } else {
                    put(FLAG_RANGE_BEGIN, first);
                    put(FLAG_RANGE_END, last);
                }
            }
        });
        message
    }

    fn ranges(&self) -> Vec<(u16, u16, Membership)> {
        let mut ranges: Vec<(u16, u16, Membership)> = Vec::new();
        for (number, membership) in &self.0 {
            match ranges.last_mut() {
                Some((_, last, of)) if *last + 1 == *number && of == membership => *last = *number,
                _ => ranges.push((*number, *number, *membership)),
            }
        }
        ranges
    }

    /// Those that are not among the others, or are in another way.
    fn without(&self, others: &Self) -> Self {
        let lacks =
            |(number, membership): &(&u16, &Membership)| others.0.get(number) != Some(membership);
        Self(self.0.iter().filter(lacks).map(|(number, of)| (*number, *of)).collect())
    }
}

/// A term of the node's value.
struct Term {
    numbers: Vec<u16>,
    membership: Membership,
}

fn term(text: &str) -> Option<Term> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let (text, membership) = match text.as_bytes().last()? {
        b'p' => (&text[..text.len() - 1], Membership::Pvid),
        b'u' => (&text[..text.len() - 1], Membership::Untagged),
        _ => (text, Membership::Tagged),
    };
    let numbers: Vec<u16> = if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (number(first)?, number(last)?);
        (first..=last).collect()
    } else if let Some((first, more)) = text.split_once('+') {
        let (step, count) = more.split_once('x')?;
        let (first, step, count) = (number(first)?, number(step)?, number(count)?);
        let last = u32::from(first) + u32::from(step) * u32::from(count);
        let last = u16::try_from(last).ok().filter(|last| *last <= LAST)?;
        (first..=last).step_by(usize::from(step)).collect()
    } else {
        vec![number(text)?]
    };
    let is_one = numbers.len() == 1 && text.bytes().all(|byte| byte.is_ascii_digit());
    let usable = !numbers.is_empty() && (membership != Membership::Pvid || is_one);
    usable.then_some(Term { numbers, membership })
}

/// The number of a VLAN.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (FIRST..=LAST).contains(number))
}

/// `struct ifinfomsg`, of the family of bridges.
fn bridge_header(index: u32) -> [u8; LINK_HEADER] {
    let mut header = link_header(index, 0, 0);
    header[0] = AF_BRIDGE;
    header
}

impl Links {
    /// Gives the port these VLANs and takes all others from it. True if that has changed
    /// something.
    pub(crate) fn set_vlans(&mut self, index: u32, wanted: &Vlans) -> io::Result<bool> {
        let present = self.vlans(index)?;
        let (surplus, missing) = (present.without(wanted), wanted.without(&present));
        // Those whose kind changes are set anew, and not taken away on the way.
        let gone = Vlans(
            surplus.0.into_iter().filter(|(number, _)| !wanted.0.contains_key(number)).collect(),
        );
        if !gone.0.is_empty() {
            self.0.change(gone.message(RTM_DELLINK, index))?;
        }
        if !missing.0.is_empty() {
            self.0.change(missing.message(RTM_SETLINK, index))?;
        }
        Ok(!gone.0.is_empty() || !missing.0.is_empty())
    }

    /// The VLANs of a port.
    fn vlans(&mut self, index: u32) -> io::Result<Vlans> {
        let mut message = Message::new(RTM_GETLINK, 0, &bridge_header(0));
        message.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN);
        let ports = self.0.list(message, |body| {
            let (of, vlans) = Vlans::parse_port(body)?;
            Ok((of == index).then_some(vlans))
        })?;
        Ok(ports.into_iter().next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::Membership::{Pvid, Tagged, Untagged};
    use super::*;

    fn parsed(text: &str) -> Vec<(u16, Membership)> {
        Vlans::parse(text.as_bytes())
            .unwrap_or_else(|why| panic!("{why:?}"))
            .0
            .into_iter()
            .collect()
    }

    #[test]
    fn terms_of_a_vlan_node_as_xl_documents_them() {
        assert_eq!(parsed("10"), [(10, Pvid)]);
        assert_eq!(parsed("10p/20"), [(10, Pvid), (20, Tagged)]);
        assert_eq!(
            parsed("10p/20u/30-32"),
            [(10, Pvid), (20, Untagged), (30, Tagged), (31, Tagged), (32, Tagged)]
        );
        let numbers = |text| parsed(text).into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers("10p/100+10x4"), [10, 100, 110, 120, 130, 140]);
        assert_eq!(numbers("1p/4094"), [1, 4094]);
    }

    #[test]
    fn vlan_node_without_one_pvid_is_refused_by_words() {
        for (text, words) in [
            ("10/20", "must mark one VLAN as the PVID"),
            ("10p/20p", "must mark one VLAN as the PVID"),
            ("10-12", "must mark one VLAN as the PVID"),
            ("10p/10", "names VLAN 10 twice"),
            ("10p/5-12", "names VLAN 10 twice"),
        ] {
            let failure = Vlans::parse(text.as_bytes()).unwrap_err();
            assert!(failure.words().contains(words), "{text}: {}", failure.words());
        }
        let bad = [
            "",
            "0",
            "4095",
            "ten",
            "10p/",
            "/10",
            "10-",
            "20-10p",
            "10-20p",
            "10+0x3",
            "10+5",
            "4000+90x3",
            "+5",
            "10pu",
            "10 20",
            "1e1",
            "\u{661}0",
        ];
        for text in bad {
            let failure = Vlans::parse(text.as_bytes()).unwrap_err();
            assert!(failure.words().contains("is not like 10p/20"), "{text}: {}", failure.words());
        }
        assert!(Vlans::parse(b"\xff").unwrap_err().words().contains("\\xff"));
    }

    #[test]
    fn request_for_vlans_is_laid_out_as_the_kernel_reads_it() {
        let vlans = Vlans::parse(b"10p/20-22/30u").unwrap();
        let mut message = vlans.message(RTM_SETLINK, 7);
        message.finish(1);
        let body = &message.bytes[16..];
        assert_eq!(body[..8], [AF_BRIDGE, 0, 0, 0, 7, 0, 0, 0]);
        let info = |flags: u16, number: u16| {
            let mut bytes = vec![8, 0, 2, 0];
            bytes.extend([flags.to_ne_bytes(), number.to_ne_bytes()].concat());
            bytes
        };
        let infos = [info(6, 10), info(8, 20), info(16, 22), info(4, 30)].concat();
        let spec = [&[36, 0, 26, 0x80][..], &infos[..]].concat();
        assert_eq!(body[LINK_HEADER..], spec);
    }

    #[test]
    fn vlans_of_a_port_are_read_as_they_are_written() {
        let vlans = Vlans::parse(b"10p/20/30u").unwrap();
        let mut message = vlans.message(16, 7);
        message.finish(1);
        assert_eq!(Vlans::parse_port(&message.bytes[16..]).unwrap(), (7, vlans));
    }

    #[test]
    fn vlan_that_changes_its_kind_is_among_those_to_set() {
        let present = Vlans::parse(b"1p/20").unwrap();
        let wanted = Vlans::parse(b"1/20p").unwrap();
        assert_eq!(wanted.without(&present), wanted);
        assert_eq!(present.without(&present), Vlans::default());
    }
}
