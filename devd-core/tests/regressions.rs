//! Failures that the random worlds have found, each as the shortest sequence that shows it.

mod driver;

use std::time::Duration;

use devd_core::{
    Action, BackendPath, DeviceKey, HookEnd, HookFailure, HotplugStatus, Notice, Observation,
    Phase, QemuEvent, QemuFailure, Reason, Removal, Run, Settings, Verb, Want, XenbusState,
};
use driver::{Driver, P9, QDISK, VBD, VIF, facts, silent};

#[test]
fn an_event_heard_while_the_directory_is_being_removed_is_not_lost() {
    let mut driver = Driver::new();
    driver.attach(VBD);
    driver.remove(VBD);
    driver.event(VBD);
    driver.dispatcher.handle_removal(VBD, Removal::Removed, driver.time());
    assert!(driver.actions().iter().any(|action| matches!(action, Action::Observe(VBD, _))));
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&Action::RunHook(VBD)));
}

#[test]
fn a_look_that_began_before_a_removal_is_not_taken_for_one_at_the_next_device() {
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
fn a_look_that_began_before_the_hooks_end_does_not_tell_how_it_ended() {
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
fn a_look_that_began_before_a_qemus_end_does_not_tell_what_it_has_left() {
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
fn a_hook_that_waits_is_not_run_when_its_script_has_gone() {
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
fn the_end_of_a_removal_hook_of_an_earlier_daemon_does_not_remove_the_device_that_is_there_now() {
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
fn a_device_that_vanishes_between_two_stages_of_its_first_look_gets_its_removal_hook() {
    let mut driver = Driver::new();
    let closed = Observation {
        want: Want::STATE | Want::ONLINE | Want::HOTPLUG | Want::HOOK,
        ..facts(XenbusState::Closed, HotplugStatus::Connected)
    };
    assert!(matches!(driver.look(VBD, closed)[..], [Action::Observe(VBD, _)]));
    assert!(driver.seen(VBD, Observation::GONE).contains(&Action::RunHook(VBD)));
}

#[test]
fn a_device_that_closed_while_a_hook_found_after_a_restart_ran_gets_its_removal_hook() {
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
fn a_lost_disk_replaced_by_one_that_the_next_qemu_has_connected_is_served() {
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
fn devices_that_fail_and_are_replaced_do_not_escape_the_back_off() {
    let mut driver = Driver::new();
    let mut waits = Vec::new();
    driver.look(VIF, silent(XenbusState::InitWait));
    for _ in 0..4 {
        driver.hook_ends(VIF, HookEnd::Failure(HookFailure::Exit(1)));
        driver.seen(VIF, facts(XenbusState::InitWait, HotplugStatus::Refused));
        let until = driver.dispatcher.poll_timeout().expect("it is tried again");
        waits.push(until.as_millis() - driver.now);
        driver.wait(waits[waits.len() - 1]);
        driver.seen(VIF, silent(XenbusState::InitWait)); // Another, without the mark of the failure.
        driver.hook_ends(VIF, HookEnd::Success);
        driver.seen(VIF, silent(XenbusState::InitWait));
        driver.seen(VIF, silent(XenbusState::InitWait));
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000]);
}

#[test]
fn the_linger_of_a_device_that_took_anothers_place_counts_from_its_own_close() {
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
fn no_grace_before_sigkill_does_not_keep_the_dispatcher_busy_for_ever() {
    let mut driver = Driver::with(Settings { kill_grace: Duration::ZERO, ..Settings::default() });
    driver.look(VBD, silent(XenbusState::InitWait));
    assert_eq!(driver.wait(40_000), [Action::StopHook(VBD), Action::KillHook(VBD)]);
    assert_eq!(driver.wait(1), [Action::KillHook(VBD)]);
}

#[test]
fn a_lost_disk_stays_lost_when_the_store_refuses_a_look_at_it() {
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
fn a_refused_look_is_made_up_for_although_the_qemu_has_come_meanwhile() {
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
fn a_refused_look_is_asked_for_again_soon_and_then_ever_less_often() {
    let mut driver = Driver::new();
    driver.event(VIF);
    driver.actions();
    for wait in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000] {
        driver.dispatcher.handle_observation_refused(VIF, driver.time());
        assert_eq!(driver.wait(wait - 1), [], "before {wait} ms");
        assert!(matches!(driver.wait(1)[..], [Action::Observe(VIF, _)]), "after {wait} ms");
    }
    // One that is answered makes it all good; an event calls for a look at once.
    driver.seen(VIF, silent(XenbusState::Initialising));
    driver.event(VIF);
    driver.actions();
    driver.dispatcher.handle_observation_refused(VIF, driver.time());
    driver.event(VIF);
    assert!(matches!(driver.actions()[..], [Action::Observe(VIF, _)]));
    assert_eq!(driver.wait(100), []);
}

#[test]
fn a_refused_look_does_not_bring_the_next_try_of_a_hook_forward() {
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
fn a_rewound_disk_that_closes_before_the_next_qemu_takes_it_up_is_closed_by_the_daemon() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let actions = driver.seen(QDISK, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Rewind(QDISK)]);
    assert_eq!(driver.wait(1_000), [Action::StartQemu(1)]);
    assert_eq!(driver.look(QDISK, silent(XenbusState::Closing)), [Action::Close(QDISK)]);
}

#[test]
fn a_script_that_is_put_right_while_a_look_is_under_way_is_not_missed() {
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
fn a_disk_first_looked_at_before_a_qemu_had_ended_is_looked_at_again_afterwards() {
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
fn a_disk_that_came_back_before_its_qemu_ended_is_looked_at_again_afterwards() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    let other = DeviceKey { devid: 1, ..QDISK };
    driver.look(other, silent(XenbusState::Initialising));
    driver.look(other, Observation { online: false, ..silent(XenbusState::Closed) });
    assert_eq!(driver.phase(other), Some(Phase::Lingering));
    driver.event(other);
    driver.actions();
    // What is told afterwards was so before.
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let actions = driver.seen(other, silent(XenbusState::Initialising));
    assert!(matches!(actions[..], [Action::Observe(_, _)]), "{actions:?}");
    driver.seen(other, facts(XenbusState::InitWait, HotplugStatus::Connected));
    let actions = driver.seen(other, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert!(actions.contains(&Action::Rewind(other)), "{actions:?}");
}

#[test]
fn a_device_that_lost_its_type_after_its_hook_had_failed_is_replaced_by_one_that_has_it() {
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
fn a_device_first_seen_too_early_and_then_connected_gets_its_removal_hook() {
    let mut driver = Driver::new();
    driver.look(VIF, silent(XenbusState::Initialising));
    driver.look(VIF, facts(XenbusState::Connected, HotplugStatus::Connected));
    assert_eq!(driver.phase(VIF), Some(Phase::Attached));
    let closed = Observation { online: false, ..silent(XenbusState::Closed) };
    assert!(driver.look(VIF, closed).contains(&Action::RunHook(VIF)));
}

#[test]
fn no_qemu_is_started_while_a_share_of_its_guest_is_on_its_way_out() {
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
fn a_directory_is_not_removed_while_a_look_at_it_is_under_way() {
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
fn a_qemu_that_ends_before_it_was_told_to_is_not_told_to() {
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
fn a_qemu_that_vanishes_while_it_starts_has_failed_whatever_became_of_the_last() {
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
fn a_disk_that_took_anothers_place_and_closes_at_once_is_closed_by_the_daemon() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.look(QDISK, Observation { online: false, ..silent(XenbusState::Closed) });
    driver.qemu(QemuEvent::Absent);
    driver.look(QDISK, silent(XenbusState::Closing));
    assert_eq!(driver.seen(QDISK, silent(XenbusState::Closing)), [Action::Close(QDISK)]);
}

#[test]
fn a_removal_hook_that_cannot_be_started_is_tried_again_before_the_device_is_let_go() {
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

/// A device whose hook has failed, which the store has refused to say; looked at since.
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
fn a_failed_device_that_the_store_did_not_let_be_marked_is_not_taken_for_another() {
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
fn a_look_that_began_before_a_failure_was_marked_does_not_see_another_device() {
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
fn a_mark_that_is_there_although_the_store_has_not_said_so_tells_the_next_device() {
    let mut driver = failed_and_unmarked(VBD, HotplugStatus::Refused);
    driver.wait(1_000);
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&Action::RunHook(VBD)));
    assert_eq!(driver.dispatcher.hook(VBD).map(|hook| hook.verb), Some(Verb::Remove));
}

#[test]
fn a_hook_that_failed_after_it_had_said_connected_has_failed_whether_the_store_says_so_or_not() {
    let mut driver = failed_and_unmarked(VIF, HotplugStatus::Connected);
    assert_eq!(driver.phase(VIF), Some(Phase::Failed(Reason::Hook(HookFailure::Exit(1)))));
    driver.wait(1_000);
    let actions = driver.seen(VIF, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Reset(VIF), Action::RunHook(VIF)]);
}

#[test]
fn a_served_disk_that_the_store_did_not_let_be_marked_stays_and_is_marked_later() {
    let mut driver = Driver::new();
    driver.look(VBD, silent(XenbusState::InitWait));
    driver.hook_ends(VBD, HookEnd::Success);
    let mark = Action::MarkConnected(VBD);
    assert!(driver.seen(VBD, silent(XenbusState::InitWait)).contains(&mark));
    driver.mark_refused(VBD, HotplugStatus::Connected);
    // Whatever calls for a look, and if nothing does, after 1, 2, 4 … s.
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
fn a_reason_that_the_store_did_not_let_be_told_is_told_later() {
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
fn a_lost_disk_that_the_store_did_not_let_be_marked_stays_lost() {
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
fn a_mark_of_another_device_that_the_store_did_not_take_back_is_not_believed() {
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
fn a_directory_is_not_removed_while_the_store_refuses_to_say_what_has_become_of_it() {
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
fn a_disk_that_closes_before_it_was_made_new_for_the_next_qemu_is_closed_by_the_daemon() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    let actions = driver.seen(QDISK, facts(XenbusState::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Rewind(QDISK)]);
    assert_eq!(driver.wait(1_000), [Action::StartQemu(1)]);
    // It was closing already: it says still what the last QEMU has said.
    let closing = facts(XenbusState::Closing, HotplugStatus::Connected);
    assert_eq!(driver.look(QDISK, closing), [Action::Close(QDISK)]);
}

#[test]
fn a_disk_that_the_next_qemu_has_taken_up_is_closed_by_it() {
    let mut driver = Driver::new();
    driver.serve(QDISK);
    driver.qemu(QemuEvent::Failed(QemuFailure::Exit(1)));
    driver.seen(QDISK, facts(XenbusState::InitWait, HotplugStatus::Connected));
    driver.wait(1_000);
    driver.look(QDISK, silent(XenbusState::Initialising));
    assert_eq!(driver.look(QDISK, facts(XenbusState::Closing, HotplugStatus::Connected)), []);
}

#[test]
fn a_device_found_closing_whose_place_another_takes_gets_its_removal_hook() {
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
fn a_failed_device_that_has_lost_its_script_is_taken_away_by_the_script_that_was_run() {
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
fn the_script_of_a_hook_that_was_found_running_is_kept_from_a_look_that_does_not_count() {
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
