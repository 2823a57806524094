//! How one way to the store differs from another.

use xs_proto::{Header, PAYLOAD_MAX};

/// The differences of a transport from a plain stream of xenstore messages.
///
/// Source: Linux `drivers/xen/xenbus/xenbus_dev_frontend.c`, for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// A write carries one message at most: the device clears its buffer behind a whole
    /// message, and with it whatever else the same write brought.
    pub one_message_per_write: bool,
    /// The largest payload of a request in bytes.
    pub payload_max: usize,
    /// The answer to a WATCH or UNWATCH may have a `req_id` of 0. Kernels before 4.11 make it
    /// up so; then it belongs to the oldest such request.
    pub acks_may_lack_req_id: bool,
    /// A refused request may come back as the error of its own write, with no answer.
    pub refusals_as_errno: bool,
    /// RESET_WATCHES is about this client's watches, not about somebody else's: the device
    /// passes it on as the kernel's own.
    pub reset_watches_allowed: bool,
    /// A WATCH may have a depth. The device drops it without a word.
    pub watch_depth: bool,
    /// Waiting for room to write makes sense. The device never reports it.
    pub poll_out: bool,
    /// How many requests may be without an answer. xenstored stops reading a domain that has
    /// 20 under way, without an error, and the kernel's own requests are among them. On the
    /// device it is one: until the kernel's own thread puts a request in the ring, its payload
    /// stays in the file's one buffer, where the next write replaces it. The store then gets a
    /// mixture of both (seen on Linux 6.1: wrong answers, and the end of the daemon).
    pub window: usize,
}

impl Quirks {
    /// A unix socket of xenstored, or of anything that speaks as it does.
    pub const SOCKET: Self = Self {
        one_message_per_write: false,
        payload_max: PAYLOAD_MAX,
        acks_may_lack_req_id: false,
        refusals_as_errno: false,
        reset_watches_allowed: true,
        watch_depth: true,
        poll_out: true,
        window: 16,
    };

    /// A domain's own ring, with no kernel between.
    pub const RING: Self = Self::SOCKET;

    /// Linux's `/dev/xen/xenbus`, whose buffer has room for 4096 bytes with the header.
    pub const DEVICE: Self = Self {
        one_message_per_write: true,
        payload_max: PAYLOAD_MAX - Header::LEN,
        acks_may_lack_req_id: true,
        refusals_as_errno: true,
        reset_watches_allowed: false,
        watch_depth: false,
        poll_out: false,
        window: 1,
    };
}
