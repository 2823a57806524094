//! The toolstack in dom0: makes devices, lets go of them, and does not wait for ever.

use devd_core::{DeviceKey, Domid, Notice, ServedBy};

use super::store::{Directory, Life, Spec};
use super::{Happening, World, kernel};

/// So long a toolstack waits for a directory to vanish before it removes it itself.
pub(crate) const PATIENCE: u64 = 10_000;

impl World {
    /// Makes a device. One of that name that is still there is replaced in the same
    /// transaction.
    pub(crate) fn create(&mut self, spec: &Spec) -> DeviceKey {
        self.trace(|| format!("toolstack: create {spec:?}"));
        self.store.create(spec);
        // What a daemon finds in parts at its first look may be of two devices.
        if !self.daemon.notices.contains(&(spec.key, Notice::Found)) {
            self.invariants.known.remove(&spec.key);
        }
        let daemon = if self.daemon.dispatcher.is_some() { self.daemon.number } else { 0 };
        self.invariants.created(spec.key, daemon, self.phase(spec.key).is_some());
        self.react();
        spec.key
    }

    /// `xl network-detach`, `xl block-detach`, a shutdown.
    pub(crate) fn detach(&mut self, key: DeviceKey, patient: bool) {
        self.trace(|| format!("toolstack: detach {key}"));
        let Some(life) = self.store.get(key).map(|directory| directory.life) else { return };
        self.store.write(key, "online", |directory| directory.online = false);
        self.store.set_state(key, 5);
        self.wait_for(key, life, patient);
        self.react();
    }

    /// `xl destroy`, or the guest's crash: its frontends vanish. Devices of QEMU are written
    /// closed, others may be told that they are not wanted any more.
    pub(crate) fn destroy(&mut self, domid: Domid, offline: bool, patient: bool) {
        self.trace(|| format!("toolstack: destroy {domid}"));
        for key in self.store.keys().into_iter().filter(|key| key.domid == domid) {
            self.store.set_frontend(key, None);
            let Some(directory) = self.store.get(key) else { continue };
            let (life, closed) = (directory.life, directory.state == 6);
            if offline {
                self.store.write(key, "online", |directory| directory.online = false);
            }
            if key.kind.served_by() == ServedBy::Qemu {
                self.store.set_state(key, 6);
            }
            // Of what is closed already nothing happens that the daemon could hear of.
            self.wait_for(key, life, patient && (offline || !closed));
        }
        self.react();
    }

    /// The directory goes, without a word.
    pub(crate) fn delete(&mut self, key: DeviceKey) {
        self.trace(|| format!("toolstack: delete {key}"));
        self.store.remove(key);
        self.store.set_frontend(key, None);
        self.react();
    }

    /// Puts right a node that is missing, or whose value no hook can be started with.
    pub(crate) fn put_right(&mut self, key: DeviceKey, script: &str) {
        self.trace(|| format!("toolstack: put {key} right"));
        let names_nothing = |directory: &Directory| match directory.script.as_deref() {
            None | Some("bad/" | "missing" | "locked" | "uninterpreted") => true,
            Some(_) => false,
        };
        if self.store.get(key).is_some_and(names_nothing) {
            self.store.write(key, "script", |directory| directory.script = Some(script.to_owned()));
        }
        if self.store.get(key).is_some_and(|directory| directory.vif_type.is_none()) {
            self.store.write(key, "type", |directory| directory.vif_type = Some("vif"));
        }
        if self.store.get(key).is_some_and(|directory| directory.gatewaydev.is_some()) {
            self.store.write(key, "gatewaydev", |directory| directory.gatewaydev = None);
        }
        self.react();
    }

    /// The guest starts another kernel, in which its devices are used again.
    pub(crate) fn kexec(&mut self, key: DeviceKey) {
        self.trace(|| format!("guest: kexec {key}"));
        self.frontends.kexec(&mut self.store, key);
        self.react();
    }

    /// netback lets go of its interface and makes another one.
    pub(crate) fn rebirth(&mut self, key: DeviceKey) {
        self.trace(|| format!("netback: rebirth of {key}"));
        kernel::rebirth(&mut self.store, key);
        if self.daemon.dispatcher.is_none() || !self.invariants.known.contains(&key) {
            self.invariants.write_off(key);
        }
        self.react();
    }

    /// netback or blkback cannot serve it: the kernel's log says why, and the store only this.
    pub(crate) fn give_up(&mut self, key: DeviceKey) {
        self.trace(|| format!("backend: gives {key} up"));
        self.store.set_state(key, 5);
        self.react();
    }

    fn wait_for(&mut self, key: DeviceKey, life: Life, patient: bool) {
        if !patient {
            self.clock.after(PATIENCE, Happening::Impatience(key, life));
        }
    }

    /// The toolstack has waited long enough for this directory to vanish.
    pub(crate) fn lose_patience(&mut self, key: DeviceKey, life: Life) {
        if self.store.get(key).is_some_and(|directory| directory.life == life) {
            self.delete(key);
        }
    }
}
