//! A file system that can stop answering: FUSE, by hand.
//!
//! The test's process serves it, so it ends with the test, however that ends; a request that is
//! not answered is answered by the end of the connection.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where file systems are mounted that may have requests without an answer.
static MOUNTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How long any request is without an answer: loop devices are the whole machine's, and so others
/// wait too.
const LONGEST: Duration = Duration::from_secs(60);

/// What any file has in it: zeros.
const SIZE: u64 = 1 << 20;
const ROOT: u64 = 1;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// A directory in which every name is a file of zeros, mounted until this is dropped.
pub struct Fuse {
    place: PathBuf,
    hangs: Arc<Mutex<Vec<String>>>,
    /// A request was not answered.
    hung: Arc<AtomicBool>,
    /// Dropped with this.
    _ended: Sender<()>,
}

impl Fuse {
    pub fn mount(place: &Path) -> Self {
        fs::create_dir(place).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("test"), place, Some("fuse"), flags, Some(&*options)).unwrap();
        let hangs = Arc::new(Mutex::new(Vec::new()));
        let hung = Arc::new(AtomicBool::new(false));
        let mut server = Server {
            device,
            names: HashMap::new(),
            hangs: Arc::clone(&hangs),
            hung: Arc::clone(&hung),
        };
        thread::spawn(move || server.serve());
        MOUNTED.lock().unwrap().push(place.to_owned());
        let (ended, end) = mpsc::channel();
        let watched = place.to_owned();
        thread::spawn(move || {
            if end.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                abort(&watched);
            }
        });
        Self { place: place.to_owned(), hangs, hung, _ended: ended }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// From now on nothing that is asked of this file has an answer.
    pub fn hang(&self, name: &str) {
        self.hangs.lock().unwrap().push(name.to_owned());
    }

    /// Was anything asked that has no answer?
    pub fn has_hung(&self) -> bool {
        self.hung.load(Ordering::SeqCst)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        abort(&self.place);
        MOUNTED.lock().unwrap().retain(|other| *other != self.place);
    }
}

/// Ends all connections: for a test that fails while a daemon waits for an answer.
pub fn abort_all() {
    MOUNTED.lock().unwrap().drain(..).for_each(|place| abort(&place));
}

/// Ends the connection, and with it all requests without an answer.
fn abort(place: &Path) {
    let _ = umount2(place, MntFlags::MNT_FORCE);
    let _ = umount2(place, MntFlags::MNT_DETACH);
}

struct Server {
    device: File,
    names: HashMap<u64, String>,
    hangs: Arc<Mutex<Vec<String>>>,
    hung: Arc<AtomicBool>,
}

impl Server {
    fn serve(&mut self) {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match self.device.read(&mut buffer) {
                Ok(len) => self.answer(&buffer[..len]),
                Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => return,
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOTCONN) => return,
                Err(_) => {}
            }
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let u32_at = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
        let (operation, unique, node) = (u32_at(4), u64_at(8), u64_at(16));
        let body = &request[40..];
        let name = if operation == LOOKUP {
            String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap()).into_owned()
        } else {
            self.names.get(&node).cloned().unwrap_or_default()
        };
        if matches!(operation, FORGET | BATCH_FORGET | INTERRUPT) {
            return;
        }
        if self.hangs.lock().unwrap().contains(&name) && operation != RELEASE {
            self.hung.store(true, Ordering::SeqCst);
            return;
        }
        let reply = match operation {
            INIT => {
                let mut reply = words(&[7, 31, 1 << 16, 0, 0, 1 << 16, 1, 0]);
                reply.resize(64, 0);
                Ok(reply)
            }
            LOOKUP => {
                let known = self.names.iter().find(|(_, known)| **known == name);
                let node = known.map_or(self.names.len() as u64 + 2, |(node, _)| *node);
                self.names.insert(node, name);
                // Node, generation, and no time for which it is true.
                Ok([longs(&[node, 0, 0, 0, 0]), attributes(node)].concat())
            }
            GETATTR => Ok([longs(&[0, 0]), attributes(node)].concat()),
            OPEN => Ok(longs(&[0, 0])),
            READ => {
                let (offset, size) = (u64_at(48), u64::from(u32_at(56)));
                let len = SIZE.saturating_sub(offset).min(size);
                Ok(vec![0; usize::try_from(len).unwrap()])
            }
            WRITE => Ok(words(&[u32_at(56), 0])),
            STATFS => Ok(vec![0; 80]),
            RELEASE | FLUSH => Ok(Vec::new()),
            _ => Err(nix::libc::ENOSYS),
        };
        let (error, reply) = match reply {
            Ok(reply) => (0, reply),
            Err(error) => (-error, Vec::new()),
        };
        let len = u32::try_from(16 + reply.len()).unwrap();
        let head = [words(&[len, error.cast_unsigned()]), longs(&[unique])].concat();
        // The request may have been given up.
        let _ = self.device.write(&[head, reply].concat());
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (0o040_755, 0) } else { (0o100_644, SIZE) };
    let times = words(&[0; 3]);
    let rest = words(&[mode, 1, 0, 0, 0, 4096, 0]);
    [longs(&[node, size, size / 512, 0, 0, 0]), times, rest].concat()
}
