//! `--dry-run`: what would be done, one line each on standard output.

use std::io::{self, Write};
use std::path::Path;

use devd_core::{Action, DeviceKey, Domid};

use crate::hook::Script;

/// As `println!`, but whoever reads may stop in the middle.
macro_rules! say {
    ($($arguments:tt)*) => {{
        let _ = writeln!(io::stdout(), $($arguments)*);
    }};
}

pub(crate) fn say_script(key: DeviceKey, script: &Script) {
    let words: Vec<_> = script.arguments.iter().map(|word| word.to_string_lossy()).collect();
    say!("{key}: would run {}", words.join(" "));
}

pub(crate) fn say_builtin(key: DeviceKey, name: &str) {
    say!("{key}: would run the built-in {name}");
}

pub(crate) fn say_failure(key: DeviceKey, reason: &str) {
    say!("{key}: would report: {reason}");
}

pub(crate) fn say_qemu(domid: Domid, path: Option<&Path>) {
    match path {
        Some(path) => say!("guest {domid}: would start {}", path.display()),
        None => say!("guest {domid}: would start QEMU, but there is none"),
    }
}

/// What needs no more words than the action has.
pub(crate) fn say(action: Action) {
    match action {
        Action::Reset(key) => say!("{key}: would forget the earlier failure"),
        Action::MarkConnected(key) => say!("{key}: would set hotplug-status to connected"),
        Action::MarkDetached(key) => say!("{key}: would remove hotplug-status"),
        Action::Close(key) => say!("{key}: would set state to 6"),
        Action::Rewind(key) => {
            say!("{key}: would set state to 1, for a new QEMU, or to 6 if it closes")
        }
        Action::Remove(key) => say!("{key}: would remove the directory"),
        Action::StopHook(key) => say!("{key}: would end its hook"),
        Action::KillHook(key) => say!("{key}: would kill its hook"),
        Action::StopQemu(domid) => say!("guest {domid}: would end its QEMU"),
        Action::ForgetGuest(domid) => say!("guest {domid}: would remove libxl/{domid}"),
        Action::Observe(..)
        | Action::RunHook(_)
        | Action::CheckHook(_)
        | Action::FindQemu(_)
        | Action::StartQemu(_)
        | Action::Fail(..)
        | Action::Report(..) => {}
    }
}
