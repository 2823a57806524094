//! Watch events: the only messages that the store sends unasked.

use alloc::vec::Vec;

use crate::{Malformed, text};

/// The payload of a [`MessageType::WatchEvent`](crate::MessageType::WatchEvent).
///
/// The event says *where* something happened, never what, and the store may merge equal
/// events that were not read yet: look at the node again, do not count.
///
/// Source: `WATCH_EVENT` in `xenstore.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchEvent<'a> {
    /// The node that changed: the watched one, or one below it. Relative where the watch was.
    /// The registration of a watch fires once, with the watched path itself.
    pub path: &'a [u8],
    /// The token that the watch was registered with.
    pub token: &'a [u8],
}

impl<'a> WatchEvent<'a> {
    /// Reads the payload of a watch event. Bytes behind the token are ignored: newer daemons may
    /// append a field.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if there are no two strings.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (path, rest) = text::split_nul(payload)?;
        let (token, _) = text::split_nul(rest)?;
        Ok(Self { path, token })
    }

    /// Appends the payload to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        text::put(out, self.path);
        text::put(out, self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = b"backend/vif/3/0/state\0tok\0";

    #[test]
    fn golden_event_both_ways() {
        let event = WatchEvent { path: b"backend/vif/3/0/state", token: b"tok" };
        assert_eq!(WatchEvent::parse(GOLDEN), Ok(event));
        let mut out = Vec::new();
        event.emit(&mut out);
        assert_eq!(out, GOLDEN);
    }

    #[test]
    fn an_event_cut_short_is_malformed() {
        for len in 0..GOLDEN.len() {
            assert_eq!(WatchEvent::parse(&GOLDEN[..len]), Err(Malformed), "{len} bytes");
        }
    }
}
