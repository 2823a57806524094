//! Compiles the reference ways, which are in C; notes the compiler that everything is built
//! with; finds out whether libxenstore is there to be compared with.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=reference");
    cc::Build::new()
        .files(["reference/event_path.c", "reference/lists.c"])
        .opt_level(2)
        .warnings_into_errors(true)
        .compile("reference");

    println!("cargo:rustc-check-cfg=cfg(libxenstore)");
    let mut libxenstore = cc::Build::new();
    let libxenstore =
        libxenstore.file("reference/libxenstore.c").opt_level(2).cargo_warnings(false);
    if libxenstore.try_compile("reference_libxenstore").is_ok() {
        println!("cargo:rustc-link-lib=dylib=xenstore");
        println!("cargo:rustc-cfg=libxenstore");
    }

    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("rustc says its version");
    println!("cargo:rustc-env=RUSTC_VERSION={}", String::from_utf8_lossy(&version.stdout).trim());
}
