//! Values that no toolstack writes, in every node of a device that the daemon reads, and in
//! those that its hooks and QEMU read. Each is passed on as it is, or is that device's failure
//! with its reason; other devices are not touched by it, nothing but the hooks is ever run, and
//! the same device with values that make sense is served afterwards.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use support::hostile::{self, is_presentable};
use support::{Devd, Device, GUEST_HOME, Kernel, World, process, wait_until};

/// What becomes of a device.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// It is served, and its hook finds what it always finds.
    Served,
    /// It is not, for a reason in which this is said.
    Refused(&'static str),
    /// It waits until the value makes sense.
    Waits,
}
use Outcome::{Refused, Served, Waits};

/// How it goes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As the toolstack asks for it.
    Detached,
    /// It is closed, and nobody says that it is not wanted any more.
    Closed,
    /// The toolstack does not wait for its backend.
    Destroyed,
}
use Way::{Closed, Destroyed, Detached};

/// These nodes with a hostile value, what then becomes of the device, and how it goes.
type Row = (&'static [&'static str], fn(&[u8]) -> Outcome, Way);

/// Notes the environment of the add hook byte for byte.
const RECORD: &str = "\
    case $1 in add|online)
        path=${XENBUS_PATH#backend/}; guest=${path#*/}
        cat /proc/$$/environ > $DIR/environ-${path%%/*}-${guest%%/*}
        call connect;;
    esac";

/// A world with a device that all this is no affair of.
struct Scene {
    world: World,
    devd: Devd,
    _kernel: Kernel,
    bystander: Device,
    outside: PathBuf,
}

impl Scene {
    fn new(bystander: Device) -> Self {
        let world = World::new();
        let outside = world.file("outside");
        world.program(&outside, "");
        for name in ["vif-bridge", "block"] {
            world.hook(name, RECORD);
        }
        let qemu = world.qemu();
        let options = ["--hooks", "script", "--linger", "0", "--init-timeout", "1"];
        let devd = world.devd(&[&options[..], &["--qemu", &qemu]].concat());
        let kernel = world.kernel();
        world.attach(&bystander);
        world.wait_connected(&bystander);
        Self { world, devd, _kernel: kernel, bystander, outside }
    }

    fn values(&self) -> Vec<(&'static str, Vec<u8>)> {
        hostile::values(&self.outside)
    }

    /// One device for each value, the `first` and those behind it: it has it, goes, and comes
    /// again as it should be.
    fn play(&self, first: u16, device: impl Fn(u16) -> Device, (nodes, outcome, way): Row) {
        let world = &self.world;
        let mut values = self.values();
        if nodes.contains(&"frontend") {
            values.push(("no path of a node", b"@releaseDomain".to_vec()));
        }
        let sane: Vec<_> = (first..).zip(&values).map(|(number, _)| device(number)).collect();
        let with = |(device, (_, value)): (&Device, &(_, Vec<u8>))| {
            nodes.iter().fold(device.clone(), |device, node| device.with(node, value))
        };
        let hostile: Vec<_> = sane.iter().zip(&values).map(with).collect();
        world.attach_all(&hostile);
        for (device, (what, value)) in hostile.iter().zip(&values) {
            println!("{what} as {nodes:?} of {}", device.path());
            match outcome(value) {
                Served if nodes.contains(&"frontend") => {
                    world.wait_node(device, "hotplug-status", "connected");
                    self.check_environment(device);
                }
                Served => {
                    world.wait_connected(device);
                    self.check_environment(device);
                }
                Refused(word) => {
                    let reason = world.wait_refused(device);
                    assert!(is_presentable(&reason) && reason.contains(word), "{reason:?}");
                    assert_eq!(world.calls(device), [""; 0]);
                }
                Waits if self.has_hook(device) => {
                    world.wait_logged(&format!("{}: its backend is not ready", device.path()));
                    assert_eq!(world.calls(device), [""; 0]);
                }
                // A QEMU closes no device that it has not taken up.
                Waits if nodes.contains(&"frontend") => world.wait_node(device, "state", "2"),
                Waits => {}
            }
            // What it was given stays, but for what the backend and its hook write.
            for node in nodes.iter().filter(|node| !self.is_written(node)) {
                let path = format!("{}/{node}", device.backend());
                assert_eq!(world.store.read(path.as_bytes()).as_ref(), Ok(value), "{path}");
            }
        }
        for device in &hostile {
            match way {
                Detached => world.detach(device),
                Closed => world.set(device, "state", "6"),
                Destroyed => world.drop_device(device),
            }
            world.wait_gone(device);
        }
        world.attach_all(&sane);
        for device in &sane {
            world.wait_connected(device);
            self.check_environment(device);
        }
        for device in &sane {
            world.detach(device);
            world.wait_gone(device);
        }
        self.check_others();
    }

    fn has_hook(&self, device: &Device) -> bool {
        ["vif", "vbd"].contains(&device.kind)
    }

    fn is_written(&self, node: &str) -> bool {
        ["hotplug-status", "hotplug-error"].contains(&node)
    }

    /// The add hook found the daemon's environment, with these added, and nothing else.
    fn check_environment(&self, device: &Device) {
        if !self.has_hook(device) {
            return;
        }
        let Device { kind, guest, devid, .. } = device;
        let scripts = self.world.scripts();
        let script = if *kind == "vif" { "vif-bridge" } else { "block" };
        let mut expected = environment(&format!("/proc/{}/environ", self.devd.pid()));
        let text = |pair: String| pair.into_bytes();
        expected.extend([
            text(format!("script={}/{script}", scripts.display())),
            text(format!("XENBUS_TYPE={kind}")),
            text(format!("XENBUS_PATH={}", device.path())),
            text("XENBUS_BASE_PATH=backend".into()),
            text(format!("XENSTORED_PATH={}", self.world.socket().display())),
        ]);
        if *kind == "vif" {
            let gateway = device.nodes.iter().find(|(name, _)| *name == "gatewaydev");
            let gateway = gateway.map(|(_, value)| &value[..]).unwrap_or_default();
            expected
                .extend([[b"netdev=", gateway].concat(), text(format!("vif=vif{guest}.{devid}"))]);
        }
        expected.sort();
        let found = self.world.file(&format!("environ-{kind}-{guest}"));
        let mut found = environment(found.to_str().unwrap());
        found.retain(|pair| !pair.starts_with(b"DEVD_TOKEN="));
        assert_eq!(found, expected);
    }

    /// Nobody else was touched, and nothing else was run.
    fn check_others(&self) {
        let Self { world, bystander, .. } = self;
        assert_eq!(world.node(bystander, "state").as_deref(), Some("4"));
        assert_eq!(world.node(bystander, "hotplug-error"), None);
        assert_eq!(world.calls(bystander).len(), usize::from(self.has_hook(bystander)));
        for (_, call, _) in world.runs() {
            let known = ["vif-bridge ", "block ", "qemu "];
            assert!(known.iter().any(|name| call.starts_with(name)), "{call}");
        }
        assert_eq!(world.logged(&format!("{}: another", bystander.path())), 0);
        hostile::assert_log(&world.log(), true);
    }
}

/// The pairs of an environment as the kernel shows it.
fn environment(path: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let pairs = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|byte| *byte == 0);
    let mut pairs: Vec<_> = pairs.map(<[u8]>::to_owned).collect();
    pairs.sort();
    pairs
}

fn served(_: &[u8]) -> Outcome {
    Served
}

fn waits(_: &[u8]) -> Outcome {
    Waits
}

/// Only the file's name at the end of the value counts.
fn script(value: &[u8]) -> Outcome {
    let name = value.rsplit(|byte| *byte == b'/').next().unwrap();
    let is_name = !matches!(name, b"" | b"..") && !name.iter().any(u8::is_ascii_control);
    Refused(if is_name { "no program named like" } else { "the script node" })
}

/// Everything but a NUL can be in an environment.
fn gateway(value: &[u8]) -> Outcome {
    if value.contains(&0) { Refused("gatewaydev") } else { Served }
}

#[test]
fn of_a_network_interface() {
    let others = &["bridge", "vifname", "ip", "mac", "mtu", "handle", "frontend-id", "rate"];
    play(
        Device::vif,
        0,
        &[
            (&["state"], waits, Detached),
            (&["online"], served, Closed),
            (&["script"], script, Detached),
            (&["type"], served, Detached),
            (&["gatewaydev"], gateway, Detached),
            (&["frontend"], served, Closed),
            (&["hotplug-status"], served, Detached),
            (&["hotplug-error"], served, Destroyed),
            (others, served, Detached),
        ],
    );
}

#[test]
fn of_a_disk() {
    let others = &["params", "mode", "type", "dev", "node", "physical-device-path", "gatewaydev"];
    play(
        Device::vbd,
        51712,
        &[
            (&["state"], waits, Detached),
            (&["online"], served, Closed),
            (&["script"], script, Detached),
            (&["frontend"], served, Closed),
            (&["hotplug-status"], served, Detached),
            (&["hotplug-error"], served, Destroyed),
            (others, served, Detached),
        ],
    );
}

#[test]
fn of_a_disk_that_qemu_serves() {
    let others = &["params", "mode", "type", "script", "dev", "discard-enable"];
    play_qemu(Device::qdisk, others);
}

#[test]
fn of_a_share() {
    play_qemu(Device::share, &["path", "security_model", "tag", "type", "script"]);
}

fn play(device: fn(u16, u32) -> Device, devid: u32, rows: &[Row]) {
    let scene = Scene::new(device(3, devid));
    for (first, row) in (100..).step_by(100).zip(rows) {
        scene.play(first, |number| device(number, devid), *row);
    }
    scene.devd.terminate();
}

/// All devices are of one guest, which has one QEMU for them.
fn play_qemu(device: fn(u16, u32) -> Device, others: &'static [&'static str]) {
    let scene = Scene::new(device(3, 0));
    let rows: [Row; 6] = [
        (&["state"], waits, Detached),
        (&["online"], served, Detached),
        (&["frontend"], waits, Detached),
        (&["hotplug-status"], served, Detached),
        (&["hotplug-error"], served, Destroyed),
        (others, served, Detached),
    ];
    for (first, row) in (100..).step_by(100).zip(rows) {
        scene.play(first, |number| device(10, number.into()), row);
    }
    scene.devd.terminate();
}

/// What the store says of a QEMU: it is ready only if that is what it says, to the letter.
#[test]
fn of_what_a_qemu_says_of_itself() {
    let world = World::new();
    world.gate("go");
    world.gate("never");
    let qemu = world.qemu_that(
        "trap 'exit 0' HUP
         read x < $DIR/go; call write device-model/$2/state running
         while :; do read x < $DIR/never; done",
    );
    let devd = world.devd(&["--linger", "0", "--qemu", &qemu]);
    let mut values = hostile::values(&world.file("outside"));
    values.extend([("nearly the word", b"running\0".to_vec()), ("more", b"running\n".to_vec())]);
    let devices: Vec<_> = (10..).zip(&values).map(|(guest, _)| Device::qdisk(guest, 0)).collect();
    world.attach_all(&devices);
    for (device, (_, value)) in devices.iter().zip(&values) {
        wait_until("its QEMU", || world.qemus(device.guest).len() == 1);
        let path = format!("{GUEST_HOME}/device-model/{}/state", device.guest);
        world.store.write(path.as_bytes(), value).unwrap();
    }
    world.wait_settled();
    assert_eq!(world.logged(": attached"), 0);
    let _open = world.open("go");
    for device in &devices {
        world.wait_logged(&format!("{}: attached", device.path()));
        world.set(device, "online", "0");
        world.set(device, "state", "6");
        world.wait_gone(device);
        wait_until("its QEMU's end", || !process::is_alive(world.qemus(device.guest)[0]));
    }
    hostile::assert_log(&world.log(), true);
    devd.terminate();
}

/// A process id that an earlier daemon should have noted: nothing but the guest's QEMU is ever
/// taken for it, or gets a signal.
#[test]
fn of_the_process_id_of_a_qemu() {
    let world = World::new();
    world.gate("never");
    let decoy = world.file("decoy");
    world.program(&decoy, "read x < $DIR/never");
    let mut decoy = std::process::Command::new(decoy).spawn().unwrap();
    let qemu = world.qemu();
    let devd = world.devd(&["--linger", "0", "--qemu", &qemu]);
    let bystander = Device::qdisk(3, 0);
    world.attach(&bystander);
    world.wait_connected(&bystander);
    let others = world.qemus(3)[0];

    let mut values = hostile::values(&world.file("outside"));
    for pid in [others, i32::try_from(decoy.id()).unwrap(), devd.pid(), 1, 0] {
        for form in ["PID", "+PID", "0PID", "-PID", " PID", "PID\n", "PID 1"] {
            values.push(("a process of others", form.replace("PID", &pid.to_string()).into()));
        }
    }
    let devices: Vec<_> = (10..).zip(&values).map(|(guest, _)| Device::qdisk(guest, 0)).collect();
    for (device, (_, value)) in devices.iter().zip(&values) {
        let path = format!("{GUEST_HOME}/libxl/{}/qdisk-backend-pid", device.guest);
        world.store.write(path.as_bytes(), value).unwrap();
        let home = format!("{GUEST_HOME}/libxl/{}", device.guest);
        world.store.set_permissions(home.as_bytes(), b"n7\0").unwrap();
        world.store.set_permissions(path.as_bytes(), b"n7\0").unwrap();
    }
    for some in devices.chunks(8) {
        world.attach_all(some);
        for device in some {
            world.wait_connected(device);
            let [pid] = world.qemus(device.guest)[..] else { panic!("{:?}", world.runs()) };
            let noted = format!("libxl/{}/qdisk-backend-pid", device.guest);
            assert_eq!(world.own(&noted), Some(pid.to_string()));
            world.detach(device);
            world.wait_gone(device);
            wait_until("its QEMU's end", || !process::is_alive(pid));
        }
    }
    assert!(decoy.try_wait().unwrap().is_none() && process::is_alive(others));
    assert_eq!(world.node(&bystander, "state").as_deref(), Some("4"));
    hostile::assert_log(&world.log(), true);
    devd.terminate();
    decoy.kill().unwrap();
    decoy.wait().unwrap();
}

/// A hook of that very name is run, and found by no shell.
#[test]
fn in_a_script_that_is_there() {
    let world = World::new();
    let _kernel = world.kernel();
    let devd = world.devd(&["--hooks", "script", "--linger", "0"]);
    let names: [&[u8]; 8] = [
        b"block; touch outside",
        b"$(touch outside)",
        b"%s%n%s%n",
        b"-c",
        b" block ",
        b"\xff\xfe\x80",
        b"*",
        &[b'x'; 255],
    ];
    let devices = (10..).zip(names).map(|(guest, name)| {
        let path = world.scripts().join(OsStr::from_bytes(name));
        world.program(&path, "call connect");
        let node = [b"/some/where/", name].concat();
        Device::vbd(guest, 51712).with("script", node)
    });
    let devices: Vec<_> = devices.collect();
    world.attach_all(&devices);
    for (device, name) in devices.iter().zip(names) {
        world.wait_connected(device);
        let call = format!("{} add", String::from_utf8_lossy(name));
        assert_eq!(world.calls(device), [call]);
    }
    for device in &devices {
        world.detach(device);
        world.wait_gone(device);
        assert_eq!(world.calls(device).len(), 2);
    }
    hostile::assert_log(&world.log(), true);
    devd.terminate();
}
