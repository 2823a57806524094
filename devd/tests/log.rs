//! The log: a line for whatever is told, which begins as every line does. Nobody whose words are
//! in it, be it the store, a hook or a QEMU, writes a line of his own, nor on the terminal of
//! whoever reads it.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use support::{Devd, Device, Failing, World, hostile, wait_until};

/// What looks like lines of the log, after the end of a line as each reader knows it.
const FORGED: &str = "1970-01-01T00:00:00.000Z error: backend/vbd/9/9: forged";

/// Says all that is in a file, to standard output and to standard error, with no end of a line.
const TALK: &str = "cat $DIR/words; cat $DIR/words >&2";

fn words(world: &World) -> Vec<u8> {
    let values = hostile::values(&world.file("outside"));
    let mut words = values.into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(&b'\n');
    for end in
        ["\n", "\r", "\r\n", "\x0b", "\x0c", "\u{85}", "\u{2028}", "\u{2029}", "\0", "\x1b[E"]
    {
        words.extend([end, FORGED].concat().into_bytes());
    }
    words
}

/// Lives of devices with all that can be said of them; the log must be as it has to be.
fn lives(world: &World, command: Command, log: impl Fn() -> String, stamped: bool) {
    let words = words(world);
    fs::write(world.file("words"), &words).unwrap();
    world
        .hook("block", &format!("{TALK}; case $1 in add) call connect;; *) {TALK}; exit 1;; esac"));
    world.hook("vif-bridge", &format!("{TALK}; exit 1"));
    let _kernel = world.kernel();
    let devd = world.spawn(command);
    let shown = |text: &str| {
        wait_until(&format!("{text:?} in the log"), || log().contains(text));
    };
    shown("ready, ");
    let disk = Device::vbd(3, 51712);
    // The end of it fits a node.
    let end = &words[words.len() - 800..];
    let vif = Device::vif(3, 0).with("hotplug-error", end).with("hotplug-status", "error");
    world.attach(&disk);
    world.wait_connected(&disk);
    world.attach(&vif);
    shown("backend/vif/3/0: not served: ");
    world.detach(&disk);
    world.wait_gone(&disk);
    world.drop_device(&vif);
    shown("backend/vif/3/0: gone");
    devd.terminate();

    let log = log();
    hostile::assert_log(&log, stamped);
    // What the hook has said is there, each line with whose it is.
    let said: Vec<_> = log.lines().filter(|line| line.contains(FORGED)).collect();
    assert!(said.len() > 10, "{log}");
    for line in said {
        let (head, _) = line.split_once(FORGED).unwrap();
        let whose = [disk.path(), vif.path()];
        assert!(whose.iter().any(|path| head.contains(&format!(": {path}: "))), "{line}");
    }
}

#[test]
fn a_file_has_a_line_for_whatever_is_told() {
    let world = World::new();
    lives(&world, world.command(&["--linger", "0"]), || world.log(), true);
}

/// The daemon without a file to log to.
fn to_standard_error(world: &World) -> Command {
    let mut command = Devd::command(&world.file(""));
    command.arg("-F").arg("--xenstore").arg(world.socket());
    command.arg("--script-dir").arg(world.scripts());
    command.args(["--log-level", "debug", "--linger", "0", "--no-qemu"]);
    command
}

/// systemd's journal adds the time, and takes a priority in front of each line.
#[test]
fn so_has_what_journald_takes() {
    for journald in [true, false] {
        let world = World::new();
        let mut command = to_standard_error(&world);
        // Standard error is that file; a variable that names another is inherited.
        let said = fs::File::create(world.file("said")).unwrap().metadata().unwrap();
        let inode = if journald { said.ino() } else { said.ino() + 1 };
        command.env("JOURNAL_STREAM", format!("{}:{inode}", said.dev()));
        lives(&world, command, || world.said(), !journald);
    }
}

#[test]
fn full_disk_is_told_of_when_there_is_room_again() {
    let world = World::new();
    let _kernel = world.kernel();
    let mut command = world.command(&["--linger", "0"]);
    let failing = Failing::new(world.file("fault"));
    failing.apply(&mut command);
    let devd = world.devd_by(command);
    let device = Device::vif(3, 0);
    // Every write of the daemon fails, and the log has no others.
    failing.set("write", Errno::ENOSPC as i32, 0);
    devd.signal(Signal::SIGUSR2);
    wait_until("two lines that are lost", || failing.calls() >= 1);
    devd.signal(Signal::SIGUSR2);
    wait_until("two lines that are lost", || failing.calls() >= 2);
    failing.set("", Errno::EIO as i32, 1);
    assert_eq!(world.logged("SIGUSR2"), 0);
    world.attach(&device);
    world.wait_connected(&device);
    let lost =
        "warn: 2 lines of this log could not be written and were lost: No space left on device";
    world.wait_logged(lost);
    assert_eq!(world.logged("were lost"), 1);
    devd.terminate();
    hostile::assert_log(&world.log(), true);
}

#[test]
fn log_that_is_no_regular_file_is_refused() {
    let world = World::new();
    fs::write(world.file("target"), "mine").unwrap();
    symlink(world.file("target"), world.file("link")).unwrap();
    mkfifo(&world.file("fifo"), Mode::S_IRWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(world.file("socket")).unwrap();
    for (name, why) in [
        ("link", "it is a symbolic link; name the file itself"),
        ("fifo", "a log has to be a regular file"),
        ("socket", "a log has to be a regular file"),
        ("/dev/null", "a log has to be a regular file"),
        ("/dev/stderr", "it is a symbolic link; name the file itself"),
    ] {
        let mut command = world.command(&["--once"]);
        command.arg("--log").arg(world.file(name));
        assert_eq!(world.spawn(command).wait().code(), Some(1), "{name}");
        let said = world.said();
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("cannot log to ") && last.ends_with(why), "{name}: {said}");
    }
    assert_eq!(fs::read_to_string(world.file("target")).unwrap(), "mine");
}

#[test]
fn trace_has_each_event_of_the_store() {
    for (level, times) in [("debug", 0), ("trace", 1)] {
        let world = World::new();
        let _kernel = world.kernel();
        let _devd = world.devd(&["--log-level", level]);
        let device = Device::vif(3, 0);
        world.attach(&device);
        world.wait_connected(&device);
        world.wait_settled();
        let told = world.logged("backend/vif/3/0/hotplug-status: the store tells of a change");
        assert_eq!(told.min(1), times, "{level}");
    }
}

#[test]
fn a_qemu_has_a_log_of_its_own() {
    let world = World::new();
    fs::write(world.file("words"), words(&world)).unwrap();
    let qemu = world.qemu();
    let script = fs::read_to_string(&qemu).unwrap();
    world.install(Path::new(&qemu), &script.replace("exec ", &format!("{TALK}; exec ")));
    let devd = world.devd(&["--linger", "0", "--qemu", &qemu]);
    let device = Device::qdisk(3, 51712);
    world.attach(&device);
    world.wait_connected(&device);
    world.detach(&device);
    world.wait_gone(&device);
    devd.terminate();
    hostile::assert_log(&world.log(), true);
    assert_eq!(world.logged("forged"), 0);
    let said = fs::read(world.file("qdisk-3.log")).unwrap();
    assert!(said.starts_with(&words(&world)), "{}", said.escape_ascii());
}

#[test]
fn attached_device_is_logged_with_its_hook_or_qemu_and_time() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--qemu", &world.qemu()]);
    let (vif, disk) = (Device::vif(3, 0), Device::qdisk(4, 51712));
    world.attach_all(&[vif.clone(), disk.clone()]);
    world.wait_logged("backend/qdisk/4/51712: attached by its guest's QEMU, process ");
    let by = format!("backend/vif/3/0: attached by {}/vif-bridge in ", world.scripts().display());
    world.wait_logged(&by);
    let log = world.log();
    let line = log.lines().find(|line| line.contains(&by)).unwrap();
    assert!(line.ends_with(" ms"), "{line}");
}

#[test]
fn failure_says_which_try_it_was_and_when_the_next_begins() {
    let world = World::new();
    world.hook("block", "[ $1 = remove ] || exit 1");
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let bare = Device::vif(3, 0).without("script");
    world.attach_all(&[Device::vbd(3, 51712), bare]);
    world.wait_logged("exit code 1; try 1 failed, the next begins in 1 s");
    world.wait_logged("exit code 1; try 2 failed, the next begins in 2 s");
    let bare = "backend/vif/3/0: not served: the device has no script node";
    world.wait_logged(bare);
    let log = world.log();
    let line = log.lines().find(|line| line.contains(bare)).unwrap();
    assert!(line.ends_with("; tried again when its script node changes"), "{line}");
}
