//! What this domain itself does with a block device: whether it is mounted, swapped to, or part
//! of another.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::claims::Mode;
use super::device_number::DeviceNumber;

/// Who stands in the way of a guest that wants the device like this, in words.
///
/// The kernel is asked first, with one call, whether anybody has the device for himself, a
/// partition of it or the whole that it is a partition of. Only then is it looked for who.
///
/// # Errors
///
/// The device cannot be opened.
pub(crate) fn of(path: &Path, number: DeviceNumber, mode: Mode) -> io::Result<Option<String>> {
    let flags = libc::O_EXCL | libc::O_NONBLOCK;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(_) => return Ok(None),
        // An empty drive.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEDIUM) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) => return Err(error),
    }
    let read_only = mode == Mode::Read;
    if let Some(place) = mounted(number, read_only) {
        return Ok(Some(format!("it is mounted on {place} here")));
    }
    if let Some(holder) = holder(number) {
        return Ok(Some(format!("it is part of {holder} here")));
    }
    if is_swap(number) {
        return Ok(Some("it is swap space here".into()));
    }
    Ok((!read_only).then(|| "something in this domain uses it or a partition of it".into()))
}

/// Where it is mounted, by mounts that may write only if those are enough; as the kernel writes
/// it, `\040` for a space.
fn mounted(number: DeviceNumber, writing_only: bool) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| mount_of(line, number, writing_only)).map(str::to_owned)
}

/// The place of this mount, if it is one of the device. See `proc_pid_mountinfo(5)`.
fn mount_of(line: &str, number: DeviceNumber, writing_only: bool) -> Option<&str> {
    let mut fields = line.split(' ');
    let device = fields.nth(2)?;
    let place = fields.nth(1)?;
    fields.find(|field| *field == "-")?;
    let source = fields.nth(1)?;
    let read_only = fields.next()?.split(',').any(|option| option == "ro");
    // btrfs and the like have a number of their own.
    let same = device == number.to_string() || source.starts_with("/dev/") && is(source, number);
    (same && !(writing_only && read_only)).then_some(place)
}

fn is(path: &str, number: DeviceNumber) -> bool {
    fs::metadata(path).is_ok_and(|file| file.rdev() == number.0)
}

fn holder(number: DeviceNumber) -> Option<String> {
    let holder = fs::read_dir(number.sysfs("holders")).ok()?.flatten().next()?;
    Some(holder.file_name().to_string_lossy().into_owned())
}

fn is_swap(number: DeviceNumber) -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().skip(1).any(|line| is(line.split(' ').next().unwrap_or_default(), number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;

    #[test]
    fn mounts_as_the_kernel_lists_them() {
        let number = DeviceNumber(makedev(7, 3));
        let rw = "36 35 7:3 / /mnt/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/loop3 rw,x=y";
        let ro = "37 35 7:3 / /mnt/c ro - ext4 /dev/loop3 ro";
        let bind = "38 35 7:3 / /mnt/d ro - ext4 /dev/loop3 rw";
        let other = "39 35 7:4 / /mnt/e rw - ext4 /dev/loop4 rw";
        assert_eq!(mount_of(rw, number, true), Some("/mnt/a\\040b"));
        assert_eq!(mount_of(ro, number, true), None);
        assert_eq!(mount_of(ro, number, false), Some("/mnt/c"));
        assert_eq!(mount_of(bind, number, true), Some("/mnt/d"), "it is written elsewhere");
        assert_eq!(mount_of(other, number, false), None);
        assert_eq!(mount_of("", number, false), None);
    }
}
