//! The log that a guest's QEMU writes.
//!
//! The log is a file, not a pipe: a QEMU that blocks on its output blocks its guest's disks. The
//! file outlives QEMUs, and the next QEMU of the guest appends to it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use devd_core::{Domid, Time};

use crate::shown;

/// A log that has grown beyond this size, in bytes, is emptied.
const MAX: u64 = 4 * 1024 * 1024;
/// The least time between two lines about a log that is emptied.
const WARNING: Duration = Duration::from_secs(60);

/// The last line is looked for in so many bytes at the end of the log.
const TAIL: usize = 4096;

/// A log, and where the part of one QEMU begins in it.
#[derive(Debug)]
pub(super) struct QemuLog {
    path: PathBuf,
    file: File,
    begin: u64,
    /// No line before this time.
    next_warning: Option<Time>,
}

impl QemuLog {
    /// Opens the log of a QEMU that is about to be started; makes it if there is none.
    ///
    /// # Errors
    ///
    /// The system refuses, or the path leads to something else than a regular file.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Self::open_with(path, File::options().create(true))
    }

    /// Opens the log of a QEMU that runs: what it writes from now on is its part.
    ///
    /// # Errors
    ///
    /// As of [`create`](Self::create), or there is none.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Self::open_with(path, &mut File::options())
    }

    fn open_with(path: PathBuf, options: &mut OpenOptions) -> io::Result<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = options.read(true).append(true).custom_flags(flags).open(&path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("the log is no regular file"));
        }
        Ok(Self { path, file, begin: found.len(), next_warning: None })
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Empties the log if it has grown too large; QEMU goes on at the new end. A QEMU that writes
    /// without an end has a line a minute in the daemon's log, which would grow as well otherwise.
    pub(super) fn bound(&mut self, domid: Domid, now: Time) {
        let path = self.path.display();
        let line = match self.len() {
            Ok(length) if length <= MAX => return,
            Ok(length) => match self.file.set_len(0) {
                Ok(()) => {
                    self.begin = 0;
                    format!(
                        "QEMU's log {path} had grown to {length} bytes and was emptied, as it is \
                         whenever it has more than {MAX}; read it to see what QEMU complains of"
                    )
                }
                Err(error) => format!(
                    "QEMU's log {path} has grown to {length} bytes and cannot be emptied: {error}; \
                     empty it before the disk is full"
                ),
            },
            Err(error) => format!("cannot tell the size of QEMU's log {path}: {error}"),
        };
        if self.next_warning.is_none_or(|at| at <= now) {
            self.next_warning = Some(now.after(WARNING));
            log::warn!("guest {domid}: {line}");
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// What the log ends with, for people.
    pub(super) fn summary(&self) -> String {
        let path = self.path.display();
        match self.last_line() {
            Some(line) => format!("its log {path} ends with \"{line}\""),
            None => format!("it wrote nothing to its log {path}"),
        }
    }

    /// The last line that this QEMU has written, as it can be shown; `None` if it wrote nothing.
    pub(super) fn last_line(&self) -> Option<String> {
        let end = self.len().ok()?;
        // Somebody else may have emptied the log.
        let begin = if self.begin <= end { self.begin } else { 0 };
        let from = begin.max(end.saturating_sub(TAIL as u64));
        let mut bytes = [0; TAIL];
        let length = self.file.read_at(&mut bytes, from).ok()?;
        let mut lines = bytes[..length].rsplit(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.find(|line| !line.is_empty()).map(shown::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn log(before: &[u8], written: &[u8]) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, before).unwrap();
        let log = QemuLog::create(path).unwrap();
        log.file().write_all(written).unwrap();
        log.last_line()
    }

    #[test]
    fn last_line_is_this_qemus_and_not_empty() {
        assert_eq!(log(b"", b"one\ntwo\n\n  \n").as_deref(), Some("two"));
        assert_eq!(log(b"an earlier one's\n", b"no newline").as_deref(), Some("no newline"));
        assert_eq!(log(b"an earlier one's\n", b""), None);
        assert_eq!(log(b"", b"\n\n"), None);
    }

    #[test]
    fn last_line_is_safe_to_show_and_short() {
        assert_eq!(log(b"", b"\x1b[31mred\xff\n").as_deref(), Some("\\u{1b}[31mred\\xff"));
        let long = log(b"", &[b'x'; 1 << 20]).unwrap();
        assert!(long.len() < 300 && long.ends_with("..."), "{long}");
    }

    #[test]
    fn log_that_others_emptied_is_read_from_its_begin() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "a long line of an earlier QEMU\n").unwrap();
        let log = QemuLog::create(path).unwrap();
        log.file().set_len(0).unwrap();
        log.file().write_all(b"short\n").unwrap();
        assert_eq!(log.last_line().as_deref(), Some("short"));
    }

    #[test]
    fn log_that_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, link) = (directory.path().join("fifo"), directory.path().join("link"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [fifo, link] {
            assert!(QemuLog::create(path).is_err());
        }
    }
}
