//! Real loop devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::network::run;

/// A file of this many bytes.
pub fn file(path: &Path, len: u64) {
    fs::File::create(path).unwrap().set_len(len).unwrap();
}

/// What `losetup` says of the loop devices that this file is behind: one line each.
pub fn loops(path: &Path) -> Vec<String> {
    let options = "-n -O NAME,RO,AUTOCLEAR,DIO,BACK-FILE --raw -j";
    let text = run("losetup", &format!("{options} {}", path.display()));
    text.lines().map(str::to_owned).collect()
}

/// The loop device that the file is behind, if there is exactly one.
pub fn only_loop(path: &Path) -> Option<String> {
    match &*loops(path) {
        [line] => Some(line.split(' ').next().unwrap().to_owned()),
        _ => None,
    }
}

/// A loop device that another program has set up for a file; it is freed when this is dropped,
/// unless it is another file's by then.
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
        let own = format!("{} ", self.0);
        if self.1.exists() && loops(&self.1).iter().any(|line| line.starts_with(&own)) {
            let _ = Command::new("partx").args(["-d", &self.0]).output();
            let _ = Command::new("losetup").args(["-d", &self.0]).output();
        }
    }
}
