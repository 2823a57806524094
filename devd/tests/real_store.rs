//! The real xenstored is killed and started again, with nothing in it: all devices are gone, and
//! others come.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::xenstored::{Process, Xenstored};
use support::{Devd, Device, toolstack, wait_until};
use xs_client::Client;

/// Says what it was called with, and answers as Xen's scripts do.
const HOOK: &str = "#!/bin/sh
echo $1 $XENBUS_PATH >> ${XENSTORED_PATH%/*}/runs
case $1 in add|online) xenstore-write $XENBUS_PATH/hotplug-status connected;; esac
";

fn is(toolstack: &mut Client, device: &Device, node: &str, value: &str) -> bool {
    let found = toolstack.read(format!("{}/{node}", device.backend()));
    found.is_ok_and(|found| found == value.as_bytes())
}

#[test]
#[ignore = "needs the real xenstored: run .ci/test"]
fn xenstored_killed_and_restarted_is_served_again() {
    let mut store = Xenstored::start();
    let scripts = tempfile::tempdir().unwrap();
    let hook = scripts.path().join("hook");
    fs::write(&hook, HOOK).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Devd::command(store.path());
    command.arg("-F").arg("--script-dir").arg(scripts.path());
    command.env("XENSTORED_PATH", store.socket());
    let said = store.path().join("said");
    let devd = Process::start(command.stderr(fs::File::create(&said).unwrap()));
    let runs = store.path().join("runs");
    let runs = || fs::read_to_string(&runs).unwrap_or_default();
    let script = hook.to_str().unwrap();
    let [gone, again] = [Device::vif(3, 0), Device::vbd(4, 51712)]
        .map(|device| device.with("script", script).with("state", "2"));

    let mut toolstack = store.toolstack();
    for device in [&gone, &again] {
        toolstack::attach(&mut toolstack, device);
        wait_until("it to be served", || is(&mut toolstack, device, "hotplug-status", "connected"));
    }
    store.kill();
    wait_until("the loss to be told", || {
        fs::read_to_string(&said).unwrap().contains("; reconnecting")
    });
    store.start_again();
    let mut toolstack = store.toolstack();
    wait_until("what is gone to be undone", || {
        runs().contains("offline backend/vif/3/0") && runs().contains("remove backend/vbd/4/51712")
    });
    toolstack::attach(&mut toolstack, &again);
    wait_until("it to be served", || is(&mut toolstack, &again, "hotplug-status", "connected"));
    toolstack::detach(&mut toolstack, &again);
    toolstack.write(format!("{}/state", again.backend()), "6").unwrap();
    wait_until("it to be gone", || !toolstack.exists(again.backend()).unwrap());
    let mut runs: Vec<_> = runs().lines().map(str::to_owned).collect();
    runs.sort();
    let expected = [
        "add backend/vbd/4/51712",
        "add backend/vbd/4/51712",
        "offline backend/vif/3/0",
        "online backend/vif/3/0",
        "remove backend/vbd/4/51712",
        "remove backend/vbd/4/51712",
    ];
    assert_eq!(runs, expected);
    drop(devd);
}
