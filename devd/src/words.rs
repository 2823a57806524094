//! What is said of a failure: in the log, and to the toolstack in `hotplug-error`. Each says
//! what is wrong and what helps.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use devd_core::{HookFailure, Reason, ServiceFailure};
use nix::errno::Errno;

use crate::builtin::Builtin;
use crate::choice::Preference;
use crate::shown;

/// What reasons speak of and do not know.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) hooks: Preference,
    pub(crate) script_dirs: Vec<PathBuf>,
    pub(crate) hook_timeout: Duration,
}

impl Surroundings {
    /// Why a device is not served. `script` is the value of its `script` node.
    pub(crate) fn reason(&self, reason: Reason, script: &[u8]) -> String {
        match reason {
            Reason::NoScript => "the device has no script node".into(),
            Reason::NoType => "the device has no type node".into(),
            Reason::Hook(failure) => self.hook_failure(failure, script),
            Reason::Service(failure) => service_failure(failure),
            Reason::Lost => "the QEMU that served this device has ended; a new one must not \
                 repeat what it had begun: detach the device and attach it again"
                .into(),
        }
    }

    /// Why a hook failed.
    pub(crate) fn hook_failure(&self, failure: HookFailure, script: &[u8]) -> String {
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
            HookFailure::NotExecutable => format!("{script} is not executable: chmod +x it"),
            HookFailure::NoInterpreter => {
                format!("the interpreter in the first line of {script} is missing: install it")
            }
            HookFailure::BadName => format!("the script node, \"{script}\", names no file"),
            HookFailure::BadGateway => "the gatewaydev node has a NUL in it, which cannot be \
                 passed on to a hook"
                .into(),
            HookFailure::Spawn(errno) => {
                format!("cannot start {script}: {}", Errno::from_raw(errno).desc())
            }
            HookFailure::Exit(code) => format!("{script} failed with exit code {code}"),
            HookFailure::Signal(signal) => format!("{script} was ended by signal {signal}"),
            HookFailure::TimedOut => {
                let seconds = self.hook_timeout.as_secs();
                format!("{script} did not end in {seconds} s and was killed (--hook-timeout)")
            }
            HookFailure::Reported => format!("{script} failed without giving a reason"),
            HookFailure::Silent => {
                format!("{script} ended without setting hotplug-status to connected")
            }
        }
    }
}

/// Why there is no QEMU.
pub(crate) fn service_failure(failure: ServiceFailure) -> String {
    match failure {
        ServiceFailure::NoQemu => {
            "there is no QEMU here: install qemu-system-xen, or say where it is with --qemu".into()
        }
        ServiceFailure::NotDriverDomain => "the store does not let this domain write libxl and \
             device-model: put driver_domain=1 in its config"
            .into(),
        ServiceFailure::Store(errno) => {
            format!("the store refuses QEMU's nodes: {}", Errno::from_raw(errno).desc())
        }
        ServiceFailure::Spawn(errno) => {
            format!("cannot start QEMU: {}", Errno::from_raw(errno).desc())
        }
        ServiceFailure::Exit(code) => format!("QEMU ended with exit code {code}"),
        ServiceFailure::Signal(signal) => format!("QEMU was ended by signal {signal}"),
        ServiceFailure::TimedOut => "QEMU was not ready in 60 s and was killed".into(),
        ServiceFailure::Vanished => "QEMU is not there any more".into(),
        ServiceFailure::LostShare => "the guest has a 9pfs share whose QEMU has ended, which a \
             new QEMU would take up again: detach that share first"
            .into(),
    }
}
