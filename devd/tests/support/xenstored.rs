//! The real xenstored outside Xen, with a driver domain and two guests, all of them made up.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use xs_client::{Address, Client};

use super::{DOMID, process, wait_for, wait_until};

/// A process that is asked to end with the test, so that it can clean up.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        process::signal(self.pid(), Signal::SIGTERM);
        let begin = Instant::now();
        // On a busy machine it takes its time to unmount its device, or to end its hooks.
        while matches!(self.0.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The daemon, and the made-up kernel of the driver domain, which serves its ring as a socket.
pub struct Xenstored {
    /// Ended in this order.
    domain: Option<Process>,
    daemon: Option<Process>,
    support: PathBuf,
    directory: TempDir,
}

impl Xenstored {
    pub fn start() -> Self {
        let support = std::env::var_os("DEVD_TEST_SUPPORT").map(PathBuf::from).expect(
            "DEVD_TEST_SUPPORT is to name the directory made by \
             `make -C xs-client/tests/xenstored OUT=DIRECTORY`; .ci/test does both",
        );
        let directory = tempfile::tempdir().unwrap();
        let mut store = Self { domain: None, daemon: None, support, directory };
        store.start_again();
        store
    }

    /// Starts it, with nothing in it but the domains.
    pub fn start_again(&mut self) {
        let mut command = self.program("xsd-start.sh");
        self.daemon = Some(Process::start(command.arg("c").arg(self.path())));
        wait_until("xenstored", || self.open("socket").is_some());
        for guest in ["3", "4"] {
            let mut command = self.program("fxguest");
            assert!(command.arg("create").arg(self.path()).arg(guest).status().unwrap().success());
        }
        let mut command = self.program("fxguest");
        let command = command.arg("serve").arg(self.path()).arg(DOMID.to_string());
        self.domain = Some(Process::start(command));
        wait_until("the driver domain", || {
            self.open("dom7.sock").is_some_and(|mut client| client.read("domid").is_ok())
        });
    }

    /// Kills it. The driver domain's ring goes with it.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            process::signal(daemon.pid(), Signal::SIGKILL);
        }
        self.domain = None;
    }

    /// A connection of domain 0.
    pub fn toolstack(&self) -> Client {
        wait_for("xenstored", || self.open("socket"))
    }

    /// Where the driver domain finds it.
    pub fn socket(&self) -> PathBuf {
        self.path().join("dom7.sock")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// One of the programs that make it possible.
    pub fn program(&self, name: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.support.join(name));
        command.env("FAKEXEN_SO", self.support.join("fakexen.so"));
        command
    }

    fn open(&self, name: impl AsRef<OsStr>) -> Option<Client> {
        Client::open(Address::Socket(self.path().join(name.as_ref()))).ok()
    }
}
