//! `block`: a guest's disk, which is a block device, or a file behind a loop device.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use devd_core::DeviceKey;

use super::claims::{self, Claim, Claims, Conflict, Extent, Identity, Mode};
use super::device_number::DeviceNumber;
use super::failure::{Failure, Step};
use super::file_id::FileId;
use super::loop_device::{self, LoopDevice};
use super::{Made, Success, local_use, thread};
use crate::descriptor;
use crate::shown;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) key: DeviceKey,
    /// The value of `params`: the device or the file. Empty for a drive without a disk.
    pub(crate) params: PathBuf,
    pub(crate) mode: Mode,
    /// The value of `physical-device`, if an earlier run had come as far as writing it.
    pub(crate) attached: Option<DeviceNumber>,
    pub(crate) claims: Claims,
}

/// What is in place.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Gone before the claim is, and the file free by then.
    device: Option<LoopDevice>,
    _claim: Claim,
}

impl Disk {
    /// See [`LoopDevice::keep_if_young`].
    pub(crate) fn keep_if_young(&self) {
        if let Some(device) = &self.device {
            device.keep_if_young();
        }
    }

    pub(crate) fn detach(self) -> Success {
        let done = match &self.device {
            Some(device) => {
                format!("{} goes as soon as blkback lets go of it", device.path.display())
            }
            None => String::new(),
        };
        Success { done, ..Success::default() }
    }
}

impl Attach {
    pub(crate) fn run(self) -> Result<Success, Failure> {
        if self.params.as_os_str().is_empty() {
            return Ok(Success { done: "a drive without a disk".into(), ..Success::default() });
        }
        // As upstream: a name without a directory is one in /dev.
        let path = Path::new("/dev").join(&self.params);
        let shown = shown::path(&path);
        let path = fs::canonicalize(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::new(format!("there is no file and no block device {shown}"))
            }
            _ => Failure::step(&format!("look at {shown}"), &error),
        })?;
        let file = fs::metadata(&path).step(|| format!("look at {}", shown::path(&path)))?;
        match file.file_type() {
            kind if kind.is_block_device() => self.attach_device(path, DeviceNumber(file.rdev())),
            kind if kind.is_file() => self.attach_file(&path),
            _ => {
                let shown = shown::path(&path);
                Err(Failure::new(format!("{shown} is neither a file nor a block device")))
            }
        }
    }

    fn attach_device(&self, path: PathBuf, number: DeviceNumber) -> Result<Success, Failure> {
        if self.mode != Mode::Read && number.is_read_only() {
            return Err(self.read_only(&path));
        }
        let claim = self.claim(&path, &claims::of_device(number))?;
        self.check_local_use(&path, &path, number)?;
        if let Some(attached) = self.attached.filter(|attached| *attached != number) {
            return Err(stuck(attached, &path));
        }
        let made = Some(Made::Disk(Disk { device: None, _claim: claim }));
        Ok(Success { made, ..success(&path, number, None) })
    }

    fn attach_file(&self, path: &Path) -> Result<Success, Failure> {
        let read_only = self.mode == Mode::Read;
        let file =
            File::options().read(true).write(!read_only).open(path).map_err(|error| match error
                .kind()
            {
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                    if !read_only =>
                {
                    self.read_only(path)
                }
                _ => Failure::step(&format!("open {}", shown::path(path)), &error),
            })?;
        let metadata = file.metadata().step(|| format!("look at {}", shown::path(path)))?;
        // Root may write it all the same; whoever has taken the right away did not mean that.
        if !read_only && metadata.mode() & 0o222 == 0 {
            return Err(self.read_only(path));
        }
        let id = FileId::of(&metadata);
        let whole = (Identity::File(id), Extent::Whole);
        let claim = self.claim(path, &[whole])?;
        // Mounted here by a loop device? Not if nobody has it open.
        if self.mode != Mode::Shared && !descriptor::is_alone(&file, !read_only) {
            for number in loop_device::all_of(id) {
                let device = PathBuf::from(format!("/dev/{}", number.name().unwrap_or_default()));
                self.check_local_use(path, &device, number)?;
            }
        }
        if let Some(attached) = self.attached {
            // Another had set it up, for blkback, which does not change its mind.
            if claims::of_device(attached).contains(&whole) {
                return Ok(self.take_over(attached, path, claim));
            }
            return Err(stuck(attached, path));
        }
        let device = LoopDevice::new(&file, path, read_only)?;
        let (place, number) = (device.path.clone(), device.number);
        let node = Some(place.as_os_str().as_bytes().to_owned());
        let made = Some(Made::Disk(Disk { device: Some(device), _claim: claim }));
        Ok(Success { made, ..success(&place, number, node) })
    }

    /// The loop device is there, and to be freed with the disk.
    fn take_over(&self, number: DeviceNumber, file: &Path, claim: Claim) -> Success {
        let name = format!("/dev/{}", number.name().unwrap_or_default());
        let found = Found {
            number: Some(number),
            node: name.clone().into_bytes(),
            params: file.to_owned(),
            _claim: Some(claim),
        };
        let made = Some(Made::FoundDisk(found));
        Success { made, ..success(Path::new(&name), number, Some(name.clone().into())) }
    }

    fn claim(&self, path: &Path, identities: &[(Identity, Extent)]) -> Result<Claim, Failure> {
        self.claims.claim(self.key, self.mode, identities).map_err(|Conflict(other, theirs)| {
            Failure::new(format!(
                "guest {} has {} already, {} ({other}); guest {} cannot have it {}, unless its mode \
                 is w!",
                other.domid,
                shown::path(path),
                theirs.words(),
                self.key.domid,
                self.mode.words(),
            ))
        })
    }

    fn check_local_use(
        &self,
        path: &Path,
        device: &Path,
        number: DeviceNumber,
    ) -> Result<(), Failure> {
        if self.mode == Mode::Shared {
            return Ok(());
        }
        let used = local_use::of(device, number, self.mode);
        match used.step(|| format!("open {}", shown::path(device)))? {
            None => Ok(()),
            Some(words) => Err(Failure::new(format!(
                "{} cannot be used {} by a guest, unless its mode is w!: {words}",
                shown::path(path),
                self.mode.words(),
            ))),
        }
    }

    fn read_only(&self, path: &Path) -> Failure {
        let words = self.mode.words();
        Failure::new(format!("{} is read-only and cannot be used {words}", shown::path(path)))
    }
}

/// blkback has opened something else, and keeps to what it was told first.
fn stuck(attached: DeviceNumber, path: &Path) -> Failure {
    Failure::new(format!(
        "physical-device is {} already, which is not {}: detach the device and attach it again",
        attached.physical_device(),
        shown::path(path)
    ))
}

/// `node` is for files only.
fn success(path: &Path, number: DeviceNumber, node: Option<Vec<u8>>) -> Success {
    let done = format!("{} ({number})", shown::path(path));
    let mut nodes = Vec::with_capacity(3);
    nodes.extend(node.map(|node| ("node", node)));
    // blkback opens it when it hears of this one.
    nodes.push(("physical-device", number.physical_device().into()));
    nodes.push(("physical-device-path", path.as_os_str().as_bytes().to_owned()));
    Success { done, nodes, ..Success::default() }
}

/// What an add hook of another daemon, or a script, has made.
#[derive(Debug)]
pub(crate) struct Found {
    /// The value of `physical-device`.
    pub(crate) number: Option<DeviceNumber>,
    /// The value of `node`: there is a loop device of this name if it is not empty.
    pub(crate) node: Vec<u8>,
    /// The value of `params`.
    pub(crate) params: PathBuf,
    /// That of the run that found it; others are kept elsewhere.
    pub(crate) _claim: Option<Claim>,
}

impl Found {
    /// Its loop device and its file, unless it can be seen at once that the one is behind the
    /// other: there may be none, as behind one that a daemon had made and that was killed before
    /// blkback had opened it, or another by now.
    pub(crate) fn doubtful(&self) -> Option<(DeviceNumber, PathBuf)> {
        let number = self.loop_number()?;
        let doubtful = !loop_device::is_behind(&self.params, number);
        doubtful.then(|| (number, self.params.clone()))
    }

    pub(crate) fn detach(&self) -> Result<Success, Failure> {
        let done = match self.loop_number() {
            Some(number) => loop_device::release(number, &self.params)?,
            None => String::new(),
        };
        Ok(Success { done, ..Success::default() })
    }

    fn loop_number(&self) -> Option<DeviceNumber> {
        self.number.filter(|number| number.is_loop() && !self.node.is_empty())
    }
}

/// Says which of these loop devices have lost their files. Those may be known by links, on servers
/// that do not answer: it is a thread that looks at them.
pub(crate) fn tell_lost(disks: Vec<(DeviceKey, (DeviceNumber, PathBuf))>) {
    let looked = thread::spawn(|| {
        for (key, (number, file)) in disks {
            if !loop_device::is_behind(&loop_device::real(&file), number) {
                log::error!(
                    "{key}: its loop device has lost its file: detach the disk and attach it again"
                );
            }
        }
    });
    if let Err(error) = looked {
        log::error!("cannot see whether loop devices have their files: {error}");
    }
}
