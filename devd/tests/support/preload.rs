//! Libraries that stand before the C library in a program (LD_PRELOAD).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes one for the running test program, by the compiler that also links Rust's programs. The
/// library stays in Cargo's folder for tests: Rust drops no `static`.
pub fn make(name: &str, source: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let scratch = tempfile::tempdir_in(folder).unwrap();
    let (file, library) = (scratch.path().join("source.c"), folder.join(format!("{name}.so")));
    let new = scratch.path().join("new.so");
    fs::write(&file, source).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
    let made = cc.arg(&new).arg(file).arg("-ldl").status();
    assert!(made.expect("a C compiler, cc").success());
    // In one step: other test programs make and use the same library.
    fs::rename(new, &library).unwrap();
    library
}
