//! The run directory (`--run-dir`, `/run/devd`): files there are for processes of the daemon's
//! own user only.
//!
//! | file | what it is |
//! |---|---|
//! | `token` | what hooks and QEMUs are recognised by; see [`token`](crate::token) |
//! | `xenbus.lock` | the lock of the daemon that serves this domain's own store |
//! | `store-HASH.lock` | the same for a store behind another socket; its path is in the file |
//! | `token` | tells this daemon's hooks and QEMUs from other processes: see `token` |

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// The directory, which was made or found to be safe.
#[derive(Clone, Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunDirError {
    #[error("cannot make the run directory {path}: {source}; name another with --run-dir")]
    Make { path: PathBuf, source: io::Error },
    #[error("the run directory {path} {what}: name another with --run-dir, or remove it")]
    Unsafe { path: PathBuf, what: &'static str },
}

impl RunDir {
    /// The directory at this path, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, or another user may change what is in it.
    pub(crate) fn open(path: &Path) -> Result<Self, RunDirError> {
        let unusable = |what| RunDirError::Unsafe { path: path.to_owned(), what };
        let there = make(path)
            .and_then(|()| fs::symlink_metadata(path))
            .map_err(|source| RunDirError::Make { path: path.to_owned(), source })?;
        if !there.is_dir() {
            return Err(unusable("is no directory"));
        }
        if there.uid() != Uid::effective().as_raw() {
            return Err(unusable("belongs to another user"));
        }
        if there.mode() & 0o022 != 0 {
            return Err(unusable("may be written by other users"));
        }
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?; // An initramfs may have no /run.
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn it_is_made_for_its_user_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/devd");
        RunDir::open(&path).unwrap();
        RunDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        RunDir::open(&path).unwrap();
    }

    #[test]
    fn one_that_others_could_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::create_dir(path("open")).unwrap();
        fs::set_permissions(path("open"), Permissions::from_mode(0o770)).unwrap();
        fs::create_dir(path("own")).unwrap();
        symlink(path("own"), path("link")).unwrap();
        fs::write(path("file"), "").unwrap();
        for (name, what) in
            [("open", "by other users"), ("link", "no directory"), ("file", "no directory")]
        {
            let error = RunDir::open(&path(name)).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("--run-dir"), "{error}");
        }
        let error = RunDir::open(Path::new("/proc/devd")).unwrap_err().to_string();
        assert!(error.starts_with("cannot make the run directory /proc/devd: "), "{error}");
    }
}
