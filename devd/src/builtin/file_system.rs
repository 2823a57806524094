//! Which file system a path lies on, found without asking that file system: its server may be
//! away.

use std::fs;
use std::path::{Path, PathBuf};

use super::loop_device;
use super::mounts::Mount;

/// A file system, by the number of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem(String);

/// Where file systems are mounted here.
#[derive(Debug)]
pub(crate) struct FileSystems(Vec<(PathBuf, FileSystem)>);

impl FileSystems {
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mounts: &str) -> Self {
        let mounts = mounts.lines().filter_map(Mount::parse);
        Self(
            mounts.map(|mount| (unescaped(mount.place), FileSystem(mount.device.into()))).collect(),
        )
    }

    /// The file system that a path without links lies on.
    pub(crate) fn of(&self, path: &Path) -> Option<FileSystem> {
        let mounts = self.0.iter().filter(|(place, _)| path.starts_with(place));
        // Of several on one place, the last one hides the others.
        let deepest = mounts.max_by_key(|(place, _)| place.components().count());
        deepest.map(|(_, file_system)| file_system.clone())
    }
}

/// A place with its `\040` and the like read.
fn unescaped(place: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(place.len());
    let mut rest = place.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    loop_device::path(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paths_file_system_is_the_deepest_and_last_mount() {
        let mounted = FileSystems::parse(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 0:50 / /mnt/a\\040b rw - fuse x rw\n\
             3 1 0:51 / /mnt/a\\040b rw - fuse y rw\n\
             4 1 0:52 / /mnt/a rw - nfs z rw",
        );
        for (path, device) in
            [("/", "8:1"), ("/mnt/ab", "8:1"), ("/mnt/a b/disk", "0:51"), ("/mnt/a/disk", "0:52")]
        {
            assert_eq!(mounted.of(Path::new(path)), Some(FileSystem(device.into())), "{path}");
        }
        assert_eq!(mounted.of(Path::new("disk")), None);
    }
}
