//! A driver domain without Xen, and the toolstack's hands on it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::SystemTime;

use humantime::parse_rfc3339;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use xs_client::Client;
use xs_client::embedded::{Counts, Options, Quota, Server, Store};

use super::{
    DOMID, Devd, Device, Kernel, disk, process, stand_in, toolstack, wait_for, wait_until,
};

/// Where the driver domain's nodes are.
pub const GUEST_HOME: &str = "/local/domain/7";

/// A hook that does what Xen's scripts do: says that the device is served when it is added.
const CONNECT: &str = "case $1 in add|online) call connect;; esac";

/// All of it, in a directory of its own. What is left running is ended with it.
pub struct World {
    pub store: Store,
    directory: TempDir,
    server: Option<Server>,
}

impl World {
    /// A driver domain whose config has `driver_domain=1`, and hooks that do well.
    pub fn new() -> Self {
        Self::with_quota(Quota::default())
    }

    /// The same with other limits of the store.
    pub fn with_quota(quota: Quota) -> Self {
        let world = Self::laid_out(quota);
        for node in ["libxl", "device-model"] {
            let path = format!("{GUEST_HOME}/{node}");
            world.store.mkdir(path.as_bytes()).unwrap();
            world.store.set_permissions(path.as_bytes(), b"n7\0").unwrap();
        }
        world
    }

    /// One whose config lacks that.
    pub fn without_driver_domain() -> Self {
        Self::laid_out(Quota::default())
    }

    fn laid_out(quota: Quota) -> Self {
        let store = Store::with_options(&Options { quota, ..Options::default() });
        let directory = tempfile::tempdir().unwrap();
        let home = |node: &str| format!("{GUEST_HOME}{node}").into_bytes();
        store.write(&home("/domid"), b"7").unwrap();
        store.set_permissions(&home(""), b"n0\0r7\0").unwrap();
        store.set_permissions(&home("/domid"), b"n0\0r7\0").unwrap();
        for node in ["/error", "/data", "/attr"] {
            store.mkdir(&home(node)).unwrap();
            store.set_permissions(&home(node), b"n7\0").unwrap();
        }
        let mut world = Self { store, directory, server: None };
        fs::create_dir(world.scripts()).unwrap();
        for name in ["vif-bridge", "block"] {
            world.hook(name, CONNECT);
        }
        world.start_store();
        world
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.file("store")
    }

    pub fn scripts(&self) -> PathBuf {
        self.file("scripts")
    }

    pub fn start_store(&mut self) {
        self.server = Some(self.store.serve(self.socket(), DOMID).unwrap());
    }

    pub fn stop_store(&mut self) {
        self.server = None;
    }

    pub fn kernel(&self) -> Kernel {
        Kernel::boot(&self.store)
    }
}

// The daemon.
impl World {
    /// The daemon for this store, in the foreground.
    pub fn command(&self, options: &[&str]) -> Command {
        let mut command = Devd::command(self.directory.path());
        command.arg("-F").arg("--xenstore").arg(self.socket());
        command.arg("--script-dir").arg(self.scripts());
        command.arg("--log").arg(self.file("devd.log"));
        command.args(["--log-level", "debug"]).args(options);
        command
    }

    /// Starts the daemon, waits until it is ready.
    #[track_caller]
    pub fn devd(&self, options: &[&str]) -> Devd {
        self.devd_by(self.command(options))
    }

    /// The same with a daemon that is started in another way.
    #[track_caller]
    pub fn devd_by(&self, command: Command) -> Devd {
        let times = self.logged("ready, ");
        let mut devd = self.spawn(command);
        wait_until("the daemon to be ready", || {
            assert!(!devd.has_ended(), "the daemon has ended: {:?}", devd.wait());
            self.logged("ready, ") > times
        });
        devd
    }

    /// Runs the daemon to its end; returns its exit code and what it said outside of its log.
    #[track_caller]
    pub fn run(&self, options: &[&str]) -> (Option<i32>, String) {
        let mut devd = self.spawn(self.command(options));
        let code = devd.wait().code();
        (code, self.said())
    }

    /// What daemons said outside of their log.
    pub fn said(&self) -> String {
        fs::read_to_string(self.file("said")).unwrap_or_default()
    }

    /// Starts the daemon, waits for nothing.
    pub fn spawn(&self, command: Command) -> Devd {
        Devd::spawn(command, &self.file("said"))
    }

    /// The daemon's log.
    #[track_caller]
    pub fn log(&self) -> String {
        // A long line that is being written may end in the middle of a character.
        wait_for("a log that is text", || {
            String::from_utf8(fs::read(self.file("devd.log")).unwrap_or_default()).ok()
        })
    }

    /// How many lines of the log have this in them.
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// When the lines of the log with this in them were written.
    pub fn log_times(&self, text: &str) -> Vec<SystemTime> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(|line| parse_rfc3339(line.split(' ').next().unwrap()).unwrap()).collect()
    }

    #[track_caller]
    pub fn wait_logged(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.logged(text) > 0);
    }
}

// Hooks.
impl World {
    /// Installs a hook. It notes each of its runs, then does what the script says, which may
    /// use `call` (see [`stand_in::hook_call`]) and `$DIR`, the world's directory.
    pub fn hook(&self, name: &str, script: &str) {
        self.program(&self.scripts().join(name), script);
    }

    pub fn program(&self, path: &Path, script: &str) {
        let text = format!(
            "#!/bin/sh\n\
             DIR={}\n\
             printf '%s\\n' \"$$ ${{0##*/}} $* $XENBUS_PATH\" >> $DIR/runs\n\
             call() {{\n\
                 {}=\"$*\" {} -q --exact --ignored support::stand_in::hook_call >/dev/null\n\
             }}\n\
             {script}\n",
            self.directory.path().display(),
            stand_in::CALL,
            std::env::current_exe().unwrap().display(),
        );
        self.install(path, &text);
    }

    /// Writes a program in the place of the one that is there, if any, in one step: the daemon may
    /// be about to run the old one. Another process writes it: a file that this process writes is
    /// open in each child that another test starts meanwhile, and cannot be run (`ETXTBSY`) until
    /// the child runs its own program.
    pub fn install(&self, path: &Path, text: &str) {
        let script = "cat > \"$0\" && chmod 755 \"$0\" && mv -f \"$0\" \"$1\"";
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).arg(self.file("new-program")).arg(path).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success(), "cannot write {}", path.display());
    }

    /// A place for hooks to wait in: `read x < $DIR/NAME`, until it is [opened](Self::open).
    pub fn gate(&self, name: &str) {
        mkfifo(&self.file(name), Mode::S_IRWXU).unwrap();
    }

    /// Lets all pass that wait, and all that come while the file lives.
    pub fn open(&self, gate: &str) -> File {
        let mut file = File::options().read(true).write(true).open(self.file(gate)).unwrap();
        // More lines than any test has hooks.
        file.write_all(&[b'\n'; 1024]).unwrap();
        file
    }

    /// The runs of hooks so far: process id, name and arguments, device.
    pub fn runs(&self) -> Vec<(i32, String, String)> {
        let text = fs::read(self.file("runs")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(|line| {
            let (pid, rest) = line.split_once(' ').unwrap();
            let (call, device) = rest.rsplit_once(' ').unwrap();
            (pid.parse().unwrap(), call.to_owned(), device.to_owned())
        });
        lines.collect()
    }

    /// What the device's hooks were called with, in their order.
    pub fn calls(&self, device: &Device) -> Vec<String> {
        let path = device.path();
        let runs = self.runs().into_iter();
        runs.filter(|(_, _, of)| *of == path).map(|(_, call, _)| call).collect()
    }

    /// Waits until the device's hook runs as its `count`-th; returns the process.
    #[track_caller]
    pub fn wait_run(&self, device: &Device, count: usize) -> i32 {
        let path = device.path();
        wait_for(&format!("run {count} of the hook of {path}"), || {
            let runs = self.runs().into_iter();
            runs.filter(|(_, _, of)| *of == path).nth(count - 1).map(|(pid, _, _)| pid)
        })
    }
}

// QEMU.
impl World {
    /// Installs the QEMU of the tests; returns its path.
    pub fn qemu(&self) -> String {
        let this = std::env::current_exe().unwrap();
        let this = this.display();
        self.qemu_that(&format!(
            "exec {this} -q --exact --ignored support::stand_in::qemu -- \"$@\" >/dev/null"
        ))
    }

    /// Installs a QEMU that does what the script says; returns its path.
    pub fn qemu_that(&self, script: &str) -> String {
        let path = self.file("qemu");
        self.program(&path, script);
        path.to_str().unwrap().to_owned()
    }

    /// The QEMUs that were started for a guest.
    pub fn qemus(&self, guest: u16) -> Vec<i32> {
        let begin = format!("qemu -xen-domid {guest} ");
        let runs = self.runs().into_iter();
        runs.filter(|(_, call, _)| call.starts_with(&begin)).map(|(pid, _, _)| pid).collect()
    }
}

// The toolstack.
impl World {
    pub fn toolstack(&self) -> Client {
        Client::new(self.store.connect(0).unwrap())
    }

    /// Makes a device.
    pub fn attach(&self, device: &Device) {
        toolstack::attach(&mut self.toolstack(), device);
    }

    /// Makes many, one behind the other.
    pub fn attach_all(&self, devices: &[Device]) {
        let mut toolstack = self.toolstack();
        devices.iter().for_each(|device| toolstack::attach(&mut toolstack, device));
    }

    /// Asks for a device's end, as `xl network-detach` and the like do.
    pub fn detach(&self, device: &Device) {
        toolstack::detach(&mut self.toolstack(), device);
    }

    /// Removes a device's directories without asking anybody.
    pub fn drop_device(&self, device: &Device) {
        self.store.rm(device.backend().as_bytes()).unwrap();
        let _ = self.store.rm(device.frontend().as_bytes());
    }

    /// The guest is gone: its home is, and the kernel has closed its device.
    pub fn crash(&self, device: &Device) {
        self.store.rm(format!("/local/domain/{}", device.guest).as_bytes()).unwrap();
        self.set(device, "state", "6");
    }

    pub fn set(&self, device: &Device, node: &str, value: impl AsRef<[u8]>) {
        let path = format!("{}/{node}", device.backend());
        self.store.write(path.as_bytes(), value.as_ref()).unwrap();
    }

    /// The guest gets as far as using the device.
    pub fn use_device(&self, device: &Device) {
        self.store.write(format!("{}/state", device.frontend()).as_bytes(), b"3").unwrap();
    }
}

// What the store says.
impl World {
    /// The requests that the daemon has made so far. It was the first to connect.
    pub fn counts(&self) -> Counts {
        let connections = self.store.connections().into_iter();
        let own = connections.filter(|(_, domid, _)| *domid == DOMID).min_by_key(|(id, ..)| *id);
        own.expect("the daemon's connection").2
    }

    /// Waits until the daemon has dealt with all that happened so far: a device that is there
    /// only to go comes after it.
    #[track_caller]
    pub fn wait_settled(&self) {
        let last = Device::plain("vkbd", 999, 0).with("online", "0").with("state", "6");
        self.attach(&last);
        self.wait_gone(&last);
    }

    /// The value of a node, if there is one.
    pub fn read(&self, path: &str) -> Option<String> {
        let value = self.store.read(path.as_bytes()).ok()?;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// The value of a node of the driver domain.
    pub fn own(&self, path: &str) -> Option<String> {
        self.read(&format!("{GUEST_HOME}/{path}"))
    }

    /// The value of a node of a device.
    pub fn node(&self, device: &Device, node: &str) -> Option<String> {
        self.read(&format!("{}/{node}", device.backend()))
    }

    #[track_caller]
    pub fn wait_node(&self, device: &Device, node: &str, value: &str) {
        wait_until(&format!("{}/{node} to be {value:?}", device.path()), || {
            self.node(device, node).as_deref() == Some(value)
        });
    }

    /// Waits until the device is connected to its guest, and until its hook, if it has one, has
    /// written all that it writes: a later write would reach the next device of its name.
    #[track_caller]
    pub fn wait_connected(&self, device: &Device) {
        self.wait_node(device, "state", "4");
        if ["vif", "vbd", "vbd3"].contains(&device.kind) {
            self.wait_node(device, "hotplug-status", "connected");
        }
    }

    /// Waits until the device is reported as not served; returns why.
    #[track_caller]
    pub fn wait_refused(&self, device: &Device) -> String {
        wait_for(&format!("the failure of {}", device.path()), || self.refusal(device))
    }

    /// Why the device is not served, if the store has that. The daemon takes both nodes back before
    /// it tries again, so the status is read behind the reason.
    pub fn refusal(&self, device: &Device) -> Option<String> {
        let reason = self.node(device, "hotplug-error")?;
        (self.node(device, "hotplug-status").as_deref() == Some("error")).then_some(reason)
    }

    pub fn exists(&self, device: &Device) -> bool {
        self.read(&device.backend()).is_some()
    }

    #[track_caller]
    pub fn wait_gone(&self, device: &Device) {
        wait_until(&format!("{} to be gone", device.path()), || !self.exists(device));
    }

    /// Every node below a path, with its value, in a fixed order.
    pub fn dump(&self, path: &str) -> Vec<(String, String)> {
        let mut nodes = vec![(path.to_owned(), self.read(path).unwrap_or_default())];
        let mut names = self.store.directory(path.as_bytes()).unwrap_or_default();
        names.sort();
        for name in names {
            nodes.extend(self.dump(&format!("{path}/{}", name.escape_ascii())));
        }
        nodes
    }

    /// Processes that belong to this world, the daemon among them.
    pub fn processes(&self) -> Vec<i32> {
        process::that_know(self.directory.path())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            let runs = fs::read_to_string(self.file("runs")).unwrap_or_default();
            eprintln!("--- outside of the log\n{}--- the log\n{}", self.said(), self.log());
            eprintln!("--- the runs of hooks\n{runs}");
            eprintln!("--- the store");
            for (path, value) in self.dump("/local/domain") {
                eprintln!("{path} = {value:?}");
            }
        }
        // Hooks may start others while they are being looked for.
        while !self.processes().is_empty() {
            self.processes().into_iter().for_each(process::end);
        }
        disk::clean(self.directory.path());
    }
}
