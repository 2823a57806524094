//! The QEMUs: one for each guest with disks or shares that QEMU serves.
//!
//! Whoever wants to know about a QEMU asks the store (`libxl/F/qdisk-backend-pid`,
//! `device-model/F/state`) and the system. So does the daemon when it is started again.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devd_core::{Domid, ServiceEvent, ServiceFailure, Time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xs_client::{Client, Error};
use xs_proto::ErrorCode;

use crate::cli::Qemu;
use crate::descriptor;
use crate::orphans;
use crate::poller::{Poller, Source};
use crate::process::{self, Exit, Group, Program};

/// A QEMU must be ready in this time, as upstream has it.
const START: Duration = Duration::from_secs(60);
/// One that was asked to end must have ended in this time.
const STOP: Duration = Duration::from_secs(10);
/// How often the sizes of the logs are looked at.
const LOG_CHECK: Duration = Duration::from_secs(60);
/// A log that has grown to this size, in bytes, is emptied.
const LOG_MAX: u64 = 4 * 1024 * 1024;

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

#[derive(Debug)]
struct Process {
    pid: Pid,
    stage: Stage,
    /// Its end is heard of by this, if it is not our child.
    _adopted: Option<OwnedFd>,
}

/// All QEMUs.
#[derive(Debug)]
pub(crate) struct Qemus {
    program: Qemu,
    xenstore: Option<PathBuf>,
    log_dir: PathBuf,
    processes: HashMap<Domid, Process>,
    /// QEMUs that were found running at the daemon's start.
    found: HashMap<Domid, Pid>,
    /// Is `device-model` watched? Only as long as a QEMU is being started.
    watching: bool,
    next_log_check: Option<Time>,
}

/// What happened to a guest's QEMU.
pub(crate) type Happened = (Domid, ServiceEvent);

impl Qemus {
    pub(crate) fn new(program: Qemu, xenstore: Option<PathBuf>, log_dir: PathBuf) -> Self {
        Self {
            program,
            xenstore,
            log_dir,
            processes: HashMap::new(),
            found: HashMap::new(),
            watching: false,
            next_log_check: None,
        }
    }

    /// QEMUs that run at the daemon's start.
    pub(crate) fn set_found(&mut self, found: &[(Domid, Pid)]) {
        self.found = found.iter().copied().collect();
    }

    /// Is there a QEMU for the guest already? `None`: there is one, and it is not ready yet.
    pub(crate) fn find(
        &mut self,
        client: &mut Client,
        domid: Domid,
        poller: &Poller,
        now: Time,
    ) -> Result<Option<ServiceEvent>, Error> {
        if self.processes.contains_key(&domid) {
            return self.look(client, domid, now);
        }
        let note = self.noted_pid(client, domid)?;
        let noted = note.filter(|pid| orphans::is_qemu_of(*pid, domid));
        let found = self.found.remove(&domid).filter(|pid| orphans::is_qemu_of(*pid, domid));
        let adopted = noted.or(found).and_then(|pid| {
            let process = descriptor::of_process(pid).ok()?;
            poller.add(&process, Source::Process(pid)).ok()?;
            Some((pid, process))
        });
        let Some((pid, process)) = adopted else {
            if note.is_some() {
                self.remove_nodes(client, domid)?;
            }
            return Ok(Some(ServiceEvent::Absent));
        };
        log::info!("guest {domid}: process {pid} is its QEMU");
        let stage = Stage::Starting(now.after(START));
        self.processes.insert(domid, Process { pid, stage, _adopted: Some(process) });
        if noted.is_none() {
            tolerate(self.note_pid(client, domid, pid), "note QEMU's process id")?;
        }
        self.watch(client)?;
        self.look(client, domid, now)
    }

    /// Does a QEMU for the guest run? Changes nothing.
    pub(crate) fn runs(&self, client: &mut Client, domid: Domid) -> Result<bool, Error> {
        let noted = self.noted_pid(client, domid)?;
        let mut candidates = noted.into_iter().chain(self.found.get(&domid).copied());
        Ok(candidates.any(|pid| orphans::is_qemu_of(pid, domid)))
    }

    /// Starts a QEMU for the guest, unless there is one.
    pub(crate) fn start(
        &mut self,
        client: &mut Client,
        domid: Domid,
        poller: &Poller,
        now: Time,
    ) -> Result<Option<ServiceEvent>, Error> {
        match self.find(client, domid, poller, now)? {
            Some(ServiceEvent::Absent) => {}
            other => return Ok(other),
        }
        // Before there is a process that would have to be ended again.
        match client.mkdir(format!("libxl/{domid}")) {
            Ok(()) => {}
            Err(Error::Refused(code)) => {
                return Ok(Some(ServiceEvent::Failed(refused(&code))));
            }
            Err(error) => return Err(error),
        }
        // It must not say already what the new one is to say.
        tolerate(client.rm(state_node(domid)), "remove the state of an earlier QEMU")?;
        self.watch(client)?;
        let pid = match self.spawn(domid) {
            Ok(pid) => pid,
            Err(failure) => {
                self.remove_nodes(client, domid)?;
                self.unwatch_if_idle(client)?;
                return Ok(Some(ServiceEvent::Failed(failure)));
            }
        };
        log::info!("guest {domid}: started QEMU, process {pid}");
        let stage = Stage::Starting(now.after(START));
        self.processes.insert(domid, Process { pid, stage, _adopted: None });
        self.next_log_check.get_or_insert(now.after(LOG_CHECK));
        tolerate(self.note_pid(client, domid, pid), "note QEMU's process id")?;
        Ok(None)
    }

    /// Asks the guest's QEMU to end.
    pub(crate) fn stop(
        &mut self,
        client: &mut Client,
        domid: Domid,
        now: Time,
    ) -> Result<Option<ServiceEvent>, Error> {
        let Some(process) = self.processes.get_mut(&domid) else {
            self.remove_nodes(client, domid)?;
            return Ok(Some(ServiceEvent::Absent));
        };
        log::info!("guest {domid}: ending QEMU, process {}", process.pid);
        process.stage = Stage::Stopping(now.after(STOP));
        signal(process.pid, Signal::SIGHUP);
        Ok(None)
    }

    /// Something happened under `device-model`: is a QEMU ready?
    pub(crate) fn handle_event(
        &mut self,
        client: &mut Client,
        now: Time,
        happened: &mut Vec<Happened>,
    ) -> Result<(), Error> {
        let starting = |process: &Process| matches!(process.stage, Stage::Starting(_));
        let guests = self.processes.iter().filter(|(_, process)| starting(process));
        for domid in guests.map(|(domid, _)| *domid).collect::<Vec<_>>() {
            if let Some(event) = self.look(client, domid, now)? {
                happened.push((domid, event));
            }
        }
        Ok(())
    }

    /// A process has ended. Was it a QEMU? `exit` reaps it and tells how it ended, if it is
    /// our child.
    pub(crate) fn handle_exit(
        &mut self,
        client: &mut Client,
        pid: Pid,
        exit: impl FnOnce() -> Option<Exit>,
    ) -> Option<Happened> {
        let mut guests = self.processes.iter().filter(|(_, process)| process.pid == pid);
        let (domid, stage) = guests.next().map(|(domid, process)| (*domid, process.stage))?;
        self.processes.remove(&domid);
        let failure = match exit() {
            Some(Exit::Code(code)) => ServiceFailure::Exit(code),
            Some(Exit::Signal(signal)) => ServiceFailure::Signal(signal),
            None => ServiceFailure::Vanished,
        };
        let event = match stage {
            Stage::Stopping(_) => ServiceEvent::Absent,
            Stage::Overdue => ServiceEvent::Failed(ServiceFailure::TimedOut),
            Stage::Starting(_) | Stage::Running => ServiceEvent::Failed(failure),
        };
        match event {
            ServiceEvent::Absent => log::info!("guest {domid}: QEMU, process {pid}, has ended"),
            _ => log::error!(
                "guest {domid}: QEMU, process {pid}: {}; its log is {}",
                crate::words::service_failure(failure),
                self.log_path(domid).display()
            ),
        }
        // Nothing must claim any more that it runs. With the connection lost, whoever looks for
        // the QEMU again finds that the process is not there.
        let nodes = self.remove_nodes(client, domid).and_then(|()| self.unwatch_if_idle(client));
        if let Err(error) = nodes {
            log::warn!("guest {domid}: cannot remove its QEMU's nodes: {error}");
        }
        Some((domid, event))
    }

    /// The next deadline.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let deadlines = self.processes.values().filter_map(|process| match process.stage {
            Stage::Starting(deadline) | Stage::Stopping(deadline) => Some(deadline),
            Stage::Running | Stage::Overdue => None,
        });
        deadlines.chain(self.next_log_check).min()
    }

    /// Deals with the deadlines that have passed.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        for (domid, process) in &mut self.processes {
            match process.stage {
                Stage::Starting(deadline) if deadline <= now => {
                    log::error!("guest {domid}: QEMU is not ready in time");
                    process.stage = Stage::Overdue;
                    signal(process.pid, Signal::SIGKILL);
                }
                Stage::Stopping(deadline) if deadline <= now => {
                    log::warn!("guest {domid}: QEMU does not end; killing it");
                    process.stage = Stage::Stopping(now.after(STOP));
                    signal(process.pid, Signal::SIGKILL);
                }
                _ => {}
            }
        }
        if self.next_log_check.is_some_and(|at| at <= now) {
            self.cap_logs();
            let any = !self.processes.is_empty();
            self.next_log_check = any.then(|| now.after(LOG_CHECK));
        }
    }

    /// Is a QEMU being started or ended?
    pub(crate) fn is_busy(&self) -> bool {
        self.processes.values().any(|process| process.stage != Stage::Running)
    }

    /// What the guest's QEMU says of itself; `None` as long as it is not ready.
    fn look(
        &mut self,
        client: &mut Client,
        domid: Domid,
        now: Time,
    ) -> Result<Option<ServiceEvent>, Error> {
        let running = match client.read(state_node(domid)) {
            Ok(state) => state == b"running",
            Err(error) if error.ends_connection() => return Err(error),
            Err(_) => false,
        };
        let Some(process) = self.processes.get_mut(&domid).filter(|_| running) else {
            return Ok(None);
        };
        process.stage = Stage::Running;
        self.next_log_check.get_or_insert(now.after(LOG_CHECK));
        self.unwatch_if_idle(client)?;
        Ok(Some(ServiceEvent::Ready))
    }

    fn spawn(&self, domid: Domid) -> Result<Pid, ServiceFailure> {
        let path = self.path().ok_or(ServiceFailure::NoQemu)?;
        let errno = |error: io::Error| {
            log::error!("guest {domid}: cannot start {}: {error}", path.display());
            ServiceFailure::Spawn(error.raw_os_error().unwrap_or(libc::EIO))
        };
        let log = self.open_log(domid).map_err(errno)?;
        let program = process::c_path(path).map_err(errno)?;
        let mut arguments = vec![program.clone()];
        let words = format!(
            "-xen-domid {domid} -xen-attach -name domain-{domid} -nographic -M xenpv \
             -monitor /dev/null -serial /dev/null -parallel /dev/null"
        );
        arguments.extend(words.split(' ').filter_map(|word| CString::new(word).ok()));
        let store = self.xenstore.as_ref().map(|path| ("XENSTORED_PATH", path.as_os_str()));
        let environment = process::environment(store.as_slice());
        let program = Program {
            path: &program,
            arguments: &arguments,
            environment: &environment,
            output: &log.into(),
            third: None,
            group: Group::Session,
        };
        program.start().map_err(errno)
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

    /// Appended to, so that it can be emptied under QEMU's hands.
    fn open_log(&self, domid: Domid) -> io::Result<File> {
        fs::create_dir_all(&self.log_dir)?;
        OpenOptions::new().create(true).append(true).open(self.log_path(domid))
    }

    fn cap_logs(&self) {
        for domid in self.processes.keys() {
            let path = self.log_path(*domid);
            if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_MAX) {
                log::warn!("guest {domid}: QEMU's log has grown to {LOG_MAX} bytes; emptying it");
                if let Err(error) = File::options().write(true).truncate(true).open(&path) {
                    log::error!("cannot empty {}: {error}", path.display());
                }
            }
        }
    }

    fn noted_pid(&self, client: &mut Client, domid: Domid) -> Result<Option<Pid>, Error> {
        match client.read(pid_node(domid)) {
            Ok(value) => {
                let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                Ok(number.filter(|pid| *pid > 1).map(Pid::from_raw))
            }
            Err(error) if error.ends_connection() => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn note_pid(&self, client: &mut Client, domid: Domid, pid: Pid) -> Result<(), Error> {
        client.write(pid_node(domid), pid.to_string())
    }

    fn remove_nodes(&self, client: &mut Client, domid: Domid) -> Result<(), Error> {
        for node in [pid_node(domid), format!("device-model/{domid}")] {
            match client.rm(&node) {
                Err(error) if error.ends_connection() => return Err(error),
                Err(error) if !error.is_missing() => log::debug!("cannot remove {node}: {error}"),
                _ => {}
            }
        }
        Ok(())
    }

    fn watch(&mut self, client: &mut Client) -> Result<(), Error> {
        if !self.watching {
            client.watch("device-model", TOKEN)?;
            self.watching = true;
        }
        Ok(())
    }

    fn unwatch_if_idle(&mut self, client: &mut Client) -> Result<(), Error> {
        let starting =
            self.processes.values().any(|process| matches!(process.stage, Stage::Starting(_)));
        if self.watching && !starting {
            self.watching = false;
            tolerate(client.unwatch("device-model", TOKEN), "end the watch on device-model")?;
        }
        Ok(())
    }
}

fn pid_node(domid: Domid) -> String {
    format!("libxl/{domid}/qdisk-backend-pid")
}

fn state_node(domid: Domid) -> String {
    format!("device-model/{domid}/state")
}

/// `libxl` belongs to dom0 where it does not belong to the driver domain.
fn refused(code: &ErrorCode) -> ServiceFailure {
    match code {
        ErrorCode::Acces | ErrorCode::NoEnt => ServiceFailure::NotDriverDomain,
        code => ServiceFailure::Store(code.errno().unwrap_or(libc::EIO)),
    }
}

fn tolerate(result: Result<(), Error>, what: &str) -> Result<(), Error> {
    match result {
        Err(error) if error.ends_connection() => Err(error),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => {
            log::warn!("cannot {what}: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn signal(pid: Pid, signal: Signal) {
    if let Err(error) = kill(pid, signal) {
        log::debug!("cannot send {signal} to process {pid}: {error}");
    }
}
