//! What hooks are called with, and what they find: the whole life of the devices that have
//! one.

mod support;

use std::path::PathBuf;

use support::{Devd, Device, World, process, wait_until};

/// The hook that runs now, as it finds itself: it waits at a gate while it is looked at.
struct Call {
    pid: i32,
    words: Vec<String>,
    added: Vec<String>,
}

impl Call {
    /// The device's `count`-th call.
    fn nth(world: &World, devd: &Devd, device: &Device, count: usize) -> Self {
        let pid = world.wait_run(device, count);
        let theirs = process::environment(devd.pid());
        let mut added = process::environment(pid);
        for inherited in theirs {
            let at = added.iter().position(|pair| *pair == inherited);
            added.remove(at.unwrap_or_else(|| panic!("{inherited} is not passed on")));
        }
        let tokens = added.extract_if(.., |pair| pair.starts_with("DEVD_TOKEN=")).count();
        assert_eq!(tokens, 1, "by which a later daemon knows it");
        added.sort();
        let words = process::arguments(pid);
        let call = Self { pid, words, added };
        call.finds_itself_alone(&world.scripts());
        call
    }

    /// No input, nothing open but the three and the other end of its output, no signal held back,
    /// a group of its own.
    fn finds_itself_alone(&self, scripts: &std::path::Path) {
        // The shell has its script open, and moves its files about for a moment when it redirects.
        let mut files: Vec<(i32, PathBuf)> = Vec::new();
        wait_until("the shell to have put its files back", || {
            files = process::open_files(self.pid);
            files.retain(|(_, file)| !file.starts_with(scripts));
            files.len() == 4 && !files.iter().any(|(_, file)| file.ends_with("runs"))
        });
        let [(0, input), (1, output), (2, errors), (3, end)] = &files[..] else {
            panic!("{files:?}")
        };
        assert_eq!(input, &PathBuf::from("/dev/null"));
        assert!(output.to_str().unwrap().starts_with("pipe:"), "{output:?}");
        assert_eq!([output, output], [errors, end]);
        assert_eq!(process::stat(self.pid, 5), self.pid, "its process group");
        assert_eq!(process::signals(self.pid, "SigBlk"), 0);
        assert_eq!(process::signals(self.pid, "SigIgn"), 0);
    }

    fn is(&self, world: &World, script: &str, words: &[&str], added: &[&str]) {
        let script = world.scripts().join(script).display().to_string();
        let expected: Vec<&str> = ["/bin/sh", &script].iter().chain(words).copied().collect();
        assert_eq!(self.words, expected);
        let mut expected: Vec<String> = added.iter().copied().map(str::to_owned).collect();
        expected.push(format!("XENSTORED_PATH={}", world.socket().display()));
        expected.push(format!("script={script}"));
        expected.push("XENBUS_BASE_PATH=backend".to_owned());
        expected.sort();
        assert_eq!(self.added, expected);
    }
}

/// Hooks wait at the gate that is named as their first argument, before they do anything.
const GATED: &str = "read x < $DIR/$1; case $1 in add|online) call connect;; esac";

fn gated(script: &str) -> World {
    let world = World::new();
    world.hook(script, GATED);
    for gate in ["online", "offline", "add", "remove"] {
        world.gate(gate);
    }
    world
}

#[test]
fn a_network_interface() {
    let world = gated("vif-bridge");
    let _kernel = world.kernel();
    let devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    let added = ["XENBUS_TYPE=vif", "XENBUS_PATH=backend/vif/3/0", "netdev=", "vif=vif3.0"];

    world.attach(&device);
    let call = Call::nth(&world, &devd, &device, 1);
    call.is(&world, "vif-bridge", &["online", "type_if=vif"], &added);
    assert_eq!(world.node(&device, "state").as_deref(), Some("2"), "the backend was ready");
    let _open = world.open("online");
    world.wait_connected(&device);

    world.detach(&device);
    let call = Call::nth(&world, &devd, &device, 2);
    call.is(&world, "vif-bridge", &["offline", "type_if=vif"], &added);
    assert_eq!(world.node(&device, "state").as_deref(), Some("6"), "the backend had closed");
    let _open = world.open("offline");
    world.wait_gone(&device);
    assert_eq!(world.calls(&device).len(), 2);
    devd.terminate();
}

#[test]
fn a_network_interface_with_an_emulated_one_beside_it() {
    let world = gated("vif-bridge");
    let _kernel = world.kernel();
    let devd = world.devd(&[]);
    let device = Device::vif_ioemu(3, 1).with("gatewaydev", "eth0");
    let added = [
        "XENBUS_TYPE=vif",
        "XENBUS_PATH=backend/vif/3/1",
        "netdev=eth0",
        "vif=vif3.1",
        "INTERFACE=vif3.1-emu",
    ];
    world.attach(&device);
    let calls = [["online", "type_if=vif"], ["add", "type_if=tap"]];
    let mut open = Vec::new();
    for (at, words) in calls.iter().enumerate() {
        let call = Call::nth(&world, &devd, &device, at + 1);
        call.is(&world, "vif-bridge", words, &added);
        open.push(world.open(words[0]));
    }
    world.wait_connected(&device);
    world.detach(&device);
    for (at, words) in [["offline", "type_if=vif"], ["remove", "type_if=tap"]].iter().enumerate() {
        let call = Call::nth(&world, &devd, &device, at + 3);
        call.is(&world, "vif-bridge", words, &added);
        open.push(world.open(words[0]));
    }
    world.wait_gone(&device);
    assert_eq!(world.calls(&device).len(), 4);
}

#[test]
fn a_disk() {
    disk(&Device::vbd(4, 51712), &["XENBUS_TYPE=vbd", "XENBUS_PATH=backend/vbd/4/51712"]);
}

#[test]
fn a_disk_of_tapback() {
    disk(&Device::vbd3(4, 51728), &["XENBUS_TYPE=vbd3", "XENBUS_PATH=backend/vbd3/4/51728"]);
}

fn disk(device: &Device, added: &[&str]) {
    let world = gated("block");
    let _kernel = world.kernel();
    let devd = world.devd(&[]);
    world.attach(device);
    Call::nth(&world, &devd, device, 1).is(&world, "block", &["add"], added);
    let _open = world.open("add");
    world.wait_connected(device);
    world.detach(device);
    Call::nth(&world, &devd, device, 2).is(&world, "block", &["remove"], added);
    let _open = world.open("remove");
    world.wait_gone(device);
    assert_eq!(world.calls(device).len(), 2);
}

#[test]
fn a_hook_that_says_nothing_is_enough_for_a_disk() {
    let world = World::new();
    world.hook("block", "case $1 in add) call write physical-device 7:1;; esac");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    world.wait_node(&device, "hotplug-status", "connected");
}

#[test]
fn the_script_is_found_by_its_name_in_the_directories_alone() {
    let world = World::new();
    let outside = world.file("outside");
    world.program(&outside, "call connect");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);

    let evil = Device::vbd(3, 51712).with("script", outside.to_str().unwrap());
    let sneaky = Device::vbd(3, 51728).with("script", "../outside");
    let named = Device::vbd(3, 51744).with("script", "block");
    let elsewhere = Device::vbd(3, 51760).with("script", "/no/such/place/block");
    for device in [&evil, &sneaky, &named, &elsewhere] {
        world.attach(device);
    }
    world.wait_connected(&named);
    world.wait_connected(&elsewhere);
    for device in [&evil, &sneaky] {
        let reason = world.wait_refused(device);
        assert!(reason.contains("outside"), "{reason}");
        assert!(reason.contains(world.scripts().to_str().unwrap()), "{reason}");
        assert!(reason.contains("--script-dir"), "{reason}");
        assert_eq!(world.calls(device), [""; 0], "it must never run");
    }
}

#[test]
fn missing_hook_directory_is_named_with_its_option() {
    let world = World::new();
    let _kernel = world.kernel();
    let mut command = Devd::command(&world.file(""));
    let nowhere = world.file("nowhere");
    command.arg("-F").arg("--xenstore").arg(world.socket());
    command.arg("--log").arg(world.file("devd.log"));
    command.arg("--script-dir").arg(&nowhere).arg("--script-dir").arg("/no/such/place");
    command.args(["--hooks", "script"]);
    let _devd = world.spawn(command);
    let device = Device::vif(3, 0);
    world.attach(&device);
    let reason = world.wait_refused(&device);
    for word in ["vif-bridge", nowhere.to_str().unwrap(), "/no/such/place", "--script-dir"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    world.wait_logged("not served");
}

#[test]
fn a_missing_node_is_the_error_of_that_device_until_it_is_there() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let scriptless = Device::vif(3, 0).without("script");
    let typeless = Device::vif(3, 1).without("type");
    let diskless = Device::vbd(3, 51712).without("script");
    let whole = Device::vbd(3, 51728);
    for device in [&scriptless, &typeless, &diskless, &whole] {
        world.attach(device);
    }
    world.wait_connected(&whole);
    for (device, node) in [(&scriptless, "script"), (&typeless, "type"), (&diskless, "script")] {
        let reason = world.wait_refused(device);
        assert!(reason.contains(&format!("no {node} node")), "{reason}");
        assert_eq!(world.calls(device), [""; 0]);
    }
    world.set(&scriptless, "script", "/etc/xen/scripts/vif-bridge");
    world.set(&typeless, "type", "vif");
    world.set(&diskless, "script", "/etc/xen/scripts/block");
    for device in [&scriptless, &typeless, &diskless] {
        world.wait_connected(device);
        assert_eq!(world.node(device, "hotplug-error"), None);
    }
}

#[test]
fn hook_output_is_logged_with_its_device_and_bounded() {
    let world = World::new();
    world.hook(
        "block",
        "echo to output; echo to errors >&2; printf 'no end'
         if [ $XENBUS_PATH = backend/vbd/3/51728 ]; then
             i=0; while [ $i -lt 3000 ]; do echo $i ..................................; i=$((i+1)); done
         fi
         call connect",
    );
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let (brief, talker) = (Device::vbd(3, 51712), Device::vbd(3, 51728));
    world.attach(&brief);
    world.wait_connected(&brief);
    for line in ["to output", "to errors", "no end"] {
        world.wait_logged(&format!("{}: hook: {line}", brief.path()));
    }
    world.attach(&talker);
    world.wait_connected(&talker);
    world.wait_logged(&format!("{}: hook: (it goes on; the rest is left out)", talker.path()));
    let lines = world.logged(&format!("{}: hook: ", talker.path()));
    assert!((1000..2500).contains(&lines), "{lines}");
}

#[test]
fn a_hook_that_writes_without_an_end_is_not_kept_from_its_work() {
    let world = World::new();
    // A MiB, far more than the pipe holds and than the log takes, and not one end of a line.
    world.hook("block", "head -c 1048576 /dev/zero | tr '\\0' x; call connect");
    let _kernel = world.kernel();
    let devd = world.devd(&["--linger", "0"]);
    let device = Device::vbd(3, 51712);
    for life in 1..=2 {
        world.attach(&device);
        world.wait_connected(&device);
        world.detach(&device);
        world.wait_gone(&device);
        // The removal hook says as much.
        let head = format!("{}: hook: ", device.path());
        assert_eq!(world.logged(&format!("{head}(it goes on; the rest is left out)")), 2 * life);
        let log = world.log();
        let lines = log.lines().filter_map(|line| Some(line.split_once(&head)?.1));
        let said: Vec<_> = lines.filter(|line| line.starts_with('x')).collect();
        assert!(said.iter().all(|line| line.len() <= 1024));
        let all: usize = said.iter().map(|line| line.len()).sum();
        assert_eq!(all, 2 * life * 64 * 1024, "what the log takes of each run");
    }
    devd.terminate();
}

#[test]
fn what_a_hook_leaves_in_the_background_stays_there() {
    let world = World::new();
    world.gate("never");
    world.hook("block", "call connect; { read x < $DIR/never; } & echo $! > $DIR/child");
    let _kernel = world.kernel();
    let devd = world.devd(&[]);
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_logged("backend/vbd/3/51712: attached");
    let child = std::fs::read_to_string(world.file("child")).unwrap().trim().parse().unwrap();
    assert!(process::is_alive(child));
    devd.terminate();
    assert!(process::is_alive(child));
}

#[test]
fn nothing_stays_open_of_devices_that_are_gone() {
    let world = World::new();
    let _kernel = world.kernel();
    let devd = world.devd(&["--linger", "0"]);
    let files = || process::open_files(devd.pid()).into_iter().map(|(number, _)| number);
    // The daemon has closed the files that only its start needs.
    world.wait_settled();
    let before: Vec<i32> = files().collect();
    for devid in 0..10 {
        let devices = [Device::vif(3, devid), Device::vbd(3, devid)];
        world.attach_all(&devices);
        devices.iter().for_each(|device| world.wait_connected(device));
        devices.iter().for_each(|device| world.detach(device));
        devices.iter().for_each(|device| world.wait_gone(device));
    }
    wait_until("as many files as before", || files().eq(before.iter().copied()));
}
