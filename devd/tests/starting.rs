//! Starting the daemon: its options, its pid file, its word that it is ready, the background.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Devd, Device, World, process, wait_for, wait_until};
use xs_client::embedded::Fault;
use xs_proto::{ErrorCode, MessageType};

/// Runs the program, which has no store, to its end.
fn run(options: &[&str]) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Devd::command(home.path());
    let Output { status, stdout, stderr } = command.args(options).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_2() {
    for options in [&["--frobnicate"][..], &["serve"], &["--max-hooks", "0"], &["--linger"]] {
        let (code, said) = run(options);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--help"), "{said}");
    }
}

#[test]
fn help_and_version_do_well() {
    let (code, said) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("usage: devd"), "{said}");
    let (code, said) = run(&["--version"]);
    assert_eq!((code, said), (Some(0), format!("devd {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn no_store_is_exit_code_3_with_a_word_about_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let path = path.to_str().unwrap();
    let (code, said) = run(&["-F", "--xenstore", path]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(path) && said.contains("/dev/xen/xenbus"), "{said}");

    // A socket that nobody listens to.
    drop(UnixListener::bind(path).unwrap());
    let (code, said) = run(&["-F", "--xenstore", path]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(path) && said.contains("is xenstored running?"), "{said}");
}

#[test]
fn a_store_that_refuses_the_watch_is_exit_code_3() {
    let world = World::new();
    world.store.inject(Fault::error(ErrorCode::TooBig).on(MessageType::Watch));
    assert_eq!(world.run(&[]).0, Some(3));
    assert_eq!(world.logged("does not let the daemon watch backend"), 1);
}

#[test]
fn pid_file_in_use_ends_with_4_and_names_its_daemon() {
    let world = World::new();
    let pidfile = world.file("devd.pid");
    let options = ["-p", pidfile.to_str().unwrap()];
    let devd = world.devd(&options);
    let pid = devd.pid().to_string();
    assert_eq!(fs::read_to_string(&pidfile).unwrap().trim(), pid);

    let mut second = world.command(&options);
    second.arg("--log").arg(world.file("second"));
    assert_eq!(world.spawn(second).wait().code(), Some(4));
    let said = fs::read_to_string(world.file("second")).unwrap();
    assert!(said.contains(&pid) && said.contains("devd.pid"), "{said}");
    assert_eq!(fs::read_to_string(&pidfile).unwrap().trim(), pid, "it must stay");

    devd.terminate();
    assert!(!pidfile.exists());
}

#[test]
fn the_pid_file_of_a_killed_daemon_is_no_hindrance() {
    let world = World::new();
    let pidfile = world.file("devd.pid");
    let options = ["--pidfile", pidfile.to_str().unwrap()];
    world.devd(&options).kill();
    assert!(pidfile.exists());
    let devd = world.devd(&options);
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", devd.pid()));
}

#[test]
fn supervisor_is_told_of_readiness_and_of_the_end() {
    let world = World::new();
    let path = world.file("notify");
    tells_supervisor(&world, &UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
}

#[test]
fn a_supervisor_may_listen_at_an_abstract_address() {
    let world = World::new();
    let name = format!("devd-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    tells_supervisor(&world, &UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
}

fn tells_supervisor(world: &World, socket: &UnixDatagram, name: &str) {
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut message = [0; 64];
        let len = loop {
            match socket.recv(&mut message) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.unwrap(),
            }
        };
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    world.attach(&Device::vif(3, 0).with("state", "2"));
    world.store.inject(Fault::delay(Duration::from_millis(300)).on(MessageType::Directory));
    let mut command = world.command(&[]);
    command.env("NOTIFY_SOCKET", name);
    let devd = world.spawn(command);
    assert_eq!(heard(), "READY=1");
    assert_eq!(world.logged("backend/vif/3/0: found"), 1);
    assert_eq!(world.logged("backend/vif/3/0: process "), 1, "its hook is started");
    devd.terminate();
    assert_eq!(heard(), "STOPPING=1");
}

#[test]
fn a_newline_on_the_notification_fd_says_the_same() {
    let world = World::new();
    world.attach(&Device::vif(3, 0).with("state", "2"));
    let ready = world.file("ready");
    let shell = ["/bin/sh", "-c", "exec \"$@\" 5> \"$0\"", ready.to_str().unwrap()];
    let devd = world.spawn(Devd::under(shell, &world.command(&["--notify-fd", "5"])));
    wait_until("the newline", || fs::read(world.file("ready")).is_ok_and(|it| it == b"\n"));
    assert_eq!(world.logged("backend/vif/3/0: found"), 1);
    let open = |(_, file): &(i32, std::path::PathBuf)| *file == world.file("ready");
    wait_until("its end", || !process::open_files(devd.pid()).iter().any(open));
}

#[test]
fn a_notification_fd_that_is_not_open_is_an_error() {
    let world = World::new();
    let (code, said) = world.run(&["--notify-fd", "77"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("--notify-fd"), "{said}");
}

/// The daemon without `-F`.
fn in_background(world: &World, options: &[&str]) -> Command {
    let mut command = Devd::command(&world.file(""));
    command.arg("--xenstore").arg(world.socket()).arg("--script-dir").arg(world.scripts());
    command.arg("--log").arg(world.file("devd.log")).arg("--pidfile").arg(world.file("pid"));
    command.args(options);
    command
}

#[test]
fn without_f_the_command_ends_when_the_daemon_is_ready() {
    let world = World::new();
    let _kernel = world.kernel();
    let output = in_background(&world, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(world.logged("ready, "), 1, "it logs to the file");
    let pid: i32 = fs::read_to_string(world.file("pid")).unwrap().trim().parse().unwrap();
    assert_eq!(process::stat(pid, 6), pid, "its session");
    let files = process::open_files(pid);
    let file_of = |wanted| files.iter().find(|(fd, _)| *fd == wanted).unwrap().1.clone();
    let log = world.file("devd.log");
    assert_eq!([0, 1, 2].map(file_of), ["/dev/null".into(), log.clone(), log]);

    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    process::signal(pid, Signal::SIGTERM);
    wait_until("the daemon's end", || !process::is_alive(pid));
    assert!(!world.file("pid").exists());
}

#[test]
fn a_failure_in_the_background_is_the_commands_exit_code() {
    let mut world = World::new();
    let first = world.devd(&["--pidfile", world.file("pid").to_str().unwrap()]);
    let output = in_background(&world, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    first.terminate();

    world.stop_store();
    let output = in_background(&world, &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(world.file("devd.log").to_str().unwrap()), "{said}");
    assert_eq!(world.logged("no store at"), 1);
}

#[test]
fn sighup_opens_the_log_anew() {
    let world = World::new();
    let _kernel = world.kernel();
    let devd = world.devd(&[]);
    let (log, old) = (world.file("devd.log"), world.file("devd.log.1"));
    fs::rename(&log, &old).unwrap();
    devd.signal(Signal::SIGHUP);
    wait_until("a new log", || log.exists());
    let before = fs::read(&old).unwrap();
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_logged("backend/vif/3/0: attached");
    assert_eq!(fs::read(&old).unwrap(), before);
}

#[test]
fn in_the_background_standard_error_follows_the_log() {
    let world = World::new();
    assert_eq!(in_background(&world, &[]).output().unwrap().status.code(), Some(0));
    let pid: i32 = fs::read_to_string(world.file("pid")).unwrap().trim().parse().unwrap();
    let (log, old) = (world.file("devd.log"), world.file("devd.log.1"));
    fs::rename(&log, &old).unwrap();
    process::signal(pid, Signal::SIGHUP);
    wait_until("a new log", || log.exists());
    let leads = |path: &Path| {
        let files = process::open_files(pid);
        files.iter().filter(|(_, file)| file == path).map(|(fd, _)| *fd).collect::<Vec<_>>()
    };
    wait_until("both to lead to it", || leads(&log).starts_with(&[1, 2]));
    wait_until("the old one to be closed", || leads(&old).is_empty());
    process::signal(pid, Signal::SIGTERM);
    wait_until("the daemon's end", || !process::is_alive(pid));
}

#[test]
fn in_the_background_relative_paths_are_those_of_the_command() {
    let world = World::new();
    let _kernel = world.kernel();
    let mut command = Devd::command(&world.file(""));
    command.current_dir(world.file("")).env("XENSTORED_PATH", "store");
    command.args(["--script-dir", "scripts", "--log", "devd.log", "--pidfile", "pid", "--"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?} {}", world.log());
    let pid: i32 = fs::read_to_string(world.file("pid")).unwrap().trim().parse().unwrap();
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    let (log, old) = (world.file("devd.log"), world.file("devd.log.1"));
    fs::rename(&log, old).unwrap();
    process::signal(pid, Signal::SIGHUP);
    wait_until("a new log in the same place", || log.exists());
    process::signal(pid, Signal::SIGTERM);
    wait_until("the daemon's end", || !process::is_alive(pid));
    assert!(!world.file("pid").exists());
}

#[test]
fn an_empty_path_is_exit_code_2_by_name() {
    let (code, said) = run(&["--xenstore", ""]);
    assert_eq!(code, Some(2));
    assert!(said.starts_with("devd: --xenstore takes a path, not an empty word"), "{said}");
}

#[test]
fn signals_are_heard_or_named_and_end_nothing_in_silence() {
    let world = World::new();
    let _kernel = world.kernel();
    let mut devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    for signal in [
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGXCPU,
        Signal::SIGXFSZ,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
    ] {
        devd.signal(signal);
        world.wait_logged(&format!("warn: {signal}: ignored; SIGTERM, SIGINT and SIGQUIT end"));
    }
    // SIGRTMIN + 2 of glibc.
    let killed = Command::new("kill").arg("-36").arg(devd.pid().to_string()).status().unwrap();
    assert!(killed.success());
    world.wait_logged("warn: signal 36: ignored; ");
    devd.signal(Signal::SIGPIPE);
    world.wait_settled();
    devd.signal(Signal::SIGQUIT);
    assert_eq!(devd.wait().code(), Some(0));
    world.wait_logged("info: SIGQUIT: ending");
}

#[test]
fn sigusr1_logs_a_table_of_all_devices() {
    let world = World::new();
    let _kernel = world.kernel();
    world.hook("block", "case $1 in add) exit 7;; esac");
    let devd = world.devd(&["--no-qemu"]);
    let served = Device::vif(3, 0);
    let failing = Device::vbd(3, 51712);
    world.attach_all(&[failing.clone(), served.clone()]);
    world.wait_logged("backend/vif/3/0: attached");
    world.wait_logged("backend/vbd/3/51712: not served: ");
    let before = world.logged("backend/vbd/3/51712: not served: ");
    devd.signal(Signal::SIGUSR1);
    world.wait_logged("info: backend/vif/3/0: served");
    world.wait_logged(", connected to xenstore: 2 devices, ");
    world.wait_logged(" at work, 0 QEMUs for guests");
    wait_until("the failed one", || world.logged("backend/vbd/3/51712: ") > before);
    let failed = "block failed with exit code 7; try 1 failed, the next begins in ";
    assert!(world.logged(failed) >= 1, "{}", world.log());
}

#[test]
fn old_udev_rules_are_told_to_stay_away() {
    let world = World::new();
    let _devd = world.devd(&[]);
    assert_eq!(world.own("libxl/disable_udev").as_deref(), Some("1"));
}

#[test]
fn the_store_may_be_named_by_the_environment() {
    let world = World::new();
    let _kernel = world.kernel();
    let mut command = Devd::command(&world.file(""));
    command.arg("-F").arg("--script-dir").arg(world.scripts());
    command.arg("--log").arg(world.file("devd.log")).env("XENSTORED_PATH", world.socket());
    let _devd = world.spawn(command);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(wait_for("its call", || world.calls(&device).pop()).split(' ').count(), 3);
}

#[test]
fn what_is_no_store_is_exit_code_3_and_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "not a store").unwrap();
    let (code, said) = run(&["-F", "--xenstore", file.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("file is no xenstore: ") && said.contains("/dev/xen/xenbus"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a store");

    // A socket whose other end knows another protocol, and hangs up.
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let (code, said) = run(&["-F", "--xenstore", socket.to_str().unwrap()]);
    other.join().unwrap();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("socket is no xenstore, or"), "{said}");
}

#[test]
fn missing_script_directory_and_qemu_are_warned_of_at_the_start() {
    let world = World::new();
    let missing = world.file("missing");
    let missing = missing.to_str().unwrap();
    assert_eq!(world.run(&["--once", "--script-dir", missing, "--qemu", missing]).0, Some(0));
    assert_eq!(world.logged(&format!("warn: --script-dir {missing}: no such directory")), 1);
    assert_eq!(world.logged(&format!("warn: --qemu {missing}: no such program")), 1);
    let there = World::new();
    assert_eq!(there.run(&["--once", "--qemu", &there.qemu()]).0, Some(0));
    assert_eq!(there.logged("warn: "), 0, "{}", there.log());
}
