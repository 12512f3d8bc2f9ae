//! Random events, crashes and restarts among them; the invariants are checked after each.

use std::collections::BTreeSet;

use proptest::prelude::*;
use pytheas_rollout::{
    Effect, Event, Gates, GroupSize, GroupStatus, Plan, Rollout, Standing, State,
};

#[derive(Debug, Clone)]
enum Action {
    Step(Event<u32>),
    PassTime(u64),
    Restart,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let device = 0u32..14; // some of them strangers
    let action = prop_oneof![
        1 => Just(Action::Step(Event::Begin)),
        3 => device.clone().prop_map(|device| Action::Step(Event::Heard { device })),
        9 => device.clone().prop_map(|device| Action::Step(Event::Succeeded { device })),
        3 => device.clone().prop_map(|device| Action::Step(Event::Failed { device, error: "boom".into() })),
        1 => device.prop_map(|device| Action::Step(Event::Cancelled { device })),
        2 => Just(Action::Step(Event::Tick)),
        1 => Just(Action::Step(Event::Pause { by: "ada".into() })),
        2 => Just(Action::Step(Event::Resume)),
        1 => Just(Action::Step(Event::Abort { by: "ada".into() })),
        2 => (0u64..4000).prop_map(Action::PassTime),
        1 => Just(Action::Restart),
    ];
    prop::collection::vec(action, 0..80)
}

fn plans() -> impl Strategy<Value = Plan> {
    let group = prop_oneof![
        (1u32..5).prop_map(GroupSize::Count),
        (1u8..=100).prop_map(GroupSize::Percent),
    ];
    let groups = prop::collection::vec(group, 1..5);
    (groups, 0u8..=100, 0u8..=100).prop_filter_map(
        "shares must grow",
        |(groups, success_percent, error_percent)| {
            Plan::new(
                groups,
                Gates {
                    success_percent,
                    error_percent,
                    silence_ms: 5000,
                },
            )
            .ok()
        },
    )
}

fn invariant_only_opened_groups_have_begun(rollout: &Rollout<u32>) {
    for (group, range) in rollout
        .ranges()
        .iter()
        .enumerate()
        .skip(rollout.progress().opened)
    {
        for member in &rollout.members()[range.clone()] {
            let begun = matches!(
                member.standing,
                Standing::Active { .. } | Standing::Succeeded | Standing::Failed
            );
            assert!(!begun, "{member:?} of closed group {group}");
        }
        if rollout.tallies()[group].waiting > 0 {
            assert_eq!(rollout.group_status(group), GroupStatus::Waiting);
        }
    }
}

fn invariant_what_ended_stays_as_it_ended(before: &Rollout<u32>, after: &Rollout<u32>) {
    for (old, new) in before.members().iter().zip(after.members()) {
        if old.standing.is_final() {
            assert_eq!(old, new);
        }
    }
    if before.progress().state.is_final() {
        assert_eq!(before, after, "finished and aborted rollouts never change");
    }
}

fn invariant_only_a_running_rollout_starts_devices(
    before: &Rollout<u32>,
    event: &Event<u32>,
    effects: &[Effect<u32>],
) {
    let may_start = match before.progress().state {
        State::Created => matches!(event, Event::Begin),
        State::Running => true,
        State::Paused { .. } => matches!(event, Event::Resume),
        State::Finished | State::Aborted { .. } => false,
    };
    let starts = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Start { .. }));
    assert!(
        may_start || !starts,
        "{:?} {event:?} {effects:?}",
        before.progress()
    );
}

fn invariant_counts_are_the_members(rollout: &Rollout<u32>) {
    for (tally, range) in rollout.tallies().iter().zip(rollout.ranges()) {
        let members = &rollout.members()[range.clone()];
        let count = |standing: &Standing| {
            members
                .iter()
                .filter(|member| member.standing == *standing)
                .count() as u32
        };
        assert_eq!(tally.total as usize, members.len());
        assert_eq!(tally.succeeded, count(&Standing::Succeeded));
        assert_eq!(tally.failed, count(&Standing::Failed));
        assert_eq!(tally.cancelled, count(&Standing::Cancelled));
        let ended = tally.succeeded + tally.failed + tally.cancelled;
        assert_eq!(tally.waiting + tally.active + ended, tally.total);
    }
}

fn invariant_a_running_rollout_waits_for_somebody(rollout: &Rollout<u32>) {
    if rollout.progress().state == State::Running {
        assert!(
            rollout.tallies().iter().any(|tally| tally.active > 0),
            "it would hang for ever"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_event(plan in plans(), count in 1u32..12, actions in actions()) {
        let mut rollout = Rollout::new(plan, 0..count).unwrap();
        let mut now_ms = 1000;
        let mut ended = BTreeSet::new();
        for action in actions {
            match action {
                Action::PassTime(ms) => now_ms += ms,
                Action::Restart => {
                    let progress = serde_json::to_string(rollout.progress()).unwrap();
                    let restored = Rollout::restore(
                        rollout.plan().clone(),
                        serde_json::from_str(&progress).unwrap(),
                        rollout.members().to_vec(),
                        rollout.ranges().to_vec(),
                    ).unwrap();
                    prop_assert_eq!(&restored, &rollout);
                    rollout = restored;
                }
                Action::Step(event) => {
                    let before = rollout.clone();
                    let (after, effects) = rollout.step(event.clone(), now_ms);
                    invariant_only_opened_groups_have_begun(&after);
                    invariant_what_ended_stays_as_it_ended(&before, &after);
                    invariant_only_a_running_rollout_starts_devices(&before, &event, &effects);
                    invariant_counts_are_the_members(&after);
                    invariant_a_running_rollout_waits_for_somebody(&after);
                    for effect in &effects {
                        if let Effect::Ended { device, .. } = effect {
                            prop_assert!(ended.insert(*device), "{} ended twice", device);
                        }
                    }
                    // Doubled, the same event starts and ends nothing more (a second resume may
                    // accept what came in between; nothing came).
                    let (twice, again) = after.clone().step(event, now_ms);
                    prop_assert_eq!(&twice, &after);
                    prop_assert_eq!(again, vec![]);
                    rollout = after;
                }
            }
        }
    }
}
