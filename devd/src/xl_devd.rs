//! Upstream's daemon, `xl devd`: beside it every hook would run twice.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use xs_client::Address;

use crate::orphans::is_gone;
use crate::store_lock::StoreIdentity;

/// The process of an `xl devd` that serves this store, if one runs.
///
/// Only processes of the daemon's own user are looked at, which the owner of the directory
/// tells: a read of another user's can be made to wait without an end. `comm` is read first,
/// for which the kernel needs no memory of the process.
///
/// # Errors
///
/// The system does not let `/proc` be listed. Without `/proc` nothing is found.
pub(crate) fn find(store: &StoreIdentity) -> io::Result<Option<i32>> {
    let processes = match fs::read_dir("/proc") {
        Ok(processes) => processes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let own = Uid::effective().as_raw();
    for process in processes {
        let process = process?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let directory = process.path();
        let is_own = fs::symlink_metadata(&directory).is_ok_and(|there| there.uid() == own);
        if is_own && is_xl_devd(&directory)? && store_of(&directory)?.as_ref() == Some(store) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Is it the program `xl`, with `devd` as the first argument that is no option?
fn is_xl_devd(directory: &Path) -> io::Result<bool> {
    if read(&directory.join("comm"))? != b"xl\n" {
        return Ok(false);
    }
    let command = read(&directory.join("cmdline"))?;
    let mut words = command.split(|byte| *byte == 0).skip(1);
    Ok(words.find(|word| !word.starts_with(b"-")) == Some(b"devd"))
}

/// The store that the process uses, if there is one where it looks.
fn store_of(directory: &Path) -> io::Result<Option<StoreIdentity>> {
    let environment = read(&directory.join("environ"))?;
    let mut variables = environment.split(|byte| *byte == 0);
    let path = variables.find_map(|variable| variable.strip_prefix(b"XENSTORED_PATH="));
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(Some(StoreIdentity::OwnDomain));
    };
    let address = Address::find(Some(&PathBuf::from(OsStr::from_bytes(path))));
    Ok(address.ok().and_then(|address| StoreIdentity::of(&address).ok()))
}

/// Reads a file of a process; nothing is in it if the process is gone.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        result => result,
    }
}
