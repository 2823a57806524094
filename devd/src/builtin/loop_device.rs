//! Loop devices: block devices that a file is behind.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::device_number::DeviceNumber;
use super::failure::{Failure, Step};
use super::file_id::FileId;
use crate::descriptor::{self, LoopInfo};
use crate::shown;

const CONTROL: &str = "/dev/loop-control";
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// By then blkback has long opened a device that it was told of.
const YOUTH: Duration = Duration::from_secs(10);
/// How often somebody else may be faster in taking the free device.
const TRIES: u32 = 64;

/// A loop device that goes when nobody has it open any more.
///
/// As long as this lives, it does not: blkback has it open for itself from the moment that it
/// reads `physical-device`, which nobody is told of, so it is kept until the removal hook.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    device: File,
    made: Instant,
    pub(crate) path: PathBuf,
    pub(crate) number: DeviceNumber,
}

impl LoopDevice {
    /// Puts the file behind a free loop device.
    pub(crate) fn new(file: &File, name: &Path, read_only: bool) -> Result<Self, Failure> {
        let control = File::options().read(true).write(true).open(CONTROL);
        let control = control.step(|| {
            format!("open {CONTROL} (is the kernel's loop module loaded, and devtmpfs on /dev?)")
        })?;
        let info = info(name, read_only);
        for _ in 0..TRIES {
            let number =
                descriptor::free_loop(&control).step(|| "find a free loop device".into())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            // To be written whatever the disk is: so it takes no capability to change it.
            let device = File::options().read(true).write(true).open(&path);
            let device =
                device.step(|| format!("open {} (is devtmpfs on /dev?)", path.display()))?;
            match set_up(&device, file, &info) {
                Ok(()) => {
                    let number =
                        device.metadata().step(|| format!("look at {}", path.display()))?;
                    let number = DeviceNumber(number.rdev());
                    return Ok(Self { device, made: Instant::now(), path, number });
                }
                // Somebody else was faster.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => {
                    let step = format!("put {} behind {}", shown::path(name), path.display());
                    return Err(Failure::step(&step, &error));
                }
            }
        }
        let tries =
            format!("{TRIES} loop devices were free, and taken by others in the last moment");
        Err(Failure::new(tries))
    }

    /// The daemon ends. A device that blkback may not have opened yet is to stay all the same;
    /// the next daemon frees it, as it does those of scripts.
    pub(crate) fn keep_if_young(&self) {
        if self.made.elapsed() > YOUTH {
            return;
        }
        let kept = descriptor::loop_info(&self.device).and_then(|mut info| {
            info.flags &= !LO_FLAGS_AUTOCLEAR;
            descriptor::set_loop_info(&self.device, &info)
        });
        if let Err(error) = kept {
            log::warn!("{}: cannot make it stay: {error}", self.path.display());
        }
    }
}

fn info(name: &Path, read_only: bool) -> LoopInfo {
    // The kernel leaves direct I/O out where the file system has none.
    let mut info = LoopInfo::EMPTY;
    info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    if read_only {
        info.flags |= LO_FLAGS_READ_ONLY;
    }
    let name = name.as_os_str().as_bytes();
    let len = name.len().min(info.file_name.len() - 1);
    info.file_name[..len].copy_from_slice(&name[..len]);
    info
}

fn set_up(device: &File, file: &File, info: &LoopInfo) -> io::Result<()> {
    match descriptor::configure_loop(device, file, info) {
        // Linux before 5.8 does not know that request.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => {
            descriptor::set_loop_file(device, file)?;
            // Direct I/O cannot be asked for so.
            let mut info = *info;
            info.flags = LO_FLAGS_AUTOCLEAR;
            let result = descriptor::set_loop_info(device, &info);
            if result.is_err() {
                let _ = descriptor::clear_loop(device);
            }
            result
        }
        result => result,
    }
}

/// The file behind a loop device, if there is one.
pub(crate) fn backing(number: DeviceNumber) -> Option<FileId> {
    let device = File::open(format!("/dev/{}", number.name()?)).ok()?;
    let info = descriptor::loop_info(&device).ok()?;
    Some(FileId { device: info.device, inode: info.inode })
}

/// All loop devices that this file is behind.
pub(crate) fn all_of(file: FileId) -> Vec<DeviceNumber> {
    let Ok(devices) = fs::read_dir("/sys/block") else { return Vec::new() };
    let numbers = devices.flatten().filter_map(|entry| {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
            return None;
        }
        Some(DeviceNumber(fs::metadata(Path::new("/dev").join(name)).ok()?.rdev()))
    });
    numbers.filter(|number| backing(*number) == Some(file)).collect()
}

/// Is the file of this name, which is no link's, behind the loop device? The file is not looked
/// at.
pub(crate) fn is_behind(file: &Path, number: DeviceNumber) -> bool {
    backing_name(number) == file.as_os_str().as_bytes()
}

/// The name of the file behind a loop device, also of one that is deleted; empty if there is
/// none.
fn backing_name(number: DeviceNumber) -> Vec<u8> {
    let name = fs::read(number.sysfs("loop/backing_file")).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    name.strip_suffix(b" (deleted)").unwrap_or(name).to_owned()
}

/// The file that a name leads to, by links that may be gone.
pub(crate) fn real(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

/// Takes the file from a loop device that another program has set up, if it is this file. One
/// that goes by itself is left alone. Says what was done.
pub(crate) fn release(number: DeviceNumber, file: &Path) -> Result<String, Failure> {
    let Some(name) = number.name() else { return Ok(format!("no loop device is {number}")) };
    let backing = backing_name(number);
    if backing.is_empty() {
        return Ok(format!("{name} is free already"));
    }
    if !is_behind(file, number) && !is_behind(&real(file), number) {
        let shown = shown::value(&backing);
        return Ok(format!(
            "{name} is left alone: behind it is {shown}, not {}",
            shown::path(file)
        ));
    }
    let device = File::open(format!("/dev/{name}")).step(|| format!("open /dev/{name}"))?;
    let info = descriptor::loop_info(&device).step(|| format!("ask what is behind {name}"))?;
    if info.flags & LO_FLAGS_AUTOCLEAR == 0 {
        descriptor::clear_loop(&device).step(|| format!("free {name}"))?;
    }
    Ok(format!("{name} is free"))
}
