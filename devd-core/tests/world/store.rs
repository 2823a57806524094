//! The store: backend directories, frontends, and the watch events of their changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use devd_core::{DeviceKey, Domid, Kind};

/// One life of a device: from the making of its directory, or the rebirth of its interface in
/// netback, to its end.
pub(crate) type Life = u32;

/// A backend directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) life: Life,
    pub(crate) state: u8,
    pub(crate) online: bool,
    pub(crate) hotplug: Option<&'static str>,
    pub(crate) script: Option<String>,
    pub(crate) vif_type: Option<&'static str>,
    pub(crate) gatewaydev: Option<&'static str>,
    pub(crate) physical_device: bool,
    /// Since when it has been in this state.
    pub(crate) since: u64,
}

/// What the toolstack puts into a new directory.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) key: DeviceKey,
    pub(crate) script: Option<String>,
    pub(crate) vif_type: Option<&'static str>,
    pub(crate) gatewaydev: Option<&'static str>,
}

impl Spec {
    /// A device as it should be, whose hook does this.
    pub(crate) fn new(kind: Kind, domid: Domid, devid: u32, script: &str) -> Self {
        Self {
            key: DeviceKey { kind, domid, devid },
            script: matches!(kind, Kind::Vif | Kind::Vbd | Kind::Vbd3).then(|| script.to_owned()),
            vif_type: (kind == Kind::Vif).then_some("vif"),
            gatewaydev: None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    directories: BTreeMap<DeviceKey, Directory>,
    /// The states of the frontends that exist.
    frontends: BTreeMap<DeviceKey, u8>,
    /// Events that the daemon has not read.
    events: VecDeque<String>,
    /// Events were dropped: what they said is not known.
    lost: bool,
    lives: Life,
    now: u64,
    /// Devices that have changed on either side, for those who watch them.
    changed: BTreeSet<DeviceKey>,
}

// What is there.
impl Store {
    pub(crate) fn get(&self, key: DeviceKey) -> Option<&Directory> {
        self.directories.get(&key)
    }

    pub(crate) fn frontend(&self, key: DeviceKey) -> Option<u8> {
        self.frontends.get(&key).copied()
    }

    /// All directories.
    pub(crate) fn list(&self) -> impl Iterator<Item = (DeviceKey, &Directory)> {
        self.directories.iter().map(|(key, directory)| (*key, directory))
    }

    /// Where something of a device is: a directory or a frontend.
    pub(crate) fn keys(&self) -> BTreeSet<DeviceKey> {
        self.directories.keys().chain(self.frontends.keys()).copied().collect()
    }

    /// Does somebody want this device, and is there a guest to have it?
    pub(crate) fn is_wanted(&self, key: DeviceKey) -> bool {
        self.get(key).is_some_and(|directory| directory.online) && self.frontend(key).is_some()
    }
}

// What a search tells states apart by.
impl Store {
    /// Feeds all that matters from now on. Since when a device is closed matters up to this long.
    pub(crate) fn fingerprint(&self, linger: u64, state: &mut impl Hasher) {
        for (key, directory) in &self.directories {
            let Directory {
                life,
                state: xenbus_state,
                online,
                hotplug,
                script,
                vif_type,
                gatewaydev,
                physical_device,
                since,
            } = directory;
            (key, life, xenbus_state, online, hotplug, script).hash(state);
            (vif_type, gatewaydev, physical_device).hash(state);
            self.now.saturating_sub(*since).min(linger).hash(state);
        }
        (&self.frontends, &self.events, self.lost, self.lives).hash(state);
    }
}

// How it changes.
impl Store {
    pub(crate) fn set_time(&mut self, now: u64) {
        self.now = now;
    }

    /// Makes a device, its directory and its frontend, in one transaction. What was there goes
    /// in the same.
    pub(crate) fn create(&mut self, spec: &Spec) -> Life {
        let key = spec.key;
        self.remove(key);
        let life = self.begin_life();
        let directory = Directory {
            life,
            state: 1,
            online: true,
            hotplug: Some(""),
            script: spec.script.clone(),
            vif_type: spec.vif_type,
            gatewaydev: spec.gatewaydev,
            physical_device: false,
            since: self.now,
        };
        self.directories.insert(key, directory);
        self.frontends.insert(key, 1);
        for node in ["", "/frontend", "/online", "/state", "/script", "/type"] {
            self.fire(format!("{key}{node}"));
        }
        self.changed.insert(key);
        life
    }

    pub(crate) fn begin_life(&mut self) -> Life {
        self.lives += 1;
        self.lives
    }

    /// Changes one node of a directory, if that is there.
    pub(crate) fn write(
        &mut self,
        key: DeviceKey,
        node: &str,
        change: impl FnOnce(&mut Directory),
    ) {
        let Some(directory) = self.directories.get_mut(&key) else { return };
        let state = directory.state;
        change(directory);
        if directory.state != state {
            directory.since = self.now;
        }
        self.fire(format!("{key}/{node}"));
        self.changed.insert(key);
    }

    pub(crate) fn set_state(&mut self, key: DeviceKey, state: u8) {
        self.write(key, "state", |directory| directory.state = state);
    }

    pub(crate) fn set_hotplug(&mut self, key: DeviceKey, word: Option<&'static str>) {
        self.write(key, "hotplug-status", |directory| directory.hotplug = word);
    }

    /// Removes a directory with all that is in it: one event.
    pub(crate) fn remove(&mut self, key: DeviceKey) {
        if self.directories.remove(&key).is_some() {
            self.fire(key.to_string());
            self.changed.insert(key);
        }
    }

    pub(crate) fn set_frontend(&mut self, key: DeviceKey, state: Option<u8>) {
        match state {
            Some(state) => self.frontends.insert(key, state),
            None => self.frontends.remove(&key),
        };
        self.changed.insert(key);
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(crate) fn take_changed(&mut self) -> BTreeSet<DeviceKey> {
        std::mem::take(&mut self.changed)
    }
}

// Watch events.
impl Store {
    /// An event; one like it that nobody has read is enough.
    pub(crate) fn fire(&mut self, path: String) {
        if !self.events.contains(&path) {
            self.events.push_back(path);
        }
    }

    pub(crate) fn has_events(&self) -> bool {
        self.lost || !self.events.is_empty()
    }

    pub(crate) fn drop_events(&mut self, which: impl Fn(&str) -> bool) {
        self.events.retain(|path| !which(path));
    }

    /// The oldest event.
    pub(crate) fn read_event(&mut self) -> Option<String> {
        self.events.pop_front()
    }

    /// Somebody did not read for too long.
    pub(crate) fn lose_events(&mut self) {
        self.events.clear();
        self.lost = true;
    }

    /// Were events lost? Then all must be looked at, from now on.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Another connection, whose watch fires once when it is set.
    pub(crate) fn reconnect(&mut self) {
        self.events.clear();
        self.lost = false;
        self.fire("backend".to_owned());
    }
}
