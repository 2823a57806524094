//! Things that go wrong on purpose.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use xs_proto::{ErrorCode, MessageType};

use super::connection::ConnectionId;

/// When, around a request, its connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request is not carried out.
    BeforeRequest,
    /// The request is carried out, but its reply is not sent: the client cannot know.
    BeforeReply,
    /// The reply is sent.
    AfterReply,
}

#[derive(Clone, Debug)]
pub(super) enum Effect {
    Disconnect(Moment),
    Delay(Duration),
    Error(ErrorCode),
}

type PathTest = Box<dyn Fn(&[u8]) -> bool + Send>;

/// Something that is to go wrong with requests.
///
/// A fault strikes the first request that matches, unless [`nth`](Self::nth) says a later one.
/// When several faults match a request, the one injected first strikes; all of them count it.
///
/// ```
/// # use xs_client::embedded::{Fault, Store};
/// # use xs_proto::{ErrorCode, MessageType};
/// let store = Store::new();
/// // The second and the third commit of domain 3 conflict.
/// let report = store.inject(
///     Fault::error(ErrorCode::Again).on(MessageType::TransactionEnd).of_domain(3).nth(2).times(2),
/// );
/// assert_eq!(report.strikes(), 0);
/// ```
pub struct Fault {
    effect: Effect,
    kind: Option<MessageType>,
    domid: Option<u16>,
    connection: Option<ConnectionId>,
    path: Option<PathTest>,
    first: u64,
    times: u64,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    matches: AtomicU64,
    strikes: AtomicU64,
    /// The first request that was struck.
    victim: OnceLock<Victim>,
}

/// A request that a fault has struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its type; `None` if it is no known one.
    pub kind: Option<MessageType>,
    /// Its first string, which is the path where there is one.
    pub path: Vec<u8>,
}

impl Fault {
    /// The request is refused and not carried out. A commit that is refused ends its
    /// transaction all the same, as a conflict does.
    #[must_use]
    pub fn error(code: ErrorCode) -> Self {
        Self::new(Effect::Error(code))
    }

    /// The request waits, and with it all that follow on its connection. Others do not.
    #[must_use]
    pub fn delay(time: Duration) -> Self {
        Self::new(Effect::Delay(time))
    }

    /// The connection is closed, after all earlier replies were sent.
    #[must_use]
    pub fn disconnect(moment: Moment) -> Self {
        Self::new(Effect::Disconnect(moment))
    }

    fn new(effect: Effect) -> Self {
        Self {
            effect,
            kind: None,
            domid: None,
            connection: None,
            path: None,
            first: 1,
            times: 1,
            tally: Arc::default(),
        }
    }

    /// Only requests of this type.
    #[must_use]
    pub fn on(mut self, kind: MessageType) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only requests of this domain.
    #[must_use]
    pub fn of_domain(mut self, domid: u16) -> Self {
        self.domid = Some(domid);
        self
    }

    /// Only requests of this connection.
    #[must_use]
    pub fn of_connection(mut self, connection: ConnectionId) -> Self {
        self.connection = Some(connection);
        self
    }

    /// Only requests whose first string, which is the path where there is one, passes the
    /// test. The path is as the client sent it, perhaps relative.
    #[must_use]
    pub fn at(mut self, test: impl Fn(&[u8]) -> bool + Send + 'static) -> Self {
        self.path = Some(Box::new(test));
        self
    }

    /// Strikes the `n`-th request that matches, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.first = n.max(1);
        self
    }

    /// Strikes that many matching requests in a row.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Strikes every matching request from the first on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    fn matches(&self, incoming: &Incoming<'_>) -> bool {
        self.kind.is_none_or(|kind| incoming.kind == Some(kind))
            && self.domid.is_none_or(|domid| incoming.domid == domid)
            && self.connection.is_none_or(|connection| incoming.connection == connection)
            && self.path.as_ref().is_none_or(|test| test(incoming.path()))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("effect", &self.effect)
            .field("kind", &self.kind)
            .field("domid", &self.domid)
            .field("connection", &self.connection)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

/// How often a fault has matched and struck so far.
#[derive(Clone, Debug)]
pub struct FaultReport(Arc<Tally>);

impl FaultReport {
    /// Requests that matched, whether or not the fault struck.
    #[must_use]
    pub fn matches(&self) -> u64 {
        self.0.matches.load(Ordering::SeqCst)
    }

    /// Requests that the fault struck.
    #[must_use]
    pub fn strikes(&self) -> u64 {
        self.0.strikes.load(Ordering::SeqCst)
    }

    /// The first request that the fault struck.
    #[must_use]
    pub fn victim(&self) -> Option<&Victim> {
        self.0.victim.get()
    }
}

/// A request, as faults look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub(super) connection: ConnectionId,
    pub(super) domid: u16,
    pub(super) kind: Option<MessageType>,
    pub(super) payload: &'a [u8],
}

impl Incoming<'_> {
    fn path(&self) -> &[u8] {
        self.payload.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// The faults of a store.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) -> FaultReport {
        let report = FaultReport(fault.tally.clone());
        self.0.push(fault);
        report
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The effect of the fault that strikes this request, if one does.
    pub(super) fn strike(&mut self, incoming: &Incoming<'_>) -> Option<Effect> {
        let mut effect = None;
        for fault in &self.0 {
            if !fault.matches(incoming) {
                continue;
            }
            let number = fault.tally.matches.fetch_add(1, Ordering::SeqCst) + 1;
            let due = number >= fault.first && number - fault.first < fault.times;
            if due && effect.is_none() {
                let path = incoming.path().to_vec();
                fault.tally.victim.get_or_init(|| Victim { kind: incoming.kind, path });
                fault.tally.strikes.fetch_add(1, Ordering::SeqCst);
                effect = Some(fault.effect.clone());
            }
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(kind: MessageType, payload: &[u8]) -> Incoming<'_> {
        let connection = ConnectionId::new(1);
        Incoming { connection, domid: 3, kind: Some(kind), payload }
    }

    #[test]
    fn a_fault_strikes_the_requests_it_was_asked_to_and_no_others() {
        let mut faults = Faults::default();
        let fault = Fault::error(ErrorCode::NoSpc)
            .on(MessageType::Write)
            .at(|path| path.ends_with(b"/state"))
            .nth(2)
            .times(2);
        let report = faults.inject(fault);
        let mut struck = Vec::new();
        for (at, kind, payload) in [
            (0, MessageType::Write, &b"a/state\x001"[..]),
            (1, MessageType::Read, b"a/state\0"),
            (2, MessageType::Write, b"a/online\x001"),
            (3, MessageType::Write, b"a/state\x002"),
            (4, MessageType::Write, b"a/state\x003"),
            (5, MessageType::Write, b"a/state\x004"),
        ] {
            if faults.strike(&incoming(kind, payload)).is_some() {
                struck.push(at);
            }
        }
        assert_eq!(struck, [3, 4]);
        assert_eq!((report.matches(), report.strikes()), (4, 2));
        let victim = Victim { kind: Some(MessageType::Write), path: b"a/state".to_vec() };
        assert_eq!(report.victim(), Some(&victim));
    }

    #[test]
    fn of_two_faults_the_first_strikes_and_both_count() {
        let mut faults = Faults::default();
        let first = faults.inject(Fault::disconnect(Moment::BeforeReply));
        let second = faults.inject(Fault::delay(Duration::from_secs(1)).always());
        assert!(matches!(
            faults.strike(&incoming(MessageType::Read, b"a\0")),
            Some(Effect::Disconnect(Moment::BeforeReply))
        ));
        assert!(matches!(
            faults.strike(&incoming(MessageType::Read, b"a\0")),
            Some(Effect::Delay(_))
        ));
        assert_eq!((first.matches(), first.strikes()), (2, 1));
        assert_eq!((second.matches(), second.strikes()), (2, 1));
    }
}
