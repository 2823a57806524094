//! Hotplug hooks: processes that take time, and that outlive the daemon.

use std::collections::BTreeMap;

use devd_core::{DeviceKey, Hook, HookEnd, HookFailure, ServedBy, Verb};

use super::store::{Directory, Life, Store};

/// How a hook behaves. A script's name says it: `fails-2+deaf` fails twice and works from then
/// on; its removal ignores SIGTERM, and hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Manner {
    /// Does its work and says so.
    Works,
    /// Does its work and leaves `hotplug-status` alone.
    Mute,
    /// Exits with 1.
    Fails,
    /// Says `error` in `hotplug-status` and exits with 0.
    Reports,
    /// Never ends by itself.
    Hangs,
    /// Never ends by itself, and ignores SIGTERM.
    Deaf,
}

impl Manner {
    fn parse(word: &str) -> Self {
        match word {
            "works" | "missing" | "locked" | "uninterpreted" | "bad/" => Self::Works,
            "mute" => Self::Mute,
            "fails" => Self::Fails,
            "reports" => Self::Reports,
            "hangs" => Self::Hangs,
            "deaf" => Self::Deaf,
            _ => panic!("no hook behaves like {word}"),
        }
    }

    /// How a hook fails when all its ways are tried.
    pub(crate) fn of_failure(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Fails),
            2 => Some(Self::Reports),
            3 => Some(Self::Deaf),
            _ => None,
        }
    }

    /// Does the hook's work get done?
    fn does_it(self) -> bool {
        matches!(self, Self::Works | Self::Mute)
    }
}

/// What a script's name says: the manner of its first so many runs for adding, and of
/// removing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    add: Manner,
    times: u32,
    remove: Manner,
}

impl Script {
    pub(crate) fn parse(name: &str) -> Self {
        let (add, remove) = name.split_once('+').unwrap_or((name, "works"));
        let (add, times) = add.split_once('-').unwrap_or((add, "99999"));
        let times = times.parse().expect("a number of times");
        Self { add: Manner::parse(add), times, remove: Manner::parse(remove) }
    }

    /// Will a device of this sort be served in the end?
    pub(crate) fn works_in_the_end(self, server: ServedBy) -> bool {
        let network = server == ServedBy::NetworkHook;
        self.times < 99_999 || self.add == Manner::Works || self.add == Manner::Mute && !network
    }
}

/// Why a hook of this name cannot be started. `installed`: the missing programs are there.
pub(crate) fn before_start(hook: &Hook<'_>, installed: bool) -> Option<HookFailure> {
    match hook.script {
        b"bad/" => Some(HookFailure::BadName),
        b"missing" if !installed => Some(HookFailure::NotFound),
        b"locked" if !installed => Some(HookFailure::NotExecutable),
        b"uninterpreted" if !installed => Some(HookFailure::NoInterpreter),
        _ => hook.gatewaydev.contains(&0).then_some(HookFailure::BadGateway),
    }
}

/// The same of a device's directory.
pub(crate) fn is_startable(key: DeviceKey, directory: &Directory, installed: bool) -> bool {
    let hook = Hook {
        key,
        verb: Verb::Add,
        tap: false,
        script: directory.script.as_deref().unwrap_or_default().as_bytes(),
        ioemu: false,
        gatewaydev: directory.gatewaydev.unwrap_or_default().as_bytes(),
    };
    before_start(&hook, installed).is_none()
}

pub(crate) type Pid = u32;

/// A hook that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) key: DeviceKey,
    pub(crate) verb: Verb,
    pub(crate) tap: bool,
    /// The device's life at the daemon's last look before the start.
    pub(crate) life: Option<Life>,
    pub(crate) manner: Manner,
    /// The daemon whose child it is, or that has found it.
    pub(crate) daemon: u32,
    /// That daemon did not start it, and will not know how it ended.
    pub(crate) found: bool,
    /// Its work is done; it has still to exit.
    done: bool,
}

/// What a hook's next step led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// It goes on for ever.
    Hangs,
    /// It has done its work, and exits soon.
    Done,
    /// It has ended.
    Exit(Process, HookEnd),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    running: BTreeMap<Pid, Process>,
    started: Pid,
    /// How often the adding of a device of this life was tried.
    tries: BTreeMap<(DeviceKey, Option<Life>), u32>,
}

impl Hooks {
    pub(crate) fn running(&self) -> impl Iterator<Item = (Pid, &Process)> {
        self.running.iter().map(|(pid, process)| (*pid, process))
    }

    pub(crate) fn of(&self, key: DeviceKey) -> Option<Pid> {
        self.running().find(|(_, process)| process.key == key).map(|(pid, _)| pid)
    }

    /// Starts one, which behaves as its script's name says, if it is not to fail.
    pub(crate) fn start(
        &mut self,
        hook: &Hook<'_>,
        life: Option<Life>,
        daemon: u32,
        failure: Option<Manner>,
    ) -> Pid {
        let name = std::str::from_utf8(hook.script).expect("a name of ours");
        let script = Script::parse(name);
        let manner = match hook.verb {
            Verb::Remove => script.remove,
            Verb::Add => {
                let tries = self.tries.entry((hook.key, life)).or_default();
                *tries += u32::from(!hook.tap);
                if *tries <= script.times { script.add } else { Manner::Works }
            }
        };
        let manner = failure.unwrap_or(manner);
        self.started += 1;
        let Hook { key, verb, tap, .. } = *hook;
        let process = Process { key, verb, tap, life, manner, daemon, found: false, done: false };
        self.running.insert(self.started, process);
        self.started
    }

    /// A new daemon finds it.
    pub(crate) fn adopt(&mut self, pid: Pid, daemon: u32) {
        if let Some(process) = self.running.get_mut(&pid) {
            process.daemon = daemon;
            process.found = true;
        }
    }

    /// It goes on with what it does.
    pub(crate) fn step(&mut self, pid: Pid, store: &mut Store) -> Option<Step> {
        let process = self.running.get_mut(&pid)?;
        let Process { key, manner, .. } = *process;
        if matches!(manner, Manner::Hangs | Manner::Deaf) {
            return Some(Step::Hangs);
        }
        if process.done {
            let end = match manner {
                Manner::Fails => HookEnd::Failure(HookFailure::Exit(1)),
                _ => HookEnd::Success,
            };
            return Some(self.end(pid, end));
        }
        process.done = true;
        if process.verb == Verb::Add {
            if manner.does_it() {
                store.write(key, "physical-device", |directory| directory.physical_device = true);
            }
            match manner {
                Manner::Works => store.set_hotplug(key, Some("connected")),
                Manner::Reports => store.set_hotplug(key, Some("error")),
                Manner::Mute | Manner::Fails | Manner::Hangs | Manner::Deaf => {}
            }
        }
        Some(Step::Done)
    }

    /// SIGTERM, or SIGKILL.
    pub(crate) fn signal(&mut self, pid: Pid, kill: bool) -> Option<Step> {
        let deaf = self.running.get(&pid)?.manner == Manner::Deaf;
        let signal = if kill { 9 } else { 15 };
        (kill || !deaf).then(|| self.end(pid, HookEnd::Failure(HookFailure::Signal(signal))))
    }

    fn end(&mut self, pid: Pid, end: HookEnd) -> Step {
        let process = self.running.remove(&pid).expect("it runs");
        let end = if process.found { HookEnd::Unknown } else { end };
        Step::Exit(process, end)
    }
}

impl Process {
    /// Is what it was started for in place, or away, now that it has ended?
    pub(crate) fn has_done_it(&self, end: HookEnd) -> bool {
        let in_time = end != HookEnd::Failure(HookFailure::Signal(15))
            && end != HookEnd::Failure(HookFailure::Signal(9));
        // The daemon takes the silence of a network hook for a failure.
        let mute =
            self.manner == Manner::Mute && self.key.kind.served_by() == ServedBy::NetworkHook;
        self.done && in_time && self.manner.does_it() && !mute
    }
}
