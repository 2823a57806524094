//! The command line.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use lexopt::prelude::*;
use log::LevelFilter;

use crate::choice::Preference;

/// Something failed while running; with `--once`, a device could not be served.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The command line makes no sense.
pub(crate) const EXIT_USAGE: u8 = 2;
/// There is no xenstore, or it does not let the daemon watch.
pub(crate) const EXIT_NO_STORE: u8 = 3;
/// Another daemon, or `xl devd`, serves the store, or holds the pid file.
pub(crate) const EXIT_RUNNING: u8 = 4;
/// With `--once`: no device failed, and one still waits for its backend.
pub(crate) const EXIT_WAITING: u8 = 5;

/// Where hotplug scripts are, unless the command line says otherwise.
const SCRIPT_DIR: &str = "/etc/xen/scripts";
/// The run directory, if neither the command line nor the environment names another.
const RUN_DIR: &str = "/run/devd";
/// The variable of the environment that names it.
const RUN_DIR_VARIABLE: &str = "DEVD_RUN_DIR";

/// The text of `--help`, with the parts that this build has.
#[cfg(feature = "demo")]
pub(crate) const HELP: [&str; 3] = [USAGE, DEMO, OPTIONS];
#[cfg(not(feature = "demo"))]
pub(crate) const HELP: [&str; 2] = [USAGE, OPTIONS];

const USAGE: &str = "\
devd - the device daemon of Xen driver domains

usage: devd [options]
";
#[cfg(feature = "demo")]
const DEMO: &str = "       devd demo [--guests N] [--hold]     see it at work, without Xen\n";
const OPTIONS: &str = "
  -F, --foreground       stay in the foreground and log to standard error
  -p, --pidfile FILE     write the process id there, and allow one daemon with this file
      --run-dir DIR      keep the lock of the one daemon for a store there (/run/devd)
      --log FILE         log there (in the background: /var/log/xen/xldevd.log)
      --log-level LEVEL  error, warn, info, debug, or trace: each event of the store (info)
      --xenstore PATH    the store's socket or device (/dev/xen/xenbus and the like)
      --hooks WHICH      auto: the hotplug script if one of the name is installed, else the
                         built-in hook; builtin: the other way round; script: scripts
                         only (auto)
      --antispoof        a guest with ip= in its config sends as those addresses and its MAC
                         address only
      --script-dir DIR   where hotplug scripts are looked up; may be repeated
                         (/etc/xen/scripts)
      --image-dir DIR    the built-in block attaches disks that lie in DIR only, and is the
                         hook of the name block; may be repeated (anywhere)
      --qemu PATH        the QEMU for qdisk and 9pfs
      --no-qemu          start none
      --init-timeout S   report a device whose backend is not ready after S seconds (10)
      --hook-timeout S   end a hotplug script that runs for S seconds (40)
      --max-hooks N      run so many hotplug scripts at once (16)
      --linger MS        keep a closed device's directory for MS milliseconds (200)
      --dry-run          say what would be done, and change nothing
      --once             deal with what is there now, then exit
      --notify-fd N      write a newline to file descriptor N when ready
  -h, --help             this text
  -V, --version          the version

Signals: SIGTERM, SIGINT, SIGQUIT end it; SIGHUP opens the log anew; SIGUSR1 logs the devices.

Exit codes: 0 all is well; 1 something failed (with --once: a device could not be served);
2 usage; 3 no xenstore; 4 another devd, or xl devd, serves the store; 5 with --once: none
failed, but a device still waits for its backend.
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Run(Box<Options>),
    #[cfg(feature = "demo")]
    Demo(DemoOptions),
}

/// How the daemon is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) pidfile: Option<PathBuf>,
    /// See [`run_dir`](Self::run_dir).
    pub(crate) run_dir: Option<PathBuf>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_level: LevelFilter,
    pub(crate) xenstore: Option<PathBuf>,
    pub(crate) hooks: Preference,
    pub(crate) antispoof: bool,
    pub(crate) script_dirs: Vec<PathBuf>,
    /// Where disks must lie; anywhere if there is none.
    pub(crate) image_dirs: Vec<PathBuf>,
    pub(crate) qemu: Qemu,
    pub(crate) init_timeout: Duration,
    pub(crate) hook_timeout: Duration,
    pub(crate) max_hooks: usize,
    pub(crate) linger: Duration,
    pub(crate) dry_run: bool,
    pub(crate) once: bool,
    pub(crate) notify_fd: Option<RawFd>,
}

impl Options {
    pub(crate) fn has_usual_script_dirs(&self) -> bool {
        self.script_dirs == [PathBuf::from(SCRIPT_DIR)]
    }

    pub(crate) fn run_dir(&self) -> &Path {
        self.run_dir.as_deref().unwrap_or(Path::new(RUN_DIR))
    }
}

/// Where the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the background, unless it is supervised or ends by itself.
    Unsaid,
    /// Here: `--foreground`.
    Foreground,
    /// This is the process in the background that an earlier one has started.
    Background,
}

/// Which QEMU serves qdisk and 9pfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Qemu {
    /// The one in a usual place.
    Usual,
    /// This one.
    Path(PathBuf),
    /// None.
    None,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            place: Place::Unsaid,
            pidfile: None,
            run_dir: None,
            log: None,
            log_level: LevelFilter::Info,
            xenstore: None,
            hooks: Preference::Auto,
            antispoof: false,
            script_dirs: Vec::new(),
            image_dirs: Vec::new(),
            qemu: Qemu::Usual,
            init_timeout: Duration::from_secs(10),
            hook_timeout: Duration::from_secs(40),
            max_hooks: 16,
            linger: Duration::from_millis(200),
            dry_run: false,
            once: false,
            notify_fd: None,
        }
    }
}

/// What the demo is to show.
#[cfg(feature = "demo")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DemoOptions {
    pub(crate) guests: u16,
    pub(crate) hold: bool,
    /// What a child of the demo is to be.
    pub(crate) role: DemoRole,
}

/// The demo's child processes are this program again.
#[cfg(feature = "demo")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DemoRole {
    Show,
    Hook,
    Qemu,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error(transparent)]
    Option(#[from] lexopt::Error),
    #[error("{option} takes a number{range}, not {value:?}")]
    Number { option: &'static str, range: &'static str, value: OsString },
    #[error("{0} takes a path, not an empty word")]
    EmptyPath(&'static str),
    #[error("--log-level takes error, warn, info, debug or trace, not {0:?}")]
    LogLevel(OsString),
    #[error("--hooks takes auto, builtin or script, not {0:?}")]
    Hooks(OsString),
    #[error("--image-dir takes a path without .., not {}", .0.display())]
    ImageDir(PathBuf),
    #[error("--image-dir and --hooks script do not go together: scripts attach any disk")]
    ImageDirOfScripts,
    #[error("--qemu and --no-qemu do not go together")]
    QemuTwice,
}

/// Reads the command line, the program's name first.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_iter(words);
    let mut options = Options::default();
    while let Some(word) = parser.next()? {
        match word {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short('F') | Long("foreground") => options.place = Place::Foreground,
            // Not for people: see `daemonize`.
            Long("background") => options.place = Place::Background,
            Short('p') | Long("pidfile") => {
                options.pidfile = Some(path("--pidfile", parser.value()?)?);
            }
            Long("run-dir") => options.run_dir = Some(path("--run-dir", parser.value()?)?),
            Long("log") => options.log = Some(path("--log", parser.value()?)?),
            Long("log-level") => options.log_level = log_level(parser.value()?)?,
            Long("xenstore") => options.xenstore = Some(path("--xenstore", parser.value()?)?),
            Long("hooks") => options.hooks = preference(parser.value()?)?,
            Long("antispoof") => options.antispoof = true,
            Long("script-dir") => options.script_dirs.push(path("--script-dir", parser.value()?)?),
            Long("image-dir") => options.image_dirs.push(image_dir(parser.value()?)?),
            Long("qemu") if options.qemu == Qemu::None => return Err(UsageError::QemuTwice),
            Long("qemu") => options.qemu = Qemu::Path(path("--qemu", parser.value()?)?),
            Long("no-qemu") if options.qemu == Qemu::Usual => options.qemu = Qemu::None,
            Long("no-qemu") if options.qemu == Qemu::None => {}
            Long("no-qemu") => return Err(UsageError::QemuTwice),
            Long("init-timeout") => {
                options.init_timeout = seconds("--init-timeout", parser.value()?)?;
            }
            Long("hook-timeout") => {
                options.hook_timeout = seconds("--hook-timeout", parser.value()?)?;
            }
            Long("max-hooks") => {
                options.max_hooks = match number("--max-hooks", " from 1 on", parser.value()?)? {
                    0 => return Err(not_a_number("--max-hooks", " from 1 on", "0".into())),
                    hooks => hooks,
                };
            }
            Long("linger") => {
                let millis = number("--linger", " of milliseconds", parser.value()?)?;
                options.linger = Duration::from_millis(millis);
            }
            Long("dry-run") => options.dry_run = true,
            Long("once") => options.once = true,
            Long("notify-fd") => {
                options.notify_fd = Some(number("--notify-fd", "", parser.value()?)?);
            }
            #[cfg(feature = "demo")]
            Value(word) if word == "demo" && options == Options::default() => return demo(parser),
            word => return Err(word.unexpected().into()),
        }
    }
    if options.run_dir.is_none() {
        let variable = std::env::var_os(RUN_DIR_VARIABLE).filter(|path| !path.is_empty());
        options.run_dir = variable.map(|variable| path(RUN_DIR_VARIABLE, variable)).transpose()?;
    }
    if options.hooks == Preference::Script && !options.image_dirs.is_empty() {
        return Err(UsageError::ImageDirOfScripts);
    }
    if options.script_dirs.is_empty() {
        options.script_dirs.push(SCRIPT_DIR.into());
    }
    Ok(Command::Run(Box::new(options)))
}

#[cfg(feature = "demo")]
fn demo(mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let mut options = DemoOptions { guests: 8, hold: false, role: DemoRole::Show };
    while let Some(word) = parser.next()? {
        match word {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("guests") => {
                let range = " from 1 to 4000";
                let value = parser.value()?;
                options.guests = match number("--guests", range, value.clone())? {
                    guests @ 1..=4000 => guests,
                    _ => return Err(not_a_number("--guests", range, value)),
                };
            }
            Long("hold") => options.hold = true,
            // What the scripts that the demo writes call: not for people.
            Long("as-hook") => options.role = DemoRole::Hook,
            Long("as-qemu") => options.role = DemoRole::Qemu,
            Value(_) if options.role != DemoRole::Show => {}
            word => return Err(word.unexpected().into()),
        }
        if options.role != DemoRole::Show {
            break; // The rest is the hook's, or QEMU's.
        }
    }
    Ok(Command::Demo(options))
}

/// A path from the command line, absolute: in the background `/` is the working directory.
fn path(option: &'static str, value: OsString) -> Result<PathBuf, UsageError> {
    if value.is_empty() {
        return Err(UsageError::EmptyPath(option));
    }
    // Without a working directory it may be absolute all the same.
    Ok(std::path::absolute(&value).unwrap_or_else(|_| value.into()))
}

fn seconds(option: &'static str, value: OsString) -> Result<Duration, UsageError> {
    number(option, " of seconds", value).map(Duration::from_secs)
}

fn number<T: std::str::FromStr>(
    option: &'static str,
    range: &'static str,
    value: OsString,
) -> Result<T, UsageError> {
    let digits = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) => Ok(number),
        None => Err(not_a_number(option, range, value)),
    }
}

fn not_a_number(option: &'static str, range: &'static str, value: OsString) -> UsageError {
    UsageError::Number { option, range, value }
}

fn image_dir(value: OsString) -> Result<PathBuf, UsageError> {
    let directory = path("--image-dir", value)?;
    let is_plain = !directory.components().any(|it| it == Component::ParentDir);
    if is_plain { Ok(directory) } else { Err(UsageError::ImageDir(directory)) }
}

fn preference(value: OsString) -> Result<Preference, UsageError> {
    match value.to_str() {
        Some("auto") => Ok(Preference::Auto),
        Some("builtin") => Ok(Preference::Builtin),
        Some("script") => Ok(Preference::Script),
        _ => Err(UsageError::Hooks(value)),
    }
}

fn log_level(value: OsString) -> Result<LevelFilter, UsageError> {
    let level = value.to_str().and_then(|text| text.parse().ok());
    level.filter(|level| *level != LevelFilter::Off).ok_or(UsageError::LogLevel(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, UsageError> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Command::Run(options) => Ok(*options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_given_is_what_upstream_does() {
        let options = options("devd").unwrap();
        assert_eq!(options.place, Place::Unsaid);
        assert_eq!(options.script_dirs, [PathBuf::from("/etc/xen/scripts")]);
        assert_eq!(options.linger, Duration::from_millis(200));
    }

    #[test]
    fn relative_paths_are_those_of_the_working_directory() {
        let options = options("devd --log l --script-dir ../s --qemu q").unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(options.log, Some(here.join("l")));
        assert_eq!(options.script_dirs, [here.join("../s")]);
        assert_eq!(options.qemu, Qemu::Path(here.join("q")));
    }

    #[test]
    fn two_dashes_end_the_options() {
        assert_eq!(options("devd -F --").unwrap().place, Place::Foreground);
    }

    #[test]
    fn help_lists_the_demo_if_the_build_has_it() {
        assert_eq!(HELP.concat().contains("devd demo"), cfg!(feature = "demo"));
    }

    #[test]
    fn all_options_at_once() {
        let options = options(
            "devd -F -p /run/d.pid --run-dir /r --log /l --log-level debug --xenstore /s --script-dir /a --hooks builtin --antispoof \
             --script-dir=/b --image-dir /dev --image-dir /srv/images/ --qemu /q --init-timeout 3 --hook-timeout 4 --max-hooks 5 \
             --linger 6 --dry-run --once --notify-fd 7",
        );
        let expected = Options {
            place: Place::Foreground,
            pidfile: Some("/run/d.pid".into()),
            run_dir: Some("/r".into()),
            log: Some("/l".into()),
            log_level: LevelFilter::Debug,
            xenstore: Some("/s".into()),
            hooks: Preference::Builtin,
            antispoof: true,
            script_dirs: vec!["/a".into(), "/b".into()],
            image_dirs: vec!["/dev".into(), "/srv/images/".into()],
            qemu: Qemu::Path("/q".into()),
            init_timeout: Duration::from_secs(3),
            hook_timeout: Duration::from_secs(4),
            max_hooks: 5,
            linger: Duration::from_millis(6),
            dry_run: true,
            once: true,
            notify_fd: Some(7),
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (line, named) in [
            ("devd --max-hooks 0", "--max-hooks"),
            ("devd --linger -1", "--linger"),
            ("devd --hook-timeout soon", "--hook-timeout"),
            ("devd --log-level loud", "loud"),
            ("devd --log-level off", "off"),
            ("devd --hooks mine", "mine"),
            ("devd --qemu /q --no-qemu", "--no-qemu"),
            ("devd --no-qemu --qemu /q", "--no-qemu"),
            ("devd --image-dir /srv/../etc", "--image-dir"),
            ("devd --image-dir /srv --hooks script", "--hooks script"),
            ("devd --frobnicate", "--frobnicate"),
            ("devd serve", "serve"),
            ("devd -F demo", "demo"),
            ("devd -- -F", "-F"),
            ("devd --xenstore=", "--xenstore takes a path"),
            ("devd --pidfile=", "--pidfile takes a path"),
            ("devd --log=", "--log takes a path"),
            ("devd --run-dir=", "--run-dir takes a path"),
            ("devd --script-dir=", "--script-dir takes a path"),
            ("devd --qemu=", "--qemu takes a path"),
            ("devd --pidfile", "--pidfile"),
        ] {
            let error = options(line).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
