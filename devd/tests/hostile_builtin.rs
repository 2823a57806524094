//! Values that no toolstack writes, in every node that the built-in hooks read: each is taken as
//! it is, or is that device's failure with its reason. What belongs to others, their interfaces,
//! rules and disks, is not touched, neither when the device comes nor when it goes.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use support::disk::{self, Loop};
use support::hostile::{self, is_presentable};
use support::network::{self, ip, link};
use support::{Device, World, wait_for};

const OPTIONS: &[&str] = &["--hooks", "builtin", "--antispoof", "--linger", "0"];

/// Interfaces that are none of the device's: of the domain itself, and of other guests.
const OTHERS: [&str; 4] = ["eth0", "xenbr0", "web", "lo"];

/// A bridge, the way out, a guest's interface that will be called `web`, and the device's own.
fn with_interfaces() -> (World, Device, Device) {
    network::isolate();
    network::bridge("xenbr0", 1500);
    network::vif("eth0", "world");
    ip("address add 192.0.2.1/24 dev eth0");
    ip("link set eth0 up");
    ip("link set eth0 master xenbr0");
    network::vif("vif4.0", "guest4");
    network::vif("vif3.0", "guest");
    let bystander = Device::vif(4, 0).with("vifname", "web").with("ip", "10.1.2.4");
    (World::new(), bystander, Device::vif(3, 0).with("ip", "10.1.2.3"))
}

/// What can be seen of others, less what changes by itself.
fn others() -> String {
    let all = ip("-d -o link show") + &ip("-4 -o address show");
    // As in "4: eth0@if5: …".
    let name = |line: &&str| OTHERS.contains(&line.split([' ', '@', ':']).nth(2).unwrap_or(line));
    let lines = all.lines().filter(name);
    lines.map(|line| line.split(" promiscuity ").next().unwrap()).collect()
}

/// The rules of the guest that is served.
fn has_rules() -> bool {
    let rules = network::nft("list ruleset");
    rules.contains("table netdev devd-vif4.0") && rules.contains("ip saddr 10.1.2.4 goto guest-ip4")
}

/// Waits for what its hook says; the reason if it fails.
fn outcome(world: &World, device: &Device) -> Result<(), String> {
    wait_for("an outcome", || match world.node(device, "hotplug-status").as_deref() {
        Some("connected") => Some(Ok(())),
        Some("error") => world.refusal(device).map(Err),
        _ => None,
    })
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn of_an_interface() {
    let (world, bystander, sane) = with_interfaces();
    let _kernel = world.kernel();
    let devd = world.devd(OPTIONS);
    world.attach(&bystander);
    world.wait_connected(&bystander);
    let before = others();

    let mut values = hostile::values(&world.file("outside"));
    let taken = [&OTHERS[..], &["vif4.0", "vif3.1"]].concat();
    values.extend(taken.iter().map(|name| ("what is another's", name.as_bytes().into())));
    let rows: [(&str, &[&'static str]); 2] = [
        ("vif-bridge", &["vifname", "bridge", "mtu", "ip", "mac", "gatewaydev"]),
        ("vif-route", &["vifname", "gatewaydev", "ip", "bridge"]),
    ];
    let nodes = rows.iter().flat_map(|(script, nodes)| nodes.iter().map(move |it| (*script, *it)));
    for (script, node) in nodes {
        let sane = sane.clone().with("script", script);
        for (what, value) in &values {
            println!("{what} as {node} of {script}");
            let device = sane.clone().with(node, value);
            world.attach(&device);
            let outcome_of = outcome(&world, &device);
            if node == "vifname" && taken.iter().any(|name| name.as_bytes() == value) {
                let reason = outcome_of.as_ref().expect_err("it is another's");
                assert!(reason.contains("interface"), "{reason}");
            }
            let name = match outcome_of {
                Ok(()) if node == "vifname" && !value.is_empty() => str::from_utf8(value).unwrap(),
                Ok(()) => "vif3.0",
                Err(reason) => {
                    assert!(is_presentable(&reason), "{reason:?}");
                    // The reason has the node's name, or is about what the node names.
                    let words = [node, "interface", "bridge"];
                    assert!(words.iter().any(|word| reason.contains(word)), "{reason}");
                    "vif3.0"
                }
            };
            assert!(link(name).is_some(), "no {name}");
            if node == "vifname" {
                ip("link delete guest"); // As netback does.
            }
            world.detach(&device);
            world.wait_gone(&device);
            if node == "vifname" {
                network::vif("vif3.0", "guest");
            }
            world.attach(&sane);
            assert_eq!(outcome(&world, &sane), Ok(()));
            world.detach(&sane);
            world.wait_gone(&sane);
            assert_eq!(others(), before);
            assert!(has_rules());
        }
    }
    assert_eq!(world.node(&bystander, "state").as_deref(), Some("4"));
    assert_eq!(world.runs(), []);
    hostile::assert_log(&world.log(), true);
    devd.terminate();
}

/// Values of `vlan` that no toolstack writes: those of all nodes, and some of its own.
fn vlan_values(outside: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let mut values = hostile::values(outside);
    values.retain(|(_, value)| !value.is_empty());
    let own = |what, value: &str| (what, value.as_bytes().to_owned());
    values.extend([
        own("a VLAN beyond the last", "4095p"),
        own("VLANs beyond the last", "1p/4094+1x65535"),
        own("a range that goes down", "20-10/30p"),
        own("a step of nothing", "1p/10+0x10"),
        own("two PVIDs", "10p/20p"),
        own("a VLAN twice", "10p/10"),
        own("a NUL behind a VLAN", "10p\0"),
        own("digits of another script", "\u{661}\u{660}p"),
        ("slashes alone", vec![b'/'; hostile::LONGEST]),
        ("every VLAN many times", b"1-4094/".repeat(hostile::LONGEST / 7)),
        ("a number of 4000 digits", vec![b'9'; hostile::LONGEST]),
    ]);
    values
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn of_the_vlans_of_a_port() {
    let (world, bystander, sane) = with_interfaces();
    // A bridge that filters would take VLANs that are parsed wrongly; others refuse every device
    // with a vlan node. Not every kernel knows how to filter.
    let filters = "link set xenbr0 type bridge vlan_filtering 1";
    println!("the bridge filters VLANs: {}", network::try_run("ip", filters).is_some());
    let _kernel = world.kernel();
    let devd = world.devd(OPTIONS);
    world.attach(&bystander);
    world.wait_connected(&bystander);
    let vlans = || network::run("bridge", "-c vlan show dev web") + &ip("-o link show dev vif3.0");
    let before = (others(), vlans());
    // `01`, ` 1` and the like are VLAN 1, as numbers with blanks around them are in xl's parser.
    let is_vlan = |value: &[u8]| value.trim_ascii() == b"1" || value == b"01";
    for (what, value) in &vlan_values(&world.file("outside")) {
        if is_vlan(value) {
            continue;
        }
        println!("{what} as vlan");
        let device = sane.clone().with("vlan", value);
        world.attach(&device);
        let reason = outcome(&world, &device).expect_err("it names no VLANs");
        assert!(is_presentable(&reason), "{reason:?}");
        assert!(reason.starts_with("vif-bridge: vlan is \""), "{reason}");
        assert!(reason.ends_with("correct it in the guest's config"), "{reason}");
        world.detach(&device);
        world.wait_gone(&device);
        assert_eq!((others(), vlans()), before);
        assert!(has_rules());
    }
    // vif-route has no bridge: it says that it ignores the node.
    for (what, value) in &vlan_values(&world.file("outside")) {
        println!("{what} as vlan of vif-route");
        let device = sane.clone().with("script", "vif-route").with("vlan", value);
        world.attach(&device);
        assert_eq!(outcome(&world, &device), Ok(()));
        world.detach(&device);
        world.wait_gone(&device);
    }
    world.attach(&sane);
    assert_eq!(outcome(&world, &sane), Ok(()));
    assert_eq!(world.node(&bystander, "state").as_deref(), Some("4"));
    hostile::assert_log(&world.log(), true);
    devd.terminate();
}

/// The removal hook knows an interface by the name in the store, if another daemon has run the
/// add hook, or if that has failed.
#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn of_an_interface_that_goes_after_its_name_was_changed() {
    let (world, bystander, device) = with_interfaces();
    let _kernel = world.kernel();
    let mut devd = world.devd(OPTIONS);
    world.attach(&bystander);
    world.wait_connected(&bystander);
    let before = others();
    for (name, gone) in OTHERS.iter().flat_map(|name| [(name, false), (name, true)]) {
        world.attach(&device);
        world.wait_connected(&device);
        devd.terminate();
        world.set(&device, "vifname", name);
        if gone {
            ip("link delete guest"); // As netback does.
        }
        devd = world.devd(OPTIONS);
        world.detach(&device);
        world.wait_gone(&device);
        assert_eq!(others(), before, "{name}");
        assert!(has_rules(), "{name}");
        if gone {
            network::vif("vif3.0", "guest");
        }
    }
    devd.terminate();
}

/// A world with the file of a disk that is served, and that of another.
fn with_disks() -> (World, Device, Device) {
    let world = World::new();
    let disk = |guest, name: &str| {
        let path = world.file(name);
        disk::file(&path, 4096);
        Device::vbd(guest, 51712).with("params", path.to_str().unwrap())
    };
    let (bystander, device) = (disk(4, "theirs.img"), disk(3, "ours.img"));
    (world, bystander, device)
}

/// The file behind a loop device, as the kernel has it.
fn behind(name: &str) -> Vec<u8> {
    let name = Path::new(name).file_name().unwrap().to_str().unwrap();
    let mut path = fs::read(format!("/sys/block/{name}/loop/backing_file")).unwrap();
    assert_eq!(path.pop(), Some(b'\n'));
    path
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn of_a_disk() {
    let (world, bystander, sane) = with_disks();
    let _kernel = world.kernel();
    let devd = world.devd(OPTIONS);
    world.attach(&bystander);
    world.wait_connected(&bystander);
    let theirs = world.node(&bystander, "node").unwrap();
    let minor: u32 = theirs.trim_start_matches("/dev/loop").parse().unwrap();
    let ours = world.file("ours.img");

    let values = hostile::values(&world.file("outside"));
    let numbers = [
        format!("100000007:{minor:x}"),
        format!("7:{:x}", (1 << 20) + minor),
        format!("10000000000000007:{minor:x}"),
        format!("+7:{minor:x}"),
        format!("7:{minor:x}\n"),
    ];
    for node in ["params", "mode", "physical-device", "node", "physical-device-path"] {
        let mut values = values.clone();
        if node == "physical-device" {
            values.extend(numbers.iter().map(|number| ("another's number", number.clone().into())));
        }
        for (what, value) in &values {
            println!("{what} as {node}");
            // A backend that has connected would show that a hook has run.
            let device = sane.clone().with(node, value).unused();
            world.attach(&device);
            match outcome(&world, &device) {
                Ok(()) if node == "params" => {
                    assert!(value.is_empty(), "a drive without a disk");
                    assert_eq!(world.node(&device, "physical-device"), None);
                }
                Ok(()) => {
                    let name = world.node(&device, "node").unwrap();
                    assert_eq!(behind(&name), ours.as_os_str().as_bytes());
                    assert_eq!(world.node(&device, "physical-device-path"), Some(name.clone()));
                    let line = disk::loops(&ours).join("|");
                    let mode = if node == "mode" { " 1 1 " } else { " 0 1 " };
                    assert!(line.contains(mode), "read-only if no w is in its mode: {line}");
                }
                Err(reason) => {
                    assert!(is_presentable(&reason), "{reason:?}");
                    let words = match node {
                        "mode" => ["no mode node"; 2],
                        "params" => ["block device", "cannot look at /dev/"],
                        _ => panic!("{reason}"),
                    };
                    assert!(words.iter().any(|word| reason.contains(word)), "{reason}");
                }
            }
            world.detach(&device);
            world.wait_gone(&device);
            world.attach(&sane);
            world.wait_connected(&sane);
            world.detach(&sane);
            world.wait_gone(&sane);
            assert_eq!(disk::only_loop(&world.file("theirs.img")).as_ref(), Some(&theirs));
        }
    }
    assert_eq!(world.node(&bystander, "state").as_deref(), Some("4"));
    hostile::assert_log(&world.log(), true);
    devd.terminate();
}

/// Whatever a file is called, it is that one.
#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn of_a_disk_in_a_file_of_that_name() {
    let (world, _, device) = with_disks();
    let _kernel = world.kernel();
    let devd = world.devd(OPTIONS);
    let directory = world.file("");
    let directory = directory.to_str().unwrap();
    let is_name = |value: &[u8]| {
        (1..=255).contains(&value.len())
            && !value.iter().any(|it| matches!(it, b'/' | 0))
            && value != b".."
    };
    let mut paths: Vec<_> = hostile::values(&world.file("outside"))
        .into_iter()
        .filter(|(_, value)| is_name(value))
        .map(|(_, value)| [directory.as_bytes(), &value].concat())
        .collect();
    assert!(paths.len() > 10);
    for path in &paths {
        disk::file(Path::new(OsStr::from_bytes(path)), 4096);
    }
    // As upstream: what does not begin with a slash is below /dev.
    paths.push(format!("..{directory}ours.img").into());
    for path in &paths {
        let device = device.clone().with("params", path);
        world.attach(&device);
        world.wait_connected(&device);
        let name = world.node(&device, "node").unwrap();
        let real = path.strip_prefix(b"..").unwrap_or(path);
        assert_eq!(behind(&name).escape_ascii().to_string(), real.escape_ascii().to_string());
        world.detach(&device);
        world.wait_gone(&device);
    }
    // A block device too, whose path is told.
    let outer = Loop::new(&world.file("theirs.img"));
    let minor = outer.0.trim_start_matches("/dev/loop");
    let path = [directory.as_bytes(), b"\xff\x1b %s"].concat();
    let mut mknod = std::process::Command::new("mknod");
    assert!(
        mknod.arg(OsStr::from_bytes(&path)).args(["b", "7", minor]).status().unwrap().success()
    );
    let device = device.with("params", &path);
    world.attach(&device);
    world.wait_connected(&device);
    let told = world.store.read(format!("{}/physical-device-path", device.backend()).as_bytes());
    assert_eq!(told, Ok(path));
    world.detach(&device);
    world.wait_gone(&device);
    hostile::assert_log(&world.log(), true);
    devd.terminate();
}
