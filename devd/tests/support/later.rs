//! A daemon whose clock is ahead, so that nobody has to wait.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::preload;

/// The hand on a daemon's clock.
#[derive(Debug)]
pub struct Later {
    file: fs::File,
    path: PathBuf,
}

impl Later {
    /// It goes right for now.
    pub fn new(path: PathBuf) -> Self {
        fs::write(&path, 0_i64.to_ne_bytes()).unwrap();
        Self { file: fs::File::options().write(true).open(&path).unwrap(), path }
    }

    /// Lets the daemon that this starts be the one.
    pub fn apply(&self, command: &mut Command) {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| preload::make("later", include_str!("later.c")));
        command.env("LD_PRELOAD", library).env("DEVD_TEST_CLOCK", &self.path);
    }

    /// From now on it is ahead by so many seconds. A daemon that waits sees that when something
    /// happens.
    pub fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
