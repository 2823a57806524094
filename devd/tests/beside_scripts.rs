//! The built-in hooks beside Xen's scripts under the stock `xl devd`: both make the same ports
//! and disks, on the real xenstored with real interfaces and loop devices. How long each takes is
//! printed, and judged by nobody here:
//!
//!     DEVD_PILE=50 cargo test --release -p devd --test beside_scripts -- --ignored --nocapture

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::xenstored::{Process, Xenstored};
use support::{DOMID, Devd, Device, disk, network, toolstack};
use xs_client::Client;
use xs_proto::{Access, Permission};

/// So many devices of each kind, one behind the other, all kept.
fn count() -> u32 {
    std::env::var("DEVD_PILE").map_or(2, |count| count.parse().unwrap())
}

fn daemon(name: &str, store: &Xenstored) -> Process {
    let directory = store.path();
    let mut command = if name == "xl" {
        let mut command = store.program("xl-devd.sh");
        command.arg(directory).arg(DOMID.to_string());
        command
    } else {
        let mut command = Devd::command(directory);
        command.args(["-F", "--hooks", "builtin"]);
        command.env("XENSTORED_PATH", directory.join("dom7.sock"));
        command
    };
    Process::start(command.stderr(fs::File::create(directory.join("said")).unwrap()))
}

/// From state 2 to the hook's word.
fn connect(toolstack: &mut Client, device: &Device, first: bool) -> Duration {
    let node = |name: &str| format!("{}/{name}", device.backend());
    toolstack::attach(toolstack, device);
    if device.kind == "vif" {
        // libxl makes it; Xen's script fails without it.
        let mtu = format!("{}/mtu", device.frontend());
        let permission = |domid, access| Permission { domid, access };
        let permissions = [permission(DOMID, Access::None), permission(device.guest, Access::Read)];
        toolstack.write(&mtu, "").unwrap();
        toolstack.set_permissions(&mtu, &permissions).unwrap();
    }
    let status = node("hotplug-status");
    toolstack.watch(&status, "measure").unwrap();
    let begin = Instant::now();
    toolstack.write(node("state"), "2").unwrap();
    let connected = |toolstack: &mut Client| match toolstack.read(&status) {
        Ok(value) => value == b"connected",
        Err(error) if error.is_missing() => false,
        Err(error) => panic!("{error}"),
    };
    while !connected(toolstack) {
        let error = toolstack.read(node("hotplug-error")).unwrap_or_default();
        assert!(error.is_empty(), "{}: {}", device.path(), error.escape_ascii());
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", device.path());
        let event = toolstack.wait_event(Some(Duration::from_millis(100))).unwrap();
        // `xl devd` may miss a state that changes just when it begins to watch.
        let missed = first || begin.elapsed() > Duration::from_secs(5);
        if missed && event.is_none() {
            toolstack.write(node("state"), "2").unwrap();
        }
    }
    let took = begin.elapsed();
    toolstack.unwatch(&status, "measure").unwrap();
    took
}

/// Shows what a daemon wrote to standard error when the test fails.
struct Said<'a>(&'a Path);

impl Drop for Said<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.0.join("said")).unwrap_or_default());
        }
    }
}

/// Frees the loop devices of files in a directory, also when the test fails.
struct Clean<'a>(&'a Path);

impl Drop for Clean<'_> {
    fn drop(&mut self) {
        disk::clean(self.0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Vif,
    /// A disk in a block device, the same for all.
    Device,
    /// A disk in a file of its own.
    File,
}

/// The times of so many devices of one kind. Each pile has a store of its own: `xl devd` and the
/// store's quotas do not take them all.
fn pile(name: &str, kind: Kind, directory: &Path) -> Vec<Duration> {
    let store = Xenstored::start();
    let mut toolstack = store.toolstack();
    let _said = Said(store.path());
    let daemon = daemon(name, &store);
    // Either may need a moment before it listens.
    network::vif("vif3.9999", &format!("{name}9999"));
    connect(&mut toolstack, &Device::vif(3, 9999), true);
    let whole = directory.join(format!("{name}-whole"));
    disk::file(&whole, 4096);
    let outer = disk::Loop::new(&whole);
    let disk = |devid, params: &str| Device::vbd(3, devid).with("params", params).with("mode", "r");
    let file = |n| directory.join(format!("{name}-{n}"));
    let attach = |n| match kind {
        Kind::Vif => {
            let vif = format!("vif3.{n}");
            network::vif(&vif, &format!("{name}{n}"));
            let took = connect(&mut toolstack, &Device::vif(3, n), false);
            let link = network::link(&vif).unwrap();
            assert!(link.contains("master xenbr0") && link.contains("fe:ff:ff:ff:ff:ff"), "{link}");
            took
        }
        Kind::Device => connect(&mut toolstack, &disk(n, &outer.0), false),
        Kind::File => {
            disk::file(&file(n), 4096);
            let device = disk(n, file(n).to_str().unwrap());
            let took = connect(&mut toolstack, &device, false);
            assert_eq!(disk::loops(&file(n)).len(), 1);
            took
        }
    };
    let times = (0..count()).map(attach).collect();
    drop(daemon);
    network::ip("link delete vif3.9999");
    for n in 0..count() {
        match kind {
            Kind::Vif => drop(network::ip(&format!("link delete vif3.{n}"))),
            Kind::Device => {}
            // Xen's script has set it up to stay, and so does a young devd at its end.
            Kind::File => drop(disk::only_loop(&file(n)).map(|name| disk::Loop(name, file(n)))),
        }
    }
    times
}

#[test]
#[ignore = "needs the real xenstored, xl and Xen's scripts: run .ci/test"]
fn built_in_hooks_do_what_xens_scripts_do() {
    network::isolate();
    network::bridge("xenbr0", 1500);
    let directory = tempfile::tempdir().unwrap();
    let _clean = Clean(directory.path());
    for kind in [Kind::Vif, Kind::Device, Kind::File] {
        let theirs = pile("xl", kind, directory.path());
        let ours = pile("devd", kind, directory.path());
        let mut places = vec![0, 49, 199, count() as usize - 1];
        places.sort_unstable();
        places.dedup();
        for nth in places {
            let (Some(theirs), Some(ours)) = (theirs.get(nth), ours.get(nth)) else { continue };
            let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
            println!("{kind:?} {}: xl {theirs:.1?}, devd {ours:.1?}: {ratio:.0} times", nth + 1);
        }
    }
}
