//! Many requests at once.

use alloc::vec::Vec;
use core::ops::Range;

use xs_proto::{ErrorCode, MessageType, Path, Permission, PermissionList, Reply, Request};

use crate::Error;
use crate::connection::{Answer, Connection};
use crate::exchange::Exchange;

/// Requests to be sent together, and then their answers.
///
/// Fill it, [`run`](crate::Client::run) it, read it, [`clear`](Self::clear) it and use it
/// again: once it was as full as it gets, nothing is allocated any more, but for lists of
/// permissions.
///
/// A request that the store would refuse for its form is not sent, and is answered in its
/// stead: `EINVAL` for a path that is none, `E2BIG` for what does not fit a message.
///
/// The requests are answered in their order, but others' requests may come in between: use a
/// [`Transaction`](crate::Transaction) to prevent that.
#[derive(Debug, Default)]
pub struct Batch {
    entries: Vec<Entry>,
    /// The payloads of the requests, one behind the other.
    requests: Vec<u8>,
    /// The answers, one behind the other.
    replies: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    kind: MessageType,
    /// In `requests`.
    payload: Range<usize>,
    /// In `replies`, if it succeeded.
    reply: Result<Range<usize>, ErrorCode>,
}

/// The reply of an entry that was not answered before the connection was lost.
const UNANSWERED: ErrorCode = ErrorCode::Io;

impl Batch {
    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), requests: Vec::new(), replies: Vec::new() }
    }

    /// Forgets requests and answers, keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.requests.clear();
        self.replies.clear();
    }

    /// How many requests there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the question for a node's value; returns its index.
    pub fn read(&mut self, path: impl AsRef<[u8]>) -> usize {
        let path = path.as_ref();
        self.push(path, &Request::Read { path })
    }

    /// Adds the question for the names of a node's children, which
    /// [`Names`](xs_proto::Names) takes from the answer. `E2BIG` says that they do not fit
    /// one: ask [`Client::directory`](crate::Client::directory) then.
    pub fn directory(&mut self, path: impl AsRef<[u8]>) -> usize {
        let path = path.as_ref();
        self.push(path, &Request::Directory { path })
    }

    /// Adds the question for a node's permissions, which
    /// [`PermissionList`] takes from the answer.
    pub fn permissions(&mut self, path: impl AsRef<[u8]>) -> usize {
        let path = path.as_ref();
        self.push(path, &Request::GetPerms { path })
    }

    /// Adds the setting of a node's value.
    pub fn write(&mut self, path: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> usize {
        let path = path.as_ref();
        self.push(path, &Request::Write { path, value: value.as_ref() })
    }

    /// Adds the making of a node.
    pub fn mkdir(&mut self, path: impl AsRef<[u8]>) -> usize {
        let path = path.as_ref();
        self.push(path, &Request::Mkdir { path })
    }

    /// Adds the removal of a node and all below it.
    pub fn rm(&mut self, path: impl AsRef<[u8]>) -> usize {
        let path = path.as_ref();
        self.push(path, &Request::Rm { path })
    }

    /// Adds the setting of a node's permissions, the owner's first. An empty list is `EINVAL`.
    pub fn set_permissions(&mut self, path: impl AsRef<[u8]>, permissions: &[Permission]) -> usize {
        let mut list = Vec::new();
        permissions.iter().for_each(|permission| permission.emit(&mut list));
        let path = path.as_ref();
        match PermissionList::parse(&list) {
            Ok(permissions) => self.push(path, &Request::SetPerms { path, permissions }),
            Err(_) => self.push_refused(MessageType::SetPerms, ErrorCode::Inval),
        }
    }

    /// The answer to the request with this index: the bytes that were asked for, none if all
    /// that was asked is that something be done.
    ///
    /// # Errors
    ///
    /// Why the store refused. `EIO` if it was never asked, or the connection was lost before
    /// it answered: [`Client::run`](crate::Client::run) has failed then.
    pub fn reply(&self, index: usize) -> Result<&[u8], &ErrorCode> {
        match self.entries.get(index).map(|entry| &entry.reply) {
            Some(Ok(range)) => Ok(&self.replies[range.clone()]),
            Some(Err(code)) => Err(code),
            None => Err(&UNANSWERED),
        }
    }

    fn push(&mut self, path: &[u8], request: &Request<'_>) -> usize {
        if Path::new(path).is_err() {
            return self.push_refused(request.message_type(), ErrorCode::Inval);
        }
        let start = self.requests.len();
        request.emit(&mut self.requests);
        let payload = start..self.requests.len();
        self.entries.push(Entry { kind: request.message_type(), payload, reply: Err(UNANSWERED) });
        self.entries.len() - 1
    }

    fn push_refused(&mut self, kind: MessageType, code: ErrorCode) -> usize {
        self.entries.push(Entry { kind, payload: 0..0, reply: Err(code) });
        self.entries.len() - 1
    }

    /// The requests on their way, in a transaction unless `tx_id` is 0.
    pub(crate) fn start(&mut self, tx_id: u32) -> Running<'_> {
        self.replies.clear();
        for entry in self.entries.iter_mut().filter(|entry| !entry.payload.is_empty()) {
            entry.reply = Err(UNANSWERED);
        }
        Running { batch: self, tx_id, next: 0, under_way: 0, error: None }
    }
}

/// A batch that is being run.
pub(crate) struct Running<'a> {
    batch: &'a mut Batch,
    tx_id: u32,
    /// The first entry that was not asked yet.
    next: usize,
    /// Entries that were asked and not answered.
    under_way: usize,
    /// The first answer that was none.
    error: Option<Error>,
}

impl Running<'_> {
    /// Fails if some answer was none.
    pub(crate) fn into_result(self) -> Result<(), Error> {
        self.error.map_or(Ok(()), Err)
    }
}

impl Exchange for Running<'_> {
    fn feed(&mut self, connection: &mut Connection) -> Result<(), Error> {
        let payload_max = connection.quirks().payload_max;
        while connection.has_room()
            && let Some(entry) = self.batch.entries.get_mut(self.next)
        {
            if entry.payload.len() > payload_max {
                entry.reply = Err(ErrorCode::TooBig);
            } else if !entry.payload.is_empty() {
                let payload = &self.batch.requests[entry.payload.clone()];
                connection.queue_payload(self.next, self.tx_id, entry.kind, payload)?;
                self.under_way += 1;
            }
            self.next += 1;
        }
        Ok(())
    }

    fn answer(&mut self, answer: Answer<'_>) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(entry) = self.batch.entries.get_mut(answer.ticket) else {
            return;
        };
        let bytes = match answer.reply {
            Ok(Reply::Error(code)) => {
                entry.reply = Err(code);
                return;
            }
            Ok(Reply::Read(value)) => value,
            Ok(Reply::Directory(names)) => names.as_bytes(),
            Ok(Reply::GetPerms(permissions)) => permissions.as_bytes(),
            Ok(_) => &[],
            Err(error) => {
                self.error.get_or_insert(error.into());
                return;
            }
        };
        let start = self.batch.replies.len();
        self.batch.replies.extend_from_slice(bytes);
        entry.reply = Ok(start..self.batch.replies.len());
    }

    fn is_over(&self) -> bool {
        self.under_way == 0 && self.next == self.batch.entries.len()
    }
}
