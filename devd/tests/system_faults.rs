//! One call of the system fails in the running daemon: each call of each function in the lives
//! of a vif, a vbd and a qdisk, one at a time. In the end every device is served, then nothing
//! is left of it, and the daemon runs on.

mod support;

use nix::errno::Errno;
use support::{Failing, Stage, Story, side_by_side, within};

/// What fails, with which error, and what the log must then say: of what the daemon can do at
/// once again it says nothing.
const FAULTS: [(&str, Errno, &str); 17] = [
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
    ("recv", Errno::ECONNRESET, "I try to get it back"),
    ("poll", Errno::ENOMEM, "I try to get it back"),
    ("waitid", Errno::EINTR, ""),
    ("waitpid", Errno::EINTR, ""),
    ("kill", Errno::EPERM, "EPERM"),
    ("killpg", Errno::EPERM, "EPERM"),
];

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
fn whatever_call_fails_once_every_device_is_served_and_nothing_is_left() {
    let pairs =
        FAULTS.iter().flat_map(|fault| stories(fault.0).iter().map(move |story| (*story, fault)));
    side_by_side(pairs, |(story, fault)| lives(story, fault));
}

fn stage(story: Story) -> (Stage, Failing) {
    let mut failing = None;
    let stage = Stage::with(story, |world, command| {
        let hand = Failing::new(world.file("fault"));
        hand.apply(command);
        failing = Some(hand);
    });
    (stage, failing.unwrap())
}

/// Lives of one device, in each of which one call more goes well before one fails.
fn lives(story: Story, (function, error, word): &(&str, Errno, &str)) -> Vec<String> {
    let (mut stage, mut failing) = stage(story);
    let mut wrong = Vec::new();
    for nth in 1.. {
        failing.set(function, *error as i32, nth);
        let end = stage.live();
        let struck = failing.calls() >= nth;
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
        (stage, failing) = self::stage(story);
    }
    wrong
}
