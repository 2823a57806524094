//! The other two parties of a device: the kernel's backend and the guest's frontend.

use std::collections::BTreeSet;

use devd_core::{DeviceKey, ServedBy};

use super::store::Store;

/// netback and blkback: one step, if the device as it is calls for one.
pub(crate) fn backend(store: &mut Store, key: DeviceKey) {
    let Some(directory) = store.get(key) else { return };
    let frontend = store.frontend(key);
    let told = match key.kind.served_by() {
        // netback waits for the word, blkback for the device.
        ServedBy::NetworkHook => directory.hotplug == Some("connected"),
        ServedBy::BlockHook => directory.physical_device,
        ServedBy::Elsewhere => true,
        ServedBy::Qemu => return,
    };
    let network = key.kind.served_by() == ServedBy::NetworkHook;
    match (directory.state, frontend) {
        (1, _) => store.set_state(key, 2),
        (2, Some(4)) if told => store.set_state(key, 4),
        (2 | 4, None | Some(6)) | (5, None | Some(1 | 6)) => store.set_state(key, 6),
        (6, Some(1)) if directory.online => store.set_state(key, 2),
        // The interface is gone for good.
        (6, _) if !directory.online && network && directory.hotplug.is_some() => {
            store.set_hotplug(key, None);
        }
        _ => {}
    }
}

/// netback forgets the interface and makes another, as when its module is loaded again.
pub(crate) fn rebirth(store: &mut Store, key: DeviceKey) {
    let life = store.begin_life();
    store.set_hotplug(key, None);
    store.write(key, "state", |directory| {
        directory.life = life;
        directory.state = 6;
    });
    store.set_frontend(key, Some(1));
}

/// The frontends' side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frontends {
    /// Guests' devices that will be initialised again once they have closed.
    pub(crate) reviving: BTreeSet<DeviceKey>,
}

impl Frontends {
    /// The guest jumps into another kernel, which will want its devices.
    pub(crate) fn kexec(&mut self, store: &mut Store, key: DeviceKey) {
        if store.frontend(key).is_some() {
            self.reviving.insert(key);
            store.set_frontend(key, Some(6));
        }
    }

    /// One step, if the device as it is calls for one.
    pub(crate) fn step(&mut self, store: &mut Store, key: DeviceKey) {
        let Some(state) = store.frontend(key) else {
            self.reviving.remove(&key);
            return;
        };
        let Some(directory) = store.get(key) else { return };
        match (state, directory.state) {
            (1, 2) if directory.online => store.set_frontend(key, Some(4)),
            (1 | 4, 5) | (4, 6) => store.set_frontend(key, Some(6)),
            (6, 6) if self.reviving.remove(&key) && directory.online => {
                store.set_frontend(key, Some(1));
            }
            _ => {}
        }
    }
}
