//! Failures that the random worlds have found, each as the shortest sequence that shows it.

mod driver;

use std::time::Duration;

use devd_core::{
    Action, BackendPath, DeviceKey, HookEnd, HookFailure, HotplugStatus, Notice, Observation,
    Phase, QemuEvent, QemuFailure, Reason, Removal, Run, Settings, Verb, Want, XenbusState,
};
use driver::{Driver, P9, QDISK, VBD, VIF, facts, silent};

#[test]
fn event_during_the_removal_causes_an_observation() {
    let mut driver = Driver::new();
    driver.attach(VBD);
    driver.remove(VBD);
    driver.event(VBD);
    driver.dispatcher.handle_removal(VBD, Removal::Removed, driver.time());
    assert!(driver.actions().iter().any(|action| matches!(action, Action::Observe(VBD, _))));
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&Action::RunHook(VBD)));
}

#[test]
fn observation_from_before_a_removal_is_discarded() {
    let mut driver = Driver::new();
    driver.attach(VIF);
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    driver.look(VIF, closed);
    driver.hook_ends(VIF, HookEnd::Success);
    driver.event(VIF);
    driver.actions();
    driver.wait(200);
    driver.dispatcher.handle_removal(VIF, Removal::Removed, driver.time());
    driver.event(VIF);
    driver.actions();
    let actions = driver.seen(VIF, closed);
    assert!(!actions.contains(&Action::RunHook(VIF)), "{actions:?}");
    assert!(matches!(actions[..], [Action::Observe(VIF, _)]));
}

#[test]
fn observation_from_before_the_hooks_exit_is_discarded() {
    let mut driver = Driver::new();
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.event(VBD);
    driver.actions();
    driver.hook_ends(VBD, HookEnd::Success);
    let actions = driver.seen(VBD, silent(XenbusState::InitWait));
    assert!(matches!(actions[..], [Action::Observe(VBD, _)]), "{actions:?}");
    driver.seen(VBD, facts(XenbusState::InitWait, HotplugStatus::Refused));
    assert_eq!(driver.phase(VBD), Some(Phase::Failed(Reason::Hook(HookFailure::Reported))));
}

#[test]
fn observation_from_before_qemus_exit_is_discarded() {
    let mut driver = Driver::new();
    driver.serve(P9);
    driver.event(P9);
    driver.actions();
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    driver.seen(P9, silent(XenbusState::Initialising));
    driver.seen(P9, facts(XenbusState::Connected, HotplugStatus::Connected));
    assert_eq!(driver.phase(P9), Some(Phase::Failed(Reason::Lost)));
    assert_eq!(driver.wait(1_000), [], "no QEMU for a share that another has begun with");
}

#[test]
fn queued_hook_whose_script_has_gone_does_not_run() {
    let mut driver = Driver::with(Settings { max_hooks: 1, ..Settings::default() });
    driver.look(VIF, silent(XenbusState::InitWait));
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.look(VBD, Observation { script: None, ..silent(XenbusState::InitWait) });
    assert_eq!(driver.phase(VBD), Some(Phase::Failed(Reason::NoScript)));
    assert!(!driver.hook_ends(VIF, HookEnd::Success).contains(&Action::RunHook(VBD)));
}

#[test]
fn there_is_no_second_pass_without_a_script() {
    let mut driver = Driver::new();
    driver.dispatcher.handle_hook_found(VIF, Verb::Add, false, driver.time());
    driver.actions();
    let bare =
        Observation { script: None, vif_type: Some(b"vif_ioemu"), ..silent(XenbusState::InitWait) };
    driver.seen(VIF, bare);
    assert!(!driver.hook_ends(VIF, HookEnd::Unknown).contains(&Action::RunHook(VIF)));
}

#[test]
fn adopted_removal_hook_does_not_remove_the_successor() {
    let mut driver = Driver::new();
    driver.dispatcher.handle_hook_found(VBD, Verb::Remove, false, driver.time());
    driver.actions();
    driver.seen(VBD, silent(XenbusState::InitWait));
    let actions = driver.hook_ends(VBD, HookEnd::Unknown);
    assert!(matches!(actions[..], [Action::MarkDetached(VBD), Action::Observe(VBD, _)]));
    let actions = driver.seen(VBD, silent(XenbusState::InitWait));
    assert!(actions.contains(&Action::Report(VBD, Notice::Replaced)));
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&Action::RunHook(VBD)));
}

#[test]
fn device_that_vanishes_while_first_observed_is_cleaned_up() {
    let mut driver = Driver::new();
    let closed = Observation {
        want: Want::STATE | Want::ONLINE | Want::HOTPLUG | Want::HOOK,
        ..facts(XenbusState::Closed, HotplugStatus::Connected)
    };
    assert!(matches!(driver.look(VBD, closed)[..], [Action::Observe(VBD, _)]));
    assert!(driver.seen(VBD, Observation::GONE).contains(&Action::RunHook(VBD)));
}

#[test]
fn device_closed_during_an_adopted_add_hook_is_cleaned_up() {
    let mut driver = Driver::new();
    driver.dispatcher.handle_hook_found(VBD, Verb::Add, false, driver.time());
    driver.actions();
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    driver.seen(VBD, Observation { want: Want::STATE, ..closed });
    driver.seen(VBD, closed);
    driver.hook_ends(VBD, HookEnd::Unknown);
    assert!(driver.seen(VBD, closed).contains(&Action::RunHook(VBD)));
    assert_eq!(driver.dispatcher.hook(VBD).map(|hook| hook.verb), Some(Verb::Remove));
}

#[test]
fn successor_of_a_lost_disk_connected_by_qemu_is_served() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    driver.seen(QDISK, facts(XenbusState::Connected, HotplugStatus::Connected));
    assert_eq!(driver.phase(QDISK), Some(Phase::Failed(Reason::Lost)));

    let other = DeviceKey { devid: 1, ..QDISK };
    driver.look(other, silent(XenbusState::Initialising));
    assert_eq!(driver.wait(1_000), [Action::StartQemu(1)]);
    driver.qemu(QemuEvent::Ready);
    let connected = facts(XenbusState::Connected, HotplugStatus::Connected);
    driver.look(QDISK, connected);
    driver.seen(QDISK, connected);
    assert_eq!(driver.phase(QDISK), Some(Phase::Attached));
}

#[test]
fn replacing_a_failed_device_does_not_skip_back_off() {
    let mut driver = Driver::new();
    let mut waits = Vec::new();
    driver.look(VIF, silent(XenbusState::InitWait));
    for _ in 0..4 {
        driver.hook_ends(VIF, HookEnd::Failure(HookFailure::Exit(1)));
        driver.seen(VIF, facts(XenbusState::InitWait, HotplugStatus::Refused));
        let until = driver.dispatcher.poll_timeout().expect("it is tried again");
        waits.push(until.as_millis() - driver.now);
        driver.wait(waits[waits.len() - 1]);
        driver.seen(VIF, silent(XenbusState::InitWait)); // A successor: it has no mark.
        driver.hook_ends(VIF, HookEnd::Success);
        driver.seen(VIF, silent(XenbusState::InitWait));
        driver.seen(VIF, silent(XenbusState::InitWait));
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000]);
}

#[test]
fn linger_of_a_successor_counts_from_its_own_close() {
    let mut driver = Driver::new();
    driver.attach(VBD);
    assert!(driver.look(VBD, silent(XenbusState::InitWait)).contains(&Action::RunHook(VBD)));
    driver.now += 10_000;
    driver.hook_ends(VBD, HookEnd::Success);
    driver.seen(VBD, Observation { online: false, ..silent(XenbusState::Closed) });
    assert_eq!(driver.wait(199), []);
    assert_eq!(driver.wait(1), [Action::Remove(VBD)]);
}

#[test]
fn zero_kill_grace_does_not_spin() {
    let mut driver = Driver::with(Settings { kill_grace: Duration::ZERO, ..Settings::default() });
    driver.look(VBD, silent(XenbusState::InitWait));
    assert_eq!(driver.wait(40_000), [Action::StopHook(VBD), Action::KillHook(VBD)]);
    assert_eq!(driver.wait(1), [Action::KillHook(VBD)]);
}

#[test]
fn lost_disk_stays_lost_after_a_refused_observation() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let lost = facts(XenbusState::Connected, HotplugStatus::Refused);
    driver.seen(QDISK, lost);
    driver.event(QDISK);
    driver.actions();
    driver.dispatcher.handle_observation_refused(QDISK, driver.time());
    driver.wait(60_000);
    driver.seen(QDISK, lost);
    assert_eq!(driver.phase(QDISK), Some(Phase::Failed(Reason::Lost)));
}

#[test]
fn refused_observation_is_repeated_after_qemu_became_ready() {
    let mut driver = Driver::new();
    driver.look(QDISK, silent(XenbusState::Initialising));
    driver.qemu(QemuEvent::Absent);
    driver.seen(QDISK, silent(XenbusState::Initialising));
    driver.event(QDISK);
    driver.actions();
    driver.dispatcher.handle_observation_refused(QDISK, driver.time());
    let actions = driver.qemu(QemuEvent::Ready);
    assert!(!actions.iter().any(|action| matches!(action, Action::Observe(QDISK, _))));
    let actions = driver.wait(100);
    assert!(actions.iter().any(|action| matches!(action, Action::Observe(QDISK, _))));
}

#[test]
fn refused_observation_is_repeated_with_growing_waits() {
    let mut driver = Driver::new();
    driver.event(VIF);
    driver.actions();
    for wait in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000] {
        driver.dispatcher.handle_observation_refused(VIF, driver.time());
        assert_eq!(driver.wait(wait - 1), [], "before {wait} ms");
        assert!(matches!(driver.wait(1)[..], [Action::Observe(VIF, _)]), "after {wait} ms");
    }
    // A successful observation resets the wait; an event causes an observation at once.
    driver.seen(VIF, silent(XenbusState::Initialising));
    driver.event(VIF);
    driver.actions();
    driver.dispatcher.handle_observation_refused(VIF, driver.time());
    driver.event(VIF);
    assert!(matches!(driver.actions()[..], [Action::Observe(VIF, _)]));
    assert_eq!(driver.wait(100), []);
}

#[test]
fn refused_observation_does_not_advance_the_hooks_retry() {
    let mut driver = Driver::new();
    driver.look(VIF, silent(XenbusState::InitWait));
    driver.dispatcher.handle_hook_end(VIF, HookEnd::Failure(HookFailure::TimedOut), driver.time());
    driver.actions();
    driver.dispatcher.handle_observation_refused(VIF, driver.time());
    assert!(matches!(driver.wait(100)[..], [Action::Observe(VIF, _)]));
    let refused = facts(XenbusState::InitWait, HotplugStatus::Refused);
    assert_eq!(driver.seen(VIF, refused), []);
    assert_eq!(driver.wait(59_899), []);
    assert!(matches!(driver.wait(1)[..], [Action::Observe(VIF, _)]));
}

#[test]
fn rewound_disk_that_no_qemu_took_up_is_closed_by_the_daemon() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let actions = driver.seen(QDISK, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Rewind(QDISK)]);
    assert_eq!(driver.wait(1_000), [Action::StartQemu(1)]);
    assert_eq!(driver.look(QDISK, silent(XenbusState::Closing)), [Action::Close(QDISK)]);
}

#[test]
fn script_corrected_during_an_observation_is_read_again() {
    let mut driver = Driver::new();
    let bare = Observation { script: None, ..silent(XenbusState::InitWait) };
    driver.event(VBD);
    driver.actions();
    driver.dispatcher.handle_event(BackendPath::parse(format!("{VBD}/script").as_bytes()));
    let actions = driver.seen(VBD, bare);
    assert!(matches!(actions[..], [.., Action::Observe(VBD, _)]), "{actions:?}");
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&Action::RunHook(VBD)));
}

#[test]
fn new_disk_is_observed_again_after_its_guests_qemu_exits() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    assert!(driver.look(QDISK, closed).contains(&Action::StopQemu(1)));
    let other = DeviceKey { devid: 1, ..QDISK };
    driver.event(other);
    driver.actions();
    driver.qemu(QemuEvent::Absent);
    let actions = driver.seen(other, silent(XenbusState::Initialising));
    assert!(matches!(actions[..], [Action::Observe(_, _)]), "{actions:?}");
    let actions = driver.seen(other, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert!(actions.contains(&Action::Rewind(other)));
}

#[test]
fn recreated_disk_is_observed_again_after_qemu_exits() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    let other = DeviceKey { devid: 1, ..QDISK };
    driver.look(other, silent(XenbusState::Initialising));
    driver.look(other, Observation { online: false, ..silent(XenbusState::Closed) });
    assert_eq!(driver.phase(other), Some(Phase::Lingering));
    driver.event(other);
    driver.actions();
    // The facts of the next observation are from before QEMU's exit.
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let actions = driver.seen(other, silent(XenbusState::Initialising));
    assert!(matches!(actions[..], [Action::Observe(_, _)]), "{actions:?}");
    driver.seen(other, facts(XenbusState::InitWait, HotplugStatus::Connected));
    let actions = driver.seen(other, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert!(actions.contains(&Action::Rewind(other)), "{actions:?}");
}

#[test]
fn successor_with_a_type_replaces_a_failed_device_without() {
    let mut driver = Driver::new();
    driver.look(VIF, silent(XenbusState::InitWait));
    driver.hook_ends(VIF, HookEnd::Failure(HookFailure::Exit(1)));
    let failed = facts(XenbusState::InitWait, HotplugStatus::Refused);
    driver.seen(VIF, failed);
    driver.wait(1_000);
    driver.seen(VIF, Observation { vif_type: None, ..failed });
    assert_eq!(driver.phase(VIF), Some(Phase::Failed(Reason::NoType)));
    driver.look(VIF, silent(XenbusState::InitWait));
    assert_eq!(driver.phase(VIF), Some(Phase::Detaching(Run::Running)));
    driver.hook_ends(VIF, HookEnd::Success);
    driver.seen(VIF, silent(XenbusState::InitWait));
    assert!(driver.seen(VIF, silent(XenbusState::InitWait)).contains(&Action::RunHook(VIF)));
}

#[test]
fn device_adopted_after_state_1_gets_its_removal_hook() {
    let mut driver = Driver::new();
    driver.look(VIF, silent(XenbusState::Initialising));
    driver.look(VIF, facts(XenbusState::Connected, HotplugStatus::Connected));
    assert_eq!(driver.phase(VIF), Some(Phase::Attached));
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    assert!(driver.look(VIF, closed).contains(&Action::RunHook(VIF)));
}

#[test]
fn qemu_start_waits_until_a_closing_share_is_gone() {
    let mut driver = Driver::new();
    driver.serve(P9);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    driver.seen(P9, facts(XenbusState::Closing, HotplugStatus::Connected));
    driver.look(QDISK, silent(XenbusState::Initialising));
    assert_eq!(driver.wait(1_000), []);
    driver.seen(P9, Observation { online: false, ..silent(XenbusState::Closed) });
    assert_eq!(driver.wait(200), [Action::Remove(P9)]);
    driver.dispatcher.handle_removal(P9, Removal::Removed, driver.time());
    assert!(driver.actions().contains(&Action::StartQemu(1)));
}

#[test]
fn directory_is_not_removed_during_an_observation() {
    let mut driver = Driver::new();
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    driver.look(VBD, closed);
    driver.event(VBD);
    driver.actions();
    assert_eq!(driver.wait(200), []);
    driver.seen(VBD, closed);
    assert_eq!(driver.wait(199), []);
    assert_eq!(driver.wait(1), [Action::Remove(VBD)]);
}

#[test]
fn qemu_that_exits_first_gets_no_stop_action() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.event(QDISK);
    driver.actions();
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    driver.dispatcher.handle_observation(QDISK, &closed, driver.time());
    let actions = driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    assert!(!actions.contains(&Action::StopQemu(1)), "{actions:?}");
}

#[test]
fn qemu_that_vanishes_while_starting_fails_its_devices() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    assert!(driver.look(QDISK, closed).contains(&Action::StopQemu(1)));
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    assert!(driver.look(QDISK, silent(XenbusState::Initialising)).contains(&Action::StartQemu(1)));
    let actions = driver.qemu(QemuEvent::Absent);
    let vanished = Action::Fail(QDISK, Reason::Qemu(QemuFailure::Vanished));
    assert!(actions.contains(&vanished), "{actions:?}");
}

#[test]
fn successor_disk_that_closes_at_once_is_closed_by_the_daemon() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.look(QDISK, Observation { online: false, ..silent(XenbusState::Closed) });
    driver.qemu(QemuEvent::Absent);
    driver.look(QDISK, silent(XenbusState::Closing));
    assert_eq!(driver.seen(QDISK, silent(XenbusState::Closing)), [Action::Close(QDISK)]);
}

#[test]
fn removal_hook_that_cannot_start_is_retried_four_times() {
    let mut driver = Driver::new();
    driver.attach(VBD);
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    let run = Action::RunHook(VBD);
    assert!(driver.look(VBD, closed).contains(&run));
    let refused = HookEnd::Failure(HookFailure::Spawn(11));
    for wait in [1_000, 2_000, 4_000, 8_000] {
        assert_eq!(driver.hook_ends(VBD, refused), []);
        assert_eq!(driver.wait(wait - 1), []);
        assert_eq!(driver.wait(1), [run]);
    }
    let failure = Notice::RemovalHook(HookFailure::Spawn(11));
    assert!(driver.hook_ends(VBD, refused).contains(&Action::Report(VBD, failure)));
    assert_eq!(driver.wait(200), [Action::Remove(VBD)]);
}

const FAILURE: HookEnd = HookEnd::Failure(HookFailure::Exit(1));

/// A device whose hook has failed and whose `error` mark the store refused; observed since.
fn failed_and_unmarked(key: DeviceKey, seen: HotplugStatus) -> Driver {
    let mut driver = Driver::new();
    driver.look(key, silent(XenbusState::InitWait));
    let failed = Action::Fail(key, Reason::Hook(HookFailure::Exit(1)));
    assert!(driver.hook_ends(key, FAILURE).contains(&failed));
    driver.mark_refused(key, HotplugStatus::Refused);
    driver.seen(key, facts(XenbusState::InitWait, seen));
    driver
}

#[test]
fn failed_device_with_a_refused_mark_is_not_a_replacement() {
    for key in [VIF, VBD] {
        let mut driver = failed_and_unmarked(key, HotplugStatus::Silent);
        for wait in [1_000, 2_000, 4_000] {
            driver.wait(wait);
            let actions = driver.seen(key, silent(XenbusState::InitWait));
            assert_eq!(actions, [Action::Reset(key), Action::RunHook(key)]);
            assert_eq!(driver.dispatcher.hook(key).map(|hook| hook.verb), Some(Verb::Add));
            driver.hook_ends(key, FAILURE);
            driver.mark_refused(key, HotplugStatus::Refused);
            driver.seen(key, silent(XenbusState::InitWait));
        }
    }
}

#[test]
fn observation_from_before_the_error_mark_is_discarded() {
    let mut driver = Driver::new();
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.event(VBD);
    driver.actions();
    driver.hook_ends(VBD, FAILURE);
    driver.wait(1_000);
    let actions = driver.seen(VBD, silent(XenbusState::InitWait));
    assert!(matches!(actions[..], [Action::Observe(VBD, _)]), "{actions:?}");
}

#[test]
fn unconfirmed_mark_that_was_read_back_reveals_a_successor() {
    let mut driver = failed_and_unmarked(VBD, HotplugStatus::Refused);
    driver.wait(1_000);
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&Action::RunHook(VBD)));
    assert_eq!(driver.dispatcher.hook(VBD).map(|hook| hook.verb), Some(Verb::Remove));
}

#[test]
fn exit_code_overrides_connected_mark() {
    let mut driver = failed_and_unmarked(VIF, HotplugStatus::Connected);
    assert_eq!(driver.phase(VIF), Some(Phase::Failed(Reason::Hook(HookFailure::Exit(1)))));
    driver.wait(1_000);
    let actions = driver.seen(VIF, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Reset(VIF), Action::RunHook(VIF)]);
}

#[test]
fn served_disk_with_a_refused_mark_is_marked_later() {
    let mut driver = Driver::new();
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.hook_ends(VBD, HookEnd::Success);
    let mark = Action::MarkConnected(VBD);
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&mark));
    driver.mark_refused(VBD, HotplugStatus::Connected);
    // The next observation writes the mark again; without an event that is after 1, 2, 4 … s.
    assert_eq!(driver.look(VBD, silent(XenbusState::InitWait)), [mark]);
    for wait in [2_000, 4_000] {
        driver.mark_refused(VBD, HotplugStatus::Connected);
        assert_eq!(driver.wait(wait - 1), []);
        assert!(matches!(driver.wait(1)[..], [Action::Observe(VBD, _)]));
        assert_eq!(driver.seen(VBD, silent(XenbusState::Connected)), [mark]);
    }
    assert_eq!(driver.dispatcher.poll_timeout(), None);
}

#[test]
fn refused_failure_mark_is_written_later() {
    let mut driver = Driver::new();
    let bare = Observation { script: None, ..silent(XenbusState::InitWait) };
    let failed = Action::Fail(VBD, Reason::NoScript);
    assert!(driver.look(VBD, bare).contains(&failed));
    driver.mark_refused(VBD, HotplugStatus::Refused);
    driver.wait(1_000);
    assert!(driver.seen(VBD, bare).contains(&failed));
    driver.seen(VBD, Observation { hotplug: HotplugStatus::Refused, ..bare });
    assert_eq!(driver.wait(60_000), []);
}

#[test]
fn lost_disk_with_a_refused_mark_stays_lost() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let connected = facts(XenbusState::Connected, HotplugStatus::Connected);
    let failed = Action::Fail(QDISK, Reason::Lost);
    assert!(driver.seen(QDISK, connected).contains(&failed));
    driver.mark_refused(QDISK, HotplugStatus::Refused);

    let other = DeviceKey { devid: 1, ..QDISK };
    driver.look(other, silent(XenbusState::Initialising));
    driver.wait(1_000);
    driver.qemu(QemuEvent::Ready);
    assert!(driver.seen(QDISK, connected).contains(&failed));
    assert_eq!(driver.phase(QDISK), Some(Phase::Failed(Reason::Lost)));
}

#[test]
fn predecessors_mark_is_ignored_when_its_reset_was_refused() {
    let mut driver = Driver::new();
    driver.attach(VBD);
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.hook_ends(VBD, HookEnd::Success);
    let stale = facts(XenbusState::InitWait, HotplugStatus::Connected);
    assert!(driver.seen(VBD, stale).contains(&Action::Reset(VBD)));
    driver.mark_refused(VBD, HotplugStatus::Silent);
    assert_eq!(driver.seen(VBD, stale), [Action::Reset(VBD), Action::RunHook(VBD)]);
}

#[test]
fn directory_stays_while_the_store_refuses_observations() {
    let mut driver = Driver::new();
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    driver.look(VBD, closed);
    driver.wait(150);
    driver.event(VBD);
    driver.actions();
    driver.dispatcher.handle_observation_refused(VBD, driver.time());
    assert_eq!(driver.wait(50), []);
    assert!(matches!(driver.wait(50)[..], [Action::Observe(VBD, _)]));
    driver.seen(VBD, closed);
    assert_eq!(driver.wait(199), []);
    assert_eq!(driver.wait(1), [Action::Remove(VBD)]);
}

#[test]
fn disk_that_closes_before_its_rewind_is_closed_by_the_daemon() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let actions = driver.seen(QDISK, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Rewind(QDISK)]);
    assert_eq!(driver.wait(1_000), [Action::StartQemu(1)]);
    // The device was closing before the rewind, so `hotplug-status` still has the former QEMU's
    // mark.
    let closing = facts(XenbusState::Closing, HotplugStatus::Connected);
    assert_eq!(driver.look(QDISK, closing), [Action::Close(QDISK)]);
}

#[test]
fn disk_taken_up_by_the_next_qemu_is_closed_by_that_qemu() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    driver.seen(QDISK, facts(XenbusState::InitWait, HotplugStatus::Connected));
    driver.wait(1_000);
    driver.look(QDISK, silent(XenbusState::Initialising));
    assert_eq!(driver.look(QDISK, facts(XenbusState::Closing, HotplugStatus::Connected)), []);
}

#[test]
fn device_found_closing_then_replaced_gets_its_removal_hook() {
    for key in [VIF, VBD] {
        let mut driver = Driver::new();
        driver.dispatcher.look_at(key);
        driver.actions();
        driver.seen(key, facts(XenbusState::Closing, HotplugStatus::Connected));
        let bare = Observation { script: None, ..silent(XenbusState::InitWait) };
        assert!(driver.look(key, bare).contains(&Action::RunHook(key)));
        assert_eq!(driver.dispatcher.hook(key).map(|hook| hook.verb), Some(Verb::Remove));
    }
}

#[test]
fn removal_uses_the_script_that_ran_when_script_is_gone() {
    let mut driver = Driver::new();
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.hook_ends(VBD, FAILURE);
    let bare = Observation { script: None, ..facts(XenbusState::InitWait, HotplugStatus::Refused) };
    driver.seen(VBD, bare);
    driver.wait(1_000);
    assert!(driver.seen(VBD, bare).contains(&Action::Fail(VBD, Reason::NoScript)));
    let closed = Observation { online: false, script: None, ..silent(XenbusState::Closed) };
    assert!(driver.look(VBD, closed).contains(&Action::RunHook(VBD)));
    let hook = driver.dispatcher.hook(VBD).map(|hook| (hook.verb, hook.script));
    assert_eq!(hook, Some((Verb::Remove, &b"script"[..])));
}

#[test]
fn discarded_observation_keeps_an_adopted_hooks_script() {
    let mut driver = Driver::new();
    driver.dispatcher.handle_hook_found(VBD, Verb::Add, false, driver.time());
    driver.actions();
    let taken_up = Observation { want: Want::STATE, script: None, ..silent(XenbusState::InitWait) };
    assert_eq!(driver.seen(VBD, taken_up), [Action::Observe(VBD, Want::HOOK)]);
    driver.hook_ends(VBD, HookEnd::Unknown);
    driver
        .seen(VBD, Observation { want: Want::HOOK, state: None, ..silent(XenbusState::InitWait) });
    let gone = Observation { state: None, script: None, ..silent(XenbusState::InitWait) };
    assert!(driver.seen(VBD, gone).contains(&Action::RunHook(VBD)));
}
