//! The stock `xl devd`, run on the real xenstored, is the reference of what hooks are called
//! with: this daemon calls them in the same order with the same words and the same environment.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{DOMID, Devd, Device, process, toolstack, wait_for, wait_until};
use xs_client::{Address, Client};

/// A process that is asked to end with the test, so that it can clean up.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        process::signal(self.pid(), Signal::SIGTERM);
        let begin = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
    toolstack: Client,
    _domain: Process,
    _xenstored: Process,
    directory: tempfile::TempDir,
}

impl Site {
    fn start(support: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let fake = ("FAKEXEN_SO", support.join("fakexen.so"));
        let mut command = Command::new(support.join("xsd-start.sh"));
        let xenstored = Process::start(command.arg("c").arg(path).env(fake.0, fake.1));
        let open = |name: &str| Client::open(Address::Socket(path.join(name))).ok();
        let toolstack = wait_for("xenstored", || open("socket"));
        for guest in ["3", "4"] {
            let mut command = Command::new(support.join("fxguest"));
            assert!(command.arg("create").arg(path).arg(guest).status().unwrap().success());
        }
        let mut command = Command::new(support.join("fxguest"));
        let domain = Process::start(command.arg("serve").arg(path).arg(DOMID.to_string()));
        wait_until("the driver domain", || {
            open("dom7.sock").is_some_and(|mut client| client.read("domid").is_ok())
        });
        Self { toolstack, _domain: domain, _xenstored: xenstored, directory }
    }

    fn runs(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.directory.path().join("runs")).unwrap_or_default();
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
            process::words(&fs::read(self.directory.path().join(format!("{pid}.{kind}"))).unwrap())
        };
        let mut added = note("environment");
        added.retain(|pair| !daemon.contains(pair));
        Call { words: note("words"), added }
    }
}

fn calls(daemon: &str, support: &Path, scripts: &Path) -> Vec<Call> {
    let mut site = Site::start(support);
    let directory = site.directory.path().to_owned();
    let script = scripts.join("hook");
    let mut command = if daemon == "xl" {
        let mut command = Command::new(support.join("xl-devd.sh"));
        command.arg(&directory).arg(DOMID.to_string());
        command.env("FAKEXEN_SO", support.join("fakexen.so"));
        command
    } else {
        let mut command = Devd::command();
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
    let support = std::env::var_os("DEVD_TEST_SUPPORT").map(PathBuf::from).expect(
        "DEVD_TEST_SUPPORT is to name the directory made by \
         `make -C xs-client/tests/xenstored OUT=DIRECTORY`; .ci/test does both",
    );
    let scripts = tempfile::tempdir().unwrap();
    let hook = scripts.path().join("hook");
    fs::write(&hook, HOOK).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();

    let theirs = calls("xl", &support, scripts.path());
    let ours = calls("devd", &support, scripts.path());
    assert_eq!(ours, theirs);
    // Two runs of each, and twice two of the one with an emulated interface.
    assert_eq!(theirs.len(), 10, "{theirs:?}");
    let last = theirs.last().unwrap();
    assert_eq!(Path::new(&last.words[1]).file_name(), Some(OsStr::new("hook")));
    assert!(last.added.contains(&"XENBUS_PATH=backend/vbd/3/51712".to_owned()), "{last:?}");
}
