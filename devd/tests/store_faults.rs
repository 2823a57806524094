//! The store refuses each thing that the daemon asks of it, once, with each error that it has;
//! or closes the connection there. In the end every device is served, then nothing is left of
//! it, and the log says what was refused.

mod support;

use std::thread;

use support::{DOMID, Device, Stage, Story, World, side_by_side, wait_for, within};
use xs_client::embedded::{ConnectionId, Fault, FaultReport, Moment};
use xs_proto::{ErrorCode, MessageType};

/// The daemon's connection: the later of the two that watch. A hook or a QEMU that has just ended
/// has no watch.
fn connection(world: &World) -> ConnectionId {
    wait_for("the connections of the kernel and of the daemon", || {
        let connections = world.store.connections().into_iter();
        let own = connections
            .filter(|(_, domid, counts)| *domid == DOMID && counts.of(MessageType::Watch) > 0);
        let own: Vec<_> = own.map(|(id, ..)| id).collect();
        own.iter().max().copied().filter(|_| own.len() == 2)
    })
}

/// One life, with something that goes wrong in it. What is not as it should be in the end?
fn live(stage: &mut Stage, fault: Fault) -> (FaultReport, Result<(), String>) {
    let report = stage.world.store.inject(fault.of_connection(connection(&stage.world)));
    let end = stage.live();
    stage.world.store.clear_faults();
    (report, end)
}

/// Lives of one device, in each of which one request more goes well before something goes
/// wrong with the next; what is not as it should be.
fn lives(story: Story, what: &str, fault: &impl Fn() -> Fault, word: &str) -> Vec<String> {
    let mut stage = Stage::new(story);
    let mut wrong = Vec::new();
    for place in 1.. {
        let (report, end) = live(&mut stage, fault().nth(place));
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
    let pairs = faults.iter().flat_map(|fault| Story::ALL.map(|story| (story, fault)));
    side_by_side(pairs, |(story, (what, fault, word))| lives(story, what, fault, word));
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
fn one_refused_request_loses_no_device_and_leaves_nothing() {
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
fn one_refusal_with_any_error_leaves_nothing() {
    let errors = ErrorCode::KNOWN.iter().filter(|code| **code != ErrorCode::NoEnt);
    refuse(&errors.cloned().collect::<Vec<_>>());
}

#[test]
fn one_cut_connection_loses_no_device_and_leaves_nothing() {
    let moments = [Moment::BeforeRequest, Moment::BeforeReply, Moment::AfterReply];
    all_lives(&moments.map(|moment| {
        let what = format!("the connection cut {moment:?}");
        (what, move || Fault::disconnect(moment), "; reconnecting".to_owned())
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
