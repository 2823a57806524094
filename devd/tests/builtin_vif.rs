//! The built-in hooks of network interfaces, on real interfaces in a network namespace: a veth
//! pair stands in for netback's interface and the guest's.

mod support;

use support::network::{self, ip, link};
use support::{Device, World, wait_until};

const BUILTIN: &[&str] = &["--hooks", "builtin"];

/// A bridge `xenbr0`, an interface `vif3.0`, and what the toolstack writes for it.
fn bridged() -> (World, Device) {
    network::isolate();
    network::bridge("xenbr0", 1400);
    network::vif("vif3.0", "guest");
    (World::new(), Device::vif(3, 0))
}

#[track_caller]
fn has(name: &str, word: &str) -> bool {
    link(name).unwrap_or_else(|| panic!("no {name}")).contains(word)
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn interface_joins_its_bridge_and_leaves_it_again() {
    let (world, device) = bridged();
    ip("address add 10.9.9.9/24 dev vif3.0");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let mtu = format!("{}/mtu", device.frontend());
    world.store.write(mtu.as_bytes(), b"").unwrap();
    world.store.set_permissions(mtu.as_bytes(), b"n7\0r3\0").unwrap();
    world.attach(&device);
    world.wait_connected(&device);

    for word in ["master xenbr0", "mtu 1400", "fe:ff:ff:ff:ff:ff", ",UP"] {
        assert!(has("vif3.0", word), "{word}: {:?}", link("vif3.0"));
    }
    assert!(!ip("-o address show dev vif3.0").contains("10.9.9.9"));
    assert_eq!(world.node(&device, "hotplug-status").as_deref(), Some("connected"));
    assert_eq!(world.node(&device, "hotplug-error"), None);
    assert_eq!(world.read(&mtu).as_deref(), Some("1400"));
    assert_eq!(world.logged("hook vif-bridge: built in"), 1);
    assert_eq!(world.runs(), [], "no script");

    world.detach(&device);
    world.wait_gone(&device);
    assert!(!has("vif3.0", "master"));
    assert!(!has("vif3.0", ",UP"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn the_nodes_of_the_device_name_the_interface_and_set_its_mtu() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let device = device.with("vifname", "web").with("mtu", "1300");
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(link("vif3.0"), None);
    assert!(has("web", "master xenbr0") && has("web", "mtu 1300"), "{:?}", link("web"));
    // The frontend has no node for it, and none is made.
    assert_eq!(world.read(&format!("{}/mtu", device.frontend())), None);
    // As netback does.
    ip("link delete web");
    world.detach(&device);
    world.wait_gone(&device);
    let lowered = world.logged("the MTU of web lowers that of bridge xenbr0 from 1400 to 1300");
    assert_eq!((world.logged(" warn: "), lowered), (1, 1), "{}", world.log());
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn a_bridge_that_is_missing_is_named_and_waited_for() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let device = device.with("bridge", "lan7");
    world.attach(&device);
    let reason = world.wait_refused(&device);
    assert!(reason.starts_with("vif-bridge: there is no bridge lan7"), "{reason}");
    assert!(!has("vif3.0", "fe:ff"), "nothing was touched");
    // It is tried again by itself.
    network::bridge("lan7", 1500);
    world.wait_connected(&device);
    assert!(has("vif3.0", "master lan7"));
    assert_eq!(world.node(&device, "hotplug-error"), None);
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn failed_step_is_named_and_earlier_steps_are_undone() {
    let (world, device) = bridged();
    network::vif("vif3.1", "guest1");
    network::vif("taken", "guest2");
    ip("link add vif3.4 type bridge");
    let before = link("vif3.0").unwrap();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let of = |devid: u32| Device { devid, ..Device::vif(3, devid) };
    let cases = [
        (device.with("bridge", "vif3.1"), "vif3.1 is an interface, but not a bridge"),
        (of(1).with("vifname", "taken"), "cannot rename vif3.1 to taken: there is an interface"),
        (of(2).with("bridge", "xenbr0"), "there is no interface vif3.2"),
        (of(3).with("vifname", "a/b"), "vifname is \"a/b\""),
        // A bridge cannot be a port of another.
        (of(4), "cannot put vif3.4 into bridge xenbr0"),
    ];
    for (device, words) in &cases {
        world.attach(device);
        let reason = world.wait_refused(device);
        assert!(reason.contains(words), "{reason}");
    }
    let without_index = |link: String| link.split_once(' ').unwrap().1.to_owned();
    assert_eq!(link("vif3.0").map(without_index), Some(without_index(before)));
    assert!(!has("vif3.4", "fe:ff:ff") && !has("vif3.4", ",UP"), "{:?}", link("vif3.4"));
    for (device, _) in &cases {
        world.detach(device);
        world.wait_gone(device);
    }
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn without_a_name_it_is_the_bridge_that_there_is() {
    let (world, device) = bridged();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let device = device.without("bridge").with("script", "");
    world.attach(&device);
    world.wait_connected(&device);
    assert!(has("vif3.0", "master xenbr0"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn an_emulated_interface_has_its_second_pass() {
    let (world, _) = bridged();
    network::vif("vif3.0-emu", "qemu");
    network::vif("vif4.0", "guest4");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let (here, elsewhere) = (Device::vif_ioemu(3, 0), Device::vif_ioemu(4, 0));
    for device in [&here, &elsewhere] {
        world.attach(device);
        world.wait_connected(device);
    }
    wait_until("both ports", || has("vif3.0-emu", "master xenbr0"));
    assert!(has("vif3.0", "master xenbr0"));
    // The QEMU of guest 4 is in domain 0.
    assert!(has("vif4.0", "master xenbr0"));
    world.wait_logged("there is no vif4.0-emu in this domain");
    world.detach(&here);
    world.wait_gone(&here);
    assert!(!has("vif3.0-emu", "master") && !has("vif3.0", "master"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn a_daemon_that_was_started_again_takes_the_port_away() {
    let (world, device) = bridged();
    let device = device.with("vifname", "web");
    let _kernel = world.kernel();
    let devd = world.devd(BUILTIN);
    world.attach(&device);
    world.wait_connected(&device);
    devd.kill();
    network::belongs("web", "vif-3-0");
    let _devd = world.devd(BUILTIN);
    assert!(has("web", "master xenbr0"));
    world.detach(&device);
    world.wait_gone(&device);
    assert!(!has("web", "master"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn routed_interface_gets_gateway_address_and_guest_routes() {
    let (world, device) = bridged();
    network::vif("eth7", "world");
    ip("address add 192.0.2.1/24 dev eth7");
    ip("link set guest up");
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let device = device.with("script", "/etc/xen/scripts/vif-route").with("gatewaydev", "eth7");
    let device = device.with("ip", "10.1.2.3 10.8.0.0/16 fd00::7");
    world.attach(&device);
    world.wait_connected(&device);
    assert!(ip("-o address show dev vif3.0").contains("inet 192.0.2.1/32"));
    let routes = ip("route show dev vif3.0");
    for route in ["10.1.2.3 ", "10.8.0.0/16 "] {
        let line = routes.lines().find(|line| line.starts_with(route));
        let line = line.unwrap_or_else(|| panic!("{route}: {routes}"));
        assert!(line.contains("src 192.0.2.1 metric 2"), "{line}");
    }
    assert!(ip("-6 route show dev vif3.0").contains("fd00::7 metric 2"));
    let proxy = network::run("cat", "/proc/sys/net/ipv4/conf/vif3.0/proxy_arp");
    assert_eq!(proxy.trim(), "1");

    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(ip("route show dev vif3.0").trim(), "");
    assert!(!ip("-o address show dev vif3.0").contains("192.0.2.1"));
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn a_routed_interface_says_what_it_lacks() {
    let (world, device) = bridged();
    network::vif("bare", "world");
    let before = link("vif3.0").unwrap();
    let _kernel = world.kernel();
    let _devd = world.devd(BUILTIN);
    let route = Device { nodes: device.nodes.clone(), ..device }.with("script", "vif-route");
    for (node, value, words) in [
        ("gatewaydev", "eth9", "there is no interface eth9"),
        ("gatewaydev", "bare", "bare has no IPv4 address"),
        ("ip", "10.1.2.3 ten", "ip has \"ten\""),
    ] {
        let device = route.clone().with(node, value);
        world.attach(&device);
        let reason = world.wait_refused(&device);
        assert!(reason.starts_with("vif-route: ") && reason.contains(words), "{reason}");
        assert_eq!(link("vif3.0").as_ref(), Some(&before));
        world.detach(&device);
        world.wait_gone(&device);
    }
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn a_guest_sends_as_its_own_addresses_only_if_that_is_asked_for() {
    let (world, device) = bridged();
    // The guest is the other end of the pair, in a namespace of its own; so is the other guest.
    ip("address add 10.1.0.1/16 dev xenbr0");
    ip("address add fd00::1/64 dev xenbr0 nodad");
    let name = format!("devd-test-{}", std::process::id());
    let guest = Namespace::new(&name, "guest");
    let _kernel = world.kernel();
    let devd = world.devd(&["--hooks", "builtin", "--antispoof"]);
    let device = device.with("ip", "10.1.2.3 10.1.4.0/24 fd00::7");
    world.attach(&device);
    world.wait_connected(&device);
    let rules = network::nft("list table netdev devd-vif3.0");
    for line in [
        "type filter hook ingress device \"vif3.0\" priority filter; policy drop;",
        "ether saddr != 00:16:3e:00:00:01 drop",
        "ip saddr 10.1.2.3 goto guest-ip4",
        "ip6 saddr fd00::7 goto guest-ip6",
        "udp sport 68 udp dport 67 accept",
    ] {
        assert!(rules.contains(line), "{line}: {rules}");
    }
    assert_eq!(world.node(&device, "antispoof").as_deref(), Some("on"));
    for address in ["10.1.2.3", "10.1.4.9", "fd00::7"] {
        assert!(guest.reaches_as(address), "{address}: {rules}");
    }
    for address in ["10.1.2.4", "fd00::8"] {
        assert!(!guest.reaches_as(address), "{address}: {rules}");
    }

    // Found again by the interface's name.
    devd.kill();
    let _devd = world.devd(&["--hooks", "builtin", "--antispoof"]);
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(network::nft("list ruleset"), "");
}

#[test]
#[ignore = "needs root, ip and nft: run .ci/test"]
fn many_ports_have_their_rules_side_by_side() {
    let (world, first) = bridged();
    network::vif("vif4.0", "guest4");
    let _kernel = world.kernel();
    let _devd = world.devd(&["--hooks", "builtin", "--antispoof"]);
    let first = first.with("ip", "10.1.2.3");
    let second = Device::vif(4, 0).with("ip", "10.1.2.4");
    let free = Device { devid: 1, ..Device::vif(4, 1) };
    network::vif("vif4.1", "guest41");
    for device in [&first, &second, &free] {
        world.attach(device);
        world.wait_connected(device);
    }
    let rules = network::nft("list ruleset");
    let has = |rules: &str, vif: &str| rules.contains(&format!("table netdev devd-{vif} "));
    assert!(has(&rules, "vif3.0") && has(&rules, "vif4.0"), "{rules}");
    assert!(!has(&rules, "vif4.1"), "no ip, no limit: {rules}");
    world.detach(&first);
    world.wait_gone(&first);
    let rules = network::nft("list ruleset");
    assert!(!has(&rules, "vif3.0") && has(&rules, "vif4.0"), "{rules}");
    // What cannot be set up leaves no rules.
    ip("link add vif5.0 type bridge");
    let broken = Device::vif(5, 0).with("ip", "10.1.2.5");
    world.attach(&broken);
    world.wait_refused(&broken);
    assert!(!has(&network::nft("list ruleset"), "vif5.0"));
}

/// A network namespace that has the guest's end of a pair.
struct Namespace<'a> {
    name: &'a str,
    interface: &'a str,
}

impl<'a> Namespace<'a> {
    fn new(name: &'a str, interface: &'a str) -> Self {
        ip(&format!("netns add {name}"));
        ip(&format!("link set {interface} netns {name}"));
        ip(&format!("-n {name} link set {interface} address 00:16:3e:00:00:01"));
        ip(&format!("-n {name} link set {interface} up"));
        Self { name, interface }
    }

    /// Does the bridge answer whoever says that it has this address?
    fn reaches_as(&self, address: &str) -> bool {
        let (version, prefix, bridge, nodad) = if address.contains(':') {
            ("-6", 64, "fd00::1", " nodad")
        } else {
            ("-4", 16, "10.1.0.1", "")
        };
        let Self { name, interface } = self;
        ip(&format!("-n {name} address flush dev {interface} scope global"));
        ip(&format!("-n {name} address add {address}/{prefix} dev {interface}{nodad}"));
        ip("neigh flush dev xenbr0");
        let ping = format!("netns exec {name} ping {version} -c 1 -W 1 -i 0.2 {bridge}");
        // The port of a bridge that has just come up may take its time.
        (0..3).any(|_| {
            std::process::Command::new("ip")
                .args(ping.split(' '))
                .output()
                .unwrap()
                .status
                .success()
        })
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "delete", self.name]).output();
    }
}
