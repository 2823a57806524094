//! A disk's file or block device, found once: what is checked is what is used, whoever changes
//! the names on the way to it meanwhile.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::device_number::DeviceNumber;
use super::failure::{Failure, Step};
use crate::shown;

/// How often a directory that is renamed meanwhile makes the kernel give up.
const TRIES: u32 = 16;

/// What `params` names, held by a descriptor that neither reads nor writes (`O_PATH`): opening
/// is a deed for a FIFO, a tape or a watchdog.
#[derive(Debug)]
pub(crate) struct Image {
    held: File,
    /// Its name without links.
    pub(crate) path: PathBuf,
    pub(crate) kind: ImageKind,
    pub(crate) metadata: Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageKind {
    File,
    Device(DeviceNumber),
}

impl Image {
    /// Finds the image below one of these directories; anywhere, if there are none.
    pub(crate) fn find(params: &Path, directories: &[PathBuf]) -> Result<Self, Failure> {
        // As upstream: a name without a directory is one in /dev.
        let path = Path::new("/dev").join(params);
        let shown = shown::path(&path);
        let found = if directories.is_empty() {
            File::options().read(true).custom_flags(libc::O_PATH).open(&path)
        } else {
            beneath(&path, directories)?
        };
        let held = found.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if params.is_absolute() => {
                Failure::new(format!("there is no file and no block device {shown}"))
            }
            io::ErrorKind::NotFound => no_path(params, &shown),
            _ => Failure::step(&format!("look at {shown}"), &error),
        })?;
        let metadata = held.metadata().step(|| format!("look at {shown}"))?;
        let kind = match metadata.file_type() {
            kind if kind.is_block_device() => ImageKind::Device(DeviceNumber(metadata.rdev())),
            kind if kind.is_file() => ImageKind::File,
            _ => {
                return Err(Failure::new(format!("{shown} is neither a file nor a block device")));
            }
        };
        let path = fs::read_link(own(&held))
            .step(|| format!("read the name of {shown} (is /proc mounted?)"))?;
        Ok(Self { held, path, kind, metadata })
    }

    /// Opens that very file.
    pub(crate) fn open(&self, options: &OpenOptions) -> io::Result<File> {
        options.open(self.own_path())
    }

    /// The name of the descriptor: what it refers to is opened by it, not what has the image's
    /// name by now.
    pub(crate) fn own_path(&self) -> PathBuf {
        own(&self.held)
    }
}

fn own(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Finds a path below one of the directories of `--image-dir`, by no link that leads out.
fn beneath(path: &Path, directories: &[PathBuf]) -> Result<io::Result<File>, Failure> {
    let below = |directory: &PathBuf| Some((directory.clone(), path.strip_prefix(directory).ok()?));
    let Some((directory, rest)) = directories.iter().find_map(below) else {
        let allowed: Vec<_> = directories.iter().map(|allowed| shown::path(allowed)).collect();
        return Err(Failure::new(format!(
            "{} does not lie in {} (--image-dir)",
            shown::path(path),
            allowed.join(" or ")
        )));
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened = File::options().read(true).custom_flags(flags).open(&directory);
    let opened = opened.step(|| format!("open {} (--image-dir)", directory.display()))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let find = || -> nix::Result<OwnedFd> { openat2(&opened, rest, how) };
    let mut found = find();
    for _ in 1..TRIES {
        if !matches!(found, Err(Errno::EAGAIN)) {
            break;
        }
        found = find();
    }
    match found {
        Ok(found) => Ok(Ok(found.into())),
        Err(Errno::EXDEV | Errno::ELOOP) => Err(Failure::new(format!(
            "{} leads out of {} (--image-dir): name the image without `..` and links to absolute \
             paths",
            shown::path(path),
            directory.display()
        ))),
        Err(Errno::ENOSYS) => {
            Err(Failure::new("--image-dir needs Linux 5.6 or later: no disk is attached"))
        }
        Err(error) => Ok(Err(error.into())),
    }
}

/// `params` without a `/` at its beginning, and without a device of that name in `/dev`.
fn no_path(params: &Path, shown: &str) -> Failure {
    let value = params.as_os_str().to_string_lossy();
    let kind = value.split([':', '=', '.']).next().unwrap_or_default();
    let helps = match kind {
        "aio" | "vhd" | "tapdisk" | "tap" => {
            "name the file alone, or let the device's script be block-tap"
        }
        "iqn" | "iscsi" => "let the device's script be block-iscsi",
        "rbd" => "let the device's script be block-rbd",
        "nbd" => "let the device's script be block-nbd",
        "drbd" => "let the device's script be block-drbd",
        _ => "name it by its absolute path, or let the device's script be the one for such disks",
    };
    Failure::new(format!(
        "params is {}, no absolute path, and there is no block device {shown}: {helps}",
        shown::path(params)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refused(params: &Path, directories: &[PathBuf]) -> String {
        Image::find(params, directories).unwrap_err().words().to_owned()
    }

    #[test]
    fn params_that_is_no_path_names_the_script() {
        for (params, script) in [
            ("aio:/a.img", "block-tap"),
            ("rbd:pool/image", "block-rbd"),
            ("iqn.2001-05.com.example:disk", "block-iscsi"),
            ("iqn=iqn.2001-05.com.example:disk,portal=10.0.0.1", "block-iscsi"),
            ("nbd:server", "block-nbd"),
            ("drbd:mail", "block-drbd"),
            ("vg0/missing", "the one for such disks"),
        ] {
            let words = refused(Path::new(params), &[]);
            assert!(words.contains("no absolute path") && words.contains(script), "{words}");
        }
        assert!(refused(Path::new("/no/file"), &[]).contains("there is no file"));
    }

    #[test]
    fn image_dir_lets_no_path_and_no_link_out() {
        let root = tempfile::tempdir().unwrap();
        let (images, secret) = (root.path().join("images"), root.path().join("secret"));
        fs::create_dir_all(images.join("sub")).unwrap();
        fs::write(images.join("sub/disk"), "").unwrap();
        fs::write(&secret, "").unwrap();
        symlink("sub/disk", images.join("link")).unwrap();
        symlink("../secret", images.join("up")).unwrap();
        symlink(&secret, images.join("absolute")).unwrap();
        let directories = [PathBuf::from("/no/such/directory"), images.clone()];
        for name in ["sub/disk", "link", "./sub//disk", "sub/../sub/disk"] {
            let image = Image::find(&images.join(name), &directories).unwrap();
            assert_eq!((image.path, image.kind), (images.join("sub/disk"), ImageKind::File));
        }
        for name in ["up", "absolute", "../secret", "sub/../../secret"] {
            let words = refused(&images.join(name), &directories);
            assert!(words.contains("leads out of"), "{name}: {words}");
        }
        for path in [secret.clone(), images.join("../secret"), "null".into(), "/dev/null".into()] {
            let words = refused(&path, &directories);
            assert!(words.contains("(--image-dir)"), "{}: {words}", path.display());
        }
        assert!(refused(&images.join("none"), &directories).contains("there is no file"));
        Image::find(&secret, &[]).unwrap();
    }

    #[test]
    fn an_image_is_opened_by_what_it_was() {
        let root = tempfile::tempdir().unwrap();
        let (path, other) = (root.path().join("disk"), root.path().join("other"));
        fs::write(&path, "first").unwrap();
        fs::write(&other, "second").unwrap();
        let image = Image::find(&path, &[]).unwrap();
        fs::rename(&other, &path).unwrap();
        let file = image.open(File::options().read(true)).unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "first");
    }
}
