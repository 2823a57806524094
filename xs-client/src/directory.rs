//! The names of a node's children, when they do not fit one message.

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
        let offset = u32::try_from(list.offset).map_err(|_| ProtocolError::EndlessDirectory)?;
        let request = Request::DirectoryPart { path, offset };
        let progress = client.ask(tx_id, &request, |reply| match reply {
            Reply::DirectoryPart { generation, names } => Some(list.take(generation, names)),
            _ => None,
        });
        match progress {
            Ok(Progress::Complete) => return Ok(list.names),
            Ok(Progress::More) if list.offset <= LIST_MAX => {}
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

/// What a part did to a list.
enum Progress {
    /// It was the last.
    Complete,
    /// More is to come.
    More,
    /// It had nothing, not even the list's end.
    Stuck,
    /// It is of another generation than those before.
    Changed,
}

/// The parts that have come.
#[derive(Default)]
struct PartialList {
    generation: Option<Vec<u8>>,
    names: Vec<Vec<u8>>,
    /// Bytes of the list that have come: where the next part begins.
    offset: usize,
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
        // Every name has its NUL, the last one too; what is behind that is no name.
        let names = part.strip_suffix(b"\0").unwrap_or(part);
        for name in names.split(|byte| *byte == 0) {
            if name.is_empty() {
                return Progress::Complete;
            }
            self.names.push(name.to_vec());
            self.offset += name.len() + 1;
        }
        Progress::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(parts: &[&[u8]]) -> (Vec<Vec<u8>>, usize, bool) {
        let mut list = PartialList::default();
        let complete = parts.iter().any(|part| matches!(list.take(b"1", part), Progress::Complete));
        (list.names, list.offset, complete)
    }

    #[test]
    fn parts_make_one_list() {
        let names = ["a", "bc", "d"].map(|name| name.as_bytes().to_vec()).to_vec();
        assert_eq!(list(&[b"a\0bc\0", b"d\0\0"]), (names.clone(), 7, true));
        assert_eq!(list(&[b"a\0bc\0d\0", b"\0"]), (names.clone(), 7, true));
        assert_eq!(list(&[b"a\0bc\0d\0"]), (names, 7, false));
        assert_eq!(list(&[b"\0"]), (vec![], 0, true));
    }

    #[test]
    fn a_part_of_another_generation_is_told() {
        let mut list = PartialList::default();
        assert!(matches!(list.take(b"1", b"a\0"), Progress::More));
        assert!(matches!(list.take(b"2", b"b\0"), Progress::Changed));
    }

    #[test]
    fn a_part_with_nothing_in_it_does_not_count_as_progress() {
        assert!(matches!(PartialList::default().take(b"1", b""), Progress::Stuck));
    }
}
