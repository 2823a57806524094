//! Backends, as the kernel's (netback, blkback) and QEMU's behave towards the store: from
//! `state` 1 to 2, to 4 once hook and guest have done their parts, and to 6 when the guest has
//! let go.

use std::collections::HashMap;

use devd_core::{BackendPath, DeviceKey, Kind, XenbusState};
use xs_client::{Batch, Client, Error, Event, Outcome};
use xs_proto::ErrorCode;

use crate::scan;

/// The token of the watch on the devices to serve. That of a watch on a frontend is the
/// device's directory.
const OWN: &[u8] = b"own";

/// Serves the devices of these kinds under `directory`, a path in the driver domain, until the
/// connection ends, which is no error.
pub(super) fn serve(client: Client, directory: &str, kinds: &[Kind]) -> Result<(), Error> {
    let mut backend = Backend { client, kinds, served: HashMap::new() };
    match backend.run(directory) {
        Err(error) if !error.ends_connection() => Err(error),
        _ => Ok(()),
    }
}

struct Backend<'a> {
    client: Client,
    kinds: &'a [Kind],
    /// The devices that are served, and the `state` nodes of their frontends.
    served: HashMap<DeviceKey, String>,
}

impl Backend<'_> {
    fn run(&mut self, directory: &str) -> Result<(), Error> {
        self.client.watch(directory, OWN)?;
        loop {
            let devices = match self.client.wait_event(None)? {
                Some(Event::Watch(event)) => {
                    let path = if event.token == OWN { event.path } else { event.token };
                    match BackendPath::parse(path) {
                        BackendPath::Device(key, _) => vec![key],
                        BackendPath::Guest(kind, domid) => self.devices(kind, domid)?,
                        _ => Vec::new(),
                    }
                }
                Some(Event::Resync) => scan::list_all(&mut self.client)?.devices,
                None => Vec::new(),
            };
            for key in devices.into_iter().filter(|key| self.kinds.contains(&key.kind)) {
                match self.step(key) {
                    Err(error) if is_gone(&error) => self.forget(key)?,
                    result => result?,
                }
            }
        }
    }

    fn devices(&mut self, kind: Kind, domid: u16) -> Result<Vec<DeviceKey>, Error> {
        let names = match self.client.directory(format!("backend/{}/{domid}", kind.name())) {
            Ok(names) => names,
            Err(error) if error.is_missing() => Vec::new(),
            Err(error) => return Err(error),
        };
        let number = |name: &Vec<u8>| std::str::from_utf8(name).ok()?.parse().ok();
        let devids = names.iter().filter_map(number);
        Ok(devids.map(|devid| DeviceKey { kind, domid, devid }).collect())
    }

    /// Looks at the device and does what there is to do.
    fn step(&mut self, key: DeviceKey) -> Result<(), Error> {
        let state = XenbusState::parse(&self.client.read(format!("{key}/state"))?);
        if !self.served.contains_key(&key) {
            return if state == XenbusState::Initialising { self.probe(key) } else { Ok(()) };
        }
        let frontend = self.frontend(key)?;
        match (state, frontend) {
            (XenbusState::InitWait, Some(XenbusState::Initialised | XenbusState::Connected)) => {
                self.connect(key)
            }
            (XenbusState::Closed, _) => Ok(()),
            (_, None | Some(XenbusState::Closed)) => self.close(key, state),
            _ => Ok(()),
        }
    }

    /// Takes up a new device.
    fn probe(&mut self, key: DeviceKey) -> Result<(), Error> {
        let frontend = self.client.read(format!("{key}/frontend"))?;
        let frontend = format!("{}/state", String::from_utf8_lossy(&frontend));
        self.client.watch(&frontend, key.to_string())?;
        self.served.insert(key, frontend);
        if key.kind == Kind::Qdisk {
            self.write(key, &QDISK)?;
        }
        self.write(key, offer(key.kind))?;
        self.switch(key, XenbusState::Initialising, XenbusState::InitWait).map(drop)
    }

    /// Connects the rings, if the hook has done its part.
    fn connect(&mut self, key: DeviceKey) -> Result<(), Error> {
        let awaited = match key.kind {
            Kind::Vif => ("hotplug-status", Some("connected")),
            Kind::Vbd => ("physical-device", None),
            _ => ("state", None),
        };
        match (self.client.read(format!("{key}/{}", awaited.0)), awaited.1) {
            (Err(error), _) if error.is_missing() => return Ok(()),
            (Ok(value), Some(word)) if value != word.as_bytes() => return Ok(()),
            (result, _) => result?,
        };
        if key.kind != Kind::Vif {
            self.write(key, &DISK)?;
        }
        self.switch(key, XenbusState::InitWait, XenbusState::Connected).map(drop)
    }

    /// The guest has let go.
    fn close(&mut self, key: DeviceKey, state: XenbusState) -> Result<(), Error> {
        let is_closed = self.switch(key, state, XenbusState::Closed)?;
        if !is_closed || self.client.read(format!("{key}/online"))? == b"1" {
            return Ok(()); // Another event comes.
        }
        if key.kind == Kind::Vif {
            // As netback does with the interface. The next one needs its hook again.
            self.client.rm(format!("{key}/hotplug-status"))?;
        }
        self.forget(key)
    }

    fn forget(&mut self, key: DeviceKey) -> Result<(), Error> {
        match self.served.remove(&key) {
            Some(frontend) => self.client.unwatch(frontend, key.to_string()),
            None => Ok(()),
        }
    }

    fn frontend(&mut self, key: DeviceKey) -> Result<Option<XenbusState>, Error> {
        let Some(node) = self.served.get(&key) else { return Ok(None) };
        match self.client.read(node) {
            Ok(value) => Ok(Some(XenbusState::parse(&value))),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes `state`, unless somebody else has changed it since it was read. False if so.
    fn switch(
        &mut self,
        key: DeviceKey,
        from: XenbusState,
        to: XenbusState,
    ) -> Result<bool, Error> {
        let node = format!("{key}/state");
        self.client.transaction(|transaction| {
            if XenbusState::parse(&transaction.read(&node)?) != from {
                return Ok(Outcome::Abort(false));
            }
            transaction.write(&node, (to as u8).to_string())?;
            Ok(Outcome::Commit(true))
        })
    }

    fn write(&mut self, key: DeviceKey, nodes: &[(&str, &str)]) -> Result<(), Error> {
        let mut batch = Batch::new();
        for (node, value) in nodes {
            batch.write(format!("{key}/{node}"), value);
        }
        self.client.run(&mut batch)?;
        let refused = (0..batch.len()).find_map(|index| batch.reply(index).err().cloned());
        refused.map_or(Ok(()), |code| Err(Error::Refused(code)))
    }
}

/// Was the device removed in the meantime? Then its nodes are missing, and cannot be made:
/// the directory that it was in is domain 0's.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error.refusal(), Some(ErrorCode::NoEnt | ErrorCode::Acces))
}

/// What a backend offers to the guest before it waits for it.
fn offer(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Vif => &[
            ("feature-sg", "1"),
            ("feature-gso-tcpv4", "1"),
            ("feature-gso-tcpv6", "1"),
            ("feature-ipv6-csum-offload", "1"),
            ("feature-rx-copy", "1"),
            ("feature-rx-flip", "0"),
            ("feature-multicast-control", "1"),
            ("feature-dynamic-multicast-control", "1"),
            ("feature-split-event-channels", "1"),
            ("multi-queue-max-queues", "2"),
            ("feature-ctrl-ring", "1"),
        ],
        Kind::Vbd => &[
            ("feature-max-indirect-segments", "256"),
            ("multi-queue-max-queues", "2"),
            ("max-ring-page-order", "4"),
        ],
        _ => {
            &[("feature-discard", "1"), ("feature-flush-cache", "1"), ("max-ring-page-order", "4")]
        }
    }
}

/// A qdisk has no hook: QEMU itself says that the disk is there.
const QDISK: [(&str, &str); 1] = [("hotplug-status", "connected")];

/// What a guest is told of its disk: 1 GiB.
const DISK: [(&str, &str); 4] =
    [("feature-persistent", "1"), ("sectors", "2097152"), ("info", "0"), ("sector-size", "512")];
