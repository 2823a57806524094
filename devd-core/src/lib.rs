//! The decisions of a Xen driver domain's device daemon: events in, actions out.
//!
//! A driver domain serves devices to other guests. The toolstack describes each device in a
//! directory of xenstore, `backend/<kind>/<frontend domid>/<devid>`; the daemon runs a hotplug hook
//! for it, or a QEMU, and takes all of it away again when the guest lets go. This crate decides
//! what is to be done and when. The crate has no I/O and no clock, and runs where there is no
//! operating system at all.
//!
//! It is a *level-triggered reconciler*. An event only says "look at this device again"; what
//! is done follows from what the store says now ([`Observation`]) and from what is in place
//! ([`Phase`]). Lost, merged and repeated events change nothing.
//!
//! Feed a [`Dispatcher`] through its `handle_*` methods, then carry out what
//! [`poll_action`](Dispatcher::poll_action) says until it says nothing more, and come back by
//! [`poll_timeout`](Dispatcher::poll_timeout).

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod action;
mod device;
mod dispatcher;
mod facts;
mod fingerprint;
mod hook;
mod hook_queue;
mod key;
mod kind;
mod link;
mod machine;
mod observation;
mod pace;
mod path;
mod qemu;
mod reason;
mod registry;
mod status;
mod time;
mod timer;

pub use action::{Action, Notice, Retry};
pub use device::{Phase, Run};
pub use dispatcher::{Dispatcher, Removal, Settings};
pub use hook::{Hook, HookEnd, Verb};
pub use key::{DeviceKey, Domid};
pub use kind::{Kind, ServedBy};
pub use observation::{HotplugStatus, Observation, Want, XenbusState};
pub use path::{BackendPath, Leaf};
pub use qemu::{QemuEvent, QemuState};
pub use reason::{HookFailure, Node, QemuFailure, Reason, Remedy};
pub use registry::Registry;
pub use time::Time;
