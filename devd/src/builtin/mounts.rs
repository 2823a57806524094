//! Mounts, as the kernel lists them: see `proc_pid_mountinfo(5)`.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use super::device_number::DeviceNumber;

/// One line of `mountinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mount<'a> {
    /// The number of the file system's device.
    pub(crate) device: &'a str,
    /// Where it is; a space is `\040`.
    pub(crate) place: &'a str,
    source: &'a str,
    /// The file system is read-only, not this mount alone.
    read_only: bool,
}

impl<'a> Mount<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ');
        let device = fields.nth(2)?;
        let place = fields.nth(1)?;
        fields.find(|field| *field == "-")?;
        let source = fields.nth(1)?;
        let read_only = fields.next()?.split(',').any(|option| option == "ro");
        Some(Self { device, place, source, read_only })
    }

    fn is_of(&self, number: DeviceNumber) -> bool {
        // btrfs and the like have a number of their own.
        self.device == number.to_string()
            || self.source.starts_with("/dev/") && number.is_at(self.source)
    }
}

/// How a block device is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mounted {
    /// Nobody writes to it. Where.
    ReadOnly(String),
    Writable(String),
}

/// Whether one of these block devices is mounted, here or in another mount namespace, in words
/// that say where.
pub(crate) fn of_devices(numbers: &[DeviceNumber]) -> Option<Mounted> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let here = of_any(&mounts, numbers, "here");
    if matches!(here, Some(Mounted::Writable(_))) {
        return here;
    }
    let mut found = here;
    for (process, mounts) in other_namespaces() {
        let place = format!("in the mount namespace of process {process}");
        match of_any(&mounts, numbers, &place) {
            None => {}
            writable @ Some(Mounted::Writable(_)) => return writable,
            read_only => found = found.or(read_only),
        }
    }
    found
}

fn of_any(mounts: &str, numbers: &[DeviceNumber], place: &str) -> Option<Mounted> {
    let of = |mount: &Mount<'_>| numbers.iter().any(|number| mount.is_of(*number));
    let mut mounts: Vec<_> = mounts.lines().filter_map(Mount::parse).filter(of).collect();
    mounts.sort_by_key(|mount| mount.read_only);
    let mount = mounts.first()?;
    let words = format!("it is mounted on {} {place}", mount.place);
    Some(if mount.read_only { Mounted::ReadOnly(words) } else { Mounted::Writable(words) })
}

/// The mounts of the other mount namespaces, with a process of each. One that has no process is
/// not found.
fn other_namespaces() -> Vec<(u32, String)> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let mut known: HashSet<PathBuf> = namespace("self").into_iter().collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let processes = processes.flatten().filter_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        // Without the right to see which namespace it is, it is one more.
        if namespace(&process.to_string()).is_some_and(|namespace| !known.insert(namespace)) {
            return None;
        }
        Some((process, fs::read_to_string(entry.path().join("mountinfo")).ok()?))
    });
    processes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;

    const RW: &str =
        "36 35 7:3 / /mnt/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/loop3 rw,x=y";
    const RO: &str = "37 35 7:3 / /mnt/c ro - ext4 /dev/loop3 ro";
    const BIND: &str = "38 35 7:3 / /mnt/d ro - ext4 /dev/loop3 rw";
    const OTHER: &str = "39 35 7:4 / /mnt/e rw - ext4 /dev/loop4 rw";

    #[test]
    fn mounts_are_told_by_whether_they_write() {
        let of = |mounts: &str| of_any(mounts, &[DeviceNumber(makedev(7, 3))], "here");
        let place = |place: &str| format!("it is mounted on {place} here");
        assert_eq!(of(RW), Some(Mounted::Writable(place("/mnt/a\\040b"))));
        assert_eq!(of(RO), Some(Mounted::ReadOnly(place("/mnt/c"))));
        assert_eq!(of(BIND), Some(Mounted::Writable(place("/mnt/d"))), "it is written elsewhere");
        assert_eq!(of(OTHER), None);
        assert_eq!(of(""), None);
        assert_eq!(of(&format!("{RO}\n{BIND}")), Some(Mounted::Writable(place("/mnt/d"))));
    }
}
