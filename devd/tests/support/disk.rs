//! Real loop devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::network::run;

/// A file of this many bytes.
pub fn file(path: &Path, len: u64) {
    fs::File::create(path).unwrap().set_len(len).unwrap();
}

/// The loop devices that this file is behind, one line each: name, read-only, autoclear, direct
/// I/O, file. `losetup` would ask the server of every file of the machine's loop devices.
pub fn loops(path: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    let lines = devices.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let file = behind(&name).filter(|file| is_or_was(file, path))?;
        let value = |node| fs::read_to_string(entry.path().join(node)).unwrap_or_default();
        let [ro, autoclear, dio] = ["ro", "loop/autoclear", "loop/dio"].map(value);
        let [ro, autoclear, dio] = [ro.trim(), autoclear.trim(), dio.trim()];
        Some(format!("/dev/{name} {ro} {autoclear} {dio} {file}"))
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

/// The loop device that the file is behind, if there is exactly one.
pub fn only_loop(path: &Path) -> Option<String> {
    match &*loops(path) {
        [line] => Some(line.split(' ').next().unwrap().to_owned()),
        _ => None,
    }
}

/// A loop device that another program has set up for a file; it is freed when this is dropped,
/// unless it is another file's by then. The file may have another name by then, or none.
pub struct Loop(pub String, pub PathBuf);

impl Loop {
    pub fn new(path: &Path) -> Self {
        let name = run("losetup", &format!("-f --show {}", path.display())).trim().to_owned();
        Self(name, path.to_owned())
    }

    /// The same, of this name, if nobody else has just taken it.
    pub fn at(name: &str, path: &Path) -> Self {
        let _ = Command::new("losetup").arg(name).arg(path).output();
        Self(name.to_owned(), path.to_owned())
    }

    /// Makes a partition of so many sectors, whatever the file says.
    pub fn partition(&self, number: u32, start: u64, sectors: u64) -> String {
        run("addpart", &format!("{} {number} {start} {sectors}", self.0));
        format!("{}p{number}", self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if behind(&self.0).is_some_and(|file| is_or_was(&file, &self.1)) {
            free(&self.0);
        }
    }
}

/// The name of the file behind a loop device, as it is now.
pub fn behind(name: &str) -> Option<String> {
    let name = name.trim_start_matches("/dev/");
    let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(file.trim_end_matches('\n').to_owned())
}

/// The inode behind a loop device, as `losetup` shows it.
pub fn inode_behind(name: &str) -> Option<u64> {
    let output = Command::new("losetup").args(["-n", "-O", "BACK-INO", "--raw", name]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().parse().ok()
}

/// Is it this file, be it deleted, or its file system unmounted?
fn is_or_was(file: &str, path: &Path) -> bool {
    let file = Path::new(file.trim_end_matches(" (deleted)"));
    file == path || file.parent() == Some(Path::new("/")) && file.file_name() == path.file_name()
}

fn free(name: &str) {
    let _ = Command::new("partx").args(["-d", name]).output();
    let _ = Command::new("losetup").args(["-d", name]).output();
}

/// Unmounts what is mounted below a directory, and frees the loop devices of files there, also
/// of deleted ones: no test leaves any, however it ends.
pub fn clean(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // The last mounts lie on top.
    let places: Vec<_> = places.filter(|place| Path::new(place).starts_with(directory)).collect();
    for place in places.iter().rev() {
        let _ = Command::new("umount").args(["-l", place]).output();
    }
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if behind(&name).is_some_and(|file| Path::new(&file).starts_with(directory)) {
            free(&format!("/dev/{name}"));
        }
    }
}
