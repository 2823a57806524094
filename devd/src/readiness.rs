//! Telling whoever started the daemon that it is ready: its watch is armed and its first look
//! at all devices is done.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::descriptor;

/// Who wants to know.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// A newline is written to it (s6's notification fd).
    fd: Option<File>,
}

impl Readiness {
    pub(crate) fn new(fd: Option<RawFd>) -> io::Result<Self> {
        let fd = fd.map(descriptor::inherited).transpose()?;
        Ok(Self { fd: fd.map(File::from) })
    }

    /// The daemon is ready.
    pub(crate) fn ready(&mut self) {
        tell_supervisor("READY=1");
        if let Some(mut fd) = self.fd.take()
            && let Err(error) = fd.write_all(b"\n")
        {
            log::warn!("cannot write to the notification fd: {error}");
        }
    }

    /// The daemon is about to end.
    pub(crate) fn stopping(&self) {
        tell_supervisor("STOPPING=1");
    }
}

/// Does something wait for the daemon to say that it is ready? Then it is supervised, and
/// stays in the foreground.
pub(crate) fn is_supervised() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// The protocol of sd_notify(3), in its one call.
fn tell_supervisor(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&name, state) {
        log::warn!("cannot notify {}: {error}", name.display());
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
