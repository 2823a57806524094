//! The lock on a store: two daemons for one store would run each hook twice.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use xs_client::Address;

use crate::lock_file::{LockError, LockFile, try_lock};
use crate::pidfile::process;
use crate::run_dir::{RunDir, RunDirError};

/// The socket of the xenstored that serves the domain itself: behind it is the same store as
/// behind the kernel's device.
const OWN_SOCKET: &str = "/run/xenstored/socket";

/// The store that a daemon serves, the same for every spelling of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreIdentity {
    /// The one that the kernel's device leads to: a domain has one.
    OwnDomain,
    /// The one behind this socket. (Not told by its inode: a xenstored that is started again
    /// makes its socket anew.)
    Socket(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(
        "{path} is no xenstore: it is neither a socket nor a device; --xenstore takes \
             xenstored's socket or /dev/xen/xenbus"
    )]
    NoStore { path: PathBuf },
    #[error("cannot look at the store at {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl StoreIdentity {
    pub(crate) fn of(address: &Address) -> Result<Self, IdentityError> {
        let path = address.path();
        let look = || Ok((fs::metadata(path)?.file_type(), fs::canonicalize(path)?));
        let (kind, path) =
            look().map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
        if kind.is_char_device() || path == Path::new(OWN_SOCKET) {
            Ok(Self::OwnDomain)
        } else if kind.is_socket() {
            Ok(Self::Socket(path))
        } else {
            Err(IdentityError::NoStore { path })
        }
    }

    /// Under which name, without an ending, the run directory has files for this store.
    fn name(&self) -> String {
        match self {
            Self::OwnDomain => "xenbus".into(),
            Self::Socket(path) => {
                format!("store-{:016x}", hash(path.as_os_str().as_encoded_bytes()))
            }
        }
    }
}

/// 64-bit FNV-1a: the same in every build of the daemon.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Held as long as the daemon serves the store.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: Option<LockFile>,
    /// The kernel's device: its lock tells of a daemon with another run directory, and needs no
    /// file system.
    _device: Option<File>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreLockError {
    #[error(
        "another devd serves {store}: {}; stop it, or look only, with --dry-run",
        process(*pid)
    )]
    Held { store: Address, pid: Option<i32> },
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error("cannot write the lock {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl StoreLock {
    /// # Errors
    ///
    /// Another daemon serves this store; or that cannot be told, since there is no file to lock.
    pub(crate) fn take(
        address: &Address,
        identity: &StoreIdentity,
        run_dir: Result<RunDir, RunDirError>,
    ) -> Result<Self, StoreLockError> {
        let held = |pid| StoreLockError::Held { store: address.clone(), pid };
        let file = match run_dir {
            Ok(run_dir) => {
                let path = run_dir.file(&format!("{}.lock", identity.name()));
                let note = format!("{}\n", address.path().display());
                match LockFile::take(&path, &note) {
                    Ok(file) => Ok(file),
                    Err(LockError::Held(pid)) => return Err(held(pid)),
                    Err(LockError::Io(source)) => Err(StoreLockError::Io { path, source }),
                }
            }
            Err(error) => Err(error.into()),
        };
        let device = match address {
            Address::Device(path) => lock_device(path),
            Address::Socket(_) => Ok(Device::None),
        };
        match (file, device) {
            (_, Ok(Device::Held)) => Err(held(None)),
            (Ok(file), Ok(Device::Locked(device))) => {
                Ok(Self { _file: Some(file), _device: Some(device) })
            }
            (Ok(file), Ok(Device::None)) => Ok(Self { _file: Some(file), _device: None }),
            (Ok(file), Err(error)) => {
                log::warn!("cannot lock {address} itself: {error}");
                Ok(Self { _file: Some(file), _device: None })
            }
            (Err(error), Ok(Device::Locked(device))) => {
                log::warn!("{error}; {address} itself is locked instead");
                Ok(Self { _file: None, _device: Some(device) })
            }
            (Err(error), Ok(Device::None) | Err(_)) => Err(error),
        }
    }
}

enum Device {
    Locked(File),
    Held,
    /// The store is no device.
    None,
}

fn lock_device(path: &Path) -> io::Result<Device> {
    let device = File::options().read(true).write(true).open(path)?;
    Ok(if try_lock(&device)? { Device::Locked(device) } else { Device::Held })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in the place of the kernel's device, which is locked in the same way.
    fn device() -> (tempfile::TempDir, Address) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xenbus");
        fs::write(&path, "").unwrap();
        (directory, Address::Device(path))
    }

    fn take(address: &Address, run_dir: &Path) -> Result<StoreLock, StoreLockError> {
        StoreLock::take(address, &StoreIdentity::OwnDomain, RunDir::open(run_dir))
    }

    #[test]
    fn device_is_locked_where_no_run_directory_can_be_made() {
        let (_directory, address) = device();
        let nowhere = Path::new("/proc/devd");
        let first = take(&address, nowhere).unwrap();
        let error = take(&address, nowhere).unwrap_err().to_string();
        assert!(error.starts_with("another devd serves "), "{error}");
        drop(first);
        drop(take(&address, nowhere).unwrap());
    }

    #[test]
    fn device_lock_tells_of_a_daemon_with_another_run_directory() {
        let (directory, address) = device();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let _first = take(&address, &one).unwrap();
        let error = take(&address, &other).unwrap_err();
        assert!(matches!(error, StoreLockError::Held { pid: None, .. }), "{error}");
        assert!(!other.join("xenbus.lock").exists(), "the lock that was taken first is let go");
        let error = take(&address, &one).unwrap_err();
        assert!(matches!(error, StoreLockError::Held { pid: Some(_), .. }), "{error}");
    }

    #[test]
    fn socket_needs_a_run_directory() {
        let address = Address::Socket("/nowhere/socket".into());
        let error = take(&address, Path::new("/proc/devd")).unwrap_err().to_string();
        assert!(error.contains("/proc/devd") && error.contains("--run-dir"), "{error}");
    }
}
