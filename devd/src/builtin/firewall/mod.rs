//! Anti-spoofing: what a guest may send, as rules of nftables on the interface that its frames
//! come from.
//!
//! Each interface has a table of its own, `netdev devd-vif3.0`. Its base chain is at the ingress
//! of the interface, and sees each frame before anything else: before a bridge learns the
//! source address, before a tag of a VLAN is taken off, and whether a bridge, Open vSwitch or
//! routing comes next. (The bridge's own hook sees no frames to the bridge's group addresses,
//! STP and LLDP, though the bridge learns from those as well.)
//!
//! `nft list table netdev devd-vif3.0` shows the rules.

mod nftables;
mod rules;

use std::io;

use nix::errno::Errno;

use super::failure::{Failure, Step};
use super::route::Network;
use super::vif::Interface;
use crate::shown;

use self::nftables::Table;

pub(crate) type Mac = [u8; 6];

/// The most addresses and networks of one guest: the kernel takes the rules of about 200 in one
/// message.
const MOST_NETWORKS: usize = 128;

/// What one guest may send by one of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    interface: Interface,
    mac: Mac,
    allowed: Vec<Network>,
}

impl Protection {
    /// `mac`: the value of the device's node. `allowed`: addresses and networks, at least one.
    ///
    /// # Errors
    ///
    /// The node is no MAC address, or there are too many networks.
    pub(crate) fn new(
        interface: Interface,
        mac: &[u8],
        allowed: Vec<Network>,
    ) -> Result<Self, Failure> {
        let mac = parse_mac(mac)?;
        if allowed.len() > MOST_NETWORKS {
            return Err(Failure::new(format!(
                "ip has {} addresses and networks, and --antispoof takes at most {MOST_NETWORKS}: \
                 name networks instead of single addresses",
                allowed.len()
            )));
        }
        Ok(Self { interface, mac, allowed })
    }

    pub(crate) const fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The interface has this name by now.
    pub(crate) fn follow(&mut self, name: &str) {
        name.clone_into(&mut self.interface.name);
    }

    fn table(&self) -> Table {
        let chains = rules::chains(self.mac, &self.allowed);
        Table { name: table_name(&self.interface), chains }
    }
}

/// The interface sends as its guest's addresses only. Rules that it has had are replaced in one
/// step.
pub(crate) fn protect(protection: &Protection) -> Result<(), Failure> {
    let Interface { given, name, .. } = &protection.interface;
    let table = protection.table();
    // The interface has one of its two names. Kernels since 6.16 keep to the names, older ones
    // to the interface, and those want a name that there is.
    let both: &[&str] = if given == name { &[name] } else { &[given, name] };
    let mut made = table.make(both);
    for one in both {
        match made {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => made = table.make(&[one]),
            _ => break,
        }
    }
    made.map_err(|error| refused(name, &error))
}

fn refused(name: &str, error: &io::Error) -> Failure {
    let step = format!("limit what {name} may send (nftables)");
    let failure = Failure::step(&step, error);
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => {
            Failure::new(format!(
                "{}: this kernel lacks nf_tables with the family netdev \
                 (CONFIG_NF_TABLES_NETDEV), or its module",
                failure.words()
            ))
        }
        _ => failure,
    }
}

/// Are the rules in place as [`protect`] makes them, all of them and no others, and do they apply
/// to the interface, which has this name now? Asks the kernel three times.
pub(crate) fn holds(protection: &Protection, name: &str) -> io::Result<bool> {
    protection.table().is_in_place(name)
}

/// Takes away what [`protect`] has made, if anything.
pub(crate) fn unprotect(interface: &Interface) -> Result<(), Failure> {
    match nftables::remove_table(&table_name(interface)) {
        Err(error) if nftables::is_absence(&error) => Ok(()),
        removed => {
            removed.step(|| format!("take away the rules for {} (nftables)", interface.name))
        }
    }
}

/// The name that the kernel gave the interface: nobody else's can be called so, and it is known
/// when the interface is gone.
pub(super) fn table_name(interface: &Interface) -> String {
    format!("devd-{}", interface.given)
}

fn parse_mac(value: &[u8]) -> Result<Mac, Failure> {
    if value.is_empty() {
        return Err(Failure::new(
            "the device has no mac node, and --antispoof limits guests to their MAC address",
        ));
    }
    let octets = || {
        let text = std::str::from_utf8(value).ok()?;
        let mut octets = text.split(':').map(|pair| {
            let digits = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            u8::from_str_radix(pair, 16).ok().filter(|_| digits)
        });
        let mut mac = [0; 6];
        for octet in &mut mac {
            *octet = octets.next()??;
        }
        octets.next().is_none().then_some(mac)
    };
    const GROUP: u8 = 1;
    octets().filter(|mac| mac[0] & GROUP == 0 && *mac != [0; 6]).ok_or_else(|| {
        let shown = shown::value(value);
        Failure::new(format!(
            "mac is \"{shown}\", which is no address of an interface, and --antispoof limits \
             guests to theirs"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use devd_core::{DeviceKey, Kind};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn protection(vifname: &[u8], allowed: &[&str]) -> Protection {
        let key = DeviceKey { kind: Kind::Vif, domid: 3, devid: 0 };
        let interface = Interface::new(key, false, vifname).unwrap();
        let allowed = allowed.iter().map(|text| Network::parse(text).unwrap()).collect();
        Protection::new(interface, b"00:16:3e:00:00:01", allowed).unwrap()
    }

    #[track_caller]
    fn run(command: &str) -> String {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn mac_is_six_pairs_of_digits() {
        assert_eq!(parse_mac(b"00:16:3E:00:00:0a"), Ok([0, 0x16, 0x3e, 0, 0, 0x0a]));
        let bad = ["", "00:16:3e:00:00", "00:16:3e:00:00:01:02", "0:16:3e:00:00:001", "\u{e9}"];
        for bad in
            bad.into_iter().chain(["+0:16:3e:00:00:01", "01:00:5e:00:00:01", "00:00:00:00:00:00"])
        {
            assert!(parse_mac(bad.as_bytes()).unwrap_err().words().contains("mac"), "{bad}");
        }
    }

    #[test]
    fn too_many_addresses_are_refused() {
        let interface = protection(b"", &["10.0.0.3"]).interface;
        let network = Network::parse("10.0.0.3").unwrap();
        let new =
            |count| Protection::new(interface.clone(), b"00:16:3e:00:00:01", vec![network; count]);
        assert!(new(MOST_NETWORKS).is_ok());
        assert!(new(MOST_NETWORKS + 1).unwrap_err().words().contains("129 addresses"));
    }

    #[test]
    #[ignore = "needs root, ip and nft: run .ci/test"]
    fn rules_hold_until_anything_of_them_is_changed() {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which takes root");
        run("ip link add name vif3.0 type veth peer name guest");
        let protection = protection(b"", &["10.0.0.3", "10.1.0.0/20", "fd00::3"]);
        assert!(!holds(&protection, "vif3.0").unwrap(), "nothing is there");
        let table = "netdev devd-vif3.0";
        let changes = [
            "flush ruleset".to_owned(),
            format!("delete table {table}"),
            format!("add table {table} {{ flags dormant; }}"),
            format!("insert rule {table} guest accept"),
            format!("add rule {table} guest-ip4 accept"),
            format!("flush chain {table} guest-dad"),
            format!("chain {table} guest {{ policy accept; }}"),
            format!("add chain {table} further; add rule {table} further drop"),
        ];
        for change in &changes {
            protect(&protection).unwrap();
            assert!(holds(&protection, "vif3.0").unwrap());
            protect(&protection).unwrap();
            assert!(holds(&protection, "vif3.0").unwrap(), "made twice");
            run_nft(change);
            assert!(!holds(&protection, "vif3.0").unwrap(), "{change}");
        }
        protect(&protection).unwrap();
        let one_rule_less = run("nft -a list chain netdev devd-vif3.0 guest-arp");
        let handle = one_rule_less.split("# handle ").nth(2).unwrap();
        let handle = handle.split_whitespace().next().unwrap();
        let rule = format!("replace rule {table} guest-arp handle {handle} accept");
        run_nft(&rule);
        assert!(!holds(&protection, "vif3.0").unwrap(), "{rule}");
        protect(&protection).unwrap();
        let others = Protection { mac: [2; 6], ..protection.clone() };
        assert!(!holds(&others, "vif3.0").unwrap(), "of another MAC address");
        unprotect(&protection.interface).unwrap();
        assert!(!holds(&protection, "vif3.0").unwrap());
        unprotect(&protection.interface).unwrap();
    }

    #[test]
    #[ignore = "needs root, ip and nft: run .ci/test"]
    fn rules_stay_with_an_interface_that_gets_its_second_name() {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which takes root");
        run("ip link add name vif3.0 type veth peer name guest");
        let protection = protection(b"web", &["10.0.0.3"]);
        protect(&protection).unwrap();
        run("ip link set vif3.0 name web");
        assert!(holds(&protection, "web").unwrap());
        protect(&protection).unwrap();
        assert!(holds(&protection, "web").unwrap());
    }

    #[test]
    #[ignore = "needs root, ip and nft: run .ci/test"]
    fn as_many_addresses_as_are_allowed_fit() {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which takes root");
        run("ip link add name vif3.0 type veth peer name guest");
        let addresses: Vec<String> =
            (0..MOST_NETWORKS).map(|n| format!("fd00::{n:x}:0/112")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let protection = protection(b"", &addresses);
        protect(&protection).unwrap();
        assert!(holds(&protection, "vif3.0").unwrap());
    }

    #[track_caller]
    fn run_nft(change: &str) {
        let output = Command::new("nft").arg(change).output().unwrap();
        assert!(output.status.success(), "{change}: {output:?}");
    }
}
