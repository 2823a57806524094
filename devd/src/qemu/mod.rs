//! The QEMUs: one for each guest with disks or shares that QEMU serves.
//!
//! Whoever wants to know about a QEMU asks the store (`libxl/F/qdisk-backend-pid`,
//! `device-model/F/state`) and the system. So does the daemon when it is started again.

mod log_file;
mod log_watch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devd_core::{DeviceKey, Domid, QemuEvent, QemuFailure, Time};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use xs_client::{Client, Error};
use xs_proto::ErrorCode;

use crate::cli::Qemu;
use crate::executor;
use crate::orphans::Orphans;
use crate::poller::{Poller, Source};
use crate::process::{self, Exit, Group, Inheritance, Process, Program};

use log_file::QemuLog;
use log_watch::LogWatch;

/// A QEMU must be ready in this time, as upstream has it.
const START: Duration = Duration::from_secs(60);
/// One that was asked to end must have ended in this time.
const STOP: Duration = Duration::from_secs(10);
/// When to ask the store again what it has refused.
const RETRY: Duration = Duration::from_secs(1);
/// When to look again whether a process is a guest's QEMU that did not let itself be looked at.
const UNREAD_RETRY: Duration = Duration::from_secs(10);
/// How often a node is tried to be removed.
const REMOVALS: u8 = 10;

/// The token of the watch on `device-model`, which says when a QEMU is ready.
pub(crate) const TOKEN: &[u8] = b"qemu";

/// Where QEMU is when nothing is said: Debian's place, and those of Xen's own builds.
const USUAL: [&str; 5] = [
    "/usr/libexec/xen-qemu-system-i386",
    "/usr/lib/xen/bin/qemu-system-i386",
    "/usr/local/lib/xen/bin/qemu-system-i386",
    "/usr/libexec/xen/bin/qemu-system-i386",
    "/usr/bin/qemu-system-i386",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Until then it must be ready.
    Starting(Time),
    Running,
    /// It was asked to end; then it is killed.
    Stopping(Time),
    /// It was killed because it was not ready in time.
    Overdue,
}

impl Stage {
    const fn deadline(self) -> Option<Time> {
        match self {
            Self::Starting(deadline) | Self::Stopping(deadline) => Some(deadline),
            Self::Running | Self::Overdue => None,
        }
    }
}

/// A guest's QEMU.
#[derive(Debug)]
struct Running {
    process: Process,
    stage: Stage,
    /// Does the store say which process it is?
    noted: bool,
    /// `None`: its log could not be opened.
    log: Option<QemuLog>,
}

/// A node that is to go and that the store has not let go.
#[derive(Debug)]
struct Leftover {
    domid: Domid,
    node: String,
    tries: u8,
}

/// Questions to the store.
#[derive(Debug, Default)]
struct Questions {
    /// Nodes that are to go.
    leftovers: Vec<Leftover>,
    /// Guests that may have a QEMU.
    unfound: Vec<Domid>,
    /// Guests whose QEMU may be ready.
    unready: Vec<Domid>,
    /// Guests whose QEMU's process id is not in the store.
    unnoted: Vec<Domid>,
}

impl Questions {
    fn append(&mut self, other: &mut Self) {
        self.leftovers.append(&mut other.leftovers);
        self.unfound.append(&mut other.unfound);
        self.unready.append(&mut other.unready);
        self.unnoted.append(&mut other.unnoted);
    }
}

/// All QEMUs.
#[derive(Debug)]
pub(crate) struct Qemus {
    program: Qemu,
    inheritance: Inheritance,
    log_dir: PathBuf,
    processes: HashMap<Domid, Running>,
    /// What the logs of QEMUs end with that failed. A guest's next QEMU removes its entry.
    last_lines: HashMap<Domid, String>,
    /// Devices whose `hotplug-error` is the failure of a QEMU.
    reported: HashSet<DeviceKey>,
    /// Their deadlines, the earliest first. One that is not its process's any more does not count.
    deadlines: BinaryHeap<Reverse<(Time, Domid)>>,
    /// What ran already at the daemon's start. Nobody else has started QEMUs since.
    found: Orphans,
    /// Is `device-model` watched? Only as long as a QEMU is being started.
    watching: bool,
    log_watch: LogWatch,
    /// Questions for now.
    due: Questions,
    /// Questions that the store has refused: they are asked again at `retry`.
    refused: Questions,
    /// Devices that the next QEMU can take up only when they are as new again.
    stale: Vec<DeviceKey>,
    /// When to ask the store again what it has refused.
    retry: Option<Time>,
}

/// What happened to a guest's QEMU.
pub(crate) type Happened = (Domid, QemuEvent);

impl Qemus {
    pub(crate) fn new(program: Qemu, inheritance: Inheritance, log_dir: PathBuf) -> Self {
        Self {
            program,
            inheritance,
            log_dir,
            processes: HashMap::new(),
            last_lines: HashMap::new(),
            reported: HashSet::new(),
            deadlines: BinaryHeap::new(),
            found: Orphans::default(),
            watching: false,
            log_watch: LogWatch::default(),
            due: Questions::default(),
            refused: Questions::default(),
            stale: Vec::new(),
            retry: None,
        }
    }

    /// QEMUs that run at the daemon's start.
    pub(crate) fn set_found(&mut self, found: Orphans) {
        self.found = found;
    }

    /// Where the QEMU may be that the daemon, or an earlier one, has started.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let usual = USUAL.iter().map(PathBuf::from);
        match &self.program {
            Qemu::Path(path) => usual.chain([path.clone()]).collect(),
            Qemu::Usual | Qemu::None => usual.collect(),
        }
    }

    /// Is there a QEMU for the guest already? `None`: there is one, and it is not ready yet; or
    /// that cannot be found out now, and is tried again.
    ///
    /// # Errors
    ///
    /// The connection is lost. It is tried again even so.
    pub(crate) fn find(
        &mut self,
        client: &mut Client,
        domid: Domid,
        poller: &Poller,
        now: Time,
    ) -> Result<Option<QemuEvent>, Error> {
        match self.try_find(client, domid, poller, now) {
            Err(error) => {
                log::warn!("guest {domid}: has it a QEMU? {error}; will ask again");
                self.find_later(domid, now);
                if error.ends_connection() { Err(error) } else { Ok(None) }
            }
            found => found,
        }
    }

    fn try_find(
        &mut self,
        client: &mut Client,
        domid: Domid,
        poller: &Poller,
        now: Time,
    ) -> Result<Option<QemuEvent>, Error> {
        let mut left = false;
        for questions in [&mut self.due, &mut self.refused] {
            let before = questions.leftovers.len();
            questions.leftovers.retain(|leftover| leftover.domid != domid);
            left |= questions.leftovers.len() < before;
        }
        if self.processes.contains_key(&domid) {
            return self.look(client, domid, now);
        }
        let note = self.noted_pid(client, domid)?;
        // It may be the guest's QEMU, and a second one would do what that has done already.
        if let Some(pid) = note.filter(|pid| self.found.is_unread(*pid)) {
            log::error!(
                "guest {domid}: process {pid}, which {} names as its QEMU, does not let itself be \
                 looked at; its disks wait until that process has ended",
                pid_node(domid)
            );
            self.refused.unfound.push(domid);
            self.retry.get_or_insert(now.after(UNREAD_RETRY));
            return Ok(None);
        }
        let Some(qemu) = self.found.take_qemu(domid, note) else {
            if note.is_some() || left {
                self.remove_nodes(client, domid, now)?;
            }
            return Ok(Some(QemuEvent::Absent));
        };
        let pid = qemu.pid;
        if let Err(error) = poller.add(&qemu.process, Source::Process(pid)) {
            log::error!("guest {domid}: cannot hear of the end of its QEMU: {error}");
            self.found.qemus.push(qemu);
            self.find_later(domid, now);
            return Ok(None);
        }
        let process = Process::Adopted { pid, descriptor: qemu.process };
        log::info!("guest {domid}: process {pid} is its QEMU");
        let log = QemuLog::open(self.log_path(domid)).map_err(|error| {
            log::warn!("guest {domid}: cannot open its QEMU's log: {error}; it may grow");
        });
        self.insert(domid, process, note == Some(pid), log.ok(), poller, now);
        self.note_pid(client, domid, now);
        self.watch(client)?;
        self.look(client, domid, now)
    }

    fn insert(
        &mut self,
        domid: Domid,
        process: Process,
        noted: bool,
        log: Option<QemuLog>,
        poller: &Poller,
        now: Time,
    ) {
        if log.is_some() {
            self.log_watch.add(domid, poller, now);
        }
        let deadline = now.after(START);
        let stage = Stage::Starting(deadline);
        self.processes.insert(domid, Running { process, stage, noted, log });
        self.deadlines.push(Reverse((deadline, domid)));
    }

    fn find_later(&mut self, domid: Domid, now: Time) {
        self.refused.unfound.push(domid);
        self.ask_again(now);
    }

    fn ask_again(&mut self, now: Time) {
        self.retry.get_or_insert(now.after(RETRY));
    }

    /// The process of a guest's QEMU, if it has one.
    pub(crate) fn process(&self, domid: Domid) -> Option<Pid> {
        self.processes.get(&domid).map(|running| running.process.pid())
    }

    /// Does a QEMU for the guest run? Changes nothing.
    pub(crate) fn runs(&self, domid: Domid) -> bool {
        self.found.qemus.iter().any(|qemu| qemu.domid == domid)
    }

    /// Starts a QEMU for the guest, unless there is one.
    pub(crate) fn start(
        &mut self,
        client: &mut Client,
        domid: Domid,
        poller: &mut Poller,
        now: Time,
    ) -> Result<Option<QemuEvent>, Error> {
        match self.try_find(client, domid, poller, now)? {
            Some(QemuEvent::Absent) => {}
            other => return Ok(other),
        }
        self.last_lines.remove(&domid);
        self.rewind_stale(client, domid)?;
        // Before there is a process that would have to be ended again.
        client.mkdir(format!("libxl/{domid}"))?;
        // It must not say already what the new one is to say.
        match client.rm(state_node(domid)) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
        self.watch(client)?;
        let (pid, log) = match self.spawn(domid) {
            Ok(started) => started,
            Err(failure) => {
                self.remove_nodes(client, domid, now)?;
                self.unwatch_if_idle(client, now);
                return Ok(Some(QemuEvent::Failed(failure)));
            }
        };
        log::info!("guest {domid}: started QEMU, process {pid}");
        let process = Process::Child { pid, _descriptor: poller.add_child(pid) };
        self.insert(domid, process, false, Some(log), poller, now);
        self.note_pid(client, domid, now);
        Ok(None)
    }

    /// Lets the next QEMU take up a device that the last one had not connected; before that one
    /// is started, if it cannot be done now.
    pub(crate) fn rewind(&mut self, client: &mut Client, key: DeviceKey) -> Result<(), Error> {
        self.stale.push(key);
        match self.rewind_stale(client, key.domid) {
            Err(error) if !error.ends_connection() => {
                log::warn!("{key}: cannot make it new for the next QEMU: {error}");
                Ok(())
            }
            result => result,
        }
    }

    fn rewind_stale(&mut self, client: &mut Client, domid: Domid) -> Result<(), Error> {
        while let Some(at) = self.stale.iter().position(|key| key.domid == domid) {
            executor::rewind(client, self.stale[at])?;
            self.stale.swap_remove(at);
        }
        Ok(())
    }

    /// Asks the guest's QEMU to end.
    pub(crate) fn stop(
        &mut self,
        client: &mut Client,
        domid: Domid,
        now: Time,
    ) -> Result<Option<QemuEvent>, Error> {
        let Some(process) = self.processes.get_mut(&domid) else {
            self.remove_nodes(client, domid, now)?;
            return Ok(Some(QemuEvent::Absent));
        };
        log::info!("guest {domid}: ending QEMU, process {}", process.process.pid());
        let deadline = now.after(STOP);
        process.stage = Stage::Stopping(deadline);
        self.deadlines.push(Reverse((deadline, domid)));
        process.process.signal(Signal::SIGHUP);
        Ok(None)
    }

    /// The guest has no device any more: removes what is left of it.
    pub(crate) fn forget(
        &mut self,
        client: &mut Client,
        domid: Domid,
        now: Time,
    ) -> Result<(), Error> {
        self.stale.retain(|key| key.domid != domid);
        self.last_lines.remove(&domid);
        self.reported.retain(|key| key.domid != domid);
        self.remove(client, Leftover { domid, node: format!("libxl/{domid}"), tries: 0 }, now)
    }

    /// Something has happened at this path, which is under `device-model`. True if it says that
    /// a QEMU may be ready.
    pub(crate) fn hear(&mut self, path: &[u8]) -> bool {
        let guest =
            path.strip_prefix(b"device-model/").and_then(|rest| rest.strip_suffix(b"/state"));
        let domid: Option<Domid> =
            guest.and_then(|guest| std::str::from_utf8(guest).ok()?.parse().ok());
        self.due.unready.extend(domid);
        domid.is_some()
    }

    /// Something may have happened anywhere there.
    pub(crate) fn hear_all(&mut self) {
        self.due.unready.clear();
        self.due.unready.extend(self.processes.keys());
    }

    /// A QEMU may be ready, or it is time to ask again what the store had refused. True if all
    /// that is asked; `go_on` is called between two questions, and says whether there is time for
    /// another.
    ///
    /// # Errors
    ///
    /// The connection is lost. Questions that are left are asked next time.
    pub(crate) fn handle_event(
        &mut self,
        client: &mut Client,
        poller: &mut Poller,
        now: Time,
        happened: &mut Vec<Happened>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Error> {
        loop {
            if let Some(leftover) = self.due.leftovers.pop() {
                self.remove(client, leftover, now)?;
            } else if let Some(domid) = self.due.unfound.pop() {
                let found = self.find(client, domid, poller, now)?;
                happened.extend(found.map(|event| (domid, event)));
            } else if let Some(domid) = self.due.unnoted.pop() {
                self.note_pid(client, domid, now);
            } else if let Some(domid) = self.due.unready.pop() {
                let process = self.processes.get(&domid);
                if process.is_some_and(|process| matches!(process.stage, Stage::Starting(_))) {
                    let ready = self.look(client, domid, now)?;
                    happened.extend(ready.map(|event| (domid, event)));
                }
            } else {
                self.unwatch_if_idle(client, now);
                return Ok(true);
            }
            if !go_on() {
                return Ok(false);
            }
        }
    }

    /// A process has ended. Was it a QEMU? `exit` reaps it.
    pub(crate) fn handle_exit(
        &mut self,
        client: &mut Client,
        pid: Pid,
        exit: impl FnOnce() -> Exit,
        now: Time,
    ) -> Option<Happened> {
        let mut guests = self.processes.iter().filter(|(_, process)| process.process.pid() == pid);
        let domid = guests.next().map(|(domid, _)| *domid)?;
        let Running { stage, log, .. } = self.processes.remove(&domid)?;
        self.log_watch.remove(domid);
        let failure = match exit() {
            Exit::Code(code) => QemuFailure::Exit(code),
            Exit::Signal(signal) => QemuFailure::Signal(signal),
            Exit::Unheard => QemuFailure::Vanished,
        };
        let failure = match stage {
            Stage::Stopping(_) => None,
            Stage::Overdue => Some(QemuFailure::TimedOut),
            Stage::Starting(_) | Stage::Running => Some(failure),
        };
        let event = match failure {
            None => {
                log::info!("guest {domid}: QEMU, process {pid}, has ended");
                QemuEvent::Absent
            }
            Some(failure) => {
                if let Some(log) = log {
                    self.last_lines.insert(domid, log.summary());
                }
                let text = self.explain(domid, crate::words::qemu_failure(failure));
                log::error!("guest {domid}: process {pid}: {text}");
                QemuEvent::Failed(failure)
            }
        };
        // Nothing must claim any more that it runs. With the connection lost, that is made up for
        // when it is back.
        if let Err(error) = self.remove_nodes(client, domid, now) {
            log::warn!("guest {domid}: cannot remove its QEMU's nodes: {error}");
        }
        self.unwatch_if_idle(client, now);
        Some((domid, event))
    }

    /// The next deadline.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let deadline = self.deadlines.peek().map(|Reverse((deadline, _))| *deadline);
        deadline.into_iter().chain(self.log_watch.poll_timeout()).chain(self.retry).min()
    }

    /// Deals with the deadlines that have passed. True if the store is to be asked again:
    /// [`handle_event`](Self::handle_event) does that.
    pub(crate) fn handle_timeout(&mut self, now: Time) -> bool {
        while let Some(Reverse((deadline, domid))) = self.deadlines.peek().copied() {
            let process = self.processes.get_mut(&domid);
            let process = process.filter(|process| process.stage.deadline() == Some(deadline));
            if process.is_some() && deadline > now {
                break;
            }
            self.deadlines.pop();
            let Some(process) = process else { continue };
            match process.stage {
                Stage::Starting(_) => {
                    log::error!("guest {domid}: QEMU is not ready in time");
                    process.stage = Stage::Overdue;
                }
                Stage::Stopping(_) => {
                    log::warn!("guest {domid}: QEMU does not end; killing it");
                    let deadline = now.after(STOP);
                    process.stage = Stage::Stopping(deadline);
                    self.deadlines.push(Reverse((deadline, domid)));
                }
                // They have none.
                Stage::Running | Stage::Overdue => continue,
            }
            process.process.signal(Signal::SIGKILL);
        }
        self.bound_logs(now);
        let due = self.retry.take_if(|at| *at <= now).is_some();
        if due {
            self.due.append(&mut self.refused);
        }
        due
    }

    /// Is a QEMU being started or ended, or is there something to ask the store again?
    pub(crate) fn is_busy(&self) -> bool {
        let any = self.retry.is_some();
        any || self.processes.values().any(|process| process.stage != Stage::Running)
    }

    /// What the guest's QEMU says of itself; `None` as long as it is not ready.
    fn look(
        &mut self,
        client: &mut Client,
        domid: Domid,
        now: Time,
    ) -> Result<Option<QemuEvent>, Error> {
        let running = match client.read(state_node(domid)) {
            Ok(state) => state == b"running",
            Err(error) if error.ends_connection() => return Err(error),
            Err(error) => {
                if !error.is_missing() {
                    log::warn!("guest {domid}: is its QEMU ready? {error}; will ask again");
                    self.refused.unready.push(domid);
                    self.ask_again(now);
                }
                false
            }
        };
        let Some(process) = self.processes.get_mut(&domid).filter(|_| running) else {
            return Ok(None);
        };
        process.stage = Stage::Running;
        self.unwatch_if_idle(client, now);
        Ok(Some(QemuEvent::Ready))
    }

    fn spawn(&self, domid: Domid) -> Result<(Pid, QemuLog), QemuFailure> {
        let path = self.path().ok_or(QemuFailure::NoQemu)?;
        let errno = |error: io::Error| {
            log::error!("guest {domid}: cannot start {}: {error}", path.display());
            QemuFailure::Spawn(error.raw_os_error().unwrap_or(libc::EIO))
        };
        let log = QemuLog::create(self.log_path(domid)).map_err(errno)?;
        let program = process::c_path(path).map_err(errno)?;
        let mut arguments = vec![program.clone()];
        // Without `-nic none` QEMU 10 makes a default network card, is refused the store's nodes
        // of it, and exits.
        let words = format!(
            "-xen-domid {domid} -xen-attach -name domain-{domid} -nographic -M xenpv \
             -monitor /dev/null -serial /dev/null -parallel /dev/null -nic none"
        );
        arguments.extend(words.split(' ').filter_map(|word| CString::new(word).ok()));
        let added: Vec<_> = self.inheritance.variables().collect();
        let environment = process::environment(&added);
        let program = Program {
            path: &program,
            arguments: &arguments,
            environment: &environment,
            output: log.file().as_fd(),
            third: None,
            group: Group::Session,
        };
        program.start().map(|pid| (pid, log)).map_err(errno)
    }

    /// The QEMU to start.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.program {
            Qemu::None => None,
            Qemu::Path(path) => Some(path).filter(|path| path.exists()).map(PathBuf::as_path),
            Qemu::Usual => USUAL.iter().map(Path::new).find(|path| path.exists()),
        }
    }

    fn log_path(&self, domid: Domid) -> PathBuf {
        self.log_dir.join(format!("qdisk-{domid}.log"))
    }

    /// The failure of a guest's QEMU, and what its log ends with.
    pub(crate) fn explain(&self, domid: Domid, failure: String) -> String {
        match self.last_lines.get(&domid) {
            Some(summary) => format!("{failure}; {summary}"),
            None => failure,
        }
    }

    /// inotify reports that QEMUs have written to their logs.
    pub(crate) fn handle_log_reports(&mut self, now: Time) {
        self.log_watch.handle_reports(now);
    }

    /// Empties the logs that have grown too large.
    fn bound_logs(&mut self, now: Time) {
        for domid in self.log_watch.take_due(now) {
            let log = self.processes.get_mut(&domid).and_then(|process| process.log.as_mut());
            if let Some(log) = log {
                self.log_watch.watch(domid, log, now);
                log.bound(domid, now);
            }
        }
    }

    /// The failure of its guest's QEMU is in the device's `hotplug-error` from now on.
    pub(crate) fn set_reported(&mut self, key: DeviceKey) {
        self.reported.insert(key);
    }

    /// The device is served: has it a `hotplug-error` to remove?
    pub(crate) fn take_reported(&mut self, key: DeviceKey) -> bool {
        self.reported.remove(&key)
    }

    fn noted_pid(&self, client: &mut Client, domid: Domid) -> Result<Option<Pid>, Error> {
        match client.read(pid_node(domid)) {
            Ok(value) => {
                let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                Ok(number.filter(|pid| *pid > 1).map(Pid::from_raw))
            }
            Err(error) if error.is_missing() => Ok(None),
            // Without `driver_domain=1` it could not have been noted.
            Err(Error::Refused(ErrorCode::Acces)) => {
                log::warn!("guest {domid}: cannot read QEMU's process id: EACCES");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// For the next daemon. As long as that cannot be done, there is `/proc`.
    fn note_pid(&mut self, client: &mut Client, domid: Domid, now: Time) {
        let process = self.processes.get_mut(&domid).filter(|process| !process.noted);
        let Some(process) = process else { return };
        match client.write(pid_node(domid), process.process.pid().to_string()) {
            Ok(()) => process.noted = true,
            Err(error) => {
                log::warn!("guest {domid}: cannot note QEMU's process id: {error}");
                self.refused.unnoted.push(domid);
                self.ask_again(now);
            }
        }
    }

    /// The process id goes last: as long as the store has it, the next daemon removes both.
    fn remove_nodes(&mut self, client: &mut Client, domid: Domid, now: Time) -> Result<(), Error> {
        let nodes = [format!("device-model/{domid}"), pid_node(domid)];
        let removed =
            nodes.map(|node| self.remove(client, Leftover { domid, node, tries: 0 }, now));
        removed.into_iter().collect()
    }

    /// Removes a node, now or later.
    fn remove(
        &mut self,
        client: &mut Client,
        mut leftover: Leftover,
        now: Time,
    ) -> Result<(), Error> {
        let error = match client.rm(&leftover.node) {
            Err(error) if !error.is_missing() => error,
            _ => return Ok(()),
        };
        let lost = error.ends_connection();
        if !lost {
            leftover.tries += 1;
        }
        if leftover.tries < REMOVALS {
            if leftover.tries == 1 {
                log::warn!("cannot remove {}: {error}; will try again", leftover.node);
            }
            self.refused.leftovers.push(leftover);
            self.ask_again(now);
        } else {
            log::error!("cannot remove {}: {error}; it stays", leftover.node);
        }
        if lost { Err(error) } else { Ok(()) }
    }

    fn watch(&mut self, client: &mut Client) -> Result<(), Error> {
        if !self.watching {
            client.watch("device-model", TOKEN)?;
            self.watching = true;
        }
        Ok(())
    }

    /// That it cannot be done now is nothing that anybody else must know.
    fn unwatch_if_idle(&mut self, client: &mut Client, now: Time) {
        let starting =
            self.processes.values().any(|process| matches!(process.stage, Stage::Starting(_)));
        if !self.watching || starting {
            return;
        }
        match client.unwatch("device-model", TOKEN) {
            Err(error) if !error.is_missing() => {
                log::warn!("cannot end the watch on device-model: {error}; will try again");
                self.ask_again(now);
            }
            _ => self.watching = false,
        }
    }
}

fn pid_node(domid: Domid) -> String {
    format!("libxl/{domid}/qdisk-backend-pid")
}

fn state_node(domid: Domid) -> String {
    format!("device-model/{domid}/state")
}

/// Why the store refuses what a QEMU needs. `libxl` belongs to dom0 where it does not belong to the driver domain.
pub(crate) fn refused(code: &ErrorCode) -> QemuFailure {
    match code {
        ErrorCode::Acces | ErrorCode::NoEnt => QemuFailure::NotDriverDomain,
        code => QemuFailure::Store(code.errno().unwrap_or(libc::EIO)),
    }
}
