//! `--antispoof`: each row of the table in `docs/hooks.md` is sent as real
//! frames, by a guest that is limited and by one that is not.

mod frames;
mod rows;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use frames::{Frame, IP4, UDP};
use rows::{Fate, Guest, Row, rows};
use support::network::{self, ip};
use support::{Device, World, wait_until};

const OPTIONS: &[&str] = &["--hooks", "builtin", "--antispoof"];
const ALL_TYPES: u16 = 3;

/// The rows of the table in the document.
fn documented() -> Vec<(String, Fate)> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hooks.md");
    let text = fs::read_to_string(document).unwrap();
    let rows = text.lines().filter_map(|line| {
        let (name, fate) = line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | ")?;
        let fate = match fate {
            "allowed" => Fate::Allowed,
            "dropped" => Fate::Dropped,
            _ => return None,
        };
        Some((name.to_owned(), fate))
    });
    rows.collect()
}

#[test]
fn the_document_has_the_rows_that_are_tested() {
    let tested: Vec<_> = rows().iter().map(|row| (row.name.to_owned(), row.fate)).collect();
    assert_eq!(documented().len(), tested.len());
    for row in tested {
        assert!(documented().contains(&row), "not in docs/hooks.md: {row:?}");
    }
}

/// A bridge with these guests' interfaces, and one more, `world`, that hears what they send.
fn bridged(guests: &[u16]) -> World {
    network::isolate();
    // If br_netfilter is loaded, bridges check packets by themselves.
    for kind in ["ip", "ip6", "arp"] {
        let _ = fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{kind}tables"), "0");
    }
    network::bridge("xenbr0", 1500);
    network::vif("port", "world");
    ip("link set port master xenbr0 up");
    for guest in guests {
        network::vif(&format!("vif{guest}.0"), &format!("guest{guest}"));
    }
    quiet_and_up("world");
    for guest in guests {
        quiet_and_up(&format!("guest{guest}"));
    }
    World::new()
}

/// The kernel sends nothing of its own there.
fn quiet_and_up(interface: &str) {
    ip(&format!("link set {interface} addrgenmode none"));
    ip(&format!("link set {interface} up"));
}

fn marker(source: &str) -> Frame {
    frames::frame(IP4, &frames::ip4(source, UDP, &frames::ports(7, 7)))
}

/// Runs the script that sends frames; what it says.
fn send(arguments: &[&str], frames: &[Frame]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/antispoof/send.py");
    let mut child = Command::new("python3")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let lines: String = frames.iter().map(|frame| hex(frame) + "\n").collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The frames that `sender` sends and `receiver` hears of.
fn arrived(sender: &str, receiver: (&str, u16), marker: &[u8], frames: &[Frame]) -> Vec<bool> {
    let (interface, protocol) = receiver;
    let said = send(&[sender, interface, &protocol.to_string(), &hex(marker)], frames);
    let arrived: Vec<bool> = said.lines().map(|line| line == "1").collect();
    assert_eq!(arrived.len(), frames.len(), "{said}");
    arrived
}

#[test]
#[ignore = "needs root, ip and python3: run .ci/test"]
fn frames_meet_the_fate_that_the_document_gives_them() {
    let world = bridged(&[3, 4, 5, 6]);
    let _kernel = world.kernel();
    let _devd = world.devd(OPTIONS);
    let guests = [(3, Guest::BothFamilies), (5, Guest::OnlyIp4), (6, Guest::OnlyIp6)];
    let unlimited = Device::vif(4, 0);
    for device in guests
        .map(|(domid, guest)| Device::vif(domid, 0).with("ip", guest.ip()))
        .iter()
        .chain([&unlimited])
    {
        world.attach(device);
        world.wait_connected(device);
    }
    let rows = rows();
    let mut wrong = Vec::new();
    for (domid, guest) in guests {
        let own: Vec<&Row> = rows.iter().filter(|row| row.guest == guest).collect();
        let all: Vec<Frame> = own.iter().flat_map(|row| row.frames.clone()).collect();
        let marker = match guest {
            Guest::BothFamilies | Guest::OnlyIp4 => marker("10.1.2.3"),
            Guest::OnlyIp6 => {
                frames::frame(frames::IP6, &frames::ip6("fd00::7", UDP, &frames::ports(7, 7)))
            }
        };
        let hearing = ("world", ALL_TYPES);
        // A frame that the bridge itself drops shows nothing about the rules.
        let control = arrived("guest4", hearing, &marker, &all);
        assert_eq!(control, vec![true; all.len()], "without rules all arrive");
        let mut arrived = arrived(&format!("guest{domid}"), hearing, &marker, &all).into_iter();
        for row in own {
            for (index, arrived) in arrived.by_ref().take(row.frames.len()).enumerate() {
                if arrived != (row.fate == Fate::Allowed) {
                    wrong.push(format!("{}, frame {index}: {:02x?}", row.name, row.frames[index]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), network::nft("list ruleset"));
}

#[test]
#[ignore = "needs root, ip and python3: run .ci/test"]
fn bridge_learns_nothing_from_forged_frames_to_its_own_group() {
    let world = bridged(&[3, 4]);
    let _kernel = world.kernel();
    let _devd = world.devd(OPTIONS);
    let limited = Device::vif(3, 0).with("ip", "10.1.2.3");
    let unlimited = Device::vif(4, 0);
    for device in [&limited, &unlimited] {
        world.attach(device);
        world.wait_connected(device);
    }
    // The group addresses of spanning tree, LACP and LLDP.
    let forged = |last: u8| {
        [0x00, 0x03, 0x0e].map(|group| {
            let mut frame = frames::from([0, 0x16, 0x3e, 0, 0, last], 0x88cc, &[0; 46]);
            frame[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, group]);
            frame
        })
    };
    let learnt = |mac: &str| network::run("bridge", "fdb show br xenbr0").contains(mac);
    send(&["guest3"], &forged(0x77));
    wait_until("what the other guest sends is learnt", || {
        send(&["guest4"], &forged(0x78));
        learnt("00:16:3e:00:00:78")
    });
    assert!(!learnt("00:16:3e:00:00:77"));
}

#[test]
#[ignore = "needs root, ip and python3: run .ci/test"]
fn routed_guest_is_limited_too() {
    let world = bridged(&[3]);
    network::vif("eth7", "uplink");
    ip("address add 192.0.2.1/24 dev eth7");
    let _kernel = world.kernel();
    let _devd = world.devd(OPTIONS);
    let device = Device::vif(3, 0).with("script", "vif-route").with("gatewaydev", "eth7");
    let device = device.with("ip", "10.1.2.3");
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(world.node(&device, "antispoof").as_deref(), Some("on"));
    assert_limited("guest3", "vif3.0");
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(network::nft("list ruleset"), "");
}

/// Of IPv4, the kernel takes what the guest with 10.1.2.3 sends as that address only.
#[track_caller]
fn assert_limited(guest: &str, interface: &str) {
    let from = |source| frames::frame(IP4, &frames::ip4(source, UDP, &frames::ports(1, 2)));
    let sent = [from("10.1.2.3"), from("10.1.2.4")];
    // A socket for one type of frames hears of those that have passed the rules.
    let arrived = arrived(guest, (interface, IP4), &marker("10.1.2.3"), &sent);
    assert_eq!(arrived, [true, false]);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn device_that_is_not_limited_says_why() {
    let world = bridged(&[3, 4]);
    let _kernel = world.kernel();
    let _devd = world.devd(OPTIONS);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    let node = world.node(&device, "antispoof");
    assert_eq!(node.as_deref(), Some("off: the device has no ip node"));
    world.wait_logged("vif3.0 may send as any address in spite of --antispoof");
    let bad = [
        ("mac", "", "the device has no mac node"),
        ("mac", "00:16:3e", "mac is \"00:16:3e\""),
        ("mac", "01:00:5e:00:00:01", "no address of an interface"),
        ("ip", "10.1.2.3 ten", "ip has \"ten\""),
        ("ip", "0.0.0.0", "cannot be the address of a guest"),
        ("ip", "ff02::1", "cannot be the address of a guest"),
    ];
    for (node, value, words) in bad {
        let device = Device::vif(4, 0).with("ip", "10.1.2.3").with(node, value);
        world.attach(&device);
        let reason = world.wait_refused(&device);
        assert!(reason.contains(words), "{reason}");
        assert!(!network::ip("-o link show dev vif4.0").contains("master"));
        world.detach(&device);
        world.wait_gone(&device);
    }
}

/// Xen's script, as far as it matters here: it gives the interface its name and takes it up.
const SCRIPT: &str = "case $1 in
online) nft list ruleset > \"$DEVD_TEST_RULES\" || exit 1
    ip link set vif3.0 down && ip link set vif3.0 name web && ip link set web up || exit 1
    call connect ;;
esac";

#[test]
#[ignore = "needs root, ip, nft and python3: run .ci/test"]
fn guest_of_a_script_is_limited_before_the_script_runs() {
    let world = bridged(&[3, 4]);
    let before = world.file("rules");
    world.hook("vif-bridge", &SCRIPT.replace("$DEVD_TEST_RULES", before.to_str().unwrap()));
    let _kernel = world.kernel();
    let devd = world.devd(&["--hooks", "script", "--antispoof"]);
    let device = Device::vif(3, 0).with("ip", "10.1.2.3").with("vifname", "web");
    world.attach(&device);
    world.wait_connected(&device);
    assert!(fs::read_to_string(&before).unwrap().contains("devd-vif3.0"));
    assert_eq!(world.node(&device, "antispoof").as_deref(), Some("on"));
    // The rules stay with the interface, though the script has given it another name.
    assert_limited("guest3", "web");

    // A guest that cannot be limited gets no script.
    let refused = Device::vif(4, 0).with("ip", "10.1.2.4").with("mac", "none");
    world.attach(&refused);
    let reason = world.wait_refused(&refused);
    assert!(reason.starts_with("--antispoof: mac is \"none\""), "{reason}");
    assert_eq!(world.calls(&refused), [""; 0]);
    world.detach(&refused);
    world.wait_gone(&refused);

    devd.kill();
    network::belongs("web", "vif-3-0");
    let _devd = world.devd(&["--hooks", "script", "--antispoof"]);
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(network::nft("list ruleset"), "");
}

#[test]
#[ignore = "needs root, ip, nft and python3: run .ci/test"]
fn guest_that_a_script_has_attached_before_is_limited() {
    let world = bridged(&[3, 4]);
    world.hook("vif-bridge", "ip link set $vif up; [ $1 = offline ] || call connect");
    let _kernel = world.kernel();
    let devd = world.devd(&["--hooks", "script"]);
    let limited = Device::vif(3, 0).with("ip", "10.1.2.3");
    let refused = Device::vif(4, 0).with("ip", "10.1.2.4").with("mac", "none");
    for device in [&limited, &refused] {
        world.attach(device);
        world.wait_connected(device);
        assert_eq!(world.node(device, "antispoof"), None);
    }
    devd.kill();
    let _devd = world.devd(&["--hooks", "script", "--antispoof"]);
    world.wait_node(&limited, "antispoof", "on");
    assert_limited("guest3", "vif3.0");
    wait_until("why guest 4 is not limited", || {
        let node = world.node(&refused, "antispoof");
        node.is_some_and(|node| node.starts_with("off: mac is \"none\""))
    });
    world.wait_logged("its guest may send as any address in spite of --antispoof: mac is");
    assert_eq!(world.node(&refused, "hotplug-status").as_deref(), Some("connected"));
}
