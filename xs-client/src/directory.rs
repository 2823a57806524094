//! The names of a node's children, when they do not fit one message.

use alloc::vec::Vec;

use xs_proto::{ErrorCode, Reply, Request};

use crate::{Client, Error, ProtocolError};

/// How often to begin again because the node changed while its list was read. Each time takes
/// a change of the very node between two requests.
const RESTARTS: u32 = 32;

/// The longest list in bytes. The daemons' own quotas keep a node far below it.
const LIST_MAX: usize = 16 << 20;

/// Follows DIRECTORY_PART from the list's begin to its end, all of one generation.
///
/// A store without that request (`ENOSYS`) has said `E2BIG` to the plain one, and that is
/// what its answer remains.
pub(crate) fn in_parts(
    client: &mut Client,
    tx_id: u32,
    path: &[u8],
) -> Result<Vec<Vec<u8>>, Error> {
    let mut list = PartialList::default();
    let mut restarts = 0;
    loop {
        let offset =
            u32::try_from(list.bytes.len()).map_err(|_| ProtocolError::EndlessDirectory)?;
        let request = Request::DirectoryPart { path, offset };
        let progress = client.ask(tx_id, &request, |reply| match reply {
            Reply::DirectoryPart { generation, names } => Some(list.take(generation, names)),
            _ => None,
        });
        match progress {
            Ok(Progress::Complete) => return Ok(list.names()),
            Ok(Progress::More) if list.bytes.len() <= LIST_MAX => {}
            Ok(Progress::More | Progress::Stuck) => {
                return Err(ProtocolError::EndlessDirectory.into());
            }
            Ok(Progress::Changed) if restarts < RESTARTS => {
                restarts += 1;
                list = PartialList::default();
            }
            Ok(Progress::Changed) => return Err(Error::Refused(ErrorCode::Again)),
            Err(Error::Refused(ErrorCode::NoSys)) => {
                return Err(Error::Refused(ErrorCode::TooBig));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The effect of a part on its list.
enum Progress {
    /// The part was the last.
    Complete,
    /// More is to come.
    More,
    /// The part was empty: it had not even the list's end.
    Stuck,
    /// The part is of another generation than the parts before.
    Changed,
}

/// The parts that have come.
#[derive(Default)]
struct PartialList {
    generation: Option<Vec<u8>>,
    /// The list so far: each name with its NUL, and an empty name behind the last one. Parts are
    /// joined as bytes, because QEMU's store ends a part wherever its buffer is full, within a
    /// name too.
    bytes: Vec<u8>,
}

impl PartialList {
    fn take(&mut self, generation: &[u8], part: &[u8]) -> Progress {
        match &self.generation {
            None => self.generation = Some(generation.to_vec()),
            Some(first) if first == generation => {}
            Some(_) => return Progress::Changed,
        }
        if part.is_empty() {
            return Progress::Stuck;
        }
        // The end may lie on both sides of a cut.
        let from = self.bytes.len().saturating_sub(1);
        self.bytes.extend_from_slice(part);
        match self.bytes[from..].windows(2).position(|pair| pair == [0, 0]) {
            _ if self.bytes[0] == 0 => self.bytes.clear(),
            Some(at) => self.bytes.truncate(from + at + 1),
            None => return Progress::More,
        }
        Progress::Complete
    }

    /// The names of a complete list.
    fn names(&self) -> Vec<Vec<u8>> {
        let names = self.bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.map(<[u8]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(parts: &[&[u8]]) -> Option<Vec<String>> {
        let mut list = PartialList::default();
        let complete = parts.iter().any(|part| matches!(list.take(b"1", part), Progress::Complete));
        let text = |name| String::from_utf8(name).unwrap();
        complete.then(|| list.names().into_iter().map(text).collect())
    }

    #[test]
    fn parts_make_one_list_wherever_they_are_cut() {
        let whole = b"a\0bc\0d\0\0";
        for first in 1..whole.len() {
            for second in first..whole.len() {
                let parts = [&whole[..first], &whole[first..second], &whole[second..]];
                let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                assert_eq!(list(&parts).unwrap(), ["a", "bc", "d"], "{parts:?}");
            }
        }
        assert_eq!(list(&[b"\0"]).unwrap(), [""; 0]);
        assert_eq!(list(&[b"a\0bc\0d\0"]), None);
        assert_eq!(list(&[b"a\0b"]), None);
    }

    #[test]
    fn bytes_behind_the_end_of_the_list_are_no_names() {
        assert_eq!(list(&[b"a\0\0junk\0"]).unwrap(), ["a"]);
        assert_eq!(list(&[b"\0junk\0"]).unwrap(), [""; 0]);
    }

    #[test]
    fn part_of_another_generation_starts_the_list_anew() {
        let mut list = PartialList::default();
        assert!(matches!(list.take(b"1", b"a\0"), Progress::More));
        assert!(matches!(list.take(b"2", b"b\0"), Progress::Changed));
    }

    #[test]
    fn empty_part_is_no_progress() {
        assert!(matches!(PartialList::default().take(b"1", b""), Progress::Stuck));
    }
}
