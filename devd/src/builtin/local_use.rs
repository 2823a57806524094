//! What this domain itself does with a block device: whether it is mounted, swapped to, or part
//! of another.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::claims::Mode;
use super::device_number::DeviceNumber;
use super::mounts::{self, Mounted};

/// Whether a guest may have a block device.
#[derive(Debug)]
pub(crate) enum LocalUse {
    /// The device was free; this descriptor holds it exclusively. `None` if a disk of the same
    /// guest holds a part of it, if it is mounted to be read, or if the drive is empty.
    Free(Option<File>),
    /// A user stands in the way; the words name it.
    Used(String),
}

/// Asks whether a guest may have the device like this. `held` are the devices that the daemon
/// has for itself, for guests.
///
/// One exclusive open asks the kernel whether the device, a partition of it or the disk that it
/// is a partition of is in use. Only if so, the user is looked for.
///
/// # Errors
///
/// The device cannot be opened.
pub(crate) fn of(
    path: &Path,
    number: DeviceNumber,
    mode: Mode,
    held: &[DeviceNumber],
) -> io::Result<LocalUse> {
    let flags = libc::O_EXCL | libc::O_NONBLOCK;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => return Ok(LocalUse::Free(Some(file))),
        // An empty drive.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEDIUM) => {
            return Ok(LocalUse::Free(None));
        }
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) => return Err(error),
    }
    let numbers = number.with_relatives();
    match (mounts::of_devices(&numbers), mode) {
        (Some(Mounted::Writable(words)), _) | (Some(Mounted::ReadOnly(words)), Mode::Write) => {
            return Ok(LocalUse::Used(words));
        }
        (Some(Mounted::ReadOnly(_)), Mode::Read | Mode::Shared) => {
            return Ok(LocalUse::Free(None));
        }
        (None, _) => {}
    }
    if let Some(holder) = numbers.iter().find_map(|number| holder(*number)) {
        return Ok(LocalUse::Used(format!("it is part of {holder} here")));
    }
    if is_swap(&numbers) {
        return Ok(LocalUse::Used("it is swap space here".into()));
    }
    if held.iter().any(|held| numbers.contains(held)) {
        return Ok(LocalUse::Free(None));
    }
    Ok(LocalUse::Used("something in this domain uses it, or a partition of it".into()))
}

fn holder(number: DeviceNumber) -> Option<String> {
    let holder = fs::read_dir(number.sysfs("holders")).ok()?.flatten().next()?;
    Some(holder.file_name().to_string_lossy().into_owned())
}

fn is_swap(numbers: &[DeviceNumber]) -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let places = swaps.lines().skip(1).filter_map(|line| line.split(' ').next());
    let mut places = places.filter(|place| place.starts_with("/dev/"));
    places.any(|place| numbers.iter().any(|number| number.is_at(place)))
}
