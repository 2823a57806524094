//! Many lives, and nothing grows: memory, open files, children.

mod support;

use std::env;
use std::fs;

use support::{Device, Memory, World, process, wait_until};

/// Devices that come and go together.
const ROUND: u16 = 50;

/// `DEVD_SOAK_LIVES` says how many lives; 100 000 take some minutes, and show a leak
/// of a byte a life.
#[test]
fn thousands_of_lives_leak_no_memory_file_or_child() {
    let lives = env::var("DEVD_SOAK_LIVES").map_or(5_000, |text| text.parse().unwrap());
    let world = World::new();
    let _kernel = world.kernel();
    let allocated = Memory::new(world.file("memory"));
    let mut command = world.command(&["--linger", "1", "--log-level", "info"]);
    allocated.apply(&mut command);
    let devd = world.devd_by(command);
    let vif = Device::vif(3, 0);
    let round = || {
        let others = |guest| Device::plain("vkbd", guest, 0).with("online", "0").with("state", "6");
        let others: Vec<_> = (100..100 + ROUND - 1).map(others).collect();
        world.attach(&vif);
        world.wait_connected(&vif);
        world.attach_all(&others);
        world.detach(&vif);
        world.wait_gone(&vif);
        others.iter().for_each(|device| world.wait_gone(device));
    };
    for _ in 0..10 {
        round();
    }
    let files = process::open_files(devd.pid()).len();
    let (memory, bytes) = (resident(devd.pid()), allocated.bytes());
    for _ in 0..lives / u32::from(ROUND) {
        round();
    }
    wait_until("as few files as before", || process::open_files(devd.pid()).len() == files);
    wait_until("no children", || process::children(devd.pid()).is_empty());
    let grown = resident(devd.pid()).saturating_sub(memory);
    let more = allocated.bytes() - bytes;
    println!("{lives} lives: {memory} KiB resident before, {grown} KiB more after");
    println!("{bytes} bytes allocated before, {more} more after; {files} files");
    assert!(grown <= 256, "{grown} KiB more than {memory}");
    // Its buffers are as large as the most that has come at once.
    assert!(more <= 64 * 1024, "{more} bytes more than {bytes}");
}

/// Resident memory in KiB.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
