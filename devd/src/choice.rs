//! Which hook the value of a `script` node means.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use devd_core::{Hook, HookFailure, Kind};

use crate::builtin::Builtin;
use crate::hook::{self, Script};
use crate::process::Inheritance;
use crate::shown;

/// What hooks there are to be (`--hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preference {
    /// The script if one of that name is installed, else the built-in hook.
    Auto,
    /// The built-in hook if there is one of that name, else the script.
    Builtin,
    /// Scripts only.
    Script,
}

/// A hook that can be run.
#[derive(Debug)]
pub(crate) enum Choice {
    Script(Script),
    Builtin(Builtin),
}

/// Chooses.
#[derive(Clone, Debug)]
pub(crate) struct Chooser {
    preference: Preference,
    directories: Vec<PathBuf>,
    /// Are disks to lie in certain directories (`--image-dir`)? Xen's script would not care.
    confined: bool,
    inheritance: Inheritance,
    /// Names whose choice was told.
    told: HashSet<Vec<u8>>,
}

impl Chooser {
    pub(crate) fn new(
        preference: Preference,
        directories: Vec<PathBuf>,
        confined: bool,
        inheritance: Inheritance,
    ) -> Self {
        Self { preference, directories, confined, inheritance, told: HashSet::new() }
    }

    /// The hook that a device's `script` node means.
    pub(crate) fn choose(&self, hook: &Hook<'_>) -> Result<Choice, HookFailure> {
        let builtin = || Builtin::of(hook::name_of(hook), hook.key.kind);
        let script = || Script::new(hook, &self.directories, &self.inheritance);
        match self.preference {
            Preference::Auto if self.confined && builtin() == Some(Builtin::Block) => {
                Ok(Choice::Builtin(Builtin::Block))
            }
            Preference::Script => script().map(Choice::Script),
            Preference::Auto => match (script(), builtin()) {
                (
                    Err(
                        HookFailure::NotFound
                        | HookFailure::NotExecutable
                        | HookFailure::NoInterpreter
                        | HookFailure::BadName,
                    ),
                    Some(builtin),
                ) => Ok(Choice::Builtin(builtin)),
                (script, _) => script.map(Choice::Script),
            },
            Preference::Builtin => match builtin() {
                Some(builtin) => Ok(Choice::Builtin(builtin)),
                None => script().map(Choice::Script),
            },
        }
    }

    /// As [`choose`](Self::choose), for a hook that is to run now: what is chosen for a name is
    /// logged the first time.
    pub(crate) fn choose_and_tell(&mut self, hook: &Hook<'_>) -> Result<Choice, HookFailure> {
        let choice = self.choose(hook)?;
        let name = hook::name_of(hook);
        // Nobody has that many; the bound is for whoever tries.
        if self.told.len() < 256 && !self.told.contains(name) {
            self.told.insert(name.to_owned());
            let shown = shown::value(name);
            match &choice {
                Choice::Script(script) => {
                    log::info!("hook {shown}: the script {}", script.path.display());
                    if self.confined && matches!(hook.key.kind, Kind::Vbd | Kind::Vbd3) {
                        log::warn!(
                            "hook {shown}: --image-dir does not apply: a script attaches any disk"
                        );
                    }
                }
                Choice::Builtin(_) => {
                    log::info!("hook {shown}: built in");
                    self.warn_of_unused_script(OsStr::from_bytes(name));
                }
            }
        }
        Ok(choice)
    }

    /// A script is there, and `--hooks auto` does without it, which its owner may not expect.
    fn warn_of_unused_script(&self, name: &OsStr) {
        let shown = shown::value(name.as_bytes());
        let why = match hook::find(name, &self.directories) {
            Err(HookFailure::NotExecutable) => "it is not executable (chmod +x)",
            Err(HookFailure::NoInterpreter) => "the program that its first line names is missing",
            _ => return,
        };
        if self.preference == Preference::Auto {
            log::warn!("hook {shown}: the script of that name is not used: {why}");
        }
    }
}

impl Chooser {
    /// Will disks, as most of them are, have the built-in hook?
    pub(crate) fn builds_in_disks(&self) -> bool {
        let script = hook::find(OsStr::from_bytes(hook::usual(Kind::Vbd)), &self.directories);
        match self.preference {
            Preference::Script => false,
            Preference::Auto => self.confined || script.is_err(),
            Preference::Builtin => true,
        }
    }
}
