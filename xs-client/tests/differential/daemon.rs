//! The real C xenstored, run outside of Xen.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use xs_client::embedded::Quota;

use crate::link::{PATIENCE, Stream};

/// A running daemon, with all its state in a directory of its own.
pub(crate) struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// Starts the daemon with these limits; with its own if they are the default ones, which
    /// are to be the same.
    pub(crate) fn start(quota: &Quota) -> Self {
        let support = std::env::var_os("DEVD_TEST_SUPPORT").map(PathBuf::from).expect(
            "DEVD_TEST_SUPPORT names the directory with fakexen.so, made by \
             `make OUT=... -C xs-client/tests/xenstored`; .ci/test sets it",
        );
        let shim = support.join("fakexen.so");
        assert!(shim.exists(), "DEVD_TEST_SUPPORT has no fakexen.so: {}", shim.display());
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/xenstored");
        let directory = tempfile::tempdir().unwrap();
        let mut limits = vec![
            format!("--entry-nb={}", quota.nodes),
            format!("--entry-size={}", quota.node_size),
            format!("--watch-nb={}", quota.watches),
            format!("--transaction={}", quota.transactions),
            format!("--perm-nb={}", quota.permissions),
            format!("--quota=transaction-nodes={}", quota.transaction_nodes),
        ];
        if *quota == Quota::default() {
            limits.clear();
        }
        let child = Command::new(scripts.join("xsd-start.sh"))
            .arg("c")
            .arg(directory.path())
            .args(limits)
            .env("FAKEXEN_SO", shim)
            .stdin(Stdio::null())
            .stderr(fs::File::create(directory.path().join("stderr")).unwrap())
            .spawn()
            .expect("xsd-start.sh runs");
        let daemon = Self { child, directory };
        let start = Instant::now();
        while Stream::open(&daemon.socket()).is_err() {
            assert!(start.elapsed() < PATIENCE, "xenstored, of xen-utils-4.17, does not start");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        daemon
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The socket of domain 0.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory().join("socket")
    }

    /// The domain has shut down, but is still there.
    pub(crate) fn shut_down(&self, domid: u16) {
        fs::write(self.state(domid), "shutdown").unwrap();
        self.domains_changed();
    }

    /// Lets the domain run again. The daemon is not told.
    pub(crate) fn run_again(&self, domid: u16) {
        fs::remove_file(self.state(domid)).unwrap();
    }

    /// The domain is gone.
    pub(crate) fn destroy(&self, domid: u16) {
        fs::remove_file(self.directory().join(format!("dom{domid}.ring"))).unwrap();
        self.domains_changed();
    }

    /// Where the state of a domain is that does not run.
    fn state(&self, domid: u16) -> PathBuf {
        self.directory().join(format!("dom{domid}.state"))
    }

    /// Sends the daemon the hypervisor's event for a changed domain (`VIRQ_DOM_EXC`).
    fn domains_changed(&self) {
        const SENDER: u32 = 0x7ff0;
        const VIRQ_DOM_EXC: u32 = 3;
        let event = [SENDER.to_le_bytes(), VIRQ_DOM_EXC.to_le_bytes()].concat();
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(&event, self.directory().join("evtchn")).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The script has become the daemon: it is the child itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = fs::read_to_string(self.directory().join("stderr")).unwrap_or_default();
            println!("xenstored said: {said}");
        }
    }
}
