//! What a daemon allocates, counted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::preload;

/// The counts of one daemon, in memory that it shares with the test (`memory.c`).
#[derive(Debug)]
pub struct Memory {
    counts: File,
    path: PathBuf,
}

impl Memory {
    pub fn new(path: PathBuf) -> Self {
        let counts = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        counts.set_len(4096).unwrap();
        Self { counts, path }
    }

    /// Lets the daemon that this starts be the one.
    pub fn apply(&self, command: &mut Command) {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| preload::make("memory", include_str!("memory.c")));
        command.env("LD_PRELOAD", library).env("DEVD_TEST_MEMORY", &self.path);
    }

    /// Calls for memory so far, growing included.
    pub fn calls(&self) -> i64 {
        self.count(0)
    }

    /// Bytes that are in use.
    pub fn bytes(&self) -> i64 {
        self.count(8)
    }

    fn count(&self, at: u64) -> i64 {
        let mut count = [0; 8];
        self.counts.read_exact_at(&mut count, at).unwrap();
        i64::from_ne_bytes(count)
    }
}
