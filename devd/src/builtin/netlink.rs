//! Netlink, as far as the hooks need it: requests with their acknowledgements, and lists.
//!
//! Source: `include/uapi/linux/netlink.h`. Numbers are in the machine's byte order, messages
//! and attributes begin at multiples of four bytes.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

use nix::errno::Errno;

use crate::descriptor;

pub(super) const HEADER: usize = 16;
pub(super) const ALIGN: usize = 4;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// What is listed has changed meanwhile: the list may lack what was there all the time.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
/// The thing to be made may be there already, and is changed then.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
/// The thing to be made must not be there.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// The thing is made if it is not there.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// It goes behind those that are there.
pub(crate) const NLM_F_APPEND: u16 = 0x800;

/// The largest number of an error (`include/linux/err.h`).
const MAX_ERRNO: i32 = 4095;
/// How often a list is asked for that changes while it is told.
const LIST_TRIES: u32 = 16;
/// What the kernel has sent is not netlink, or not all of it.
pub(crate) const MALFORMED: Errno = Errno::EBADMSG;

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request, or several that are to be carried out together.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
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

    /// The attributes alone, of a message that was begun without a request.
    pub(crate) fn into_attributes(self) -> Vec<u8> {
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// Fills in the lengths of all requests, and their number, which is the same.
    pub(crate) fn finish(&mut self, number: u32) {
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
    pub(crate) fn change(&mut self, message: Message) -> io::Result<()> {
        self.get(message, |_| Ok(()))
    }

    /// Has requests carried out that belong together: all of them, or none.
    pub(crate) fn change_all(&mut self, mut message: Message) -> io::Result<()> {
        let acknowledgements = message.acknowledgements();
        self.send(&mut message)?;
        for _ in 0..acknowledgements {
            self.hear(|_| Ok(()))?;
        }
        Ok(())
    }

    /// Asks for one thing; `found` is given what the answer has behind the header.
    pub(crate) fn get(
        &mut self,
        mut message: Message,
        found: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        message.set_flags(NLM_F_ACK);
        self.send(&mut message)?;
        self.hear(found).map(drop)
    }

    /// Asks for a list, of which `entry` reads each entry; those that it gives `None` for are
    /// left out.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: it has changed each time that it was told.
    pub(crate) fn list<T>(
        &mut self,
        mut message: Message,
        entry: impl Fn(&[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        message.set_flags(NLM_F_DUMP);
        for _ in 0..LIST_TRIES {
            let mut entries = Vec::new();
            self.send(&mut message)?;
            let changed = self.hear(|body| {
                entries.extend(entry(body)?);
                Ok(())
            })?;
            if !changed {
                return Ok(entries);
            }
        }
        Err(Errno::EAGAIN.into())
    }

    fn send(&mut self, message: &mut Message) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        message.finish(self.number);
        // One write is one message, however long: the kernel takes it whole or not at all.
        self.socket.write_all(&message.bytes)
    }

    /// Hears answers until the next acknowledgement, or the end of a list. True if that has
    /// changed while it was told.
    fn hear(&mut self, mut found: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let mut changed = false;
        loop {
            let len = self.receive()?;
            if take_in(&self.buffer[..len], self.number, &mut changed, &mut found)? {
                return Ok(changed);
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

/// Hands out what was received of the exchange of this number. True if that is over. `changed` is
/// set if it is a list that has changed meanwhile.
pub(super) fn take_in(
    received: &[u8],
    number: u32,
    changed: &mut bool,
    found: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut rest = received;
    // What has nothing in it would be waited for again and again.
    loop {
        let (header, body) = message(&mut rest)?;
        // Another's is what is left of an exchange that was given up.
        if header.number == number {
            *changed |= header.flags & NLM_F_DUMP_INTR != 0;
            match header.kind {
                NLMSG_ERROR | NLMSG_DONE => return acknowledged(body).map(|()| true),
                _ => found(body)?,
            }
        }
        if rest.is_empty() {
            return Ok(false);
        }
    }
}

/// The messages in what was received, each its kind and what is behind its header. One that is
/// malformed is the last.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let message = message(&mut bytes);
        if message.is_err() {
            bytes = &[];
        }
        Some(message.map(|(header, body)| (header.kind, body)))
    })
}

/// `struct nlmsghdr`, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    kind: u16,
    flags: u16,
    number: u32,
}

/// Takes off the first message: its header, and what is behind that.
fn message<'a>(bytes: &mut &'a [u8]) -> io::Result<(Header, &'a [u8])> {
    let len = u32_at(bytes, 0).and_then(|len| usize::try_from(len).ok());
    let message = take_off(bytes, len)?;
    let body = message.get(HEADER..).ok_or(MALFORMED)?;
    let header = || {
        let (kind, flags) = (u16_at(message, 4)?, u16_at(message, 6)?);
        Some(Header { kind, flags, number: u32_at(message, 8)? })
    };
    Ok((header().ok_or(MALFORMED)?, body))
}

/// What an acknowledgement, or the end of a list, says.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) if (-MAX_ERRNO..0).contains(&code) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(MALFORMED.into()),
    }
}

/// An attribute: its kind, and its value.
pub(crate) type Attribute<'a> = (u16, &'a [u8]);

/// The attributes in what is behind a family's header. One that is malformed is the last.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = io::Result<Attribute<'_>>> {
    raw_attributes(bytes).map(|attribute| {
        let (kind, value) = attribute?;
        Ok((kind & NLA_TYPE_MASK, value))
    })
}

/// The same, of a message that this program has made; true: the attribute holds others.
pub(crate) fn own_attributes(
    bytes: &[u8],
) -> impl Iterator<Item = io::Result<(Attribute<'_>, bool)>> {
    raw_attributes(bytes).map(|attribute| {
        let (kind, value) = attribute?;
        Ok(((kind & NLA_TYPE_MASK, value), kind & NLA_F_NESTED != 0))
    })
}

fn raw_attributes(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<Attribute<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let attribute = attribute(&mut bytes);
        if attribute.is_err() {
            bytes = &[];
        }
        Some(attribute)
    })
}

/// Takes off the first attribute: its kind with its flags, and its value.
fn attribute<'a>(bytes: &mut &'a [u8]) -> io::Result<Attribute<'a>> {
    let len = u16_at(bytes, 0).map(usize::from);
    let attribute = take_off(bytes, len)?;
    let kind = u16_at(attribute, 2).ok_or(MALFORMED)?;
    Ok((kind, attribute.get(4..).ok_or(MALFORMED)?))
}

/// Takes off so many bytes, and those that fill them up to a multiple of four.
fn take_off<'a>(bytes: &mut &'a [u8], len: Option<usize>) -> io::Result<&'a [u8]> {
    let taken = len.and_then(|len| bytes.get(..len)).ok_or(MALFORMED)?;
    *bytes = bytes.get(taken.len().next_multiple_of(ALIGN)..).unwrap_or_default();
    Ok(taken)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let mut message = Message::new(19, NLM_F_CREATE, &[1, 2, 3, 4]);
        message.put_name(3, "br0").nest(18, |message| {
            message.put(1, b"x");
        });
        message.set_flags(NLM_F_ACK);
        message.finish(7);
        let (header, body) = self::message(&mut &message.bytes[..]).unwrap();
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        assert_eq!(header, Header { kind: 19, flags, number: 7 });
        assert_eq!(body[..4], [1, 2, 3, 4]);
        let all = |bytes| attributes(bytes).collect::<Result<Vec<_>, _>>().unwrap();
        let found = all(&body[4..]);
        assert_eq!(found[0], (3, &b"br0\0"[..]));
        assert_eq!(found[1].0, 18);
        assert_eq!(all(found[1].1), [(1, &b"x"[..])]);
        assert_eq!(message.bytes.len() % ALIGN, 0);
    }

    #[test]
    fn a_socket_that_says_nothing_is_not_asked_again() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut netlink =
            Netlink { socket: OwnedFd::from(here).into(), number: 1, buffer: vec![0; 100] };
        drop(there);
        let error = netlink.hear(|_| Ok(())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADMSG));
    }

    #[test]
    fn a_list_that_has_changed_is_asked_for_again() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut netlink =
            Netlink { socket: OwnedFd::from(here).into(), number: 0, buffer: vec![0; 100] };
        for (number, flags) in [(1, NLM_F_DUMP_INTR), (2, 0)] {
            let mut list = Message::new(16, flags, &[number; 4]);
            list.begin(NLMSG_DONE, 0, &[0; 4]);
            list.finish(number.into());
            there.send(&list.bytes).unwrap();
        }
        let list = netlink.list(Message::new(18, 0, &[]), |body| Ok(body.first().copied()));
        assert_eq!(list.unwrap(), [2]);
    }
}
