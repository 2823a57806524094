//! The token by which a daemon recognises what an earlier one has started.
//!
//! Every hook and every QEMU has the token in its environment, as `DEVD_TOKEN`. The token is kept
//! in the run directory, in a file that only the daemon's user can read.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::Uid;

/// The variable of the environment.
pub(crate) const VARIABLE: &str = "DEVD_TOKEN";
/// The file in the run directory.
pub(crate) const FILE: &str = "token";

/// As the kernel writes a random UUID.
const LENGTH: usize = 36;

/// A token that others cannot guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// The token in this file. One is made if the file is not there, or if others could have
    /// read or written it.
    ///
    /// # Errors
    ///
    /// The file can be neither read nor written.
    pub(crate) fn load_or_make(file: &Path) -> io::Result<Self> {
        match Self::load(file)? {
            Some(token) => Ok(token),
            None => Self::make(file),
        }
    }

    /// A token that no later daemon knows.
    pub(crate) fn random() -> io::Result<Self> {
        let token = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        Ok(Self(token.trim().to_owned()))
    }

    pub(crate) fn value(&self) -> &OsStr {
        OsStr::new(&self.0)
    }

    /// The token in this file, if there is one that nobody else can know.
    pub(crate) fn load(path: &Path) -> io::Result<Option<Self>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != Uid::effective().as_raw() || found.mode() & 0o77 != 0
        {
            log::warn!("{}: others can read or write the token; making another", path.display());
            return Ok(None);
        }
        let mut text = String::new();
        let length = LENGTH as u64 + 1;
        let read = file.take(length).read_to_string(&mut text);
        // A file that is cut off, or has something else in it.
        let usable = read.is_ok() && text.len() == LENGTH && text.bytes().all(is_usable);
        Ok(usable.then_some(Self(text)))
    }

    /// The whole token is in the file, or none is: a daemon may be killed at any time.
    fn make(path: &Path) -> io::Result<Self> {
        let token = Self::random()?;
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(token.0.as_bytes())?;
        fs::rename(new, path)?;
        Ok(token)
    }
}

fn is_usable(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn load(path: &Path) -> Token {
        Token::load_or_make(path).unwrap()
    }

    #[test]
    fn token_is_kept_for_the_next_daemon_and_for_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let token = load(&path);
        assert_eq!(load(&path), token);
        assert_eq!(token.value().len(), LENGTH);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_ne!(load(&directory.path().join("another")), token);
    }

    #[test]
    fn token_that_others_may_know_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        for spoil in [
            |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap(),
            |path: &Path| fs::write(path, "").unwrap(),
            |path: &Path| fs::write(path, [b'a'; LENGTH + 1]).unwrap(),
            |path: &Path| fs::write(path, [0xff; LENGTH]).unwrap(),
        ] {
            let token = load(&path);
            spoil(&path);
            assert_ne!(load(&path), token);
        }
    }

    #[test]
    fn token_file_that_is_a_link_or_no_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        load(&path("real"));
        symlink(path("real"), path("link")).unwrap();
        assert!(Token::load_or_make(&path("link")).is_err());
        assert!(Token::load_or_make(&path("no/such/directory")).is_err());
    }
}
