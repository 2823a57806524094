//! Upstream's daemon, `xl devd`: beside it every hook would run twice.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use nix::unistd::Uid;
use xs_client::Address;

use crate::orphans::{STUCK, THREADS, has_only_user, is_gone, run_in_thread};
use crate::store_lock::StoreIdentity;

/// The process of an `xl devd` that serves this store, if one runs.
///
/// A read of a process's arguments or environment waits for the lock of its memory, which the
/// process may hold for ever. So a thread reads them, of processes with the name `xl` that have
/// only the daemon's own user: a set-user-ID program obeys the user who runs it.
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
    let mut unread = 0;
    for process in processes {
        let process = process?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let directory = process.path();
        if !is_xl(&directory)? {
            continue;
        }
        match serves(directory, store.clone())? {
            Some(true) => return Ok(Some(pid)),
            Some(false) => {}
            None => {
                log::error!(
                    "process {pid} (xl) does not let its arguments be read: if it is an xl devd \
                     that serves this store, every hook runs twice; look at /proc/{pid}/stack, \
                     and end the process if it hangs"
                );
                unread += 1;
            }
        }
        if unread == THREADS {
            log::error!("no look at further processes for an xl devd: {unread} of them hang");
            break;
        }
    }
    Ok(None)
}

/// Is the name of the process `xl`, and the daemon's user its only one? No read here waits for
/// the process.
fn is_xl(directory: &Path) -> io::Result<bool> {
    let own = Uid::effective().as_raw();
    let is_own = fs::symlink_metadata(directory).is_ok_and(|there| there.uid() == own);
    Ok(is_own
        && read(&directory.join("comm"))? == b"xl\n"
        && has_only_user(&read(&directory.join("status"))?, own))
}

/// Is the process an `xl devd` that serves this store? `None`: a read hangs.
fn serves(directory: PathBuf, store: StoreIdentity) -> io::Result<Option<bool>> {
    let (sender, receiver) = mpsc::channel();
    run_in_thread(move || {
        let result = is_devd(&directory)
            .and_then(|is_devd| Ok(is_devd && store_of(&directory)?.as_ref() == Some(&store)));
        // Fails if the daemon waits no more.
        let _ = sender.send(result);
    })?;
    receiver.recv_timeout(STUCK).ok().transpose()
}

/// Is `devd` the first argument that is no option?
fn is_devd(directory: &Path) -> io::Result<bool> {
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
