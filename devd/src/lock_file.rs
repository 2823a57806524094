//! A file that one process holds: its holder has a write lock on it, and has written its process
//! id into it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A holder locks the file first and writes its process id next: how often, and after which
/// wait, an empty file is read again.
const READS: u32 = 50;
const READ_AGAIN: Duration = Duration::from_millis(10);

/// How often, and after which wait, a lock is tried again whose holder has ended.
const TRIES: u32 = 100;
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Held until it is dropped, which removes the file, or until the process ends.
///
/// A child of the process has the lock too, from its start until it runs another program. So a
/// process that is killed just then leaves the lock for a moment.
///
/// The lock belongs to the open file (`F_OFD_SETLK`) and asks for write access, and the file
/// has mode 0600: only its user can take the lock or keep others from it.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    locked: File,
}

#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it: this one, if it has written its id.
    Held(Option<i32>),
    Io(io::Error),
}

impl LockFile {
    /// Takes the lock, and writes the process id into the file, and this behind it.
    pub(crate) fn take(path: &Path, note: &str) -> Result<Self, LockError> {
        let mut tries = 0;
        let locked = loop {
            let file = open(path).map_err(LockError::Io)?;
            match try_lock(&file) {
                Ok(true) => {}
                Ok(false) => match holder(path) {
                    Some(pid) if tries < TRIES && has_ended(pid) => {
                        tries += 1;
                        thread::sleep(TRY_AGAIN);
                        continue;
                    }
                    pid => return Err(LockError::Held(pid)),
                },
                Err(error) => return Err(LockError::Io(error)),
            }
            // The last holder removes the file: a lock on that one keeps nobody away.
            if is_at(&file, path).map_err(LockError::Io)? {
                break file;
            }
        };
        let mut held = Self { path: path.to_owned(), locked };
        held.write(note).map_err(LockError::Io)?;
        Ok(held)
    }

    fn write(&mut self, note: &str) -> io::Result<()> {
        self.locked.set_permissions(Permissions::from_mode(0o600))?;
        self.locked.set_len(0)?;
        self.locked.write_all(format!("{}\n{note}", std::process::id()).as_bytes())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Opens the file, or makes it. Only a regular file will do: to open a FIFO could wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let file = options.mode(0o600).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// Locks the whole file for writing. False: another process, or another open file of this
/// one, has locked it.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    #[expect(clippy::cast_possible_truncation, reason = "the names are of small numbers")]
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The process id in a file that somebody holds.
fn holder(path: &Path) -> Option<i32> {
    for _ in 0..READS {
        let text = fs::read_to_string(path).unwrap_or_default();
        if let Some((pid, _)) = text.split_once('\n') {
            return pid.parse().ok();
        }
        thread::sleep(READ_AGAIN);
    }
    None
}

/// True if the process runs no program any more: it is gone, or a zombie.
fn has_ended(pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    program.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;

    #[test]
    fn a_second_holder_is_told_the_process_id_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let own = i32::try_from(std::process::id()).unwrap();
        let first = LockFile::take(&path, "note\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{own}\nnote\n"));
        assert!(matches!(LockFile::take(&path, ""), Err(LockError::Held(Some(pid))) if pid == own));
        drop(first);
        assert!(!path.exists());
        drop(LockFile::take(&path, "").unwrap());
    }

    #[test]
    fn a_lock_that_outlives_its_holder_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let inherited = open(&path).unwrap();
        assert!(try_lock(&inherited).unwrap());
        fs::write(&path, format!("{}\n", ended.id())).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(4 * TRY_AGAIN);
                drop(inherited);
            });
            drop(LockFile::take(&path, "").unwrap());
        });
    }

    #[test]
    fn a_file_that_anybody_could_read_becomes_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, "a longer text than a process id\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let _held = LockFile::take(&path, "").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_link_a_fifo_and_a_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("target"), "").unwrap();
        symlink(path("target"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        for name in ["link", "fifo", "."] {
            assert!(matches!(LockFile::take(&path(name), ""), Err(LockError::Io(_))), "{name}");
        }
        assert_eq!(fs::read_to_string(path("target")).unwrap(), "");
    }

    #[test]
    fn a_file_that_its_holder_removes_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let old = open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&old, &path).unwrap());
        let _held = LockFile::take(&path, "").unwrap();
        assert!(!is_at(&old, &path).unwrap());
        assert!(try_lock(&old).unwrap(), "nobody holds the removed one");
    }
}
