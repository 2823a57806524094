//! What an earlier daemon has left running: hooks know their device by their environment, QEMUs
//! their guest by their arguments.
//!
//! Reading the environment of a process waits for a lock of its memory, and a process may hold
//! that lock for ever. So the search runs in threads of its own: [`STUCK`] is how long the daemon
//! waits for one that does not go on. Which processes are ours is in [`examine`].

mod examine;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use devd_core::{DeviceKey, Domid, Verb};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::Pid;

use crate::descriptor::{self, Scope};
use crate::process::Inheritance;

pub(crate) use examine::{has_only_user, is_gone};

/// If no process was done with for so long, its thread is left alone, and another goes on.
pub(crate) const STUCK: Duration = Duration::from_millis(500);
/// So many threads may be stuck, each with its process. Then the search ends.
pub(crate) const THREADS: usize = 8;
/// The most stack that a thread may need, in bytes: it reads files.
const STACK: usize = 128 * 1024;

/// A hook that goes on without the daemon that started it.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) pid: Pid,
    /// Readable once the process has ended.
    pub(crate) process: OwnedFd,
    pub(crate) key: DeviceKey,
    pub(crate) verb: Verb,
    /// It is the second pass of a network interface's hook.
    pub(crate) tap: bool,
}

/// A QEMU that serves a guest's disks.
#[derive(Debug)]
pub(crate) struct OrphanedQemu {
    pub(crate) pid: Pid,
    pub(crate) process: OwnedFd,
    pub(crate) domid: Domid,
}

/// A process that may be one of ours, and that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) pid: Pid,
    /// The name that the process gives itself.
    pub(crate) name: String,
}

/// What a process has turned out to be.
#[derive(Debug)]
enum Found {
    Hook(Orphan),
    Qemu(OrphanedQemu),
    /// One of ours whose end the system cannot tell (before Linux 5.3).
    NoDescriptor,
    Nothing,
}

/// How to tell our own processes from others.
#[derive(Clone, Debug)]
pub(crate) struct Criteria {
    /// What our own have in their environment.
    pub(crate) inheritance: Inheritance,
    pub(crate) script_dirs: Vec<PathBuf>,
    /// Where QEMU may be.
    pub(crate) qemus: Vec<PathBuf>,
}

/// Everything that was found in time, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    pub(crate) hooks: Vec<Orphan>,
    pub(crate) qemus: Vec<OrphanedQemu>,
    unread: Vec<Unread>,
    /// Processes that nobody has begun to look at, and ours whose end nobody can tell.
    unseen: VecDeque<Pid>,
    late: Option<Receiver<Message>>,
}

/// What a thread tells.
#[derive(Debug)]
enum Message {
    /// The process is looked at now.
    Begun(Unread),
    Done(Pid, io::Result<Found>),
    /// There is no process left.
    Finished,
}

type Processes = Arc<Mutex<VecDeque<Pid>>>;

/// Looks through all processes.
///
/// # Errors
///
/// The system does not let some process be looked at for now, as when there are too many open
/// files. Without `/proc` nothing is found.
pub(crate) fn find(criteria: &Criteria) -> io::Result<Orphans> {
    let Some(processes) = examine::all_processes()? else {
        log::warn!(
            "there is no /proc: hooks and QEMUs that an earlier daemon left running are not found; \
             mount it"
        );
        return Ok(Orphans::default());
    };
    let processes = Arc::new(Mutex::new(processes));
    let (sender, receiver) = mpsc::channel();
    let left = || processes.lock().unwrap_or_else(PoisonError::into_inner).len();
    let mut orphans = Orphans::default();
    let (mut threads, mut finished, mut before) = (1, false, left());
    start_thread(criteria, &processes, &sender)?;
    while !finished || !orphans.unread.is_empty() {
        match receiver.recv_timeout(STUCK) {
            Ok(Message::Finished) => finished = true,
            Ok(message) => orphans.handle(message)?,
            Err(RecvTimeoutError::Timeout) if !finished && left() < before => before = left(),
            Err(RecvTimeoutError::Timeout) if !finished && threads < THREADS => {
                threads += 1;
                start_thread(criteria, &processes, &sender)?;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    orphans.unseen.append(&mut processes.lock().unwrap_or_else(PoisonError::into_inner));
    if !orphans.unseen.is_empty() {
        log::error!(
            "{} processes could not be looked at: if a hook is among them that an earlier daemon \
             has started, that hook may run twice",
            orphans.unseen.len()
        );
    }
    for Unread { pid, name } in &orphans.unread {
        log::error!(
            "process {pid} ({name}) does not let its environment be read: if it is a hook that an \
             earlier daemon has started, that hook may run twice; look at /proc/{pid}/stack, and \
             end the process if it hangs"
        );
    }
    orphans.late = (!orphans.unread.is_empty()).then_some(receiver);
    Ok(orphans)
}

fn start_thread(
    criteria: &Criteria,
    processes: &Processes,
    sender: &Sender<Message>,
) -> io::Result<()> {
    let (criteria, processes, sender) = (criteria.clone(), Arc::clone(processes), sender.clone());
    let next = move || processes.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = move || {
        while let Some(pid) = next() {
            let begun = |name| {
                let _ = sender.send(Message::Begun(Unread { pid, name }));
            };
            let done = examine::examine(pid, &criteria, begun);
            if let Some(done) = done.transpose()
                && sender.send(Message::Done(pid, done)).is_err()
            {
                return; // Nobody waits for it any more.
            }
        }
        let _ = sender.send(Message::Finished);
    };
    run_in_thread(work)
}

/// Runs work that reads files of processes, and that nobody waits for if it hangs.
pub(crate) fn run_in_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // Signals are for the daemon's own thread.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = thread::Builder::new().name("devd-search".into()).stack_size(STACK).spawn(work);
    mask.thread_set_mask()?;
    started.map(drop)
}

impl Orphans {
    fn handle(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Begun(process) => self.unread.push(process),
            Message::Done(pid, found) => {
                let found = found?;
                if matches!(found, Found::NoDescriptor) {
                    self.unseen.push_back(pid);
                }
                self.unread.retain(|process| process.pid != pid);
                match found {
                    Found::Hook(hook) => self.hooks.push(hook),
                    Found::Qemu(qemu) => self.qemus.push(qemu),
                    Found::NoDescriptor | Found::Nothing => {}
                }
            }
            Message::Finished => {}
        }
        Ok(())
    }

    /// The guest's QEMU; the noted process, if it is one.
    pub(crate) fn take_qemu(&mut self, domid: Domid, noted: Option<Pid>) -> Option<OrphanedQemu> {
        self.qemus.retain(|qemu| is_alive(&qemu.process));
        let is_its = |qemu: &OrphanedQemu| qemu.domid == domid;
        let is_noted = |qemu: &OrphanedQemu| is_its(qemu) && Some(qemu.pid) == noted;
        let at = self.qemus.iter().position(is_noted).or(self.qemus.iter().position(is_its))?;
        Some(self.qemus.swap_remove(at))
    }

    /// Could this process not be looked at, to this moment?
    pub(crate) fn is_unread(&mut self, pid: Pid) -> bool {
        while let Some(message) = self.late.as_ref().and_then(|late| late.try_recv().ok()) {
            if let Err(error) = self.handle(message) {
                log::warn!("cannot look at a process: {error}");
            }
        }
        self.unread.iter().any(|process| process.pid == pid) || self.unseen.contains(&pid)
    }
}

fn is_alive(process: &OwnedFd) -> bool {
    descriptor::signal_process(process, None, Scope::Process).is_ok()
}
