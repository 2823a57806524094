//! Listing all devices that are in the store, one directory at a time.

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

/// A directory that is still to be listed.
#[derive(Clone, Copy, Debug)]
enum Directory {
    Backend,
    Kind(Kind),
    Guest(Kind, Domid),
    Libxl,
}

/// A listing that is under way. Devices come and go meanwhile: an event tells of
/// each that comes.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The next one is the last.
    left: Vec<Directory>,
    listing: Listing,
}

impl Scan {
    pub(crate) fn begin() -> Self {
        Self { left: vec![Directory::Libxl, Directory::Backend], listing: Listing::default() }
    }

    /// Lists one directory. The listing, if that was the last.
    ///
    /// # Errors
    ///
    /// Only those that end the connection.
    pub(crate) fn step(&mut self, client: &mut Client) -> Result<Option<Listing>, Error> {
        let Self { left, listing } = self;
        match left.pop() {
            Some(Directory::Backend) => {
                for name in listing.names(client, "backend")? {
                    match Kind::from_name(&name) {
                        Some(kind) => left.push(Directory::Kind(kind)),
                        None => {
                            listing.unknown.push(String::from_utf8_lossy(&name).into_owned());
                        }
                    }
                }
            }
            Some(Directory::Kind(kind)) => {
                let guests = listing.numbers(client, &format!("backend/{}", kind.name()))?;
                left.extend(guests.into_iter().map(|domid| Directory::Guest(kind, domid)));
            }
            Some(Directory::Guest(kind, domid)) => {
                let directory = format!("backend/{}/{domid}", kind.name());
                let devids: Vec<u32> = listing.numbers(client, &directory)?;
                let keys = devids.into_iter().map(|devid| DeviceKey { kind, domid, devid });
                listing.devices.extend(keys);
            }
            Some(Directory::Libxl) => listing.libxl = listing.numbers(client, "libxl")?,
            None => {}
        }
        Ok(left.is_empty().then(|| std::mem::take(listing)))
    }
}

/// Lists everything in one go.
#[cfg(feature = "demo")]
pub(crate) fn list_all(client: &mut Client) -> Result<Listing, Error> {
    let mut scan = Scan::begin();
    loop {
        if let Some(listing) = scan.step(client)? {
            return Ok(listing);
        }
    }
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
