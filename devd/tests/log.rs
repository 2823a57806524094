//! The log: a line for whatever is told, which begins as every line does. Nobody whose words are
//! in it, be it the store, a hook or a QEMU, writes a line of his own, nor on the terminal of
//! whoever reads it.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Devd, Device, World, hostile, wait_until};

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

/// Without a file it is standard error, with the time unless that is journald's to write.
#[test]
fn so_has_what_journald_takes() {
    for journald in [true, false] {
        let world = World::new();
        let mut command = Devd::command();
        command.arg("-F").arg("--xenstore").arg(world.socket());
        command.arg("--script-dir").arg(world.scripts());
        command.args(["--log-level", "debug", "--linger", "0", "--no-qemu"]);
        if journald {
            command.env("JOURNAL_STREAM", "8:1");
        }
        lives(&world, command, || world.said(), !journald);
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
