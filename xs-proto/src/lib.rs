//! The xenstore wire protocol: bytes to typed messages and back.
//!
//! Xenstore is Xen's small shared database. Every party talks to it with the same messages,
//! over a unix socket (domain 0), the kernel's `/dev/xen/xenbus`, or a shared page
//! ([`ring`]). This crate is those messages and nothing else: no I/O, no clock, no state but
//! the bytes of a message that has not arrived whole.
//!
//! * [`Header`] and [`MessageType`]: the sixteen bytes before every payload.
//! * [`Frame`] and [`Decoder`]: whole messages out of a stream of bytes.
//! * [`Request`] and [`Reply`]: the client's messages and the store's answers. Each type has
//!   `parse` *and* `emit`, so one definition serves a client, a server and their tests.
//! * [`WatchEvent`]: the message that the store sends unasked.
//! * [`Path`], [`Permission`], [`ErrorCode`]: the fields of messages.
//!
//! # No panics
//!
//! No function here panics on any input, however malformed: lengths are checked before they
//! are used and nothing is allocated by a length that the wire claims.
//!
//! The protocol's own texts are `docs/misc/xenstore.txt`, `docs/misc/xenstore-ring.txt` and
//! `xen/include/public/io/xs_wire.h` in Xen's sources.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod event;
mod features;
mod frame;
mod header;
mod path;
mod permission;
mod reply;
mod request;
pub mod ring;
mod text;

pub use error::ErrorCode;
pub use event::WatchEvent;
pub use features::Features;
pub use frame::{Decoder, Frame, FrameError};
pub use header::{Header, MessageType};
pub use path::{Path, PathError};
pub use permission::{Access, Permission, PermissionList};
pub use reply::{Names, Reply};
pub use request::{Request, TooLong};

/// The largest payload of a message, in bytes (`XENSTORE_PAYLOAD_MAX`). A peer that sends
/// more has its connection closed.
pub const PAYLOAD_MAX: usize = 4096;

/// Stands for any domain: in permissions, of a store with [`Features::DOMID_ANY`] (`DOMID_ANY` in
/// `xen.h`).
pub const DOMID_ANY: u16 = 0x7ff5;

/// A payload does not fit its message type: a NUL or a field is missing, or a number has another
/// character than digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is not what its message type says it is")]
pub struct Malformed;
