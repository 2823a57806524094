//! The log: standard error, or a file that can be taken away and made anew (SIGHUP).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::shown;
use crate::standard_error::StandardError;

/// Where the log goes.
enum Sink {
    File { path: PathBuf, file: File },
    StandardError(StandardError),
}

impl Sink {
    fn write_line(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.write_all(line.as_bytes()),
            Self::StandardError(stderr) => stderr.write_line(line.as_bytes()),
        }
    }
}

/// The log, and how many lines it could not take.
struct Writer {
    sink: Sink,
    lost: u64,
}

struct Journal {
    writer: Mutex<Writer>,
    /// Whoever reads standard error may write the time down himself.
    stamps: bool,
}

static JOURNAL: OnceLock<Journal> = OnceLock::new();

/// Begins to log. To be called once.
///
/// # Errors
///
/// The file cannot be opened.
pub(crate) fn start(file: Option<&Path>, level: LevelFilter) -> io::Result<()> {
    let sink = match file {
        Some(path) => Sink::File { path: path.to_owned(), file: open(path)? },
        None => Sink::StandardError(StandardError::new()),
    };
    // systemd stamps the lines that it takes from standard error.
    let stamps = file.is_some() || std::env::var_os("JOURNAL_STREAM").is_none();
    let writer = Mutex::new(Writer { sink, lost: 0 });
    let journal = JOURNAL.get_or_init(|| Journal { writer, stamps });
    if log::set_logger(journal).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Opens the file again: the old one was moved out of the way.
pub(crate) fn reopen() {
    let Some(journal) = JOURNAL.get() else { return };
    let mut writer = journal.writer();
    let Sink::File { path, file } = &mut writer.sink else { return };
    let path = path.clone();
    match open(&path) {
        Ok(new) => *file = new,
        Err(error) => {
            drop(writer);
            log::error!("cannot open the log {} again: {error}", path.display());
        }
    }
}

/// Opens a log to write behind what is in it; makes it, and its directory, if need be.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

impl Journal {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, level: Level, text: &str) -> String {
        let level = level.as_str().to_ascii_lowercase();
        if self.stamps {
            format!("{} {level}: {text}\n", humantime::format_rfc3339_millis(SystemTime::now()))
        } else {
            format!("{level}: {text}\n")
        }
    }
}

impl Log for Journal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    /// A log that cannot be written neither ends the daemon nor holds it up.
    fn log(&self, record: &Record<'_>) {
        // Whatever is told, by whomever: one line each.
        let line = self.line(record.level(), &shown::line(&record.args().to_string()));
        let mut writer = self.writer();
        if writer.lost > 0 {
            let lines = if writer.lost == 1 { "1 line" } else { &format!("{} lines", writer.lost) };
            let text = format!("{lines} of this log could not be written in time and were lost");
            if writer.sink.write_line(&self.line(Level::Warn, &text)).is_err() {
                writer.lost += 1;
                return;
            }
            writer.lost = 0;
        }
        if writer.sink.write_line(&line).is_err() {
            writer.lost += 1;
        }
    }

    fn flush(&self) {}
}
