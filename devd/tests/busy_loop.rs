//! A device that always has news, a hook that always writes and a log that nobody reads do not keep
//! the daemon from signals and from other devices.

mod support;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use support::{DOMID, Devd, Device, World, wait_until};
use xs_client::embedded::{Fault, Quota, Store};
use xs_proto::{Decoder, ErrorCode, Frame, Header, MessageType};

/// Writes to a device's nodes as fast as the store takes it, while the test does the rest.
fn with_flood<T>(store: &Store, device: &Device, test: impl FnOnce(&AtomicUsize) -> T) -> T {
    let (written, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    /// Ends the flood when the test fails, too.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            // Equal events that nobody has read are one: many nodes make many events.
            let others = (0..2000).map(|number| format!("statistics/rx-{number}"));
            let nodes: Vec<_> = ["state".to_owned()].into_iter().chain(others).collect();
            while !stop.load(Ordering::SeqCst) {
                let number = written.fetch_add(1, Ordering::SeqCst);
                // Each second event calls for a look.
                let node = if number % 2 == 0 { 0 } else { number / 2 % nodes.len() };
                let path = format!("{}/{}", device.backend(), nodes[node]);
                store.write(path.as_bytes(), b"2").unwrap();
            }
        });
        let _stop = Stop(&stop);
        test(&written)
    })
}

#[test]
fn flood_of_events_delays_neither_other_devices_nor_sigterm() {
    const EVENTS: usize = 100_000;
    let world = World::with_quota(Quota { nodes: 10_000, ..Quota::default() });
    let mut devd = world.devd(&["--log-level", "info", "--linger", "0"]);
    // The stand-in for the kernel would drown in it.
    let loud = Device::vif(3, 0);
    let quiet = Device::vbd(4, 51712).with("state", "2");
    world.attach(&loud);
    with_flood(&world.store, &loud, |written| {
        wait_until("the flood to have begun", || written.load(Ordering::SeqCst) > 1000);
        for round in 1..=3 {
            world.attach(&quiet);
            world.wait_node(&quiet, "hotplug-status", "connected");
            world.wait_logged(&format!("{}: attached", quiet.path()));
            world.set(&quiet, "online", "0");
            world.set(&quiet, "state", "6");
            world.wait_gone(&quiet);
            wait_until("the flood to go on", || {
                written.load(Ordering::SeqCst) >= round * EVENTS / 3
            });
        }
        devd.signal(Signal::SIGTERM);
        assert_eq!(devd.wait().code(), Some(0));
    });
}

#[test]
fn transaction_in_whose_way_others_come_is_tried_eight_times() {
    let world = World::new();
    // The daemon is to say for this hook that it has done its work.
    world.hook("block", "call write physical-device 7:0");
    let devd = world.devd(&["--log-level", "info"]);
    for (guest, conflicts, failures) in [(3, 7, 0), (4, 8, 1)] {
        let others = Fault::error(ErrorCode::Again).on(MessageType::TransactionEnd);
        let others = world.store.inject(others.of_domain(DOMID).times(conflicts));
        let device = Device::vbd(guest, 51712).with("state", "2");
        world.attach(&device);
        world.wait_node(&device, "hotplug-status", "connected");
        assert_eq!(others.strikes(), conflicts);
        let failed = format!("{}: cannot mark it connected: the store refuses", device.path());
        assert_eq!(world.logged(&failed), failures);
    }
    devd.terminate();
}

/// A way to the store on which each look at a device brings an event of it: the device has
/// changed whenever the daemon looks.
fn restless(world: &World, device: &Device) -> PathBuf {
    let (path, event) = (world.file("restless"), format!("{}/state", device.path()));
    let listener = UnixListener::bind(&path).unwrap();
    let store = world.socket();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (client, event) = (connection.unwrap(), event.clone());
            let Ok(server) = UnixStream::connect(&store) else { return };
            let looks = Arc::new(Mutex::new(HashSet::new()));
            let (asked, mut to_server) = (Arc::clone(&looks), server.try_clone().unwrap());
            let (from_client, mut to_client) = (client.try_clone().unwrap(), client);
            let path = event.clone();
            thread::spawn(move || {
                each_frame(from_client, |frame, bytes| {
                    if frame.payload.strip_suffix(b"\0") == Some(path.as_bytes()) {
                        asked.lock().unwrap().insert(frame.header.req_id);
                    }
                    to_server.write_all(bytes)
                });
                let _ = to_server.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                each_frame(server, |frame, bytes| {
                    let mut both = Vec::new();
                    if looks.lock().unwrap().remove(&frame.header.req_id) {
                        let payload = format!("{event}\0devd\0").into_bytes();
                        let kind = MessageType::WatchEvent.to_wire();
                        let len = u32::try_from(payload.len()).unwrap();
                        let header = Header { kind, req_id: 0, tx_id: 0, len };
                        Frame { header, payload: &payload }.emit(&mut both);
                    }
                    both.extend_from_slice(bytes);
                    to_client.write_all(&both)
                });
                let _ = to_client.shutdown(Shutdown::Both);
            });
        }
    });
    path
}

/// Gives each message that comes, parsed and as it is, until the stream ends.
fn each_frame(mut from: UnixStream, mut give: impl FnMut(&Frame<'_>, &[u8]) -> io::Result<()>) {
    let mut decoder = Decoder::new();
    loop {
        while let Some(frame) = decoder.next_frame().unwrap() {
            let mut bytes = Vec::new();
            frame.emit(&mut bytes);
            if give(&frame, &bytes).is_err() {
                return;
            }
        }
        match from.read(decoder.space()) {
            Ok(0) | Err(_) => return,
            Ok(len) => decoder.filled(len),
        }
    }
}

#[test]
fn device_with_news_at_each_look_delays_nothing_else() {
    let world = World::new();
    let [loud, quiet] = [Device::vbd(3, 51712), Device::vbd(4, 51712).with("state", "2")];
    let mut command = world.command(&["--log-level", "info"]);
    command.arg("--xenstore").arg(restless(&world, &loud));
    let mut devd = world.devd_by(command);
    world.attach(&loud);
    world.attach(&quiet);
    world.wait_logged(&format!("{}: attached", quiet.path()));
    devd.signal(Signal::SIGTERM);
    assert_eq!(devd.wait().code(), Some(0));
}

#[test]
fn daemon_is_ready_though_a_device_has_news_at_each_look() {
    let world = World::new();
    let loud = Device::vbd(3, 51712);
    world.attach(&loud);
    let mut command = world.command(&["--log-level", "info"]);
    command.arg("--xenstore").arg(restless(&world, &loud));
    let devd = world.devd_by(command);
    world.wait_logged("ready, 1 device");
    devd.terminate();
}

#[test]
fn hooks_that_write_without_an_end_delay_nothing_else() {
    let world = World::new();
    // Two writers for each of three pipes: a pipe is full as soon as it is read.
    world.hook("vif-bridge", "echo begun; cat /dev/zero & exec tr '\\0' '\\n' < /dev/zero");
    let _kernel = world.kernel();
    let mut devd = world.devd(&["--log-level", "info"]);
    let loud = [0, 1, 2].map(|devid| Device::vif(3, devid));
    world.attach_all(&loud);
    for device in &loud {
        world.wait_logged(&format!("{}: hook: (it goes on; the rest is left out)", device.path()));
    }
    let quiet = Device::vbd(4, 51712);
    world.attach(&quiet);
    world.wait_connected(&quiet);
    world.wait_logged(&format!("{}: attached", quiet.path()));
    devd.signal(Signal::SIGTERM);
    assert_eq!(devd.wait().code(), Some(0));
    world.wait_logged(&format!(
        "{}: its hook still runs, and is left to the next daemon",
        loud[0].path()
    ));
}

#[test]
fn writer_that_a_hook_leaves_behind_does_not_hide_its_end() {
    let world = World::new();
    world.hook("block", "call connect; tr '\\0' '\\n' < /dev/zero & echo $! >> $DIR/writers");
    let _kernel = world.kernel();
    let devd = world.devd(&["--log-level", "info"]);
    let device = Device::vbd(3, 51712);
    world.attach(&device);
    world.wait_logged(&format!("{}: attached", device.path()));
    devd.terminate();
}

#[test]
fn sigterm_is_heard_while_many_guests_are_listed() {
    const GUESTS: u16 = 400;
    let world = World::new();
    for guest in 1..=GUESTS {
        let path = format!("/local/domain/{DOMID}/backend/vkbd/{guest}");
        world.store.mkdir(path.as_bytes()).unwrap();
    }
    let slow = Fault::delay(Duration::from_millis(100)).on(MessageType::Directory);
    let slow = world.store.inject(slow.of_domain(DOMID).always());
    let mut devd = world.spawn(world.command(&[]));
    wait_until("the listing to have begun", || slow.strikes() > 10);
    devd.signal(Signal::SIGTERM);
    assert_eq!(devd.wait().code(), Some(0));
    assert!(slow.strikes() < u64::from(GUESTS), "{} directories were listed", slow.strikes());
}

#[test]
fn stopped_reader_of_the_log_delays_neither_devices_nor_sigterm() {
    let world = World::new();
    let _kernel = world.kernel();
    world.gate("log");
    let mut log = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(world.file("log"))
        .unwrap();
    while log.write(&[b'\n'; 4096]).is_ok() {}

    let mut whole = Devd::command(&world.file(""));
    whole.args(["-F", "--log-level", "debug", "--xenstore"]).arg(world.socket());
    whole.arg("--script-dir").arg(world.scripts());
    let fifo = world.file("log");
    let shell = ["sh", "-c", "exec \"$@\" 2> \"$0\"", fifo.to_str().unwrap()];
    let mut devd = world.spawn(Devd::under(shell, &whole));
    for guest in 1..=20 {
        let device = Device::vbd(guest, 51712);
        world.attach(&device);
        world.wait_connected(&device);
    }
    // A reader that goes on hears how much is missing.
    let mut said = Vec::new();
    let mut read = |said: &mut Vec<u8>| drop(log.read_to_end(said));
    read(&mut said);
    let late = Device::vbd(21, 51712);
    world.attach(&late);
    world.wait_connected(&late);
    wait_until("the log to go on", || {
        read(&mut said);
        let said = String::from_utf8_lossy(&said);
        said.contains("lines of this log could not be written") && said.contains("vbd/21/51712")
    });
    devd.signal(Signal::SIGTERM);
    assert_eq!(devd.wait().code(), Some(0));
}
