//! What an earlier daemon has left running, as the system tells it: hooks know their device
//! by their environment, QEMUs their guest by their arguments.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use devd_core::{BackendPath, DeviceKey, Domid, Leaf, Verb};
use nix::unistd::Pid;

/// Where programs look for the store if this is set.
const STORE: &str = "XENSTORED_PATH";

/// A hook that goes on without the daemon that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) pid: Pid,
    pub(crate) key: DeviceKey,
    pub(crate) verb: Verb,
    /// It is the second pass of a network interface's hook.
    pub(crate) tap: bool,
}

/// Everything found.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    pub(crate) hooks: Vec<Orphan>,
    pub(crate) qemus: Vec<(Domid, Pid)>,
}

/// Looks through all processes. `xenstore` is the path that those of ours would have in their
/// environment: those of another store are not ours.
///
/// # Errors
///
/// The system does not let some process be looked at for now, as when there are too many open
/// files. Without `/proc` nothing is found.
pub(crate) fn find(xenstore: Option<&Path>) -> io::Result<Orphans> {
    let mut found = Orphans::default();
    let inherited = std::env::var_os(STORE);
    let store = xenstore.or(inherited.as_deref().map(Path::new));
    let processes = match fs::read_dir("/proc") {
        Ok(processes) => processes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            log::warn!("there is no /proc: what an earlier daemon left running is not found");
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let own = fs::read_link("/proc/self/exe").ok();
    for process in processes {
        let process = process?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let directory = process.path();
        let Some(environment) = read(&directory.join("environ"))?.map(Environment) else {
            continue;
        };
        if environment.variable(STORE.as_bytes()).map(OsStr::from_bytes).map(Path::new) != store {
            continue;
        }
        if let Some(domid) = qemu_of(&directory)? {
            found.qemus.push((domid, Pid::from_raw(pid)));
        } else if let Some(hook) = hook_of(&directory, pid, &environment)?
            && !has_parent(&directory, own.as_ref())?
        {
            found.hooks.push(hook);
        }
    }
    Ok(found)
}

/// Is it that the process is gone, or not ours to look at?
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(libc::ESRCH)
}

/// What a file of a process says; `None` if [it is gone](is_gone).
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Is this process alive, and the QEMU of this guest?
pub(crate) fn is_qemu_of(pid: Pid, domid: Domid) -> io::Result<bool> {
    Ok(qemu_of(&PathBuf::from(format!("/proc/{pid}")))? == Some(domid))
}

/// The guest whose disks this process serves, if it is such a QEMU. (Domain 0's device models
/// have `-xen-domid` too, but not `-xen-attach`.)
fn qemu_of(directory: &Path) -> io::Result<Option<Domid>> {
    let command = read(&directory.join("cmdline"))?.unwrap_or_default();
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let domid = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    let at = words.iter().position(|word| *word == b"-xen-domid");
    let domid = at.and_then(|at| domid(words.get(at + 1)?));
    Ok(domid.filter(|_| words.contains(&&b"-xen-attach"[..])))
}

/// The hook that this process is, if it is one: the leader of its group, with a device's
/// directory in its environment and what it does among its last arguments.
fn hook_of(directory: &Path, pid: i32, environment: &Environment) -> io::Result<Option<Orphan>> {
    let path = environment.variable(b"XENBUS_PATH").map(BackendPath::parse);
    let Some(BackendPath::Device(key, Leaf::Directory)) = path else { return Ok(None) };
    if stat(directory, 5)? != Some(pid) {
        return Ok(None);
    }
    let command = read(&directory.join("cmdline"))?.unwrap_or_default();
    let mut words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    words.pop_if(|word| word.is_empty());
    let tap = words.pop_if(|word| *word == b"type_if=tap").is_some();
    words.pop_if(|word| *word == b"type_if=vif");
    let verb = match words.last() {
        Some(&(b"online" | b"add")) => Verb::Add,
        Some(&(b"offline" | b"remove")) => Verb::Remove,
        _ => return Ok(None),
    };
    Ok(Some(Orphan { pid: Pid::from_raw(pid), key, verb, tap }))
}

/// What a process was started with.
struct Environment(Vec<u8>);

impl Environment {
    fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        let mut pairs = self.0.split(|byte| *byte == 0);
        pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
    }
}

/// Is the process's parent this program, that is, another daemon that lives?
fn has_parent(directory: &Path, program: Option<&PathBuf>) -> io::Result<bool> {
    let parent = stat(directory, 4)?;
    let exe = parent.and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok());
    Ok(exe.is_some() && exe.as_ref() == program)
}

/// A number from `/proc/PID/stat` by its place, counted from 1 as in proc(5): 4 is the
/// parent, 5 the process group.
fn stat(directory: &Path, place: usize) -> io::Result<Option<i32>> {
    let stat = read(&directory.join("stat"))?.unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    // The second field is the program's name in brackets, and may have blanks in it.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest);
    Ok(rest.and_then(|rest| rest.split(' ').nth(place - 2)?.parse().ok()))
}
