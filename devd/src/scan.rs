//! Listing all devices that are in the store.

use devd_core::{DeviceKey, Domid, Kind};
use xs_client::{Client, Error};

/// What is in the backend directory, and which guests may have a QEMU.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) devices: Vec<DeviceKey>,
    /// Guests with a directory in `libxl`, where the process ids of QEMUs are kept.
    pub(crate) libxl: Vec<Domid>,
    /// Kinds that mean nothing to the daemon.
    pub(crate) unknown: Vec<String>,
}

/// Lists everything. What goes away meanwhile is left out.
///
/// # Errors
///
/// Only those that end the connection.
pub(crate) fn list(client: &mut Client) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for name in names(client, "backend")? {
        let Some(kind) = Kind::from_name(&name) else {
            listing.unknown.push(String::from_utf8_lossy(&name).into_owned());
            continue;
        };
        let of_kind = format!("backend/{}", kind.name());
        for domid in numbers(client, &of_kind)? {
            for devid in numbers(client, &format!("{of_kind}/{domid}"))? {
                listing.devices.push(DeviceKey { kind, domid, devid });
            }
        }
    }
    listing.libxl = numbers(client, "libxl")?;
    Ok(listing)
}

/// The children of a node whose names are numbers as libxl writes them.
fn numbers<N: std::str::FromStr + ToString>(
    client: &mut Client,
    path: &str,
) -> Result<Vec<N>, Error> {
    let number = |name: Vec<u8>| {
        let text = String::from_utf8(name).ok()?;
        let number: N = text.parse().ok()?;
        (number.to_string() == text).then_some(number)
    };
    Ok(names(client, path)?.into_iter().filter_map(number).collect())
}

fn names(client: &mut Client, path: &str) -> Result<Vec<Vec<u8>>, Error> {
    match client.directory(path) {
        Ok(names) => Ok(names),
        Err(error) if error.ends_connection() => Err(error),
        Err(error) => {
            // Without `driver_domain=1` there is no `libxl`, before the first device no `backend`.
            if !error.is_missing() {
                log::debug!("cannot list {path}: {error}");
            }
            Ok(Vec::new())
        }
    }
}
