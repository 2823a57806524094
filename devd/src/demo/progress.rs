//! What is said while the demo runs.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Writes a line. That nobody reads it any more (`devd demo | head`) is no reason to leave
/// processes behind, as a panic would.
pub(super) fn say(line: fmt::Arguments<'_>) {
    put(format_args!("{line}\n"));
}

fn put(text: fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    let _ = output.write_fmt(text).and_then(|()| output.flush());
}

/// One line that changes on a terminal; anywhere else a line now and then.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    begin: Instant,
    last: Instant,
}

impl Progress {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { terminal: io::stdout().is_terminal(), begin: now, last: now }
    }

    /// So many of so many guests are what is said, and so many have failed.
    pub(super) fn say(&mut self, what: &str, done: usize, of: usize, failed: impl Fn() -> usize) {
        let pause = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        let seconds = self.begin.elapsed().as_secs_f64();
        let mut line = format!("{seconds:6.1} s  {done} of {of} guests {what}");
        match failed() {
            0 => {}
            failed => line.push_str(&format!(", {failed} failed")),
        }
        if self.terminal {
            put(format_args!("\r\x1b[K{line}"));
        } else {
            say(format_args!("{line}"));
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.terminal {
            put(format_args!("\r\x1b[K"));
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}
