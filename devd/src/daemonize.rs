//! Into the background, or not.
//!
//! The daemon in the background is this program started again with `--background`. The first
//! process ends when the second is ready, or with its exit code.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::OFlag;

use crate::cli::{EXIT_FAILURE, Options, Place};
use crate::journal::Target;
use crate::process::{self, Exit, Group, Program};
use crate::readiness::{self, Readiness};
use crate::{daemon, descriptor, journal};

/// The variable of the environment that says where the store is.
const STORE: &str = "XENSTORED_PATH";
/// Where upstream's daemon logs.
const LOG: &str = "/var/log/xen/xldevd.log";

/// Runs the daemon here, or starts it in the background and waits until it is ready.
pub(crate) fn run(options: &Options) -> ExitCode {
    let supervised = options.notify_fd.is_some() || readiness::is_supervised();
    let ends_by_itself = options.once || options.dry_run;
    match options.place {
        Place::Foreground | Place::Background => return run_here(options),
        Place::Unsaid if supervised || ends_by_itself => return run_here(options),
        Place::Unsaid => {}
    }
    let log = options.log.clone().unwrap_or_else(|| PathBuf::from(LOG));
    match start_in_background(options, &log) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(exit)) => {
            eprintln!("devd: it did not start; {} says why", log.display());
            match exit {
                Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(EXIT_FAILURE)),
                Exit::Signal(_) | Exit::Unheard => ExitCode::from(EXIT_FAILURE),
            }
        }
        Err(error) => {
            eprintln!(
                "devd: cannot start in the background, logging to {}: {error}",
                log.display()
            );
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn run_here(options: &Options) -> ExitCode {
    let readiness = match Readiness::new(options.notify_fd) {
        Ok(readiness) => readiness,
        Err(error) => {
            eprintln!("devd: --notify-fd: {error}");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    descriptor::keep_from_children();
    descriptor::hear_of_children();
    let target = match (&options.log, options.place) {
        (None, _) => Target::StandardError,
        (Some(log), Place::Background) => Target::FileOfBackground(log),
        (Some(log), Place::Unsaid | Place::Foreground) => Target::File(log),
    };
    if let Err(error) = journal::start(target, options.log_level) {
        let log = options.log.as_deref().unwrap_or(Path::new("standard error"));
        eprintln!("devd: cannot log to {}: {error}", log.display());
        return ExitCode::from(EXIT_FAILURE);
    }
    // A daemon must not keep a file system from being unmounted.
    if options.place == Place::Background
        && let Err(error) = std::env::set_current_dir("/")
    {
        log::warn!("cannot make / the working directory: {error}");
    }
    daemon::run(options, readiness)
}

/// Returns how the daemon ended, if it did before it was ready.
fn start_in_background(options: &Options, log: &Path) -> io::Result<Option<Exit>> {
    // What cannot be logged, such as a panic, is to be found in the same place.
    let output = journal::open(log)?;
    let program = process::c_path(&std::env::current_exe()?)?;
    let (ready, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut words = std::env::args_os();
    let mut arguments = vec![CString::new(words.next().unwrap_or_default().into_vec())?];
    // In front of the others, whose last may be `--`.
    arguments.extend([c"--background".into(), c"--notify-fd".into(), c"3".into()]);
    if options.log.is_none() {
        arguments.extend([c"--log".into(), process::c_path(log)?]);
    }
    for word in words {
        arguments.push(CString::new(word.into_vec())?);
    }
    // The working directory changes, and the store's path in the environment may be relative.
    let store = std::env::var_os(STORE).filter(|path| !path.is_empty());
    let store = store.map(std::path::absolute).transpose()?;
    let added: Vec<(&str, &OsStr)> = store.iter().map(|path| (STORE, path.as_os_str())).collect();
    let pid = Program {
        path: &program,
        arguments: &arguments,
        environment: &process::environment(&added),
        output: output.as_fd(),
        third: Some(theirs.as_fd()),
        group: Group::Session,
    }
    .start()?;
    drop(theirs);
    let is_ready = File::from(ready).read_exact(&mut [0]).is_ok();
    Ok(if is_ready { None } else { Some(process::reap(pid)) })
}
