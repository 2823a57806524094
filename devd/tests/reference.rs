//! The stock `xl devd`, run on the real xenstored, is the reference of what hooks are called
//! with: this daemon calls them in the same order with the same words and the same environment.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use support::xenstored::{Process, Xenstored};
use support::{DOMID, Devd, Device, process, toolstack, wait_until};
use xs_client::Client;

/// What one run of the hook found.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    words: Vec<String>,
    /// What its environment has and the daemon's has not, in its order.
    added: Vec<String>,
}

/// Notes what it is called with beside the socket that it was given, and answers as Xen's
/// scripts do.
const HOOK: &str = "#!/bin/sh
out=${XENSTORED_PATH%/*}
cat /proc/$$/cmdline > $out/$$.words
cat /proc/$$/environ > $out/$$.environment
case $1 in add|online) xenstore-write $XENBUS_PATH/hotplug-status connected;; esac
echo $$ >> $out/runs
";

/// A real xenstored, with a driver domain and two guests, all of them made up.
struct Site {
    store: Xenstored,
    toolstack: Client,
}

impl Site {
    fn start() -> Self {
        let store = Xenstored::start();
        let toolstack = store.toolstack();
        Self { store, toolstack }
    }

    fn runs(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.store.path().join("runs")).unwrap_or_default();
        runs.lines().map(str::to_owned).collect()
    }

    fn write(&mut self, device: &Device, node: &str, value: &str) {
        self.toolstack.write(format!("{}/{node}", device.backend()), value).unwrap();
    }

    /// Takes a device through its life; returns the calls that the daemon has made for it.
    fn live(&mut self, device: &Device, daemon: &Process) -> Vec<Call> {
        let before = self.runs().len();
        toolstack::attach(&mut self.toolstack, device);
        wait_until("the device to be served", || {
            // Once more each time: a daemon may not have been listening the first time.
            self.write(device, "state", "2");
            std::thread::sleep(Duration::from_millis(100));
            self.is_served(device)
        });
        self.write(device, "state", "4");
        toolstack::detach(&mut self.toolstack, device);
        self.write(device, "state", "6");
        wait_until("the device to be gone", || !self.toolstack.exists(device.backend()).unwrap());
        let runs = self.runs().split_off(before);
        let environment = process::environment(daemon.pid());
        runs.iter().map(|pid| self.call(pid, &environment)).collect()
    }

    /// Have all passes of the add hook run?
    fn is_served(&mut self, device: &Device) -> bool {
        let passes = if device.nodes.contains(&("type", "vif_ioemu".into())) { 2 } else { 1 };
        let connected = self.toolstack.read(format!("{}/hotplug-status", device.backend()));
        self.runs().len() % (2 * passes) == passes && connected.is_ok_and(|it| it == b"connected")
    }

    /// What a run of the hook has noted, beside what it has from the daemon's environment.
    fn call(&self, pid: &str, daemon: &[String]) -> Call {
        let note = |kind: &str| {
            process::words(&fs::read(self.store.path().join(format!("{pid}.{kind}"))).unwrap())
        };
        let mut added = note("environment");
        added.retain(|pair| !daemon.contains(pair) && !pair.starts_with("DEVD_TOKEN="));
        Call { words: note("words"), added }
    }
}

fn calls(daemon: &str, scripts: &Path) -> Vec<Call> {
    let mut site = Site::start();
    let directory = site.store.path().to_owned();
    let script = scripts.join("hook");
    let mut command = if daemon == "xl" {
        let mut command = site.store.program("xl-devd.sh");
        command.arg(&directory).arg(DOMID.to_string());
        command
    } else {
        let mut command = Devd::command(&directory);
        command.arg("-F").arg("--script-dir").arg(scripts);
        command.env("XENSTORED_PATH", directory.join("dom7.sock"));
        command
    };
    let said = fs::File::create(directory.join("said")).unwrap();
    let devd = Process::start(command.stderr(said));
    let script = script.to_str().unwrap();
    let devices = [
        Device::vif(3, 0).with("script", script),
        Device::vif(3, 1).with("script", script).with("gatewaydev", "eth0"),
        Device::vif_ioemu(4, 2).with("script", script),
        Device::vbd(3, 51712).with("script", script),
    ];
    let lives = devices.iter().flat_map(|device| site.live(device, &devd));
    lives.collect()
}

#[test]
#[ignore = "needs the real xenstored and xl: run .ci/test"]
fn hooks_are_called_as_xl_devd_calls_them() {
    let scripts = tempfile::tempdir().unwrap();
    let hook = scripts.path().join("hook");
    fs::write(&hook, HOOK).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();

    let theirs = calls("xl", scripts.path());
    let ours = calls("devd", scripts.path());
    assert_eq!(ours, theirs);
    // Two runs of each, and twice two of the one with an emulated interface.
    assert_eq!(theirs.len(), 10, "{theirs:?}");
    let last = theirs.last().unwrap();
    assert_eq!(Path::new(&last.words[1]).file_name(), Some(OsStr::new("hook")));
    assert!(last.added.contains(&"XENBUS_PATH=backend/vbd/3/51712".to_owned()), "{last:?}");
}
