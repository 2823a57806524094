//! A xenstore client.
//!
//! * [`Address`]: where the store is, and how to find it.
//! * [`Client`]: the blocking face. A method for each operation of the protocol, [`Transaction`]s,
//!   [`Batch`]es that keep many requests under way, watch [`Event`]s.
//! * [`Connection`]: the state of one stream of bytes, without any I/O.
//! * [`Transport`] and [`Quirks`]: the stream, and how it differs from the others. Linux's
//!   `/dev/xen/xenbus` is not the daemon's socket under another name.
//! * [`Ring`]: the stream over a domain's own ring, for unikernels. Without the feature `std` the
//!   crate is `no_std`: `Client::with_clock` takes a [`Transport`] and a [`Clock`].
//! * `embedded`, with the feature of that name: a xenstored in memory.
//!
//! `examples/` has a listing of nodes (`xs-ls`), a loop that watches and reconnects (`xs-watch`), a
//! whole backend (`xs-backend`), and [`Connection`] without any I/O of its own (`sans-io`).
//!
//! ```no_run
//! use xs_client::{Address, Client, Event};
//!
//! let mut client = Client::open(Address::find(None)?)?;
//! client.watch("backend", "devices")?;
//! loop {
//!     match client.wait_event(None)? {
//!         Some(Event::Watch(event)) => println!("look at {:?}", event.path),
//!         Some(Event::Resync) => println!("look at everything"),
//!         None => {}
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "std")]
mod address;
mod batch;
mod client;
mod clock;
mod connection;
mod directory;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod event_queue;
mod exchange;
mod operations;
mod quirks;
mod transaction;
mod transport;
mod watches;

#[cfg(feature = "std")]
pub use address::{Address, AddressError, Place};
pub use batch::Batch;
pub use client::{Client, StaleEvents};
pub use clock::Clock;
#[cfg(feature = "std")]
pub use clock::SystemClock;
pub use connection::{Answer, Arrival, Connection, Oddities, QueueError};
#[cfg(feature = "std")]
pub use error::OpenError;
pub use error::{Disconnected, Error, ProtocolError};
pub use event_queue::{Event, OwnedEvent};
pub use operations::Reach;
pub use quirks::Quirks;
pub use transaction::{Outcome, Transaction};
#[cfg(feature = "std")]
pub use transport::{Device, Socket};
pub use transport::{EventChannel, Ring, Stream, Transport, TransportError, WaitFor};
// A caller names these: with them it needs no other crate.
pub use xs_proto::{
    Access, DOMID_ANY, ErrorCode, Features, MessageType, Path, PathError, Permission, WatchEvent,
};
