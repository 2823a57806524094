//! Loop devices: block devices that a file is behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use devd_core::DeviceKey;

use super::claims::Mode;
use super::device_number::DeviceNumber;
use super::failure::{Failure, Step};
use super::file_id::FileId;
use super::file_system::FileSystems;
use super::thread;
use crate::descriptor::{self, LoopInfo};
use crate::shown;

const CONTROL: &str = "/dev/loop-control";
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// The size of a disk's sectors, in bytes, whatever the sectors of the disk below are: an image
/// that was partitioned with these is misread with any other.
pub(crate) const SECTOR: u32 = 512;
/// A daemon begins `lo_file_name` with this; the device follows.
pub(crate) const TAG: &[u8] = b"devd ";
/// The most bytes that fit `lo_file_name`.
pub(crate) const NOTED_LEN: usize = 63;
/// By then blkback has long opened a device that it was told of.
const YOUTH: Duration = Duration::from_secs(10);
/// How long the kernel may take to tell which file is behind a loop device.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often somebody else may be faster in taking the free device.
const TRIES: u32 = 64;

/// A loop device that goes when nobody has it open any more.
///
/// As long as this lives, it does not: blkback has it open for itself from the moment that it
/// reads `physical-device`, which nobody is told of, so it is kept until the removal hook. A disk
/// that its guest alone writes is open exclusively, so that nothing here mounts it meanwhile.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    device: Arc<File>,
    made: Instant,
    key: DeviceKey,
    mode: Mode,
    pub(crate) path: PathBuf,
    pub(crate) number: DeviceNumber,
    pub(crate) direct_io: bool,
}

impl LoopDevice {
    /// Puts the file behind a free loop device, for this device.
    pub(crate) fn new(
        file: &File,
        name: &Path,
        key: DeviceKey,
        mode: Mode,
    ) -> Result<Self, Failure> {
        let control = File::options().read(true).write(true).open(CONTROL);
        let control = control.step(|| {
            format!("open {CONTROL} (is the kernel's loop module loaded, and devtmpfs on /dev?)")
        })?;
        let info = wanted(key, mode);
        let exclusive = if mode == Mode::Write { libc::O_EXCL } else { 0 };
        for _ in 0..TRIES {
            let number =
                descriptor::free_loop(&control).step(|| "find a free loop device".into())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            // To be written whatever the disk is: so it takes no capability to change it.
            let device = File::options().read(true).write(true).custom_flags(exclusive).open(&path);
            let made = device.and_then(|device| {
                set_up(&device, file, &info)?;
                let flags = descriptor::loop_info(&device)?.flags;
                let number = DeviceNumber(device.metadata()?.rdev());
                Ok((device, number, flags & LO_FLAGS_DIRECT_IO != 0))
            });
            match made {
                Ok((device, number, direct_io)) => {
                    return Ok(Self {
                        device: Arc::new(device),
                        made: Instant::now(),
                        key,
                        mode,
                        path,
                        number,
                        direct_io,
                    });
                }
                // Somebody else was faster.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => {
                    let step = format!(
                        "put {} behind {} (is devtmpfs on /dev?)",
                        shown::path(name),
                        path.display()
                    );
                    return Err(Failure::step(&step, &error));
                }
            }
        }
        let tries =
            format!("{TRIES} loop devices were free, and taken by others in the last moment");
        Err(Failure::new(tries))
    }

    pub(crate) fn device(&self) -> Arc<File> {
        self.device.clone()
    }

    /// The daemon ends. A device that blkback may not have opened yet is to stay all the same;
    /// the next daemon frees it, as it does those of scripts. The kernel waits for what is being
    /// read and written, so the work is for a thread of its own.
    pub(crate) fn keep_if_young(&self) -> Option<impl FnOnce() + Send + use<>> {
        let is_young = self.made.elapsed() <= YOUTH;
        let (device, path) = (self.device.clone(), self.path.clone());
        let mut info = wanted(self.key, self.mode);
        is_young.then_some(move || {
            info.flags &= !LO_FLAGS_AUTOCLEAR;
            if let Err(error) = descriptor::set_loop_info(&device, &info) {
                log::warn!("{}: cannot make it stay: {error}", path.display());
            }
        })
    }
}

/// The settings of a new loop device.
fn wanted(key: DeviceKey, mode: Mode) -> LoopInfo {
    let mut info = LoopInfo::EMPTY;
    info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    if mode == Mode::Read {
        info.flags |= LO_FLAGS_READ_ONLY;
    }
    let tag = [TAG, key.to_string().as_bytes()].concat();
    let len = tag.len().min(NOTED_LEN);
    info.file_name[..len].copy_from_slice(&tag[..len]);
    info
}

fn set_up(device: &File, file: &File, info: &LoopInfo) -> io::Result<()> {
    match descriptor::configure_loop(device, file, SECTOR, info) {
        // Linux before 5.8 does not know that request.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => {
            set_up_in_steps(device, file, info)
        }
        result => result,
    }
}

/// The same for older kernels.
fn set_up_in_steps(device: &File, file: &File, info: &LoopInfo) -> io::Result<()> {
    descriptor::set_loop_file(device, file)?;
    // Direct I/O and being read-only cannot be asked for so; a file that was opened to be read
    // makes the loop device read-only.
    let mut info = *info;
    info.flags = LO_FLAGS_AUTOCLEAR;
    let result = descriptor::set_loop_info(device, &info);
    if result.is_err() {
        let _ = descriptor::clear_loop(device);
        return result;
    }
    match descriptor::set_loop_direct_io(device) {
        // The file has none for sectors of this size.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

/// The settings of a loop device, if a file is behind it. The kernel asks the file's server.
pub(crate) fn info(number: DeviceNumber) -> Option<LoopInfo> {
    let device = File::open(format!("/dev/{}", number.name()?)).ok()?;
    descriptor::loop_info(&device).ok()
}

/// The file behind a loop device, if there is one. The kernel asks the file's server.
pub(crate) fn backing(number: DeviceNumber) -> Option<FileId> {
    let info = info(number)?;
    Some(FileId { device: info.device, inode: info.inode })
}

/// The value of `lo_file_name`; `losetup` writes the file's name.
pub(crate) fn noted_name(info: &LoopInfo) -> &[u8] {
    info.file_name.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A loop device that a file may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// The file is behind it.
    Has(DeviceNumber),
    /// The file may be behind it: the kernel has not answered in time.
    MayHave(DeviceNumber),
}

/// The loop devices that this file is or may be behind. `known` are left out, and so are those
/// whose file lies on another file system: a file whose server is away must not stop others.
pub(crate) fn all_of(file: FileId, path: &Path, known: &[DeviceNumber]) -> Vec<Candidate> {
    let Ok(devices) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mounted = FileSystems::read();
    let own = mounted.of(path);
    let numbers = devices.flatten().filter_map(|entry| {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
            return None;
        }
        Some(DeviceNumber(fs::metadata(Path::new("/dev").join(name)).ok()?.rdev()))
    });
    let near = numbers.filter(|number| {
        let name = file_name(*number);
        !known.contains(number) && name.is_some_and(|name| mounted.of(&name) == own)
    });
    let candidates = near.filter_map(|number| match ask(number) {
        Some(behind) => (behind == Some(file)).then_some(Candidate::Has(number)),
        None => Some(Candidate::MayHave(number)),
    });
    candidates.collect()
}

/// The loop devices that threads wait for.
static ASKED: Mutex<Vec<DeviceNumber>> = Mutex::new(Vec::new());

/// Asks which file is behind a loop device, in a thread of its own; `None` if there is no answer
/// in time. One that has not answered yet is not asked again.
fn ask(number: DeviceNumber) -> Option<Option<FileId>> {
    let asked = || ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    if asked().contains(&number) {
        return None;
    }
    asked().push(number);
    let (sender, receiver) = mpsc::channel();
    let answer = move || {
        let answer = backing(number);
        asked().retain(|other| *other != number);
        let _ = sender.send(answer);
    };
    if thread::spawn(answer).is_err() {
        asked().retain(|other| *other != number);
        return None;
    }
    receiver.recv_timeout(PATIENCE).ok()
}

/// The name of the file behind a loop device as it is now; ` (deleted)` is behind that of one
/// that is. The kernel does not ask the file's server.
pub(crate) fn file_name(number: DeviceNumber) -> Option<PathBuf> {
    let name = fs::read(number.sysfs("loop/backing_file")).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    (!name.is_empty()).then(|| path(name))
}

pub(crate) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Frees a loop device. One with autoclear is left to free itself.
pub(crate) fn free(number: DeviceNumber) -> Result<String, Failure> {
    let Some(name) = number.name() else { return Ok(format!("no loop device is {number}")) };
    let device = File::open(format!("/dev/{name}")).step(|| format!("open /dev/{name}"))?;
    let info = descriptor::loop_info(&device).step(|| format!("ask what is behind {name}"))?;
    if info.flags & LO_FLAGS_AUTOCLEAR == 0 {
        descriptor::clear_loop(&device).step(|| format!("free {name}"))?;
    }
    Ok(format!("{name} is free"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use devd_core::Kind;

    #[test]
    #[ignore = "needs root and loop devices: run .ci/test"]
    fn old_kernels_way_makes_the_same_loop_device() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, [0; 8192]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let key = DeviceKey { kind: Kind::Vbd, domid: 3, devid: 51712 };
        let control = File::options().read(true).write(true).open(CONTROL).unwrap();
        let made = (0..TRIES).find_map(|_| {
            let number = descriptor::free_loop(&control).unwrap();
            let device = File::options().read(true).write(true).open(format!("/dev/loop{number}"));
            let device = device.unwrap();
            set_up_in_steps(&device, &file, &wanted(key, Mode::Write)).ok().map(|()| device)
        });
        let device = made.expect("a free loop device");
        let info = descriptor::loop_info(&device).unwrap();
        assert_eq!(info.inode, file.metadata().unwrap().ino());
        assert_ne!(info.flags & LO_FLAGS_AUTOCLEAR, 0);
        assert_eq!(noted_name(&info), b"devd backend/vbd/3/51712");
        let number = DeviceNumber(device.metadata().unwrap().rdev());
        let size = fs::read_to_string(number.sysfs("queue/logical_block_size")).unwrap();
        assert_eq!(size.trim(), "512");
    }
}
