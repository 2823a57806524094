//! One call of one function of the C library fails in the daemon.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::preload;

/// The bytes of the memory that is shared with `failing.c`: a name, an error number, which call
/// is to fail (from 1; 0: every one), and how many there were.
const NAME: usize = 24;
const CALLS: u64 = 32;
const SIZE: u64 = 4096;

/// The hand on a daemon's calls.
#[derive(Debug)]
pub struct Failing {
    memory: File,
    path: PathBuf,
}

impl Failing {
    /// Nothing fails yet.
    pub fn new(path: PathBuf) -> Self {
        let memory = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let memory = memory.unwrap();
        memory.set_len(SIZE).unwrap();
        Self { memory, path }
    }

    /// Lets the daemon that this starts be the one.
    pub fn apply(&self, command: &mut Command) {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| preload::make("failing", include_str!("failing.c")));
        command.env("LD_PRELOAD", library).env("DEVD_TEST_FAULT", &self.path);
    }

    /// From now on the `nth` call of this function fails with this error.
    pub fn set(&self, function: &str, error: i32, nth: i32) {
        // In this order: the name makes it valid.
        self.memory.write_all_at(&[0; NAME], 0).unwrap();
        let [error, nth, none] = [error, nth, 0].map(i32::to_ne_bytes);
        self.memory.write_all_at(&[error, nth, none].concat(), NAME as u64).unwrap();
        self.memory.write_all_at(function.as_bytes(), 0).unwrap();
    }

    /// How often the function was called since.
    pub fn calls(&self) -> i32 {
        let mut calls = [0; 4];
        self.memory.read_exact_at(&mut calls, CALLS).unwrap();
        i32::from_ne_bytes(calls)
    }
}
