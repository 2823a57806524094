//! The QEMU of a guest: a process that serves all the guest's qdisk and 9pfs devices.

use crate::device::{Device, ObservationState};
use crate::dispatcher::Dispatcher;
use crate::timer::Owner;
use crate::{
    Action, Domid, HotplugStatus, Kind, Notice, Phase, QemuFailure, Reason, ServedBy, Time,
};

/// The state of a guest's QEMU, as far as the daemon knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QemuState {
    /// The daemon has not searched yet: a QEMU of an earlier daemon may run.
    Unknown,
    /// The daemon searches for a QEMU of an earlier daemon.
    Finding,
    /// The guest has no QEMU.
    Absent,
    /// QEMU was started and is not ready yet.
    Starting,
    /// QEMU runs and serves its devices.
    Running,
    /// QEMU was told to end.
    Stopping,
    /// QEMU failed; the next start waits for a deadline.
    BackingOff,
}

/// A change of a guest's QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QemuEvent {
    /// QEMU runs and serves its devices.
    Ready,
    /// No QEMU was found, or QEMU ended as requested.
    Absent,
    /// QEMU could not be started, or ended by itself.
    Failed(QemuFailure),
}

impl Dispatcher {
    /// Searches for a QEMU of an earlier daemon for this guest. Call this after the listed devices
    /// have been given to [`look_at`](Self::look_at).
    pub fn handle_qemu_found(&mut self, domid: Domid) {
        let guest = self.registry.insert_guest(domid);
        self.find_qemu(guest);
    }

    /// Handles a change of a guest's QEMU.
    pub fn handle_qemu(&mut self, domid: Domid, event: QemuEvent, now: Time) {
        let Some(guest) = self.registry.find_guest(domid) else { return };
        match (self.registry.guest(guest).qemu, event) {
            (QemuState::Finding, QemuEvent::Ready) => {
                self.qemu_ready(guest, Notice::Adopted, now);
            }
            (QemuState::Starting, QemuEvent::Ready) => {
                self.qemu_ready(guest, Notice::Attached, now);
            }
            // Observe the guest's devices: their states show whether they have lost a QEMU or never
            // had one.
            (QemuState::Finding, QemuEvent::Absent)
            | (QemuState::Stopping, QemuEvent::Absent | QemuEvent::Failed(_)) => {
                // QEMU exited before the queued StopQemu ran: drop that action.
                self.take_back(Action::StopQemu(domid));
                self.registry.guest_mut(guest).qemu = QemuState::Absent;
                self.look_again(guest, |phase| {
                    matches!(phase, Phase::Waiting | Phase::AwaitingQemu)
                });
                self.reconcile_qemu(guest, now);
            }
            (QemuState::Finding | QemuState::Starting, QemuEvent::Failed(failure)) => {
                self.qemu_failed(guest, failure, now);
            }
            (QemuState::Starting, QemuEvent::Absent) => {
                self.qemu_failed(guest, QemuFailure::Vanished, now);
            }
            (QemuState::Running, QemuEvent::Absent | QemuEvent::Failed(_)) => {
                self.qemu_lost(guest, now);
            }
            (QemuState::Running | QemuState::Stopping, QemuEvent::Ready) => {}
            // The daemon knows of no QEMU for this guest: ignore the event.
            (QemuState::Unknown | QemuState::Absent | QemuState::BackingOff, _) => {}
        }
    }

    /// Starts or ends the guest's QEMU as its devices require.
    pub(crate) fn reconcile_qemu(&mut self, guest: u32, now: Time) {
        let any = |which: fn(&Device) -> bool| self.devices_in(guest, which).next().is_some();
        let needed = any(|device| matches!(device.phase, Phase::AwaitingQemu | Phase::Attached));
        // A waiting device under observation may need a QEMU, or may turn out to have lost one:
        // decide after the observation.
        let undecided = any(|device| {
            device.phase == Phase::Waiting && device.observation != ObservationState::Idle
        });
        // A new QEMU takes up every share it finds: wait until a closing share is gone.
        let leaving = any(|device| {
            let out = matches!(device.phase, Phase::Waiting | Phase::Lingering | Phase::Removing);
            device.key.kind == Kind::P9 && out
        });
        let domid = self.registry.guest(guest).domid;
        match self.registry.guest(guest).qemu {
            QemuState::Unknown if needed => self.find_qemu(guest),
            QemuState::Absent if needed && !undecided && !leaving && !self.is_closing() => {
                self.registry.guest_mut(guest).qemu = QemuState::Starting;
                match self.hindrance(guest) {
                    Some(failure) => self.qemu_failed(guest, failure, now),
                    None => self.act(Action::StartQemu(domid)),
                }
            }
            QemuState::Running if !needed && !undecided => {
                self.registry.guest_mut(guest).qemu = QemuState::Stopping;
                self.act(Action::StopQemu(domid));
            }
            QemuState::Unknown
            | QemuState::Absent
            | QemuState::Running
            | QemuState::Finding
            | QemuState::Starting
            | QemuState::Stopping
            | QemuState::BackingOff => {}
        }
        self.forget_guest(guest);
    }

    fn find_qemu(&mut self, guest: u32) {
        let guest = self.registry.guest_mut(guest);
        if guest.qemu == QemuState::Unknown {
            guest.qemu = QemuState::Finding;
            let domid = guest.domid;
            self.act(Action::FindQemu(domid));
        }
    }

    pub(crate) fn qemu_deadline(&mut self, guest: u32, now: Time) {
        if self.registry.guest(guest).qemu == QemuState::BackingOff {
            self.registry.guest_mut(guest).qemu = QemuState::Absent;
            self.look_again(guest, |phase| matches!(phase, Phase::Failed(Reason::Qemu(_))));
            self.reconcile_qemu(guest, now);
        }
    }

    fn qemu_ready(&mut self, guest: u32, notice: Notice, now: Time) {
        let state = self.registry.guest_mut(guest);
        state.qemu = QemuState::Running;
        state.ready_at = now;
        self.each_in(
            guest,
            |phase| phase == Phase::AwaitingQemu,
            |this, index| this.attached(index, notice),
        );
        self.reconcile_qemu(guest, now);
    }

    /// QEMU could not be started: its waiting devices fail, and the timer of the guest retries
    /// them.
    fn qemu_failed(&mut self, guest: u32, failure: QemuFailure, now: Time) {
        self.back_off(guest, now);
        self.each_in(
            guest,
            |phase| phase == Phase::AwaitingQemu,
            |this, index| {
                this.fail(index, Reason::Qemu(failure), now);
            },
        );
        self.look_again(guest, |phase| phase == Phase::Waiting);
        self.forget_guest(guest);
    }

    /// QEMU ended by itself. Devices that were connected are lost; the others get a new QEMU.
    fn qemu_lost(&mut self, guest: u32, now: Time) {
        let ran_well = self.registry.guest(guest).ready_at.after(self.settings.retry_max) <= now;
        if ran_well {
            self.registry.guest_mut(guest).failures = 0;
        }
        self.back_off(guest, now);
        self.look_again(guest, |phase| {
            matches!(phase, Phase::Waiting | Phase::AwaitingQemu | Phase::Attached)
        });
        self.forget_guest(guest);
    }

    fn back_off(&mut self, guest: u32, now: Time) {
        self.registry.guest_mut(guest).qemu = QemuState::BackingOff;
        let wait = self.count_qemu_failure(guest);
        self.set_timer(Owner::Guest(guest), now, wait);
    }

    /// Observes the guest's QEMU devices in these phases as if for the first time, because QEMU may
    /// have changed their nodes until it ended. Observations under way of the others are discarded
    /// for the same reason.
    fn look_again(&mut self, guest: u32, which: fn(Phase) -> bool) {
        let any = |_| true;
        self.each_in(guest, any, |this, index| {
            let device = this.registry.device_mut(index);
            device.void_look();
            if which(device.phase) {
                device.phase = Phase::Waiting;
                this.look(index);
            }
        });
    }

    /// Calls `act` for each of the guest's QEMU devices in such a phase. `act` must not forget a
    /// device.
    fn each_in(&mut self, guest: u32, which: fn(Phase) -> bool, act: impl Fn(&mut Self, u32)) {
        let mut next = self.registry.first_of(guest);
        while let Some(index) = next {
            let device = self.registry.device(index);
            next = device.next.get();
            if device.key.kind.served_by() == ServedBy::Qemu && which(device.phase) {
                act(self, index);
            }
        }
    }

    /// The guest's QEMU devices that `which` selects.
    fn devices_in(
        &self,
        guest: u32,
        which: fn(&Device) -> bool,
    ) -> impl Iterator<Item = u32> + use<'_> {
        let devices = self.registry.devices_of(guest);
        let of_qemu = devices.filter(|(_, device)| device.key.kind.served_by() == ServedBy::Qemu);
        of_qemu.filter(move |(_, device)| which(device)).map(|(index, _)| index)
    }

    /// The failure that forbids the start of a QEMU although a device needs one: a new QEMU would
    /// take up a lost share again. (Of disks, QEMU takes up only those in state 1.)
    fn hindrance(&self, guest: u32) -> Option<QemuFailure> {
        let lost_share = self.registry.devices_of(guest).any(|(_, device)| {
            device.key.kind == Kind::P9 && device.phase == Phase::Failed(Reason::Lost)
        });
        lost_share.then_some(QemuFailure::LostShare)
    }

    /// Forgets a guest that has neither a device nor a QEMU.
    fn forget_guest(&mut self, guest: u32) {
        if self.registry.first_of(guest).is_some() {
            return;
        }
        match self.registry.guest(guest).qemu {
            QemuState::Unknown => {}
            QemuState::Absent | QemuState::BackingOff => {
                let domid = self.registry.guest(guest).domid;
                self.act(Action::ForgetGuest(domid));
            }
            QemuState::Finding | QemuState::Starting | QemuState::Running | QemuState::Stopping => {
                return;
            }
        }
        self.clear_timer(Owner::Guest(guest));
        self.registry.remove_guest(guest);
    }
}

// Devices that QEMU serves.
impl Dispatcher {
    /// Adopts a device that a QEMU has taken up. The device is served if that QEMU still runs.
    pub(crate) fn adopt_served(&mut self, index: u32, connected: bool, now: Time) {
        let device = self.registry.device(index);
        let (key, marked) = (device.key, device.hotplug == HotplugStatus::Refused);
        let lost = self.is_orphaned(index);
        if connected && (lost || marked) {
            return self.fail(index, Reason::Lost, now);
        }
        if lost {
            // Frontends send no request before the backend has connected, so a new QEMU finds the
            // rings unused: rewind the device to state 1, in which QEMU takes devices up.
            self.act(Action::Rewind(key));
            // Ignore the former QEMU's `connected` until the rewind has emptied `hotplug-status`,
            // or the device would count as taken up by the next QEMU.
            self.registry.device_mut(index).unconfirmed_mark = Some(HotplugStatus::Silent);
        }
        self.want_qemu(index, Notice::Adopted, now);
    }

    /// Has the QEMU that took this device up ended?
    fn is_orphaned(&self, index: u32) -> bool {
        let device = self.registry.device(index);
        match self.registry.guest(device.guest).qemu {
            QemuState::Unknown
            | QemuState::Finding
            // The devices of the former QEMU were judged before this QEMU was started.
            | QemuState::Starting
            | QemuState::Running
            // QEMU serves its devices until it has ended; they are judged afterwards.
            | QemuState::Stopping => false,
            QemuState::Absent | QemuState::BackingOff => true,
        }
    }

    /// Has the guest's present QEMU taken up a device with this key?
    pub(crate) fn is_taken_up(&self, index: u32) -> bool {
        let device = self.registry.device(index);
        self.registry.guest(device.guest).qemu == QemuState::Running
            && device.hotplug == HotplugStatus::Connected
            && device.unconfirmed_mark.is_none()
    }

    /// Attaches the device if its guest's QEMU runs, or waits for the QEMU.
    pub(crate) fn want_qemu(&mut self, index: u32, notice: Notice, now: Time) {
        let guest = self.registry.device(index).guest;
        if self.registry.guest(guest).qemu == QemuState::Running {
            return self.attached(index, notice);
        }
        self.registry.device_mut(index).phase = Phase::AwaitingQemu;
        self.reconcile_qemu(guest, now);
    }

    /// Closes a QEMU device that no QEMU serves; a QEMU that serves the device closes it itself.
    pub(crate) fn see_to_close(&mut self, index: u32, now: Time) {
        let device = self.registry.device(index);
        let (key, guest, phase) = (device.key, device.guest, device.phase);
        if key.kind.served_by() != ServedBy::Qemu {
            return;
        }
        // QEMU marks a device that it takes up `connected`; the daemon marks a lost one `error`.
        let taken_up =
            device.hotplug == HotplugStatus::Connected && device.unconfirmed_mark.is_none();
        let lost = phase == Phase::Failed(Reason::Lost) || self.is_orphaned(index);
        if !taken_up || lost {
            self.act(Action::Close(key));
        } else if self.registry.guest(guest).qemu != QemuState::Running {
            self.registry.device_mut(index).phase = Phase::AwaitingQemu;
        } else if phase != Phase::Attached {
            self.attached(index, Notice::Adopted);
        }
        self.reconcile_qemu(guest, now);
    }

    /// Ends the guest's QEMU if no device needs it any more.
    pub(crate) fn release_qemu(&mut self, index: u32, now: Time) {
        let device = self.registry.device(index);
        if device.key.kind.served_by() == ServedBy::Qemu {
            self.reconcile_qemu(device.guest, now);
        }
    }
}
