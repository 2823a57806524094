//! Exchanges: the requests of one operation, and the use of their answers.

use alloc::vec::Vec;

use xs_proto::{ErrorCode, MessageType, Reply, Request};

use crate::connection::{Answer, Connection, QueueError};
use crate::watches::Watch;
use crate::{Error, ProtocolError};

/// Requests and answers of one operation. A connection runs a single exchange at a time.
pub(crate) trait Exchange {
    /// Queues requests while there is room in the window.
    ///
    /// An error ends the operation at once: only the first request may bring one.
    fn feed(&mut self, connection: &mut Connection) -> Result<(), Error>;

    /// Takes an answer to one of them.
    fn answer(&mut self, answer: Answer<'_>);

    /// Are all requests made and answered?
    fn is_over(&self) -> bool;
}

impl From<QueueError> for Error {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TooLong { len, max } => Self::TooLong { len, max },
            // An operation leaves no request behind, so that the window is empty when the
            // next one begins: this would be one that asks more than there is room for.
            QueueError::WindowFull => Self::TimedOut,
        }
    }
}

/// No requests: reading events only.
pub(crate) struct Nothing;

impl Exchange for Nothing {
    fn feed(&mut self, _: &mut Connection) -> Result<(), Error> {
        Ok(())
    }

    fn answer(&mut self, _: Answer<'_>) {}

    fn is_over(&self) -> bool {
        true
    }
}

/// The request of a [`Single`].
enum Question<'a> {
    Request(&'a Request<'a>),
    /// A request of this type with an empty payload.
    Empty(MessageType),
}

impl Question<'_> {
    const fn message_type(&self) -> MessageType {
        match self {
            Self::Request(request) => request.message_type(),
            Self::Empty(kind) => *kind,
        }
    }
}

/// An exchange of a single request.
pub(crate) struct Single<'a, T, F> {
    tx_id: u32,
    question: Question<'a>,
    asked: bool,
    take: Option<F>,
    result: Option<Result<T, Error>>,
}

impl<'a, T, F: FnOnce(Reply<'_>) -> Option<T>> Single<'a, T, F> {
    /// `take` makes the result of the answer; `None` if it is none to the request.
    pub(crate) const fn new(tx_id: u32, request: &'a Request<'a>, take: F) -> Self {
        let question = Question::Request(request);
        Self { tx_id, question, asked: false, take: Some(take), result: None }
    }

    /// The same for a request of this type with an empty payload, in no transaction.
    pub(crate) const fn empty(kind: MessageType, take: F) -> Self {
        let question = Question::Empty(kind);
        Self { tx_id: 0, question, asked: false, take: Some(take), result: None }
    }

    pub(crate) fn into_result(self) -> Result<T, Error> {
        let unanswered = ProtocolError::Malformed(self.question.message_type());
        self.result.unwrap_or(Err(unanswered.into()))
    }
}

impl<T, F: FnOnce(Reply<'_>) -> Option<T>> Exchange for Single<'_, T, F> {
    fn feed(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if !self.asked {
            match self.question {
                Question::Request(request) => connection.queue(0, self.tx_id, request)?,
                Question::Empty(kind) => connection.queue_payload(0, self.tx_id, kind, b"")?,
            }
            self.asked = true;
        }
        Ok(())
    }

    fn answer(&mut self, answer: Answer<'_>) {
        let Some(take) = self.take.take() else {
            return;
        };
        let malformed = ProtocolError::Malformed(self.question.message_type());
        self.result = Some(match answer.reply {
            Ok(Reply::Error(code)) => Err(Error::Refused(code)),
            Ok(reply) => take(reply).ok_or(malformed.into()),
            Err(error) => Err(error.into()),
        });
    }

    fn is_over(&self) -> bool {
        self.result.is_some()
    }
}

/// All watches of a client, on a new connection. A depth that this store refuses is left out.
pub(crate) struct Rewatch<'a> {
    watches: &'a [Watch],
    asked: usize,
    answered: usize,
    /// Watches to set again, without their depth.
    shallow: Vec<usize>,
    refused: Option<Error>,
}

impl<'a> Rewatch<'a> {
    pub(crate) const fn new(watches: &'a [Watch]) -> Self {
        Self { watches, asked: 0, answered: 0, shallow: Vec::new(), refused: None }
    }

    /// Why the first of those that the store did not take was refused.
    pub(crate) fn refused(self) -> Option<Error> {
        self.refused
    }
}

impl Exchange for Rewatch<'_> {
    fn feed(&mut self, connection: &mut Connection) -> Result<(), Error> {
        while connection.has_room()
            && let Some(watch) = self.watches.get(self.asked)
        {
            let depth = watch.depth.filter(|_| connection.quirks().watch_depth);
            let request = Request::Watch { path: &watch.path, token: &watch.token, depth };
            connection.queue(self.asked, 0, &request)?;
            self.asked += 1;
        }
        while connection.has_room()
            && let Some(at) = self.shallow.pop()
        {
            let Watch { path, token, .. } = &self.watches[at];
            let ticket = self.watches.len() + at;
            connection.queue(ticket, 0, &Request::Watch { path, token, depth: None })?;
        }
        Ok(())
    }

    fn answer(&mut self, answer: Answer<'_>) {
        // Tickets from `len` on are second requests.
        let with_depth = self.watches.get(answer.ticket).is_some_and(|watch| watch.depth.is_some());
        if with_depth && answer.reply == Ok(Reply::Error(ErrorCode::Inval)) {
            return self.shallow.push(answer.ticket);
        }
        self.answered += 1;
        let error = match answer.reply {
            Ok(Reply::Ok(MessageType::Watch)) => return,
            Ok(Reply::Error(code)) => Error::Refused(code),
            Ok(_) => ProtocolError::Malformed(MessageType::Watch).into(),
            Err(error) => error.into(),
        };
        self.refused.get_or_insert(error);
    }

    fn is_over(&self) -> bool {
        self.answered == self.watches.len()
    }
}
