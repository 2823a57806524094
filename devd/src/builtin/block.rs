//! `block`: a guest's disk, which is a block device, or a file behind a loop device.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use devd_core::DeviceKey;

use super::backing::{self, Backing, Owner};
use super::claims::{self, Claim, Claims, Conflict, Extent, Identity, Mode};
use super::device_number::DeviceNumber;
use super::failure::{Failure, Step};
use super::file_id::FileId;
use super::image::{Image, ImageKind};
use super::local_use::{self, LocalUse};
use super::loop_device::{self, Candidate, LoopDevice, SECTOR};
use super::{Made, Success};
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
    /// The directories of `--image-dir`.
    pub(crate) image_dirs: Arc<[PathBuf]>,
}

/// What is in place.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Gone before the claim is, and the file free by then.
    device: Option<LoopDevice>,
    /// Held exclusively if the guest alone writes the disk, or root could mount it meanwhile.
    _hold: Option<Arc<File>>,
    _claim: Claim,
    backing: Backing,
}

impl Disk {
    /// See [`LoopDevice::keep_if_young`].
    pub(crate) fn keep_if_young(&self) -> Option<impl FnOnce() + Send + use<>> {
        self.device.as_ref()?.keep_if_young()
    }

    /// The kernel must still have this.
    pub(crate) fn backing(&self) -> Backing {
        self.backing
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
        let image = Image::find(&self.params, &self.image_dirs)?;
        match image.kind {
            ImageKind::Device(number) => self.attach_device(&image, number),
            ImageKind::File => self.attach_file(&image),
        }
    }

    fn attach_device(&self, image: &Image, number: DeviceNumber) -> Result<Success, Failure> {
        let path = &image.path;
        if self.mode != Mode::Read && number.is_read_only() {
            return Err(self.read_only(path));
        }
        let file = loop_device::file_name(number.disk().unwrap_or(number));
        let claim = self.claim(path, &claims::of_device(number), file.as_deref())?;
        let hold = self.check_local_use(path, &image.own_path(), number)?;
        if let Some(attached) = self.attached.filter(|attached| *attached != number) {
            return Err(stuck(attached, path));
        }
        let backing = Backing { number, file: None };
        let made = Some(Made::Disk(Disk { device: None, _hold: hold, _claim: claim, backing }));
        Ok(Success { made, ..success(path, number, None) })
    }

    fn attach_file(&self, image: &Image) -> Result<Success, Failure> {
        let path = &*image.path;
        let read_only = self.mode == Mode::Read;
        let file =
            image.open(File::options().read(true).write(!read_only)).map_err(
                |error| match error.kind() {
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                        if !read_only =>
                    {
                        self.read_only(path)
                    }
                    _ => Failure::step(&format!("open {}", shown::path(path)), &error),
                },
            )?;
        // Root may write it all the same; whoever has taken the right away did not mean that.
        if !read_only && image.metadata.mode() & 0o222 == 0 {
            return Err(self.read_only(path));
        }
        let id = FileId::of(&image.metadata);
        let whole = (Identity::File(id), Extent::Whole);
        let claim = self.claim(path, &[whole], Some(path))?;
        // Mounted here by a loop device? Not if nobody has it open.
        if self.mode != Mode::Shared && !descriptor::is_alone(&file, !read_only) {
            for candidate in loop_device::all_of(id, path, &self.claims.all_held()) {
                let number = match candidate {
                    Candidate::Has(number) => number,
                    Candidate::MayHave(number) => return Err(unanswered(path, number)),
                };
                let device = PathBuf::from(format!("/dev/{}", number.name().unwrap_or_default()));
                self.check_local_use(path, &device, number)?;
            }
        }
        if let Some(attached) = self.attached {
            // Another had set it up, for blkback, which does not change its mind.
            if claims::of_device(attached).contains(&whole) {
                return Ok(self.take_over(attached, path, id, claim));
            }
            return Err(stuck(attached, path));
        }
        let device = LoopDevice::new(&file, path, self.key, self.mode)?;
        let (place, number) = (device.path.clone(), device.number);
        let hold = (self.mode == Mode::Write).then(|| self.claims.hold(number, device.device()));
        let node = Some(place.as_os_str().as_bytes().to_owned());
        let mut success = success(&place, number, node);
        if device.direct_io {
            success.done += ", direct I/O";
        } else {
            success.done += ", no direct I/O";
            success.notes.push(format!(
                "{} works without direct I/O: the file system of {} has none for sectors of \
                 {SECTOR} bytes, which guests need",
                place.display(),
                shown::path(path)
            ));
        }
        success.remarks.extend(odd_size(path, image.metadata.len()));
        let backing = Backing { number, file: Some(id) };
        let disk = Disk { device: Some(device), _hold: hold, _claim: claim, backing };
        success.made = Some(Made::Disk(disk));
        Ok(success)
    }

    /// The loop device is there, and to be freed with the disk.
    fn take_over(&self, number: DeviceNumber, file: &Path, id: FileId, claim: Claim) -> Success {
        let name = format!("/dev/{}", number.name().unwrap_or_default());
        let writes = self.mode == Mode::Write;
        let hold = if writes { hold_found(self.key, number, &self.claims) } else { None };
        let found = Found {
            key: self.key,
            number: Some(number),
            node: name.clone().into_bytes(),
            params: file.to_owned(),
            mode: self.mode,
            seen: Arc::new(OnceLock::from(Seen { file: Some(id), _hold: hold })),
            _claim: Some(claim),
        };
        let made = Some(Made::FoundDisk(found));
        Success { made, ..success(Path::new(&name), number, Some(name.clone().into())) }
    }

    fn claim(
        &self,
        path: &Path,
        identities: &[(Identity, Extent)],
        file: Option<&Path>,
    ) -> Result<Claim, Failure> {
        self.claims.claim(self.key, self.mode, identities, file).map_err(|conflict| {
            let (other, theirs, has) = match conflict {
                Conflict::Has(other, theirs) => (other, theirs, "has"),
                Conflict::MayHave(other, theirs) => (other, theirs, "may have"),
            };
            let unknown = match conflict {
                Conflict::Has(..) => "",
                Conflict::MayHave(..) => {
                    "; the server of that guest's file does not answer, so which file it is \
                     is not known"
                }
            };
            Failure::new(format!(
                "guest {} {has} {} already, {} ({other}); guest {} cannot have it {}, unless its \
                 mode is w!{unknown}",
                other.domid,
                shown::path(path),
                theirs.words(),
                self.key.domid,
                self.mode.words(),
            ))
        })
    }

    /// Sees that this domain does not use the device, and keeps it from doing so if the guest
    /// alone is to write it.
    fn check_local_use(
        &self,
        path: &Path,
        device: &Path,
        number: DeviceNumber,
    ) -> Result<Option<Arc<File>>, Failure> {
        if self.mode == Mode::Shared {
            return Ok(None);
        }
        if let Some(hold) = self.claims.held(number) {
            return Ok(Some(hold)); // For another disk of the same guest.
        }
        let used = local_use::of(device, number, self.mode, &self.claims.all_held());
        match used.step(|| format!("open {}", shown::path(path)))? {
            LocalUse::Free(Some(file)) if self.mode == Mode::Write => {
                Ok(Some(self.claims.hold(number, Arc::new(file))))
            }
            LocalUse::Free(_) => Ok(None),
            LocalUse::Used(words) => Err(Failure::new(format!(
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

fn unanswered(path: &Path, number: DeviceNumber) -> Failure {
    let name = number.name().unwrap_or_default();
    let path = shown::path(path);
    Failure::new(format!(
        "{path} may be mounted here by {name}: the server of that one's file does not answer, so \
         which file it is is not known"
    ))
}

/// Warns of a file that the guest does not see to its end. Xen's script attaches it too.
fn odd_size(path: &Path, bytes: u64) -> Option<Failure> {
    let shown = shown::path(path);
    match (bytes, bytes % u64::from(SECTOR)) {
        (0, _) => Some(Failure::new(format!("{shown} is empty: the guest gets a disk of size 0"))),
        (_, 0) => None,
        (_, rest) => Some(Failure::new(format!(
            "{shown} has {bytes} bytes, which is no whole number of sectors: the guest does not \
             see the last {rest}"
        ))),
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
    pub(crate) key: DeviceKey,
    /// The value of `physical-device`.
    pub(crate) number: Option<DeviceNumber>,
    /// The value of `node`: there is a loop device of this name if it is not empty.
    pub(crate) node: Vec<u8>,
    /// The value of `params`.
    pub(crate) params: PathBuf,
    pub(crate) mode: Mode,
    /// Set by the look at it, while it was in use.
    pub(crate) seen: Arc<OnceLock<Seen>>,
    /// That of the run that found it; others are kept elsewhere.
    pub(crate) _claim: Option<Claim>,
}

/// The result of a look at a disk in use.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The file behind its loop device.
    file: Option<FileId>,
    _hold: Option<Arc<File>>,
}

impl Found {
    /// Looks whether the disk has its file, and keeps this domain from mounting one that its
    /// guest alone writes. The work is for a thread of its own: the file's server may be away.
    pub(crate) fn look(&self, claims: &Claims) -> Option<impl FnOnce() + Send + use<>> {
        let (key, number, mode) = (self.key, self.number?, self.mode);
        let loop_number = self.loop_number();
        let (params, seen, claims) = (self.params.clone(), self.seen.clone(), claims.clone());
        Some(move || {
            let owner = loop_number.map(|number| (number, backing::owner(key, number, &params)));
            // The removal hook drops its own before it frees the loop device: that one is not lost.
            let is_attached = Arc::strong_count(&seen) > 1;
            let file = match owner {
                Some((_, Owner::Device(file))) => Some(file),
                Some((number, owner)) if is_attached => {
                    tell_owner(key, number, &params, &owner);
                    None
                }
                Some(_) | None => None,
            };
            let hold = if mode == Mode::Write && loop_number.is_some() == file.is_some() {
                hold_found(key, number, &claims)
            } else {
                None
            };
            let _ = seen.set(Seen { file, _hold: hold });
        })
    }

    /// The kernel must still have this; `None` as long as the file is not known.
    pub(crate) fn backing(&self) -> Option<Backing> {
        let number = self.number?;
        match self.loop_number() {
            None => Some(Backing { number, file: None }),
            Some(_) => {
                Some(Backing { number, file: Some(self.seen.get().and_then(|seen| seen.file)?) })
            }
        }
    }

    pub(crate) fn detach(self) -> Result<Success, Failure> {
        let Some(number) = self.loop_number() else { return Ok(Success::default()) };
        let name = number.name().unwrap_or_default();
        if !self.node.ends_with(name.as_bytes()) {
            let node = shown::value(&self.node);
            return Ok(left_alone(format!(
                "{name} is left alone: physical-device is {}, and node is {node}",
                number.physical_device()
            )));
        }
        let seen = self.seen.get().and_then(|seen| seen.file);
        let now = loop_device::backing(number);
        // Close the hold first, or the loop device is in use.
        drop(self.seen);
        let owner = match (seen, now) {
            (_, None) => Owner::Nobody,
            (Some(seen), Some(now)) if seen == now => Owner::Device(now),
            (Some(_), Some(_)) => {
                Owner::OtherFile(loop_device::file_name(number).unwrap_or_default())
            }
            (None, Some(_)) => backing::owner(self.key, number, &self.params),
        };
        Ok(match owner {
            Owner::Device(_) => Success { done: loop_device::free(number)?, ..Success::default() },
            Owner::Nobody => {
                Success { done: format!("{name} is free already"), ..Success::default() }
            }
            Owner::OtherDevice => {
                left_alone(format!("{name} is left alone: it is another device's by now"))
            }
            Owner::OtherFile(file) => left_alone(format!(
                "{name} is left alone: behind it is {}, not {}; free it with losetup -d if \
                 nothing uses it",
                shown::path(&file),
                shown::path(&self.params)
            )),
        })
    }

    fn loop_number(&self) -> Option<DeviceNumber> {
        self.number.filter(|number| number.is_loop() && !self.node.is_empty())
    }
}

fn left_alone(why: String) -> Success {
    Success { notes: vec![why], ..Success::default() }
}

/// Tells the log of a disk in use whose loop device is not its own.
fn tell_owner(key: DeviceKey, number: DeviceNumber, params: &Path, owner: &Owner) {
    match owner {
        Owner::Device(_) => {}
        Owner::Nobody | Owner::OtherDevice => log::error!(
            "{key}: its loop device has lost its file: detach the disk and attach it again"
        ),
        Owner::OtherFile(file) => log::warn!(
            "{key}: behind {} is {}, not {}: was params changed, or the loop device taken for \
             something else? Look at what the guest reads; the loop device is left alone",
            number.name().unwrap_or_default(),
            shown::path(file),
            shown::path(params)
        ),
    }
}

/// Takes a guest's disk for itself, as the daemon that attached it had it.
fn hold_found(key: DeviceKey, number: DeviceNumber, claims: &Claims) -> Option<Arc<File>> {
    if let Some(hold) = claims.held(number) {
        return Some(hold);
    }
    let path = PathBuf::from(format!("/dev/{}", number.name()?));
    match local_use::of(&path, number, Mode::Write, &claims.all_held()) {
        Ok(LocalUse::Free(file)) => Some(claims.hold(number, Arc::new(file?))),
        Ok(LocalUse::Used(words)) => {
            log::warn!("{key}: its guest writes {}, and {words}: stop one of them", path.display());
            None
        }
        Err(error) => {
            log::warn!("{key}: cannot keep others from {}: {error}", path.display());
            None
        }
    }
}
