//! Failures that the random worlds have found, each as the shortest sequence that shows it.

mod hand;

use std::time::Duration;

use devd_core::{
    Action, BackendPath, DeviceKey, HookEnd, HookFailure, HotplugStatus, Notice, Observation,
    Phase, Reason, Removal, Run, ServiceEvent, ServiceFailure, Settings, State, Verb, Want,
};
use hand::{Hand, P9, QDISK, VBD, VIF, facts, silent};

#[test]
fn an_event_heard_while_the_directory_is_being_removed_is_not_lost() {
    let mut hand = Hand::new();
    hand.attach(VBD);
    hand.remove(VBD);
    hand.event(VBD);
    hand.dispatcher.handle_removal(VBD, Removal::Removed, hand.time());
    assert!(hand.actions().iter().any(|action| matches!(action, Action::Observe(VBD, _))));
    assert!(hand.seen(VBD, silent(State::InitWait)).contains(&Action::RunHook(VBD)));
}

#[test]
fn a_look_that_began_before_a_removal_is_not_taken_for_one_at_the_next_device() {
    let mut hand = Hand::new();
    hand.attach(VIF);
    let closed = Observation { online: false, ..silent(State::Closed) };
    hand.look(VIF, closed);
    hand.hook_ends(VIF, HookEnd::Success);
    hand.event(VIF);
    hand.actions();
    hand.wait(200);
    hand.dispatcher.handle_removal(VIF, Removal::Removed, hand.time());
    hand.event(VIF);
    hand.actions();
    let actions = hand.seen(VIF, closed);
    assert!(!actions.contains(&Action::RunHook(VIF)), "{actions:?}");
    assert!(matches!(actions[..], [Action::Observe(VIF, _)]));
}

#[test]
fn a_look_that_began_before_the_hooks_end_does_not_tell_how_it_ended() {
    let mut hand = Hand::new();
    hand.look(VBD, silent(State::InitWait));
    hand.event(VBD);
    hand.actions();
    hand.hook_ends(VBD, HookEnd::Success);
    let actions = hand.seen(VBD, silent(State::InitWait));
    assert!(matches!(actions[..], [Action::Observe(VBD, _)]), "{actions:?}");
    hand.seen(VBD, facts(State::InitWait, HotplugStatus::Refused));
    assert_eq!(hand.phase(VBD), Some(Phase::Failed(Reason::Hook(HookFailure::Reported))));
}

#[test]
fn a_look_that_began_before_a_qemus_end_does_not_tell_what_it_has_left() {
    let mut hand = Hand::new();
    hand.serve(P9);
    hand.event(P9);
    hand.actions();
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    hand.seen(P9, silent(State::Initialising));
    hand.seen(P9, facts(State::Connected, HotplugStatus::Connected));
    assert_eq!(hand.phase(P9), Some(Phase::Failed(Reason::Lost)));
    assert_eq!(hand.wait(1_000), [], "no QEMU for a share that another has begun with");
}

#[test]
fn a_hook_that_waits_is_not_run_when_its_script_has_gone() {
    let mut hand = Hand::with(Settings { max_hooks: 1, ..Settings::default() });
    hand.look(VIF, silent(State::InitWait));
    hand.look(VBD, silent(State::InitWait));
    hand.look(VBD, Observation { script: None, ..silent(State::InitWait) });
    assert_eq!(hand.phase(VBD), Some(Phase::Failed(Reason::NoScript)));
    assert!(!hand.hook_ends(VIF, HookEnd::Success).contains(&Action::RunHook(VBD)));
}

#[test]
fn there_is_no_second_pass_without_a_script() {
    let mut hand = Hand::new();
    hand.dispatcher.handle_hook_found(VIF, Verb::Add, false, hand.time());
    hand.actions();
    let bare =
        Observation { script: None, vif_type: Some(b"vif_ioemu"), ..silent(State::InitWait) };
    hand.seen(VIF, bare);
    assert!(!hand.hook_ends(VIF, HookEnd::Unknown).contains(&Action::RunHook(VIF)));
}

#[test]
fn the_end_of_a_removal_hook_of_an_earlier_daemon_does_not_remove_the_device_that_is_there_now() {
    let mut hand = Hand::new();
    hand.dispatcher.handle_hook_found(VBD, Verb::Remove, false, hand.time());
    hand.actions();
    hand.seen(VBD, silent(State::InitWait));
    let actions = hand.hook_ends(VBD, HookEnd::Unknown);
    assert!(matches!(actions[..], [Action::MarkDetached(VBD), Action::Observe(VBD, _)]));
    let actions = hand.seen(VBD, silent(State::InitWait));
    assert!(actions.contains(&Action::Report(VBD, Notice::Replaced)));
    assert!(hand.seen(VBD, silent(State::InitWait)).contains(&Action::RunHook(VBD)));
}

#[test]
fn a_device_that_vanishes_between_two_stages_of_its_first_look_gets_its_removal_hook() {
    let mut hand = Hand::new();
    let closed = Observation {
        want: Want::STATE | Want::ONLINE | Want::HOTPLUG | Want::HOOK,
        ..facts(State::Closed, HotplugStatus::Connected)
    };
    assert!(matches!(hand.look(VBD, closed)[..], [Action::Observe(VBD, _)]));
    assert!(hand.seen(VBD, Observation::GONE).contains(&Action::RunHook(VBD)));
}

#[test]
fn a_device_that_closed_while_a_hook_found_after_a_restart_ran_gets_its_removal_hook() {
    let mut hand = Hand::new();
    hand.dispatcher.handle_hook_found(VBD, Verb::Add, false, hand.time());
    hand.actions();
    let closed = Observation { online: false, ..silent(State::Closed) };
    hand.seen(VBD, Observation { want: Want::STATE, ..closed });
    hand.seen(VBD, closed);
    hand.hook_ends(VBD, HookEnd::Unknown);
    assert!(hand.seen(VBD, closed).contains(&Action::RunHook(VBD)));
    assert_eq!(hand.dispatcher.hook(VBD).map(|hook| hook.verb), Some(Verb::Remove));
}

#[test]
fn a_lost_disk_replaced_by_one_that_the_next_qemu_has_connected_is_served() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    hand.seen(QDISK, facts(State::Connected, HotplugStatus::Connected));
    assert_eq!(hand.phase(QDISK), Some(Phase::Failed(Reason::Lost)));

    let other = DeviceKey { devid: 1, ..QDISK };
    hand.look(other, silent(State::Initialising));
    assert_eq!(hand.wait(1_000), [Action::StartService(1)]);
    hand.service(ServiceEvent::Ready);
    let connected = facts(State::Connected, HotplugStatus::Connected);
    hand.look(QDISK, connected);
    hand.seen(QDISK, connected);
    assert_eq!(hand.phase(QDISK), Some(Phase::Attached));
}

#[test]
fn devices_that_fail_and_are_replaced_do_not_escape_the_back_off() {
    let mut hand = Hand::new();
    let mut waits = Vec::new();
    hand.look(VIF, silent(State::InitWait));
    for _ in 0..4 {
        hand.hook_ends(VIF, HookEnd::Failure(HookFailure::Exit(1)));
        hand.seen(VIF, facts(State::InitWait, HotplugStatus::Refused));
        let until = hand.dispatcher.poll_timeout().expect("it is tried again");
        waits.push(until.as_millis() - hand.now);
        hand.wait(waits[waits.len() - 1]);
        hand.seen(VIF, silent(State::InitWait)); // Another, without the mark of the failure.
        hand.hook_ends(VIF, HookEnd::Success);
        hand.seen(VIF, silent(State::InitWait));
        hand.seen(VIF, silent(State::InitWait));
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000]);
}

#[test]
fn the_linger_of_a_device_that_took_anothers_place_counts_from_its_own_close() {
    let mut hand = Hand::new();
    hand.attach(VBD);
    assert!(hand.look(VBD, silent(State::InitWait)).contains(&Action::RunHook(VBD)));
    hand.now += 10_000;
    hand.hook_ends(VBD, HookEnd::Success);
    hand.seen(VBD, Observation { online: false, ..silent(State::Closed) });
    assert_eq!(hand.wait(199), []);
    assert_eq!(hand.wait(1), [Action::Remove(VBD)]);
}

#[test]
fn no_grace_before_sigkill_does_not_keep_the_dispatcher_busy_for_ever() {
    let mut hand = Hand::with(Settings { kill_grace: Duration::ZERO, ..Settings::default() });
    hand.look(VBD, silent(State::InitWait));
    assert_eq!(hand.wait(40_000), [Action::StopHook(VBD), Action::KillHook(VBD)]);
    assert_eq!(hand.wait(1), [Action::KillHook(VBD)]);
}

#[test]
fn a_lost_disk_stays_lost_when_the_store_refuses_a_look_at_it() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    let lost = facts(State::Connected, HotplugStatus::Refused);
    hand.seen(QDISK, lost);
    hand.event(QDISK);
    hand.actions();
    hand.dispatcher.handle_observation_refused(QDISK, hand.time());
    hand.wait(60_000);
    hand.seen(QDISK, lost);
    assert_eq!(hand.phase(QDISK), Some(Phase::Failed(Reason::Lost)));
}

#[test]
fn a_refused_look_is_made_up_for_although_the_qemu_has_come_meanwhile() {
    let mut hand = Hand::new();
    hand.look(QDISK, silent(State::Initialising));
    hand.service(ServiceEvent::Absent);
    hand.seen(QDISK, silent(State::Initialising));
    hand.event(QDISK);
    hand.actions();
    hand.dispatcher.handle_observation_refused(QDISK, hand.time());
    let actions = hand.service(ServiceEvent::Ready);
    assert!(!actions.iter().any(|action| matches!(action, Action::Observe(QDISK, _))));
    let actions = hand.wait(100);
    assert!(actions.iter().any(|action| matches!(action, Action::Observe(QDISK, _))));
}

#[test]
fn a_refused_look_is_asked_for_again_soon_and_then_ever_less_often() {
    let mut hand = Hand::new();
    hand.event(VIF);
    hand.actions();
    for wait in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000] {
        hand.dispatcher.handle_observation_refused(VIF, hand.time());
        assert_eq!(hand.wait(wait - 1), [], "before {wait} ms");
        assert!(matches!(hand.wait(1)[..], [Action::Observe(VIF, _)]), "after {wait} ms");
    }
    // One that is answered makes it all good; an event calls for a look at once.
    hand.seen(VIF, silent(State::Initialising));
    hand.event(VIF);
    hand.actions();
    hand.dispatcher.handle_observation_refused(VIF, hand.time());
    hand.event(VIF);
    assert!(matches!(hand.actions()[..], [Action::Observe(VIF, _)]));
    assert_eq!(hand.wait(100), []);
}

#[test]
fn a_refused_look_does_not_bring_the_next_try_of_a_hook_forward() {
    let mut hand = Hand::new();
    hand.look(VIF, silent(State::InitWait));
    hand.dispatcher.handle_hook_end(VIF, HookEnd::Failure(HookFailure::TimedOut), hand.time());
    hand.actions();
    hand.dispatcher.handle_observation_refused(VIF, hand.time());
    assert!(matches!(hand.wait(100)[..], [Action::Observe(VIF, _)]));
    let refused = facts(State::InitWait, HotplugStatus::Refused);
    assert_eq!(hand.seen(VIF, refused), []);
    assert_eq!(hand.wait(59_899), []);
    assert!(matches!(hand.wait(1)[..], [Action::Observe(VIF, _)]));
}

#[test]
fn a_rewound_disk_that_closes_before_the_next_qemu_takes_it_up_is_closed_by_the_daemon() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    let actions = hand.seen(QDISK, facts(State::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Rewind(QDISK)]);
    assert_eq!(hand.wait(1_000), [Action::StartService(1)]);
    assert_eq!(hand.look(QDISK, silent(State::Closing)), [Action::Close(QDISK)]);
}

#[test]
fn a_script_that_is_put_right_while_a_look_is_under_way_is_not_missed() {
    let mut hand = Hand::new();
    let bare = Observation { script: None, ..silent(State::InitWait) };
    hand.event(VBD);
    hand.actions();
    hand.dispatcher.handle_event(BackendPath::parse(format!("{VBD}/script").as_bytes()));
    let actions = hand.seen(VBD, bare);
    assert!(matches!(actions[..], [.., Action::Observe(VBD, _)]), "{actions:?}");
    assert!(hand.seen(VBD, silent(State::InitWait)).contains(&Action::RunHook(VBD)));
}

#[test]
fn a_disk_first_looked_at_before_a_qemu_had_ended_is_looked_at_again_afterwards() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    let closed = Observation { online: false, ..silent(State::Closed) };
    assert!(hand.look(QDISK, closed).contains(&Action::StopService(1)));
    let other = DeviceKey { devid: 1, ..QDISK };
    hand.event(other);
    hand.actions();
    hand.service(ServiceEvent::Absent);
    let actions = hand.seen(other, silent(State::Initialising));
    assert!(matches!(actions[..], [Action::Observe(_, _)]), "{actions:?}");
    let actions = hand.seen(other, facts(State::InitWait, HotplugStatus::Connected));
    assert!(actions.contains(&Action::Rewind(other)));
}

#[test]
fn a_disk_that_came_back_before_its_qemu_ended_is_looked_at_again_afterwards() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    let other = DeviceKey { devid: 1, ..QDISK };
    hand.look(other, silent(State::Initialising));
    hand.look(other, Observation { online: false, ..silent(State::Closed) });
    assert_eq!(hand.phase(other), Some(Phase::Lingering));
    hand.event(other);
    hand.actions();
    // What is told afterwards was so before.
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    let actions = hand.seen(other, silent(State::Initialising));
    assert!(matches!(actions[..], [Action::Observe(_, _)]), "{actions:?}");
    hand.seen(other, facts(State::InitWait, HotplugStatus::Connected));
    let actions = hand.seen(other, facts(State::InitWait, HotplugStatus::Connected));
    assert!(actions.contains(&Action::Rewind(other)), "{actions:?}");
}

#[test]
fn a_device_that_lost_its_type_after_its_hook_had_failed_is_replaced_by_one_that_has_it() {
    let mut hand = Hand::new();
    hand.look(VIF, silent(State::InitWait));
    hand.hook_ends(VIF, HookEnd::Failure(HookFailure::Exit(1)));
    let failed = facts(State::InitWait, HotplugStatus::Refused);
    hand.seen(VIF, failed);
    hand.wait(1_000);
    hand.seen(VIF, Observation { vif_type: None, ..failed });
    assert_eq!(hand.phase(VIF), Some(Phase::Failed(Reason::NoType)));
    hand.look(VIF, silent(State::InitWait));
    assert_eq!(hand.phase(VIF), Some(Phase::Detaching(Run::Running)));
    hand.hook_ends(VIF, HookEnd::Success);
    hand.seen(VIF, silent(State::InitWait));
    assert!(hand.seen(VIF, silent(State::InitWait)).contains(&Action::RunHook(VIF)));
}

#[test]
fn a_device_first_seen_too_early_and_then_connected_gets_its_removal_hook() {
    let mut hand = Hand::new();
    hand.look(VIF, silent(State::Initialising));
    hand.look(VIF, facts(State::Connected, HotplugStatus::Connected));
    assert_eq!(hand.phase(VIF), Some(Phase::Attached));
    let closed = Observation { online: false, ..silent(State::Closed) };
    assert!(hand.look(VIF, closed).contains(&Action::RunHook(VIF)));
}

#[test]
fn no_qemu_is_started_while_a_share_of_its_guest_is_on_its_way_out() {
    let mut hand = Hand::new();
    hand.serve(P9);
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    hand.seen(P9, facts(State::Closing, HotplugStatus::Connected));
    hand.look(QDISK, silent(State::Initialising));
    assert_eq!(hand.wait(1_000), []);
    hand.seen(P9, Observation { online: false, ..silent(State::Closed) });
    assert_eq!(hand.wait(200), [Action::Remove(P9)]);
    hand.dispatcher.handle_removal(P9, Removal::Removed, hand.time());
    assert!(hand.actions().contains(&Action::StartService(1)));
}

#[test]
fn a_directory_is_not_removed_while_a_look_at_it_is_under_way() {
    let mut hand = Hand::new();
    let closed = Observation { online: false, ..silent(State::Closed) };
    hand.look(VBD, closed);
    hand.event(VBD);
    hand.actions();
    assert_eq!(hand.wait(200), []);
    hand.seen(VBD, closed);
    assert_eq!(hand.wait(199), []);
    assert_eq!(hand.wait(1), [Action::Remove(VBD)]);
}

#[test]
fn a_qemu_that_ends_before_it_was_told_to_is_not_told_to() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.event(QDISK);
    hand.actions();
    let closed = Observation { online: false, ..silent(State::Closed) };
    hand.dispatcher.handle_observation(QDISK, &closed, hand.time());
    let actions = hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    assert!(!actions.contains(&Action::StopService(1)), "{actions:?}");
}

#[test]
fn a_qemu_that_vanishes_while_it_starts_has_failed_whatever_became_of_the_last() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    let closed = Observation { online: false, ..silent(State::Closed) };
    assert!(hand.look(QDISK, closed).contains(&Action::StopService(1)));
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    assert!(hand.look(QDISK, silent(State::Initialising)).contains(&Action::StartService(1)));
    let actions = hand.service(ServiceEvent::Absent);
    let vanished = Action::Fail(QDISK, Reason::Service(ServiceFailure::Vanished));
    assert!(actions.contains(&vanished), "{actions:?}");
}

#[test]
fn a_disk_that_took_anothers_place_and_closes_at_once_is_closed_by_the_daemon() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.look(QDISK, Observation { online: false, ..silent(State::Closed) });
    hand.service(ServiceEvent::Absent);
    hand.look(QDISK, silent(State::Closing));
    assert_eq!(hand.seen(QDISK, silent(State::Closing)), [Action::Close(QDISK)]);
}

#[test]
fn a_removal_hook_that_cannot_be_started_is_tried_again_before_the_device_is_let_go() {
    let mut hand = Hand::new();
    hand.attach(VBD);
    let closed = Observation { online: false, ..silent(State::Closed) };
    let run = Action::RunHook(VBD);
    assert!(hand.look(VBD, closed).contains(&run));
    let refused = HookEnd::Failure(HookFailure::Spawn(11));
    for wait in [1_000, 2_000, 4_000, 8_000] {
        assert_eq!(hand.hook_ends(VBD, refused), []);
        assert_eq!(hand.wait(wait - 1), []);
        assert_eq!(hand.wait(1), [run]);
    }
    let failure = Notice::RemovalHook(HookFailure::Spawn(11));
    assert!(hand.hook_ends(VBD, refused).contains(&Action::Report(VBD, failure)));
    assert_eq!(hand.wait(200), [Action::Remove(VBD)]);
}

const FAILURE: HookEnd = HookEnd::Failure(HookFailure::Exit(1));

/// A device whose hook has failed, which the store has refused to say; looked at since.
fn failed_and_unmarked(key: DeviceKey, seen: HotplugStatus) -> Hand {
    let mut hand = Hand::new();
    hand.look(key, silent(State::InitWait));
    let failed = Action::Fail(key, Reason::Hook(HookFailure::Exit(1)));
    assert!(hand.hook_ends(key, FAILURE).contains(&failed));
    hand.mark_refused(key, HotplugStatus::Refused);
    hand.seen(key, facts(State::InitWait, seen));
    hand
}

#[test]
fn a_failed_device_that_the_store_did_not_let_be_marked_is_not_taken_for_another() {
    for key in [VIF, VBD] {
        let mut hand = failed_and_unmarked(key, HotplugStatus::Silent);
        for wait in [1_000, 2_000, 4_000] {
            hand.wait(wait);
            let actions = hand.seen(key, silent(State::InitWait));
            assert_eq!(actions, [Action::Reset(key), Action::RunHook(key)]);
            assert_eq!(hand.dispatcher.hook(key).map(|hook| hook.verb), Some(Verb::Add));
            hand.hook_ends(key, FAILURE);
            hand.mark_refused(key, HotplugStatus::Refused);
            hand.seen(key, silent(State::InitWait));
        }
    }
}

#[test]
fn a_look_that_began_before_a_failure_was_marked_does_not_see_another_device() {
    let mut hand = Hand::new();
    hand.look(VBD, silent(State::InitWait));
    hand.event(VBD);
    hand.actions();
    hand.hook_ends(VBD, FAILURE);
    hand.wait(1_000);
    let actions = hand.seen(VBD, silent(State::InitWait));
    assert!(matches!(actions[..], [Action::Observe(VBD, _)]), "{actions:?}");
}

#[test]
fn a_mark_that_is_there_although_the_store_has_not_said_so_tells_the_next_device() {
    let mut hand = failed_and_unmarked(VBD, HotplugStatus::Refused);
    hand.wait(1_000);
    assert!(hand.seen(VBD, silent(State::InitWait)).contains(&Action::RunHook(VBD)));
    assert_eq!(hand.dispatcher.hook(VBD).map(|hook| hook.verb), Some(Verb::Remove));
}

#[test]
fn a_hook_that_failed_after_it_had_said_connected_has_failed_whether_the_store_says_so_or_not() {
    let mut hand = failed_and_unmarked(VIF, HotplugStatus::Connected);
    assert_eq!(hand.phase(VIF), Some(Phase::Failed(Reason::Hook(HookFailure::Exit(1)))));
    hand.wait(1_000);
    let actions = hand.seen(VIF, facts(State::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Reset(VIF), Action::RunHook(VIF)]);
}

#[test]
fn a_served_disk_that_the_store_did_not_let_be_marked_stays_and_is_marked_later() {
    let mut hand = Hand::new();
    hand.look(VBD, silent(State::InitWait));
    hand.hook_ends(VBD, HookEnd::Success);
    let mark = Action::MarkConnected(VBD);
    assert!(hand.seen(VBD, silent(State::InitWait)).contains(&mark));
    hand.mark_refused(VBD, HotplugStatus::Connected);
    // Whatever calls for a look, and if nothing does, after 1, 2, 4 … s.
    assert_eq!(hand.look(VBD, silent(State::InitWait)), [mark]);
    for wait in [2_000, 4_000] {
        hand.mark_refused(VBD, HotplugStatus::Connected);
        assert_eq!(hand.wait(wait - 1), []);
        assert!(matches!(hand.wait(1)[..], [Action::Observe(VBD, _)]));
        assert_eq!(hand.seen(VBD, silent(State::Connected)), [mark]);
    }
    assert_eq!(hand.dispatcher.poll_timeout(), None);
}

#[test]
fn a_reason_that_the_store_did_not_let_be_told_is_told_later() {
    let mut hand = Hand::new();
    let bare = Observation { script: None, ..silent(State::InitWait) };
    let failed = Action::Fail(VBD, Reason::NoScript);
    assert!(hand.look(VBD, bare).contains(&failed));
    hand.mark_refused(VBD, HotplugStatus::Refused);
    hand.wait(1_000);
    assert!(hand.seen(VBD, bare).contains(&failed));
    hand.seen(VBD, Observation { hotplug: HotplugStatus::Refused, ..bare });
    assert_eq!(hand.wait(60_000), []);
}

#[test]
fn a_lost_disk_that_the_store_did_not_let_be_marked_stays_lost() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    let connected = facts(State::Connected, HotplugStatus::Connected);
    let failed = Action::Fail(QDISK, Reason::Lost);
    assert!(hand.seen(QDISK, connected).contains(&failed));
    hand.mark_refused(QDISK, HotplugStatus::Refused);

    let other = DeviceKey { devid: 1, ..QDISK };
    hand.look(other, silent(State::Initialising));
    hand.wait(1_000);
    hand.service(ServiceEvent::Ready);
    assert!(hand.seen(QDISK, connected).contains(&failed));
    assert_eq!(hand.phase(QDISK), Some(Phase::Failed(Reason::Lost)));
}

#[test]
fn a_mark_of_another_device_that_the_store_did_not_take_back_is_not_believed() {
    let mut hand = Hand::new();
    hand.attach(VBD);
    hand.look(VBD, silent(State::InitWait));
    hand.hook_ends(VBD, HookEnd::Success);
    let stale = facts(State::InitWait, HotplugStatus::Connected);
    assert!(hand.seen(VBD, stale).contains(&Action::Reset(VBD)));
    hand.mark_refused(VBD, HotplugStatus::Silent);
    assert_eq!(hand.seen(VBD, stale), [Action::Reset(VBD), Action::RunHook(VBD)]);
}

#[test]
fn a_directory_is_not_removed_while_the_store_refuses_to_say_what_has_become_of_it() {
    let mut hand = Hand::new();
    let closed = Observation { online: false, ..silent(State::Closed) };
    hand.look(VBD, closed);
    hand.wait(150);
    hand.event(VBD);
    hand.actions();
    hand.dispatcher.handle_observation_refused(VBD, hand.time());
    assert_eq!(hand.wait(50), []);
    assert!(matches!(hand.wait(50)[..], [Action::Observe(VBD, _)]));
    hand.seen(VBD, closed);
    assert_eq!(hand.wait(199), []);
    assert_eq!(hand.wait(1), [Action::Remove(VBD)]);
}

#[test]
fn a_disk_that_closes_before_it_was_made_new_for_the_next_qemu_is_closed_by_the_daemon() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    let actions = hand.seen(QDISK, facts(State::InitWait, HotplugStatus::Connected));
    assert_eq!(actions, [Action::Rewind(QDISK)]);
    assert_eq!(hand.wait(1_000), [Action::StartService(1)]);
    // It was closing already: it says still what the last QEMU has said.
    let closing = facts(State::Closing, HotplugStatus::Connected);
    assert_eq!(hand.look(QDISK, closing), [Action::Close(QDISK)]);
}

#[test]
fn a_disk_that_the_next_qemu_has_taken_up_is_closed_by_it() {
    let mut hand = Hand::new();
    hand.serve(QDISK);
    hand.service(ServiceEvent::Failed(ServiceFailure::Exit(1)));
    hand.seen(QDISK, facts(State::InitWait, HotplugStatus::Connected));
    hand.wait(1_000);
    hand.look(QDISK, silent(State::Initialising));
    assert_eq!(hand.look(QDISK, facts(State::Closing, HotplugStatus::Connected)), []);
}

#[test]
fn a_device_found_closing_whose_place_another_takes_gets_its_removal_hook() {
    for key in [VIF, VBD] {
        let mut hand = Hand::new();
        hand.dispatcher.look_at(key);
        hand.actions();
        hand.seen(key, facts(State::Closing, HotplugStatus::Connected));
        let bare = Observation { script: None, ..silent(State::InitWait) };
        assert!(hand.look(key, bare).contains(&Action::RunHook(key)));
        assert_eq!(hand.dispatcher.hook(key).map(|hook| hook.verb), Some(Verb::Remove));
    }
}

#[test]
fn a_failed_device_that_has_lost_its_script_is_taken_away_by_the_script_that_was_run() {
    let mut hand = Hand::new();
    hand.look(VBD, silent(State::InitWait));
    hand.hook_ends(VBD, FAILURE);
    let bare = Observation { script: None, ..facts(State::InitWait, HotplugStatus::Refused) };
    hand.seen(VBD, bare);
    hand.wait(1_000);
    assert!(hand.seen(VBD, bare).contains(&Action::Fail(VBD, Reason::NoScript)));
    let closed = Observation { online: false, script: None, ..silent(State::Closed) };
    assert!(hand.look(VBD, closed).contains(&Action::RunHook(VBD)));
    let hook = hand.dispatcher.hook(VBD).map(|hook| (hook.verb, hook.script));
    assert_eq!(hook, Some((Verb::Remove, &b"script"[..])));
}

#[test]
fn the_script_of_a_hook_that_was_found_running_is_kept_from_a_look_that_does_not_count() {
    let mut hand = Hand::new();
    hand.dispatcher.handle_hook_found(VBD, Verb::Add, false, hand.time());
    hand.actions();
    let taken_up = Observation { want: Want::STATE, script: None, ..silent(State::InitWait) };
    assert_eq!(hand.seen(VBD, taken_up), [Action::Observe(VBD, Want::HOOK)]);
    hand.hook_ends(VBD, HookEnd::Unknown);
    hand.seen(VBD, Observation { want: Want::HOOK, state: None, ..silent(State::InitWait) });
    let gone = Observation { state: None, script: None, ..silent(State::InitWait) };
    assert!(hand.seen(VBD, gone).contains(&Action::RunHook(VBD)));
}
