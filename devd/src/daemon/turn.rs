//! One turn of the loop: what has come in is told to the dispatcher, and what it decides is
//! carried out, as much as a [`Budget`] allows.

use std::time::Duration;

use devd_core::{BackendPath, Time};
use xs_client::{Error, Event};

use super::budget::{Budget, STEPS};
use super::report::tell_unknown_kind;
use super::{Daemon, Stage};
use crate::hooks::Finished;
use crate::qemu;
use crate::scan::{Listing, Scan};

/// The waits before all is listed again when the store has refused a part of it.
const RELIST_FIRST: Duration = Duration::from_secs(1);
const RELIST_MAX: Duration = Duration::from_secs(60);

/// How a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is nothing to do until something happens.
    Resting,
    /// Something is left to do: the next turn goes on after a look at epoll.
    Unfinished,
}

/// News that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Events were lost.
    pub(super) resync: bool,
    /// Something happened under `device-model`.
    pub(super) qemu: bool,
    /// A run of a built-in hook has ended.
    pub(super) builtins: bool,
    /// `SIGCHLD` has come: children have ended.
    pub(super) children: bool,
}

impl Daemon<'_> {
    /// Does what can be done now, as much as one turn may.
    pub(super) fn work(&mut self, now: Time) -> Progress {
        let mut budget = Budget::begin();
        if self.pending.children {
            self.reap_children();
        }
        self.pending.qemu |= self.qemus.handle_timeout(now);
        if let Some((at, wait)) = self.reconnect {
            if now < at {
                return self.children_left();
            }
            self.try_reconnect(wait, now);
        }
        if self.reconnect.is_some() {
            return self.children_left();
        }
        // A part that ignores errors may have lost the connection: then the check fails.
        match self.settle(&mut budget).and_then(|done| self.client.check().map(|()| done)) {
            Ok(Progress::Resting) => self.children_left(),
            Ok(Progress::Unfinished) => Progress::Unfinished,
            Err(error) => {
                self.disconnected(&error);
                self.children_left()
            }
        }
    }

    const fn children_left(&self) -> Progress {
        if self.pending.children { Progress::Unfinished } else { Progress::Resting }
    }

    /// Hears the events that have come and carries out what follows, until nothing does or the
    /// budget is spent.
    fn settle(&mut self, budget: &mut Budget) -> Result<Progress, Error> {
        loop {
            let now = self.clock.now();
            self.hear_events();
            self.list(budget, now)?;
            if self.pending.qemu {
                self.ask_for_qemus(budget, now)?;
            }
            while self.pending.builtins {
                // A run whose result could not be written is told again.
                match self.hooks.finish(&mut self.client, &mut self.poller, now)? {
                    Some(Finished::Hook(key, end)) => {
                        self.dispatcher.handle_hook_end(key, end, now);
                    }
                    Some(Finished::Step) => {}
                    None => self.pending.builtins = false,
                }
                if !budget.take() {
                    break;
                }
            }
            self.dispatcher.handle_timeout(now);
            let mut acted = false;
            while let Some(action) = self.dispatcher.poll_action() {
                acted = true;
                self.act(action, now)?;
                if !budget.take() {
                    break;
                }
            }
            acted |= self.executor.run(&mut self.client, &mut self.dispatcher, now)?;
            acted |= self.removals.run(&mut self.client, &mut self.dispatcher, now)?;
            // A request to the store may have brought in events, too.
            if !acted && !self.is_behind() {
                return Ok(Progress::Resting);
            }
            if budget.is_spent() {
                return Ok(Progress::Unfinished);
            }
        }
    }

    /// Is there something left that has come in?
    fn is_behind(&self) -> bool {
        let Pending { resync, qemu, builtins, children: _ } = self.pending;
        self.scan.is_some() || resync || qemu || builtins || self.client.has_event()
    }

    fn hear_events(&mut self) {
        // Devices that an earlier daemon has served are told from new ones by the first listing.
        if self.stage == Stage::Listing && self.scan.is_some() {
            return;
        }
        for _ in 0..STEPS {
            let Some(event) = self.client.next_event() else { break };
            match event {
                Event::Watch(event) if event.token == qemu::TOKEN => {
                    self.pending.qemu |= self.qemus.hear(event.path);
                }
                // The listing that is about to begin finds all that is there.
                Event::Watch(_) if self.pending.resync && self.scan.is_none() => {}
                Event::Watch(event) => {
                    log::trace!("{}: the store tells of a change", event.path.escape_ascii());
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
                    (self.pending.resync, self.pending.qemu) = (true, true);
                }
            }
        }
    }

    /// Lists the store, a part in each turn: at the start, and whenever events may have been lost.
    fn list(&mut self, budget: &mut Budget, now: Time) -> Result<(), Error> {
        let due = self.pending.resync || self.relist.is_some_and(|(at, _)| at <= now);
        if self.scan.is_none() && due {
            self.pending.resync = false;
            self.scan = Some(Scan::begin());
        }
        while let Some(scan) = &mut self.scan {
            if let Some(listing) = scan.step(&mut self.client)? {
                self.scan = None;
                self.handle_listing(listing, now);
            }
            if !budget.take() {
                break;
            }
        }
        Ok(())
    }

    fn handle_listing(&mut self, listing: Listing, now: Time) {
        self.relist = listing.incomplete.then(|| {
            let wait = self.relist.map_or(RELIST_FIRST, |(_, wait)| wait);
            (now.after(wait), (wait * 2).min(RELIST_MAX))
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
            self.dispatcher.handle_qemu_found(domid);
        }
        if self.stage == Stage::Listing {
            self.stage = Stage::Looking { since: now };
        }
    }

    /// Asks the store about QEMUs that may be ready, and again about what it has refused.
    fn ask_for_qemus(&mut self, budget: &mut Budget, now: Time) -> Result<(), Error> {
        let mut happened = Vec::new();
        let result = self.qemus.handle_event(
            &mut self.client,
            &mut self.poller,
            now,
            &mut happened,
            &mut || budget.take(),
        );
        for (domid, event) in happened {
            self.dispatcher.handle_qemu(domid, event, now);
        }
        self.pending.qemu = !result?;
        Ok(())
    }
}
