//! A store for tests: a map, and a list of what it is to say instead.

use std::collections::{BTreeMap, VecDeque};

use xs_proto::{ErrorCode, MessageType, Reply, Request};

/// An answer: the type of its message, and its payload.
pub type Answer = (MessageType, Vec<u8>);

pub fn answer(reply: &Reply<'_>) -> Answer {
    let mut payload = Vec::new();
    reply.emit(&mut payload);
    (reply.message_type(), payload)
}

pub fn refusal(code: ErrorCode) -> Answer {
    answer(&Reply::Error(code))
}

/// Nodes without permissions, and transactions that isolate nothing.
#[derive(Default)]
pub struct Store {
    pub nodes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What to say next to requests of these types, in their order, before anything else.
    pub scripted: VecDeque<Answer>,
    /// How many commits will conflict with somebody else's.
    pub conflicts: u32,
    pub transactions: Vec<u32>,
    pub transactions_started: u32,
    pub commits: u32,
    pub aborts: u32,
    /// The requests so far.
    pub seen: Vec<MessageType>,
}

impl Store {
    /// What the store says, but to WATCH and UNWATCH.
    pub fn answer(&mut self, tx_id: u32, request: &Request<'_>) -> Answer {
        let kind = request.message_type();
        self.seen.push(kind);
        let ok = answer(&Reply::Ok(kind));
        if tx_id != 0 && !self.transactions.contains(&tx_id) {
            return refusal(ErrorCode::NoEnt);
        }
        match *request {
            Request::TransactionStart => {
                self.transactions_started += 1;
                self.transactions.push(self.transactions_started);
                return answer(&Reply::TransactionStart(self.transactions_started));
            }
            Request::TransactionEnd { commit } => {
                self.transactions.retain(|id| *id != tx_id);
                if !commit {
                    self.aborts += 1;
                    return ok;
                }
                self.commits += 1;
                if self.conflicts > 0 {
                    self.conflicts -= 1;
                    return refusal(ErrorCode::Again);
                }
                return ok;
            }
            _ => {}
        }
        if let Some(answer) = self.scripted.pop_front() {
            return answer;
        }
        match *request {
            Request::Read { path } => match self.nodes.get(path) {
                Some(value) => answer(&Reply::Read(value)),
                None => refusal(ErrorCode::NoEnt),
            },
            Request::Write { path, value } => {
                self.nodes.insert(path.to_vec(), value.to_vec());
                ok
            }
            Request::Mkdir { path } => {
                self.nodes.entry(path.to_vec()).or_default();
                ok
            }
            Request::Rm { path } => {
                self.nodes.remove(path);
                ok
            }
            _ => refusal(ErrorCode::NoSys),
        }
    }
}
