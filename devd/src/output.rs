//! What a hook writes: taken line by line into the log.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;

use crate::process::set_nonblocking;
use crate::shown;

/// The most that one run of a hook gets into the log, in bytes.
const CAP: usize = 64 * 1024;
/// The most bytes that are read in one turn: a pipe holds as many. A hook that writes without an end
/// fills the pipe as fast as the daemon reads.
const AT_ONCE: usize = 64 * 1024;
/// A longer line is cut in two.
const LINE_MAX: usize = 1024;

/// The daemon's end of a hook's output.
#[derive(Debug)]
pub(crate) struct Output {
    ours: File,
    /// The hook's end. It stays open here, so that its last writer closing it wakes nobody: that
    /// the hook has ended is heard of by itself.
    theirs: OwnedFd,
    /// The last whole line.
    last: String,
    /// A line that has not come to its end.
    line: Vec<u8>,
    /// Bytes taken so far.
    taken: usize,
}

impl Output {
    pub(crate) fn new() -> io::Result<Self> {
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&ours)?;
        Ok(Self { ours: ours.into(), theirs, last: String::new(), line: Vec::new(), taken: 0 })
    }

    /// The end to read from. The hook is to have it as well: so one that outlives the daemon is
    /// not ended by the first word it says (SIGPIPE).
    pub(crate) fn ours(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// The end to write to.
    pub(crate) fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Takes what is there, as much as a pipe holds; gives `log` every whole line. False if
    /// nothing can be read any more.
    pub(crate) fn take(&mut self, mut log: impl FnMut(&str)) -> bool {
        let mut bytes = [0; 4096];
        let mut left = AT_ONCE;
        while left > 0 {
            match self.ours.read(&mut bytes) {
                Ok(0) => return false,
                Ok(len) => {
                    self.split(&bytes[..len], &mut log);
                    left = left.saturating_sub(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// The hook has ended: its last line needs no end. A child that it has left running may go on
    /// writing, and is not waited for.
    pub(crate) fn finish(&mut self, mut log: impl FnMut(&str)) {
        self.take(&mut log);
        self.end_line(&mut log);
    }

    /// The last line that was not empty, as it can be shown; `None` if there was none.
    pub(crate) fn last_line(&self) -> Option<String> {
        Some(self.last.trim())
            .filter(|line| !line.is_empty())
            .map(|line| shown::value(line.as_bytes()))
    }

    fn split(&mut self, bytes: &[u8], log: &mut impl FnMut(&str)) {
        let room = CAP.saturating_sub(self.taken);
        self.taken += bytes.len();
        for byte in &bytes[..bytes.len().min(room)] {
            match byte {
                b'\n' => self.end_line(log),
                _ => self.line.push(*byte),
            }
            if self.line.len() >= LINE_MAX {
                self.end_line(log);
            }
        }
        if room > 0 && bytes.len() >= room {
            self.end_line(log);
            log("(it goes on; the rest is left out)");
        }
    }

    fn end_line(&mut self, log: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            let line = String::from_utf8_lossy(&self.line);
            log(&line);
            if !line.trim().is_empty() {
                self.last = line.into_owned();
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut output = Output::new().unwrap();
        let mut theirs = File::from(output.theirs().try_clone_to_owned().unwrap());
        let mut lines = Vec::new();
        for chunk in chunks {
            theirs.write_all(chunk).unwrap();
            assert!(output.take(|line| lines.push(line.to_owned())));
        }
        output.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_are_put_together_and_the_last_needs_no_end() {
        assert_eq!(lines(&[b"one\ntw", b"o\n\n", b"three"]), ["one", "two", "three"]);
    }

    #[test]
    fn endless_output_is_capped_once() {
        let chunk = [b'x'; 4096];
        let lines = lines(&[&chunk[..]; 20]);
        assert_eq!(lines.len(), CAP / LINE_MAX + 1);
        assert!(lines.last().unwrap().contains("left out"));
    }

    #[test]
    fn source_without_an_end_is_left_after_a_bounded_part() {
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut output = Output::new().unwrap();
            output.ours = File::open("/dev/zero").unwrap();
            assert!(output.take(|_| {}), "there is more to read");
            output.finish(|_| {});
            done.send(output.taken).unwrap();
        });
        let taken = wait.recv_timeout(std::time::Duration::from_secs(60)).expect("an end");
        assert_eq!(taken, 2 * AT_ONCE);
    }

    #[test]
    fn a_hook_that_outlives_the_daemon_can_still_write() {
        let output = Output::new().unwrap();
        let [_ours, theirs] = [output.ours(), output.theirs()].map(|fd| fd.try_clone_to_owned());
        drop(output);
        File::from(theirs.unwrap()).write_all(b"still here\n").unwrap();
    }
}
