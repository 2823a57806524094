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
    /// The store has refused a part of it.
    pub(crate) incomplete: bool,
}

/// Lists everything. What goes away meanwhile is left out.
///
/// # Errors
///
/// Only those that end the connection.
pub(crate) fn list(client: &mut Client) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for name in listing.names(client, "backend")? {
        let Some(kind) = Kind::from_name(&name) else {
            listing.unknown.push(String::from_utf8_lossy(&name).into_owned());
            continue;
        };
        let of_kind = format!("backend/{}", kind.name());
        for domid in listing.numbers(client, &of_kind)? {
            for devid in listing.numbers(client, &format!("{of_kind}/{domid}"))? {
                listing.devices.push(DeviceKey { kind, domid, devid });
            }
        }
    }
    listing.libxl = listing.numbers(client, "libxl")?;
    Ok(listing)
}

impl Listing {
    /// The children of a node whose names are numbers as libxl writes them.
    fn numbers<N: std::str::FromStr + ToString>(
        &mut self,
        client: &mut Client,
        path: &str,
    ) -> Result<Vec<N>, Error> {
        let number = |name: Vec<u8>| {
            let text = String::from_utf8(name).ok()?;
            let number: N = text.parse().ok()?;
            (number.to_string() == text).then_some(number)
        };
        Ok(self.names(client, path)?.into_iter().filter_map(number).collect())
    }

    fn names(&mut self, client: &mut Client, path: &str) -> Result<Vec<Vec<u8>>, Error> {
        match client.directory(path) {
            Ok(names) => Ok(names),
            Err(error) if error.ends_connection() => Err(error),
            // Without `driver_domain=1` there is no `libxl`, before the first device no `backend`.
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => {
                log::warn!("cannot list {path}: {error}; will try again");
                self.incomplete = true;
                Ok(Vec::new())
            }
        }
    }
}
