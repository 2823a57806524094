//! Upstream's contract with a hotplug script: its file, its arguments, its environment.
//!
//! Byte for byte what libxl gives it on Linux (`get_hotplug_env` and
//! `libxl__get_hotplug_script_info` in `tools/libs/light/libxl_linux.c`).

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use devd_core::{Hook, HookFailure, Kind, Verb};

use crate::process::{Inheritance, c_path, environment};

/// One run of a script, ready to be started.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) path: PathBuf,
    pub(crate) program: CString,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
}

impl Script {
    /// Finds the file that the device's `script` node names, in the directories that are
    /// allowed. The directory in the node itself is of no account: who can write the node
    /// must not choose what runs as root.
    ///
    /// # Errors
    ///
    /// The name is none, or there is no such program in the directories, or it cannot be
    /// executed; or the value of `gatewaydev` fits no environment.
    pub(crate) fn new(
        hook: &Hook<'_>,
        directories: &[PathBuf],
        inheritance: &Inheritance,
    ) -> Result<Self, HookFailure> {
        let name = file_name(hook.script).ok_or(HookFailure::BadName)?;
        let path = find(name, directories)?;
        if hook.gatewaydev.contains(&0) {
            return Err(HookFailure::BadGateway);
        }
        let program = c_path(&path).map_err(|_| HookFailure::BadName)?;
        let mut arguments = vec![program.clone()];
        arguments.extend(words(hook).iter().map(|word| CString::from(*word)));
        let environment = variables(hook, &path, inheritance);
        Ok(Self { path, program, arguments, environment })
    }
}

/// The name of the hook that the device's `script` node means; empty if it means none.
pub(crate) fn name_of<'a>(hook: &Hook<'a>) -> &'a [u8] {
    match file_name(hook.script) {
        None if hook.script.is_empty() => usual(hook.key.kind),
        name => name.map(OsStr::as_bytes).unwrap_or_default(),
    }
}

/// The hook of a device whose `script` node is empty.
pub(crate) const fn usual(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Vif => b"vif-bridge",
        Kind::Vbd | Kind::Vbd3 => b"block",
        _ => b"",
    }
}

/// The name of the file at the end of the node's value.
pub(crate) fn file_name(script: &[u8]) -> Option<&OsStr> {
    let name = script.rsplit(|byte| *byte == b'/').next()?;
    let usable = !matches!(name, b"" | b"." | b"..") && !name.iter().any(u8::is_ascii_control);
    usable.then(|| OsStr::from_bytes(name))
}

/// The first program of this name in the directories.
///
/// # Errors
///
/// There is none, or only files that are not executable; or the system has nothing to run it with.
pub(crate) fn find(name: &OsStr, directories: &[PathBuf]) -> Result<PathBuf, HookFailure> {
    let mut failure = HookFailure::NotFound;
    for path in directories.iter().map(|directory| directory.join(name)) {
        let Ok(file) = fs::metadata(&path) else { continue };
        if !file.is_file() {
            continue;
        }
        if file.permissions().mode() & 0o111 == 0 {
            failure = HookFailure::NotExecutable;
            continue;
        }
        return match interpreter(&path) {
            Some(interpreter) if is_missing(&interpreter) => Err(HookFailure::NoInterpreter),
            _ => Ok(path),
        };
    }
    Err(failure)
}

fn is_missing(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The program that the first line of a script names (`#!`), if it names one.
pub(crate) fn interpreter(script: &Path) -> Option<PathBuf> {
    words_of(&first_line(script)?).next().map(PathBuf::from)
}

/// The first line of a script, without `#!`; empty if it does not begin so. `None`: the file cannot
/// be read.
pub(crate) fn first_line(script: &Path) -> Option<Vec<u8>> {
    let mut begin = Vec::new();
    // As much as the kernel reads of it.
    File::open(script).ok()?.take(256).read_to_end(&mut begin).ok()?;
    let line = begin.strip_prefix(b"#!").unwrap_or_default();
    Some(line.split(|byte| *byte == b'\n').next().unwrap_or_default().to_owned())
}

pub(crate) fn words_of(line: &[u8]) -> impl Iterator<Item = &OsStr> {
    let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    words.filter(|word| !word.is_empty()).map(OsStr::from_bytes)
}

/// The arguments behind the program's name.
pub(crate) fn words(hook: &Hook<'_>) -> &'static [&'static std::ffi::CStr] {
    match (hook.key.kind, hook.tap, hook.verb) {
        (Kind::Vif, false, Verb::Add) => &[c"online", c"type_if=vif"],
        (Kind::Vif, false, Verb::Remove) => &[c"offline", c"type_if=vif"],
        (Kind::Vif, true, Verb::Add) => &[c"add", c"type_if=tap"],
        (Kind::Vif, true, Verb::Remove) => &[c"remove", c"type_if=tap"],
        (_, _, Verb::Add) => &[c"add"],
        (_, _, Verb::Remove) => &[c"remove"],
    }
}

fn variables(hook: &Hook<'_>, path: &Path, inheritance: &Inheritance) -> Vec<CString> {
    let key = hook.key;
    let directory = OsString::from(key.to_string());
    let vif = OsString::from(format!("vif{}.{}", key.domid, key.devid));
    let emulated = OsString::from(format!("vif{}.{}-emu", key.domid, key.devid));
    let mut added: Vec<(&str, &OsStr)> = vec![
        ("script", path.as_os_str()),
        ("XENBUS_TYPE", OsStr::new(key.kind.name())),
        ("XENBUS_PATH", &directory),
        ("XENBUS_BASE_PATH", OsStr::new("backend")),
    ];
    if key.kind == Kind::Vif {
        added.push(("netdev", OsStr::from_bytes(hook.gatewaydev)));
        if hook.ioemu {
            added.push(("INTERFACE", &emulated));
        }
        added.push(("vif", &vif));
    }
    added.extend(inheritance.variables());
    environment(&added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use devd_core::DeviceKey;

    fn hook<'a>(kind: Kind, verb: Verb, script: &'a [u8]) -> Hook<'a> {
        let key = DeviceKey { kind, domid: 3, devid: 0 };
        Hook { key, verb, tap: false, script, ioemu: false, gatewaydev: b"" }
    }

    fn program(directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn added(script: &Script) -> Vec<String> {
        let text = |pair: &CString| pair.to_string_lossy().into_owned();
        let ours = |pair: &String| {
            ["script=", "XENBUS_", "netdev=", "vif=", "INTERFACE=", "XENSTORED_PATH="]
                .iter()
                .any(|name| pair.starts_with(name))
        };
        script.environment.iter().map(text).filter(ours).collect()
    }

    #[test]
    fn a_network_interface_as_libxl_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), "vif-bridge");
        let directories = [directory.path().to_owned()];
        let mut run = hook(Kind::Vif, Verb::Add, b"/etc/xen/scripts/vif-bridge");
        let script = Script::new(&run, &directories, &Inheritance::default()).unwrap();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        assert_eq!(script.arguments, [name, c"online".into(), c"type_if=vif".into()]);
        assert_eq!(
            added(&script),
            [
                &format!("script={}", path.display())[..],
                "XENBUS_TYPE=vif",
                "XENBUS_PATH=backend/vif/3/0",
                "XENBUS_BASE_PATH=backend",
                "netdev=",
                "vif=vif3.0",
            ]
        );
        let store = Inheritance { xenstore: Some("/run/store".into()), token: None };
        run.tap = true;
        run.ioemu = true;
        run.verb = Verb::Remove;
        run.gatewaydev = b"eth0";
        let script = Script::new(&run, &directories, &store).unwrap();
        assert_eq!(script.arguments[1..], [c"remove", c"type_if=tap"].map(CString::from));
        assert_eq!(
            added(&script)[4..],
            ["netdev=eth0", "INTERFACE=vif3.0-emu", "vif=vif3.0", "XENSTORED_PATH=/run/store"]
        );
    }

    #[test]
    fn a_disk_as_libxl_has_it() {
        let directory = tempfile::tempdir().unwrap();
        program(directory.path(), "block");
        let run = hook(Kind::Vbd, Verb::Remove, b"block");
        let script =
            Script::new(&run, &[directory.path().to_owned()], &Inheritance::default()).unwrap();
        assert_eq!(script.arguments[1..], [CString::from(c"remove")]);
        assert_eq!(added(&script)[1..3], ["XENBUS_TYPE=vbd", "XENBUS_PATH=backend/vbd/3/0"]);
    }

    #[test]
    fn script_without_its_interpreter_is_no_program() {
        let directory = tempfile::tempdir().unwrap();
        let directories = [directory.path().to_owned()];
        let find = |text: &str| {
            fs::write(program(directory.path(), "block"), text).unwrap();
            super::find(OsStr::new("block"), &directories).map(drop)
        };
        assert_eq!(find("#!/bin/sh -e\n"), Ok(()));
        assert_eq!(find("#! /bin/sh"), Ok(()));
        assert_eq!(find("#!/no/such/shell\n"), Err(HookFailure::NoInterpreter));
        // As an editor of another system writes it.
        assert_eq!(find("#!/bin/sh\r\n"), Err(HookFailure::NoInterpreter));
        for other in ["", "#!", "#!\n", "\x7fELF", "echo without a first line\n"] {
            assert_eq!(find(other), Ok(()), "{other:?}");
        }
    }

    #[test]
    fn only_programs_in_the_directories_are_ever_run() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directories = [first.path().to_owned(), second.path().to_owned()];
        let find = |script: &[u8]| {
            Script::new(&hook(Kind::Vbd, Verb::Add, script), &directories, &Inheritance::default())
                .map(|script| script.path)
        };
        let outside = program(Path::new(&std::env::temp_dir()), "devd-test-outside");
        let inside = program(second.path(), "block");
        fs::write(first.path().join("not-executable"), "").unwrap();
        fs::create_dir(first.path().join("directory")).unwrap();

        assert_eq!(find(b"/any/where/block"), Ok(inside.clone()));
        let own = program(first.path(), "block");
        assert_eq!(find(b"block"), Ok(own));
        assert_eq!(find(outside.as_os_str().as_bytes()), Err(HookFailure::NotFound));
        assert_eq!(find(b"not-executable"), Err(HookFailure::NotExecutable));
        assert_eq!(find(b"directory"), Err(HookFailure::NotFound));
        assert_eq!(find(b"block; reboot"), Err(HookFailure::NotFound));
        assert_eq!(find(&[b'x'; 3000]), Err(HookFailure::NotFound));
        for bad in [&b""[..], b"/", b"..", b"/etc/xen/scripts/", b"a/..", b"block\n", b"bl\0ck"] {
            assert_eq!(find(bad), Err(HookFailure::BadName), "{}", bad.escape_ascii());
        }
        fs::remove_file(outside).unwrap();
    }
}
