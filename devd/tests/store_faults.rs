//! The store refuses each thing that the daemon asks of it, once, with each error that it has;
//! or closes the connection there. In the end every device is served, then nothing is left of
//! it, and the log says what was refused.

mod support;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use support::{DOMID, Devd, Device, Kernel, World, process, wait_for};
use xs_client::embedded::{ConnectionId, Fault, FaultReport, Moment};
use xs_proto::ErrorCode;

/// How long anything may take; the daemon's first tries again are after a second at most.
const LIMIT: Duration = Duration::from_secs(15);

/// A life of a device: what it is and what its hooks do.
#[derive(Clone, Copy, Debug)]
enum Story {
    Vif,
    /// Its hook fails the first time.
    VifThatFailsOnce,
    Vbd,
    /// Its hook does not say that it has done well.
    VbdWithoutAWord,
    Qdisk,
    /// Its first QEMU dies before its guest uses it.
    QdiskTakenUpTwice,
}

impl Story {
    const ALL: [Self; 6] = [
        Self::Vif,
        Self::VifThatFailsOnce,
        Self::Vbd,
        Self::VbdWithoutAWord,
        Self::Qdisk,
        Self::QdiskTakenUpTwice,
    ];

    fn device(self) -> Device {
        match self {
            Self::Vif | Self::VifThatFailsOnce => Device::vif(3, 0),
            Self::Vbd | Self::VbdWithoutAWord => Device::vbd(3, 51712),
            Self::Qdisk => Device::qdisk(3, 51712),
            Self::QdiskTakenUpTwice => Device::qdisk(3, 51712).unused(),
        }
    }

    fn prepare(self, world: &World) {
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
            Self::Vif | Self::Vbd | Self::Qdisk | Self::QdiskTakenUpTwice => {}
        }
    }

    /// The runs of hooks: as many additions, and removals, as there may be in one life.
    fn check(self, calls: &[String]) -> bool {
        let adds = calls.iter().filter(|call| !is_removal(call)).count();
        let removals = calls.len() - adds;
        let ends_removed = calls.last().is_some_and(|call| is_removal(call));
        match self {
            Self::Vif | Self::Vbd | Self::VbdWithoutAWord => {
                // What could not be noted may be undone, and done, once more.
                ends_removed && (1..=2).contains(&adds) && (1..=2).contains(&removals)
            }
            Self::VifThatFailsOnce => {
                ends_removed && (2..=3).contains(&adds) && (1..=2).contains(&removals)
            }
            Self::Qdisk | Self::QdiskTakenUpTwice => calls.is_empty(),
        }
    }
}

fn is_removal(call: &str) -> bool {
    call.contains("offline") || call.contains("remove")
}

/// A daemon, and one device after the other for it.
struct Stage {
    story: Story,
    device: Device,
    devd: Devd,
    _kernel: Kernel,
    world: World,
    files: usize,
    /// What was seen of the log, and of the runs of hooks.
    log_seen: usize,
    calls_seen: usize,
}

impl Stage {
    fn new(story: Story) -> Self {
        let world = World::new();
        story.prepare(&world);
        let qemu = world.qemu();
        let kernel = world.kernel();
        let options = ["--linger", "10", "--log-level", "info", "--qemu", &qemu];
        let devd = world.devd(&options);
        let files = process::open_files(devd.pid()).len();
        let (device, log_seen) = (story.device(), world.log().len());
        Self { story, device, devd, _kernel: kernel, world, files, log_seen, calls_seen: 0 }
    }

    /// The daemon's connection: the later of two, while there are no hooks and QEMUs.
    fn connection(&self) -> ConnectionId {
        wait_for("the connections of the kernel and of the daemon", || {
            let connections = self.world.store.connections().into_iter();
            let own = connections.filter(|(_, domid, _)| *domid == DOMID).map(|(id, _, _)| id);
            let own: Vec<_> = own.collect();
            own.iter().max().copied().filter(|_| own.len() == 2)
        })
    }

    /// One life, with something that goes wrong in it. What is not as it should be in the end?
    fn live(&mut self, fault: Fault) -> (FaultReport, Result<(), String>) {
        let report = self.world.store.inject(fault.of_connection(self.connection()));
        let end = self.live_on();
        self.world.store.clear_faults();
        (report, end)
    }

    fn live_on(&mut self) -> Result<(), String> {
        let (world, device, pid) = (&self.world, &self.device, self.devd.pid());
        world.attach(device);
        if matches!(self.story, Story::QdiskTakenUpTwice) {
            within("taken up", || world.node(device, "state").as_deref() == Some("2"))?;
            process::end(*world.qemus(3).last().expect("a QEMU"));
            within("as new", || world.node(device, "state").as_deref() == Some("1"))?;
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
    fn log_says(&mut self, word: &str) -> bool {
        let log = self.world.log();
        let says = log[self.log_seen..].contains(word);
        if says {
            self.log_seen = log.len();
        }
        says
    }

    fn log(&self) -> String {
        self.world.log()[self.log_seen..].to_owned()
    }
}

/// Is it so, if not now then soon?
fn within(what: &str, mut probe: impl FnMut() -> bool) -> Result<(), String> {
    let begin = Instant::now();
    while !probe() {
        if begin.elapsed() > LIMIT {
            return Err(format!("not {what} after {} s", LIMIT.as_secs()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Lives of one device, in each of which one request more goes well before something goes
/// wrong with the next; what is not as it should be.
fn lives(story: Story, what: &str, fault: &impl Fn() -> Fault, word: &str) -> Vec<String> {
    let mut stage = Stage::new(story);
    let mut wrong = Vec::new();
    for place in 1.. {
        let (report, end) = stage.live(fault().nth(place));
        let problem = match (end, report.victim()) {
            (Ok(()), None) => {
                assert!(place > 10, "{story:?} makes only {place} requests");
                break;
            }
            // It may be the last that it does.
            (Ok(()), Some(_)) => match within("in the log", || stage.log_says(word)) {
                Ok(()) => continue,
                Err(problem) => problem,
            },
            (Err(problem), _) => problem,
        };
        let victim =
            report.victim().map(|victim| (victim.kind, victim.path.escape_ascii().to_string()));
        let log = stage.log();
        wrong.push(format!("{story:?}, {what} at {place}, {victim:?}: {problem}\n{log}"));
        stage = Stage::new(story);
    }
    wrong
}

/// Runs lives of all stories, some side by side.
fn all_lives(faults: &[(String, impl Fn() -> Fault + Sync, String)]) {
    const AT_ONCE: usize = 12;
    let pairs = faults.iter().flat_map(|fault| Story::ALL.map(|story| (story, fault)));
    let left = Mutex::new(pairs.collect::<Vec<_>>());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().pop();
                    let Some((story, (what, fault, word))) = next else { break };
                    let new = lives(story, what, fault, word);
                    wrong.lock().unwrap().extend(new);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// One error at each request of each life. The client tries again by itself after `EAGAIN`.
fn refuse(errors: &[ErrorCode]) {
    let faults = errors.iter().map(|code| {
        let word = if *code == ErrorCode::Again { String::new() } else { code.to_string() };
        (code.to_string(), || Fault::error(code.clone()), word)
    });
    all_lives(&faults.collect::<Vec<_>>());
}

#[test]
fn whatever_the_store_refuses_once_every_device_is_served_and_nothing_is_left() {
    refuse(&[
        ErrorCode::Acces,
        ErrorCode::Again,
        ErrorCode::Exist,
        ErrorCode::Io,
        ErrorCode::NoSpc,
    ]);
}

/// `ENOENT` is no failure: it is how the daemon learns what is not there.
#[test]
#[ignore = "takes minutes: the same with every error there is"]
fn whatever_the_store_refuses_with_whatever_error_nothing_is_left() {
    let errors = ErrorCode::KNOWN.iter().filter(|code| **code != ErrorCode::NoEnt);
    refuse(&errors.cloned().collect::<Vec<_>>());
}

#[test]
fn wherever_the_connection_is_cut_every_device_is_served_and_nothing_is_left() {
    let moments = [Moment::BeforeRequest, Moment::BeforeReply, Moment::AfterReply];
    all_lives(&moments.map(|moment| {
        let what = format!("the connection cut {moment:?}");
        (what, move || Fault::disconnect(moment), "I try to get it back".to_owned())
    }));
}

/// A disk that is connected and whose QEMU runs must not be taken for lost, nor get a second
/// QEMU, because the store has once not said which process that is.
#[test]
fn whatever_is_refused_at_its_start_what_is_served_stays_so() {
    let errors = [ErrorCode::Acces, ErrorCode::Io, ErrorCode::NoMem, ErrorCode::Again];
    let moments = [Moment::BeforeRequest, Moment::BeforeReply, Moment::AfterReply];
    thread::scope(|scope| {
        for error in errors {
            scope.spawn(move || start_again(&error.to_string(), || Fault::error(error.clone())));
        }
        for moment in moments {
            scope.spawn(move || start_again(&format!("{moment:?}"), || Fault::disconnect(moment)));
        }
    });
}

fn start_again(what: &str, fault: impl Fn() -> Fault) {
    let world = World::new();
    world.gate("never");
    let qemu = world.qemu_that(
        "call write device-model/3/state running
         while :; do read x < $DIR/never; done",
    );
    let options = ["--log-level", "info", "--qemu", &qemu];
    let connected = [("state", "4"), ("hotplug-status", "connected")];
    let with = |device: Device| connected.iter().fold(device, |device, (k, v)| device.with(k, v));
    let devices = [with(Device::vif(3, 0)), with(Device::vbd(3, 51712)), Device::qdisk(3, 51728)];
    let devd = world.devd(&options);
    world.attach_all(&devices);
    world.wait_logged("backend/qdisk/3/51728: attached");
    for (node, value) in connected {
        world.set(&devices[2], node, value);
    }
    devd.kill();

    for place in 1.. {
        let begin = world.log().len();
        let says = |text: &str| world.log()[begin..].contains(text);
        let report = world.store.inject(fault().nth(place).of_domain(DOMID));
        let mut devd = world.spawn(world.command(&options));
        let served = |device: &Device| says(&format!("{}: served already", device.path()));
        wait_for("all to be served, or the daemon's end", || {
            (devices.iter().all(served) || devd.has_ended()).then_some(())
        });
        world.store.clear_faults();
        let at = format!("{what} at {place}, {:?}:\n{}", report.victim(), &world.log()[begin..]);
        if devd.has_ended() {
            // What it cannot do without it says at once.
            assert_eq!(devd.wait().code(), Some(3), "{at}");
            assert!(place == 1, "{at}");
            continue;
        }
        devd.kill();
        assert_eq!(world.qemus(3).len(), 1, "{at}");
        assert_eq!(world.runs().len(), 1, "{at}");
        for device in &devices {
            assert_eq!(world.node(device, "hotplug-status").as_deref(), Some("connected"), "{at}");
            assert_eq!(world.node(device, "hotplug-error"), None, "{at}");
        }
        if report.victim().is_none() {
            assert!(place > 10, "{at}");
            break;
        }
    }
}
