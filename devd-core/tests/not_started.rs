//! Hooks that cannot be started: the same values are not tried again.

mod driver;

use devd_core::{
    Action, BackendPath, DeviceKey, HookEnd, HookFailure, HotplugStatus, Notice, Observation,
    Phase, Reason, XenbusState,
};
use driver::{Driver, VBD, VIF, facts, silent};

fn failed(failure: HookFailure) -> Option<Phase> {
    Some(Phase::Failed(Reason::Hook(failure)))
}

/// What a look finds at a device that has failed.
fn refused(script: &'static [u8]) -> Observation<'static> {
    Observation { script: Some(script), ..facts(XenbusState::InitWait, HotplugStatus::Refused) }
}

/// A device whose hook could not be started; its failure is in the store.
fn failed_device(key: DeviceKey, script: &'static [u8], failure: HookFailure) -> Driver {
    let mut driver = Driver::new();
    driver.look(key, Observation { script: Some(script), ..silent(XenbusState::InitWait) });
    let actions = driver.hook_ends(key, HookEnd::Failure(failure));
    assert_eq!(actions[0], Action::Fail(key, Reason::Hook(failure)));
    assert_eq!(driver.seen(key, refused(script)), []);
    driver
}

#[test]
fn bad_name_is_tried_again_only_with_another_value() {
    let mut driver = failed_device(VIF, b"/etc/xen/scripts/", HookFailure::BadName);
    for _ in 0..100 {
        assert_eq!(driver.look(VIF, refused(b"/etc/xen/scripts/")), []);
    }
    assert_eq!(driver.wait(3_600_000), []);
    let actions = driver.look(VIF, refused(b"vif-bridge"));
    assert_eq!(actions, [Action::Reset(VIF), Action::RunHook(VIF)]);
    assert_eq!(driver.dispatcher.hook(VIF).unwrap().script, b"vif-bridge");
}

#[test]
fn event_of_unchanged_script_causes_one_look() {
    let mut driver = failed_device(VBD, b"..", HookFailure::BadName);
    driver.dispatcher.handle_event(BackendPath::parse(format!("{VBD}/script").as_bytes()));
    assert!(matches!(driver.actions()[..], [Action::Observe(VBD, _)]));
    assert_eq!(driver.seen(VBD, refused(b"..")), []);
}

#[test]
fn new_device_with_the_same_bad_name_is_told_so() {
    let mut driver = failed_device(VIF, b"..", HookFailure::BadName);
    let new = Observation { script: Some(b".."), ..silent(XenbusState::InitWait) };
    assert!(driver.look(VIF, new).contains(&Action::Report(VIF, Notice::Replaced)));
    assert!(driver.seen(VIF, new).contains(&Action::RunHook(VIF)));
    let failure = HookFailure::BadName;
    let actions = driver.hook_ends(VIF, HookEnd::Failure(failure));
    assert_eq!(actions[0], Action::Fail(VIF, Reason::Hook(failure)));
}

#[test]
fn new_device_that_lacks_its_script_too_is_told_so() {
    let mut driver = Driver::new();
    let bare = Observation { script: None, ..silent(XenbusState::InitWait) };
    let fail = Action::Fail(VBD, Reason::NoScript);
    assert!(driver.look(VBD, bare).contains(&fail));
    let marked =
        Observation { script: None, ..facts(XenbusState::InitWait, HotplugStatus::Refused) };
    driver.seen(VBD, marked);
    assert_eq!(driver.look(VBD, marked), []);
    assert!(driver.look(VBD, bare).contains(&Action::Report(VBD, Notice::Replaced)));
    assert!(driver.seen(VBD, bare).contains(&fail));
}

#[test]
fn missing_program_is_looked_for_ever_less_often() {
    let failure = HookFailure::NotFound;
    let mut driver = failed_device(VBD, b"block-later", failure);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(driver.wait(seconds * 1_000 - 1), [], "before {seconds} s");
        assert_eq!(driver.wait(1), [Action::CheckHook(VBD)]);
        assert_eq!(driver.dispatcher.hook(VBD).unwrap().script, b"block-later");
        driver.dispatcher.handle_hook_check(VBD, Err(failure), driver.time());
        assert_eq!(driver.actions(), []);
    }
    assert_eq!(driver.wait(60_000), [Action::CheckHook(VBD)]);
    driver.dispatcher.handle_hook_check(VBD, Ok(()), driver.time());
    assert!(matches!(driver.actions()[..], [Action::Observe(VBD, _)]));
    let actions = driver.seen(VBD, refused(b"block-later"));
    assert_eq!(actions, [Action::Reset(VBD), Action::RunHook(VBD)]);
}

#[test]
fn missing_program_that_becomes_another_failure_is_told() {
    let mut driver = failed_device(VBD, b"block-later", HookFailure::NotFound);
    driver.wait(1_000);
    let other = HookFailure::NotExecutable;
    driver.dispatcher.handle_hook_check(VBD, Err(other), driver.time());
    assert_eq!(driver.actions(), [Action::Fail(VBD, Reason::Hook(other))]);
    assert_eq!(driver.phase(VBD), failed(other));
}

#[test]
fn missing_program_is_not_waited_for_when_script_changes() {
    let mut driver = failed_device(VBD, b"block-later", HookFailure::NotFound);
    let actions = driver.look(VBD, refused(b"block"));
    assert_eq!(actions, [Action::Reset(VBD), Action::RunHook(VBD)]);
}

#[test]
fn late_check_of_a_hook_changes_nothing() {
    let mut driver = failed_device(VBD, b"block-later", HookFailure::NotFound);
    driver.wait(1_000);
    driver.look(VBD, refused(b"block"));
    let phase = driver.phase(VBD);
    for found in [Ok(()), Err(HookFailure::NotFound)] {
        driver.dispatcher.handle_hook_check(VBD, found, driver.time());
        assert_eq!((driver.actions(), driver.phase(VBD)), (vec![], phase));
    }
}

#[test]
fn bad_gateway_is_tried_again_only_with_another_value() {
    let mut driver = Driver::new();
    let bad = Observation { gatewaydev: Some(b"a\0"), ..silent(XenbusState::InitWait) };
    driver.look(VIF, bad);
    let failure = HookFailure::BadGateway;
    driver.hook_ends(VIF, HookEnd::Failure(failure));
    let bad = Observation { gatewaydev: Some(b"a\0"), ..refused(b"script") };
    assert_eq!(driver.seen(VIF, bad), []);
    // `gatewaydev` has no event of its own: the daemon reads it again.
    for seconds in [1, 2, 4] {
        assert!(matches!(driver.wait(seconds * 1_000)[..], [Action::Observe(VIF, _)]));
        assert_eq!(driver.seen(VIF, bad), []);
    }
    assert!(matches!(driver.wait(8_000)[..], [Action::Observe(VIF, _)]));
    let actions = driver.seen(VIF, refused(b"script"));
    assert_eq!(actions, [Action::Reset(VIF), Action::RunHook(VIF)]);
}

#[test]
fn refused_mark_of_a_bad_name_is_written_again_later() {
    let mut driver = Driver::new();
    let bad = Observation { script: Some(b".."), ..silent(XenbusState::InitWait) };
    driver.look(VBD, bad);
    let reason = Reason::Hook(HookFailure::BadName);
    driver.dispatcher.handle_hook_end(VBD, HookEnd::Failure(HookFailure::BadName), driver.time());
    assert_eq!(driver.dispatcher.poll_action(), Some(Action::Fail(VBD, reason)));
    driver.dispatcher.handle_mark_refused(VBD, HotplugStatus::Refused, driver.time());
    assert!(matches!(driver.actions()[..], [Action::Observe(VBD, _)]));
    assert_eq!(driver.seen(VBD, bad), [Action::Fail(VBD, reason)]);
    assert!(matches!(driver.actions()[..], []));
    assert_eq!(driver.look(VBD, Observation { script: Some(b".."), ..refused(b"..") }), []);
}

#[test]
fn hook_that_never_started_has_no_removal() {
    let mut driver = failed_device(VBD, b"..", HookFailure::BadName);
    let closed = Observation {
        online: false,
        script: Some(b".."),
        ..facts(XenbusState::Closed, HotplugStatus::Refused)
    };
    assert_eq!(driver.look(VBD, closed), [Action::Report(VBD, Notice::Closed)]);
    assert_eq!(driver.wait(200), [Action::Remove(VBD)]);
}

#[test]
fn hook_that_ran_before_its_script_vanished_has_a_removal() {
    let mut driver = Driver::new();
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.hook_ends(VBD, HookEnd::Failure(HookFailure::Exit(1)));
    driver.seen(VBD, refused(b"script"));
    driver.wait(1_000);
    driver.seen(VBD, refused(b"script"));
    driver.hook_ends(VBD, HookEnd::Failure(HookFailure::NotFound));
    driver.seen(VBD, refused(b"script"));
    let closed =
        Observation { online: false, ..facts(XenbusState::Closed, HotplugStatus::Refused) };
    assert!(driver.look(VBD, closed).contains(&Action::RunHook(VBD)));
}
