//! What is behind a guest's disk, and whether the kernel still has it there.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use devd_core::DeviceKey;

use super::device_number::DeviceNumber;
use super::file_id::FileId;
use super::loop_device;
use crate::shown;

/// The block device that a guest has for its disk, and for a loop device the file behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backing {
    pub(crate) number: DeviceNumber,
    pub(crate) file: Option<FileId>,
}

/// How the kernel differs from what the guest was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Drift {
    /// The kernel has no block device of this number any more.
    DeviceGone(DeviceNumber),
    /// The loop device has lost its file.
    FileLost(String),
    /// The loop device has another file.
    OtherFile(String, PathBuf),
    /// The file is deleted: the guest keeps it, and loses it when the disk is detached.
    FileDeleted(PathBuf),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceGone(number) => {
                write!(f, "the block device {number} is gone: detach the disk and attach it again")
            }
            Self::FileLost(name) => {
                write!(f, "/dev/{name} has lost its file: detach the disk and attach it again")
            }
            Self::OtherFile(name, file) => write!(
                f,
                "/dev/{name} has another file now, {}: detach the disk and attach it again",
                shown::path(file)
            ),
            Self::FileDeleted(file) => write!(
                f,
                "{} is deleted: its data is lost when the disk is detached; copy it before",
                shown::path(file)
            ),
        }
    }
}

impl Backing {
    /// Compares with what the kernel has now.
    ///
    /// A file whose server is away keeps the caller waiting: call this in a thread of its own.
    pub(crate) fn check(&self) -> Result<(), Drift> {
        let Some(name) = self.number.name() else {
            return Err(Drift::DeviceGone(self.number));
        };
        let Some(file) = self.file else { return Ok(()) };
        let Some(behind) = loop_device::file_name(self.number) else {
            return Err(Drift::FileLost(name));
        };
        match loop_device::backing(self.number) {
            Some(now) if now != file => Err(Drift::OtherFile(name, behind)),
            Some(_) => match behind.as_os_str().as_bytes().strip_suffix(DELETED) {
                // A file may be called so.
                Some(deleted) if !behind.exists() => {
                    Err(Drift::FileDeleted(loop_device::path(deleted)))
                }
                _ => Ok(()),
            },
            None => Err(Drift::FileLost(name)),
        }
    }
}

/// What the kernel writes behind the name of a deleted file.
const DELETED: &[u8] = b" (deleted)";

/// Whose a loop device is that another program, or an earlier daemon, has set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The device's; this file is behind it.
    Device(FileId),
    /// No file is behind it.
    Nobody,
    /// A daemon made it for another device.
    OtherDevice,
    /// Another file is behind it than `params` names. The loop device may be somebody else's by
    /// now, or `params` was changed.
    OtherFile(PathBuf),
}

/// Finds out whose the loop device is in `physical-device`. By any of these it is the device's:
///
/// - blkback has it open for the device;
/// - a daemon made it, and wrote the device into its `lo_file_name`;
/// - the file that `params` names is behind it, by device and inode;
/// - the file is deleted, and had that name;
/// - the file is renamed, and had that name when the loop device was made.
///
/// A file whose server is away keeps the caller waiting.
pub(crate) fn owner(key: DeviceKey, number: DeviceNumber, params: &Path) -> Owner {
    let (Some(behind), Some(info)) = (loop_device::file_name(number), loop_device::info(number))
    else {
        return Owner::Nobody;
    };
    let file = FileId { device: info.device, inode: info.inode };
    if opened_by_blkback(Path::new(BLKBACK), key) == Some(number) {
        return Owner::Device(file);
    }
    let noted = loop_device::noted_name(&info);
    match noted.strip_prefix(loop_device::TAG) {
        Some(made_for) if made_for == key.to_string().as_bytes() => return Owner::Device(file),
        Some(_) => return Owner::OtherDevice,
        None => {}
    }
    let params = Path::new("/dev").join(params);
    if fs::metadata(&params).is_ok_and(|params| FileId::of(&params) == file) {
        return Owner::Device(file);
    }
    let deleted = behind.as_os_str().as_bytes().strip_suffix(DELETED);
    let real = fs::canonicalize(&params).unwrap_or(params.clone());
    let same = [&params, &real].into_iter().any(|name| {
        let name = name.as_os_str().as_bytes();
        deleted == Some(name) || noted == &name[..name.len().min(loop_device::NOTED_LEN)]
    });
    // A file of that name that is there is another one; the loop device had it before.
    if same { Owner::Device(file) } else { Owner::OtherFile(behind) }
}

/// Where the kernel lists the devices of its backends.
const BLKBACK: &str = "/sys/bus/xen-backend/devices";

/// The device that blkback has open for this one, if it serves it.
fn opened_by_blkback(root: &Path, key: DeviceKey) -> Option<DeviceNumber> {
    let DeviceKey { kind, domid, devid } = key;
    let path = root.join(format!("{}-{domid}-{devid}/physical_device", kind.name()));
    DeviceNumber::parse(fs::read(path).ok()?.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use devd_core::Kind;
    use nix::sys::stat::makedev;

    #[test]
    fn what_blkback_has_open_is_read_from_sysfs() {
        let root = tempfile::tempdir().unwrap();
        let key = DeviceKey { kind: Kind::Vbd, domid: 3, devid: 51712 };
        assert_eq!(opened_by_blkback(root.path(), key), None);
        fs::create_dir(root.path().join("vbd-3-51712")).unwrap();
        fs::write(root.path().join("vbd-3-51712/physical_device"), "7:1a\n").unwrap();
        assert_eq!(opened_by_blkback(root.path(), key), Some(DeviceNumber(makedev(7, 26))));
    }

    #[test]
    fn a_block_device_that_is_gone_is_a_drift() {
        let number = DeviceNumber(makedev(4000, 1));
        let drift = Backing { number, file: None }.check().unwrap_err();
        assert_eq!(drift, Drift::DeviceGone(number));
        assert!(drift.to_string().contains("4000:1 is gone"), "{drift}");
    }
}
