//! The daemon: this program, as a process of its own.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scratch::Scratch;
use crate::process::{self, Exit, Group, Program};

/// How long it may take to end: a little longer than it waits for its hooks.
const END: Duration = Duration::from_secs(10);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The running daemon. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Daemon {
    pid: Pid,
    /// It writes a line there when it is ready.
    ready: File,
    exit: Option<Exit>,
}

/// What the system says that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// The most memory that was resident at once, in KiB.
    pub(super) memory: Option<u64>,
    /// The time that it was on a processor: its own only, not its hooks'.
    pub(super) cpu: Option<Duration>,
}

impl Daemon {
    /// Starts it on the store behind this socket.
    pub(super) fn start(scratch: &Scratch, socket: &Path) -> io::Result<Self> {
        let program = process::c_path(&std::env::current_exe()?)?;
        let mut arguments = vec![program.clone(), c"--foreground".into()];
        for (option, path) in [
            (c"--xenstore", socket),
            (c"--script-dir", scratch.path()),
            (c"--qemu", &scratch.qemu()),
            (c"--log", &scratch.log()),
            (c"--run-dir", &scratch.run_dir()),
        ] {
            arguments.extend([CString::from(option), process::c_path(path)?]);
        }
        arguments.extend([c"--notify-fd".into(), c"3".into()]);
        // What it cannot log, such as a panic, is to be found in the same place.
        let output = OpenOptions::new().create(true).append(true).open(scratch.log())?;
        let (ready, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        process::set_nonblocking(&ready)?;
        let pid = Program {
            path: &program,
            arguments: &arguments,
            environment: &process::environment(&[]),
            output: output.as_fd(),
            third: Some(theirs.as_fd()),
            // So that Ctrl-C is the demo's to deal with.
            group: Group::Own,
        }
        .start()?;
        Ok(Self { pid, ready: ready.into(), exit: None })
    }

    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }

    /// Has it said that its watch is set and its first look done?
    pub(super) fn is_ready(&mut self) -> bool {
        self.ready.read(&mut [0]).is_ok_and(|len| len > 0)
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<Exit> {
        if self.exit.is_none() && process::ended() == Some(self.pid) {
            self.exit = Some(process::reap(self.pid));
        }
        self.exit
    }

    /// What it took so far.
    pub(super) fn usage(&self) -> Usage {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid));
        let memory = read("status").ok().and_then(|status| peak_memory(&status));
        let cpu = read("schedstat").ok().and_then(|schedstat| time_on_cpu(&schedstat));
        Usage { memory, cpu }
    }

    /// Tells it to end, and waits until it has; kills it if it does not.
    pub(super) fn stop(&mut self) -> Exit {
        let deadline = Instant::now() + END;
        self.signal(Signal::SIGTERM);
        loop {
            if let Some(exit) = self.ended() {
                return exit;
            }
            if Instant::now() >= deadline {
                self.signal(Signal::SIGKILL);
                return *self.exit.insert(process::reap(self.pid));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn signal(&self, signal: Signal) {
        // Only as long as it was not reaped: the number may be another's after that.
        if self.exit.is_none() {
            let _ = kill(self.pid, signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// From `/proc/PID/status`.
fn peak_memory(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// From `/proc/PID/schedstat`, which begins with nanoseconds. It is of one thread, and the
/// daemon has no more. A kernel that does not count says 0.
fn time_on_cpu(schedstat: &str) -> Option<Duration> {
    let nanos = schedstat.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos)).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        let status = "Name:\tdevd\nVmPeak:\t    9999 kB\nVmHWM:\t    3120 kB\nVmRSS:\t 9 kB\n";
        assert_eq!(peak_memory(status), Some(3120));
        assert_eq!(peak_memory("Name:\tdevd\n"), None);
        assert_eq!(time_on_cpu("292389127 202951 14\n"), Some(Duration::from_nanos(292_389_127)));
        assert_eq!(time_on_cpu("0 0 0\n"), None);
    }
}
