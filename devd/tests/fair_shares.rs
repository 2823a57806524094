//! A guest that reconnects its interfaces a thousand times a second, so that netback makes each of
//! them anew, and another guest that attaches a disk meanwhile.
//!
//! `DEVD_FLAP_SECONDS=60 DEVD_FLAP_QEMUS=1000 cargo test -p devd --test fair_shares -- --nocapture`
//! is the long form, which docs/performance.md is about.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Devd, Device, World, wait_until};
use xs_client::embedded::Quota;

/// How long a run of a hook takes, in seconds.
const HOOK: f64 = 0.2;
/// The interfaces of the guest that reconnects.
const INTERFACES: u32 = 8;

/// Half of them reconnect when they have been served for so long: the hook does well each time.
const SERVED: Duration = Duration::from_millis(100);

fn is_patient(device: &Device) -> bool {
    device.devid % 2 == 1
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect(name))
}

/// netback closes the interface with its frontend and makes another.
fn reconnect(world: &World, device: &Device) {
    world.set(device, "state", "5");
    let mark = format!("{}/hotplug-status", device.backend());
    let _ = world.store.rm(mark.as_bytes());
    world.set(device, "state", "6");
    world.set(device, "state", "2");
}

/// Attaches and detaches a disk; the time until it is served. `attached` is run when the disk is in
/// the store.
fn live(world: &World, device: &Device, attached: impl FnOnce()) -> Duration {
    world.attach(device);
    let begin = Instant::now();
    attached();
    while world.node(device, "hotplug-status").as_deref() != Some("connected") {
        assert!(begin.elapsed() < Duration::from_secs(60), "the disk is not served");
        thread::sleep(Duration::from_millis(1));
    }
    let took = begin.elapsed();
    world.set(device, "online", "0");
    world.set(device, "state", "6");
    world.wait_gone(device);
    took
}

/// Makes guests with a QEMU each.
fn start_qemus(world: &World, count: u64) {
    let disks: Vec<Device> = (0..count)
        .map(|number| Device::qdisk(u16::try_from(1000 + number).unwrap(), 51712))
        .collect();
    world.attach_all(&disks);
    for disk in &disks {
        let pid = format!("libxl/{}/qdisk-backend-pid", disk.guest);
        wait_until("a QEMU to be started", || world.own(&pid).is_some());
        let state = format!("{}/device-model/{}/state", support::GUEST_HOME, disk.guest);
        world.store.write(state.as_bytes(), b"running").unwrap();
        world.set(disk, "hotplug-status", "connected");
        world.set(disk, "state", "4");
    }
    for disk in &disks {
        world.wait_logged(&format!("{}: attached", disk.path()));
    }
}

struct Outcome {
    /// The times until the disk was served while nothing else happened, and during the flood.
    quiet: Vec<Duration>,
    loud: Vec<Duration>,
    reconnections: u64,
    /// Hooks that were started for the guest that reconnects, in this time; those of the
    /// interfaces that had been served.
    hooks: usize,
    patient: usize,
    time: Duration,
    /// The most of its hooks that were started between the disk's coming and its hook.
    ahead: usize,
}

impl Outcome {
    fn tell(&self, what: &str) {
        // In runs of a hook: the median and the most.
        let runs = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            let at = |index: usize| times[index].as_secs_f64() / HOOK;
            format!("{:.2} (most {:.2})", at(times.len() / 2), at(times.len() - 1))
        };
        println!(
            "{what}: {:.0} reconnections a second, {} hooks for them ({} of those that had been \
             served) in {:.0} s; attached in runs \
             of a hook: quiet {}, meanwhile {} of {} attaches; at most {} hooks of the other guest started before the disk's",
            self.reconnections as f64 / self.time.as_secs_f64(),
            self.hooks,
            self.patient,
            self.time.as_secs_f64(),
            runs(&self.quiet),
            runs(&self.loud),
            self.loud.len(),
            self.ahead,
        );
    }
}

fn measure(max_hooks: &str, qemus: u64, time: Duration) -> Outcome {
    let nodes = 10_000 + 30 * usize::try_from(qemus).unwrap();
    let world = World::with_quota(Quota { nodes, node_size: 1 << 20, ..Quota::default() });
    let script = format!("sleep {HOOK}; case $1 in add|online) call connect;; esac");
    world.hook("vif-bridge", &script);
    world.hook("block", &script);
    let qemu = world.qemu_that("exec sleep 100000");
    let options =
        ["--log-level", "info", "--linger", "0", "--max-hooks", max_hooks, "--qemu", &qemu];
    let devd: Devd = world.devd(&options);
    start_qemus(&world, qemus);

    let disk = Device::vbd(4, 51712).with("state", "2");
    let quiet = (0..5).map(|_| live(&world, &disk, || {})).collect();

    let loud_ones: Vec<Device> =
        (0..INTERFACES).map(|devid| Device::vif(3, devid).with("state", "2")).collect();
    world.attach_all(&loud_ones);
    let of_loud = |world: &World| {
        let runs = world.runs().into_iter();
        runs.filter(|(_, _, device)| device.starts_with("backend/vif/3/")).count()
    };
    let (stop, reconnections) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut outcome = thread::scope(|scope| {
        scope.spawn(|| {
            let mut since = [Instant::now(); INTERFACES as usize];
            while !stop.load(Ordering::SeqCst) {
                for (device, since) in loud_ones.iter().zip(&mut since) {
                    if is_patient(device) {
                        if world.node(device, "hotplug-status").as_deref() != Some("connected") {
                            *since = Instant::now();
                        }
                        if since.elapsed() < SERVED {
                            continue;
                        }
                    }
                    reconnect(&world, device);
                    reconnections.fetch_add(1, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let begin = Instant::now();
        let lives = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (mut times, mut ahead) = (Vec::new(), 0);
            while begin.elapsed() < time {
                let mut before = 0;
                times.push(live(&world, &disk, || before = of_loud(&world)));
                let runs = world.runs();
                let own = runs
                    .iter()
                    .rposition(|(_, call, device)| *device == disk.path() && call.contains("add"));
                let earlier = runs[..own.expect("its hook")].iter();
                let of_loud = earlier.filter(|(_, _, device)| device.starts_with("backend/vif/3/"));
                ahead = ahead.max(of_loud.count().saturating_sub(before));
            }
            (times, ahead)
        }));
        stop.store(true, Ordering::SeqCst);
        let (loud, ahead) = lives.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let time = begin.elapsed();
        let patient = loud_ones.iter().filter(|device| is_patient(device));
        let patient = patient.map(|device| world.calls(device).len()).sum();
        let hooks = of_loud(&world);
        Outcome { quiet, loud, reconnections: 0, hooks, patient, time, ahead }
    });
    outcome.reconnections = reconnections.load(Ordering::SeqCst);
    devd.terminate();
    outcome
}

#[test]
fn guest_that_reconnects_all_the_time_delays_another_by_one_run() {
    let time = Duration::from_secs(setting("DEVD_FLAP_SECONDS", 5));
    let qemus = setting("DEVD_FLAP_QEMUS", 0);
    for max_hooks in ["1", "16"] {
        for qemus in if qemus == 0 { vec![0] } else { vec![0, qemus] } {
            let outcome = measure(max_hooks, qemus, time);
            outcome.tell(&format!("{max_hooks} hooks at once, {qemus} QEMUs"));
            if max_hooks == "1" {
                // One hook runs; another may start before the daemon has seen the disk.
                assert!(outcome.ahead <= 2, "{} hooks went first", outcome.ahead);
            }
            // Runs of an add hook: two at once, and one after each of 1, 2, 4 ... s; a removal hook
            // for each.
            let mut most = 3;
            while outcome.time > Duration::from_secs((1 << (most - 2)) - 1) {
                most += 1;
            }
            let most = 2 * most * usize::try_from(INTERFACES / 2).unwrap();
            assert!(outcome.patient <= most, "{} hooks of {most}", outcome.patient);
        }
    }
}
