//! What the store says of a device before its hook runs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use devd_core::{DeviceKey, Hook, Kind};
use xs_client::{Batch, Client, Error};
use xs_proto::ErrorCode;

use super::antispoof::{self, Antispoof};
use super::bridge_vlan::Vlans;
use super::claims::{Claims, Mode};
use super::device_number::DeviceNumber;
use super::failure::Failure;
use super::firewall::Protection;
use super::place::Place;
use super::route::Network;
use super::served::{Served, SharedServed};
use super::vif::Interface;
use super::{Builtin, Job, Made, block, vif_bridge, vif_route};
use crate::shown;

/// The work of the add hook.
///
/// # Errors
///
/// The connection is lost. Within: what the store says makes no sense.
pub(super) fn attach(
    builtin: Builtin,
    hook: &Hook<'_>,
    client: &mut Client,
    claims: &Claims,
    image_dirs: &Arc<[PathBuf]>,
    asked: bool,
) -> Result<Result<Job, Failure>, Error> {
    Ok(match builtin {
        Builtin::VifBridge => {
            let nodes = ["vifname", "bridge", "mtu", "vlan"];
            let [vifname, bridge, mtu, vlan] = read(client, hook.key, nodes)?;
            let mtu = mtu_of(hook.key, &mtu);
            let limits = Limits::read(client, hook.key, asked)?;
            Interface::new(hook.key, hook.tap, &vifname).and_then(|interface| {
                let antispoof = limits.of(&interface)?;
                let vlans = Some(vlan).filter(|vlan| !vlan.is_empty());
                let vlans = vlans.map(|vlan| Vlans::parse(&vlan)).transpose()?;
                let attach = vif_bridge::Attach { interface, bridge, mtu, vlans, antispoof };
                Ok(Job::Bridge(attach))
            })
        }
        Builtin::VifRoute => {
            let [vifname, ip, vlan] = read(client, hook.key, ["vifname", "ip", "vlan"])?;
            if !vlan.is_empty() {
                log::warn!(
                    "{}: its vlan node is ignored: vif-route has no bridge; use vif-bridge",
                    hook.key
                );
            }
            let gateway = hook.gatewaydev.to_owned();
            let limits = Limits::read(client, hook.key, asked)?;
            Interface::new(hook.key, hook.tap, &vifname).and_then(|interface| {
                let guest = vif_route::networks(hook.key, &ip)?;
                let antispoof = limits.with(&interface, guest.clone())?;
                Ok(Job::Route(vif_route::Attach { interface, gateway, guest, antispoof }))
            })
        }
        Builtin::Block => {
            let nodes = ["params", "mode", "physical-device"];
            let [params, mode, attached] = read(client, hook.key, nodes)?;
            if mode.is_empty() {
                return Ok(Err(Failure::new("the device has no mode node")));
            }
            let usual = Mode::is_usual(&mode);
            let (shown, mode) = (shown::value(&mode), Mode::parse(&mode));
            if !usual {
                let words = mode.words();
                let key = hook.key;
                log::warn!("{key}: mode is \"{shown}\", none of r, w and w!: taken as {words}");
            }
            Ok(Job::Disk(block::Attach {
                key: hook.key,
                params: path(&params),
                mode,
                attached: DeviceNumber::parse(&attached),
                claims: claims.clone(),
                image_dirs: image_dirs.clone(),
            }))
        }
    })
}

/// What `--antispoof` means for an interface.
///
/// # Errors
///
/// As [`attach`].
pub(super) fn antispoof(
    client: &mut Client,
    key: DeviceKey,
    tap: bool,
) -> Result<Result<Antispoof, Failure>, Error> {
    let [vifname] = read(client, key, ["vifname"])?;
    let limits = Limits::read(client, key, true)?;
    Ok(Interface::new(key, tap, &vifname).and_then(|interface| limits.of(&interface)))
}

/// An interface that a script of an earlier daemon has put in place.
pub(super) struct LimitedBefore {
    pub(super) antispoof: Antispoof,
    /// The value of its node `antispoof`.
    pub(super) node: Vec<u8>,
    /// Its `hotplug-error` says that its rules are missing.
    pub(super) reported: bool,
}

/// What `--antispoof` means for an interface that is served already.
///
/// # Errors
///
/// As [`attach`].
pub(super) fn limited_before(
    client: &mut Client,
    key: DeviceKey,
    tap: bool,
) -> Result<Result<LimitedBefore, Failure>, Error> {
    let antispoof = antispoof(client, key, tap)?;
    let [error, node] = read(client, key, ["hotplug-error", antispoof::NODE])?;
    // Another error of a script's interface is not the daemon's to remove.
    let reported = !error.is_empty() && node.starts_with(b"off");
    Ok(antispoof.map(|antispoof| LimitedBefore { antispoof, node, reported }))
}

/// The nodes that say what a guest may send.
struct Limits {
    asked: bool,
    ip: Vec<u8>,
    mac: Vec<u8>,
}

impl Limits {
    /// `asked`: the daemon was started with `--antispoof`.
    fn read(client: &mut Client, key: DeviceKey, asked: bool) -> Result<Self, Error> {
        let [ip, mac] =
            if asked { read(client, key, ["ip", "mac"])? } else { [Vec::new(), Vec::new()] };
        Ok(Self { asked, ip, mac })
    }

    fn of(&self, interface: &Interface) -> Result<Antispoof, Failure> {
        let allowed =
            if self.asked { vif_route::networks(interface.key, &self.ip)? } else { Vec::new() };
        self.with(interface, allowed)
    }

    /// As [`of`](Self::of), if `ip` has been read already.
    fn with(&self, interface: &Interface, allowed: Vec<Network>) -> Result<Antispoof, Failure> {
        if !self.asked {
            return Ok(Antispoof::NotAsked);
        }
        if allowed.is_empty() {
            return Ok(Antispoof::Unlimited(interface.clone()));
        }
        Protection::new(interface.clone(), &self.mac, allowed).map(Antispoof::Limited)
    }
}

/// The work of the removal hook, of a device whose add hook another daemon has run: its
/// directory, if it still is there, tells what that has made.
///
/// # Errors
///
/// As [`attach`].
pub(super) fn detach(
    builtin: Builtin,
    hook: &Hook<'_>,
    client: &mut Client,
    limited: bool,
) -> Result<Result<Job, Failure>, Error> {
    Ok(match builtin {
        // Without the interface nothing is left of a bridge's port, nor of addresses and routes.
        Builtin::VifBridge | Builtin::VifRoute => {
            let [vifname] = read(client, hook.key, ["vifname"])?;
            match Interface::new(hook.key, hook.tap, &vifname) {
                Ok(interface) => Ok(Job::Detach(Made::FoundInterface { interface, limited })),
                Err(_) => Ok(Job::Nothing("it has never had that name")),
            }
        }
        Builtin::Block => {
            let [number, node, params, mode] =
                read(client, hook.key, ["physical-device", "node", "params", "mode"])?;
            let found = found(hook.key, &number, node, &params, Mode::parse(&mode));
            Ok(Job::Detach(Made::FoundDisk(found)))
        }
    })
}

/// A network interface that an earlier daemon has served, as its nodes tell.
pub(super) struct ServedBefore {
    pub(super) served: SharedServed,
    /// The device has a `hotplug-error`.
    pub(super) reported: bool,
    /// What its node `antispoof` should be and is not.
    pub(super) antispoof: Option<&'static [u8]>,
    /// What an operator should know.
    pub(super) warning: Option<Failure>,
}

/// What an earlier daemon has made for a network interface.
///
/// # Errors
///
/// The connection is lost. Within: what the store says makes no sense.
pub(super) fn served_before(
    builtin: Builtin,
    hook: &Hook<'_>,
    client: &mut Client,
    asked: bool,
) -> Result<Result<ServedBefore, Failure>, Error> {
    let job = attach(builtin, hook, client, &Claims::default(), &Arc::default(), asked)?;
    let [error, node] = read(client, hook.key, ["hotplug-error", antispoof::NODE])?;
    let (antispoof, served) = match job {
        Ok(Job::Bridge(attach)) => {
            (attach.antispoof.clone(), Served::Port(vif_bridge::Port::found(attach)))
        }
        Ok(Job::Route(attach)) => {
            (attach.antispoof.clone(), Served::Routed(vif_route::Routed::found(attach)))
        }
        Ok(_) => return Ok(Err(Failure::new("it is no network interface"))),
        Err(failure) => return Ok(Err(failure)),
    };
    Ok(Ok(ServedBefore {
        served: SharedServed::new(served),
        reported: !error.is_empty(),
        antispoof: antispoof.node().filter(|value| *value != node),
        warning: antispoof.warning().filter(|_| !hook.tap),
    }))
}

/// A disk that something else has attached, as the store has it.
pub(super) struct NotedDisk {
    pub(super) mode: Mode,
    pub(super) place: Place,
    /// What the removal hook needs, if there is one.
    pub(super) found: Option<block::Found>,
}

/// What is known of these disks; those that have not been attached are left out.
///
/// # Errors
///
/// The connection is lost.
pub(super) fn disks(
    client: &mut Client,
    keys: &[DeviceKey],
) -> Result<Vec<(DeviceKey, NotedDisk)>, Error> {
    // All in one go: a signal to end is heard meanwhile.
    const NODES: [&str; 4] = ["physical-device", "mode", "params", "node"];
    let mut batch = Batch::new();
    for key in keys {
        for node in NODES {
            batch.read(format!("{key}/{node}"));
        }
    }
    client.run(&mut batch)?;
    let mut disks = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let [number, mode, params, node] = values(&batch, index, *key, NODES);
        let mode = Mode::parse(&mode);
        let disk = match (key.kind, DeviceNumber::parse(&number)) {
            // As in aio:/srv/disk or qcow2:/srv/disk; the image's format is QEMU's affair.
            (Kind::Qdisk, _) => match params.iter().position(|byte| *byte == b'/') {
                Some(at) => {
                    NotedDisk { mode, place: Place::path(path(&params[at..])), found: None }
                }
                None => continue,
            },
            (_, Some(device)) => {
                let found = Some(found(*key, &number, node, &params, mode));
                NotedDisk { mode, place: Place::Device(device), found }
            }
            (_, None) => continue,
        };
        disks.push((*key, disk));
    }
    Ok(disks)
}

fn found(key: DeviceKey, number: &[u8], node: Vec<u8>, params: &[u8], mode: Mode) -> block::Found {
    let (number, params) = (DeviceNumber::parse(number), path(params));
    block::Found { key, number, node, params, mode, seen: Arc::default(), _claim: None }
}

fn path(value: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(value))
}

/// The values of nodes of a device; what is missing is empty.
fn read<const N: usize>(
    client: &mut Client,
    key: DeviceKey,
    nodes: [&str; N],
) -> Result<[Vec<u8>; N], Error> {
    let mut batch = Batch::new();
    for node in nodes {
        batch.read(format!("{key}/{node}"));
    }
    client.run(&mut batch)?;
    Ok(values(&batch, 0, key, nodes))
}

/// The values of these nodes in a batch of which each device, this one after so many others, has
/// as many requests.
fn values<const N: usize>(
    batch: &Batch,
    before: usize,
    key: DeviceKey,
    nodes: [&str; N],
) -> [Vec<u8>; N] {
    let mut index = before * N;
    nodes.map(|node| {
        index += 1;
        match batch.reply(index - 1) {
            Ok(value) => value.to_owned(),
            Err(ErrorCode::NoEnt) => Vec::new(),
            Err(code) => {
                log::warn!("{key}: cannot read {node}: {code}");
                Vec::new()
            }
        }
    })
}

/// The MTU that the device asks for, if it does.
fn mtu_of(key: DeviceKey, value: &[u8]) -> Option<u32> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    let number = text.and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    if number.is_none() && !value.is_empty() {
        let shown = shown::value(value);
        log::warn!("{key}: mtu is \"{shown}\", which is no number; the bridge's is taken");
    }
    number
}
