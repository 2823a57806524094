//! The log: standard error, or a file that can be taken away and made anew (SIGHUP).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use log::{LevelFilter, Log, Metadata, Record};

use crate::shown;

/// Where the log goes.
struct Journal {
    /// `None`: standard error.
    file: Option<(PathBuf, Mutex<File>)>,
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
    let file = match file {
        Some(path) => Some((path.to_owned(), Mutex::new(open(path)?))),
        None => None,
    };
    // systemd stamps the lines that it takes from standard error.
    let stamps = file.is_some() || std::env::var_os("JOURNAL_STREAM").is_none();
    let journal = JOURNAL.get_or_init(|| Journal { file, stamps });
    if log::set_logger(journal).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Opens the file again: the old one was moved out of the way.
pub(crate) fn reopen() {
    let Some((path, file)) = JOURNAL.get().and_then(|journal| journal.file.as_ref()) else {
        return;
    };
    match open(path) {
        Ok(new) => *file.lock().unwrap_or_else(PoisonError::into_inner) = new,
        Err(error) => log::error!("cannot open the log {} again: {error}", path.display()),
    }
}

/// Opens a log to write behind what is in it; makes it, and its directory, if need be.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

impl Log for Journal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = record.level().as_str().to_ascii_lowercase();
        let mut line = String::new();
        if self.stamps {
            line = format!("{} ", humantime::format_rfc3339_millis(SystemTime::now()));
        }
        // Whatever is told, by whomever: one line each.
        line.push_str(&format!("{level}: {}\n", shown::line(&record.args().to_string())));
        // A log that cannot be written must not end the daemon.
        let _ = match &self.file {
            Some((_, file)) => {
                file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
            }
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}
