//! What the store is told when a hook has done its work.

use devd_core::{DeviceKey, State};
use xs_client::{Client, Error, Outcome, Transaction};

use super::failure::Failure;
use super::{Success, antispoof};

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
        match transaction.read(format!("{key}/state")) {
            // No hook is run so early: another device has come in its place.
            Ok(state) if State::parse(&state) <= State::Initialising => {
                return Ok(Outcome::Abort(()));
            }
            Ok(_) => {}
            Err(error) if error.is_missing() => return Ok(Outcome::Abort(())),
            Err(error) => return Err(error),
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

/// Says on a device that is served what `--antispoof` means for it.
///
/// # Errors
///
/// The connection is lost.
pub(super) fn write_antispoof(
    client: &mut Client,
    key: DeviceKey,
    value: &[u8],
) -> Result<(), Error> {
    let written = client.transaction(|transaction| {
        match transaction.read(format!("{key}/state")) {
            Ok(_) => {}
            Err(error) if error.is_missing() => return Ok(Outcome::Abort(())),
            Err(error) => return Err(error),
        }
        transaction.write(format!("{key}/{}", antispoof::NODE), value)?;
        Ok(Outcome::Commit(()))
    });
    match written {
        Err(error) if !error.ends_connection() => {
            log::warn!("{key}: cannot write {}: {error}", antispoof::NODE);
            Ok(())
        }
        result => result,
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
