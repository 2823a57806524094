//! What the store is told when a hook has done its work.

use devd_core::{DeviceKey, XenbusState};
use xs_client::{Client, Error, Outcome, Transaction};

use super::Success;
use super::failure::Failure;

/// Writes all that the hook's script would have written, in one transaction. A device that is
/// not there any more, or is another one, is told nothing.
///
/// # Errors
///
/// The connection is lost. Within: the store refuses, for want of quota for instance.
pub(super) fn write(
    client: &mut Client,
    key: DeviceKey,
    tap: bool,
    success: &Success,
) -> Result<Result<(), Failure>, Error> {
    if tap {
        return Ok(Ok(())); // The first pass has said all.
    }
    let written = client.transaction(|transaction| {
        if !is_there(transaction, key)? {
            return Ok(Outcome::Abort(()));
        }
        for (node, value) in &success.nodes {
            transaction.write(format!("{key}/{node}"), value)?;
        }
        if let Some(mtu) = success.mtu {
            tell_mtu(transaction, key, mtu)?;
        }
        transaction.write(format!("{key}/hotplug-status"), "connected")?;
        Ok(Outcome::Commit(()))
    });
    match written {
        Err(error) if !error.ends_connection() => {
            Ok(Err(Failure::new(format!("cannot write down what was done: {error}"))))
        }
        result => result.map(Ok),
    }
}

/// Writes nodes that are for people. That they are refused is no failure of the device.
///
/// # Errors
///
/// The connection is lost.
pub(super) fn tell(
    client: &mut Client,
    key: DeviceKey,
    nodes: &[(&'static str, Vec<u8>)],
) -> Result<(), Error> {
    if nodes.is_empty() {
        return Ok(());
    }
    let written = client.transaction(|transaction| {
        if !is_there(transaction, key)? {
            return Ok(Outcome::Abort(()));
        }
        for (node, value) in nodes {
            transaction.write(format!("{key}/{node}"), value)?;
        }
        Ok(Outcome::Commit(()))
    });
    match written {
        Err(error) if !error.ends_connection() => {
            for (node, _) in nodes {
                log::warn!("{key}: cannot write its node {node}: {error}");
            }
            Ok(())
        }
        result => result,
    }
}

/// Is the device there, and not another one in its place? No hook is run so early.
fn is_there(transaction: &mut Transaction<'_>, key: DeviceKey) -> Result<bool, Error> {
    match transaction.read(format!("{key}/state")) {
        Ok(state) => Ok(XenbusState::parse(&state) > XenbusState::Initialising),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The frontend's node is the toolstack's to make: an older one has none, and that is fine.
/// The guest can write it too, so nothing is ever read from there.
fn tell_mtu(transaction: &mut Transaction<'_>, key: DeviceKey, mtu: u32) -> Result<(), Error> {
    let DeviceKey { domid, devid, .. } = key;
    let node = format!("/local/domain/{domid}/device/vif/{devid}/mtu");
    match transaction.write(&node, mtu.to_string()) {
        Err(error) if !error.ends_connection() => {
            log::debug!("{key}: the guest is not told its MTU, {mtu}: {error}");
            Ok(())
        }
        result => result,
    }
}
