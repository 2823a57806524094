//! What is said of a failure: in the log, and to the toolstack in `hotplug-error`. Each says
//! what is wrong and what helps.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use devd_core::{HookFailure, QemuFailure, Reason};
use nix::errno::Errno;

use crate::builtin::Builtin;
use crate::choice::Preference;
use crate::cli::Qemu;
use crate::hook;
use crate::shown;

/// What reasons speak of and do not know.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) hooks: Preference,
    pub(crate) script_dirs: Vec<PathBuf>,
    pub(crate) hook_timeout: Duration,
    pub(crate) qemu: Qemu,
}

impl Surroundings {
    /// Why a device is not served. `script` is the value of its `script` node.
    pub(crate) fn reason(&self, reason: Reason, script: &[u8]) -> String {
        match reason {
            Reason::NoScript => {
                "the device has no script node, which names its hook: the toolstack \
                 writes it"
                    .into()
            }
            Reason::NoType => "the network interface has no type node (vif or vif_ioemu): the \
                 toolstack writes it"
                .into(),
            Reason::Hook(failure) => self.hook_failure(failure, script),
            Reason::Qemu(failure) => self.qemu_failure(failure),
            Reason::Lost => "the QEMU that served this device has ended; a new one must not \
                 repeat what it had begun: detach the device and attach it again"
                .into(),
        }
    }

    /// Why there is no QEMU.
    fn qemu_failure(&self, failure: QemuFailure) -> String {
        match (failure, &self.qemu) {
            (QemuFailure::NoQemu, Qemu::None) => "QEMU serves this device, and devd was started \
                 with --no-qemu: start it without that option"
                .into(),
            (QemuFailure::NoQemu, Qemu::Path(path)) => format!(
                "there is no QEMU at {}: install one there, or correct --qemu",
                path.display()
            ),
            (QemuFailure::Spawn(errno), Qemu::Path(path)) => {
                cannot_start(&path.display().to_string(), errno)
            }
            _ => qemu_failure(failure),
        }
    }

    /// Why a hook failed.
    pub(crate) fn hook_failure(&self, failure: HookFailure, script: &[u8]) -> String {
        let path = self.file_of(script);
        let script = shown::value(script);
        match failure {
            HookFailure::NotFound => {
                if script.ends_with("vif-openvswitch") && self.hooks != Preference::Script {
                    return "vif-openvswitch is not built in: install Xen's script, with bash, \
                            ip and ovs-vsctl, or let the guest's config say vif-bridge"
                        .into();
                }
                let mut text = format!("no program named like {script} is in");
                for directory in &self.script_dirs {
                    let _ = write!(text, " {}", directory.display());
                }
                text.push_str(": install it there, or say where it is with --script-dir");
                let _ = match self.hooks {
                    Preference::Script => write!(text, "; --hooks auto allows built-in hooks"),
                    Preference::Auto | Preference::Builtin => {
                        write!(text, "; built in are {}", Builtin::KNOWN)
                    }
                };
                text
            }
            HookFailure::NotExecutable => {
                let path = path.map_or(script, |path| shown::path(&path));
                format!("{path} is not executable: chmod +x {path}")
            }
            HookFailure::NoInterpreter => {
                let interpreter = path.as_deref().and_then(hook::interpreter);
                let name = interpreter.map_or("its interpreter".into(), |path| shown::path(&path));
                let path = path.map_or(script, |path| shown::path(&path));
                format!(
                    "{path} needs {name}, which its first line names and which is missing: \
                         install it"
                )
            }
            HookFailure::BadName => format!(
                "the script node, \"{script}\", names no file: put the name of a hook there \
                 (script= in the guest's config)"
            ),
            HookFailure::BadGateway => "the gatewaydev node has a NUL in it, which cannot be \
                 passed on to a hook: correct gatewaydev= in the guest's config"
                .into(),
            HookFailure::Spawn(errno) => {
                cannot_start(&path.map_or(script, |path| shown::path(&path)), errno)
            }
            HookFailure::Exit(code) => format!("{script} failed with exit code {code}"),
            HookFailure::Signal(signal) => format!("{script} was ended by signal {signal}"),
            HookFailure::TimedOut => {
                let seconds = self.hook_timeout.as_secs();
                format!("{script} did not end in {seconds} s and was killed (--hook-timeout)")
            }
            HookFailure::Reported => format!("{script} wrote hotplug-status error, and no reason"),
            HookFailure::Silent => {
                format!("{script} ended well, but did not write hotplug-status connected")
            }
        }
    }
}

impl Surroundings {
    /// The first file in the directories that the `script` node means.
    fn file_of(&self, script: &[u8]) -> Option<PathBuf> {
        let name = hook::file_name(script)?;
        let mut paths = self.script_dirs.iter().map(|directory| directory.join(name));
        paths.find(|path| path.is_file())
    }
}

/// Why the system does not start a program, and what helps.
fn cannot_start(program: &str, errno: i32) -> String {
    let errno = Errno::from_raw(errno);
    let remedy = match errno {
        Errno::ENOEXEC => ": its first line must name an interpreter, as in #!/bin/sh",
        Errno::ENOENT => ": it is not there, or its interpreter or loader is not",
        Errno::EACCES => ": it is not executable, or its file system is mounted noexec",
        Errno::EAGAIN => ": allow more processes (ulimit -u, TasksMax=)",
        Errno::EMFILE | Errno::ENFILE => ": allow more open files (ulimit -n, LimitNOFILE=)",
        Errno::ENOMEM => ": give this domain more memory",
        _ => "",
    };
    format!("cannot start {program}: {}{remedy}", errno.desc())
}

/// Why there is no QEMU, as far as that needs no options.
pub(crate) fn qemu_failure(failure: QemuFailure) -> String {
    match failure {
        QemuFailure::NoQemu => {
            "there is no QEMU in a usual place: install qemu-system-xen, or name one with --qemu"
                .into()
        }
        QemuFailure::NotDriverDomain => "the store does not let this domain write libxl and \
             device-model: put driver_domain=1 in its config"
            .into(),
        QemuFailure::Store(errno) => {
            format!(
                "the store refuses libxl and device-model, which QEMU needs: {}",
                Errno::from_raw(errno).desc()
            )
        }
        QemuFailure::Spawn(errno) => cannot_start("QEMU", errno),
        QemuFailure::Exit(code) => format!("QEMU ended with exit code {code}"),
        QemuFailure::Signal(signal) => format!("QEMU was ended by signal {signal}"),
        QemuFailure::TimedOut => "QEMU was not ready in 60 s and was killed".into(),
        QemuFailure::Vanished => "QEMU has ended; only the daemon that started it knows how".into(),
        QemuFailure::LostShare => "the guest has a 9pfs share whose QEMU has ended, which a \
             new QEMU would take up again: detach that share first"
            .into(),
    }
}
