//! One turn of the loop: what has come in is told to the dispatcher, and what it decides is
//! carried out.

use std::time::Duration;

use devd_core::{BackendPath, Time};
use xs_client::{Error, Event};

use super::Daemon;
use super::report::tell_unknown_kind;
use crate::{qemu, scan};

/// The waits before all is listed again when the store has refused a part of it.
const RELIST_FIRST: Duration = Duration::from_secs(1);
const RELIST_MAX: Duration = Duration::from_secs(60);

impl Daemon<'_> {
    /// Does all that can be done now.
    pub(super) fn work(&mut self, now: Time) {
        self.news.qemu |= self.qemus.handle_timeout(now);
        if let Some((at, wait)) = self.reconnect {
            if now < at {
                return;
            }
            self.try_reconnect(wait, now);
        }
        // Not all who find that the connection is lost say so; then this does.
        if self.reconnect.is_none()
            && let Err(error) = self.settle().and_then(|()| self.client.check())
        {
            self.disconnected(&error);
        }
    }

    /// Hears the events that have come and carries out what follows, until nothing does.
    fn settle(&mut self) -> Result<(), Error> {
        loop {
            let now = self.clock.now();
            self.hear_events();
            self.news.resync |= self.relist.is_some_and(|(at, _)| at <= now);
            if std::mem::take(&mut self.news.resync) {
                self.list_all()?;
            }
            if std::mem::take(&mut self.news.qemu) {
                let mut happened = Vec::new();
                let result =
                    self.qemus.handle_event(&mut self.client, &mut self.poller, now, &mut happened);
                for (domid, event) in happened {
                    self.dispatcher.handle_service(domid, event, now);
                }
                result?;
            }
            if self.news.builtins {
                // One that could not be written down is told again.
                while let Some((key, end)) = self.hooks.builtins().finish(&mut self.client)? {
                    self.dispatcher.handle_hook_end(key, end, now);
                }
                self.news.builtins = false;
            }
            self.dispatcher.handle_timeout(now);
            let mut acted = false;
            while let Some(action) = self.dispatcher.poll_action() {
                acted = true;
                self.act(action, now)?;
            }
            acted |= self.executor.run(&mut self.client, &mut self.dispatcher, now)?;
            acted |= self.removals.run(&mut self.client, &mut self.dispatcher, now)?;
            // Whatever asks the store something may have brought in events, too.
            if !acted && !self.client.has_event() {
                return Ok(());
            }
        }
    }

    fn hear_events(&mut self) {
        while let Some(event) = self.client.next_event() {
            match event {
                Event::Watch(event) if event.token == qemu::TOKEN => {
                    self.news.qemu |= self.qemus.hear(event.path);
                }
                // All that is there will be listed.
                Event::Watch(_) if self.news.resync => {}
                Event::Watch(event) => {
                    let path = BackendPath::parse(event.path);
                    if let BackendPath::UnknownKind(name) = path
                        && !self.unknown_kinds.contains(name)
                    {
                        tell_unknown_kind(&mut self.unknown_kinds, name);
                    }
                    self.dispatcher.handle_event(path);
                }
                Event::Resync => {
                    self.qemus.hear_all();
                    (self.news.resync, self.news.qemu) = (true, true);
                }
            }
        }
    }

    /// Looks at everything: at the start, and whenever events may have been lost.
    fn list_all(&mut self) -> Result<(), Error> {
        let listing = match scan::list(&mut self.client) {
            Ok(listing) => listing,
            Err(error) => {
                self.news.resync = true;
                return Err(error);
            }
        };
        self.relist = listing.incomplete.then(|| {
            let wait = self.relist.map_or(RELIST_FIRST, |(_, wait)| wait);
            (self.clock.now().after(wait), (wait * 2).min(RELIST_MAX))
        });
        for name in listing.unknown {
            tell_unknown_kind(&mut self.unknown_kinds, name.as_bytes());
        }
        self.dispatcher.handle_resync();
        for key in listing.devices {
            self.dispatcher.look_at(key);
        }
        // A QEMU of which no device is known is ended.
        for domid in listing.libxl.into_iter().filter(|_| !listing.incomplete) {
            self.dispatcher.handle_service_found(domid);
        }
        Ok(())
    }
}
