//! The client against a loop of one's own and the C library: round trips, pipelines, watch
//! events; on the real xenstored and on the embedded store.
//!
//! With `DEVD_TEST_SUPPORT` as for the tests (`xs-client/tests/xenstored/README.md`).

#[path = "../../xs-client/tests/support/site.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests use the rest of it")]
mod site;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use benches::raw::Raw;
use benches::versus::{WALL, Way, compare};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use site::Site;
use xs_client::{Batch, Client, Event, Quirks, Socket, Stream, Transport, TransportError, WaitFor};

const VALUE: &[u8] = b"/etc/xen/scripts/vif-bridge";

/// What a store is called, and how it is started.
type Store = (&'static str, fn() -> Site);

const STORES: [Store; 2] = [("xenstored", Site::xenstored), ("embedded store", Site::embedded)];

fn main() {
    let all = sched_getaffinity(Pid::from_raw(0)).expect("the system knows the CPUs");
    for (name, start) in STORES {
        // A child, and a thread, may use the CPUs that its maker may.
        run_on(&first_of(&all));
        round_trips(name, &start());
        run_on(&all);
        let site = start();
        for depth in [16, 64] {
            pipeline(name, &site, depth);
        }
        events(name, &site);
    }
}

/// One request at a time, client and store on one CPU: what is measured is their work and the
/// system's, not how fast it wakes another CPU.
fn round_trips(store: &str, site: &Site) {
    let path = site.path("script");
    let (mut client, mut raw) = (site.client(), Raw::open(site.socket()));
    client.write(&path, VALUE).unwrap();

    let mut ways = vec![Way::new("ours", |count| {
        for _ in 0..count {
            assert_eq!(client.read(&path).unwrap(), VALUE);
        }
    })];
    #[cfg(libxenstore)]
    {
        use std::ffi::CString;
        let socket = CString::new(site.socket().as_os_str().as_encoded_bytes()).unwrap();
        let c_path = CString::new(path.as_str()).unwrap();
        let handle = benches::reference::libxenstore::Handle::open(&socket);
        let mut handle = handle.expect("libxenstore connects");
        ways.push(Way::new("C libxenstore", move |count| {
            (0..count).for_each(|_| assert!(handle.read(&c_path, VALUE)));
        }));
    }
    #[cfg(not(libxenstore))]
    println!("libxenstore is not there to be compared with (Debian: libxen-dev)");
    ways.push(Way::new("raw loop", |count| {
        (0..count).for_each(|_| raw.read_pipelined(path.as_bytes(), VALUE, 1, 1));
    }));
    compare(&format!("{store}: round trip, one CPU"), WALL, 1, ways);
}

/// Many requests under way at once, client and store each on a CPU of its own.
fn pipeline(store: &str, site: &Site, depth: usize) {
    const COUNT: u32 = 512;
    let path = site.path("script");
    let quirks = Quirks { window: depth, ..Quirks::SOCKET };
    let socket = Socket::open(site.socket()).unwrap();
    let (mut client, mut raw) = (Client::new(Pipe { socket, quirks }), Raw::open(site.socket()));
    client.write(&path, VALUE).unwrap();
    let mut batch = Batch::new();
    for _ in 0..COUNT {
        batch.read(&path);
    }

    compare(
        &format!("{store}: reads, {depth} deep"),
        WALL,
        COUNT,
        vec![
            Way::new("ours", |count| {
                for _ in 0..count {
                    client.run(&mut batch).unwrap();
                    (0..batch.len()).for_each(|i| assert_eq!(batch.reply(i), Ok(VALUE)));
                }
            }),
            Way::new("raw loop", |count| {
                (0..count).for_each(|_| raw.read_pipelined(path.as_bytes(), VALUE, COUNT, depth));
            }),
        ],
    );
}

/// Events of as many nodes: written by one client, heard of by another. Each way has a directory of
/// its own, so that the watches stay: after opening and closing, the writes of the next milliseconds
/// take longer, and would count for the way whose turn it is.
fn events(store: &str, site: &Site) {
    const COUNT: u32 = 256;
    let batch = |directory: &str| {
        let mut batch = Batch::new();
        for i in 0..COUNT {
            batch.write(format!("{directory}/{i}"), "x");
        }
        batch
    };
    let (watched, other) = (site.path("watched"), site.path("another"));
    let (mut batch, mut other_batch) = (batch(&watched), batch(&other));
    let mut writer = site.client();
    let mut other_writer = site.client();
    let (mut client, mut raw) = (site.client(), Raw::open(site.socket()));
    writer.run(&mut batch).unwrap();
    other_writer.run(&mut other_batch).unwrap();
    client.watch(&watched, "token").unwrap();
    raw.watch(other.as_bytes());
    let mut hear = |count| {
        for _ in 0..count {
            let event = client.wait_event(SOON).unwrap();
            assert!(matches!(event, Some(Event::Watch(event)) if event.token == b"token"));
        }
    };
    hear(1);

    compare(
        &format!("{store}: events of writes"),
        WALL,
        COUNT,
        vec![
            Way::new("ours", |count| {
                for _ in 0..count {
                    writer.run(&mut batch).unwrap();
                    hear(COUNT);
                }
            }),
            Way::new("raw loop", |count| {
                for _ in 0..count {
                    other_writer.run(&mut other_batch).unwrap();
                    raw.events(COUNT);
                }
            }),
        ],
    );
}

/// What is to come comes within this.
const SOON: Option<Duration> = Some(Duration::from_secs(10));

/// A socket with a window of another size.
struct Pipe {
    socket: Socket,
    quirks: Quirks,
}

impl Transport for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        self.socket.read(buffer)
    }

    fn read_within(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Option<usize>, TransportError> {
        self.socket.read_within(buffer, timeout)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, TransportError> {
        self.socket.write(bytes)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_fd()
    }

    fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    fn close(&mut self) {
        self.socket.close();
    }

    fn reopen(&mut self) -> Result<Stream, TransportError> {
        self.socket.reopen()
    }

    fn wait(&mut self, what: WaitFor, timeout: Option<Duration>) -> Result<bool, TransportError> {
        self.socket.wait(what, timeout)
    }
}

fn first_of(all: &CpuSet) -> CpuSet {
    let mut first = CpuSet::new();
    let cpu = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false)).unwrap_or(0);
    first.set(cpu).expect("it is one of those that there are");
    first
}

fn run_on(cpus: &CpuSet) {
    sched_setaffinity(Pid::from_raw(0), cpus).expect("these CPUs may be used");
}
