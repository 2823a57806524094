//! The log that a guest's QEMU writes.
//!
//! The log is a file, not a pipe: a QEMU that blocks on its output blocks its guest's disks. The
//! file outlives QEMUs, and the next QEMU of the guest appends to it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::shown;

/// The last line is looked for in so many bytes at the end of the log.
const TAIL: usize = 4096;

/// A log, and where the part of one QEMU begins in it.
#[derive(Debug)]
pub(super) struct QemuLog {
    path: PathBuf,
    file: File,
    begin: u64,
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
        Ok(Self { path, file, begin: found.len() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// The log's length in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Removes all that was written so far. QEMU goes on writing at the new end.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.begin = 0;
        self.file.set_len(0)
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
