//! What built-in hooks have made stays as it is.

use devd_core::Time;

use super::Daemon;

impl Daemon<'_> {
    /// Tells what checks have found, and begins those that are due: without a connection to the
    /// store too.
    pub(super) fn keep_served(&mut self, now: Time) {
        let client = self.reconnect.is_none().then_some(&mut self.client);
        if let Err(error) = self.hooks.keep(client, &self.poller, now) {
            self.disconnected(&error);
        }
    }
}
