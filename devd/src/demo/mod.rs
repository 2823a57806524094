//! `devd demo`: the daemon at work, without Xen.
//!
//! The daemon is the real one: this program, started again as a process of its own, with its
//! event loop, its hooks and its QEMUs as child processes. Everything around it is played:
//!
//! * [`host`]: an embedded xenstore, with domain 0 and an unprivileged driver domain in it;
//! * [`toolstack`]: what libxl writes in domain 0, and what it waits for;
//! * [`guest`]: the frontends, each guest with the rights of its own domain;
//! * [`backend`]: netback and blkback in a thread of this process; and QEMU;
//! * [`hook`] and [`qemu`]: the programs that the daemon starts, which are this one once more.
//!
//! [`show`] runs all that, [`life`] takes one guest from beginning to end, and [`report`] says
//! how it went.

mod backend;
mod daemon_process;
mod guest;
mod hook;
mod host;
mod interrupts;
mod life;
mod progress;
mod qemu;
mod report;
mod scratch;
mod show;
mod toolstack;

use std::process::ExitCode;

use crate::cli::{DemoOptions, DemoRole, EXIT_FAILURE};

pub(crate) fn run(options: DemoOptions) -> ExitCode {
    let played = match options.role {
        DemoRole::Show => return show::run(options),
        DemoRole::Hook => hook::run(&words_after("--as-hook")),
        DemoRole::Qemu => qemu::run(&words_after("--as-qemu")),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// Why a hook or a QEMU cannot play its part.
#[derive(Debug, thiserror::Error)]
enum PartError {
    #[error("{0} is not in the environment")]
    Environment(&'static str),
    #[error("cannot make sense of {0:?}")]
    Words(Vec<String>),
    #[error(transparent)]
    Address(#[from] xs_client::AddressError),
    #[error(transparent)]
    Open(#[from] xs_client::OpenError),
    #[error(transparent)]
    Store(#[from] xs_client::Error),
}

/// What the daemon has given the program that it started: the words behind the role.
fn words_after(role: &str) -> Vec<String> {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    words.skip_while(|word| word != role).skip(1).collect()
}
