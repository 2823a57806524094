//! What a hook needs is looked up before its backend is ready, and not again if it is the same.

mod hand;

use devd_core::{Action, BackendPath, Notice, Observation, State, Want};
use hand::{Hand, VIF, silent};

/// A device that is seen at state 1, and whose script is being looked up.
fn begin(hand: &mut Hand) {
    hand.event(VIF);
    assert_eq!(hand.actions(), [Action::Observe(VIF, Want::STATE)]);
    let early = Observation { want: Want::STATE, script: None, ..silent(State::Initialising) };
    assert_eq!(hand.seen(VIF, early), [Action::Observe(VIF, Want::HOTPLUG | Want::HOOK)]);
}

/// The same, with its script seen.
fn prepared() -> Hand {
    let mut hand = Hand::new();
    begin(&mut hand);
    let want = Want::HOTPLUG | Want::HOOK;
    let script = Observation { want, state: None, ..silent(State::Initialising) };
    assert_eq!(hand.seen(VIF, script), [Action::Report(VIF, Notice::Found)]);
    hand
}

fn script_event(hand: &mut Hand) {
    hand.dispatcher.handle_event(BackendPath::parse(format!("{VIF}/script").as_bytes()));
}

#[test]
fn a_script_that_was_seen_before_the_backend_is_ready_is_not_asked_for_again() {
    let mut hand = prepared();
    hand.event(VIF);
    assert_eq!(hand.actions(), [Action::Observe(VIF, Want::STATE)]);
    let second =
        Observation { want: Want::STATE, script: None, vif_type: None, ..silent(State::InitWait) };
    assert_eq!(hand.seen(VIF, second), [Action::RunHook(VIF)]);
    assert_eq!(hand.dispatcher.hook(VIF).unwrap().script, b"script");
}

#[test]
fn a_script_that_was_seen_and_has_changed_is_asked_for_again() {
    let all = Want::STATE | Want::HOTPLUG | Want::HOOK;
    // Changed, or perhaps, or another device's by now.
    let changes: [fn(&mut Hand); 3] = [
        script_event,
        |hand| hand.dispatcher.handle_event(BackendPath::parse(VIF.to_string().as_bytes())),
        |hand| hand.dispatcher.handle_resync(),
    ];
    for change in changes {
        let mut hand = prepared();
        change(&mut hand);
        hand.event(VIF);
        assert_eq!(hand.actions(), [Action::Observe(VIF, all)]);
        let second = Observation { want: all, script: Some(b"other"), ..silent(State::InitWait) };
        assert_eq!(hand.seen(VIF, second), [Action::RunHook(VIF)]);
        assert_eq!(hand.dispatcher.hook(VIF).unwrap().script, b"other");
    }
}

#[test]
fn a_script_that_changes_while_it_is_looked_up_is_looked_up_again() {
    let mut hand = Hand::new();
    begin(&mut hand);
    script_event(&mut hand);
    let want = Want::HOTPLUG | Want::HOOK;
    let script = Observation { want, state: None, ..silent(State::Initialising) };
    let all = Want::STATE | Want::HOTPLUG | Want::HOOK;
    assert_eq!(hand.seen(VIF, script), [Action::Observe(VIF, all)]);
}
