//! Is this process one of ours?
//!
//! A process of ours has only the daemon's own user, leads a process group, and has the daemon's
//! [token](mod@crate::token) in its environment. A process without the token, of an earlier version or
//! of `xl devd`, must run a program that is known: a QEMU, or what runs a script in `--script-dir`.
//!
//! Other users are kept out before anything is read that could wait for them: the owner of
//! `/proc/PID` is not enough, since that is root for a set-user-ID program too, whose environment
//! and arguments are its caller's choice. `status`, `stat` and `exe` take no lock of the memory.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use devd_core::{BackendPath, DeviceKey, Domid, Leaf, Verb};
use nix::unistd::{Pid, Uid};

use super::{Criteria, Found, Orphan, OrphanedQemu};
use crate::descriptor;
use crate::hook;
use crate::process::STORE_VARIABLE;
use crate::token;

/// More than any program is started with, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;
/// What the kernel puts behind the name of a program that was replaced, as by an upgrade.
const DELETED: &[u8] = b" (deleted)";
/// Where `env` looks for the program of a script that begins with `#!/usr/bin/env`.
const SEARCH_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The numbers of all processes; `None` if there is no `/proc`.
pub(super) fn all_processes() -> io::Result<Option<VecDeque<Pid>>> {
    let entries = match fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut processes = VecDeque::new();
    for entry in entries {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        processes.extend(number.map(Pid::from_raw));
    }
    Ok(Some(processes))
}

/// Looks at a process. `begun` is called with its name before anything is read that may wait for
/// it; `None` if that was not needed.
pub(super) fn examine(
    pid: Pid,
    criteria: &Criteria,
    begun: impl FnOnce(String),
) -> io::Result<Option<Found>> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let Some(stat) = candidate(pid, &directory)? else { return Ok(None) };
    begun(stat.name.clone());
    found(pid, &directory, &stat, criteria).map(Some)
}

/// What `stat` says of the process, if it may be ours.
fn candidate(pid: Pid, directory: &Path) -> io::Result<Option<Stat>> {
    let own = Uid::effective().as_raw();
    match fs::symlink_metadata(directory) {
        Ok(found) if found.uid() == own => {}
        Ok(_) => return Ok(None),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let Some(status) = read(&directory.join("status"))? else { return Ok(None) };
    if !has_only_user(&status, own) {
        return Ok(None);
    }
    let stat = read(&directory.join("stat"))?.and_then(|stat| Stat::parse(&stat));
    Ok(stat.filter(|stat| stat.group == pid.as_raw()))
}

/// Are the real, the effective, the saved and the file system's user all this one?
pub(crate) fn has_only_user(status: &[u8], own: u32) -> bool {
    let mut lines = status.split(|byte| *byte == b'\n');
    let users = lines.find_map(|line| line.strip_prefix(b"Uid:")).unwrap_or_default();
    let users = std::str::from_utf8(users).unwrap_or_default();
    let own = own.to_string();
    let mut count = 0;
    let all = users.split_ascii_whitespace().all(|user| {
        count += 1;
        user == own
    });
    all && count == 4
}

fn found(pid: Pid, directory: &Path, stat: &Stat, criteria: &Criteria) -> io::Result<Found> {
    // All that is read is of this process if it has not ended by the time the descriptor is used.
    let process = match descriptor::of_process(pid) {
        Ok(process) => Some(process),
        Err(error) if is_gone(&error) => return Ok(Found::Nothing),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => None,
        Err(error) => return Err(error),
    };
    let Some(environment) = read(&directory.join("environ"))?.map(Environment) else {
        return Ok(Found::Nothing);
    };
    let store = environment.path(STORE_VARIABLE);
    if store.as_deref() != criteria.inheritance.store().as_deref() {
        return Ok(Found::Nothing);
    }
    let command = read(&directory.join("cmdline"))?.unwrap_or_default();
    let program = || fs::read_link(directory.join("exe")).ok().map(|path| not_deleted(&path));
    let is_ours = environment.variable(token::VARIABLE).is_some_and(|theirs| {
        criteria.inheritance.token().is_some_and(|own| own.value().as_bytes() == theirs)
    });
    if let Some(domid) = qemu_of(&command) {
        if is_ours || program().is_some_and(|program| is_qemu(&program, criteria)) {
            return Ok(process.map_or(Found::NoDescriptor, |process| {
                Found::Qemu(OrphanedQemu { pid, process, domid })
            }));
        }
    } else if let Some((key, verb, tap)) = hook_of(&command, &environment)
        && !is_child_of_a_daemon(stat)
    {
        let runs = || environment.path("script").zip(program());
        if is_ours || runs().is_some_and(|(script, program)| is_script(&script, &program, criteria))
        {
            return Ok(process.map_or(Found::NoDescriptor, |process| {
                Found::Hook(Orphan { pid, process, key, verb, tap })
            }));
        }
    }
    Ok(Found::Nothing)
}

/// Is it that the process is gone, or not ours to look at?
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(libc::ESRCH)
}

/// What is in a file of a process; `None` if [it is gone](is_gone).
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The guest whose disks a process with these arguments serves, if it is such a QEMU. (Domain 0's
/// device models have `-xen-domid` too, but not `-xen-attach`.)
fn qemu_of(command: &[u8]) -> Option<Domid> {
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let at = words.iter().position(|word| *word == b"-xen-domid")?;
    let domid = std::str::from_utf8(words.get(at + 1)?).ok()?.parse().ok();
    domid.filter(|_| words.contains(&&b"-xen-attach"[..]))
}

/// The hook that a process with these arguments is: a device's directory is in its environment,
/// and what it does among its last arguments.
fn hook_of(command: &[u8], environment: &Environment) -> Option<(DeviceKey, Verb, bool)> {
    let path = environment.variable("XENBUS_PATH").map(BackendPath::parse);
    let Some(BackendPath::Device(key, Leaf::Directory)) = path else { return None };
    let mut words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    words.pop_if(|word| word.is_empty());
    let tap = words.pop_if(|word| *word == b"type_if=tap").is_some();
    words.pop_if(|word| *word == b"type_if=vif");
    match words.last() {
        Some(&(b"online" | b"add")) => Some((key, Verb::Add, tap)),
        Some(&(b"offline" | b"remove")) => Some((key, Verb::Remove, tap)),
        _ => None,
    }
}

/// Is this program a QEMU that the daemon would start? An upgrade may have moved it.
fn is_qemu(program: &Path, criteria: &Criteria) -> bool {
    criteria.qemus.iter().any(|qemu| {
        let real = fs::canonicalize(qemu).ok();
        real.as_deref() == Some(program) || qemu.file_name() == program.file_name()
    })
}

/// Is this a script in one of the directories, and the program what runs it?
fn is_script(script: &Path, program: &Path, criteria: &Criteria) -> bool {
    let in_directory = script
        .parent()
        .is_some_and(|parent| criteria.script_dirs.iter().any(|directory| directory == parent));
    in_directory && interpreter(script).as_deref() == Some(program)
}

/// The program that runs when this file is executed: the file, or what its first line names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let line = hook::first_line(script)?;
    let mut words = hook::words_of(&line);
    let Some(path) = words.next().map(Path::new) else { return fs::canonicalize(script).ok() };
    if path.file_name() != Some(OsStr::new("env")) {
        return fs::canonicalize(path).ok();
    }
    let name = words.find(|word| !word.as_bytes().starts_with(b"-"))?;
    let mut paths = SEARCH_PATH.iter().map(|directory| Path::new(directory).join(name));
    paths.find_map(|path| fs::canonicalize(path).ok())
}

/// The path of a program, which may have been replaced since it was started.
fn not_deleted(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    OsStr::from_bytes(bytes.strip_suffix(DELETED).unwrap_or(bytes)).into()
}

/// Is the process's parent this program, that is, another daemon that lives?
fn is_child_of_a_daemon(stat: &Stat) -> bool {
    let exe = fs::read_link(format!("/proc/{}/exe", stat.parent)).ok();
    exe.is_some() && exe == fs::read_link("/proc/self/exe").ok()
}

/// What a process was started with.
struct Environment(Vec<u8>);

impl Environment {
    fn variable(&self, name: &str) -> Option<&[u8]> {
        let mut pairs = self.0.split(|byte| *byte == 0);
        pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(|path| OsStr::from_bytes(path).into())
    }
}

/// What matters of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: i32,
    group: i32,
}

impl Stat {
    fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        // The second field is the program's name in brackets, and may have blanks in it.
        let (begin, rest) = stat.rsplit_once(')')?;
        let (_, name) = begin.split_once('(')?;
        let mut fields = rest.split_ascii_whitespace().skip(1);
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { name: name.to_owned(), parent, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn set_user_id_program_is_not_ours() {
        assert!(has_only_user(b"Name:\tx\nUid:\t0\t0\t0\t0\nGid:\t0\n", 0));
        for users in ["1000\t0\t0\t0", "0\t1000\t0\t0", "0\t0\t0\t1000", "0\t0\t0", ""] {
            assert!(!has_only_user(format!("Uid:\t{users}\n").as_bytes(), 0), "{users}");
        }
        assert!(!has_only_user(b"", 0));
    }

    #[test]
    fn process_named_like_a_stat_line_is_parsed() {
        let stat = Stat::parse(b"12 (a) S 1 1 (b) S 7 12 12 0 -1").unwrap();
        assert_eq!((stat.name.as_str(), stat.parent, stat.group), ("a) S 1 1 (b", 7, 12));
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn upgraded_program_is_still_the_same() {
        assert_eq!(not_deleted(Path::new("/bin/sh (deleted)")), Path::new("/bin/sh"));
        assert_eq!(not_deleted(Path::new("/bin/sh")), Path::new("/bin/sh"));
    }

    #[test]
    fn interpreter_is_what_the_first_line_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        write("program", "\x7fELF");
        symlink(path("program"), path("link")).unwrap();
        write("plain", &format!("#! {} -e\n", path("link").display()));
        write("env", "#!/usr/bin/env -S sh -e\n");
        write("missing", "#!/no/such/program\n");
        let program = fs::canonicalize(path("program")).unwrap();
        assert_eq!(interpreter(&path("program")), Some(program.clone()));
        assert_eq!(interpreter(&path("plain")), Some(program));
        assert_eq!(interpreter(&path("env")), fs::canonicalize("/bin/sh").ok());
        assert_eq!(interpreter(&path("missing")), None);
        assert_eq!(interpreter(&path("none")), None);
        assert_eq!(fs::metadata(path("plain")).unwrap().permissions().mode() & 0o111, 0);
    }
}
