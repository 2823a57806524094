//! Where a disk is that something else has attached, and what it is.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::claims::{self, Extent, Identity};
use super::device_number::DeviceNumber;
use super::file_id::FileId;
use super::file_system::{FileSystem, FileSystems};
use super::loop_device;
use std::os::unix::fs::MetadataExt;

/// As many links as the kernel follows in one path.
const MOST_LINKS: u32 = 40;

/// Where a disk is whose identity is not known yet.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Device(DeviceNumber),
    /// A file or a block device. The walk to it, step by step, may stop at one whose server does
    /// not answer.
    Path(PathBuf, Walk),
}

/// How far the walk along a path has come, for whoever does not want to wait for its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk(Arc<Mutex<PathBuf>>);

impl Place {
    pub(crate) fn path(path: PathBuf) -> Self {
        Self::Path(path, Walk::default())
    }

    /// Asks the kernel; that may take as long as the file's server does not answer.
    pub(crate) fn identities(&self) -> Vec<(Identity, Extent)> {
        match self {
            Self::Device(number) => claims::of_device(*number),
            Self::Path(path, walk) => match walk.go(path).and_then(|path| path.metadata().ok()) {
                Some(file) if file.is_file() => {
                    vec![(Identity::File(FileId::of(&file)), Extent::Whole)]
                }
                Some(file) => claims::of_device(DeviceNumber(file.rdev())),
                None => Vec::new(),
            },
        }
    }

    /// What is known at once: for this no server is asked.
    pub(crate) fn known(&self) -> Vec<(Identity, Extent)> {
        match self {
            Self::Device(number) => claims::of_block_device(*number),
            Self::Path(..) => Vec::new(),
        }
    }

    /// The file system that the disk's file lies on, if it has one.
    pub(crate) fn file_system(&self, mounted: &FileSystems) -> Option<FileSystem> {
        match self {
            Self::Device(number) => {
                let disk = number.disk().unwrap_or(*number);
                mounted.of(&loop_device::file_name(disk)?)
            }
            Self::Path(path, walk) => {
                let at = walk.at();
                mounted.of(if at.as_os_str().is_empty() { path } else { &at })
            }
        }
    }
}

impl Walk {
    fn at(&self) -> PathBuf {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_at(&self, path: &Path) {
        path.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The path without links: one step at a time, so that the one that hangs is known.
    fn go(&self, path: &Path) -> Option<PathBuf> {
        let mut links = 0;
        let mut rest: Vec<PathBuf> = steps(path);
        let mut real = PathBuf::from("/");
        while let Some(step) = rest.pop() {
            match step.components().next() {
                Some(Component::Normal(name)) => real.push(name),
                Some(Component::ParentDir) => {
                    real.pop();
                    continue;
                }
                Some(Component::RootDir) => {
                    real = PathBuf::from("/");
                    continue;
                }
                _ => continue,
            }
            self.is_at(&real);
            if let Ok(target) = fs::read_link(&real) {
                links += 1;
                if links > MOST_LINKS {
                    return None;
                }
                real.pop();
                rest.extend(steps(&target));
            }
        }
        Some(real)
    }
}

/// The components of a path, the first one last.
fn steps(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|step| PathBuf::from(step.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn walk_follows_links_as_the_kernel_does() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/disk"), "").unwrap();
        symlink("a/b", root.join("relative")).unwrap();
        symlink(root.join("relative"), root.join("absolute")).unwrap();
        symlink("../../relative/disk", root.join("a/b/up")).unwrap();
        symlink("round", root.join("round")).unwrap();
        let walk = Walk::default();
        for path in ["a/b/disk", "relative/disk", "absolute/../b/./disk", "a/b/up"] {
            let path = root.join(path);
            assert_eq!(walk.go(&path), fs::canonicalize(&path).ok(), "{}", path.display());
            assert_eq!(walk.at(), root.join("a/b/disk"));
        }
        assert_eq!(walk.go(&root.join("round")), None);
    }
}
