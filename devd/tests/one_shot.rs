//! `--once` and `--dry-run`.

mod support;

use std::fs;

use nix::sys::signal::Signal;
use support::{Device, World, process, wait_until};

#[test]
fn once_with_nothing_to_do_does_well() {
    assert_eq!(World::new().run(&["--once"]), (Some(0), String::new()));
}

#[test]
fn once_serves_what_waits_removes_what_has_closed_and_does_well() {
    let world = World::new();
    let waiting = Device::vif(3, 0).with("state", "2");
    let closed = Device::vif(4, 0).with("state", "6").with("online", "0");
    let disk = Device::qdisk(3, 51712);
    for device in [&waiting, &closed, &disk] {
        world.attach(device);
    }
    let (code, _) = world.run(&["--once", "--qemu", &world.qemu()]);
    assert_eq!(code, Some(0));
    assert_eq!(world.node(&waiting, "hotplug-status").as_deref(), Some("connected"));
    assert!(!world.exists(&closed));
    world.wait_connected(&disk);
}

#[test]
fn once_fails_if_a_device_is_not_served() {
    let world = World::new();
    world.hook("block", "exit 7");
    let (served, failing) = (Device::vif(3, 0), Device::vbd(3, 51712));
    for device in [&served, &failing] {
        world.attach(&device.clone().with("state", "2"));
    }
    let (code, _) = world.run(&["--once"]);
    assert_eq!(code, Some(1));
    assert!(world.wait_refused(&failing).contains("exit code 7"));
    assert_eq!(world.node(&served, "hotplug-status").as_deref(), Some("connected"));
}

#[test]
fn once_says_by_its_exit_code_that_a_device_still_waits() {
    let world = World::new();
    let (served, waiting) = (Device::vif(3, 0).with("state", "2"), Device::vbd(3, 51712));
    world.attach_all(&[served.clone(), waiting.clone()]);
    assert_eq!(world.run(&["--once"]).0, Some(5));
    world.wait_logged("backend/vbd/3/51712: not served: its backend is not ready yet");
    assert_eq!(world.node(&served, "hotplug-status").as_deref(), Some("connected"));
    world.set(&waiting, "state", "2");
    assert_eq!(world.run(&["--once"]).0, Some(0));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let world = World::new();
    let qemu = world.qemu();
    // A guest whose QEMU has died, one whose QEMU runs, one that never had any.
    let (lost, kept) = (Device::qdisk(10, 51712), Device::qdisk(11, 51712));
    let devd = world.devd(&["--qemu", &qemu]);
    for device in [&lost, &kept] {
        world.attach(device);
        world.wait_connected(device);
    }
    devd.kill();
    let pid = world.qemus(10)[0];
    process::signal(pid, Signal::SIGKILL);
    wait_until("QEMU's end", || !process::is_alive(pid));

    let devices = [
        Device::vif(3, 0),
        Device::vif_ioemu(3, 1).with("state", "2"),
        Device::vif(3, 2).with("state", "2").without("script"),
        Device::vif(3, 3).with("state", "2").with("script", "not-there"),
        Device::vif(3, 4).with("state", "4").with("hotplug-status", "connected"),
        Device::vif(3, 5).with("state", "6").with("online", "0"),
        Device::vbd(3, 51712).with("state", "2"),
        Device::vbd(3, 51728).with("state", "6").with("online", "0"),
        Device::qdisk(12, 51712),
        Device::plain("vkbd", 3, 0).with("state", "6").with("online", "0"),
        Device::plain("floppy", 3, 0),
    ];
    world.attach_all(&devices);
    let (before, runs) = (world.dump("/"), world.runs());
    let (code, said) = world.run(&["--dry-run", "--once", "--qemu", &qemu]);
    assert_eq!(world.dump("/"), before);
    assert_eq!(world.runs(), runs);

    let scripts = world.scripts();
    let scripts = scripts.display();
    for line in [
        format!("backend/vif/3/1: would run {scripts}/vif-bridge online type_if=vif"),
        "backend/vif/3/2: would report: the device has no script node, which names its hook: the \
         toolstack writes it"
            .into(),
        "backend/vif/3/3: would report: no program named like not-there is in".into(),
        format!("backend/vif/3/5: would run {scripts}/vif-bridge offline type_if=vif"),
        format!("backend/vbd/3/51712: would run {scripts}/block add"),
        "backend/vbd/3/51728: would remove the directory".into(),
        "backend/vkbd/3/0: would remove the directory".into(),
        "backend/qdisk/10/51712: would report: the QEMU that served this device has ended".into(),
        format!("guest 12: would start {qemu}"),
    ] {
        assert!(said.lines().any(|said| said.starts_with(&line)), "{line:?} is not in\n{said}");
    }
    for device in ["vif/3/0", "vif/3/4", "qdisk/11", "guest 11", "floppy"] {
        assert!(!said.contains(device), "{device} needs nothing:\n{said}");
    }
    assert_eq!(code, Some(1), "not all are served");
}

#[test]
fn dry_run_of_a_failing_device_comes_to_rest() {
    let world = World::new();
    let devices = [
        Device::vif(3, 2).with("state", "2").without("script"),
        Device::vif(3, 3).with("state", "2").with("script", "not-there"),
        Device::vbd(3, 51712).with("state", "2").with("script", "/etc/xen/scripts/"),
        Device::vbd(3, 51728).with("state", "2").with("script", ""),
    ];
    world.attach_all(&devices);
    let devd = world.devd(&["--dry-run", "--hooks", "script"]);
    let times = |device: &Device| {
        let line = format!("{}: would report: ", device.path());
        world.said().lines().filter(|said| said.starts_with(&line)).count()
    };
    let told = |device| times(device) > 0;
    wait_until("each to be told of", || devices.iter().all(told));
    world.attach(&Device::vif(4, 0).with("state", "2"));
    wait_until("another one", || world.said().contains("backend/vif/4/0: would run"));
    devd.terminate();
    for device in &devices {
        assert!(times(device) <= 3, "{}: {}", device.path(), times(device));
    }
}

#[test]
fn whoever_reads_what_a_dry_run_says_may_stop_in_the_middle() {
    let world = World::new();
    world.attach(&Device::vif(3, 0).with("state", "2"));
    let mut command = world.command(&["--dry-run", "--once"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(command.stdout(writer).status().unwrap().code(), Some(0));
}

#[test]
fn a_dry_run_beside_a_daemon_leaves_its_hooks_and_qemus_alone() {
    let world = World::new();
    world.gate("gate");
    world.hook("block", "read x < $DIR/gate; call connect");
    let qemu = world.qemu();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--qemu", &qemu]);
    let (busy, disk) = (Device::vbd(3, 51712), Device::qdisk(3, 51728));
    world.attach_all(&[busy.clone(), disk.clone()]);
    world.wait_run(&busy, 1);
    world.wait_connected(&disk);
    let before = world.dump("/");
    let (code, said) = world.run(&["--dry-run", "--once", "--qemu", &qemu]);
    assert_eq!((code, world.dump("/")), (Some(0), before), "{said}");
    let _open = world.open("gate");
    world.wait_connected(&busy);
    assert_eq!(world.calls(&busy).len(), 1);
}

#[test]
fn neither_needs_the_background() {
    let world = World::new();
    for options in [&["--once"][..], &["--dry-run", "--once"]] {
        let mut command = support::Devd::command(&world.file(""));
        command.arg("--xenstore").arg(world.socket()).arg("--log").arg(world.file("log"));
        command.args(options);
        let mut devd = world.spawn(command);
        assert_eq!(devd.wait().code(), Some(0));
        assert!(fs::read_to_string(world.file("log")).unwrap().contains("ready"));
    }
}
