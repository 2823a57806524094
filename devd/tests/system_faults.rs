//! One call of the system fails in the running daemon: each call of each function in the lives
//! of a vif, a vbd and a qdisk, one at a time. In the end every device is served, then nothing
//! is left of it, and the daemon runs on.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use support::{
    Devd, Device, Failing, Stage, Story, World, process, side_by_side, wait_until, within,
};

/// A function that fails, with which error, and what the log must then say: of what the daemon can
/// do at once again it says nothing.
type Fault = (&'static str, Errno, &'static str);

const FAULTS: [Fault; 16] = [
    ("posix_spawn", Errno::EAGAIN, "os error 11"),
    ("posix_spawn", Errno::ENOMEM, "os error 12"),
    ("pipe2", Errno::EMFILE, "os error 24"),
    ("open64", Errno::EMFILE, ""),
    ("epoll_ctl", Errno::ENOMEM, "os error 12"),
    ("epoll_wait", Errno::EINTR, ""),
    ("read", Errno::EINTR, ""),
    ("read", Errno::EIO, ""),
    ("write", Errno::ENOSPC, ""),
    ("send", Errno::EINTR, ""),
    ("send", Errno::ENOBUFS, "os error 105"),
    ("recv", Errno::ECONNRESET, "; reconnecting"),
    ("pidfd_open", Errno::EMFILE, "os error 24"),
    ("waitpid", Errno::EINTR, ""),
    ("kill", Errno::EPERM, "(os error 1)"),
    ("killpg", Errno::EPERM, "(os error 1)"),
];

/// The same where processes have no descriptors (before Linux 5.3).
const FAULTS_WITHOUT: [Fault; 3] =
    [("waitid", Errno::EINTR, ""), ("read", Errno::EINTR, ""), ("read", Errno::EIO, "")];

/// The lives to see it in: one in which signals are sent to hooks takes seconds.
fn stories(function: &str) -> &'static [Story] {
    match function {
        "killpg" | "posix_spawn" | "waitpid" => {
            &[Story::Vif, Story::VifThatFailsOnce, Story::VbdThatHangs, Story::Qdisk]
        }
        _ => &[Story::Vif, Story::Qdisk],
    }
}

#[test]
fn one_failed_system_call_loses_no_device_and_leaves_nothing() {
    assert_served(&FAULTS, |_| {});
}

#[test]
fn nor_does_it_matter_where_processes_have_no_descriptors() {
    assert_served(&FAULTS_WITHOUT, |failing| {
        failing.set("pidfd_open", Errno::ENOSYS as i32, 0);
    });
}

fn assert_served(faults: &[Fault], at_start: fn(&Failing)) {
    let struck: Vec<_> = faults.iter().map(|_| AtomicBool::new(false)).collect();
    let pairs = faults.iter().zip(&struck).flat_map(|(fault, struck)| {
        stories(fault.0).iter().map(move |story| (*story, fault, struck))
    });
    side_by_side(pairs, |(story, fault, struck)| lives(story, fault, at_start, struck));
    for (fault, struck) in faults.iter().zip(&struck) {
        assert!(struck.load(Ordering::Relaxed), "{} is not called", fault.0);
    }
}

/// A daemon for this story, started with this fault.
fn stage(story: Story, at_start: fn(&Failing)) -> (Stage, Failing) {
    let mut failing = None;
    let stage = Stage::with(story, |world, command| {
        let hand = Failing::new(world.file("fault"));
        hand.apply(command);
        at_start(&hand);
        failing = Some(hand);
    });
    (stage, failing.unwrap())
}

/// Lives of one device, in each of which one call more goes well before one fails.
fn lives(
    story: Story,
    (function, error, word): &Fault,
    at_start: fn(&Failing),
    any: &AtomicBool,
) -> Vec<String> {
    let (mut stage, mut failing) = stage(story, at_start);
    let mut wrong = Vec::new();
    for nth in 1.. {
        failing.set(function, *error as i32, nth);
        let end = stage.live();
        let struck = failing.calls() >= nth;
        any.fetch_or(struck, Ordering::Relaxed);
        let problem = match end {
            Ok(()) if !struck => break,
            Ok(()) => within("in the log", || stage.log_says(word)).err(),
            Err(problem) => Some(problem),
        };
        let Some(problem) = problem.or(stage.devd.has_ended().then(|| "it has ended".into()))
        else {
            continue;
        };
        let log = stage.log();
        wrong.push(format!("{story:?}, {error} of {function} {nth}: {problem}\n{log}"));
        (stage, failing) = self::stage(story, at_start);
    }
    wrong
}

/// What fails while the daemon starts, with which error, and what the reason must name if it
/// does not start for that; the others it makes up for.
const FAULTS_AT_START: [(&str, Errno, Option<&str>); 19] = [
    ("mkdir", Errno::EACCES, Some("Permission denied")),
    ("open64", Errno::EMFILE, Some("os error 24")),
    ("F_OFD_SETLK", Errno::ENOLCK, Some("cannot write the ")),
    ("ftruncate64", Errno::EIO, Some("cannot write the ")),
    ("write", Errno::ENOSPC, Some("cannot write the ")),
    ("socket", Errno::EMFILE, Some("cannot open the store at ")),
    ("connect", Errno::ECONNREFUSED, Some("is xenstored running?")),
    ("send", Errno::ENOBUFS, Some("the store")),
    ("recv", Errno::ECONNRESET, Some("the store")),
    ("poll", Errno::ENOMEM, None),
    ("signalfd", Errno::EMFILE, None),
    ("epoll_create1", Errno::EMFILE, None),
    ("epoll_ctl", Errno::ENOMEM, None),
    ("epoll_wait", Errno::EINTR, None),
    ("pidfd_open", Errno::ENOSYS, None),
    ("eventfd", Errno::ENFILE, None),
    ("read", Errno::EIO, None),
    ("opendir", Errno::EMFILE, None),
    ("readdir64", Errno::EIO, None),
];

/// How a start went, one of whose calls failed.
#[derive(Debug)]
enum Start {
    /// It had no such call, and served.
    Whole,
    /// It served all the same.
    MadeUpFor,
    /// It ended and said this.
    Ended(Option<i32>, String),
}

fn start(function: &str, error: Errno, nth: i32) -> Start {
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    world.attach(&device);
    let (log, pidfile) = (world.file("log/devd.log"), world.file("devd.pid"));
    let mut command = world.command(&["--linger", "0", "--pidfile", pidfile.to_str().unwrap()]);
    command.arg("--log").arg(&log);
    let failing = Failing::new(world.file("fault"));
    failing.apply(&mut command);
    failing.set(function, error as i32, nth);
    let mut devd = world.spawn(command);
    wait_until("the device to be served, or the daemon's end", || {
        devd.has_ended() || world.node(&device, "state").as_deref() == Some("4")
    });
    let struck = failing.calls() >= nth.max(1);
    if devd.has_ended() {
        let code = devd.wait().code();
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        // It may be another's that cannot be asked.
        assert!(function == "F_OFD_SETLK" || !pidfile.exists(), "{function} {nth}");
        let left: Vec<_> = world.processes();
        assert!(left.is_empty(), "{left:?}");
        return Start::Ended(code, world.said() + &log);
    }
    failing.set("", Errno::EIO as i32, 1);
    world.detach(&device);
    world.wait_gone(&device);
    assert_eq!(world.calls(&device).len(), 2);
    wait_until("no children", || process::children(devd.pid()).is_empty());
    devd.terminate();
    assert!(!pidfile.exists());
    if struck { Start::MadeUpFor } else { Start::Whole }
}

#[test]
fn failed_call_at_start_is_survived_or_named() {
    for (function, error, word) in FAULTS_AT_START {
        // Many processes are looked at: not each of those calls is a case of its own.
        for nth in (1..=8).chain((4..10).map(|power| 1 << power)) {
            match start(function, error, nth) {
                Start::Whole if nth == 1 => panic!("{function} is not called"),
                Start::Whole => break,
                Start::MadeUpFor => {}
                Start::Ended(code, said) => {
                    let at = format!("{error} of {function} {nth}: {code:?} {said}");
                    assert!(matches!(code, Some(1 | 3)), "{at}");
                    let last = said.lines().last().unwrap_or_default();
                    assert!(last.contains(word.expect(&at)), "{at}");
                    assert_eq!(code == Some(3), last.contains("the store"), "{at}");
                }
            }
        }
    }
}

/// It is tried a few times, and then said what is lacking.
#[test]
fn what_fails_for_good_at_its_start_is_named_with_what_helps() {
    for (function, error, words) in [
        ("signalfd", Errno::EMFILE, ["cannot hear of signals: ", "LimitNOFILE="]),
        ("epoll_create1", Errno::EMFILE, ["cannot hear of signals: ", "LimitNOFILE="]),
        ("epoll_ctl", Errno::ENOMEM, ["cannot hear of signals: ", "more memory"]),
        ("eventfd", Errno::ENFILE, ["cannot hear of built-in hooks: ", "LimitNOFILE="]),
        ("opendir", Errno::EMFILE, ["cannot see what runs here: ", "LimitNOFILE="]),
        ("mkdir", Errno::EACCES, ["cannot log to ", "devd.log"]),
        ("F_OFD_SETLK", Errno::ENOLCK, ["cannot write the pid file ", "devd.pid"]),
    ] {
        let Start::Ended(code, said) = start(function, error, 0) else { panic!("{function}") };
        assert_eq!(code, Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(words.iter().all(|word| last.contains(word)), "{function}: {said}");
    }
}

#[test]
fn failure_on_the_way_to_the_background_is_reported() {
    for (function, error, code) in [
        ("mkdir", Errno::EACCES, 1),
        ("open64", Errno::EMFILE, 1),
        ("pipe2", Errno::EMFILE, 1),
        ("posix_spawn", Errno::EAGAIN, 1),
        ("read", Errno::EINTR, 0),
    ] {
        let world = World::new();
        let pidfile = world.file("devd.pid");
        let mut command = Devd::command(&world.file(""));
        command.arg("--xenstore").arg(world.socket()).arg("--script-dir").arg(world.scripts());
        command.arg("--log").arg(world.file("log/devd.log")).arg("--pidfile").arg(&pidfile);
        let failing = Failing::new(world.file("fault"));
        failing.apply(&mut command);
        failing.set(function, error as i32, 1);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(failing.calls() > 0, "{function}");
        assert_eq!(output.status.code(), Some(code), "{function}: {said}");
        if code == 0 {
            let pid = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
            process::signal(pid, Signal::SIGTERM);
            wait_until("the daemon's end", || !process::is_alive(pid));
        } else {
            assert!(said.contains("cannot start in the background, logging to"), "{said}");
        }
        assert!(!pidfile.exists() && world.processes().is_empty(), "{function}");
    }
}
