//! Ctrl-C and its like: heard of when there is time for it, so that nothing is left behind.

use std::cell::Cell;
use std::io::{self, Read};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that ask the demo to end.
#[derive(Debug)]
pub(super) struct Interrupts {
    signals: SignalFd,
    came: Cell<bool>,
}

impl Interrupts {
    /// From now on signals wait, in this thread and in those that it starts.
    pub(super) fn block() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&mask, flags)?, came: Cell::new(false) })
    }

    /// Has there been one?
    pub(super) fn came(&self) -> bool {
        if let Ok(Some(_)) = self.signals.read_signal() {
            self.came.set(true);
        }
        self.came.get()
    }

    /// Waits for Enter or for a signal, as long as `go_on` says so. A signal that was heard
    /// here does not count any more.
    pub(super) fn wait_for_enter(&self, mut go_on: impl FnMut() -> bool) -> io::Result<()> {
        const SIGNAL: u64 = 0;
        const INPUT: u64 = 1;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&self.signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
        let input = io::stdin();
        // Refused for a file or /dev/null, where nobody presses a key: a signal ends it then.
        let _ = epoll.add(&input, EpollEvent::new(EpollFlags::EPOLLIN, INPUT));
        let mut events = [EpollEvent::empty()];
        while go_on() {
            let wait = EpollTimeout::try_from(Duration::from_millis(200));
            match epoll.wait(&mut events, wait.unwrap_or(EpollTimeout::ZERO)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if events[0].data() == SIGNAL => {
                    self.signals.read_signal()?;
                    return Ok(());
                }
                Ok(_) if input.lock().read(&mut [0; 256])? == 0 => epoll.delete(&input)?,
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
