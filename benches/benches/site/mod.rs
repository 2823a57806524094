//! What whole daemons are measured in: the daemon as a process, the cheapest hook there can
//! be, and devices as the toolstack makes them.

#![allow(dead_code, unreachable_pub, reason = "each program uses its part of it")]

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing here takes longer, unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(300);

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The driver domain.
pub const DRIVER: u16 = 7;

/// The arguments that are this program's own.
pub fn arguments() -> Vec<String> {
    std::env::args().skip(1).filter(|word| word != "--bench").collect()
}

/// The daemon's program: that in `DEVD`, or the one that is built here, as it is for use.
pub fn devd() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DEVD") {
        return Ok(fs::canonicalize(path)?);
    }
    let own = std::env::current_exe()?;
    let release = own.ancestors().nth(2).ok_or("this program is not in a target directory")?;
    let target = release.parent().ok_or("this program is not in a target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "-p", "devd", "--target-dir"]).arg(target);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !build.status()?.success() {
        return Err("devd cannot be built".into());
    }
    Ok(target.join("release/devd"))
}

/// Puts the hook into the directory, as `vif-bridge`, `block` and `qemu`.
pub fn install_hook(directory: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/site/hook.c");
    let hook = directory.join("block");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-static", "-nostdlib", "-ffreestanding", "-o"]).arg(&hook).arg(&source);
    if !cc.status()?.success() {
        return Err("the hook cannot be built: cc is needed".into());
    }
    for name in ["vif-bridge", "qemu"] {
        fs::hard_link(&hook, directory.join(name))?;
    }
    Ok(())
}

/// A program in an environment as small as a driver domain's.
pub fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("DEVD_RUN_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("run"));
    command
}

/// The time that this task has been on a processor (`Documentation/scheduler/sched-stats.rst`).
fn on_cpu(task: &Path) -> Result<Duration> {
    let text = fs::read_to_string(task.join("schedstat"))?;
    let nanos = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// A daemon that runs until it is dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// What it says goes to the file.
    pub fn start(mut command: Command, said: &Path) -> Result<Self> {
        let said = fs::File::create(said)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        Ok(Self { child: command.spawn()? })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The time that its threads have been on a processor: its own, not its hooks'.
    pub fn cpu(&self) -> Result<Duration> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid()))?;
        threads.map(|thread| on_cpu(&thread?.path())).sum()
    }

    pub fn threads(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.pid()))?.count())
    }

    /// Resident now, and at the most, in KiB.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).ok_or("no memory in /proc/PID/status")
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(8)
        {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A device of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    pub kind: &'static str,
    pub guest: u16,
    pub devid: u32,
}

impl Device {
    pub fn backend(&self) -> String {
        format!("/local/domain/{DRIVER}/backend/{}/{}/{}", self.kind, self.guest, self.devid)
    }

    pub fn frontend(&self) -> String {
        format!("/local/domain/{}/device/{}/{}", self.guest, self.kind, self.devid)
    }

    /// The device that a path in the backend directory is about, and the rest of the path.
    pub fn of(path: &[u8]) -> Option<(Self, &str)> {
        let path = std::str::from_utf8(path).ok()?;
        let mut words =
            path.strip_prefix(&format!("/local/domain/{DRIVER}/backend/"))?.splitn(4, '/');
        let kind = ["vif", "vbd", "qdisk"];
        let word = words.next()?;
        let kind = kind.into_iter().find(|kind| *kind == word)?;
        let guest = words.next()?.parse().ok()?;
        let devid = words.next()?.parse().ok()?;
        Some((Self { kind, guest, devid }, words.next().unwrap_or_default()))
    }

    /// The nodes of its directory as libxl writes them, `state` last.
    pub fn nodes(&self, scripts: &Path) -> Vec<(&'static str, String)> {
        let script = |name: &str| scripts.join(name).display().to_string();
        let mut nodes = vec![
            ("frontend", self.frontend()),
            ("frontend-id", self.guest.to_string()),
            ("online", "1".to_owned()),
        ];
        match self.kind {
            "vif" => nodes.extend([
                ("script", script("vif-bridge")),
                ("mac", "00:16:3e:00:00:01".to_owned()),
                ("bridge", "xenbr0".to_owned()),
                ("handle", self.devid.to_string()),
                ("type", "vif".to_owned()),
                ("hotplug-status", String::new()),
            ]),
            kind => {
                nodes.extend([
                    ("params", "/dev/loop0".to_owned()),
                    ("dev", "xvda".to_owned()),
                    ("type", if kind == "vbd" { "phy" } else { "qdisk" }.to_owned()),
                    ("mode", "w".to_owned()),
                    ("device-type", "disk".to_owned()),
                ]);
                if kind == "vbd" {
                    nodes.push(("script", script("block")));
                }
            }
        }
        nodes.push(("state", "1".to_owned()));
        nodes
    }
}

/// Fails if it takes too long.
pub fn check(begin: Instant, what: &str) -> Result<()> {
    if begin.elapsed() > LIMIT {
        return Err(format!("{what}: nothing has come of it in {} s", LIMIT.as_secs()).into());
    }
    Ok(())
}

/// The median.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
