//! The QEMU of a guest: one process for all its disks and shares that QEMU serves.

use crate::device::{Device, Look};
use crate::dispatcher::Dispatcher;
use crate::timer::Owner;
use crate::{
    Action, Domid, HotplugStatus, Kind, Notice, Phase, Reason, Server, ServiceFailure, Time,
};

/// What is known about a guest's QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// Nobody has asked yet: one that an earlier daemon started may run.
    Unknown,
    /// It is being found out.
    Finding,
    /// None runs.
    Absent,
    /// It has been started and is not ready yet.
    Starting,
    /// It runs and serves.
    Running,
    /// It is being ended.
    Stopping,
    /// It has failed; the next start waits for a deadline.
    BackingOff,
}

/// What happened to a guest's QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceEvent {
    /// It runs and serves.
    Ready,
    /// None runs: none was found, or it was ended as asked.
    Absent,
    /// It could not be started, or has ended unasked.
    Failed(ServiceFailure),
}

impl Dispatcher {
    /// A QEMU that an earlier daemon started may run for this guest. To be called after the
    /// devices that are there have been given to [`look_at`](Self::look_at).
    pub fn handle_service_found(&mut self, domid: Domid) {
        let guest = self.registry.insert_guest(domid);
        self.find_service(guest);
    }

    /// Something happened to a guest's QEMU.
    pub fn handle_service(&mut self, domid: Domid, event: ServiceEvent, now: Time) {
        let Some(guest) = self.registry.find_guest(domid) else { return };
        match (self.registry.guest(guest).service, event) {
            (ServiceState::Finding, ServiceEvent::Ready) => {
                self.service_ready(guest, Notice::Adopted, now);
            }
            (ServiceState::Starting, ServiceEvent::Ready) => {
                self.service_ready(guest, Notice::Attached, now);
            }
            // What its devices are now tells whether they have lost one or never had one.
            (ServiceState::Finding, ServiceEvent::Absent)
            | (ServiceState::Stopping, ServiceEvent::Absent | ServiceEvent::Failed(_)) => {
                // It may have ended before it was told to: nobody is to be told any more.
                self.take_back(Action::StopService(domid));
                self.registry.guest_mut(guest).service = ServiceState::Absent;
                self.look_again(guest, |phase| matches!(phase, Phase::Waiting | Phase::Starting));
                self.reconcile_service(guest, now);
            }
            (ServiceState::Finding | ServiceState::Starting, ServiceEvent::Failed(failure)) => {
                self.service_failed(guest, failure, now);
            }
            (ServiceState::Starting, ServiceEvent::Absent) => {
                self.service_failed(guest, ServiceFailure::Vanished, now);
            }
            (ServiceState::Running, ServiceEvent::Absent | ServiceEvent::Failed(_)) => {
                self.service_lost(guest, now);
            }
            (ServiceState::Running | ServiceState::Stopping, ServiceEvent::Ready) => {}
            // Not a QEMU that this guest is known to have.
            (ServiceState::Unknown | ServiceState::Absent | ServiceState::BackingOff, _) => {}
        }
    }

    /// Does for the guest's QEMU what its devices call for.
    pub(crate) fn reconcile_service(&mut self, guest: u32, now: Time) {
        let any = |which: fn(&Device) -> bool| self.devices_in(guest, which).next().is_some();
        let needed = any(|device| matches!(device.phase, Phase::Starting | Phase::Attached));
        // A look at one that waits will tell what it needs, and what it has lost.
        let undecided = any(|device| device.phase == Phase::Waiting && device.look != Look::Idle);
        // A new QEMU would take up a share that is on its way out.
        let leaving = any(|device| {
            let out = matches!(device.phase, Phase::Waiting | Phase::Lingering | Phase::Removing);
            device.key.kind == Kind::P9 && out
        });
        let domid = self.registry.guest(guest).domid;
        match self.registry.guest(guest).service {
            ServiceState::Unknown if needed => self.find_service(guest),
            ServiceState::Absent if needed && !undecided && !leaving && !self.is_closing() => {
                self.registry.guest_mut(guest).service = ServiceState::Starting;
                match self.hindrance(guest) {
                    Some(failure) => self.service_failed(guest, failure, now),
                    None => self.act(Action::StartService(domid)),
                }
            }
            ServiceState::Running if !needed && !undecided => {
                self.registry.guest_mut(guest).service = ServiceState::Stopping;
                self.act(Action::StopService(domid));
            }
            ServiceState::Unknown
            | ServiceState::Absent
            | ServiceState::Running
            | ServiceState::Finding
            | ServiceState::Starting
            | ServiceState::Stopping
            | ServiceState::BackingOff => {}
        }
        self.forget_guest(guest);
    }

    fn find_service(&mut self, guest: u32) {
        let guest = self.registry.guest_mut(guest);
        if guest.service == ServiceState::Unknown {
            guest.service = ServiceState::Finding;
            let domid = guest.domid;
            self.act(Action::FindService(domid));
        }
    }

    pub(crate) fn service_deadline(&mut self, guest: u32, now: Time) {
        if self.registry.guest(guest).service == ServiceState::BackingOff {
            self.registry.guest_mut(guest).service = ServiceState::Absent;
            self.look_again(guest, |phase| matches!(phase, Phase::Failed(Reason::Service(_))));
            self.reconcile_service(guest, now);
        }
    }

    fn service_ready(&mut self, guest: u32, notice: Notice, now: Time) {
        let state = self.registry.guest_mut(guest);
        state.service = ServiceState::Running;
        state.ready_at = now;
        self.each_in(
            guest,
            |phase| phase == Phase::Starting,
            |this, index| this.attached(index, notice),
        );
        self.reconcile_service(guest, now);
    }

    /// It could not be started: the devices that wait for it are told, and tried again later.
    fn service_failed(&mut self, guest: u32, failure: ServiceFailure, now: Time) {
        self.back_off(guest, now);
        self.each_in(
            guest,
            |phase| phase == Phase::Starting,
            |this, index| {
                this.fail(index, Reason::Service(failure), now);
            },
        );
        self.look_again(guest, |phase| phase == Phase::Waiting);
        self.forget_guest(guest);
    }

    /// It ended unasked. Devices that it had taken up are lost; the others get a new one.
    fn service_lost(&mut self, guest: u32, now: Time) {
        let ran_well = self.registry.guest(guest).ready_at.after(self.settings.retry_max) <= now;
        if ran_well {
            self.registry.guest_mut(guest).failures = 0;
        }
        self.back_off(guest, now);
        self.look_again(guest, |phase| {
            matches!(phase, Phase::Waiting | Phase::Starting | Phase::Attached)
        });
        self.forget_guest(guest);
    }

    fn back_off(&mut self, guest: u32, now: Time) {
        self.registry.guest_mut(guest).service = ServiceState::BackingOff;
        let wait = self.count_service_failure(guest);
        self.set_timer(Owner::Guest(guest), now, wait);
    }

    /// The guest's QEMU devices in these phases are looked at as if for the first time: what
    /// was seen before may have changed until the QEMU ended. So may what is being looked at of
    /// any other.
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

    /// Does something to each of the guest's devices that QEMU serves and that are in such a
    /// phase. None of them is forgotten by it.
    fn each_in(&mut self, guest: u32, which: fn(Phase) -> bool, act: impl Fn(&mut Self, u32)) {
        let mut next = self.registry.first_of(guest);
        while let Some(index) = next {
            let device = self.registry.device(index);
            next = device.next.get();
            if device.key.kind.server() == Server::Qemu && which(device.phase) {
                act(self, index);
            }
        }
    }

    /// The guest's devices that QEMU serves and that are in such a phase.
    fn devices_in(
        &self,
        guest: u32,
        which: fn(&Device) -> bool,
    ) -> impl Iterator<Item = u32> + use<'_> {
        let devices = self.registry.devices_of(guest);
        let of_qemu = devices.filter(|(_, device)| device.key.kind.server() == Server::Qemu);
        of_qemu.filter(move |(_, device)| which(device)).map(|(index, _)| index)
    }

    /// Why no QEMU may be started for a guest although a device needs one. A new QEMU takes
    /// up disks in state 1 only, but every share it finds.
    fn hindrance(&self, guest: u32) -> Option<ServiceFailure> {
        let lost_share = self.registry.devices_of(guest).any(|(_, device)| {
            device.key.kind == Kind::P9 && device.phase == Phase::Failed(Reason::Lost)
        });
        lost_share.then_some(ServiceFailure::LostShare)
    }

    /// A guest is known as long as it has a device or a QEMU.
    fn forget_guest(&mut self, guest: u32) {
        if self.registry.first_of(guest).is_some() {
            return;
        }
        match self.registry.guest(guest).service {
            ServiceState::Unknown => {}
            ServiceState::Absent | ServiceState::BackingOff => {
                let domid = self.registry.guest(guest).domid;
                self.act(Action::ForgetGuest(domid));
            }
            ServiceState::Finding
            | ServiceState::Starting
            | ServiceState::Running
            | ServiceState::Stopping => return,
        }
        self.clear_timer(Owner::Guest(guest));
        self.registry.remove_guest(guest);
    }
}

// What becomes of the devices that it serves.
impl Dispatcher {
    /// A device that a QEMU has taken up: served, if that QEMU still runs.
    pub(crate) fn adopt_served(&mut self, index: u32, connected: bool, now: Time) {
        let device = self.registry.device(index);
        let (key, marked) = (device.key, device.hotplug == HotplugStatus::Refused);
        let lost = self.is_orphaned(index);
        if connected && (lost || marked) {
            return self.fail(index, Reason::Lost, now);
        }
        if lost {
            // Frontends send nothing before the backend has connected, so a new QEMU finds
            // the rings as they were made. It takes up devices in state 1.
            self.act(Action::Rewind(key));
            // Until it is as new, what the last QEMU has said of it is no word of the next one.
            self.registry.device_mut(index).owed = Some(HotplugStatus::Silent);
        }
        self.want_service(index, Notice::Adopted, now);
    }

    /// Is the QEMU that has taken this device up no more?
    fn is_orphaned(&self, index: u32) -> bool {
        let device = self.registry.device(index);
        match self.registry.guest(device.guest).service {
            ServiceState::Unknown
            | ServiceState::Finding
            // What the one before had left was judged before this one was started.
            | ServiceState::Starting
            | ServiceState::Running
            // It serves until it has ended; what it has left is judged afterwards.
            | ServiceState::Stopping => false,
            ServiceState::Absent | ServiceState::BackingOff => true,
        }
    }

    /// Has the QEMU that its guest has now taken up a device of this name?
    pub(crate) fn is_taken_up(&self, index: u32) -> bool {
        let device = self.registry.device(index);
        self.registry.guest(device.guest).service == ServiceState::Running
            && device.hotplug == HotplugStatus::Connected
            && device.owed.is_none()
    }

    /// The device needs its guest's QEMU.
    pub(crate) fn want_service(&mut self, index: u32, notice: Notice, now: Time) {
        let guest = self.registry.device(index).guest;
        if self.registry.guest(guest).service == ServiceState::Running {
            return self.attached(index, notice);
        }
        self.registry.device_mut(index).phase = Phase::Starting;
        self.reconcile_service(guest, now);
    }

    /// A device that QEMU serves wants to close. That is for its QEMU to do, if it has one.
    pub(crate) fn see_to_close(&mut self, index: u32, now: Time) {
        let device = self.registry.device(index);
        let (key, guest, phase) = (device.key, device.guest, device.phase);
        if key.kind.server() != Server::Qemu {
            return;
        }
        // QEMU says `connected` of what it takes up, and the daemon `error` of what is lost.
        let taken_up = device.hotplug == HotplugStatus::Connected && device.owed.is_none();
        let lost = phase == Phase::Failed(Reason::Lost) || self.is_orphaned(index);
        if !taken_up || lost {
            self.act(Action::Close(key));
        } else if self.registry.guest(guest).service != ServiceState::Running {
            self.registry.device_mut(index).phase = Phase::Starting;
        } else if phase != Phase::Attached {
            self.attached(index, Notice::Adopted);
        }
        self.reconcile_service(guest, now);
    }

    /// The device does not need its guest's QEMU any more.
    pub(crate) fn release_service(&mut self, index: u32, now: Time) {
        let device = self.registry.device(index);
        if device.key.kind.server() == Server::Qemu {
            self.reconcile_service(device.guest, now);
        }
    }
}
