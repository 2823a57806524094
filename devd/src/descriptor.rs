//! File descriptors for which only the kernel can vouch: all that is `unsafe` in this crate.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

/// A descriptor that becomes readable when a process ends, whoever its parent is
/// (Linux 5.3 or later).
///
/// # Errors
///
/// `ESRCH`: there is no such process.
pub(crate) fn of_process(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over a descriptor that whoever started the program has left open for it. To be
/// called before the program opens any itself.
///
/// # Errors
///
/// `EBADF`: there is none of this number.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only, and fails if this one is no descriptor.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open; it is not ours by another name, since we have opened none yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Keeps all descriptors but the first three from the programs that this one will start
/// (Linux 5.11 or later; those that this program opens are kept from them anyway).
pub(crate) fn keep_from_children() {
    // SAFETY: the call takes numbers only; it sets a flag and closes nothing.
    unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
}
