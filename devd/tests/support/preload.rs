//! Libraries that stand before the C library in a program (LD_PRELOAD).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// One that was made for the running test program, by the compiler that also links Rust's
/// programs.
#[derive(Debug)]
pub struct Library(TempDir);

impl Library {
    pub fn make(source: &str) -> Self {
        let library = Self(tempfile::tempdir().unwrap());
        let file = library.0.path().join("source.c");
        fs::write(&file, source).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        let made = cc.arg(library.path()).arg(file).arg("-ldl").status();
        assert!(made.expect("a C compiler, cc").success());
        library
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("preload.so")
    }
}
