//! Where the store is.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The environment variable that says where the store is, as for libxenstore.
const VARIABLE: &str = "XENSTORED_PATH";

/// Where the store is when nobody says: the daemon's socket in the domain it runs in, the
/// kernel's device everywhere else, under its name of today and that of old kernels.
const DEFAULTS: [&str; 3] = ["/run/xenstored/socket", "/dev/xen/xenbus", "/proc/xen/xenbus"];

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
    /// set, else at the first of `/run/xenstored/socket`, `/dev/xen/xenbus` and
    /// `/proc/xen/xenbus` that is there. A socket is a [`Socket`](Self::Socket), a device or
    /// any other file a [`Device`](Self::Device).
    ///
    /// # Errors
    ///
    /// [`AddressError`] says what was looked for, and what to do.
    pub fn find(explicit: Option<&Path>) -> Result<Self, AddressError> {
        let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        find(explicit, variable.map(PathBuf::from), &DEFAULTS.map(Path::new))
    }

    /// The path, of whatever it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Device(path) | Self::Socket(path) => path,
        }
    }

    /// What is at this path.
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
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing usable at the path in the environment.
    #[error("no store at {}, where $XENSTORED_PATH points: {source}; correct the variable or unset it", path.display())]
    Environment {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// None of the usual places has one.
    #[error(
        "no store: looked for {}; in every Xen domain with a Linux kernel the second is there. Set \
         $XENSTORED_PATH if the store is elsewhere",
        looked_for.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Nowhere {
        /// The usual places.
        looked_for: Vec<PathBuf>,
    },
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
    let found = defaults.iter().find_map(|path| Address::at(path).ok());
    found.ok_or_else(|| AddressError::Nowhere {
        looked_for: defaults.iter().map(PathBuf::from).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_given_goes_before_the_variable_and_that_before_the_usual_places() {
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
