//! How the daemon begins: what it opens, and why it cannot.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devd_core::{Dispatcher, Settings};
use xs_client::{Address, Client, Disconnected, Error};

use super::turn::Pending;
use super::{Daemon, Stage, signals};
use crate::choice::{Chooser, Preference};
use crate::cli::{EXIT_FAILURE, EXIT_NO_STORE, EXIT_RUNNING, Options, Qemu};
use crate::clock::Clock;
use crate::executor::Executor;
use crate::hooks::Hooks;
use crate::orphans::{self, Criteria};
use crate::pidfile::{PidFile, PidFileError};
use crate::poller::{Poller, Source, signal_fd};
use crate::process::Inheritance;
use crate::qemu::Qemus;
use crate::readiness::Readiness;
use crate::removal::Removals;
use crate::run_dir::RunDir;
use crate::store_lock::{IdentityError, StoreIdentity, StoreLock, StoreLockError};
use crate::token::{self, Token};
use crate::words::Surroundings;
use crate::xl_devd;

/// The directory of all devices, relative to the domain's home, and so are the events.
const BACKEND: &str = "backend";
/// The token of the watch on it: the only one as long as no QEMU is being started.
const TOKEN: &[u8] = b"devd";
/// How often a transaction is tried while others change the same nodes, with waits of 63 ms in all. A
/// guest that reconnects all the time makes its backend change them; the daemon tries again later.
const TRANSACTION_TRIES: u32 = 8;
/// How often, and after which wait, what the daemon cannot do without is tried.
const TRIES: u32 = 8;
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Running(#[from] PidFileError),
    #[error(transparent)]
    Locked(#[from] StoreLockError),
    #[error(
        "xl devd serves {store}: process {pid}; with devd beside it every hook would run twice: \
         end it first (systemctl disable --now xendriverdomain)"
    )]
    XlDevd { store: Address, pid: i32 },
    #[error(transparent)]
    Address(#[from] xs_client::AddressError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Open(#[from] xs_client::OpenError),
    #[error("the store does not let the daemon watch {BACKEND}: {0}")]
    Watch(Error),
    #[error(
        "{address} is no xenstore, or it has just ended: {source}; --xenstore takes xenstored's \
         socket or /dev/xen/xenbus"
    )]
    NoStore { address: Address, source: Error },
    #[error("cannot {what}: {source}{}", remedy(source))]
    System { what: &'static str, source: io::Error },
}

impl StartError {
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Running(PidFileError::Held { .. })
            | Self::Locked(StoreLockError::Held { .. })
            | Self::XlDevd { .. } => EXIT_RUNNING,
            Self::Address(_)
            | Self::Identity(_)
            | Self::Open(_)
            | Self::Watch(_)
            | Self::NoStore { .. } => EXIT_NO_STORE,
            Self::Running(PidFileError::Io { .. })
            | Self::Locked(StoreLockError::RunDir(_) | StoreLockError::Io { .. })
            | Self::System { .. } => EXIT_FAILURE,
        }
    }

    pub(super) const fn system(what: &'static str, source: io::Error) -> Self {
        Self::System { what, source }
    }

    /// The first request failed: a store refused it, or there is no store at this address.
    fn of_watch(address: Address, error: Error) -> Self {
        let hung_up = match &error {
            Error::Protocol(_)
            | Error::Disconnected(Disconnected::Closed | Disconnected::Frame(_)) => true,
            Error::Disconnected(Disconnected::Io(error)) => {
                matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET))
            }
            _ => false,
        };
        if hung_up { Self::NoStore { address, source: error } } else { Self::Watch(error) }
    }
}

/// What the command line names and is not there may come later: devices fail until then.
fn warn_of_missing(options: &Options) {
    for directory in &options.script_dirs {
        // Without Xen's scripts the built-in hooks do their work.
        let expected = !options.has_usual_script_dirs() || options.hooks == Preference::Script;
        if expected && !directory.is_dir() {
            log::warn!(
                "--script-dir {}: no such directory; no hotplug script is found there",
                directory.display()
            );
        }
    }
    if let Qemu::Path(path) = &options.qemu {
        let is_program = |file: Metadata| file.is_file() && file.permissions().mode() & 0o111 != 0;
        if !fs::metadata(path).is_ok_and(is_program) {
            log::warn!(
                "--qemu {}: no such program; qdisk and 9pfs are not served without it",
                path.display()
            );
        }
    }
}

/// Sees to it that no other daemon serves the store, as long as what is returned is kept.
fn lock_store(
    options: &Options,
    address: &Address,
    identity: &StoreIdentity,
) -> Result<StoreLock, StartError> {
    let run_dir = RunDir::open(options.run_dir());
    let lock = StoreLock::take(address, identity, run_dir)?;
    let other = retry_os(|| xl_devd::find(identity))
        .map_err(|error| StartError::system("see what runs here", error))?;
    match other {
        Some(pid) => Err(StartError::XlDevd { store: address.clone(), pid }),
        None => Ok(lock),
    }
}

impl<'a> Daemon<'a> {
    pub(super) fn start(options: &'a Options, readiness: Readiness) -> Result<Self, StartError> {
        let pidfile = options.pidfile.as_deref().map(PidFile::take).transpose()?;
        let poller = retry_os(|| Poller::new(signals::heard()))
            .map_err(|error| StartError::system("hear of signals", error))?;

        let address = Address::find(options.xenstore.as_deref())?;
        log::info!("devd {}, xenstore at {address}", env!("CARGO_PKG_VERSION"));
        let identity = StoreIdentity::of(&address)?;
        warn_of_missing(options);
        let store_lock =
            if options.dry_run { None } else { Some(lock_store(options, &address, &identity)?) };
        let mut client = Client::open(address.clone())?;
        let ends = signals::ENDS.into_iter().collect();
        let interrupt = retry_os(|| signal_fd(&ends))
            .map_err(|error| StartError::system("hear of signals", error))?;
        client.set_interrupt(interrupt.into());
        client.set_transaction_tries(TRANSACTION_TRIES);
        client.watch(BACKEND, TOKEN).map_err(|error| StartError::of_watch(address, error))?;

        let inheritance = Inheritance { xenstore: options.xenstore.clone(), token: token(options) };
        let log_dir = options.log.as_deref().and_then(Path::parent).map(Path::to_owned);
        let log_dir = log_dir.unwrap_or_else(|| PathBuf::from("/var/log/xen"));
        let chooser = Chooser::new(
            options.hooks,
            options.script_dirs.clone(),
            !options.image_dirs.is_empty(),
            inheritance.clone(),
        );
        let hooks = retry_os(|| Hooks::new(chooser.clone(), options, &poller))
            .map_err(|error| StartError::system("hear of built-in hooks", error))?;
        let mut daemon = Self {
            options,
            clock: Clock::start(),
            dispatcher: Dispatcher::new(settings(options)),
            executor: Executor::default(),
            removals: Removals::default(),
            hooks,
            qemus: Qemus::new(options.qemu.clone(), inheritance.clone(), log_dir),
            surroundings: Surroundings {
                hooks: options.hooks,
                script_dirs: options.script_dirs.clone(),
                hook_timeout: options.hook_timeout,
                qemu: options.qemu.clone(),
            },
            client,
            poller,
            readiness,
            unknown_kinds: HashSet::new(),
            stage: Stage::Listing,
            pending: Pending { resync: true, ..Pending::default() },
            scan: None,
            reconnect: None,
            relist: None,
            ending: None,
            _pidfile: pidfile,
            _store_lock: store_lock,
        };
        retry_os(|| daemon.poll_store())
            .map_err(|error| StartError::system("hear of the store", error))?;
        daemon.announce();
        daemon
            .adopt(inheritance)
            .map_err(|error| StartError::system("see what runs here", error))?;
        Ok(daemon)
    }

    /// Takes over what an earlier daemon has left running.
    fn adopt(&mut self, inheritance: Inheritance) -> io::Result<()> {
        let now = self.clock.now();
        let criteria = Criteria {
            inheritance,
            script_dirs: self.options.script_dirs.clone(),
            qemus: self.qemus.paths(),
        };
        let mut found = retry_os(|| orphans::find(&criteria))?;
        for orphan in std::mem::take(&mut found.hooks) {
            retry_os(|| self.poller.add(&orphan.process, Source::Process(orphan.pid)))?;
            log::info!(
                "{}: process {} is its hook, which an earlier daemon has started: waiting for its end",
                orphan.key,
                orphan.pid
            );
            self.dispatcher.handle_hook_found(orphan.key, orphan.verb, orphan.tap, now);
            self.hooks.adopt(orphan);
        }
        self.qemus.set_found(found);
        Ok(())
    }
}

/// What hooks and QEMUs are recognised by. `None` if nothing is started.
fn token(options: &Options) -> Option<Token> {
    let path = options.run_dir().join(token::FILE);
    if options.dry_run {
        return Token::load(&path).ok().flatten();
    }
    let kept = match RunDir::open(options.run_dir()) {
        Ok(_) => Token::load_or_make(&path).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    kept.or_else(|error| {
        log::warn!(
            "cannot keep a token in {}: {error}; a daemon that is started later knows hooks and \
             QEMUs by their programs only",
            path.display()
        );
        Token::random()
    })
    .ok()
}

/// Calls `attempt` up to [`TRIES`] times: a lack of memory or of descriptors may pass.
pub(super) fn retry_os<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(error) => log::error!("the system refuses: {error}; will try again"),
            result => return result,
        }
        std::thread::sleep(TRY_AGAIN);
    }
    attempt()
}

/// What to do about it, where that is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => "; allow more (ulimit -n, LimitNOFILE=)",
        Some(libc::ENOMEM) => "; give this domain more memory",
        _ => "",
    }
}

fn settings(options: &Options) -> Settings {
    Settings {
        init_timeout: options.init_timeout,
        hook_timeout: options.hook_timeout,
        max_hooks: options.max_hooks,
        // Nobody has to wait for what is not done.
        linger: if options.dry_run { Duration::ZERO } else { options.linger },
        ..Settings::default()
    }
}
