//! A network namespace of the test's own, with real interfaces, and Debian's `ip` and `nft` to
//! look at it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// From here on this thread, and the daemon that it starts, see interfaces of their own only.
pub fn isolate() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which takes root");
    ip("link set lo up");
}

/// From here on sysfs says of the interface of this name, and of no other, that it belongs to
/// that device of the kernel: `vif-3-0` of netback, for instance.
pub fn belongs(interface: &str, device: &str) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, which takes root");
    run("mount", "--make-rprivate /");
    run("mount", "-t tmpfs none /sys/class/net");
    let directory = Path::new("/sys/class/net").join(interface);
    fs::create_dir(&directory).unwrap();
    symlink(Path::new("../../devices").join(device), directory.join("device")).unwrap();
}

/// Runs `ip` with these arguments; returns what it says.
#[track_caller]
pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// The same with `nft`.
#[track_caller]
pub fn nft(arguments: &str) -> String {
    run("nft", arguments)
}

/// What a program says; `None` if it fails.
pub fn try_run(program: &str, arguments: &str) -> Option<String> {
    let output = Command::new(program).args(arguments.split(' ')).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// A network namespace of `ip netns`, which goes with this.
pub struct Named<'a>(pub &'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        try_run("ip", &format!("netns delete {}", self.0));
    }
}

#[track_caller]
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `ip link show` says of an interface, in one line; `None` if there is none.
pub fn link(name: &str) -> Option<String> {
    let output = Command::new("ip").args(["-d", "-o", "link", "show", "dev", name]).output();
    let output = output.unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// A bridge.
pub fn bridge(name: &str, mtu: u32) {
    ip(&format!("link add {name} mtu {mtu} type bridge"));
    ip(&format!("link set {name} up"));
}

/// A pair of interfaces in the place of netback's and the guest's.
pub fn vif(name: &str, guest: &str) {
    ip(&format!("link add {name} type veth peer name {guest}"));
}
