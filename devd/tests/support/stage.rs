//! One device after the other, each with the same life, for one daemon: to see what a mishap
//! in it leads to.

use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::{Devd, Device, Kernel, LIMIT, World, process};

/// A life of a device: what it is and what its hooks do.
#[derive(Clone, Copy, Debug)]
pub enum Story {
    Vif,
    /// Its hook fails the first time.
    VifThatFailsOnce,
    Vbd,
    /// Its hook does not say that it has done well.
    VbdWithoutAWord,
    /// Its removal hook hangs.
    VbdThatHangs,
    Qdisk,
    /// Its first QEMU dies before its guest uses it.
    QdiskTakenUpTwice,
}

impl Story {
    /// Those in which nothing takes seconds.
    pub const ALL: [Self; 6] = [
        Self::Vif,
        Self::VifThatFailsOnce,
        Self::Vbd,
        Self::VbdWithoutAWord,
        Self::Qdisk,
        Self::QdiskTakenUpTwice,
    ];

    pub fn device(self) -> Device {
        match self {
            Self::Vif | Self::VifThatFailsOnce => Device::vif(3, 0),
            Self::Vbd | Self::VbdWithoutAWord | Self::VbdThatHangs => Device::vbd(3, 51712),
            Self::Qdisk => Device::qdisk(3, 51712),
            Self::QdiskTakenUpTwice => Device::qdisk(3, 51712).unused(),
        }
    }

    pub fn prepare(self, world: &World) {
        match self {
            Self::VifThatFailsOnce => world.hook(
                "vif-bridge",
                "case $1 in
                 online) [ -e $DIR/tried ] || { : > $DIR/tried; exit 1; }; call connect;;
                 *) rm $DIR/tried;;
                 esac",
            ),
            Self::VbdWithoutAWord => {
                world.hook("block", "[ $1 = remove ] || call write physical-device 7:0");
            }
            Self::VbdThatHangs => {
                world.hook("block", "[ $1 = add ] || exec sleep 1000; call connect");
            }
            Self::Vif | Self::Vbd | Self::Qdisk | Self::QdiskTakenUpTwice => {}
        }
    }

    /// The runs of hooks: as many additions, and removals, as there may be in one life.
    pub fn check(self, calls: &[String]) -> bool {
        let adds = calls.iter().filter(|call| !is_removal(call)).count();
        let removals = calls.len() - adds;
        let ends_removed = calls.last().is_some_and(|call| is_removal(call));
        match self {
            Self::Vif | Self::Vbd | Self::VbdWithoutAWord | Self::VbdThatHangs => {
                ends_removed && adds == 1 && removals == 1
            }
            Self::VifThatFailsOnce => ends_removed && adds == 2 && removals == 1,
            Self::Qdisk | Self::QdiskTakenUpTwice => calls.is_empty(),
        }
    }
}

fn is_removal(call: &str) -> bool {
    call.contains("offline") || call.contains("remove")
}

/// A daemon, and one device after the other for it.
pub struct Stage {
    story: Story,
    device: Device,
    pub devd: Devd,
    _kernel: Kernel,
    pub world: World,
    files: usize,
    /// What was seen of the log, and of the runs of hooks.
    log_seen: usize,
    calls_seen: usize,
}

impl Stage {
    pub fn new(story: Story) -> Self {
        Self::with(story, |_, _| {})
    }

    /// The same, with a daemon that is started in another way.
    pub fn with(story: Story, change: impl FnOnce(&World, &mut Command)) -> Self {
        let world = World::new();
        story.prepare(&world);
        let qemu = world.qemu();
        let kernel = world.kernel();
        let mut options = vec!["--linger", "10", "--log-level", "info", "--qemu", &qemu];
        if matches!(story, Story::VbdThatHangs) {
            options.extend(["--hook-timeout", "5"]);
        }
        let mut command = world.command(&options);
        change(&world, &mut command);
        let devd = world.devd_by(command);
        // The daemon has closed the files that only its start needs.
        world.wait_settled();
        let files = process::open_files(devd.pid()).len();
        let (device, log_seen) = (story.device(), world.log().len());
        Self { story, device, devd, _kernel: kernel, world, files, log_seen, calls_seen: 0 }
    }

    /// One life, from its beginning to its end. What is not as it should be?
    pub fn live(&mut self) -> Result<(), String> {
        let (world, device, pid) = (&self.world, &self.device, self.devd.pid());
        world.attach(device);
        if matches!(self.story, Story::QdiskTakenUpTwice) {
            within("taken up", || world.node(device, "state").as_deref() == Some("2"))?;
            let qemu = *world.qemus(3).last().expect("a QEMU");
            process::end(qemu);
            within("without that QEMU", || !process::is_alive(qemu))?;
            world.use_device(device);
        }
        within("served", || world.node(device, "state").as_deref() == Some("4"))?;
        world.detach(device);
        within("gone", || !world.exists(device))?;
        for node in ["libxl/3", "device-model/3"] {
            within(&format!("without {node}"), || world.own(node).is_none())?;
        }
        within("without a child", || process::children(pid).is_empty())?;
        within("without open files", || process::open_files(pid).len() == self.files)?;
        let calls = self.world.calls(device);
        let new = &calls[self.calls_seen..];
        if !self.story.check(new) {
            return Err(format!("hooks: {new:?}"));
        }
        self.calls_seen = calls.len();
        Ok(())
    }

    /// Does the log say this, behind what it said of earlier lives?
    pub fn log_says(&mut self, word: &str) -> bool {
        let log = self.world.log();
        let says = log[self.log_seen..].contains(word);
        if says {
            self.log_seen = log.len();
        }
        says
    }

    pub fn log(&self) -> String {
        self.world.log()[self.log_seen..].to_owned()
    }
}

/// Does all of these, some side by side, and sees that nothing is wrong with any: lives are
/// spent waiting.
#[track_caller]
pub fn side_by_side<T: Send>(
    all: impl Iterator<Item = T> + Send,
    wrong_with: impl Fn(T) -> Vec<String> + Sync,
) {
    const AT_ONCE: usize = 12;
    let (left, wrong) = (Mutex::new(all), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(next) = left.lock().unwrap().next() else { break };
                    let new = wrong_with(next);
                    wrong.lock().unwrap().extend(new);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// Is it so, if not now then soon?
pub fn within(what: &str, mut probe: impl FnMut() -> bool) -> Result<(), String> {
    let begin = Instant::now();
    while !probe() {
        if begin.elapsed() > LIMIT {
            return Err(format!("not {what} after {} s", LIMIT.as_secs()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
