//! What each event does, case by case.

use super::*;
use crate::{Gates, GroupSize};

type Sim = Rollout<&'static str>;

fn rollout(groups: &[GroupSize], gates: Gates, devices: &[&'static str]) -> Sim {
    let plan = Plan::new(groups.to_vec(), gates).unwrap();
    Rollout::new(plan, devices.iter().copied())
        .unwrap()
        .step(Event::Begin, 0)
        .0
}

fn canary() -> Sim {
    let groups = [GroupSize::Count(1), GroupSize::Percent(100)];
    rollout(&groups, Gates::default(), &["a", "b", "c"])
}

fn failed(device: &'static str) -> Event<&'static str> {
    Event::Failed {
        device,
        error: "boom".into(),
    }
}

fn reason(rollout: &Sim) -> String {
    rollout
        .progress()
        .state
        .reason()
        .unwrap_or_else(|| "-".into())
}

#[test]
fn the_next_group_opens_when_the_last_succeeded() {
    let (rollout, effects) = canary().step(Event::Succeeded { device: "a" }, 5);
    assert_eq!(
        effects,
        [
            Effect::Ended {
                device: "a",
                standing: Standing::Succeeded
            },
            Effect::Opened { group: 1 },
            Effect::Start { device: "b" },
            Effect::Start { device: "c" },
        ]
    );
    let (rollout, _) = rollout.step(Event::Succeeded { device: "b" }, 6);
    assert_eq!(rollout.progress().state, State::Running);
    let (rollout, effects) = rollout.step(Event::Succeeded { device: "c" }, 7);
    assert_eq!(rollout.progress().state, State::Finished);
    assert_eq!(effects.last(), Some(&Effect::StateChanged));
}

#[test]
fn a_failed_canary_pauses_and_resuming_accepts_it() {
    let (rollout, effects) = canary().step(failed("a"), 5);
    assert_eq!(
        reason(&rollout),
        "`a` failed: boom (group 1: 1 of 1 failed, 0% allowed)"
    );
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Start { .. }))
    );
    let (rollout, effects) = rollout.step(Event::Resume, 6);
    assert_eq!(rollout.progress().state, State::Running);
    assert!(effects.contains(&Effect::Start { device: "b" }));
    let (rollout, _) = rollout.step(failed("b"), 7);
    assert_eq!(
        reason(&rollout),
        "`b` failed: boom (group 2: 1 of 2 failed, 0% allowed)"
    );
}

#[test]
fn a_group_that_ends_short_of_the_threshold_pauses_instead_of_hanging() {
    let gates = Gates {
        error_percent: 50,
        ..Gates::default()
    };
    let groups = [GroupSize::Count(2), GroupSize::Percent(100)];
    let rollout = rollout(&groups, gates, &["a", "b", "c"]);
    let (rollout, _) = rollout.step(failed("a"), 1);
    assert_eq!(rollout.progress().state, State::Running);
    let (rollout, _) = rollout.step(Event::Succeeded { device: "b" }, 2);
    assert_eq!(
        reason(&rollout),
        "group 1 ended with 1 of 2 succeeded, 100% needed"
    );
    let (rollout, effects) = rollout.step(Event::Resume, 3);
    assert!(effects.contains(&Effect::Start { device: "c" }));
    let (rollout, _) = rollout.step(Event::Succeeded { device: "c" }, 4);
    assert_eq!(rollout.progress().state, State::Finished);
}

#[test]
fn the_next_group_opens_at_the_threshold_while_stragglers_go_on() {
    let gates = Gates {
        success_percent: 50,
        ..Gates::default()
    };
    let groups = [GroupSize::Count(2), GroupSize::Percent(100)];
    let rollout = rollout(&groups, gates, &["a", "b", "c"]);
    let (rollout, effects) = rollout.step(Event::Succeeded { device: "b" }, 1);
    assert!(effects.contains(&Effect::Start { device: "c" }));
    let (rollout, _) = rollout.step(failed("a"), 2);
    assert_eq!(
        reason(&rollout),
        "`a` failed: boom (group 1: 1 of 2 failed, 0% allowed)"
    );
}

#[test]
fn silence_counts_as_failure_and_reports_keep_a_device_alive() {
    let gates = Gates {
        silence_ms: 60_000,
        ..Gates::default()
    };
    let rollout = rollout(&[GroupSize::Percent(100)], gates, &["a", "b"]);
    let (rollout, _) = rollout.step(Event::Heard { device: "b" }, 50_000);
    let (rollout, effects) = rollout.step(Event::Tick, 59_999);
    assert_eq!(effects, []);
    let (rollout, effects) = rollout.step(Event::Tick, 60_000);
    assert_eq!(
        effects[0],
        Effect::GiveUp {
            device: "a",
            silent_ms: 60_000
        }
    );
    assert_eq!(
        reason(&rollout),
        "`a` failed: silent for 60 s (group 1: 1 of 2 failed, 0% allowed)"
    );
    let (rollout, effects) = rollout.step(Event::Succeeded { device: "a" }, 61_000);
    assert_eq!(effects, [], "it ended already");
    let (rollout, _) = rollout.step(Event::Tick, 110_000);
    assert_eq!(
        rollout.tallies()[0].failed,
        2,
        "silence is seen while paused, too"
    );
}

#[test]
fn pausing_lets_begun_devices_end_and_aborting_takes_them_back() {
    let (rollout, _) = canary().step(Event::Pause { by: "ada".into() }, 1);
    assert_eq!(reason(&rollout), "by ada");
    let (rollout, effects) = rollout.step(Event::Succeeded { device: "a" }, 2);
    assert_eq!(
        effects,
        [Effect::Ended {
            device: "a",
            standing: Standing::Succeeded
        }]
    );
    let (rollout, effects) = rollout.step(Event::Resume, 3);
    assert!(effects.contains(&Effect::Start { device: "b" }));
    let (rollout, effects) = rollout.step(Event::Abort { by: "ada".into() }, 4);
    assert!(effects.contains(&Effect::Withdraw { device: "b" }));
    assert_eq!(rollout.tallies()[1].cancelled, 2);
    for event in [
        Event::Resume,
        Event::Begin,
        Event::Succeeded { device: "b" },
        Event::Tick,
    ] {
        let (after, effects) = rollout.clone().step(event, 1 << 50);
        assert_eq!((after, effects), (rollout.clone(), vec![]));
    }
}

#[test]
fn a_device_that_a_newer_rollout_takes_counts_neither_way() {
    let groups = [GroupSize::Count(2), GroupSize::Percent(100)];
    let rollout = rollout(&groups, Gates::default(), &["a", "b", "c"]);
    let (rollout, _) = rollout.step(Event::Cancelled { device: "a" }, 1);
    let (rollout, _) = rollout.step(Event::Cancelled { device: "c" }, 1);
    let (rollout, _) = rollout.step(Event::Succeeded { device: "b" }, 2);
    assert_eq!(rollout.progress().state, State::Finished);
}

#[test]
fn a_group_whose_devices_were_all_taken_out_proves_nothing() {
    let (paused, effects) = canary().step(Event::Cancelled { device: "a" }, 5);
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Start { .. })),
        "{effects:?}"
    );
    insta::assert_snapshot!(reason(&paused), @"group 1 ended with 0 of 1 succeeded, 100% needed");
    // A person may go on without it, and is not asked twice.
    let (resumed, effects) = paused.step(Event::Resume, 6);
    assert_eq!(resumed.progress().state, State::Running);
    assert!(effects.contains(&Effect::Start { device: "b" }));
}

#[test]
fn strangers_and_doubles_change_nothing() {
    let rollout = canary();
    for event in [
        Event::Begin,
        Event::Resume,
        Event::Tick,
        Event::Succeeded { device: "b" },
        failed("zz"),
        Event::Heard { device: "zz" },
    ] {
        let (after, effects) = rollout.clone().step(event, 1);
        assert_eq!((after, effects), (rollout.clone(), vec![]));
    }
}

#[test]
fn what_is_written_down_restores_the_same_rollout() {
    let (rollout, _) = canary().step(failed("a"), 5);
    let stored = serde_json::to_string(rollout.progress()).unwrap();
    insta::assert_snapshot!(stored, @r#"{"state":"paused","because":{"kind":"failures","group":0,"device":"a","error":"boom","failed":1,"total":1,"allowed_percent":0},"opened":1,"accepted":[0,0],"waived":0}"#);
    let restored = Rollout::restore(
        rollout.plan().clone(),
        serde_json::from_str(&stored).unwrap(),
        rollout.members().to_vec(),
        rollout.ranges().to_vec(),
    );
    assert_eq!(restored.unwrap(), rollout);
    let mut members = rollout.members().to_vec();
    members[2].standing = Standing::Active { heard_ms: 0 };
    let wrong = Rollout::restore(
        rollout.plan().clone(),
        rollout.progress().clone(),
        members,
        rollout.ranges().to_vec(),
    );
    assert_eq!(
        wrong.unwrap_err(),
        RestoreError::ActiveTooEarly { group: 1 }
    );
}
