//! The demo's directory: sockets, scripts, logs.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory of one's own, removed in the end unless somebody is to look into it.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    pub(super) fn new() -> io::Result<Self> {
        let scratch = Self { path: new_directory(&std::env::temp_dir())?, keep: false };
        for (name, role) in
            [("vif-bridge", "--as-hook"), ("block", "--as-hook"), ("qemu", "--as-qemu")]
        {
            scratch.write_script(name, role)?;
        }
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The log of the daemon. Those of the QEMUs are beside it.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("devd.log")
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    pub(super) fn qemu(&self) -> PathBuf {
        self.path.join("qemu")
    }

    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// A script that becomes this program, in a role.
    fn write_script(&self, name: &str, role: &str) -> io::Result<()> {
        let program = std::env::current_exe()?;
        let mut script = b"#!/bin/sh\nexec ".to_vec();
        script.extend_from_slice(&quoted(program.as_os_str().as_encoded_bytes()));
        script.extend_from_slice(format!(" demo {role} \"$@\"\n").as_bytes());
        let path = self.path.join(name);
        OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?.write_all(&script)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed from a directory for such things does no harm there.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Makes a directory that was not there: another is somebody else's, or was kept by a demo that had
/// the same process id.
fn new_directory(parent: &Path) -> io::Result<PathBuf> {
    const TRIES: u32 = 100;
    let mut number = 0;
    loop {
        let path = parent.join(format!("devd-demo-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < TRIES => {
                number += 1;
            }
            result => return result.map(|()| path),
        }
    }
}

/// A word as the shell takes it for itself, whatever is in it.
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_there_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let [first, second] = [0, 1].map(|_| new_directory(parent.path()).unwrap());
        assert_ne!(first, second);
    }

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_was() {
        assert_eq!(quoted(b"/a b/devd"), b"'/a b/devd'");
        assert_eq!(quoted(b"it's"), b"'it'\\''s'");
    }
}
