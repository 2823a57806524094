//! Waiting for whatever comes first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use devd_core::Time;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::builtin::Channel;
use crate::descriptor;

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The connection to the store.
    Store,
    /// A signal has come.
    Signals,
    /// A run of a built-in hook has ended.
    Builtins,
    /// The kernel tells of what built-in hooks have made.
    Upkeep(Channel),
    /// A hook has written something.
    Output(Pid),
    /// A process has ended that has a descriptor.
    Process(Pid),
    /// A QEMU has written to its log.
    QemuLogs,
}

impl Source {
    const fn token(self) -> u64 {
        match self {
            Self::Store => 0,
            Self::Signals => 1,
            Self::Builtins => 3,
            Self::Upkeep(Channel::Links) => 4,
            Self::Upkeep(Channel::Rules) => 5,
            Self::QemuLogs => 6,
            Self::Output(pid) => 1 << 32 | pid.as_raw().cast_unsigned() as u64,
            Self::Process(pid) => 2 << 32 | pid.as_raw().cast_unsigned() as u64,
        }
    }

    fn of(token: u64) -> Option<Self> {
        let pid = || i32::try_from(token & u64::from(u32::MAX)).ok().map(Pid::from_raw);
        match (token >> 32, token) {
            (0, 0) => Some(Self::Store),
            (0, 1) => Some(Self::Signals),
            (0, 3) => Some(Self::Builtins),
            (0, 4) => Some(Self::Upkeep(Channel::Links)),
            (0, 5) => Some(Self::Upkeep(Channel::Rules)),
            (0, 6) => Some(Self::QemuLogs),
            (1, _) => pid().map(Self::Output),
            (2, _) => pid().map(Self::Process),
            _ => None,
        }
    }
}

/// The most descriptors that one wait tells of; the next wait tells of the others.
const AT_ONCE: usize = 64;

/// An epoll, and the signals.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    signals: SignalFd,
    heard: SigSet,
}

impl Poller {
    /// Waits for these signals at first, which it blocks; for `SIGCHLD`, too, where processes
    /// have no descriptors (before Linux 5.3), and in process 1, whose child anybody may become.
    pub(crate) fn new(signals: SigSet) -> io::Result<Self> {
        let mut heard = signals;
        let own = Pid::this();
        if own.as_raw() == 1 || descriptor::of_process(own).is_err() {
            heard.add(Signal::SIGCHLD);
        }
        let mut blocked = heard;
        blocked.add(Signal::SIGCHLD);
        blocked.thread_block()?;
        let poller = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); AT_ONCE],
            signals: signal_fd(&heard)?,
            heard,
        };
        poller.add(&poller.signals, Source::Signals)?;
        Ok(poller)
    }

    /// The number of the next signal, if one has come.
    pub(crate) fn signal(&self) -> Option<i32> {
        let info = self.signals.read_signal().ok()??;
        i32::try_from(info.ssi_signo).ok()
    }

    /// Waits for the end of a child, by a descriptor of its own as long as that is kept. It has
    /// none if `SIGCHLD` is waited for, which tells that any of them has ended, and not which.
    pub(crate) fn add_child(&mut self, pid: Pid) -> Option<OwnedFd> {
        if self.heard.contains(Signal::SIGCHLD) {
            return None;
        }
        match self.add_process(pid) {
            Ok(process) => Some(process),
            Err(error) => {
                log::warn!("process {pid}: {error}; SIGCHLD tells of its end, and of others'");
                self.heard.add(Signal::SIGCHLD);
                if let Err(error) = self.signals.set_mask(&self.heard) {
                    log::error!("cannot hear of the end of process {pid}: {error}");
                }
                None
            }
        }
    }

    /// Waits for the end of a process, whoever its parent is, as long as what is returned is kept.
    ///
    /// # Errors
    ///
    /// `ESRCH`: there is no such process.
    pub(crate) fn add_process(&self, pid: Pid) -> io::Result<OwnedFd> {
        let process = descriptor::of_process(pid)?;
        self.add(&process, Source::Process(pid))?;
        Ok(process)
    }

    /// Waits for input on this descriptor too; one that is closed leaves by itself. The
    /// kernel's xenbus device never reports output, so nothing here waits for that.
    pub(crate) fn add(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, source.token());
        self.epoll.add(fd, event).map_err(io::Error::from)
    }

    /// Waits until the deadline, or until something happens; says what in `ready`, signals first.
    pub(crate) fn wait(
        &mut self,
        deadline: Option<Time>,
        now: Time,
        ready: &mut Vec<Source>,
    ) -> io::Result<()> {
        ready.clear();
        // A time that does not fit is long enough.
        let wait = deadline.map(|deadline| {
            let millis = deadline.as_millis().saturating_sub(now.as_millis());
            EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
        });
        let count = match self.epoll.wait(&mut self.events, wait.unwrap_or(EpollTimeout::NONE)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        if count == AT_ONCE {
            // A signal may be behind what fits.
            ready.push(Source::Signals);
        }
        ready.extend(self.events[..count].iter().filter_map(|event| Source::of(event.data())));
        ready.sort_by_key(|source| *source != Source::Signals);
        Ok(())
    }
}

/// Readable while one of these signals, which are blocked, is pending.
pub(crate) fn signal_fd(signals: &SigSet) -> io::Result<SignalFd> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(signals, flags).map_err(io::Error::from)
}
