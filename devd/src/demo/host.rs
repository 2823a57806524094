//! The host: an embedded xenstore, and in it a driver domain as libxl leaves it when the
//! domain's config says `driver_domain=1`.

use std::io;
use std::path::{Path, PathBuf};

use devd_core::Domid;
use nix::unistd::Pid;
use xs_client::Client;
use xs_client::embedded::{ConnectionId, Counts, Options, Quota, Server, Store};
use xs_proto::ErrorCode;

/// The driver domain. Guests are numbered from the next on.
pub(super) const DRIVER: Domid = 1;

/// What the driver domain may have at once for each guest that is up: its own nodes, and
/// those that domain 0 makes on its account; the daemon's, the backends' and QEMU's watches.
const NODES_A_GUEST: usize = 120;
const WATCHES_A_GUEST: usize = 8;

/// So many guests at once are within the limits of a real xenstored: 1000 nodes of some 80 a
/// guest, and room for those that are on their way out.
pub(super) const GUESTS_WITHIN_QUOTA: u16 = 8;

/// A store with two domains, and sockets for both.
#[derive(Debug)]
pub(super) struct Host {
    store: Store,
    toolstack: Server,
    driver: Server,
}

impl Host {
    /// A host for so many guests at once, with its sockets in this directory.
    pub(super) fn start(directory: &Path, guests: u16) -> io::Result<Self> {
        let store = Store::with_options(&Options { quota: quota(guests), ..Options::default() });
        let toolstack = store.serve(directory.join("domain-0"), 0)?;
        let driver = store.serve(directory.join("domain-1"), DRIVER)?;
        let host = Self { store, toolstack, driver };
        host.make_driver_domain().map_err(|code| io::Error::other(format!("the store: {code}")))?;
        Ok(host)
    }

    /// The socket that is the store to the driver domain.
    pub(super) fn driver_socket(&self) -> &Path {
        self.driver.path()
    }

    /// The socket that is the store to domain 0.
    pub(super) fn toolstack_socket(&self) -> &Path {
        self.toolstack.path()
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// A connection as this domain.
    pub(super) fn connect(&self, domid: Domid) -> io::Result<Client> {
        self.store.connect(domid).map(Client::new)
    }

    /// The connections of the driver domain and how many requests each has made.
    pub(super) fn driver_connections(&self) -> Vec<(ConnectionId, Counts)> {
        let connections = self.store.connections().into_iter();
        let of_driver = connections.filter(|(_, domid, _)| *domid == DRIVER);
        of_driver.map(|(id, _, counts)| (id, counts)).collect()
    }

    /// The QEMUs that the store knows of.
    pub(super) fn qemus(&self) -> Vec<Pid> {
        let libxl = format!("/local/domain/{DRIVER}/libxl");
        let guests = self.store.directory(libxl.as_bytes()).unwrap_or_default();
        let pid = |guest: Vec<u8>| {
            let guest = String::from_utf8(guest).ok()?;
            let node = format!("{libxl}/{guest}/qdisk-backend-pid");
            let pid = String::from_utf8(self.store.read(node.as_bytes()).ok()?).ok()?;
            Some(Pid::from_raw(pid.parse().ok()?))
        };
        guests.into_iter().filter_map(pid).collect()
    }

    fn make_driver_domain(&self) -> Result<(), ErrorCode> {
        let home = format!("/local/domain/{DRIVER}");
        let node =
            |name: &str| PathBuf::from(&home).join(name).into_os_string().into_encoded_bytes();
        self.store.introduce(DRIVER);
        self.store.mkdir(home.as_bytes())?;
        self.store.set_permissions(home.as_bytes(), format!("n0\0r{DRIVER}\0").as_bytes())?;
        self.store.write(&node("name"), b"driver")?;
        self.store.write(&node("domid"), DRIVER.to_string().as_bytes())?;
        for own in ["libxl", "device-model", "data", "error", "attr"] {
            self.store.mkdir(&node(own))?;
            self.store.set_permissions(&node(own), format!("n{DRIVER}\0").as_bytes())?;
        }
        Ok(())
    }
}

/// The real limits, or more of what would not be enough.
pub(super) fn quota(guests: u16) -> Quota {
    let real = Quota::default();
    if guests <= GUESTS_WITHIN_QUOTA {
        return real;
    }
    let guests = usize::from(guests);
    Quota {
        nodes: real.nodes + guests * NODES_A_GUEST,
        watches: real.watches + guests * WATCHES_A_GUEST,
        ..real
    }
}
