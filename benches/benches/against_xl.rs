//! devd and the stock `xl devd`, the same work in turns, on the real xenstored outside Xen: both
//! are domain 7 there, and the hook costs next to nothing.
//!
//!     make -C xs-client/tests/xenstored OUT="$PWD/target/xenstored-support"
//!     DEVD_TEST_SUPPORT="$PWD/target/xenstored-support" cargo bench -p benches --bench against_xl [-- LIVES]
//!
//! `DEVD=PATH` measures that devd, such as the static one.

mod site;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use site::{DRIVER, Daemon, Device, Result, bare, check, install_hook, median, millis};
use xs_client::{Address, Batch, Client, Event, Outcome};
use xs_proto::{Access, ErrorCode, Permission};

/// So long nothing happens, so that what the daemon still does is not measured.
const PAUSE: Duration = Duration::from_millis(5);

/// So many come and go at once.
const AT_ONCE: u16 = 20;

/// The real xenstored, and the made-up kernel of the driver domain.
struct Xenstored {
    path: PathBuf,
    /// Ended in this order.
    _domain: Daemon,
    _daemon: Daemon,
}

fn program(support: &Path, name: &str, store: &Path, word: &str) -> Command {
    let mut command = bare(support.join(name));
    command.env("FAKEXEN_SO", support.join("fakexen.so"));
    match name {
        "xsd-start.sh" => command.arg(word).arg(store),
        "fxguest" => command.arg(word).arg(store),
        _ => command.arg(store).arg(word),
    };
    command
}

impl Xenstored {
    /// Counts what the driver domain asks, if it is to.
    fn start(support: &Path, path: PathBuf, count: bool) -> Result<Self> {
        fs::create_dir(&path)?;
        let daemon =
            Daemon::start(program(support, "xsd-start.sh", &path, "c"), &path.join("said"))?;
        let begin = Instant::now();
        while Client::open(Address::Socket(path.join("socket"))).is_err() {
            check(begin, "xenstored")?;
            thread::sleep(Duration::from_millis(2));
        }
        let mut command = program(support, "fxguest", &path, "create");
        if !command.arg("3").stdout(Stdio::null()).status()?.success() {
            return Err("fxguest create has failed".into());
        }
        let mut command = program(support, "fxguest", &path, "serve");
        command.arg(DRIVER.to_string());
        if count {
            command.env("FXGUEST_TRACE", "1");
        }
        let domain = Daemon::start(command, &path.join("requests"))?;
        let own = || Client::open(Address::Socket(path.join("dom7.sock")));
        while !own().is_ok_and(|mut client| client.read("domid").is_ok()) {
            check(begin, "the driver domain")?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Self { path, _domain: domain, _daemon: daemon })
    }

    /// The requests of the driver domain so far, its kernel's and its hooks' too.
    fn requests(&self) -> Result<usize> {
        let trace = fs::read_to_string(self.path.join("requests"))?;
        Ok(trace.lines().filter(|line| line.starts_with("-> ")).count())
    }
}

/// A daemon on a store of its own, and the toolstack's and the kernel's hands on it.
struct Site {
    name: &'static str,
    toolstack: Client,
    scripts: PathBuf,
    daemon: Daemon,
    store: Xenstored,
}

impl Site {
    fn start(
        name: &'static str,
        linger: &str,
        support: &Path,
        scripts: &Path,
        count: bool,
    ) -> Result<Self> {
        let path = tempfile::tempdir_in(scripts)?.keep().join("s");
        let store = Xenstored::start(support, path.clone(), count)?;
        let command = if name == "xl devd" {
            program(support, "xl-devd.sh", &path, "7")
        } else {
            let mut command = bare(site::devd()?);
            command
                .args(["-F", "--hooks", "script", "--linger", linger, "--script-dir"])
                .arg(scripts);
            command.arg("--log").arg(path.join("devd.log"));
            command.env("XENSTORED_PATH", path.join("dom7.sock"));
            command
        };
        let daemon = Daemon::start(command, &path.join("daemon"))?;
        let mut toolstack = Client::open(Address::Socket(path.join("socket")))?;
        toolstack.watch("/local/domain/7/backend", "backend")?;
        let scripts = scripts.to_owned();
        let mut site = Self { name, toolstack, scripts, daemon, store };
        // It serves a first device when it is ready.
        thread::sleep(Duration::from_millis(300));
        site.live(&[Device { kind: "vbd", guest: 3, devid: 1 }])?;
        Ok(site)
    }

    fn create(&mut self, device: Device) -> Result<()> {
        let (backend, nodes) = (device.backend(), device.nodes(&self.scripts));
        let permission = |domid, access| Permission { domid, access };
        self.toolstack.transaction(|transaction| {
            transaction.mkdir(device.frontend())?;
            transaction.mkdir(&backend)?;
            let owner = [permission(DRIVER, Access::None), permission(3, Access::Read)];
            transaction.set_permissions(&backend, &owner)?;
            for (node, value) in &nodes {
                transaction.write(format!("{backend}/{node}"), value)?;
            }
            Ok(Outcome::Commit(()))
        })?;
        Ok(())
    }

    fn write(&mut self, devices: &[Device], nodes: &[(&str, &str)]) -> Result<()> {
        self.toolstack.transaction(|transaction| {
            for device in devices {
                for (node, value) in nodes {
                    transaction.write(format!("{}/{node}", device.backend()), value)?;
                }
            }
            Ok(Outcome::Commit(()))
        })?;
        Ok(())
    }

    /// Waits until this node of each of them is so (the directory, if it has no name); reads
    /// those to which something has happened, in one go, and nothing else.
    fn wait(
        &mut self,
        devices: &[Device],
        what: &str,
        node: &str,
        so: fn(std::result::Result<&[u8], &ErrorCode>) -> bool,
    ) -> Result<Duration> {
        let begin = Instant::now();
        let mut left = devices.to_vec();
        let (mut happened, mut batch) = (Vec::new(), Batch::new());
        while !left.is_empty() {
            check(begin, what)?;
            let mut event = self.toolstack.wait_event(Some(Duration::from_secs(1)))?;
            while let Some(heard) = event {
                if let Event::Watch(event) = heard
                    && let Some((device, name)) = Device::of(event.path)
                    && name == node
                    && left.contains(&device)
                    && !happened.contains(&device)
                {
                    happened.push(device);
                }
                event = self.toolstack.next_event();
            }
            batch.clear();
            for device in &happened {
                let path = format!("{}/{node}", device.backend());
                batch.read(path.trim_end_matches('/'));
            }
            self.toolstack.run(&mut batch)?;
            for (index, device) in happened.drain(..).enumerate() {
                if so(batch.reply(index)) {
                    left.retain(|other| *other != device);
                }
            }
        }
        Ok(begin.elapsed())
    }

    /// Lives of these devices, all at once: how long they took to be connected, and to be gone.
    fn live(&mut self, devices: &[Device]) -> Result<(Duration, Duration)> {
        for device in devices {
            self.create(*device)?;
        }
        thread::sleep(PAUSE);
        self.write(devices, &[("state", "2")])?;
        let attach = self.wait(devices, "the hooks", "hotplug-status", |status| {
            status.is_ok_and(|status| status == b"connected")
        })?;
        self.write(devices, &[("state", "4")])?;
        self.write(devices, &[("state", "5"), ("online", "0")])?;
        thread::sleep(PAUSE);
        self.write(devices, &[("state", "6")])?;
        let detach = self.wait(devices, "the removal", "", |directory| {
            matches!(directory, Err(ErrorCode::NoEnt))
        })?;
        Ok((attach, detach))
    }
}

/// What was measured of one daemon.
#[derive(Debug, Default)]
struct Findings {
    requests: f64,
    /// Of a life, round by round.
    cpu: Vec<Duration>,
    attach: Vec<Duration>,
    detach: Vec<Duration>,
    attach_many: Vec<Duration>,
    detach_many: Vec<Duration>,
    resident: u64,
    growth: f64,
    threads: usize,
}

const fn disk(devid: u32) -> Device {
    Device { kind: "vbd", guest: 3, devid }
}

fn many() -> Vec<Device> {
    let devices = (0..u32::from(AT_ONCE)).map(|number| {
        let kind = if number % 2 == 0 { "vif" } else { "vbd" };
        Device { kind, guest: 3, devid: 1000 + number }
    });
    devices.collect()
}

/// The requests of a disk's life, without the one that its hook makes.
fn count_requests(name: &'static str, support: &Path, scripts: &Path) -> Result<f64> {
    const LIVES: u16 = 20;
    let mut site = Site::start(name, "0", support, scripts, true)?;
    let before = site.store.requests()?;
    for _ in 0..LIVES {
        site.live(&[disk(51712)])?;
    }
    thread::sleep(Duration::from_millis(100));
    let spent = site.store.requests()? - before;
    Ok(spent as f64 / f64::from(LIVES) - 1.0)
}

/// What no daemon can do without.
struct Limit {
    /// One fork, exec and exit of the hook.
    attach: Duration,
    /// The CPU that a disk's life takes for two starts of the hook, and for fourteen requests in
    /// ten round trips, and nothing else.
    cpu: Duration,
    /// One transaction that removes as many devices as are let go at once.
    removal: Duration,
}

fn limit(site: &mut Site) -> Result<Limit> {
    const LIVES: u32 = 50;
    let own = site.store.path.join("dom7.sock");
    let mut client = Client::open(Address::Socket(own.clone()))?;
    let (mut one, mut two) = (Batch::new(), Batch::new());
    one.read("domid");
    two.read("domid");
    two.read("domid");
    site.create(Device { kind: "vkbd", guest: 3, devid: 51713 })?;
    let mut times = Vec::new();
    let mut cpu = Duration::ZERO;
    for _ in 0..LIVES {
        for verb in ["add", "remove"] {
            // In the rhythm of a life: what has been idle finds its caches in others' hands.
            thread::sleep(PAUSE);
            let (begin, before) = (Instant::now(), own_cpu()?);
            let mut hook = bare(site.scripts.join("block"));
            hook.arg(verb).env("XENBUS_PATH", "backend/vkbd/3/51713").env("XENSTORED_PATH", &own);
            hook.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
            if !hook.spawn()?.wait_with_output()?.status.success() {
                return Err("the hook has failed".into());
            }
            if verb == "add" {
                times.push(begin.elapsed());
            }
            for round_trip in 0..5 {
                client.run(if round_trip < 3 { &mut one } else { &mut two })?;
            }
            cpu += own_cpu()? - before;
        }
    }
    let mut removals = Vec::new();
    for _ in 0..LIVES / 5 {
        let devices: Vec<Device> =
            many().into_iter().map(|device| Device { kind: "vkbd", ..device }).collect();
        for device in &devices {
            site.create(*device)?;
        }
        thread::sleep(PAUSE);
        let mut batch = Batch::new();
        for device in &devices {
            batch.read(format!("{}/online", device.backend()));
        }
        for device in &devices {
            batch.rm(device.backend());
        }
        let begin = Instant::now();
        client.transaction(|transaction| {
            transaction.run(&mut batch)?;
            Ok(Outcome::Commit(()))
        })?;
        removals.push(begin.elapsed());
    }
    Ok(Limit { attach: median(times), cpu: cpu / LIVES, removal: median(removals) })
}

/// What this thread has had of a CPU.
fn own_cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn measure(site: &mut Site, findings: &mut Findings, lives: u32) -> Result<()> {
    let cpu = site.daemon.cpu()?;
    for _ in 0..lives {
        let (attach, detach) = site.live(&[disk(51712)])?;
        findings.attach.push(attach);
        findings.detach.push(detach);
    }
    findings.cpu.push((site.daemon.cpu()? - cpu) / lives);
    Ok(())
}

fn main() -> Result<()> {
    let lives: u32 = match &site::arguments()[..] {
        [] => 1000,
        [word] => word.parse().map_err(|_| format!("{word}: not a number of lives"))?,
        _ => return Err("one number of lives".into()),
    };
    let support = std::env::var_os("DEVD_TEST_SUPPORT").ok_or(
        "DEVD_TEST_SUPPORT is to name the directory made by `make -C xs-client/tests/xenstored OUT=DIRECTORY`",
    )?;
    let support = fs::canonicalize(support)?;
    let directory = tempfile::tempdir()?;
    let scripts = directory.path();
    install_hook(scripts)?;

    let mut ours = Findings::default();
    let mut theirs = Findings::default();
    ours.requests = count_requests("devd", &support, scripts)?;
    theirs.requests = count_requests("xl devd", &support, scripts)?;

    let mut devd = Site::start("devd", "0", &support, scripts, false)?;
    let mut xl = Site::start("xl devd", "0", &support, scripts, false)?;
    let limit = limit(&mut devd)?;
    let rounds = 10;
    for round in 0..=rounds {
        for (site, findings) in [(&mut devd, &mut ours), (&mut xl, &mut theirs)] {
            // The first is to get warm.
            if round == 1 {
                *findings = Findings { requests: findings.requests, ..Findings::default() };
                findings.resident = site.daemon.memory()?.0;
            }
            measure(site, findings, lives / rounds)?;
            for _ in 0..2 {
                let (attach, detach) = site.live(&many())?;
                findings.attach_many.push(attach);
                findings.detach_many.push(detach);
            }
        }
    }
    let all = f64::from(lives + rounds * 2 * u32::from(AT_ONCE));
    for (site, findings) in [(&devd, &mut ours), (&xl, &mut theirs)] {
        let before = std::mem::replace(&mut findings.resident, site.daemon.memory()?.0);
        findings.growth = (findings.resident as f64 - before as f64) * 1024.0 / all;
        findings.threads = site.daemon.threads()?;
        eprintln!(
            "{}: {} KiB resident when warm, {} KiB {all} lives later",
            site.name, before, findings.resident
        );
    }
    drop((devd, xl));

    // With the linger as it is for use.
    let mut lingering = Findings::default();
    let mut devd = Site::start("devd", "200", &support, scripts, false)?;
    measure(&mut devd, &mut lingering, 20)?;
    for _ in 0..5 {
        lingering.detach_many.push(devd.live(&many())?.1);
    }

    println!("{:<44} {:>12} {:>12} {:>8}", "a disk's life", "devd", "xl devd", "ratio");
    let row = |what: &str, ours: f64, theirs: f64| {
        println!("{what:<44} {ours:>12.3} {theirs:>12.3} {:>8.3}", ours / theirs);
    };
    row("requests of the store", ours.requests, theirs.requests);
    row("CPU, ms", millis(median(ours.cpu)), millis(median(theirs.cpu)));
    row("InitWait to connected, ms", millis(median(ours.attach)), millis(median(theirs.attach)));
    row(
        "state 6 to gone without linger, ms",
        millis(median(ours.detach)),
        millis(median(theirs.detach)),
    );
    row(
        "20 at once: InitWait to connected, ms",
        millis(median(ours.attach_many)),
        millis(median(theirs.attach_many)),
    );
    row(
        "20 at once: state 6 to gone, ms",
        millis(median(ours.detach_many)),
        millis(median(theirs.detach_many)),
    );
    row("resident at the end, KiB", ours.resident as f64, theirs.resident as f64);
    row("growth, bytes a life", ours.growth, theirs.growth);
    row("threads", ours.threads as f64, theirs.threads as f64);
    println!(
        "by themselves: one run of the hook {:.3} ms; the CPU of a life's hooks and requests {:.3} ms",
        millis(limit.attach),
        millis(limit.cpu),
    );
    println!(
        "state 6 to gone with a linger of 200 ms: one {:.1} ms, 20 at once {:.1} ms, of which \
         xenstored takes {:.1} ms to remove them in one transaction",
        millis(median(lingering.detach)),
        millis(median(lingering.detach_many)),
        millis(limit.removal),
    );
    Ok(())
}
