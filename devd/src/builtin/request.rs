//! What the store says of a device before its hook runs.

use devd_core::{DeviceKey, Hook};
use xs_client::{Batch, Client, Error};
use xs_proto::ErrorCode;

use super::failure::Failure;
use super::vif::Interface;
use super::{Builtin, Job, Made, vif_bridge, vif_route};

/// The work of the add hook.
///
/// # Errors
///
/// The connection is lost. Within: what the store says makes no sense.
pub(super) fn attach(
    builtin: Builtin,
    hook: &Hook<'_>,
    client: &mut Client,
) -> Result<Result<Job, Failure>, Error> {
    Ok(match builtin {
        Builtin::VifBridge => {
            let [vifname, bridge, mtu] = read(client, hook.key, ["vifname", "bridge", "mtu"])?;
            Interface::new(hook.key, hook.tap, &vifname).map(|interface| {
                Job::Bridge(vif_bridge::Attach { interface, bridge, mtu: number(&mtu) })
            })
        }
        Builtin::VifRoute => {
            let [vifname, ip] = read(client, hook.key, ["vifname", "ip"])?;
            let gateway = hook.gatewaydev.to_owned();
            Interface::new(hook.key, hook.tap, &vifname).and_then(|interface| {
                let guest = vif_route::networks(&ip)?;
                Ok(Job::Route(vif_route::Attach { interface, gateway, guest }))
            })
        }
    })
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
) -> Result<Result<Job, Failure>, Error> {
    Ok(match builtin {
        // Without the interface nothing is left of a bridge's port, nor of addresses and routes.
        Builtin::VifBridge | Builtin::VifRoute => {
            let [vifname] = read(client, hook.key, ["vifname"])?;
            match Interface::new(hook.key, hook.tap, &vifname) {
                Ok(interface) => Ok(Job::Detach(Made::Port(interface))),
                Err(_) => Ok(Job::Nothing("it has never had that name")),
            }
        }
    })
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
    let mut index = 0;
    Ok(nodes.map(|node| {
        index += 1;
        match batch.reply(index - 1) {
            Ok(value) => value.to_owned(),
            Err(ErrorCode::NoEnt) => Vec::new(),
            Err(code) => {
                log::warn!("{key}: cannot read {node}: {code}");
                Vec::new()
            }
        }
    }))
}

/// A number from 1 on.
fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.trim().parse().ok().filter(|number| *number > 0)
}
