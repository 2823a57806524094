//! QEMUs that serve guests' disks and shares, and that outlive the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use devd_core::{DeviceKey, Domid, Kind, ServedBy};

use super::store::{Life, Store};

/// How far a QEMU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Starting,
    Running,
    /// It was told to end. Until it has, it serves.
    Ending,
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    id: u32,
    pub(crate) stage: Stage,
    /// The daemon that looks after it.
    pub(crate) daemon: u32,
    served: BTreeMap<DeviceKey, Life>,
}

/// One for each guest that has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Qemus {
    processes: BTreeMap<Domid, Process>,
    started: u32,
    /// The rings that are connected, and the QEMU that has connected each.
    rings: BTreeMap<Life, u32>,
    /// Lives that are lost and of which the store has not let a daemon, this one, say so, or no
    /// daemon (0) could.
    untold: BTreeMap<Life, u32>,
    /// Guests with nodes of a QEMU in the store.
    pub(crate) nodes: BTreeSet<Domid>,
}

impl Qemus {
    pub(crate) fn get(&self, domid: Domid) -> Option<&Process> {
        self.processes.get(&domid)
    }

    pub(crate) fn get_mut(&mut self, domid: Domid) -> Option<&mut Process> {
        self.processes.get_mut(&domid)
    }

    pub(crate) fn guests(&self) -> impl Iterator<Item = Domid> {
        self.processes.keys().copied()
    }

    /// Starts one; its name among all that ever were.
    pub(crate) fn start(&mut self, domid: Domid, daemon: u32) -> u32 {
        self.started += 1;
        let id = self.started;
        let served = BTreeMap::new();
        self.processes.insert(domid, Process { id, stage: Stage::Starting, daemon, served });
        self.nodes.insert(domid);
        id
    }

    pub(crate) fn is(&self, domid: Domid, id: u32) -> bool {
        self.get(domid).is_some_and(|process| process.id == id)
    }

    pub(crate) fn id(&self, domid: Domid) -> Option<u32> {
        self.get(domid).map(|process| process.id)
    }

    /// It is no more.
    pub(crate) fn end(&mut self, domid: Domid) -> Option<Process> {
        self.processes.remove(&domid)
    }

    /// Has the QEMU that had connected this device ended?
    pub(crate) fn is_lost(&self, key: DeviceKey, life: Life) -> bool {
        self.rings.get(&life).is_some_and(|id| !self.is(key.domid, *id))
    }

    /// This daemon says of a device that it is lost; the store keeps that, or refuses to.
    pub(crate) fn told(&mut self, life: Life, daemon: u32, kept: bool) {
        if kept {
            // One that was forgiven was lost all the same; no QEMU has this name.
            if self.untold.remove(&life).is_some() {
                self.rings.entry(life).or_insert(0);
            }
        } else {
            self.untold.insert(life, daemon);
        }
    }

    /// Is this all that this daemon can know: it was connected, and a QEMU runs?
    pub(crate) fn is_doubtful(&self, life: Life, daemon: u32) -> bool {
        self.untold.get(&life).is_some_and(|other| *other != daemon)
    }

    /// Nobody has told the daemon of this device: it cannot know that it has lost its QEMU.
    pub(crate) fn forgive(&mut self, life: Life) {
        self.rings.remove(&life);
    }

    /// The rings that are connected, and devices that are served: a step changes either.
    pub(crate) fn rings(&self) -> (usize, usize) {
        (self.rings.len(), self.processes.values().map(|process| process.served.len()).sum())
    }

    /// Feeds all that matters from now on; numbers of QEMUs count only as those that run and those
    /// that do not.
    pub(crate) fn fingerprint(&self, state: &mut impl Hasher) {
        for (domid, process) in &self.processes {
            (domid, process.stage, process.daemon, &process.served).hash(state);
        }
        for (life, id) in &self.rings {
            let runs = self.processes.values().any(|process| process.id == *id);
            (life, runs).hash(state);
        }
        (&self.untold, &self.nodes).hash(state);
    }

    /// One step for one of its guest's devices, if that calls for one. An error: it has been
    /// given a ring that another had begun.
    pub(crate) fn step(&mut self, store: &mut Store, key: DeviceKey) -> Result<(), String> {
        if key.kind.served_by() != ServedBy::Qemu {
            return Ok(());
        }
        let Some(directory) = store.get(key) else { return Ok(()) };
        let (life, state, online) = (directory.life, directory.state, directory.online);
        let frontend = store.frontend(key);
        if state == 6 {
            self.rings.remove(&life);
        }
        let lost = self.is_lost(key, life);
        let daemon = self.get(key.domid).map_or(0, |process| process.daemon);
        let doubtful = self.is_doubtful(life, daemon);
        let Some(process) = self.processes.get_mut(&key.domid) else { return Ok(()) };
        if process.stage == Stage::Starting {
            return Ok(());
        }
        if process.served.get(&key) != Some(&life) {
            // Shares it takes as they come, disks only if nobody has begun with them.
            if if key.kind == Kind::P9 { state < 5 } else { state == 1 } {
                if lost && !doubtful {
                    return Err(format!("{key} was lost with its QEMU and is given to another"));
                }
                process.served.insert(key, life);
                store.set_hotplug(key, Some("connected"));
                store.set_state(key, 2);
            }
            return Ok(());
        }
        match (state, frontend) {
            (2, Some(4)) => {
                self.rings.insert(life, process.id);
                store.set_state(key, 4);
            }
            (2 | 4 | 5, None | Some(6)) | (5, Some(1)) => store.set_state(key, 6),
            (6, Some(1)) if online => store.set_state(key, 2),
            _ => {}
        }
        Ok(())
    }
}
