//! The whole daemon under many guests at once, each with a network interface, two disks and a
//! disk served by QEMU: all attached, then all taken away. Its hook and its QEMU cost next to
//! nothing, the store is the embedded one.
//!
//!     cargo bench -p benches --bench storm [-- GUESTS ...]
//!
//! What the daemon takes of each device must not grow with their number.

mod site;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use site::{DRIVER, Daemon, Device, Result, check, install_hook, millis};
use xs_client::embedded::{Options, Quota, Store};
use xs_client::{Client, Event};
use xs_proto::MessageType;

/// The devices of a guest.
fn devices(guest: u16) -> [Device; 4] {
    [("vif", 0), ("vbd", 51712), ("vbd", 51728), ("qdisk", 51744)].map(|(kind, devid)| Device {
        kind,
        guest,
        devid,
    })
}

/// The store, and in it all that is not the daemon: toolstack, kernel and guests.
struct World<'a> {
    store: &'a Store,
    watch: Client,
    /// Devices that are where they are to be.
    done: HashSet<Device>,
}

impl World<'_> {
    fn write(&self, path: &str, value: &str) -> Result<()> {
        let written = self.store.write(path.as_bytes(), value.as_bytes());
        written.map_err(|code| format!("{path}: {code}").into())
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.store.read(path.as_bytes()).ok()
    }

    /// Lets everybody do their part until so many devices are done.
    fn until(&mut self, count: usize, step: fn(&mut Self, Device) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        while self.done.len() < count {
            check(begin, "the storm")?;
            self.hear(Duration::from_secs(1), step)?;
        }
        Ok(())
    }

    /// Does what the next event calls for, if there is one.
    fn hear(&mut self, wait: Duration, step: fn(&mut Self, Device) -> Result<()>) -> Result<bool> {
        let device = match self.watch.wait_event(Some(wait))? {
            Some(Event::Watch(event)) => match Device::of(event.path) {
                Some((device, "" | "state" | "hotplug-status")) => Some(device),
                Some(_) => None,
                // A QEMU is running: it takes up its disk.
                None => {
                    let path = std::str::from_utf8(event.path)?.strip_suffix("/state");
                    let guest = path.and_then(|path| path.rsplit('/').next()?.parse().ok());
                    guest.map(|guest| devices(guest)[3])
                }
            },
            Some(Event::Resync) => return Err("events were lost".into()),
            None => return Ok(false),
        };
        device.map_or(Ok(()), |device| step(self, device))?;
        Ok(true)
    }

    fn attach(&mut self, device: Device) -> Result<()> {
        let node = |name: &str| format!("{}/{name}", device.backend());
        let state = self.read(&node("state"));
        let running = format!("/local/domain/{DRIVER}/device-model/{}/state", device.guest);
        match (device.kind, state.as_deref()) {
            ("qdisk", Some(b"1")) if self.read(&running).is_some() => {
                self.write(&node("hotplug-status"), "connected")?;
                self.write(&node("state"), "2")?;
            }
            ("vif" | "vbd", Some(b"1")) => self.write(&node("state"), "2")?,
            (_, Some(b"2"))
                if self.read(&node("hotplug-status")).as_deref() == Some(b"connected") =>
            {
                self.write(&node("state"), "4")?;
            }
            (_, Some(b"4")) => {
                self.done.insert(device);
            }
            _ => {}
        }
        Ok(())
    }

    fn detach(&mut self, device: Device) -> Result<()> {
        let node = |name: &str| format!("{}/{name}", device.backend());
        match self.read(&node("state")).as_deref() {
            Some(b"5") => self.write(&node("state"), "6")?,
            None => {
                self.done.insert(device);
            }
            _ => {}
        }
        Ok(())
    }
}

fn storm(guests: u16) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    install_hook(path)?;
    let count = usize::from(guests) * 4;
    // A directory with so many children is larger than a real store lets a domain have it.
    let quota = Quota { nodes: 1000 + 30 * count, node_size: 1 << 20, ..Quota::default() };
    let store = Store::with_options(&Options { quota, ..Options::default() });
    let home = format!("/local/domain/{DRIVER}");
    for (node, access) in [("backend", "n0\0r7\0"), ("libxl", "n7\0"), ("device-model", "n7\0")] {
        let node = format!("{home}/{node}");
        store.mkdir(node.as_bytes()).map_err(|code| code.to_string())?;
        let set = store.set_permissions(node.as_bytes(), access.as_bytes());
        set.map_err(|code| code.to_string())?;
    }
    let socket = path.join("store");
    let server = store.serve(&socket, DRIVER)?;

    let mut command = site::bare(site::devd()?);
    command.args(["-F", "--hooks", "script", "--log-level", "info", "--xenstore"]).arg(&socket);
    command.arg("--script-dir").arg(path).arg("--log").arg(path.join("devd.log"));
    command.arg("--qemu").arg(path.join("qemu"));
    let begin = Instant::now();
    let daemon = Daemon::start(command, &path.join("said"))?;
    // The store is its: it says when the daemon has begun.
    while store.read(format!("{home}/libxl/disable_udev").as_bytes()).is_err() {
        check(begin, "the start")?;
        std::thread::sleep(Duration::from_micros(100));
    }
    let mut watch = Client::new(store.connect(0)?);
    watch.watch(format!("{home}/backend"), "backend")?;
    watch.watch(format!("{home}/device-model"), "qemu")?;
    let mut world = World { store: &store, watch, done: HashSet::new() };
    let counts = || {
        let connections = store.connections().into_iter();
        let own = connections.filter(|(_, domid, _)| *domid == DRIVER).min_by_key(|(id, ..)| *id);
        own.map(|(.., counts)| counts).ok_or("the daemon has lost its connection")
    };

    let all: Vec<Device> = (1000..1000 + guests).flat_map(devices).collect();
    let (before, cpu) = (counts()?, daemon.cpu()?);
    let begin = Instant::now();
    let mut toolstack = Client::new(store.connect(0)?);
    for device in &all {
        let (backend, frontend) = (device.backend(), device.frontend());
        let owner = |domid| [xs_proto::Permission { domid, access: xs_proto::Access::None }];
        toolstack.transaction(|transaction| {
            transaction.mkdir(&frontend)?;
            transaction.mkdir(&backend)?;
            transaction.set_permissions(&backend, &owner(DRIVER))?;
            for (node, value) in device.nodes(path) {
                transaction.write(format!("{backend}/{node}"), value)?;
            }
            Ok(xs_client::Outcome::Commit(()))
        })?;
        while world.hear(Duration::ZERO, World::attach)? {}
    }
    world.until(count, World::attach)?;
    let attached = begin.elapsed();
    let attach_cpu = daemon.cpu()? - cpu;
    let (resident, _) = daemon.memory()?;

    world.done.clear();
    let begin = Instant::now();
    for device in &all {
        let backend = device.backend();
        toolstack.transaction(|transaction| {
            transaction.write(format!("{backend}/state"), "5")?;
            transaction.write(format!("{backend}/online"), "0")?;
            Ok(xs_client::Outcome::Commit(()))
        })?;
        while world.hear(Duration::ZERO, World::detach)? {}
    }
    world.until(count, World::detach)?;
    let gone = begin.elapsed();
    // With the last disk its QEMU goes, and with the guest what was noted of it.
    let begin = Instant::now();
    while store.directory(format!("{home}/libxl").as_bytes()).is_ok_and(|names| names.len() > 1) {
        check(begin, "the end of the QEMUs")?;
        std::thread::sleep(Duration::from_millis(1));
    }
    let cpu = daemon.cpu()? - cpu;
    let spent = counts()?.since(&before);
    let watches = counts()?.of(MessageType::Watch) - counts()?.of(MessageType::Unwatch);
    let (_, peak) = daemon.memory()?;
    let each = |number: f64| number / count as f64;
    println!(
        "{guests:>6} {count:>8} {:>9.2} s {:>9.2} s {:>11.1} us {:>11.1} us {:>10.1} {:>9} KiB {:>9} KiB {watches:>8} {:>8}",
        attached.as_secs_f64(),
        gone.as_secs_f64(),
        each(millis(attach_cpu) * 1000.0),
        each(millis(cpu) * 1000.0),
        each(spent.total() as f64),
        resident,
        peak,
        daemon.threads()?,
    );
    drop((daemon, server));
    Ok(())
}

fn main() -> Result<()> {
    let mut sizes = Vec::new();
    for word in site::arguments() {
        sizes.push(word.parse().map_err(|_| format!("{word}: not a number of guests"))?);
    }
    if sizes.is_empty() {
        sizes = vec![100, 1000, 4000];
    }
    println!(
        "{:>6} {:>8} {:>11} {:>11} {:>14} {:>14} {:>10} {:>13} {:>13} {:>8} {:>8}",
        "guests",
        "devices",
        "attached",
        "removed",
        "CPU to attach",
        "CPU of a life",
        "requests",
        "resident",
        "at most",
        "watches",
        "threads"
    );
    sizes.into_iter().try_for_each(storm)
}
