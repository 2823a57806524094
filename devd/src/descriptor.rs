//! File descriptors for which only the kernel can vouch: all that is `unsafe` in this crate.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

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

/// A netlink socket of this protocol (`NETLINK_ROUTE` and the like). What is written to it goes
/// to the kernel.
///
/// # Errors
///
/// `EPROTONOSUPPORT`: the kernel has no such protocol, or its module is not loaded.
pub(crate) fn netlink(protocol: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a netlink socket's lists hold what was asked for only (Linux 4.20 or later; before, the
/// kernel lists all and the reader leaves out the rest).
pub(crate) fn set_strict(socket: &OwnedFd) {
    let on: libc::c_int = 1;
    // SAFETY: the address and the length are those of an integer that outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_GET_STRICT_CHK,
            (&raw const on).cast(),
            4,
        );
    }
}
