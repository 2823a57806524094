//! Waiting for whatever comes first.

use std::io;
use std::os::fd::AsFd;

use devd_core::Time;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The connection to the store.
    Store,
    /// A signal has come.
    Signals,
    /// A run of a built-in hook has ended.
    Builtins,
    /// A hook has written something.
    Output(Pid),
    /// A process that is not our child has ended.
    Process(Pid),
}

impl Source {
    const fn token(self) -> u64 {
        match self {
            Self::Store => 0,
            Self::Signals => 1,
            Self::Builtins => 3,
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
            (1, _) => pid().map(Self::Output),
            (2, _) => pid().map(Self::Process),
            _ => None,
        }
    }
}

/// An epoll.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); 64] })
    }

    /// Waits for input on this descriptor too; one that is closed leaves by itself. The
    /// kernel's xenbus device never reports output, so nothing here waits for that.
    pub(crate) fn add(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, source.token());
        self.epoll.add(fd, event).map_err(io::Error::from)
    }

    /// Waits until the deadline, or until something happens; says what in `ready`.
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
        ready.extend(self.events[..count].iter().filter_map(|event| Source::of(event.data())));
        Ok(())
    }
}
