//! When to look at the sizes of the logs: shortly after a QEMU has written to its log.
//!
//! inotify reports that a log is written, once: the look at the log's size asks for the next
//! report. So a daemon whose QEMUs write nothing sleeps, and a QEMU that writes without an end
//! wakes the daemon at most ten times a second.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::time::Duration;

use devd_core::{Domid, Time};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::log_file::QemuLog;
use crate::poller::{Poller, Source};

/// The time from a report to the look.
const LOOK: Duration = Duration::from_millis(100);
/// The time between two looks at a log of which inotify reports nothing.
const LOOK_UNREPORTED: Duration = Duration::from_secs(1);

/// Which logs have grown, and when to look at them.
#[derive(Debug, Default)]
pub(super) struct LogWatch {
    /// `None`: no QEMU has a log, or the system refuses an inotify.
    inotify: Option<Inotify>,
    watches: HashMap<WatchDescriptor, Domid>,
    grown: Vec<Domid>,
    look: Option<Time>,
}

impl LogWatch {
    /// Begins to watch the log of a guest's QEMU, which may have grown already.
    pub(super) fn add(&mut self, domid: Domid, poller: &Poller, now: Time) {
        if self.inotify.is_none() {
            let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
            let inotify = Inotify::init(flags).map_err(std::io::Error::from).and_then(|inotify| {
                poller.add(&inotify, Source::QemuLogs)?;
                Ok(inotify)
            });
            match inotify {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(error) => log::warn!(
                    "no inotify for the logs of QEMUs: {error}; looking at their sizes every \
                     second instead"
                ),
            }
        }
        self.look_at(domid, now.after(LOOK));
    }

    /// The guest's QEMU has ended. The inotify is closed with the last log.
    pub(super) fn remove(&mut self, domid: Domid) {
        self.grown.retain(|grown| *grown != domid);
        if let Some(inotify) = &self.inotify {
            self.watches.retain(|watch, watched| {
                if *watched == domid {
                    // EINVAL: a report has just removed the watch.
                    let _ = inotify.rm_watch(*watch);
                }
                *watched != domid
            });
        }
        // Each log is watched, or waits for its look.
        if self.watches.is_empty() && self.grown.is_empty() {
            (self.inotify, self.look) = (None, None);
        }
    }

    /// inotify has reports.
    pub(super) fn handle_reports(&mut self, now: Time) {
        let Some(inotify) = &self.inotify else { return };
        let events = match inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(error) => {
                log::warn!("cannot read from inotify: {error}; looking at QEMUs' logs instead");
                self.inotify = None;
                self.look_at_all(now);
                return;
            }
        };
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                self.look_at_all(now);
            } else if let Some(domid) = self.watches.remove(&event.wd) {
                self.look_at(domid, now.after(LOOK));
            }
        }
    }

    fn look_at_all(&mut self, now: Time) {
        for (_, domid) in std::mem::take(&mut self.watches) {
            self.look_at(domid, now.after(LOOK));
        }
    }

    fn look_at(&mut self, domid: Domid, at: Time) {
        self.grown.push(domid);
        self.look = Some(self.look.map_or(at, |look| look.min(at)));
    }

    pub(super) const fn poll_timeout(&self) -> Option<Time> {
        self.look
    }

    /// The guests at whose logs to look now.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<Domid> {
        if self.look.take_if(|at| *at <= now).is_none() {
            return Vec::new();
        }
        std::mem::take(&mut self.grown)
    }

    /// Asks for a report of the next write to a log. Comes before the look at the log's size: a
    /// write between the two would go unreported otherwise.
    pub(super) fn watch(&mut self, domid: Domid, log: &QemuLog, now: Time) {
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT;
        // The log's path may lead to another file by now.
        let file = format!("/proc/self/fd/{}", log.file().as_raw_fd());
        match self.inotify.as_ref().map(|inotify| inotify.add_watch(file.as_str(), flags)) {
            Some(Ok(watch)) => {
                self.watches.insert(watch, domid);
            }
            Some(Err(_)) | None => self.look_at(domid, now.after(LOOK_UNREPORTED)),
        }
    }
}
