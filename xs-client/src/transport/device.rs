//! Linux's `/dev/xen/xenbus`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::{Stream, Transport, TransportError, closed};
use crate::Quirks;

/// The kernel's device, or a file that behaves as it does. [`Quirks::DEVICE`] is how.
///
/// Reading does not wait, but writing a WATCH or UNWATCH does, until the store has answered
/// the kernel: no timeout of a client shortens that.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: Option<File>,
}

impl Device {
    /// Opens the device at `path`.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let mut device = Self { path: path.into(), file: None };
        device.open_file()?;
        Ok(device)
    }

    fn open_file(&mut self) -> io::Result<()> {
        // Closed before it is opened again: the watches of the old file end first.
        self.file = None;
        let flags = OFlag::O_NONBLOCK.bits();
        self.file =
            Some(OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.path)?);
        Ok(())
    }

    fn file(&self) -> Result<&File, TransportError> {
        self.file.as_ref().ok_or_else(closed)
    }
}

impl Transport for Device {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        if buffer.is_empty() {
            // The device sleeps on it, O_NONBLOCK or not.
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        Ok(self.file()?.read(buffer)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        Ok(self.file()?.write(bytes)?)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    fn quirks(&self) -> &Quirks {
        &Quirks::DEVICE
    }

    fn close(&mut self) {
        self.file = None;
    }

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        self.open_file()?;
        Ok(Stream::Fresh)
    }
}
