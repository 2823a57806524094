//! The pid file: says which process is the daemon, and lets there be one only.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Held as long as the daemon runs; removed with it.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    /// The lock goes with the process, however that ends.
    locked: File,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    #[error("another devd runs: process {pid} holds {path}")]
    Held { path: PathBuf, pid: String },
    #[error("cannot write the pid file {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl PidFile {
    pub(crate) fn take(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(path).unwrap_or_default().trim().to_owned();
                return Err(PidFileError::Held { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut held = Self { path: path.to_owned(), locked: file };
        held.note_process().map_err(failed)?;
        Ok(held)
    }

    fn note_process(&mut self) -> io::Result<()> {
        self.locked.set_len(0)?;
        writeln!(self.locked, "{}", std::process::id())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove the pid file {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("devd.pid");
        let first = PidFile::take(&path).unwrap();
        let error = PidFile::take(&path).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        assert!(!path.exists());
        drop(PidFile::take(&path).unwrap());
    }
}
