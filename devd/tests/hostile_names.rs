//! Directories that no toolstack makes: whatever is not a device's name to the letter is left
//! alone, and so is whatever is in it.

mod support;

use support::{Device, GUEST_HOME, World, hostile};

/// What is no number of a domain, or not as libxl writes it; nor is it one of a device.
const NUMBERS: &[&str] = &[
    "-1",
    "-0",
    "00",
    "03",
    "0003",
    "3_",
    "3-",
    "3@",
    "x",
    "0x3",
    "3e0",
    "4294967296",
    "4294967299",
    "18446744073709551619",
    "99999999999999999999999999999999999999",
    "-",
    "_",
    "@",
];

/// What is a number of a device, but none of a domain.
const LARGE: &[&str] = &["65536", "65539", "4294967295"];

const KINDS: &[&str] = &["VIF", "vif-", "vifs", "vi", "v", "vbd33", "9pfsx", "0", "@", "state"];

/// The nodes of a device that its hook could be run for at once, or that could be removed.
fn nodes() -> Vec<(&'static str, &'static str)> {
    vec![
        ("frontend", "/local/domain/3/device/vif/0"),
        ("online", "0"),
        ("state", "2"),
        ("script", "vif-bridge"),
        ("type", "vif"),
        ("hotplug-status", ""),
    ]
}

#[test]
fn are_left_alone_when_they_come_and_when_they_are_listed() {
    let world = World::new();
    let _kernel = world.kernel();
    let qemu = world.qemu();
    let options = ["--linger", "0", "--qemu", &qemu];
    let devd = world.devd(&options);
    let sane = [Device::vif(3, 0), Device::vbd(3, 0), Device::qdisk(3, 0), Device::share(3, 0)];
    world.attach_all(&sane);
    sane.iter().for_each(|device| world.wait_connected(device));
    let runs = world.runs().len();

    // As long as names may be.
    let long = "3".repeat(1900);
    let deep = "/3".repeat(900);
    let mut directories = Vec::new();
    for kind in ["vif", "vbd", "qdisk", "9pfs", "vkbd"] {
        for number in NUMBERS.iter().chain(LARGE).chain([&&*long]) {
            directories.push(format!("backend/{kind}/{number}/0"));
        }
        for number in NUMBERS.iter().chain([&&*long]) {
            directories.push(format!("backend/{kind}/3/{number}"));
        }
        directories.push(format!("backend/{kind}{deep}"));
        directories.push(format!("backend/{kind}/3/0/3/0"));
    }
    directories.extend(KINDS.iter().map(|kind| format!("backend/{kind}/3/0")));
    directories.push(format!("backend/{long}/3/0"));
    for directory in &directories {
        let home = format!("{GUEST_HOME}/{directory}");
        for (node, value) in nodes() {
            world.store.write(format!("{home}/{node}").as_bytes(), value.as_bytes()).unwrap();
        }
    }
    for number in NUMBERS.iter().chain(LARGE) {
        for node in ["libxl/N/qdisk-backend-pid", "device-model/N/state"] {
            let path = format!("{GUEST_HOME}/{}", node.replace('N', number));
            world.store.write(path.as_bytes(), b"1").unwrap();
        }
    }
    let strangers = |world: &World| {
        let mut nodes = world.dump(GUEST_HOME);
        nodes.retain(|(path, _)| !path.ends_with("/999"));
        nodes
    };
    let before = strangers(&world);
    let unchanged = || {
        world.wait_settled();
        assert_eq!(strangers(&world), before);
        assert_eq!(world.runs().len(), runs);
    };
    unchanged();
    for directory in &directories {
        for value in ["4", "6"] {
            let path = format!("{GUEST_HOME}/{directory}/state");
            world.store.write(path.as_bytes(), value.as_bytes()).unwrap();
        }
    }
    for directory in &directories {
        let path = format!("{GUEST_HOME}/{directory}/state");
        world.store.write(path.as_bytes(), b"2").unwrap();
    }
    unchanged();
    devd.terminate();
    let devd = world.devd(&options);
    unchanged();
    sane.iter().for_each(|device| world.wait_logged(&format!("{}: served", device.path())));
    for device in &sane {
        world.detach(device);
        world.wait_gone(device);
    }
    for directory in &directories {
        let path = format!("{GUEST_HOME}/{directory}");
        let _ = world.store.rm(path.as_bytes());
    }
    hostile::assert_log(&world.log(), true);
    for kind in KINDS {
        let told = format!("backend/{kind}: left alone: no kind of device that devd knows");
        assert_eq!(world.logged(&told), 2, "once by each daemon");
    }
    // The names that they are like.
    for device in &sane {
        world.attach(device);
        world.wait_connected(device);
        world.detach(device);
        world.wait_gone(device);
    }
    devd.terminate();
}
