//! What a hostile local user runs.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{process, wait_until};

/// No other test ends processes of this user.
const USER: u32 = 64_123;

/// A program in C, which every user may run.
#[derive(Debug)]
pub struct Program(TempDir);

impl Program {
    pub fn make(source: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let program = Self(directory);
        let file = program.0.path().join("source.c");
        fs::write(&file, source).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(program.path()).arg(file);
        assert!(cc.status().expect("a C compiler, cc").success());
        program
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("program")
    }
}

/// A process that holds the lock of its own memory, and waits with it for a file system that does
/// not answer. It is freed, and ended, when this is dropped.
#[derive(Debug)]
pub struct Hanging {
    server: Child,
    pub pid: i32,
    _program: Program,
    _mount_point: TempDir,
}

impl Hanging {
    /// The process looks like one with these arguments and this environment.
    #[track_caller]
    pub fn start(user: u32, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let program = Program::make(include_str!("hang.c"));
        let mount_point = tempfile::tempdir().unwrap();
        fs::set_permissions(mount_point.path(), Permissions::from_mode(0o777)).unwrap();
        let mut command = Command::new(program.path());
        command.arg(mount_point.path()).args(arguments).env_clear();
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stdin(Stdio::null());
        command.uid(user).gid(user);
        let mut server = command.spawn().expect("another user, which takes root");
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().expect("a user namespace and FUSE");
        let hanging = Self { server, pid, _program: program, _mount_point: mount_point };
        let place = format!("/proc/{pid}/wchan");
        wait_until("the process to hang", || {
            fs::read_to_string(&place).is_ok_and(|place| place.contains("folio_lock"))
        });
        hanging
    }

    pub const OTHER: u32 = USER;

    /// Aborts the file system. What has hung goes on, and ends.
    pub fn free(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.free();
    }
}

/// A process of another user. It is ended when this is dropped.
#[derive(Debug)]
pub struct OtherUser(Child);

impl OtherUser {
    /// Leads a group of its own, as hooks do.
    pub fn start(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment.iter().copied());
        command.stdin(Stdio::null()).uid(USER).gid(USER).process_group(0);
        Self(command.spawn().expect("another user, which takes root"))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub fn lives(&self) -> bool {
        process::is_alive(self.pid())
    }
}

impl Drop for OtherUser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
