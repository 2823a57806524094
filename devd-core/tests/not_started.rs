//! Hooks that cannot be started: the same values are not tried again.

mod hand;

use devd_core::{
    Action, BackendPath, DeviceKey, HookEnd, HookFailure, HotplugStatus, Notice, Observation,
    Phase, Reason, State,
};
use hand::{Hand, VBD, VIF, facts, silent};

fn failed(failure: HookFailure) -> Option<Phase> {
    Some(Phase::Failed(Reason::Hook(failure)))
}

/// What a look finds at a device that has failed.
fn refused(script: &'static [u8]) -> Observation<'static> {
    Observation { script: Some(script), ..facts(State::InitWait, HotplugStatus::Refused) }
}

/// A device whose hook could not be started; its failure is in the store.
fn failed_device(key: DeviceKey, script: &'static [u8], failure: HookFailure) -> Hand {
    let mut hand = Hand::new();
    hand.look(key, Observation { script: Some(script), ..silent(State::InitWait) });
    let actions = hand.hook_ends(key, HookEnd::Failure(failure));
    assert_eq!(actions[0], Action::Fail(key, Reason::Hook(failure)));
    assert_eq!(hand.seen(key, refused(script)), []);
    hand
}

#[test]
fn bad_name_is_tried_again_only_with_another_value() {
    let mut hand = failed_device(VIF, b"/etc/xen/scripts/", HookFailure::BadName);
    for _ in 0..100 {
        assert_eq!(hand.look(VIF, refused(b"/etc/xen/scripts/")), []);
    }
    assert_eq!(hand.wait(3_600_000), []);
    let actions = hand.look(VIF, refused(b"vif-bridge"));
    assert_eq!(actions, [Action::Reset(VIF), Action::RunHook(VIF)]);
    assert_eq!(hand.dispatcher.hook(VIF).unwrap().script, b"vif-bridge");
}

#[test]
fn event_of_unchanged_script_causes_one_look() {
    let mut hand = failed_device(VBD, b"..", HookFailure::BadName);
    hand.dispatcher.handle_event(BackendPath::parse(format!("{VBD}/script").as_bytes()));
    assert!(matches!(hand.actions()[..], [Action::Observe(VBD, _)]));
    assert_eq!(hand.seen(VBD, refused(b"..")), []);
}

#[test]
fn new_device_with_the_same_bad_name_is_told_so() {
    let mut hand = failed_device(VIF, b"..", HookFailure::BadName);
    let new = Observation { script: Some(b".."), ..silent(State::InitWait) };
    assert!(hand.look(VIF, new).contains(&Action::Report(VIF, Notice::Replaced)));
    assert!(hand.seen(VIF, new).contains(&Action::RunHook(VIF)));
    let failure = HookFailure::BadName;
    let actions = hand.hook_ends(VIF, HookEnd::Failure(failure));
    assert_eq!(actions[0], Action::Fail(VIF, Reason::Hook(failure)));
}

#[test]
fn new_device_that_lacks_its_script_too_is_told_so() {
    let mut hand = Hand::new();
    let bare = Observation { script: None, ..silent(State::InitWait) };
    let fail = Action::Fail(VBD, Reason::NoScript);
    assert!(hand.look(VBD, bare).contains(&fail));
    let marked = Observation { script: None, ..facts(State::InitWait, HotplugStatus::Refused) };
    hand.seen(VBD, marked);
    assert_eq!(hand.look(VBD, marked), []);
    assert!(hand.look(VBD, bare).contains(&Action::Report(VBD, Notice::Replaced)));
    assert!(hand.seen(VBD, bare).contains(&fail));
}

#[test]
fn missing_program_is_looked_for_ever_less_often() {
    let failure = HookFailure::NotFound;
    let mut hand = failed_device(VBD, b"block-later", failure);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(hand.wait(seconds * 1_000 - 1), [], "before {seconds} s");
        assert_eq!(hand.wait(1), [Action::CheckHook(VBD)]);
        assert_eq!(hand.dispatcher.hook(VBD).unwrap().script, b"block-later");
        hand.dispatcher.handle_hook_check(VBD, Err(failure), hand.time());
        assert_eq!(hand.actions(), []);
    }
    assert_eq!(hand.wait(60_000), [Action::CheckHook(VBD)]);
    hand.dispatcher.handle_hook_check(VBD, Ok(()), hand.time());
    assert!(matches!(hand.actions()[..], [Action::Observe(VBD, _)]));
    let actions = hand.seen(VBD, refused(b"block-later"));
    assert_eq!(actions, [Action::Reset(VBD), Action::RunHook(VBD)]);
}

#[test]
fn missing_program_that_becomes_another_failure_is_told() {
    let mut hand = failed_device(VBD, b"block-later", HookFailure::NotFound);
    hand.wait(1_000);
    let other = HookFailure::NotExecutable;
    hand.dispatcher.handle_hook_check(VBD, Err(other), hand.time());
    assert_eq!(hand.actions(), [Action::Fail(VBD, Reason::Hook(other))]);
    assert_eq!(hand.phase(VBD), failed(other));
}

#[test]
fn missing_program_is_not_waited_for_when_script_changes() {
    let mut hand = failed_device(VBD, b"block-later", HookFailure::NotFound);
    let actions = hand.look(VBD, refused(b"block"));
    assert_eq!(actions, [Action::Reset(VBD), Action::RunHook(VBD)]);
}

#[test]
fn late_check_of_a_hook_changes_nothing() {
    let mut hand = failed_device(VBD, b"block-later", HookFailure::NotFound);
    hand.wait(1_000);
    hand.look(VBD, refused(b"block"));
    let phase = hand.phase(VBD);
    for found in [Ok(()), Err(HookFailure::NotFound)] {
        hand.dispatcher.handle_hook_check(VBD, found, hand.time());
        assert_eq!((hand.actions(), hand.phase(VBD)), (vec![], phase));
    }
}

#[test]
fn bad_gateway_is_tried_again_only_with_another_value() {
    let mut hand = Hand::new();
    let bad = Observation { gatewaydev: Some(b"a\0"), ..silent(State::InitWait) };
    hand.look(VIF, bad);
    let failure = HookFailure::BadGateway;
    hand.hook_ends(VIF, HookEnd::Failure(failure));
    let bad = Observation { gatewaydev: Some(b"a\0"), ..refused(b"script") };
    assert_eq!(hand.seen(VIF, bad), []);
    // `gatewaydev` has no event of its own: the daemon reads it again.
    for seconds in [1, 2, 4] {
        assert!(matches!(hand.wait(seconds * 1_000)[..], [Action::Observe(VIF, _)]));
        assert_eq!(hand.seen(VIF, bad), []);
    }
    assert!(matches!(hand.wait(8_000)[..], [Action::Observe(VIF, _)]));
    let actions = hand.seen(VIF, refused(b"script"));
    assert_eq!(actions, [Action::Reset(VIF), Action::RunHook(VIF)]);
}

#[test]
fn refused_mark_of_a_bad_name_is_written_again_later() {
    let mut hand = Hand::new();
    let bad = Observation { script: Some(b".."), ..silent(State::InitWait) };
    hand.look(VBD, bad);
    let reason = Reason::Hook(HookFailure::BadName);
    hand.dispatcher.handle_hook_end(VBD, HookEnd::Failure(HookFailure::BadName), hand.time());
    assert_eq!(hand.dispatcher.poll_action(), Some(Action::Fail(VBD, reason)));
    hand.dispatcher.handle_mark_refused(VBD, HotplugStatus::Refused, hand.time());
    assert!(matches!(hand.actions()[..], [Action::Observe(VBD, _)]));
    assert_eq!(hand.seen(VBD, bad), [Action::Fail(VBD, reason)]);
    assert!(matches!(hand.actions()[..], []));
    assert_eq!(hand.look(VBD, Observation { script: Some(b".."), ..refused(b"..") }), []);
}

#[test]
fn hook_that_never_started_has_no_removal() {
    let mut hand = failed_device(VBD, b"..", HookFailure::BadName);
    let closed = Observation {
        online: false,
        script: Some(b".."),
        ..facts(State::Closed, HotplugStatus::Refused)
    };
    assert_eq!(hand.look(VBD, closed), [Action::Report(VBD, Notice::Closed)]);
    assert_eq!(hand.wait(200), [Action::Remove(VBD)]);
}

#[test]
fn hook_that_ran_before_its_script_vanished_has_a_removal() {
    let mut hand = Hand::new();
    hand.look(VBD, silent(State::InitWait));
    hand.hook_ends(VBD, HookEnd::Failure(HookFailure::Exit(1)));
    hand.seen(VBD, refused(b"script"));
    hand.wait(1_000);
    hand.seen(VBD, refused(b"script"));
    hand.hook_ends(VBD, HookEnd::Failure(HookFailure::NotFound));
    hand.seen(VBD, refused(b"script"));
    let closed = Observation { online: false, ..facts(State::Closed, HotplugStatus::Refused) };
    assert!(hand.look(VBD, closed).contains(&Action::RunHook(VBD)));
}
