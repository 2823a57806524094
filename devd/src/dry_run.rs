//! `--dry-run`: what would be done, one line each on standard output.

use std::path::Path;

use devd_core::{Action, DeviceKey, Domid};

use crate::hook::Script;

pub(crate) fn say_script(key: DeviceKey, script: &Script) {
    let words: Vec<_> = script.arguments.iter().map(|word| word.to_string_lossy()).collect();
    println!("{key}: would run {}", words.join(" "));
}

pub(crate) fn say_failure(key: DeviceKey, reason: &str) {
    println!("{key}: would report: {reason}");
}

pub(crate) fn say_qemu(domid: Domid, path: Option<&Path>) {
    match path {
        Some(path) => println!("guest {domid}: would start {}", path.display()),
        None => println!("guest {domid}: would start QEMU, but there is none"),
    }
}

/// What needs no more words than the action has.
pub(crate) fn say(action: Action) {
    match action {
        Action::Reset(key) => println!("{key}: would forget the earlier failure"),
        Action::MarkConnected(key) => println!("{key}: would set hotplug-status to connected"),
        Action::MarkDetached(key) => println!("{key}: would remove hotplug-status"),
        Action::Close(key) => println!("{key}: would set state to 6"),
        Action::Rewind(key) => println!("{key}: would set state to 1, for a new QEMU"),
        Action::Remove(key) => println!("{key}: would remove the directory"),
        Action::StopHook(key) => println!("{key}: would end its hook"),
        Action::KillHook(key) => println!("{key}: would kill its hook"),
        Action::StopService(domid) => println!("guest {domid}: would end its QEMU"),
        Action::ForgetGuest(domid) => println!("guest {domid}: would remove libxl/{domid}"),
        Action::Observe(..)
        | Action::RunHook(_)
        | Action::FindService(_)
        | Action::StartService(_)
        | Action::Fail(..)
        | Action::Report(..) => {}
    }
}
