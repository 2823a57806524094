//! What a built-in hook has made stays so, whatever others do to it: on loop devices, and on real
//! interfaces in a network namespace, with a veth pair in the place of netback's interface and the
//! guest's.

mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::network::{self, ip, link, nft};
use support::{Devd, Device, Later, World, disk, process, wait_until};

const BUILTIN: &[&str] = &["--hooks", "builtin"];
const ANTISPOOF: &[&str] = &["--hooks", "builtin", "--antispoof"];

/// A bridge `xenbr0`, an interface `vif3.0`, and what the toolstack writes for it.
fn bridged() -> (World, Device) {
    network::isolate();
    network::bridge("xenbr0", 1500);
    network::vif("vif3.0", "guest");
    (World::new(), Device::vif(3, 0))
}

/// The device is served.
#[track_caller]
fn serve(world: &World, device: &Device) {
    world.attach(device);
    world.wait_connected(device);
}

fn has(name: &str, word: &str) -> bool {
    link(name).is_some_and(|link| link.contains(word))
}

#[track_caller]
fn wait_has(name: &str, word: &str) {
    wait_until(&format!("{name} to have {word:?}"), || has(name, word));
}

/// The device goes without a trace.
#[track_caller]
fn remove(world: &World, device: &Device) {
    world.detach(device);
    world.wait_gone(device);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn port_taken_out_of_its_bridge_is_put_back() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip("link set vif3.0 nomaster");
    wait_has("vif3.0", "master xenbr0");
    world.wait_logged("backend/vif/3/0: vif3.0 was in no bridge: put back into bridge xenbr0");
    // A network that is restarted may take it down besides.
    ip("link set vif3.0 down nomaster");
    wait_has("vif3.0", "master xenbr0");
    wait_has("vif3.0", ",UP");
    world.wait_logged("vif3.0 was in no bridge, and down: put back");
    assert_eq!(world.node(&device, "hotplug-error"), None);
    remove(&world, &device);
    assert!(!has("vif3.0", "master"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn bridge_that_is_made_again_gets_its_port_back() {
    let (world, device) = bridged();
    network::vif("vif4.0", "guest4");
    let other = Device::vif(4, 0);
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    serve(&world, &other);
    ip("link delete xenbr0");
    let words = "there is no bridge xenbr0 in this domain";
    for device in [&device, &other] {
        wait_until("hotplug-error", || {
            world.node(device, "hotplug-error").is_some_and(|error| error.contains(words))
        });
        // The toolstack and netback must not take it for one that was never served.
        assert_eq!(world.node(device, "hotplug-status").as_deref(), Some("connected"));
        assert_eq!(world.node(device, "state").as_deref(), Some("4"));
    }
    assert_eq!(world.logged("backend/vif/3/0: its guest is cut off: there is no bridge"), 1);
    network::bridge("xenbr0", 1500);
    for (name, device) in [("vif3.0", &device), ("vif4.0", &other)] {
        wait_has(name, "master xenbr0");
        wait_until("no hotplug-error", || world.node(device, "hotplug-error").is_none());
    }
    world.wait_logged("backend/vif/3/0: vif3.0 is as it should be again");
    assert_eq!(world.logged("backend/vif/3/0: vif3.0 was in no bridge: put back"), 1);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn bridge_renamed_keeps_its_port() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip("link set xenbr0 down");
    ip("link set xenbr0 name lan");
    ip("link set lan up");
    // The port is looked at after that.
    ip("link set vif3.0 alias seen");
    world.wait_settled();
    assert!(has("vif3.0", "master lan"));
    assert_eq!(world.logged(" warn: "), 0, "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn port_moved_to_another_bridge_stays_there_with_a_warning() {
    let (world, device) = bridged();
    network::bridge("lan7", 1500);
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip("link set vif3.0 master lan7");
    world.wait_logged("vif3.0 is in lan7, not in bridge xenbr0: it stays there");
    assert!(has("vif3.0", "master lan7"));
    // Out of that one it has no other.
    ip("link set vif3.0 nomaster");
    wait_has("vif3.0", "master xenbr0");
    assert_eq!(world.logged("it stays there"), 1);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn port_taken_down_stays_down_with_a_warning() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    for times in 1..=2 {
        ip("link set vif3.0 down");
        wait_until("the warning", || {
            world.logged("vif3.0 was taken down and cuts its guest off") == times
        });
        assert!(!has("vif3.0", ",UP") && has("vif3.0", "master xenbr0"));
        ip("link set vif3.0 up");
        // Looked at, once it is up, so that the next time is another.
        thread::sleep(Duration::from_millis(300));
    }
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn mtu_is_set_back_if_the_device_has_a_node_for_it() {
    let (world, device) = bridged();
    network::vif("vif4.0", "guest4");
    let asked = Device::vif(4, 0).with("mtu", "1400");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    serve(&world, &asked);
    ip("link set vif4.0 mtu 1450");
    wait_has("vif4.0", "mtu 1400");
    world.wait_logged("backend/vif/4/0: the MTU of vif4.0 was 1450: set back to 1400");
    ip("link set vif3.0 mtu 1450");
    world.wait_logged("backend/vif/3/0: the MTU of vif3.0 was changed from 1500 to 1450: it stays");
    assert!(has("vif3.0", "mtu 1450"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn mac_address_is_set_back() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip("link set vif3.0 address 02:00:00:00:00:07");
    wait_has("vif3.0", "fe:ff:ff:ff:ff:ff");
    world.wait_logged("backend/vif/3/0: the MAC address of vif3.0 was changed: set back");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn guest_that_lowers_the_mtu_of_the_bridge_is_named() {
    let (world, device) = bridged();
    ip("link delete xenbr0");
    ip("link add xenbr0 type bridge");
    ip("link set xenbr0 up");
    let device = device.with("mtu", "1300");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    assert!(has("xenbr0", "mtu 1300"));
    world.wait_logged("the MTU of vif3.0 lowers that of bridge xenbr0 from 1500 to 1300");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn interface_that_goes_is_reported_and_taken_back() {
    let (world, device) = bridged();
    let name = format!("devd-upkeep-{}", std::process::id());
    ip(&format!("netns add {name}"));
    let _namespace = network::Named(&name);
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip(&format!("link set vif3.0 netns {name}"));
    let words = "interface vif3.0 is gone from this domain's network";
    wait_until("hotplug-error", || {
        world.node(&device, "hotplug-error").is_some_and(|error| error.contains(words))
    });
    assert_eq!(world.node(&device, "hotplug-status").as_deref(), Some("connected"));
    let told = "its guest is cut off: interface vif3.0 is gone";
    world.wait_logged(told);
    assert_eq!(world.logged(told), 1);
    ip(&format!("-n {name} link set vif3.0 netns {}", devd.pid()));
    wait_has("vif3.0", "master xenbr0");
    wait_has("vif3.0", ",UP");
    wait_until("no hotplug-error", || world.node(&device, "hotplug-error").is_none());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn interface_that_goes_with_its_device_is_no_failure() {
    let (world, device) = bridged();
    let _devd = world.devd(BUILTIN);
    world.attach(&device.clone().with("state", "2"));
    world.wait_node(&device, "hotplug-status", "connected");
    world.set(&device, "state", "4");
    // netback takes its interface away while the device closes.
    world.set(&device, "online", "0");
    world.set(&device, "state", "5");
    ip("link delete vif3.0");
    // Longer than a fault has to last.
    thread::sleep(Duration::from_secs(4));
    assert_eq!(world.node(&device, "hotplug-error"), None);
    world.set(&device, "state", "6");
    world.wait_gone(&device);
    assert_eq!(world.logged(" error: ") + world.logged(" warn: "), 0, "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn repair_that_another_program_undoes_at_once_waits_ever_longer() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    let (stop, undone) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if has("vif3.0", "master xenbr0") {
                    ip("link set vif3.0 nomaster");
                    undone.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        wait_until("repairs to become rare", || world.logged("the next repair waits 4 s") > 0);
        // Others are served as if nothing was.
        world.wait_settled();
        stop.store(true, Ordering::Relaxed);
    });
    let (lines, undone) = (world.logged("vif3.0"), undone.load(Ordering::Relaxed));
    assert!(lines <= undone + 4 && lines < 12, "{lines} lines, {undone} times:\n{}", world.log());
    wait_has("vif3.0", "master xenbr0");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn own_repair_causes_no_other() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip("link set vif3.0 nomaster");
    wait_has("vif3.0", "master xenbr0");
    world.wait_settled();
    // It comes to rest: it takes no processor time any more.
    let ticks = || process::stat(devd.pid(), 14) + process::stat(devd.pid(), 15);
    wait_until("the daemon to come to rest", || {
        let before = ticks();
        thread::sleep(Duration::from_millis(500));
        ticks() == before
    });
    assert_eq!(world.logged(" warn: "), 1, "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn events_that_are_lost_have_all_checked() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    serve(&world, &device);
    process::signal(devd.pid(), nix::sys::signal::Signal::SIGSTOP);
    ip("link set vif3.0 nomaster");
    for mtu in 0..400 {
        ip(&format!("link set lo mtu {}", 60000 + mtu));
    }
    process::signal(devd.pid(), nix::sys::signal::Signal::SIGCONT);
    world.wait_logged("events of the network were lost: all served interfaces are checked");
    wait_has("vif3.0", "master xenbr0");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn daemon_started_over_changed_interfaces_puts_them_right() {
    let (world, device) = bridged();
    network::vif("vif4.0", "guest4");
    network::vif("vif5.0", "guest5");
    network::bridge("lan7", 1500);
    // By hand: no guest lowers it.
    ip("link set xenbr0 mtu 1499");
    ip("link set xenbr0 mtu 1500");
    let device = device.with("mtu", "1400");
    let (moved, whole) = (Device::vif(4, 0), Device::vif(5, 0));
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    for device in [&device, &moved, &whole] {
        serve(&world, device);
    }
    devd.kill();
    ip("link set vif3.0 nomaster mtu 1450");
    ip("link set vif4.0 master lan7");
    let _devd = world.devd(BUILTIN);
    wait_has("vif3.0", "master xenbr0");
    wait_has("vif3.0", "mtu 1400");
    world.wait_logged("backend/vif/4/0: vif4.0 is in lan7, not in bridge xenbr0: it stays there");
    assert!(has("vif5.0", "master xenbr0"));
    assert_eq!(world.logged(" warn: "), 2, "{}", world.log());
    for device in [&device, &moved, &whole] {
        remove(&world, device);
    }
    for name in ["vif3.0", "vif4.0", "vif5.0"] {
        assert!(!has(name, "master"), "{name}");
    }
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn reason_of_an_earlier_daemon_goes_when_the_interface_is_right() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip("link delete xenbr0");
    wait_until("hotplug-error", || world.node(&device, "hotplug-error").is_some());
    devd.kill();
    network::bridge("xenbr0", 1500);
    let _devd = world.devd(BUILTIN);
    wait_has("vif3.0", "master xenbr0");
    wait_until("no hotplug-error", || world.node(&device, "hotplug-error").is_none());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn interface_that_a_script_serves_is_left_alone() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let devd = world.devd(&[]);
    serve(&world, &device);
    ip("link set vif3.0 mtu 1400");
    devd.kill();
    let _devd = world.devd(&[]);
    world.wait_logged("backend/vif/3/0: served already");
    world.wait_settled();
    thread::sleep(Duration::from_millis(500));
    assert!(!has("vif3.0", "master"));
    assert_eq!(world.logged("vif3.0"), 0, "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn routes_and_address_of_a_routed_interface_come_back() {
    let (world, device) = bridged();
    network::vif("eth7", "world");
    ip("address add 192.0.2.1/24 dev eth7");
    ip("link set guest up");
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    let device = device.with("script", "/etc/xen/scripts/vif-route").with("gatewaydev", "eth7");
    let device = device.with("ip", "10.1.2.3 fd00::7");
    serve(&world, &device);
    let routed = || {
        ip("route show dev vif3.0").contains("10.1.2.3 ")
            && ip("-6 route show dev vif3.0").contains("fd00::7 ")
            && ip("-o address show dev vif3.0").contains("192.0.2.1/32")
    };
    assert!(routed());
    ip("link set vif3.0 down");
    world.wait_logged("vif3.0 was taken down and cuts its guest off");
    assert!(!routed());
    ip("link set vif3.0 up");
    wait_until("the routes", routed);
    world.wait_logged("routes by vif3.0 were gone: made again (10.1.2.3/32, fd00::7/128)");
    ip("address flush dev vif3.0 scope global");
    wait_until("the address", routed);
    world.wait_logged("vif3.0 lacked the address 192.0.2.1: given again");
    devd.kill();
    ip("route delete 10.1.2.3 dev vif3.0");
    network::run("sysctl", "-q net/ipv4/conf/vif3.0/proxy_arp=0");
    let _devd = world.devd(BUILTIN);
    wait_until("the route", routed);
    world.wait_logged("proxy_arp of vif3.0 was off: turned on again");
    remove(&world, &device);
    assert!(!ip("-o address show dev vif3.0").contains("192.0.2.1"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn routed_interface_without_ipv6_is_served_by_ipv4() {
    let (world, device) = bridged();
    network::vif("eth7", "world");
    ip("address add 192.0.2.1/24 dev eth7");
    network::run("sysctl", "-q net/ipv6/conf/vif3.0/disable_ipv6=1");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let device = device.with("script", "/etc/xen/scripts/vif-route").with("gatewaydev", "eth7");
    let device = device.with("ip", "10.1.2.3 fd00::7");
    serve(&world, &device);
    assert!(ip("route show dev vif3.0").contains("10.1.2.3 "));
    world.wait_logged("there is no route to fd00::7/128 by vif3.0, because IPv6 is off there");
    assert_eq!(world.logged("disable_ipv6"), 1, "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn vlan_node_needs_a_bridge_that_filters_vlans() {
    let (world, device) = bridged();
    let device = device.with("vlan", "10p/20-22");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("a vlan node, but bridge xenbr0 does not filter VLANs"), "{reason}");
    assert!(!has("vif3.0", "master"));
    // Does this kernel know how (CONFIG_BRIDGE_VLAN_FILTERING)?
    let filters = "link set xenbr0 type bridge vlan_filtering 1";
    if network::try_run("ip", filters).is_none() {
        return;
    }
    world.wait_connected(&device);
    let vlans = || network::run("bridge", "-c vlan show dev vif3.0");
    let set = || {
        let vlans = vlans();
        let default = vlans.split_whitespace().any(|word| word == "1");
        vlans.contains("10 PVID Egress Untagged") && vlans.contains("20-22") && !default
    };
    assert!(set(), "{}", vlans());
    network::run("bridge", "vlan del dev vif3.0 vid 21");
    wait_until("the VLANs to be set back", set);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn vlan_node_that_makes_no_sense_is_named() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let device = device.with("vlan", "10/20");
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.contains("vlan is \"10/20\", which must mark one VLAN as the PVID"), "{reason}");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn interface_renamed_is_followed() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    serve(&world, &device);
    ip("link set vif3.0 name web");
    world.wait_logged("vif3.0 is called web now");
    ip("link set web nomaster");
    wait_has("web", "master xenbr0");
    remove(&world, &device);
    assert!(!has("web", "master"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn interface_renamed_while_no_daemon_ran_is_found_by_its_device() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    serve(&world, &device);
    devd.kill();
    ip("link set vif3.0 name web");
    ip("link set web nomaster");
    network::belongs("web", "vif-3-0");
    let _devd = world.devd(BUILTIN);
    wait_has("web", "master xenbr0");
    world.wait_logged("vif3.0 is called web now");
    remove(&world, &device);
    assert!(!has("web", "master"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn rules_that_others_flush_are_made_again() {
    let (world, device) = bridged();
    network::vif("vif4.0", "guest4");
    let device = device.with("ip", "10.1.2.3");
    let other = Device::vif(4, 0).with("ip", "10.1.2.4");
    let _kernel = world.kernel();
    let devd = world.devd(ANTISPOOF);
    serve(&world, &device);
    serve(&world, &other);
    let protected = || {
        let rules = nft("list ruleset");
        let of = |name: &str| rules.contains(&format!("table netdev devd-{name}"));
        of("vif3.0") && of("vif4.0") && rules.contains("10.1.2.3") && rules.contains("10.1.2.4")
    };
    assert!(protected());
    // The first line of Debian's /etc/nftables.conf.
    nft("flush ruleset");
    wait_until("the rules to be made again", protected);
    let words = "the rules against spoofing of vif3.0 were missing or changed: made again";
    world.wait_logged(words);
    // Of one interface only.
    nft("delete table netdev devd-vif4.0");
    wait_until("the rules of vif4.0", protected);
    assert_eq!(world.logged(words), 1, "{}", world.log());
    // While no daemon runs.
    devd.kill();
    nft("flush ruleset");
    let _devd = world.devd(ANTISPOOF);
    wait_until("the rules to be made by the next daemon", protected);
    remove(&world, &device);
    remove(&world, &other);
    assert_eq!(nft("list ruleset").trim(), "");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn interface_served_before_antispoof_gets_its_rules() {
    let (world, device) = bridged();
    let device = device.with("ip", "10.1.2.3");
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    serve(&world, &device);
    assert_eq!(nft("list ruleset").trim(), "");
    devd.kill();
    let _devd = world.devd(ANTISPOOF);
    wait_until("the rules", || nft("list ruleset").contains("table netdev devd-vif3.0"));
    world.wait_node(&device, "antispoof", "on");
}

/// A script that serves an interface without a bridge: only its rules can be the daemon's.
const SCRIPT: &str = "case $1 in
online) ip link set $vif up && call connect ;;
esac";
const ANTISPOOF_OF_SCRIPTS: &[&str] = &["--hooks", "script", "--antispoof"];

/// A guest's interface that a script serves and the daemon limits.
fn scripted() -> (World, Device) {
    let (world, device) = bridged();
    world.hook("vif-bridge", SCRIPT);
    (world, device.with("ip", "10.1.2.3"))
}

/// Are the rules of guest 3 in the kernel?
fn has_rules() -> bool {
    let rules = nft("list ruleset");
    rules.contains("table netdev devd-vif3.0") && rules.contains("10.1.2.3")
}

const RULES_MADE_AGAIN: &str =
    "backend/vif/3/0: the rules against spoofing of vif3.0 were missing or changed: made again";

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn flushed_rules_of_a_scripts_interface_are_made_again() {
    let (world, device) = scripted();
    let _kernel = world.kernel();
    let devd = world.devd(ANTISPOOF_OF_SCRIPTS);
    serve(&world, &device);
    assert!(has_rules());
    nft("flush ruleset");
    wait_until("the rules to be made again", has_rules);
    world.wait_logged(RULES_MADE_AGAIN);
    nft("add rule netdev devd-vif3.0 guest-ip4 accept");
    wait_until("the rule of others to go", || world.logged(RULES_MADE_AGAIN) == 2);
    // The next daemon looks after them as well.
    devd.kill();
    nft("flush ruleset");
    let _devd = world.devd(ANTISPOOF_OF_SCRIPTS);
    wait_until("the rules to be made by the next daemon", has_rules);
    nft("flush ruleset");
    wait_until("the rules to be made again", has_rules);
    wait_until("a line for each time", || world.logged(RULES_MADE_AGAIN) == 4);
    assert_eq!(world.node(&device, "antispoof").as_deref(), Some("on"));
    assert_eq!(world.node(&device, "hotplug-error"), None);
    remove(&world, &device);
    nft("add table inet elsewhere");
    world.wait_settled();
    assert_eq!(nft("list ruleset").trim(), "table inet elsewhere {\n}");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn rules_flushed_while_a_script_runs_are_made_again() {
    let (world, device) = scripted();
    world.gate("script");
    world.hook("vif-bridge", &SCRIPT.replace("online) ", "online) read x < $DIR/script; "));
    let device = device.with("vifname", "web");
    let _kernel = world.kernel();
    let _devd = world.devd(ANTISPOOF_OF_SCRIPTS);
    world.attach(&device);
    wait_until("the script to run", || !world.calls(&device).is_empty());
    assert!(has_rules());
    nft("flush ruleset");
    wait_until("the rules to be made again", has_rules);
    // The rules cover the name that the script gives the interface.
    assert!(nft("list table netdev devd-vif3.0").contains("web"));
    let _gate = world.open("script");
    world.wait_connected(&device);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn scripts_interface_keeps_all_but_its_rules() {
    let (world, device) = scripted();
    network::bridge("lan7", 1500);
    let device = device.with("mtu", "1400");
    let _kernel = world.kernel();
    let _devd = world.devd(ANTISPOOF_OF_SCRIPTS);
    serve(&world, &device);
    ip("link set vif3.0 down mtu 1450 address 02:00:00:00:00:07 master lan7");
    ip("link set vif3.0 nomaster");
    // A check has come after these.
    nft("flush ruleset");
    world.wait_logged(RULES_MADE_AGAIN);
    for word in ["mtu 1450", "02:00:00:00:00:07"] {
        assert!(has("vif3.0", word), "{word}");
    }
    assert!(!has("vif3.0", "master") && !has("vif3.0", ",UP"));
    assert_eq!(world.logged(" warn: "), 1, "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn rules_follow_an_interface_that_its_script_renames() {
    let (world, device) = scripted();
    let script = "ip link set $vif down name other && ip link set other up";
    world.hook("vif-bridge", &SCRIPT.replace("ip link set $vif up", script));
    let _kernel = world.kernel();
    let _devd = world.devd(ANTISPOOF_OF_SCRIPTS);
    serve(&world, &device);
    wait_until("the rules of other", || nft("list table netdev devd-vif3.0").contains("other"));
    remove(&world, &device);
    assert_eq!(nft("list ruleset").trim(), "");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn rules_of_a_script_flushed_all_the_time_become_rare() {
    let (world, device) = scripted();
    let _kernel = world.kernel();
    let _devd = world.devd(ANTISPOOF_OF_SCRIPTS);
    serve(&world, &device);
    while world.logged("the next repair waits 2 s") == 0 {
        nft("flush ruleset");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(world.logged("made again") <= 4, "{}", world.log());
    wait_until("the rules", has_rules);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn limited_interface_of_a_script_that_goes_is_reported() {
    let (world, device) = scripted();
    let name = format!("devd-limited-{}", std::process::id());
    ip(&format!("netns add {name}"));
    let _namespace = network::Named(&name);
    let _kernel = world.kernel();
    let devd = world.devd(ANTISPOOF_OF_SCRIPTS);
    serve(&world, &device);
    ip(&format!("link set vif3.0 netns {name}"));
    let words = "interface vif3.0 is gone from this domain's network";
    wait_until("the node", || {
        let node = world.node(&device, "antispoof").unwrap_or_default();
        node.starts_with(&format!("off: {words}"))
    });
    let error = world.node(&device, "hotplug-error").unwrap_or_default();
    assert!(error.starts_with(words), "{error}");
    assert_eq!(world.node(&device, "hotplug-status").as_deref(), Some("connected"));
    let sentence = "its guest may send as any address in spite of --antispoof: interface vif3.0";
    world.wait_logged(sentence);
    ip(&format!("-n {name} link set vif3.0 netns {}", devd.pid()));
    wait_until("the rules", has_rules);
    world.wait_node(&device, "antispoof", "on");
    wait_until("no hotplug-error", || world.node(&device, "hotplug-error").is_none());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn rules_of_others_cause_no_check() {
    let (world, device) = bridged();
    let device = device.with("ip", "10.1.2.3");
    let _kernel = world.kernel();
    let _devd = world.devd(ANTISPOOF);
    serve(&world, &device);
    nft("add table inet elsewhere");
    nft("delete table inet elsewhere");
    world.wait_settled();
    assert_eq!(world.logged(" warn: "), 0, "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn rules_follow_an_interface_that_is_renamed() {
    let (world, device) = bridged();
    let device = device.with("ip", "10.1.2.3");
    let _kernel = world.kernel();
    let _devd = world.devd(ANTISPOOF);
    serve(&world, &device);
    ip("link set vif3.0 name web");
    world.wait_logged("vif3.0 is called web now");
    wait_until("the rules of web", || nft("list table netdev devd-vif3.0").contains("web"));
    remove(&world, &device);
    assert_eq!(nft("list ruleset").trim(), "");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn rules_that_are_flushed_all_the_time_do_not_make_it_spin() {
    let (world, device) = bridged();
    let device = device.with("ip", "10.1.2.3");
    let _kernel = world.kernel();
    let _devd = world.devd(ANTISPOOF);
    serve(&world, &device);
    while world.logged("the next repair waits 2 s") == 0 {
        nft("flush ruleset");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(world.logged("made again") <= 4, "{}", world.log());
    wait_until("the rules", || nft("list ruleset").contains("table netdev devd-vif3.0"));
}

/// A disk in a file, and a daemon whose clock can be set ahead.
fn disk_with_clock() -> (World, PathBuf, Device, Later) {
    network::isolate();
    let world = World::new();
    let path = world.file("disk.img");
    disk::file(&path, 1 << 20);
    let device = Device::vbd(3, 51712).with("params", path.as_os_str().as_bytes());
    let clock = Later::new(world.file("clock"));
    (world, path, device, clock)
}

#[track_caller]
fn start_with(world: &World, clock: &Later) -> Devd {
    let mut command = world.command(BUILTIN);
    clock.apply(&mut command);
    world.devd_by(command)
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn disk_whose_file_is_deleted_is_reported_within_two_minutes() {
    let (world, path, device, clock) = disk_with_clock();
    let _kernel = world.kernel();
    let _devd = start_with(&world, &clock);
    serve(&world, &device);
    fs::remove_file(&path).unwrap();
    clock.set(121);
    world.wait_settled();
    world.wait_logged("backend/vbd/3/51712: ");
    let words = "disk.img is deleted: its data is lost when the disk is detached";
    world.wait_logged(words);
    wait_until("hotplug-error", || {
        world.node(&device, "hotplug-error").is_some_and(|error| error.contains(words))
    });
    assert_eq!(world.node(&device, "hotplug-status").as_deref(), Some("connected"));
    // Told once.
    clock.set(300);
    world.wait_settled();
    remove(&world, &device);
    assert_eq!(world.logged(words), 1, "{}", world.log());
}

#[test]
#[ignore = "needs root and loop devices: run .ci/test"]
fn loop_device_that_others_free_is_reported_within_two_minutes() {
    let (world, _, device, clock) = disk_with_clock();
    let device = device.with("mode", "r");
    let _kernel = world.kernel();
    let devd = start_with(&world, &clock);
    serve(&world, &device);
    // The device stays for the next daemon, which does not hold it: nobody does, without blkback.
    devd.terminate();
    let devd = start_with(&world, &clock);
    let node = world.node(&device, "node").unwrap();
    // The first look at the disk has a thread.
    wait_until("the first look", || process::threads(devd.pid()) == 1);
    world.wait_settled();
    network::run("losetup", &format!("-d {node}"));
    clock.set(121);
    world.wait_settled();
    world.wait_logged(&format!("backend/vbd/3/51712: {node} has lost its file"));
    wait_until("hotplug-error", || {
        world.node(&device, "hotplug-error").is_some_and(|error| error.contains("lost its file"))
    });
}
