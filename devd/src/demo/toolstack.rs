//! The toolstack: what libxl writes in domain 0 for a guest with a network interface and two
//! disks, and what it waits for.

use std::time::Duration;

use devd_core::{DeviceKey, Domid, Kind};
use xs_client::{Batch, Client, Error, Outcome, Transaction};
use xs_proto::{Access, Permission};

use super::host::DRIVER;

/// A connection of domain 0's.
#[derive(Debug)]
pub(super) struct Toolstack {
    client: Client,
}

/// What a look at a device has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// The `state` of the backend; `None`: there is none.
    pub(super) backend: Option<u8>,
    /// The `state` of the frontend.
    pub(super) frontend: Option<u8>,
    /// Why the daemon does not serve the device, if it says so.
    pub(super) error: Option<String>,
}

/// How many devices a guest has.
pub(super) const DEVICES: usize = 3;

/// The devices of a guest.
pub(super) fn devices(domid: Domid) -> [DeviceKey; DEVICES] {
    // xvda is number 51712, xvdb 51728.
    [(Kind::Vif, 0), (Kind::Vbd, 51712), (Kind::Qdisk, 51728)].map(|(kind, devid)| DeviceKey {
        kind,
        domid,
        devid,
    })
}

impl Toolstack {
    pub(super) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes the home of a guest.
    pub(super) fn create_guest(&mut self, domid: Domid) -> Result<(), Error> {
        let home = home(domid);
        let permissions = [permission(0, Access::None), permission(domid, Access::Read)];
        self.client.transaction(|transaction| {
            transaction.mkdir(&home)?;
            transaction.set_permissions(&home, &permissions)?;
            transaction.write(format!("{home}/name"), format!("guest-{domid}"))?;
            transaction.write(format!("{home}/domid"), domid.to_string())?;
            transaction.mkdir(format!("{home}/device"))?;
            Ok(Outcome::Commit(()))
        })
    }

    /// Removes what is left of it.
    pub(super) fn remove_guest(&mut self, domid: Domid) -> Result<(), Error> {
        self.client.rm(home(domid))
    }

    /// Makes a device: both directories at once, as libxl does.
    pub(super) fn create(&mut self, key: DeviceKey) -> Result<(), Error> {
        let (backend, frontend) = (backend(key), frontend(key));
        let mut batch = Batch::new();
        let driver = permission(DRIVER, Access::None);
        let guest = permission(key.domid, Access::None);
        batch.mkdir(&frontend);
        batch.set_permissions(&frontend, &[guest, permission(DRIVER, Access::Read)]);
        for (node, value) in frontend_nodes(key) {
            batch.write(format!("{frontend}/{node}"), value);
        }
        batch.mkdir(&backend);
        batch.set_permissions(&backend, &[driver, permission(key.domid, Access::Read)]);
        for (node, value) in backend_nodes(key) {
            batch.write(format!("{backend}/{node}"), value);
        }
        self.client.transaction(|transaction| {
            transaction.run(&mut batch)?;
            all_done(&batch)?;
            Ok(Outcome::Commit(()))
        })
    }

    /// Asks to hear of what [`look`](Self::look) looks at.
    pub(super) fn watch(&mut self, key: DeviceKey) -> Result<(), Error> {
        self.client.watch(format!("{}/state", backend(key)), "backend")?;
        self.client.watch(format!("{}/hotplug-status", backend(key)), "hotplug")?;
        self.client.watch(format!("{}/state", frontend(key)), "frontend")
    }

    /// Looks at devices.
    pub(super) fn look(&mut self, keys: &[DeviceKey]) -> Result<Vec<Sight>, Error> {
        let mut batch = Batch::new();
        for key in keys {
            let (backend, frontend) = (backend(*key), frontend(*key));
            batch.read(format!("{backend}/state"));
            batch.read(format!("{frontend}/state"));
            batch.read(format!("{backend}/hotplug-status"));
            batch.read(format!("{backend}/hotplug-error"));
        }
        self.client.run(&mut batch)?;
        let text = |index: usize| std::str::from_utf8(batch.reply(index).ok()?).ok();
        let number = |index| text(index)?.parse().ok();
        let sight = |index| Sight {
            backend: number(index),
            frontend: number(index + 1),
            error: (text(index + 2) == Some("error"))
                .then(|| text(index + 3).unwrap_or("the daemon does not say why").to_owned()),
        };
        Ok((0..keys.len()).map(|place| sight(4 * place)).collect())
    }

    /// Wants the device no longer, as `xl network-detach` and `xl block-detach`.
    pub(super) fn detach(&mut self, key: DeviceKey) -> Result<(), Error> {
        let backend = backend(key);
        self.client.transaction(|transaction| {
            if transaction.exists(format!("{backend}/state"))? {
                transaction.write(format!("{backend}/state"), "5")?;
                transaction.write(format!("{backend}/online"), "0")?;
            }
            Ok(Outcome::Commit(()))
        })
    }

    /// The backend's directory is gone: removes the frontend, and the directories above both
    /// that nothing is left in.
    pub(super) fn clean_up(&mut self, key: DeviceKey) -> Result<(), Error> {
        self.client.transaction(|transaction| {
            remove_with_parents(transaction, &frontend(key), &home(key.domid))?;
            remove_with_parents(transaction, &backend(key), &home(DRIVER))?;
            Ok(Outcome::Commit(()))
        })
    }

    /// Has the daemon anything left of this guest's QEMU?
    pub(super) fn knows_qemu(&mut self, domid: Domid) -> Result<bool, Error> {
        Ok(self.client.exists(format!("{}/libxl/{domid}", home(DRIVER)))?
            || self.client.exists(format!("{}/device-model/{domid}", home(DRIVER)))?)
    }

    /// Asks to hear of that.
    pub(super) fn watch_qemu(&mut self, domid: Domid) -> Result<(), Error> {
        self.client.watch(format!("{}/libxl/{domid}", home(DRIVER)), "qemu")?;
        self.client.watch(format!("{}/device-model/{domid}", home(DRIVER)), "qemu")
    }

    /// Waits until something has happened, at most so long.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        self.client.wait_event(Some(timeout))?;
        // What happened is for the next look to see.
        while self.client.next_event().is_some() {}
        Ok(())
    }
}

fn home(domid: Domid) -> String {
    format!("/local/domain/{domid}")
}

fn backend(key: DeviceKey) -> String {
    format!("{}/{key}", home(DRIVER))
}

fn frontend(key: DeviceKey) -> String {
    // A guest has no other kinds of disks: who serves it is none of its business.
    let kind = if key.kind == Kind::Vif { "vif" } else { "vbd" };
    format!("{}/device/{kind}/{}", home(key.domid), key.devid)
}

const fn permission(domid: Domid, access: Access) -> Permission {
    Permission { domid, access }
}

fn frontend_nodes(key: DeviceKey) -> Vec<(&'static str, String)> {
    let mut nodes =
        vec![("backend", backend(key)), ("backend-id", DRIVER.to_string()), ("state", "1".into())];
    match key.kind {
        Kind::Vif => nodes.extend([
            ("handle", key.devid.to_string()),
            ("mac", mac(key.domid)),
            ("mtu", "1500".into()),
        ]),
        _ => nodes.extend([
            ("virtual-device", key.devid.to_string()),
            ("device-type", "disk".into()),
            ("event-channel", "0".into()),
        ]),
    }
    nodes
}

/// In the order in which libxl writes them.
fn backend_nodes(key: DeviceKey) -> Vec<(&'static str, String)> {
    let ends = [("frontend", frontend(key)), ("frontend-id", key.domid.to_string())];
    let new = [("online", "1".to_owned()), ("state", "1".to_owned())];
    let (own, dev): (Vec<(&str, String)>, _) = match key.kind {
        Kind::Vif => {
            let own = vec![
                ("script", "/etc/xen/scripts/vif-bridge".into()),
                ("mac", mac(key.domid)),
                ("bridge", "xenbr0".into()),
                ("handle", key.devid.to_string()),
                ("type", "vif".into()),
                ("hotplug-status", String::new()),
            ];
            (own, None)
        }
        Kind::Qdisk => {
            (vec![("params", format!("qcow2:/srv/guest-{}-b.qcow2", key.domid))], Some("xvdb"))
        }
        _ => {
            let own = vec![
                ("params", format!("/srv/guest-{}-a.img", key.domid)),
                ("script", "/etc/xen/scripts/block".into()),
            ];
            (own, Some("xvda"))
        }
    };
    let disk = dev.into_iter().flat_map(|dev| {
        let kind = if key.kind == Kind::Qdisk { "qdisk" } else { "phy" };
        [
            ("removable", "0"),
            ("bootable", "1"),
            ("dev", dev),
            ("type", kind),
            ("mode", "w"),
            ("device-type", "disk"),
            ("discard-enable", "1"),
            ("specification", "xen"),
        ]
    });
    let disk = disk.map(|(node, value)| (node, value.to_owned()));
    ends.into_iter().chain(own).chain(new).chain(disk).collect()
}

fn mac(domid: Domid) -> String {
    let [high, low] = domid.to_be_bytes();
    format!("00:16:3e:00:{high:02x}:{low:02x}")
}

/// As `libxl__xs_path_cleanup`, up to a directory that stays.
fn remove_with_parents(
    transaction: &mut Transaction<'_>,
    path: &str,
    stays: &str,
) -> Result<(), Error> {
    match transaction.rm(path) {
        Err(error) if !error.is_missing() => return Err(error),
        _ => {}
    }
    let mut path = path;
    while let Some((parent, _)) = path.rsplit_once('/')
        && parent != stays
    {
        match transaction.directory(parent) {
            Ok(children) if children.is_empty() => transaction.rm(parent)?,
            Ok(_) => break,
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
        path = parent;
    }
    Ok(())
}

fn all_done(batch: &Batch) -> Result<(), Error> {
    match (0..batch.len()).find_map(|index| batch.reply(index).err()) {
        Some(code) => Err(Error::Refused(code.clone())),
        None => Ok(()),
    }
}
