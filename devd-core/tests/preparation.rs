//! What a hook needs is looked up before its backend is ready, and not again if it is the same.

mod driver;

use devd_core::{Action, BackendPath, Notice, Observation, Phase, Want, XenbusState};
use driver::{Driver, VIF, silent};

/// What a first look takes.
fn all() -> Want {
    Want::STATE | Want::HOTPLUG | Want::HOOK
}

/// A device that is there of late, and is being looked at.
fn begin(driver: &mut Driver) {
    driver.event(VIF);
    assert_eq!(driver.actions(), [Action::Observe(VIF, all())]);
}

/// The same, at state 1, with its script seen.
fn prepared() -> Driver {
    let mut driver = Driver::new();
    begin(&mut driver);
    let early = Observation { want: all(), ..silent(XenbusState::Initialising) };
    assert_eq!(driver.seen(VIF, early), [Action::Report(VIF, Notice::Found)]);
    driver
}

fn script_event(driver: &mut Driver) {
    driver.dispatcher.handle_event(BackendPath::parse(format!("{VIF}/script").as_bytes()));
}

#[test]
fn script_read_in_state_1_is_not_read_again() {
    let mut driver = prepared();
    driver.event(VIF);
    assert_eq!(driver.actions(), [Action::Observe(VIF, Want::STATE)]);
    let second = Observation {
        want: Want::STATE,
        script: None,
        vif_type: None,
        ..silent(XenbusState::InitWait)
    };
    assert_eq!(driver.seen(VIF, second), [Action::RunHook(VIF)]);
    assert_eq!(driver.dispatcher.hook(VIF).unwrap().script, b"script");
}

#[test]
fn script_that_may_have_changed_is_read_again() {
    // Changed, or perhaps, or another device's by now.
    let changes: [fn(&mut Driver); 3] = [
        script_event,
        |driver| driver.dispatcher.handle_event(BackendPath::parse(VIF.to_string().as_bytes())),
        |driver| driver.dispatcher.handle_resync(),
    ];
    for change in changes {
        let mut driver = prepared();
        change(&mut driver);
        driver.event(VIF);
        assert_eq!(driver.actions(), [Action::Observe(VIF, all())]);
        let second =
            Observation { want: all(), script: Some(b"other"), ..silent(XenbusState::InitWait) };
        assert_eq!(driver.seen(VIF, second), [Action::RunHook(VIF)]);
        assert_eq!(driver.dispatcher.hook(VIF).unwrap().script, b"other");
    }
}

#[test]
fn script_that_changes_during_an_observation_is_read_again() {
    let mut driver = Driver::new();
    begin(&mut driver);
    script_event(&mut driver);
    let early = Observation { want: all(), ..silent(XenbusState::Initialising) };
    assert_eq!(driver.seen(VIF, early), [Action::Observe(VIF, all())]);
    assert_eq!(driver.dispatcher.phase(VIF), Some(Phase::Waiting));
}
