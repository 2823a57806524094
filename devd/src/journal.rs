//! The log: standard error, or a file that can be taken away and made anew (SIGHUP).
//!
//! A log that cannot be written, or standard error that nobody reads, does not stop the daemon:
//! the lines are lost, and once there is room again the log says how many.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::{dup2_stderr, dup2_stdout};

use crate::shown;
use crate::standard_error::StandardError;

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    StandardError,
    File(&'a Path),
    /// A file that standard output and standard error lead to as well: what cannot be logged,
    /// such as a panic, is found there.
    FileOfBackground(&'a Path),
}

struct Journal {
    /// The file's path, and whether descriptors 1 and 2 follow it.
    file: Option<(PathBuf, bool)>,
    head: Head,
    writer: Mutex<Writer>,
}

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// With the time.
    Stamp,
    /// With the priority of sd-daemon(3): the reader is systemd's journal, which has the time.
    Priority,
}

static JOURNAL: OnceLock<Journal> = OnceLock::new();

/// Begins to log. To be called once.
///
/// # Errors
///
/// The file cannot be opened.
pub(crate) fn start(target: Target<'_>, level: LevelFilter) -> io::Result<()> {
    let (path, follow) = match target {
        Target::StandardError => (None, false),
        Target::File(path) => (Some(path), false),
        Target::FileOfBackground(path) => (Some(path), true),
    };
    let sink = match path {
        Some(path) => Sink::File(LogFile { file: open(path)?, torn: false }),
        None => Sink::StandardError(StandardError::new()),
    };
    let head = if path.is_none() && is_read_by_journal() { Head::Priority } else { Head::Stamp };
    let writer = Mutex::new(Writer { sink, lost: 0, why: String::new() });
    let file = path.map(|path| (path.to_owned(), follow));
    let journal = JOURNAL.get_or_init(|| Journal { file, head, writer });
    if log::set_logger(journal).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Does systemd's journal read standard error? `JOURNAL_STREAM` may be inherited from a program
/// whose standard error was another: it names the device and the inode.
fn is_read_by_journal() -> bool {
    let Some(variable) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let numbers = variable.to_str().and_then(|text| text.split_once(':'));
    let Some((device, inode)) = numbers else { return false };
    fstat(io::stderr())
        .is_ok_and(|own| device.parse() == Ok(own.st_dev) && inode.parse() == Ok(own.st_ino))
}

/// Opens the file again: the old one was moved out of the way.
pub(crate) fn reopen() {
    let Some(journal) = JOURNAL.get() else { return };
    let Some((path, follow)) = &journal.file else { return };
    let new = match open(path) {
        Ok(new) => new,
        Err(error) => {
            let path = path.display();
            return log::error!("cannot open the log {path} again, the old one stays: {error}");
        }
    };
    if *follow && let Err(error) = dup2_stdout(&new).and_then(|()| dup2_stderr(&new)) {
        log::error!("standard error still leads to the old log: {error}");
    }
    let sink = Sink::File(LogFile { file: new, torn: false });
    journal.writer.lock().unwrap_or_else(PoisonError::into_inner).sink = sink;
}

/// Opens a log to write behind what is in it; makes it, and its directory, if need be.
///
/// # Errors
///
/// Among others: it is a symbolic link, or no regular file. A link could lead to any file that
/// root may write; a FIFO or a terminal could make the daemon wait.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().create(true).append(true).custom_flags(flags.bits()).open(path);
    let not_regular = || io::Error::other("a log has to be a regular file");
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(not_regular()),
        // A FIFO without a reader, or a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Err(not_regular()),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(io::Error::other("it is a symbolic link; name the file itself"))
        }
        Err(error) => Err(error),
    }
}

impl Log for Journal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Each record is one line, whatever is in it.
        let text = record.args().to_string();
        let line = self.head.line(record.level(), &shown::line(&text));
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.put(&line, self.head);
    }

    fn flush(&self) {}
}

impl Head {
    fn line(self, level: Level, text: &str) -> String {
        let mut line = String::with_capacity(text.len() + 40);
        let _ = match self {
            Self::Stamp => write!(line, "{} ", humantime::format_rfc3339_millis(SystemTime::now())),
            Self::Priority => write!(line, "<{}>", priority(level)),
        };
        let _ = writeln!(line, "{}: {text}", level.as_str().to_ascii_lowercase());
        line
    }
}

/// The priority of syslog(3) for a level.
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Where lines are written.
enum Sink {
    File(LogFile),
    StandardError(StandardError),
}

impl Sink {
    fn write_line(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_line(line.as_bytes()),
            Self::StandardError(stderr) => {
                stderr.write_line(line.as_bytes()).map_err(|error| match error.kind() {
                    io::ErrorKind::WouldBlock => io::Error::other("nobody read standard error"),
                    _ => error,
                })
            }
        }
    }
}

struct LogFile {
    file: File,
    /// Only a part of the last line was written.
    torn: bool,
}

impl LogFile {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut left = line;
        while !left.is_empty() {
            match self.file.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = left.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Writes lines, and counts those that it cannot write.
struct Writer {
    sink: Sink,
    lost: u64,
    /// Why the last of those could not be written.
    why: String,
}

impl Writer {
    /// Writes a line. If lines before it were lost, a line that `head` makes of their number
    /// comes first.
    fn put(&mut self, line: &str, head: Head) {
        if self.lost > 0 {
            let lines = if self.lost == 1 { "1 line" } else { &format!("{} lines", self.lost) };
            let text =
                format!("{lines} of this log could not be written and were lost: {}", self.why);
            if self.sink.write_line(&head.line(Level::Warn, &text)).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if let Err(error) = self.sink.write_line(line) {
            self.lost += 1;
            self.why = error.to_string();
        }
    }
}
