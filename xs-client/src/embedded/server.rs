//! The store on a unix socket.

use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::Store;
use super::reactor::Reactor;

/// A unix socket that a store is served on; dropping it closes the socket and all connections
/// that were made through it, and removes the path.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    _reactor: Reactor,
}

impl Server {
    pub(super) fn start(store: &Store, path: &Path, domid: u16) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let path = path.to_path_buf();
        let reactor = Reactor::start(store.state.clone(), Some((listener, domid)));
        let reactor = reactor.inspect_err(|_| remove(&path))?;
        Ok(Self { path, _reactor: reactor })
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    // An error means that another process has removed the socket already.
    let _ = fs::remove_file(path);
}
