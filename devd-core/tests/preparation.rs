//! What a hook needs is looked up before its backend is ready, and not again if it is the same.

mod hand;

use devd_core::{Action, BackendPath, Notice, Observation, Phase, State, Want};
use hand::{Hand, VIF, silent};

/// What a first look takes.
fn all() -> Want {
    Want::STATE | Want::HOTPLUG | Want::HOOK
}

/// A device that is there of late, and is being looked at.
fn begin(hand: &mut Hand) {
    hand.event(VIF);
    assert_eq!(hand.actions(), [Action::Observe(VIF, all())]);
}

/// The same, at state 1, with its script seen.
fn prepared() -> Hand {
    let mut hand = Hand::new();
    begin(&mut hand);
    let early = Observation { want: all(), ..silent(State::Initialising) };
    assert_eq!(hand.seen(VIF, early), [Action::Report(VIF, Notice::Found)]);
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
        assert_eq!(hand.actions(), [Action::Observe(VIF, all())]);
        let second = Observation { want: all(), script: Some(b"other"), ..silent(State::InitWait) };
        assert_eq!(hand.seen(VIF, second), [Action::RunHook(VIF)]);
        assert_eq!(hand.dispatcher.hook(VIF).unwrap().script, b"other");
    }
}

#[test]
fn a_script_that_changes_while_it_is_looked_up_is_looked_up_again() {
    let mut hand = Hand::new();
    begin(&mut hand);
    script_event(&mut hand);
    let early = Observation { want: all(), ..silent(State::Initialising) };
    assert_eq!(hand.seen(VIF, early), [Action::Observe(VIF, all())]);
    assert_eq!(hand.dispatcher.phase(VIF), Some(Phase::Waiting));
}
