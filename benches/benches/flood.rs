//! The daemon under a steady flood of events that do not matter: a guest's statistics, written
//! as fast as the embedded store takes them. What does one cost it, and does it hear of a real
//! one meanwhile?
//!
//!     cargo bench -p benches --bench flood [-- EVENTS]

mod site;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use site::{DRIVER, Daemon, Device, Result, check, install_hook, median, millis};
use xs_client::embedded::{Options, Quota, Store};

/// Nodes that are written in turn: equal events that nobody has read become one.
const NODES: u64 = 2000;
/// Devices that come and go, with the flood and without.
const LIVES: u32 = 30;

fn put(store: &Store, path: &str, value: &str) -> Result<()> {
    store.write(path.as_bytes(), value.as_bytes()).map_err(|code| format!("{path}: {code}").into())
}

/// A disk's life; the time from InitWait to its hook's word.
fn live(
    store: &Store,
    daemon: &mut Client,
    device: Device,
    scripts: &std::path::Path,
) -> Result<Duration> {
    let node = |name: &str| format!("{}/{name}", device.backend());
    let (directory, owner) = (device.backend(), format!("n{DRIVER}\0"));
    store.mkdir(directory.as_bytes()).map_err(|code| code.to_string())?;
    store
        .set_permissions(directory.as_bytes(), owner.as_bytes())
        .map_err(|code| code.to_string())?;
    for (name, value) in device.nodes(scripts) {
        put(store, &node(name), &value)?;
    }
    let begin = Instant::now();
    put(store, &node("state"), "2")?;
    daemon.wait("the hook", || {
        store.read(node("hotplug-status").as_bytes()).is_ok_and(|it| it == b"connected")
    })?;
    let took = begin.elapsed();
    put(store, &node("online"), "0")?;
    put(store, &node("state"), "6")?;
    daemon.wait("the removal", || store.read(device.backend().as_bytes()).is_err())?;
    Ok(took)
}

/// Waits for the daemon.
struct Client;

impl Client {
    fn wait(&mut self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !done() {
            check(begin, what)?;
            thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let events: u64 = match &site::arguments()[..] {
        [] => 1_000_000,
        [word] => word.parse().map_err(|_| format!("{word}: not a number of events"))?,
        _ => return Err("one number of events".into()),
    };
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    install_hook(path)?;
    let quota = Quota { nodes: 100_000, ..Quota::default() };
    let store = Store::with_options(&Options { quota, ..Options::default() });
    let socket = path.join("store");
    let home = format!("/local/domain/{DRIVER}");
    for (node, access) in [("backend", "n0\0r7\0"), ("libxl", "n7\0")] {
        let node = format!("{home}/{node}");
        store.mkdir(node.as_bytes()).map_err(|code| code.to_string())?;
        let set = store.set_permissions(node.as_bytes(), access.as_bytes());
        set.map_err(|code| code.to_string())?;
    }
    let _server = store.serve(&socket, DRIVER)?;
    let mut command = site::bare(site::devd()?);
    command
        .args(["-F", "--hooks", "script", "--no-qemu", "--linger", "0", "--xenstore"])
        .arg(&socket);
    command.arg("--script-dir").arg(path).arg("--log").arg(path.join("devd.log"));
    let begin = Instant::now();
    let daemon = Daemon::start(command, &path.join("said"))?;
    let mut client = Client;
    client.wait("the start", || {
        store.read(format!("{home}/libxl/disable_udev").as_bytes()).is_ok()
    })?;
    println!("start to the first answer: {:.1} ms", millis(begin.elapsed()));

    let disk = |guest| Device { kind: "vbd", guest, devid: 51712 };
    let lives = |client: &mut Client, first: u16| -> Result<Duration> {
        let times: Result<Vec<_>> = (0..LIVES)
            .map(|life| live(&store, client, disk(first + u16::try_from(life)?), path))
            .collect();
        Ok(median(times?))
    };
    let quiet = lives(&mut client, 100)?;

    // Whoever may not read a node does not hear of it: the daemon hears of each of these.
    let (loud_device, owner) = (format!("{home}/backend/vif/3/0"), format!("n{DRIVER}\0"));
    store.mkdir(loud_device.as_bytes()).map_err(|code| code.to_string())?;
    store
        .set_permissions(loud_device.as_bytes(), owner.as_bytes())
        .map_err(|code| code.to_string())?;
    let (before, resident) = (daemon.cpu()?, daemon.memory()?.0);
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    let (alone, loud, total) = thread::scope(|scope| -> Result<_> {
        let flood = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = written.fetch_add(1, Ordering::Relaxed) % NODES;
                let path = format!("{loud_device}/statistics/rx-packets-{number}");
                store.write(path.as_bytes(), b"1").expect("a write by domain 0");
            }
        });
        let outcome = (|| {
            client.wait("the flood", || written.load(Ordering::Relaxed) >= events)?;
            let alone = (written.load(Ordering::Relaxed), daemon.cpu()?, begin.elapsed());
            Ok((alone, lives(&mut client, 200)?))
        })();
        stop.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| "the flood has failed")?;
        outcome.map(|(alone, loud)| (alone, loud, written.load(Ordering::Relaxed)))
    })?;
    let (count, cpu, took) = alone;
    let cpu = cpu - before;
    if cpu < Duration::from_millis(1) {
        return Err("the daemon has not heard of the flood".into());
    }
    println!(
        "{count} writes in {:.2} s, {:.0} a second; the daemon: {:.2} us of CPU a write, {:.0} % of a processor",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        millis(cpu) * 1000.0 / count as f64,
        100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
    );
    println!(
        "InitWait to connected, median of {LIVES}: {:.2} ms in quiet, {:.2} ms in the flood ({total} writes in all)",
        millis(quiet),
        millis(loud),
    );
    let (now, peak) = daemon.memory()?;
    println!("resident: {resident} KiB before, {now} KiB after, {peak} KiB at the most");
    Ok(())
}
