//! What must have happened when nothing more happens.

use devd_core::{DeviceKey, Phase, QemuState, Reason, Remedy, ServedBy};

use super::World;
use super::hooks::{Script, is_startable};

/// Longer than any wait of the daemon.
const LONG: u64 = 500_000;
/// Actions that one more try takes at most: looks, marks, the hook and its end, reports.
const ACTIONS_OF_A_TRY: u64 = 16;

impl World {
    /// Lets all that is under way come to its end, with no more mishaps; checks what is left.
    pub(crate) fn settle(&mut self) {
        self.chance.mishaps = false;
        self.run(LONG);
        for _ in 0..1_000 {
            if self.violation.is_some() || self.is_settled() {
                break;
            }
            self.run(1_000);
        }
        if self.violation.is_none()
            && let Err(violation) = self.check_quiet().and_then(|()| self.check_rest())
        {
            self.violate(violation);
        }
    }

    /// Nothing in the world changes any more. The daemon does no more than to try again what time
    /// can help, once a minute; of all other failures it writes nothing.
    fn check_rest(&mut self) -> Result<(), String> {
        const MINUTES: u64 = 10;
        let (actions, marks, steps) = (self.actions, self.marks.clone(), self.steps);
        self.run(MINUTES * 60_000);
        self.steps = steps;
        if let Some(violation) = self.violation.take() {
            return Err(violation);
        }
        let known = self.dispatcher().devices().count() + self.dispatcher().qemus().count();
        let most = (MINUTES + 1) * ACTIONS_OF_A_TRY * u64::try_from(known).expect("a few");
        let taken = self.actions - actions;
        if taken > most {
            return Err(format!("no rest: {taken} actions in {MINUTES} minutes, {known} known"));
        }
        for (key, phase) in self.dispatcher().devices() {
            let written = self.marks.get(&key) != marks.get(&key);
            let Phase::Failed(reason) = phase else { continue };
            if reason.remedy() != Remedy::Time && written && !self.refuse_marks {
                return Err(format!("no rest: {key} is marked again for {reason:?}"));
            }
        }
        Ok(())
    }

    /// The same in a scenario, where a violation ends the test.
    pub(crate) fn settle_well(&mut self) {
        self.settle();
        self.expect_no_violation();
    }

    pub(crate) fn expect_no_violation(&self) {
        if let Some(violation) = &self.violation {
            panic!("{violation}\n{}", self.story.clone().unwrap_or_default().join("\n"));
        }
    }

    fn is_settled(&self) -> bool {
        !self.store.has_events() && self.dispatcher().is_settled()
    }

    pub(crate) fn check_quiet(&self) -> Result<(), String> {
        let dispatcher = self.dispatcher();
        if !self.is_settled() {
            return Err(format!("it does not come to rest: {dispatcher:?}"));
        }
        if let Some((_, hook)) = self.hooks.running().next() {
            return Err(format!("{}: its hook still runs", hook.key));
        }
        if dispatcher.running_hooks() != 0 {
            return Err("hooks are counted that do not run".to_owned());
        }
        for (key, _) in self.store.list() {
            self.check_device(key)?;
        }
        for (key, phase) in dispatcher.devices() {
            if self.store.get(key).is_none() {
                return Err(format!("{key} is gone and still known: {phase:?}"));
            }
        }
        for (key, work) in self.invariants.leftovers(self.daemon.number) {
            if self.store.get(key).is_none() {
                return Err(format!("{key} is gone, and its hook's work is not: {work:?}"));
            }
        }
        self.check_qemus()?;
        let at_rest = dispatcher.devices().all(|(_, phase)| phase == Phase::Attached);
        let quiet = dispatcher.qemus().all(|(_, state)| state != QemuState::BackingOff);
        if at_rest && quiet && dispatcher.poll_timeout().is_some() {
            return Err("all devices are served, and a deadline is left".to_owned());
        }
        Ok(())
    }

    fn check_device(&self, key: DeviceKey) -> Result<(), String> {
        let directory = self.store.get(key).expect("it is listed");
        let Some(phase) = self.phase(key) else {
            return Err(format!("{key} is not known"));
        };
        if key.kind.served_by() == ServedBy::Qemu && self.is_in_doubt(key) {
            return Ok(());
        }
        if !self.store.is_wanted(key) {
            return Err(format!("{key} is not wanted and its directory stays: {phase:?}"));
        }
        if self.invariants.is_mistaken(key) {
            return Ok(());
        }
        let works = match key.kind.served_by() {
            ServedBy::NetworkHook | ServedBy::BlockHook => {
                let script = directory.script.as_deref().map(Script::parse);
                let typed =
                    directory.vif_type.is_some() || key.kind.served_by() != ServedBy::NetworkHook;
                script.is_some_and(|script| script.works_in_the_end(key.kind.served_by()))
                    && typed
                    && is_startable(key, directory, self.installed)
            }
            ServedBy::Qemu => {
                // Only the QEMU that has closed a disk opens it again.
                let lost = self.qemus.is_lost(key, directory.life) || directory.state == 6;
                if lost != (phase == Phase::Failed(Reason::Lost)) {
                    return Err(format!("{key}: lost is {lost}, and it is {phase:?}"));
                }
                !lost && !self.has_lost_share(key)
            }
            ServedBy::Elsewhere => true,
        };
        let served = directory.state == 4 && phase == Phase::Attached;
        if works && !served {
            return Err(format!("{key} is not served: state {}, {phase:?}", directory.state));
        }
        if works
            && key.kind.served_by() != ServedBy::Elsewhere
            && directory.hotplug != Some("connected")
        {
            return Err(format!("{key} is served, and hotplug-status does not say so"));
        }
        // A hook that was known of the device before it may have served it.
        let told = served && directory.hotplug == Some("connected");
        if !works && !told && !matches!(phase, Phase::Failed(_)) {
            return Err(format!("{key} cannot be served, and it is {phase:?}"));
        }
        let hook = matches!(key.kind.served_by(), ServedBy::NetworkHook | ServedBy::BlockHook);
        // A hook that was killed behind its last write has told blkback all it needs.
        let told = directory.physical_device;
        if works && hook && self.invariants.is_unfinished(key, self.daemon.number, told) {
            return Err(format!("{key} is served, and its hook's work is not in place"));
        }
        Ok(())
    }

    /// Is there a share of the same guest whose QEMU is no more?
    fn has_lost_share(&self, key: DeviceKey) -> bool {
        self.store.list().any(|(other, directory)| {
            other.domid == key.domid
                && other.kind == devd_core::Kind::P9
                && (self.qemus.is_lost(other, directory.life) || directory.state == 6)
        })
    }

    /// Can the daemon not know of a device of the same guest that it is lost?
    fn is_in_doubt(&self, key: DeviceKey) -> bool {
        self.store.list().any(|(other, directory)| {
            let doubtful = self.qemus.is_doubtful(directory.life, self.daemon.number);
            other.domid == key.domid && doubtful
        })
    }

    fn check_qemus(&self) -> Result<(), String> {
        for domid in self.qemus.guests() {
            let mut devices = self.store.list().map(|(key, _)| key);
            if !devices.any(|key| key.domid == domid && key.kind.served_by() == ServedBy::Qemu) {
                return Err(format!("guest {domid} has a QEMU and nothing for it to serve"));
            }
        }
        for domid in &self.qemus.nodes {
            if !self.store.list().any(|(key, _)| key.domid == *domid) {
                return Err(format!("guest {domid} is gone and not forgotten"));
            }
        }
        for (domid, state) in self.dispatcher().qemus() {
            if !self.store.list().any(|(key, _)| key.domid == domid) {
                return Err(format!("guest {domid} has no devices and is known: {state:?}"));
            }
        }
        Ok(())
    }
}
