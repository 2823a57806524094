//! Processes as `/proc` shows them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Is it there, and not only as a zombie that waits for its parent?
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Is it one of [`Hanging`](super::Hanging)? To read its memory would wait for ever.
pub fn hangs(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| matches!(name.as_str(), "hang\n" | "xl\n"))
}

/// Its arguments, the program's name first.
pub fn arguments(pid: i32) -> Vec<String> {
    words(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
}

/// The environment that it was started with, in its order.
pub fn environment(pid: i32) -> Vec<String> {
    words(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default())
}

/// Takes apart what `/proc` has of arguments or of an environment.
pub fn words(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// A field of `/proc/PID/stat`, counted from 1 as in proc(5): 4 is the parent, 5 the process
/// group, 6 the session.
pub fn stat(pid: i32, field: usize) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(field - 3).unwrap().parse().unwrap()
}

/// A set of signals in `/proc/PID/status`: `SigBlk` or `SigIgn`; the first 31, which are all
/// but those that the C library keeps to itself and those for real time.
pub fn signals(pid: i32, set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap() & 0x7fff_ffff
}

/// Its children, the zombies among them.
pub fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// How many threads it has.
pub fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// What it has open: the numbers and what they are.
pub fn open_files(pid: i32) -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    files.sort();
    files
}

/// All processes of this user that have the path in their arguments or their environment. A
/// read of another user's may never return.
pub fn that_know(path: &Path) -> Vec<i32> {
    let path = path.to_str().unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    let user = fs::metadata("/proc/self").unwrap().uid();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let entries = entries.filter(|entry| entry.metadata().is_ok_and(|it| it.uid() == user));
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let knows = |words: Vec<String>| words.iter().any(|word| word.contains(path));
        *pid != own
            && is_alive(*pid)
            && !hangs(*pid)
            && (knows(environment(*pid)) || knows(arguments(*pid)))
    })
    .collect()
}

pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// As above, but it may have ended by itself.
pub fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}
