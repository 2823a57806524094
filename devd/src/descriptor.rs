//! What only the kernel can vouch for, most of it file descriptors: all unsafe operations of this
//! crate. (The names in `static_libc` are declared unsafe; what is behind them is not.)

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::Signal;
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

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Process,
    /// The group that the process leads, or led (Linux 6.9 or later).
    Group,
}

/// Sends a signal to the process of a descriptor (Linux 5.1 or later); `None` only asks whether
/// the process is there.
///
/// # Errors
///
/// `ESRCH`: the process has ended. `EINVAL`: the kernel does not know this scope.
pub(crate) fn signal_process(
    process: &OwnedFd,
    signal: Option<Signal>,
    scope: Scope,
) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;
    let number = signal.map_or(0, |signal| signal as libc::c_int);
    let flags = match scope {
        Scope::Process => 0,
        Scope::Group => PIDFD_SIGNAL_PROCESS_GROUP,
    };
    let fd = process.as_raw_fd();
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: all arguments are numbers but a null pointer, which the kernel does not follow.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, none, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// Lets the daemon hear how its children end: whoever started it may have left `SIGCHLD` ignored,
/// and then they end unheard.
pub(crate) fn hear_of_children() {
    // SAFETY: no function of this program becomes a handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
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

/// `struct loop_info64` of `include/uapi/linux/loop.h`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct LoopInfo {
    /// The device and the inode of the file behind it.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    pub(crate) flags: u32,
    /// The file's name, for people.
    pub(crate) file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo {
    pub(crate) const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config` of the same.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Which signal tells of the end of a lease; libc has no name for it.
const F_SETSIG: libc::c_int = 10;

const LOOP_SET_FD: libc::Ioctl = 0x4c00;
const LOOP_CLR_FD: libc::Ioctl = 0x4c01;
const LOOP_SET_STATUS64: libc::Ioctl = 0x4c04;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
const LOOP_SET_DIRECT_IO: libc::Ioctl = 0x4c08;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;

/// The number of a loop device that was free at this moment; it is made if there is none.
/// `control`: `/dev/loop-control`.
pub(crate) fn free_loop(control: &File) -> io::Result<u32> {
    // SAFETY: this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Puts a file behind a loop device with sectors of `block_size` bytes, all in one step
/// (Linux 5.8 or later). The kernel leaves out direct I/O where the file has none for such
/// sectors.
pub(crate) fn configure_loop(
    device: &File,
    file: &File,
    block_size: u32,
    info: &LoopInfo,
) -> io::Result<()> {
    let fd = file.as_raw_fd().cast_unsigned();
    let config = LoopConfig { fd, block_size, info: *info, reserved: [0; 8] };
    // SAFETY: the kernel reads as much as this struct is long, which outlives the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) })
}

/// Puts a file behind a loop device, with sectors of 512 bytes; the rest is for
/// [`set_loop_info`].
pub(crate) fn set_loop_file(device: &File, file: &File) -> io::Result<()> {
    // SAFETY: the argument is a number.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, file.as_raw_fd()) })
}

pub(crate) fn set_loop_info(device: &File, info: &LoopInfo) -> io::Result<()> {
    // SAFETY: the kernel reads as much as this struct is long, which outlives the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64, &raw const *info) })
}

/// Lets a loop device use direct I/O. `EINVAL`: the file has none for sectors of this size.
pub(crate) fn set_loop_direct_io(device: &File) -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: the argument is a number.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_DIRECT_IO, on) })
}

/// What is behind a loop device. `ENXIO`: nothing.
pub(crate) fn loop_info(device: &File) -> io::Result<LoopInfo> {
    let mut info = LoopInfo::EMPTY;
    // SAFETY: the kernel fills as much as this struct is long, of integers only.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) })?;
    Ok(info)
}

/// Takes the file from a loop device; one that is in use keeps it until it is used no more.
pub(crate) fn clear_loop(device: &File) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) })
}

/// Has nobody but this descriptor the file open: at all, if it is to be written, or for
/// writing? The kernel grants a lease in that case only; it is given back at once. False also
/// if the file system does not know leases.
pub(crate) fn is_alone(file: &File, write: bool) -> bool {
    let kind = if write { libc::F_WRLCK } else { libc::F_RDLCK };
    let fd = file.as_raw_fd();
    // SAFETY: all three take numbers only. Who opens the file meanwhile waits for the end of
    // the lease, and its holder gets a signal that is ignored unless somebody asks for it.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        let granted = libc::fcntl(fd, libc::F_SETLEASE, kind) == 0;
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
        granted
    }
}

fn done(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
