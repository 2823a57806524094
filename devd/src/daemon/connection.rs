//! The connection to the store: it is lost, and got back.

use std::io;
use std::time::Duration;

use devd_core::Time;
use xs_client::Error;

use super::Daemon;
use crate::poller::Source;

/// The waits between tries to get the connection back.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

impl Daemon<'_> {
    pub(super) fn receive(&mut self) {
        if self.reconnect.is_none()
            && let Err(error) = self.client.receive()
        {
            self.disconnected(&error);
        }
    }

    pub(super) fn poll_store(&self) -> io::Result<()> {
        match self.client.as_fd() {
            Some(fd) => self.poller.add(fd, Source::Store),
            None => Ok(()),
        }
    }

    pub(super) fn disconnected(&mut self, error: &Error) {
        if self.reconnect.is_some() {
            return;
        }
        log::error!("{error}; hooks and QEMUs keep running; reconnecting");
        let now = self.clock.now();
        self.executor.give_up(&mut self.dispatcher, now);
        self.removals.give_up(&mut self.dispatcher, now);
        // All is listed when the connection is back.
        self.scan = None;
        self.reconnect = Some((now, RECONNECT_FIRST));
    }

    pub(super) fn try_reconnect(&mut self, wait: Duration, now: Time) {
        let polled = match self.client.reconnect() {
            Ok(()) => self.poll_store().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match polled {
            Ok(()) => {
                log::info!("connected to xenstore again; looking at all devices");
                self.reconnect = None;
                self.pending.resync = true;
                self.announce();
            }
            Err(error) => {
                log::debug!("cannot connect to xenstore yet: {error}; will try again");
                self.reconnect = Some((now.after(wait), (wait * 2).min(RECONNECT_MAX)));
            }
        }
    }

    /// Tells old udev rules to stay out of the way, as libxl does in domain 0.
    pub(super) fn announce(&mut self) {
        if self.options.dry_run {
            return;
        }
        match self.client.write("libxl/disable_udev", "1") {
            Ok(()) => {}
            Err(error) if error.ends_connection() => self.disconnected(&error),
            Err(error) => log::warn!(
                "cannot write libxl/disable_udev: {error}; network and block devices are \
                 served; for qdisk and 9pfs put driver_domain=1 in this domain's config"
            ),
        }
    }
}
