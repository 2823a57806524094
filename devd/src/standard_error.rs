//! Standard error, whose reader may be slow, or stopped: the daemon does not wait for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

/// A reader has so long in each [`PERIOD`] to make room, all lines together. A slow
/// reader gets every line; a stopped one takes a tenth of the daemon's time.
const PATIENCE: Duration = Duration::from_millis(100);
const PERIOD: Duration = Duration::from_secs(1);
/// A pipe that is ready takes so many bytes at once (`PIPE_BUF`).
const PIECE: usize = 4096;

/// How bytes are written without waiting.
#[derive(Debug)]
enum Way {
    /// A pipe or a terminal, opened anew: the writes of its other users stay blocking.
    Own(File),
    /// A socket, such as journald's: each `send` says that it does not wait.
    Socket,
    /// Any other file, and what cannot be opened anew: asked before each write whether there is
    /// room.
    Shared,
}

/// Standard error.
#[derive(Debug)]
pub(crate) struct StandardError {
    way: Way,
    /// The end of a line of which the reader has the beginning.
    rest: Vec<u8>,
    /// Since when the time is counted that was spent waiting, and how much that is.
    since: Instant,
    waited: Duration,
}

impl StandardError {
    pub(crate) fn new() -> Self {
        Self { way: Way::find(), rest: Vec::new(), since: Instant::now(), waited: Duration::ZERO }
    }

    /// Writes a whole line, or nothing of it.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: the reader has made no room in time. Otherwise the system's.
    pub(crate) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        let written = self.write(&rest);
        if written < rest.len() {
            self.rest = rest;
            self.rest.drain(..written);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.write(line);
        if written == 0 && !line.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.rest.extend_from_slice(&line[written..]);
        Ok(())
    }

    /// Writes as much as there is room for, and waits for room as long as it may.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.way.write(&bytes[written..]) {
                Ok(len) => written += len,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.wait() => {}
                Err(_) => break,
            }
        }
        written
    }

    /// Waits for room. False if there is none.
    fn wait(&mut self) -> bool {
        let begin = Instant::now();
        if begin.duration_since(self.since) >= PERIOD {
            (self.since, self.waited) = (begin, Duration::ZERO);
        }
        let left = PATIENCE.saturating_sub(self.waited);
        // Less than a millisecond would be none, over and over.
        let Ok(timeout) = PollTimeout::try_from(left) else { return false };
        if left < Duration::from_millis(1) {
            return false;
        }
        let ready = self.way.poll(timeout);
        self.waited += begin.elapsed();
        ready
    }
}

impl Way {
    fn find() -> Self {
        let kind = fstat(io::stderr()).map(|file| SFlag::from_bits_truncate(file.st_mode));
        match kind.map(|mode| mode & SFlag::S_IFMT) {
            Ok(SFlag::S_IFSOCK) => Self::Socket,
            Ok(SFlag::S_IFIFO | SFlag::S_IFCHR) => {
                let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
                let mut options = OpenOptions::new();
                let opened = options.write(true).custom_flags(flags).open("/proc/self/fd/2");
                opened.map_or(Self::Shared, Self::Own)
            }
            _ => Self::Shared,
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let written = match self {
            Self::Own(file) => (&*file).write(bytes),
            Self::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                return send(io::stderr().as_raw_fd(), bytes, flags);
            }
            Self::Shared if !self.poll(PollTimeout::ZERO) => return Err(Errno::EAGAIN),
            Self::Shared => io::stderr().write(&bytes[..bytes.len().min(PIECE)]),
        };
        match written {
            Ok(0) => Err(Errno::EIO),
            Ok(len) => Ok(len),
            Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    /// Is there room now, or in this time?
    fn poll(&self, timeout: PollTimeout) -> bool {
        let stderr = io::stderr();
        let fd = match self {
            Self::Own(file) => file.as_fd(),
            Self::Socket | Self::Shared => stderr.as_fd(),
        };
        poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use nix::fcntl::OFlag;

    fn pipe() -> (StandardError, File) {
        let (reader, writer): (OwnedFd, OwnedFd) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut this = StandardError::new();
        this.way = Way::Own(writer.into());
        (this, reader.into())
    }

    #[test]
    fn stopped_reader_costs_a_bounded_time_and_gets_whole_lines() {
        let (mut this, mut reader) = pipe();
        let line = [&[b'x'; 5000][..], b"\n"].concat();
        let mut taken = 0;
        while this.write_line(&line).is_ok() {
            taken += 1;
        }
        let begin = Instant::now();
        let lost = (0..1000).filter(|_| this.write_line(&line).is_err()).count();
        assert_eq!(lost, 1000);
        // A thousand lines that all wait would take 100 seconds.
        assert!(begin.elapsed() < Duration::from_secs(50), "{:?}", begin.elapsed());

        let mut text = Vec::new();
        let mut read = |text: &mut Vec<u8>| {
            let _ = reader
                .read_to_end(text)
                .map_err(|error| assert_eq!(error.kind(), io::ErrorKind::WouldBlock));
        };
        read(&mut text);
        while this.write_line(b"again\n").is_err() {
            read(&mut text);
        }
        read(&mut text);
        let mut lines = text.split(|byte| *byte == b'\n');
        for _ in 0..taken {
            assert_eq!(lines.next().map(<[u8]>::len), Some(5000));
        }
        assert_eq!(lines.next(), Some(&b"again"[..]));
    }
}
