//! The daemon under test.

use std::env;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{fuse, process, wait_for};

/// How long a daemon may take to die.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that runs in the foreground. One that is dropped is killed.
#[derive(Debug)]
pub struct Devd {
    child: Child,
}

impl Devd {
    /// The program, in an environment that says nothing about stores and supervisors. Its run
    /// directory is in `home`: a daemon that is killed leaves its lock there.
    pub fn command(home: &Path) -> Command {
        const DEVD: &str = env!("CARGO_BIN_EXE_devd");
        let mut command = match env::var("DEVD_TEST_UNDER") {
            Ok(words) => Self::under(words.split(' '), &Command::new(DEVD)),
            Err(_) => Command::new(DEVD),
        };
        for variable in ["XENSTORED_PATH", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
            command.env_remove(variable);
        }
        let locks = home.join("locks");
        DirBuilder::new().mode(0o700).recursive(true).create(&locks).unwrap();
        command.env("DEVD_RUN_DIR", locks);
        command.stdin(Stdio::null());
        command
    }

    /// This command, started by another program: the program's name and arguments, and it behind.
    pub fn under<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>, whole: &Command) -> Command {
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(whole.get_program()).args(whole.get_args());
        for (name, value) in whole.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts it; what it says outside of its log is added to a file.
    pub fn spawn(mut command: Command, said: &Path) -> Self {
        let said = File::options().create(true).append(true).open(said).unwrap();
        command.stdout(said.try_clone().unwrap()).stderr(said);
        Self { child: command.spawn().unwrap() }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the daemon's end", || self.child.try_wait().unwrap())
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Asks it to end, and sees that it does so as it should.
    #[track_caller]
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0));
    }

    /// Ends it without a warning.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Devd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // One that waits for a file of this test ends when that one's server does.
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begin.elapsed() > PATIENCE {
                fuse::abort_all();
                let _ = self.child.wait();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
