//! An in-memory xenstored.
//!
//! [`Store`] is a whole store in the process: nodes with permissions, domains with quotas,
//! transactions, watches. Its answers are those of Xen's C xenstored 4.17: differential tests
//! compare the two. Clients reach the store through a real unix socket ([`Store::serve`]), so that
//! programs that know nothing of it run against it, or by a stream within the process
//! ([`Store::connect`]).
//!
//! Unlike the real one, the embedded store goes wrong on demand ([`Store::inject`]) and says how
//! many requests there were ([`Store::counts`]).
//!
//! The embedded store lacks the real one's limits on memory and on the rate of writes, the
//! twenty seconds after which a client that reads no events loses them, and live update. Where
//! the real one answers with an error left over from somebody else, as it does to a path with no
//! NUL, this one says `EINVAL`. A domain never gets what an earlier one of its number was
//! allowed.
//!
//! How a request goes: `reactor` → `state` (counts, faults) → `operations` → `nodes` with
//! `permissions` and `transaction` → `tree`; then `watch` says who is to hear of it, and
//! `connection` keeps replies and events until the reactor sends them.

mod connection;
mod control;
mod counts;
mod domain;
mod faults;
mod in_process;
mod nodes;
mod operations;
mod paths;
mod permissions;
mod quota;
mod reactor;
mod server;
mod state;
mod store;
mod transaction;
mod tree;
mod watch;

pub use connection::ConnectionId;
pub use counts::Counts;
pub use faults::{Fault, FaultReport, Moment, Victim};
pub use in_process::InProcess;
pub use quota::Quota;
pub use server::Server;
pub use store::{Options, Store};
