//! Waiting for whatever comes first.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use devd_core::Time;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The connection to the store.
    Store,
    /// A signal has come.
    Signals,
    /// The earliest deadline has passed.
    Timer,
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
            Self::Timer => 2,
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
            (0, 2) => Some(Self::Timer),
            (0, 3) => Some(Self::Builtins),
            (1, _) => pid().map(Self::Output),
            (2, _) => pid().map(Self::Process),
            _ => None,
        }
    }
}

/// An epoll and the one timer in it.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    /// What the timer is set to.
    deadline: Option<Time>,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let poller = Self { epoll, timer, deadline: None, events: vec![EpollEvent::empty(); 64] };
        poller.add(&poller.timer, Source::Timer)?;
        Ok(poller)
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
        self.set_timer(deadline, now)?;
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(self.events[..count].iter().filter_map(|event| Source::of(event.data())));
        if ready.contains(&Source::Timer) {
            self.deadline = None;
            match self.timer.wait() {
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_timer(&mut self, deadline: Option<Time>, now: Time) -> io::Result<()> {
        if deadline == self.deadline {
            return Ok(());
        }
        self.deadline = deadline;
        match deadline {
            Some(deadline) => {
                // A timer set to nothing would be switched off: one that is due takes 1 ns.
                let millis = deadline.as_millis().saturating_sub(now.as_millis());
                let wait = Duration::from_millis(millis).max(Duration::from_nanos(1));
                let once = Expiration::OneShot(TimeSpec::from_duration(wait));
                self.timer.set(once, TimerSetTimeFlags::empty())?;
            }
            None => self.timer.unset()?,
        }
        Ok(())
    }
}
