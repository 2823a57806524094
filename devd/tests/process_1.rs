//! The daemon as process 1, as it is where there is nothing else: whatever has lost its parent is
//! its child, and no signal reaches it that it does not ask for.

mod support;

use std::fs;

use nix::sys::signal::Signal;
use support::{Devd, Device, World, process, wait_for, wait_until};

#[test]
#[ignore = "needs root: run .ci/test"]
fn it_reaps_whom_it_has_not_started_and_ends_when_it_is_told_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        world.gate("gate");
        world.gate("never");
        // Those that it leaves in the background are nobody's when it has ended.
        world.hook(
            "block",
            "case $1 in add)
                 (read x < $DIR/gate) & echo $! >> $DIR/orphans
                 (trap '' TERM; read x < $DIR/never) & echo $! > $DIR/stays
                 call connect;;
             esac",
        );
        let _kernel = world.kernel();
        let whole = world.command(&["--linger", "0"]);
        let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut unshare = world.devd_by(Devd::under(unshare, &whole));
        let devd = wait_for("the daemon", || process::children(unshare.pid()).first().copied());
        let status = fs::read_to_string(format!("/proc/{devd}/status")).unwrap();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        assert_eq!(numbers.split_whitespace().last(), Some("1"));

        let devices = [Device::vbd(3, 51712), Device::vbd(4, 51712)];
        for device in &devices {
            world.attach(device);
            world.wait_connected(device);
        }
        let children = || process::children(devd).len();
        wait_until("the hooks to be gone, and what they have left to be its own", || {
            children() == 4
        });
        let _open = world.open("gate");
        wait_until("two of those to be reaped", || children() == 2);
        for device in &devices {
            world.detach(device);
            world.wait_gone(device);
        }
        assert_eq!(children(), 2);
        process::signal(devd, signal);
        assert_eq!(unshare.wait().code(), Some(0));
        assert_eq!(world.logged(&format!("{signal}: ending")), 1);
        wait_until("all to end with process 1", || world.processes().is_empty());
    }
}
