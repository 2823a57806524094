//! Block devices by their numbers.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, makedev, minor};

/// The major number of loop devices.
const LOOP_MAJOR: u64 = 7;
/// There are so many major numbers in Linux, and so many minor ones.
const MAJORS: u64 = 1 << 12;
const MINORS: u64 = 1 << 20;

/// What the kernel knows a block device by, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DeviceNumber(pub(crate) u64);

impl DeviceNumber {
    /// Reads the value of `physical-device`: `major:minor`, hexadecimal.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (major, minor) = std::str::from_utf8(value).ok()?.split_once(':')?;
        let (major, minor) = (number(major)?, number(minor)?);
        // What does not fit would be the number of another device.
        (major < MAJORS && minor < MINORS).then(|| Self(makedev(major, minor)))
    }

    /// The disk that this is a partition of.
    pub(crate) fn disk(self) -> Option<Self> {
        if !self.sysfs("partition").exists() {
            return None;
        }
        // A partition's directory is in its disk's.
        Self::in_sysfs(&self.sysfs("../dev"))
    }

    /// Itself, its partitions, and the disk that it is a partition of: an exclusive open of one
    /// excludes that of this device.
    pub(crate) fn with_relatives(self) -> Vec<Self> {
        let mut numbers = vec![self];
        numbers.extend(self.disk());
        let Ok(entries) = fs::read_dir(self.sysfs("")) else { return numbers };
        let partitions = entries.flatten().map(|entry| entry.path());
        let partitions = partitions.filter(|path| path.join("partition").exists());
        numbers.extend(partitions.filter_map(|path| Self::in_sysfs(&path.join("dev"))));
        numbers
    }

    /// Reads a file of sysfs: `major:minor`, decimal.
    fn in_sysfs(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (major, minor) = text.trim_end().split_once(':')?;
        Some(Self(makedev(major.parse().ok()?, minor.parse().ok()?)))
    }

    /// Is the device of this number at that place?
    pub(crate) fn is_at(self, path: &str) -> bool {
        fs::metadata(path).is_ok_and(|file| file.rdev() == self.0)
    }

    /// The value of `physical-device`.
    pub(crate) fn physical_device(self) -> String {
        format!("{:x}:{:x}", major(self.0), minor(self.0))
    }

    pub(crate) fn is_loop(self) -> bool {
        major(self.0) == LOOP_MAJOR
    }

    /// Its directory in sysfs, or a file there.
    pub(crate) fn sysfs(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{self}/{file}"))
    }

    /// The name that the kernel gives it, in `/dev` as well.
    pub(crate) fn name(self) -> Option<String> {
        let path = fs::read_link(format!("/sys/dev/block/{self}")).ok()?;
        // A few have a `/` in their name, and a `!` in sysfs.
        Some(path.file_name()?.to_str()?.replace('!', "/"))
    }

    /// Does the device refuse to be written?
    pub(crate) fn is_read_only(self) -> bool {
        fs::read(self.sysfs("ro")).is_ok_and(|value| value.starts_with(b"1"))
    }
}

/// A hexadecimal number without a sign.
fn number(digits: &str) -> Option<u64> {
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    u64::from_str_radix(digits?, 16).ok()
}

/// Decimal, as in sysfs and `/proc`.
impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", major(self.0), minor(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blkback_reads_hexadecimal_and_sysfs_has_decimal_numbers() {
        let number = DeviceNumber::parse(b"fd:1a").unwrap();
        assert_eq!(number.physical_device(), "fd:1a");
        assert_eq!(number.to_string(), "253:26");
        assert!(DeviceNumber::parse(b"7:0").unwrap().is_loop());
        assert_eq!(DeviceNumber::parse(b"fff:fffff").unwrap().physical_device(), "fff:fffff");
        for bad in [
            &b""[..],
            b"7",
            b"7:",
            b":0",
            b"7:g",
            b"7:0:0",
            b"\xff:0",
            b"+7:0",
            b"7:-0",
            b" 7:0",
            b"7:0\n",
            b"1007:0",
            b"7:100000",
            b"100000007:0",
            b"7:10000000000000000",
        ] {
            assert_eq!(DeviceNumber::parse(bad), None, "{}", bad.escape_ascii());
        }
    }
}
