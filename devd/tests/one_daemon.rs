//! A second daemon for a store, be it devd or `xl devd`: devd ends before it touches anything.

mod support;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{Devd, Device, World, process};

/// Runs a daemon that is to end at its start; what it says is in a log of its own.
#[track_caller]
fn refused(world: &World, mut command: Command) -> (Option<i32>, String) {
    let log = world.file("second.log");
    let _ = fs::remove_file(&log);
    command.arg("--log").arg(&log);
    let code = world.spawn(command).wait().code();
    (code, fs::read_to_string(&log).unwrap_or_default())
}

#[test]
fn second_daemon_ends_with_4_and_names_the_first() {
    let world = World::new();
    let _kernel = world.kernel();
    let first = world.devd(&[]);
    let (code, said) = refused(&world, world.command(&[]));
    assert_eq!(code, Some(4), "{said}");
    let pid = format!("process {}", first.pid());
    assert!(said.contains("another devd serves ") && said.contains(&pid), "{said}");

    // The same with --once, which serves too.
    assert_eq!(refused(&world, world.command(&["--once"])).0, Some(4));
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(world.calls(&device).len(), 1);
    first.terminate();
    world.devd(&[]).terminate();
}

#[test]
fn two_spellings_of_a_store_are_one() {
    let world = World::new();
    let _first = world.devd(&[]);
    symlink(world.socket(), world.file("link")).unwrap();
    let dotted = world.scripts().join("../store");
    for spelling in [world.file("link"), dotted] {
        let mut command = world.command(&[]);
        command.arg("--xenstore").arg(spelling);
        let (code, said) = refused(&world, command);
        assert_eq!(code, Some(4), "{said}");
    }
}

#[test]
fn daemons_of_two_stores_run_side_by_side() {
    let (one, other) = (World::new(), World::new());
    let (first, second) = (one.devd(&[]), other.devd(&[]));
    first.terminate();
    second.terminate();
}

#[test]
fn store_that_is_started_again_is_the_same_one() {
    let mut world = World::new();
    let first = world.devd(&[]);
    world.stop_store();
    world.start_store();
    let (code, said) = refused(&world, world.command(&[]));
    assert_eq!(code, Some(4), "{said}");
    first.terminate();
}

#[test]
fn killed_daemon_leaves_no_lock() {
    let world = World::new();
    world.devd(&[]).kill();
    world.devd(&[]).terminate();
}

#[test]
fn dry_run_beside_a_daemon_needs_no_lock() {
    let world = World::new();
    let _first = world.devd(&[]);
    assert_eq!(world.run(&["--dry-run", "--once"]).0, Some(0));
}

#[test]
fn of_many_that_start_at_once_one_serves() {
    let world = World::new();
    let mut daemons: Vec<_> = (0..8).map(|_| world.spawn(world.command(&["--once"]))).collect();
    world.attach(&Device::vif(3, 0).with("state", "2"));
    let codes: Vec<_> = daemons.iter_mut().map(|daemon| daemon.wait().code()).collect();
    // A daemon that starts after another has ended serves, too.
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 4))), "{codes:?}");
    assert!(codes.contains(&Some(0)), "{codes:?}");
}

#[test]
fn run_directory_that_others_may_write_is_refused() {
    let world = World::new();
    let run = world.file("run");
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, Permissions::from_mode(0o777)).unwrap();
    let mut command = world.command(&["--run-dir"]);
    command.arg(&run);
    let (code, said) = refused(&world, command);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("may be written by other users: name another with --run-dir"), "{said}");
}

#[test]
fn run_directory_that_cannot_be_made_is_an_error_with_a_remedy() {
    let world = World::new();
    let (code, said) = refused(&world, world.command(&["--run-dir", "/proc/devd"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/proc/devd: ") && said.contains("with --run-dir"), "{said}");
}

/// The one lock in a run directory.
#[track_caller]
fn lock_in(run: &Path) -> PathBuf {
    let files = fs::read_dir(run).unwrap().flatten().map(|file| file.path());
    let locks: Vec<_> = files.filter(|path| path.extension() == Some("lock".as_ref())).collect();
    assert_eq!(locks.len(), 1, "{locks:?}");
    locks[0].clone()
}

#[test]
fn lock_and_its_directory_are_for_their_user_only() {
    let world = World::new();
    let run = world.file("run");
    let _devd = world.devd(&["--run-dir", run.to_str().unwrap()]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&run), 0o700);
    let lock = lock_in(&run);
    assert_eq!(mode(&lock), 0o600);
    let text = fs::read_to_string(lock).unwrap();
    assert!(text.ends_with(&format!("{}\n", world.socket().display())), "{text}");
}

/// A process that looks as upstream's daemon does: named `xl`, with the argument `devd`.
struct XlDevd(Child);

impl XlDevd {
    fn start(world: &World, variable: Option<&str>) -> Self {
        let path = world.file("xl");
        // By another process: see `World::install`.
        assert!(Command::new("cp").arg("/bin/sh").arg(&path).status().unwrap().success());
        let mut command = Command::new(path);
        command.args(["-s", "devd"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(store) = variable {
            command.env("XENSTORED_PATH", store);
        }
        let mut child = command.spawn().unwrap();
        // Its answer says that it has become the shell.
        child.stdin.as_mut().unwrap().write_all(b"echo ready\n").unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
        Self(child)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for XlDevd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn xl_devd_of_the_same_store_is_named_and_not_served_beside() {
    let world = World::new();
    let xl = XlDevd::start(&world, world.socket().to_str());
    let (code, said) = refused(&world, world.command(&[]));
    assert_eq!(code, Some(4), "{said}");
    let pid = format!("process {}", xl.pid());
    assert!(said.contains("xl devd serves ") && said.contains(&pid), "{said}");
    assert!(said.contains("systemctl disable --now xendriverdomain"), "{said}");
    assert_eq!(world.run(&["--dry-run", "--once"]).0, Some(0));
    drop(xl);
    world.devd(&[]).terminate();
}

#[test]
fn xl_devd_of_another_store_does_not_matter() {
    let (world, other) = (World::new(), World::new());
    let xl = XlDevd::start(&world, other.socket().to_str());
    let own = XlDevd::start(&other, None);
    world.devd(&[]).terminate();
    assert!(process::is_alive(xl.pid()) && process::is_alive(own.pid()));
}

/// An unprivileged user takes the lock of a store of his own, and cannot take root's.
#[test]
#[ignore = "needs root: run .ci/test"]
fn unprivileged_user_serves_his_store_and_denies_nobody() {
    let world = World::new();
    let nobody = 65534;
    for path in [world.file(""), world.scripts(), world.socket()] {
        chown(path, Some(nobody), Some(nobody)).unwrap();
    }
    let run = world.file("run");
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let whole = world.command(&["--run-dir", run.to_str().unwrap()]);
    world.devd_by(Devd::under(as_nobody, &whole)).terminate();

    let roots = tempfile::tempdir().unwrap();
    let run = roots.path().to_str().unwrap();
    let first = world.devd(&["--run-dir", run]);
    let lock = lock_in(roots.path());
    fs::set_permissions(run, Permissions::from_mode(0o755)).unwrap();
    let mut flock = Command::new(as_nobody[0]);
    flock.args(&as_nobody[1..]).args(["flock", "--shared", "--nonblock"]).arg(&lock).arg("true");
    assert!(!flock.stderr(Stdio::null()).status().unwrap().success(), "it could be locked");
    first.terminate();
}
