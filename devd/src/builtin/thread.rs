//! The threads that runs have: one each, for as long as the run takes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use devd_core::DeviceKey;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::failure::Failure;
use super::{Job, Success};

/// The most stack that a thread may need, in bytes. It calls the kernel and little else.
const STACK: usize = 128 * 1024;

/// Starts a thread for what may sleep in the kernel.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // It has the mask of whoever starts it: signals are for the daemon's own.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let builder = thread::Builder::new().name("devd-hook".into()).stack_size(STACK);
    let started = builder.spawn(work);
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
    started.map(drop)
}

/// Work that may sleep in the kernel.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// How long a piece of work keeps the next one waiting, in milliseconds.
const APART: u16 = 100;

/// Does these one after the other, in threads of their own: one that hangs does not keep the
/// others waiting.
pub(crate) fn spawn_each(works: Vec<Work>) -> io::Result<()> {
    spawn(move || {
        for work in works {
            // The end of the work closes the pipe. (A channel would wait by the clock, which
            // tests set ahead; poll waits for a duration.)
            let (end, ended) = match io::pipe() {
                Ok(pipe) => pipe,
                Err(error) => {
                    log::error!("cannot wait for a thread for a disk: {error}");
                    continue;
                }
            };
            let started = spawn(move || {
                work();
                drop(ended);
            });
            match started {
                Ok(()) => {
                    let _ = poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLIN)], APART);
                }
                // What the work would have told stays untold, as if it hung.
                Err(error) => log::error!("cannot start a thread for a disk: {error}"),
            }
        }
    })
}

/// A run of a built-in hook.
pub(crate) type RunId = u64;
type Ended = Result<Success, Failure>;

/// Starts runs and hears of their ends.
#[derive(Debug)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
    next: RunId,
}

/// Wakes up the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Wake(Arc<Shared>);

impl Wake {
    pub(crate) fn wake(&self) {
        // It fails only if the daemon was woken up 2^64 times and never noticed.
        let _ = self.0.wake.write(1);
    }
}

#[derive(Debug)]
struct Shared {
    runs: Mutex<Runs>,
    wake: EventFd,
}

#[derive(Debug, Default)]
struct Runs {
    ended: VecDeque<(RunId, Ended)>,
    /// Runs that nobody waits for any more, and that go on.
    given_up: HashMap<RunId, DeviceKey>,
    going: HashMap<RunId, DeviceKey>,
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run has ended, in its own thread.
    fn ended(&self, id: RunId, ended: Ended) {
        let mut runs = self.runs();
        runs.going.remove(&id);
        if !runs.given_up.contains_key(&id) {
            runs.ended.push_back((id, ended));
            drop(runs);
            // It fails only if it is full, which wakes the daemon as well.
            let _ = self.wake.write(1);
            return;
        }
        drop(runs);
        if let Ok(Success { made: Some(made), .. }) = ended {
            let _ = made.take_away();
        }
        self.runs().given_up.remove(&id);
    }
}

impl Threads {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { runs: Mutex::default(), wake });
        Ok(Self { shared, next: 0 })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    /// What wakes up the daemon as the end of a run does.
    pub(crate) fn wake(&self) -> Wake {
        Wake(Arc::clone(&self.shared))
    }

    /// The daemon is awake.
    pub(crate) fn handle_wake(&self) {
        let _ = self.shared.wake.read();
    }

    /// Starts a run for a device.
    ///
    /// # Errors
    ///
    /// One that was given up has not ended, or there can be no more threads.
    pub(crate) fn start(&mut self, key: DeviceKey, job: Job) -> Result<RunId, Failure> {
        let id = self.next;
        {
            let mut runs = self.shared.runs();
            if runs.given_up.values().any(|other| *other == key) {
                return Err(Failure::new(
                    "an earlier run for this device still hangs in the kernel: is the server of \
                     its file reachable?",
                ));
            }
            runs.going.insert(id, key);
        }
        let shared = Arc::clone(&self.shared);
        match spawn(move || shared.ended(id, job.run())) {
            Ok(()) => {
                self.next += 1;
                Ok(id)
            }
            Err(error) => {
                self.shared.runs().going.remove(&id);
                Err(Failure::step("start a thread", &error))
            }
        }
    }

    /// The end of a run that was not told yet.
    pub(crate) fn next_ended(&self) -> Option<(RunId, Ended)> {
        self.shared.runs().ended.pop_front()
    }

    /// The end of this run is to be told again.
    pub(crate) fn put_back(&self, id: RunId, ended: Ended) {
        self.shared.runs().ended.push_front((id, ended));
    }

    /// Waits for the run no more. False if it has ended already.
    pub(crate) fn give_up(&self, id: RunId) -> bool {
        let mut runs = self.shared.runs();
        let Some(key) = runs.going.remove(&id) else { return false };
        runs.given_up.insert(id, key);
        true
    }
}
