//! Where the store is.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::Socket;

/// The environment variable that names the store, as for libxenstore.
const PATH_VARIABLE: &str = "XENSTORED_PATH";

/// The environment variable that names the directory of the daemon's socket, as for libxenstore.
const DIRECTORY_VARIABLE: &str = "XENSTORED_RUNDIR";

/// The directory of the daemon's socket, in the domain that the daemon runs in.
const DIRECTORY: &str = "/run/xenstored";

/// The kernel's device, in every other domain: its name of today and that of old kernels.
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// A way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Linux's `/dev/xen/xenbus`, or a file that behaves as it does.
    Device(PathBuf),
    /// The unix socket of a xenstored.
    Socket(PathBuf),
}

impl Address {
    /// Finds the store: at `explicit` if that is given, else at `$XENSTORED_PATH` if that is
    /// set, else at the first of `$XENSTORED_RUNDIR/socket` (`/run/xenstored/socket` without that
    /// variable), `/dev/xen/xenbus` and `/proc/xen/xenbus` where a store is. A socket is a
    /// [`Socket`](Self::Socket), a device or any other file a [`Device`](Self::Device).
    ///
    /// Among the usual places a socket counts only if a daemon listens on it, which takes a
    /// connection to find out: a daemon that has ended leaves its socket behind, and that must
    /// not hide the device.
    ///
    /// # Errors
    ///
    /// [`AddressError`] says which places were tried, what each of them lacks, and what to do.
    pub fn find(explicit: Option<&Path>) -> Result<Self, AddressError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let directory = variable(DIRECTORY_VARIABLE).unwrap_or_else(|| DIRECTORY.into());
        let socket = Path::new(&directory).join("socket");
        let [device, old_device] = DEVICES.map(Path::new);
        find(explicit, variable(PATH_VARIABLE).map(PathBuf::from), &[&socket, device, old_device])
    }

    /// The path, of whatever it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Device(path) | Self::Socket(path) => path,
        }
    }

    /// The address at this path, by its kind of file.
    fn at(path: &Path) -> io::Result<Self> {
        let kind = fs::metadata(path)?.file_type();
        if kind.is_socket() {
            Ok(Self::Socket(path.into()))
        } else if kind.is_dir() {
            Err(io::ErrorKind::IsADirectory.into())
        } else {
            Ok(Self::Device(path.into()))
        }
    }

    /// The address at this path, unless it is a socket on which no daemon listens. A daemon that
    /// refuses this user is alive: [`Client::open`](crate::Client::open) says that it takes
    /// root.
    fn alive_at(path: &Path) -> io::Result<Self> {
        let address = Self::at(path)?;
        match &address {
            Self::Device(_) => Ok(address),
            Self::Socket(socket) => match Socket::open(socket) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
                Ok(_) | Err(_) => Ok(address),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

/// The store was not found.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// There is nothing usable at the path that was given.
    #[error("no store at {}: {source}; give the path of xenstored's socket or of /dev/xen/xenbus", path.display())]
    Explicit {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is nothing usable at the path in the environment.
    #[error("no store at {}, where $XENSTORED_PATH points: {source}; correct the variable or unset it", path.display())]
    Environment {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No usual place has a store.
    #[error(
        "no store at {}; every Xen domain with a Linux kernel has /dev/xen/xenbus. Set \
         $XENSTORED_PATH if the store is elsewhere",
        tried.iter().map(Place::to_string).collect::<Vec<_>>().join(", ")
    )]
    Nowhere {
        /// The usual places, and why each of them is none.
        tried: Vec<Place>,
    },
}

/// A usual place of the store that has none.
#[derive(Debug)]
pub struct Place {
    /// The path that was tried.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.source)
    }
}

fn find(
    explicit: Option<&Path>,
    variable: Option<PathBuf>,
    defaults: &[&Path],
) -> Result<Address, AddressError> {
    if let Some(path) = explicit {
        return Address::at(path)
            .map_err(|source| AddressError::Explicit { path: path.into(), source });
    }
    if let Some(path) = variable {
        return Address::at(&path).map_err(|source| AddressError::Environment { path, source });
    }
    let mut tried = Vec::new();
    for path in defaults {
        match Address::alive_at(path) {
            Ok(address) => return Ok(address),
            Err(source) => tried.push(Place { path: path.into(), source }),
        }
    }
    Err(AddressError::Nowhere { tried })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn given_path_precedes_variable_and_variable_usual_places() {
        let dir = tempfile::tempdir().unwrap();
        let [given, variable, usual] = ["given", "variable", "usual"].map(|name| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            path
        });
        let device = |path: &Path| Address::Device(path.into());
        let found = find(Some(&given), Some(variable.clone()), &[&usual]).unwrap();
        assert_eq!(found, device(&given));
        assert_eq!(find(None, Some(variable.clone()), &[&usual]).unwrap(), device(&variable));
        assert_eq!(find(None, None, &[&dir.path().join("no"), &usual]).unwrap(), device(&usual));
    }

    #[test]
    fn a_socket_is_told_from_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(find(Some(&path), None, &[]).unwrap(), Address::Socket(path));
        let null = Path::new("/dev/null");
        assert_eq!(find(Some(null), None, &[]).unwrap(), Address::Device(null.into()));
    }

    #[test]
    fn dead_socket_does_not_hide_the_device() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, device) = (dir.path().join("socket"), Path::new("/dev/null"));
        let listener = UnixListener::bind(&socket).unwrap();
        let found = find(None, None, &[&socket, device]).unwrap();
        assert_eq!(found, Address::Socket(socket.clone()));
        drop(listener);
        let found = find(None, None, &[&socket, device]).unwrap();
        assert_eq!(found, Address::Device(device.into()));
        let message = find(None, None, &[&socket]).unwrap_err().to_string();
        assert!(message.contains("refused"), "{message}");
    }

    #[test]
    fn the_error_names_what_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let message = find(None, None, &[&a, &b]).unwrap_err().to_string();
        assert!(message.contains(a.to_str().unwrap()), "{message}");
        assert!(message.contains(b.to_str().unwrap()), "{message}");
        // A wrong path that was asked for is an error, not a reason to look elsewhere.
        let wrong = find(Some(&a), Some(b.clone()), &[Path::new("/dev/null")]).unwrap_err();
        assert!(wrong.to_string().contains(a.to_str().unwrap()), "{wrong}");
        let wrong = find(None, Some(b), &[Path::new("/dev/null")]).unwrap_err();
        assert!(wrong.to_string().contains("$XENSTORED_PATH"), "{wrong}");
        assert!(find(Some(dir.path()), None, &[]).is_err(), "a directory is no store");
    }
}
