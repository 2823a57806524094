//! Netlink, as far as the hooks need it: requests with their acknowledgements, and lists.
//!
//! Source: `include/uapi/linux/netlink.h`. Numbers are in the machine's byte order, messages
//! and attributes begin at multiples of four bytes.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

use nix::errno::Errno;

use crate::descriptor;

const HEADER: usize = 16;
const ALIGN: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// The thing to be made may be there already, and is changed then.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
/// The thing is made if it is not there.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// It goes behind those that are there.
pub(crate) const NLM_F_APPEND: u16 = 0x800;

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request, or several that are to be carried out together.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// Where each of the requests begins.
    starts: Vec<usize>,
}

impl Message {
    /// A request of this kind, with the header that its family wants.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut message = Self { bytes: Vec::with_capacity(128), starts: Vec::with_capacity(1) };
        message.begin(kind, flags, header);
        message
    }

    /// Ends the request before and begins another one.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) {
        self.starts.push(self.bytes.len());
        self.bytes.extend([0; 4]); // The length: when it is known.
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]); // The number, and who sends it.
        self.bytes.extend(header);
        self.pad();
    }

    /// The request that was begun last is to be acknowledged.
    pub(crate) fn acknowledge(&mut self) {
        self.set_flags(NLM_F_ACK);
    }

    /// Adds an attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = 4 + value.len();
        // Values are names and addresses: never near 64 KiB.
        self.bytes.extend(u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    /// Adds an attribute that is a name, which C ends with a NUL.
    pub(crate) fn put_name(&mut self, kind: u16, name: &str) -> &mut Self {
        self.put(kind, &[name.as_bytes(), b"\0"].concat())
    }

    /// Adds an attribute that is a number in the machine's byte order.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// The same in big-endian order.
    pub(crate) fn put_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds others.
    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.bytes.len();
        self.put(kind | NLA_F_NESTED, &[]);
        inner(self);
        let len = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// Fills in the lengths of all requests, and their number, which is the same.
    fn finish(&mut self, number: u32) {
        for (count, at) in self.starts.iter().enumerate() {
            let end = self.starts.get(count + 1).copied().unwrap_or(self.bytes.len());
            let len = u32::try_from(end - at).unwrap_or(u32::MAX);
            self.bytes[*at..at + 4].copy_from_slice(&len.to_ne_bytes());
            self.bytes[at + 8..at + 12].copy_from_slice(&number.to_ne_bytes());
        }
    }

    /// Adds to the flags of the request that was begun last.
    fn set_flags(&mut self, flags: u16) {
        let at = self.starts.last().map_or(0, |start| start + 6);
        let old = u16_at(&self.bytes, at).unwrap_or(0);
        self.bytes[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// How many acknowledgements are asked for.
    fn acknowledgements(&self) -> usize {
        let flags = |at: &&usize| u16_at(&self.bytes, **at + 6).unwrap_or(0);
        self.starts.iter().filter(|at| flags(at) & NLM_F_ACK != 0).count()
    }
}

/// A socket to one family of the kernel's netlink.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: File,
    number: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// `protocol`: `NETLINK_ROUTE` and the like.
    pub(crate) fn open(protocol: libc::c_int) -> io::Result<Self> {
        let socket = descriptor::netlink(protocol)?;
        descriptor::set_strict(&socket);
        // The kernel's longest message about an interface is about 2 KiB, a list's part 32 KiB.
        Ok(Self { socket: socket.into(), number: 0, buffer: vec![0; 32 * 1024] })
    }

    /// Has a request carried out.
    pub(crate) fn change(&mut self, mut message: Message) -> io::Result<()> {
        message.set_flags(NLM_F_ACK);
        self.exchange(message, |_| ())
    }

    /// Has requests carried out that belong together: all of them, or none.
    pub(crate) fn change_all(&mut self, message: Message) -> io::Result<()> {
        let acknowledgements = message.acknowledgements();
        self.send(message)?;
        for _ in 0..acknowledgements {
            self.hear(|_| ())?;
        }
        Ok(())
    }

    /// Asks for one thing; `found` is given what the answer has behind the header.
    pub(crate) fn get(&mut self, mut message: Message, found: impl FnMut(&[u8])) -> io::Result<()> {
        message.set_flags(NLM_F_ACK);
        self.exchange(message, found)
    }

    /// Asks for a list; `found` is given each of its entries.
    pub(crate) fn list(
        &mut self,
        mut message: Message,
        found: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        message.set_flags(NLM_F_DUMP);
        self.exchange(message, found)
    }

    fn exchange(&mut self, message: Message, found: impl FnMut(&[u8])) -> io::Result<()> {
        self.send(message)?;
        self.hear(found)
    }

    fn send(&mut self, mut message: Message) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        message.finish(self.number);
        // One write is one message, however long: the kernel takes it whole or not at all.
        self.socket.write_all(&message.bytes)
    }

    /// Hears answers until the next acknowledgement, or the end of a list.
    fn hear(&mut self, mut found: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let len = self.receive()?;
            for (kind, number, body) in messages(&self.buffer[..len]) {
                if number != self.number {
                    continue; // What is left of an exchange that was given up.
                }
                match kind {
                    NLMSG_ERROR => return acknowledged(body),
                    NLMSG_DONE => return Ok(()),
                    _ => found(body),
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match self.socket.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// The messages in what was received: kind, number, and what is behind the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let len = usize::try_from(u32_at(header, 0)?).ok()?;
        let body = bytes.get(HEADER..len)?;
        let kind = u16_at(header, 4)?;
        let number = u32_at(header, 8)?;
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, number, body))
    })
}

/// What an acknowledgement says.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(Errno::EBADMSG.into()),
    }
}

/// The attributes in what is behind a family's header.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let mut message = Message::new(19, NLM_F_CREATE, &[1, 2, 3, 4]);
        message.put_name(3, "br0").nest(18, |message| {
            message.put(1, b"x");
        });
        message.set_flags(NLM_F_ACK);
        message.finish(7);
        let (kind, number, body) = messages(&message.bytes).next().unwrap();
        assert_eq!((kind, number), (19, 7));
        assert_eq!(u16_at(&message.bytes, 6), Some(NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK));
        assert_eq!(body[..4], [1, 2, 3, 4]);
        let found: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(found[0], (3, &b"br0\0"[..]));
        assert_eq!(found[1].0, 18);
        assert_eq!(attributes(found[1].1).next(), Some((1, &b"x"[..])));
        assert_eq!(message.bytes.len() % ALIGN, 0);
    }

    #[test]
    fn what_is_cut_short_ends_the_list() {
        assert_eq!(messages(&[0; 15]).count(), 0);
        assert_eq!(messages(&[255; 16]).count(), 0);
        assert_eq!(messages(&[0; 16]).count(), 0, "a length of nothing");
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
    }
}
