//! The demo from its beginning to its end.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use devd_core::{Domid, Kind};
use xs_client::embedded::Quota;

use super::backend;
use super::daemon_process::Daemon;
use super::host::{DRIVER, GUESTS_WITHIN_QUOTA, Host, quota};
use super::interrupts::Interrupts;
use super::life::{Guest, Life, Trouble};
use super::progress::{Progress, say};
use super::report::{Cost, Report};
use super::scratch::Scratch;
use crate::cli::{DemoOptions, EXIT_FAILURE, EXIT_USAGE};
use crate::process::Exit;

/// So many guests are up at once. Measured on two processors, more are no faster but wait
/// longer for their hooks, and half as many take twice the time.
const WINDOW: u16 = GUESTS_WITHIN_QUOTA;
/// With `--hold` all are up at once, each with a process and five descriptors here, of which a
/// process has 1024 in most places.
const HOLD_MAX: u16 = 100;
/// How long a guest runs.
const RUN: Duration = Duration::from_millis(20);
/// How often this thread looks up.
const TICK: Duration = Duration::from_millis(50);
/// How long the stand-ins for QEMU may take to notice that the store is gone.
const LAST: Duration = Duration::from_secs(10);

/// Why the demo has no result.
#[derive(Debug, thiserror::Error)]
enum ShowError {
    #[error("cannot make a directory in {}: {}", std::env::temp_dir().display(), .0)]
    Directory(io::Error),
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    #[error("the daemon ended {}", how(*.0))]
    DaemonEnded(Exit),
    #[error(transparent)]
    Guest(#[from] Trouble),
    #[error("the kernel's backends: {0}")]
    Kernel(xs_client::Error),
    #[error("interrupted")]
    Interrupted,
}

pub(super) fn run(options: DemoOptions) -> ExitCode {
    if options.hold && options.guests > HOLD_MAX {
        eprintln!("devd: --hold keeps all guests up at once, and takes at most {HOLD_MAX}");
        return ExitCode::from(EXIT_USAGE);
    }
    let shown = show(options).unwrap_or_else(|error| {
        eprintln!("devd demo: {error}");
        false
    });
    if shown { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

/// True if all went as it should.
fn show(options: DemoOptions) -> Result<bool, ShowError> {
    // Before there is any other thread.
    let interrupts = Interrupts::block()?;
    let mut scratch = Scratch::new().map_err(ShowError::Directory)?;
    let host = Host::start(scratch.path(), at_once(options))?;
    let kernel = host.connect(DRIVER)?;
    let kernel = thread::spawn(|| backend::serve(kernel, "backend", &[Kind::Vif, Kind::Vbd]));

    let played = Demo { options, scratch: &scratch, host: &host, interrupts: &interrupts }.run();
    end_backends(&host);
    let kernel = kernel.join().unwrap_or(Ok(())).map_err(ShowError::Kernel);
    let result = played.and_then(|good| kernel.map(|()| good));
    if !matches!(result, Ok(true) | Err(ShowError::Interrupted)) {
        scratch.keep();
        say(format_args!("What happened is in the daemon's log, {}", scratch.log().display()));
    }
    result
}

/// How many guests are up at once.
fn at_once(options: DemoOptions) -> u16 {
    if options.hold { options.guests } else { options.guests.min(WINDOW) }
}

/// Closes the connections of the backends, which ends them, and waits until the QEMUs have.
fn end_backends(host: &Host) {
    let qemus = host.qemus();
    host.store().disconnect(DRIVER);
    let deadline = Instant::now() + LAST;
    let runs = |pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    while qemus.iter().any(runs) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

struct Demo<'a> {
    options: DemoOptions,
    scratch: &'a Scratch,
    host: &'a Host,
    interrupts: &'a Interrupts,
}

impl Demo<'_> {
    fn run(&self) -> Result<bool, ShowError> {
        let others = self.host.driver_connections();
        let mut daemon = Daemon::start(self.scratch, self.host.driver_socket())?;
        self.wait_until_ready(&mut daemon)?;
        let connections = self.host.driver_connections().into_iter();
        let mut new = connections.filter(|(id, _)| others.iter().all(|(other, _)| other != id));
        let begin = new.next();
        self.introduce(&daemon);

        let mut progress = Progress::start();
        let lives = self.play(&mut daemon, &mut progress);
        let took = progress.elapsed().as_secs_f64();
        progress.clear();
        let lives = lives?;

        let requests = begin.and_then(|(id, before)| {
            let mut now = self.host.driver_connections().into_iter();
            Some(now.find(|(other, _)| *other == id)?.1.since(&before).total())
        });
        let cost = Cost { devices: lives.len(), requests, usage: daemon.usage() };
        let exit = daemon.stop();

        let report = Report { lives: &lives };
        let (all, failures) = (lives.len(), report.failures());
        say(format_args!("{report}{cost}\nTold to end (SIGTERM), it ended {}.", how(exit)));
        match failures {
            0 if self.options.hold => say(format_args!("All {all} devices went the whole way.")),
            0 => say(format_args!("All {all} devices went the whole way, in {took:.1} s.")),
            _ => say(format_args!("{failures} of {all} devices did not go the whole way.")),
        }
        Ok(failures == 0 && exit == Exit::Code(0))
    }

    fn wait_until_ready(&self, daemon: &mut Daemon) -> Result<(), ShowError> {
        while !daemon.is_ready() {
            self.check(daemon)?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Says what will be seen.
    fn introduce(&self, daemon: &Daemon) {
        let guests = match self.options.guests {
            1 => "One guest".into(),
            guests => format!("{guests} guests, at most {} at a time", at_once(self.options)),
        };
        let quota = quota(at_once(self.options));
        let real = if quota == Quota::default() { "a real store's" } else { "raised" };
        say(format_args!(
            "{guests}, with three devices each: a network interface (vif), a disk\n\
             that the kernel serves (vbd) and one that QEMU serves (qdisk).\n\n\
             real     the daemon (process {}), and its hooks and QEMUs as processes\n\
             played   xenstore, toolstack, guests, kernel, and what hooks and QEMU do\n\
             limits   {} nodes and {} watches for the driver domain ({real})\n",
            daemon.pid(),
            quota.nodes,
            quota.watches,
        ));
    }

    /// All guests, from beginning to end.
    fn play(&self, daemon: &mut Daemon, progress: &mut Progress) -> Result<Vec<Life>, ShowError> {
        let stop = AtomicBool::new(false);
        let all = usize::from(self.options.guests);
        let domids: Vec<Domid> = (0..self.options.guests).map(|guest| DRIVER + 1 + guest).collect();
        let attached = |domid| {
            let mut guest = Guest::start(self.host, domid, &stop)?;
            guest.attach();
            Ok(guest)
        };
        let mut lives = if self.options.hold {
            let guests = self.in_window(domids, &stop, daemon, attached, |guests| {
                progress.say("are up", guests.len(), all, || failures(guests, Guest::has_failed));
            })?;
            progress.clear();
            self.hold(daemon)?;
            let detached = |guest: Guest<'_>| Ok(guest.detach());
            self.in_window(guests, &stop, daemon, detached, |lives| {
                progress.say("are down again", lives.len(), all, || {
                    failures(lives, |lives| any_failed(lives))
                });
            })?
        } else {
            let whole_life = |domid| {
                let guest = attached(domid)?;
                thread::sleep(RUN);
                Ok(guest.detach())
            };
            self.in_window(domids, &stop, daemon, whole_life, |lives| {
                progress.say("are done", lives.len(), all, || {
                    failures(lives, |lives| any_failed(lives))
                });
            })?
        };
        lives.sort_by_key(|lives| lives.first().map(|life| life.key.domid));
        Ok(lives.into_iter().flatten().collect())
    }

    /// Does the work for all of `jobs`, [`WINDOW`] at a time, each in a thread of its own. This
    /// thread tells `progress` of the results meanwhile, and sets `stop` if it must not go on.
    fn in_window<T: Send, R: Send>(
        &self,
        jobs: Vec<T>,
        stop: &AtomicBool,
        daemon: &mut Daemon,
        work: impl Fn(T) -> Result<R, Trouble> + Sync,
        mut progress: impl FnMut(&[R]),
    ) -> Result<Vec<R>, ShowError> {
        let jobs = Mutex::new(jobs.into_iter());
        let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (sender, results) = mpsc::channel();
        thread::scope(|scope| {
            for sender in vec![sender; usize::from(WINDOW)] {
                scope.spawn(|| {
                    let sender = sender;
                    while !stop.load(Ordering::Relaxed)
                        && let Some(job) = next()
                    {
                        // The receiver is there as long as there are threads.
                        let _ = sender.send(work(job));
                    }
                });
            }
            let mut done = Vec::new();
            let mut collect = || loop {
                match results.recv_timeout(TICK) {
                    Ok(result) => done.push(result?),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(std::mem::take(&mut done)),
                }
                self.check(daemon)?;
                progress(&done);
            };
            let collected = collect();
            stop.store(collected.is_err(), Ordering::Relaxed);
            collected
        })
    }

    /// Keeps all guests up until somebody has seen enough.
    fn hold(&self, daemon: &mut Daemon) -> Result<(), ShowError> {
        say(format_args!(
            "All guests are up. From another terminal (xenstore-ls is in Debian's xenstore-utils):\n\n\
             \x20   XENSTORED_PATH={} xenstore-ls -fp /local/domain/{DRIVER}\n\n\
             The daemon's log is {}.\n\
             Enter or Ctrl-C detaches all devices.",
            self.host.toolstack_socket().display(),
            self.scratch.log().display(),
        ));
        self.interrupts.wait_for_enter(|| daemon.ended().is_none())?;
        Ok(())
    }

    /// Fails if there is no point in going on.
    fn check(&self, daemon: &mut Daemon) -> Result<(), ShowError> {
        match daemon.ended() {
            Some(exit) => Err(ShowError::DaemonEnded(exit)),
            None if self.interrupts.came() => Err(ShowError::Interrupted),
            None => Ok(()),
        }
    }
}

fn any_failed(lives: &[Life]) -> bool {
    lives.iter().any(|life| life.failure.is_some())
}

fn failures<T>(guests: &[T], failed: impl Fn(&T) -> bool) -> usize {
    guests.iter().filter(|guest| failed(guest)).count()
}

fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("with exit code {code}"),
        Exit::Signal(signal) => format!("by signal {signal}"),
        Exit::Unheard => "unheard of".into(),
    }
}
