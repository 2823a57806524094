//! Starting programs, and hearing of their end.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::descriptor::{self, Scope};
use crate::token::{self, Token};

/// Where programs look for the store if this variable is set.
pub(crate) const STORE_VARIABLE: &str = "XENSTORED_PATH";

/// What all programs that the daemon starts have in their environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inheritance {
    /// The path of the store, if `--xenstore` names one.
    pub(crate) xenstore: Option<PathBuf>,
    /// `None` if nothing is started (`--dry-run`).
    pub(crate) token: Option<Token>,
}

impl Inheritance {
    /// The variables to add to the daemon's own environment.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        let store = self.xenstore.as_deref().map(|path| (STORE_VARIABLE, path.as_os_str()));
        let token = self.token.as_ref().map(|token| (token::VARIABLE, token.value()));
        store.into_iter().chain(token)
    }

    /// The path of the store that the programs have in their environment.
    pub(crate) fn store(&self) -> Option<PathBuf> {
        let inherited = || std::env::var_os(STORE_VARIABLE).map(PathBuf::from);
        self.xenstore.clone().or_else(inherited)
    }

    pub(crate) const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }
}

/// How a program runs beside the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// In a process group of its own, so that it can be ended with all it has started.
    Own,
    /// In a session of its own, for what outlives the daemon.
    Session,
}

/// A program to be started.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    /// Its standard output and standard error. Its standard input is /dev/null.
    pub(crate) output: BorrowedFd<'a>,
    /// What it is to have as descriptor 3, if anything.
    pub(crate) third: Option<BorrowedFd<'a>>,
    pub(crate) group: Group,
}

impl Program<'_> {
    /// Starts it: no signal blocked or ignored, whatever the daemon has done with them, and no
    /// descriptors but those.
    pub(crate) fn start(&self) -> io::Result<Pid> {
        let mut attributes = PosixSpawnAttr::init()?;
        let (flag, pgroup) = match self.group {
            Group::Own => (PosixSpawnFlags::POSIX_SPAWN_SETPGROUP, Pid::from_raw(0)),
            Group::Session => (setsid(), Pid::from_raw(0)),
        };
        attributes.set_flags(
            flag | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
        )?;
        attributes.set_pgroup(pgroup)?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::all())?;
        let mut files = PosixSpawnFileActions::init()?;
        files.add_open(0, c"/dev/null", OFlag::O_RDONLY, Mode::empty())?;
        files.add_dup2(self.output.as_raw_fd(), 1)?;
        files.add_dup2(self.output.as_raw_fd(), 2)?;
        if let Some(third) = self.third {
            files.add_dup2(third.as_raw_fd(), 3)?;
        }
        let pid = posix_spawn(self.path, &files, &attributes, self.arguments, self.environment)?;
        Ok(pid)
    }
}

/// glibc and musl have it, nix has no name for it.
const fn setsid() -> PosixSpawnFlags {
    const POSIX_SPAWN_SETSID: libc::c_int = 0x80;
    PosixSpawnFlags::from_bits_retain(POSIX_SPAWN_SETSID)
}

/// The daemon's environment, as programs get it: what is added replaces what was there.
pub(crate) fn environment(added: &[(&str, &OsStr)]) -> Vec<CString> {
    let kept = std::env::vars_os().filter(|(name, _)| !added.iter().any(|(new, _)| name == new));
    let pairs = kept.map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&b'='));
    let added = added.iter().map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&b'='));
    pairs.chain(added).filter_map(|pair| CString::new(pair).ok()).collect()
}

/// A path as C has it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// It was another's child: only its parent hears how.
    Unheard,
}

/// The next child that has ended. It stays a zombie, so that its process group cannot be
/// another's, until it is [reaped](reap).
pub(crate) fn ended() -> Option<Pid> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::All, flags) {
            Ok(status) => return status.pid(),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Takes note of how the process ended, or waits for that; its number is free from then on.
pub(crate) fn reap(pid: Pid) -> Exit {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Exit::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Exit::Signal(signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Exit::Unheard,
        }
    }
}

/// A process that the daemon hears of and signals, and no other by mistake.
#[derive(Debug)]
pub(crate) enum Process {
    /// A child has its number until it is [reaped](reap). It has no descriptor if `SIGCHLD` tells
    /// of its end.
    Child { pid: Pid, _descriptor: Option<OwnedFd> },
    /// The child of an earlier daemon: its number may be another's once it has ended, so it is
    /// known by its descriptor.
    Adopted { pid: Pid, descriptor: OwnedFd },
}

impl Process {
    pub(crate) const fn pid(&self) -> Pid {
        match self {
            Self::Child { pid, .. } | Self::Adopted { pid, .. } => *pid,
        }
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        let sent = match self {
            Self::Child { pid, .. } => kill(*pid, signal).map_err(io::Error::from),
            Self::Adopted { descriptor, .. } => {
                descriptor::signal_process(descriptor, Some(signal), Scope::Process)
            }
        };
        self.tell(signal, "process", sent);
    }

    /// Sends a signal to the process, which leads a group, and all it has started in the group.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let sent = match self {
            Self::Child { pid, .. } => killpg(*pid, signal).map_err(io::Error::from),
            Self::Adopted { pid, descriptor } => signal_adopted_group(*pid, descriptor, signal),
        };
        self.tell(signal, "process group", sent);
    }

    fn tell(&self, signal: Signal, what: &str, sent: io::Result<()>) {
        match sent {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                log::error!("cannot send {signal} to {what} {}: {error}", self.pid());
            }
            _ => {}
        }
    }
}

/// Before Linux 6.9 only the group's number is left, which is the group's as long as its leader
/// lives. When the leader has ended, the rest of its group stays.
fn signal_adopted_group(pid: Pid, leader: &OwnedFd, signal: Signal) -> io::Result<()> {
    match descriptor::signal_process(leader, Some(signal), Scope::Group) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            descriptor::signal_process(leader, None, Scope::Process)?;
            killpg(pid, signal).map_err(io::Error::from)
        }
        sent => sent,
    }
}

/// Makes reads and writes on it return at once.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
