//! Stores that are not scripted, and the ways to them.

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use xs_client::embedded::{Server, Store};
use xs_client::{Address, Client};
use xs_proto::{Access, Permission};

/// A store, and the way to it that a test is about.
pub struct Site {
    /// Where the client under test goes.
    address: Address,
    /// Where the toolstack goes, which may do everything.
    toolstack: Address,
    /// A node that the client owns.
    pub home: &'static str,
    pub privileged: bool,
    /// The daemon is OCaml's, which knows no DIRECTORY_PART.
    pub ocaml: bool,
    _processes: Vec<Process>,
    _servers: Vec<Server>,
    _dir: TempDir,
}

const DOMAIN: u16 = 7;
const DOMAIN_HOME: &str = "/local/domain/7/data";
const PRIVILEGED_HOME: &str = "/local/domain/0/data";

impl Site {
    /// The embedded store's socket, as domain 0.
    pub fn embedded() -> Self {
        Self::embedded_as(0)
    }

    /// The embedded store's socket, as a domain.
    pub fn embedded_domain() -> Self {
        Self::embedded_as(DOMAIN)
    }

    fn embedded_as(domid: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new();
        let paths = [dir.path().join("socket"), dir.path().join("domain")];
        let servers =
            vec![store.serve(&paths[0], 0).unwrap(), store.serve(&paths[1], domid).unwrap()];
        let [toolstack, address] = paths.map(Address::Socket);
        Self::new(dir, address, toolstack, domid == 0, servers, Vec::new())
    }

    /// The C xenstored's socket.
    pub fn xenstored() -> Self {
        Self::daemon("c", None)
    }

    /// The C xenstored's ring, by a socket in front of it.
    pub fn xenstored_domain() -> Self {
        Self::daemon("c", Some("dom7.sock"))
    }

    /// The C xenstored's ring, by a file that behaves as `/dev/xen/xenbus` does.
    pub fn xenstored_device() -> Self {
        Self::daemon("c", Some("dom7.xenbus"))
    }

    /// oxenstored's socket.
    pub fn oxenstored() -> Self {
        Self::daemon("o", None)
    }

    /// oxenstored's ring, by a file that behaves as `/dev/xen/xenbus` does.
    pub fn oxenstored_device() -> Self {
        Self::daemon("o", Some("dom7.xenbus"))
    }

    fn daemon(kind: &str, domain_file: Option<&str>) -> Self {
        let support = env::var_os("DEVD_TEST_SUPPORT").map(PathBuf::from).expect(
            "DEVD_TEST_SUPPORT is to name the directory made by \
             `make -C xs-client/tests/xenstored OUT=DIRECTORY`; .ci/test does both",
        );
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut start = Command::new(support.join("xsd-start.sh"));
        start.arg(kind).arg(dir.path()).env("FAKEXEN_SO", support.join("fakexen.so"));
        let mut processes = vec![Process::start(Role::Store, start.stdout(Stdio::null()))];
        await_socket(&socket);
        let toolstack = Address::Socket(socket);
        let address = match domain_file {
            None => toolstack.clone(),
            Some(file) => {
                let mut serve = Command::new(support.join("fxguest"));
                serve.arg("serve").arg(dir.path()).arg(DOMAIN.to_string());
                let mut guest = Process::start(Role::Guest, serve.stdout(Stdio::piped()));
                guest.await_line("ready");
                processes.insert(0, guest);
                let path = dir.path().join(file);
                Address::find(Some(&path)).unwrap_or_else(|error| {
                    panic!("{error} (a device takes root and /dev/fuse)");
                })
            }
        };
        let privileged = domain_file.is_none();
        let mut site = Self::new(dir, address, toolstack, privileged, Vec::new(), processes);
        site.ocaml = kind == "o";
        site
    }

    fn new(
        dir: TempDir,
        address: Address,
        toolstack: Address,
        privileged: bool,
        servers: Vec<Server>,
        processes: Vec<Process>,
    ) -> Self {
        let home = if privileged { PRIVILEGED_HOME } else { DOMAIN_HOME };
        let mut root = Client::open(toolstack.clone()).unwrap();
        root.mkdir(home).unwrap();
        if !privileged {
            let owner = Permission { domid: DOMAIN, access: Access::None };
            root.set_permissions(home, &[owner]).unwrap();
        }
        Self {
            address,
            toolstack,
            home,
            privileged,
            ocaml: false,
            _processes: processes,
            _servers: servers,
            _dir: dir,
        }
    }

    /// A new connection of the client under test.
    pub fn client(&self) -> Client {
        Client::open(self.address.clone()).unwrap()
    }

    /// A new connection of the toolstack.
    pub fn toolstack(&self) -> Client {
        Client::open(self.toolstack.clone()).unwrap()
    }

    /// A path below what the client owns.
    pub fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.home)
    }

    /// The socket that the client under test goes to.
    pub fn socket(&self) -> &Path {
        match &self.address {
            Address::Socket(path) => path,
            Address::Device(path) => panic!("{} is a device", path.display()),
        }
    }

    pub fn is_device(&self) -> bool {
        matches!(self.address, Address::Device(_))
    }
}

fn await_socket(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(path).is_err() {
        assert!(Instant::now() < deadline, "no xenstored came up (Debian: xen-utils-4.17)");
        sleep(Duration::from_millis(5));
    }
}

/// The part that a process plays.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Store,
    Guest,
}

/// A process that ends with the test.
struct Process(Child, Role);

impl Process {
    fn start(role: Role, command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?}: {error}")), role)
    }

    /// Waits until the process says this line.
    fn await_line(&mut self, expected: &str) {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), expected);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A guest is asked to end, and has the time to unmount its device on a busy machine. The
        // stores have nothing to clean up, and oxenstored may not listen.
        if self.1 == Role::Guest {
            let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(60);
            while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
                sleep(Duration::from_millis(5));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
