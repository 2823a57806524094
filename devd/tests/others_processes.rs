//! Processes of other users, and of nobody that the daemon knows: they are not taken for its
//! hooks and QEMUs, get no signal, and keep it from nothing.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use support::hanging::Program;
use support::{Device, Hanging, OtherUser, World, process, wait_until};

/// A process that hangs makes every other test wait that looks for processes.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The arguments and the environment of a hook of this world.
struct Forged {
    path: String,
    store: String,
    script: String,
}

impl Forged {
    fn of(world: &World, device: &Device) -> Self {
        Self {
            path: device.path(),
            store: world.socket().to_str().unwrap().to_owned(),
            script: world.scripts().join("vif-bridge").to_str().unwrap().to_owned(),
        }
    }

    fn environment(&self) -> [(&str, &str); 3] {
        [("XENBUS_PATH", &self.path), ("XENSTORED_PATH", &self.store), ("script", &self.script)]
    }
}

const ONLINE: [&str; 2] = ["online", "type_if=vif"];

/// The device is served, and the daemon ends when it is told to.
#[track_caller]
fn assert_served(world: &World, devd: support::Devd, device: &Device) {
    world.wait_connected(device);
    assert_eq!(world.calls(device).len(), 1);
    assert_eq!(world.logged("is its hook"), 0);
    devd.terminate();
}

#[test]
#[ignore = "takes root: another user, a user namespace, FUSE"]
fn other_users_unreadable_process_does_not_delay_the_daemon() {
    let _alone = alone();
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let forged = Forged::of(&world, &device);
    let arguments = ["hook", ONLINE[0], ONLINE[1]];
    let mut hanging = Hanging::start(Hanging::OTHER, &arguments, &forged.environment());
    let qemu = ["qemu", "-xen-domid", "3", "-xen-attach"];
    let mut hanging_qemu = Hanging::start(Hanging::OTHER, &qemu, &forged.environment());
    let devd = world.devd(&[]);
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(world.logged("does not let its environment be read"), 0, "nobody has asked for it");
    devd.terminate();
    hanging.free();
    free(&mut hanging_qemu);
}

fn free(hanging: &mut Hanging) {
    hanging.free();
    let pid = hanging.pid;
    wait_until("the process that hung to end", || !process::is_alive(pid));
}

#[test]
#[ignore = "takes root: a user namespace, FUSE"]
fn own_unreadable_process_is_named_and_devices_are_served() {
    let _alone = alone();
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let forged = Forged::of(&world, &device);
    let arguments = ["hook", ONLINE[0], ONLINE[1]];
    let mut first = Hanging::start(0, &arguments, &forged.environment());
    let mut second = Hanging::start(0, &arguments, &forged.environment());
    let devd = world.devd(&[]);
    for hanging in [&first, &second] {
        world.wait_logged(&format!("process {} (hang) does not let", hanging.pid));
    }
    world.attach(&device);
    assert_served(&world, devd, &device);
    free(&mut first);
    free(&mut second);
}

#[test]
#[ignore = "takes root: a user namespace, FUSE"]
fn unreadable_process_noted_as_qemu_keeps_a_second_qemu_away() {
    let _alone = alone();
    let world = World::new();
    let qemu = world.qemu();
    let (device, other) = (Device::qdisk(3, 51712), Device::qdisk(4, 51712));
    let forged = Forged::of(&world, &device);
    let arguments = ["qemu", "-xen-domid", "3", "-xen-attach"];
    let mut hanging = Hanging::start(0, &arguments, &forged.environment());
    let home = format!("{}/libxl/3", support::GUEST_HOME);
    let note = format!("{home}/qdisk-backend-pid");
    world.store.write(note.as_bytes(), hanging.pid.to_string().as_bytes()).unwrap();
    for node in [&home, &note] {
        world.store.set_permissions(node.as_bytes(), b"n7\0").unwrap();
    }
    let _devd = world.devd(&["--qemu", &qemu]);
    world.attach_all(&[device.clone(), other.clone()]);
    world.wait_connected(&other);
    world.wait_logged(&format!("guest 3: process {}, which", hanging.pid));
    assert_eq!(world.qemus(3), [0; 0]);
    free(&mut hanging);
    world.wait_connected(&device);
}

#[test]
#[ignore = "takes root: another user"]
fn other_users_process_is_no_hook_and_gets_no_signal() {
    let world = World::new();
    let _kernel = world.kernel();
    let (device, disk) = (Device::vif(3, 0), Device::qdisk(5, 51712));
    let forged = Forged::of(&world, &device);
    let shell = Path::new("/bin/sh");
    let script = "while :; do sleep 1; done";
    let arguments = ["-c", script, "hook", ONLINE[0], ONLINE[1]];
    let hook = OtherUser::start(shell, &arguments, &forged.environment());
    let arguments = ["-c", script, "qemu", "-xen-domid", "5", "-xen-attach"];
    let false_qemu = OtherUser::start(shell, &arguments, &forged.environment());
    let qemu = world.qemu();
    let devd = world.devd(&["--qemu", &qemu, "--hook-timeout", "1"]);
    world.attach_all(&[device.clone(), disk.clone()]);
    world.wait_connected(&disk);
    assert_eq!(world.qemus(5).len(), 1);
    assert_served(&world, devd, &device);
    assert!(hook.lives() && false_qemu.lives());
}

#[test]
#[ignore = "takes root: another user, a set-user-ID program"]
fn set_user_id_program_of_another_user_is_no_hook() {
    let program = Program::make("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n");
    fs::set_permissions(program.path(), Permissions::from_mode(0o4755)).unwrap();
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let mut forged = Forged::of(&world, &device);
    // Its program is what runs a script of ours.
    let script = world.scripts().join("odd");
    fs::write(&script, format!("#!{}\n", program.path().display())).unwrap();
    forged.script = script.to_str().unwrap().to_owned();
    let hook = OtherUser::start(&program.path(), &ONLINE, &forged.environment());
    wait_until("it to have root's rights", || {
        let status = fs::read_to_string(format!("/proc/{}/status", hook.pid())).unwrap();
        status.lines().any(|line| line.starts_with("Uid:") && line.ends_with("\t0\t0\t0"))
    });
    let devd = world.devd(&["--hook-timeout", "1"]);
    world.attach(&device);
    assert_served(&world, devd, &device);
    assert!(hook.lives());
}

#[test]
#[ignore = "takes root: another user, a set-user-ID program"]
fn set_user_id_program_named_xl_is_no_xl_devd() {
    let program = Program::make("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n");
    fs::set_permissions(program.path(), Permissions::from_mode(0o4755)).unwrap();
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let forged = Forged::of(&world, &device);
    let link = program.path().with_file_name("xl");
    std::os::unix::fs::symlink(program.path(), &link).unwrap();
    let xl = OtherUser::start(&link, &["devd"], &forged.environment());
    wait_until("it to have root's rights", || {
        let status = fs::read_to_string(format!("/proc/{}/status", xl.pid())).unwrap();
        status.contains("Name:\txl\n")
            && status.lines().any(|line| line.starts_with("Uid:") && line.ends_with("\t0\t0\t0"))
    });
    let devd = world.devd(&[]);
    world.attach(&device);
    assert_served(&world, devd, &device);
    assert!(xl.lives());
}

#[test]
#[ignore = "takes root: a user namespace, FUSE"]
fn xl_whose_arguments_hang_is_named_and_devices_are_served() {
    let _alone = alone();
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let forged = Forged::of(&world, &device);
    let [path, store, script] = forged.environment();
    let environment = [path, store, script, ("HANG_NAME", "xl")];
    let mut hanging = Hanging::start(0, &["xl", "devd"], &environment);
    let devd = world.devd(&[]);
    world.wait_logged(&format!("process {} (xl) does not let its arguments", hanging.pid));
    world.attach(&device);
    assert_served(&world, devd, &device);
    free(&mut hanging);
}

/// A process of the daemon's own user that looks like a hook.
struct OwnProcess(Child);

impl OwnProcess {
    fn start(forged: &Forged, with_script: bool) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "while :; do sleep 1; done", "hook"]).args(ONLINE);
        command.envs(forged.environment()).stdin(Stdio::null()).process_group(0);
        if !with_script {
            command.env_remove("script");
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for OwnProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn process_without_token_and_script_is_no_hook() {
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let process = OwnProcess::start(&Forged::of(&world, &device), false);
    let devd = world.devd(&["--hook-timeout", "1"]);
    world.attach(&device);
    assert_served(&world, devd, &device);
    assert!(process::is_alive(i32::try_from(process.0.id()).unwrap()));
}

#[test]
fn hook_without_token_is_known_by_its_scripts_interpreter() {
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    let process = OwnProcess::start(&Forged::of(&world, &device), true);
    let _devd = world.devd(&["--hook-timeout", "1"]);
    world.wait_logged(&format!("process {} is its hook", process.0.id()));
    world.attach(&device);
    // As any hook that takes too long it is ended.
    wait_until("its end", || !process::is_alive(i32::try_from(process.0.id()).unwrap()));
}
