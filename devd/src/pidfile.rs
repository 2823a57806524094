//! The pid file (`--pidfile`): says which process is the daemon, and lets there be one only.

use std::io;
use std::path::{Path, PathBuf};

use crate::lock_file::{LockError, LockFile};

/// Held as long as the daemon runs; removed with it.
#[derive(Debug)]
pub(crate) struct PidFile {
    _held: LockFile,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    #[error("another devd runs: {} holds the pid file {path}", process(*pid))]
    Held { path: PathBuf, pid: Option<i32> },
    #[error("cannot write the pid file {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl PidFile {
    pub(crate) fn take(path: &Path) -> Result<Self, PidFileError> {
        match LockFile::take(path, "") {
            Ok(held) => Ok(Self { _held: held }),
            Err(LockError::Held(pid)) => Err(PidFileError::Held { path: path.to_owned(), pid }),
            Err(LockError::Io(source)) => Err(PidFileError::Io { path: path.to_owned(), source }),
        }
    }
}

/// How a message names the process that holds a lock.
pub(crate) fn process(pid: Option<i32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "a process of unknown id".into(),
    }
}
