//! What the kernel says over netlink, spoiled in every way: an error, or something that could
//! have been said; never a panic, and never without an end.

use std::io;

use super::bridge_vlan::Vlans;
use super::link::{ADDRESS_HEADER, Address, LINK_HEADER, Link};
use super::netlink::{ALIGN, HEADER, Message, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, take_in};

const NUMBER: u32 = 7;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;

type Parse = fn(&[u8]) -> io::Result<()>;

/// A list of interfaces: one in a bridge that answers for others, and a bridge that filters VLANs.
fn links() -> Vec<u8> {
    let mut message = Message::new(RTM_NEWLINK, 0, &[1; LINK_HEADER]);
    message.put_name(3, "vif3.0").put_u32(4, 1500).put_u32(10, 2).put(1, &[0xfe; 6]);
    message.nest(26, |families| {
        families.nest(2, |settings| {
            settings.put(1, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        });
    });
    message.begin(RTM_NEWLINK, 0, &[2; LINK_HEADER]);
    message.put_name(3, "xenbr0").put_u32(4, 1500).nest(18, |info| {
        info.put_name(1, "bridge").nest(2, |bridge| {
            bridge.put(7, &[1]);
        });
    });
    ended(message)
}

/// The VLANs of two ports of a bridge.
fn vlans() -> Vec<u8> {
    let mut message = Message::new(RTM_NEWLINK, 0, &[7; LINK_HEADER]);
    for vlans in [&[[6, 0, 10, 0], [0, 0, 20, 0]][..], &[[6, 0, 1, 0]]] {
        message.nest(26, |ports| {
            for vlan in vlans {
                ports.put(2, vlan);
            }
        });
        message.begin(RTM_NEWLINK, 0, &[8; LINK_HEADER]);
    }
    ended(message)
}

fn addresses() -> Vec<u8> {
    let mut message = Message::new(RTM_NEWADDR, 0, &[2; ADDRESS_HEADER]);
    message.put(1, &[10, 0, 0, 1]).put(2, &[10, 0, 0, 1]).put_name(3, "lo");
    message.begin(RTM_NEWADDR, 0, &[10; ADDRESS_HEADER]);
    message.put(1, &[0xfd; 16]);
    ended(message)
}

fn ended(mut list: Message) -> Vec<u8> {
    list.begin(NLMSG_DONE, 0, &0_i32.to_ne_bytes());
    list.finish(NUMBER);
    list.bytes
}

/// One to a batch of nftables, which has some.
fn acknowledgement(code: i32) -> Vec<u8> {
    let body = [&code.to_ne_bytes()[..], &[3; HEADER]].concat();
    let mut message = Message::new(NLMSG_ERROR, 0, &body);
    message.finish(NUMBER);
    message.bytes
}

fn replies() -> [(Vec<u8>, Parse); 4] {
    [
        (vlans(), |body| Vlans::parse_port(body).map(drop)),
        (links(), |body| Link::parse(body).map(drop)),
        (addresses(), |body| Address::parse(body).map(drop)),
        (acknowledgement(0), |_| Ok(())),
    ]
}

/// True if the exchange is over; how many messages it had before.
fn hear(received: &[u8], parse: Parse) -> (io::Result<bool>, usize) {
    let mut bodies = 0;
    let over = take_in(received, NUMBER, &mut false, &mut |body| {
        bodies += 1;
        parse(body)
    });
    (over, bodies)
}

/// Where messages begin, and where the last ends.
fn borders(mut reply: &[u8]) -> Vec<usize> {
    let (mut borders, len) = (vec![0], reply.len());
    while let Some((length, _)) = reply.split_first_chunk() {
        reply = &reply[u32::from_ne_bytes(*length) as usize..];
        borders.push(len - reply.len());
    }
    borders
}

#[test]
fn what_is_whole_is_heard() {
    for ((reply, parse), expected) in replies().into_iter().zip([3, 2, 2, 0]) {
        let (over, bodies) = hear(&reply, parse);
        assert_eq!((over.unwrap(), bodies), (true, expected));
    }
}

#[test]
fn settings_of_bridges_and_interfaces_are_read() {
    let mut found = Vec::new();
    take_in(&links(), NUMBER, &mut false, &mut |body| {
        let link = Link::parse(body)?;
        found.push((link.name, link.is_bridge, link.filters_vlans, link.proxy_arp));
        Ok(())
    })
    .unwrap();
    let expected = [("vif3.0".into(), false, false, true), ("xenbr0".into(), true, true, false)];
    assert_eq!(found, expected);
}

#[test]
fn a_refusal_is_the_error_that_it_names() {
    let refused = |code| hear(&acknowledgement(code), |_| Ok(())).0.unwrap_err().raw_os_error();
    assert_eq!(refused(-libc::ENOENT), Some(libc::ENOENT));
    for none in [1, -4096, i32::MIN] {
        assert_eq!(refused(none), Some(libc::EBADMSG), "{none}");
    }
}

#[test]
fn a_list_that_ends_with_an_error_is_one() {
    let mut list = links();
    let end = list.len() - 4;
    list[end..].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
    assert_eq!(hear(&list, |_| Ok(())).0.unwrap_err().raw_os_error(), Some(libc::ENODEV));
}

#[test]
fn a_list_that_has_changed_meanwhile_says_so_in_any_of_its_messages() {
    let changed = |list: &[u8]| {
        let mut changed = false;
        take_in(list, NUMBER, &mut changed, &mut |_| Ok(())).unwrap();
        changed
    };
    assert!(!changed(&links()));
    for border in borders(&links()).into_iter().filter(|border| *border < links().len()) {
        let mut list = links();
        list[border + 6..border + 8].copy_from_slice(&NLM_F_DUMP_INTR.to_ne_bytes());
        assert!(changed(&list), "at {border}");
    }
}

#[test]
fn what_is_cut_short_is_an_error() {
    for (reply, parse) in replies() {
        let borders = borders(&reply);
        for cut in 0..reply.len() {
            let (over, _) = hear(&reply[..cut], parse);
            let whole = cut > 0 && borders.contains(&cut);
            assert_eq!(over.ok(), whole.then_some(false), "{cut} of {} bytes", reply.len());
        }
    }
}

#[test]
fn a_length_that_cannot_be_is_an_error() {
    for (reply, parse) in replies() {
        let left = u32::try_from(reply.len()).unwrap();
        for length in (0..16).chain(left + 1..left + 100).chain([1 << 31, u32::MAX - 2, u32::MAX]) {
            let mut reply = reply.clone();
            reply[..4].copy_from_slice(&length.to_ne_bytes());
            hear(&reply, parse).0.expect_err("a length that cannot be");
        }
    }
    // An attribute's: behind the headers of the message and of its family.
    let (at, left) = (HEADER + LINK_HEADER, borders(&links())[1] - HEADER - LINK_HEADER);
    for length in (0..4).chain(left + 1..left + 100).chain([0x8000, 0xffff]) {
        let mut reply = links();
        reply[at..at + 2].copy_from_slice(&u16::try_from(length).unwrap().to_ne_bytes());
        hear(&reply, |body| Link::parse(body).map(drop)).0.expect_err("a length that cannot be");
    }
}

/// Numbers that look like chance, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    /// One that means something as a length, or a kind.
    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 10] = [0, 1, 2, 3, 4, 8, 16, 0x7f, 0x80, 0xff];
        let any = u8::try_from(self.below(256)).unwrap();
        if self.below(2) == 0 { TELLING[self.below(TELLING.len())] } else { any }
    }

    /// The same with something changed, cut out, put in, or cut off.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..bytes.len().min(at + self.below(20)))),
                2 => {
                    let piece = bytes[at..bytes.len().min(at + self.below(40))].to_owned();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                // Lengths are where a multiple of four is.
                3..=5 => bytes[at / ALIGN * ALIGN] = self.byte(),
                _ => bytes[at] = self.byte(),
            }
        }
    }
}

#[test]
fn whatever_is_said_is_heard_to_its_end() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut errors, mut whole) = (0, 0);
    for _ in 0..100_000 {
        for (mut reply, parse) in replies() {
            chance.spoil(&mut reply);
            let (over, bodies) = hear(&reply, parse);
            assert!(bodies <= reply.len() / HEADER, "{bodies} messages in {} bytes", reply.len());
            if over.is_ok() { whole += 1 } else { errors += 1 }
        }
    }
    // Both are common: what is made is neither nonsense only nor hardly changed.
    assert!(errors > 50_000 && whole > 50_000, "{errors} errors, {whole} whole");
}
