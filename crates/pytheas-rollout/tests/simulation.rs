//! A fleet of 100 000 simulated devices through a whole rollout.

use std::{collections::BinaryHeap, time::Instant};

use pytheas_rollout::{Effect, Event, Gates, GroupSize, Plan, Rollout, State};

/// A small generator of numbers, so that the simulation is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// When each started device will report, and what: earliest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due(std::cmp::Reverse<u64>, u32, bool);

#[test]
fn a_hundred_thousand_devices_pass_through_five_groups() {
    const DEVICES: u32 = 100_000;
    let groups = vec![
        GroupSize::Count(1),
        GroupSize::Percent(1),
        GroupSize::Percent(10),
        GroupSize::Percent(50),
        GroupSize::Percent(100),
    ];
    let gates = Gates {
        success_percent: 95,
        error_percent: 3,
        silence_ms: 3_600_000,
    };
    let began = Instant::now();
    let mut dice = Dice(42);
    let mut rollout = Rollout::new(Plan::new(groups, gates).unwrap(), 0..DEVICES).unwrap();
    let mut due = BinaryHeap::new();
    let mut now_ms = 0;
    let (mut steps, mut most_active, mut silent) = (0u64, 0, 0u32);
    let mut pending = vec![Event::Begin];
    loop {
        let Some(event) = pending.pop() else {
            match due.pop() {
                Some(Due(at, device, good)) => {
                    now_ms = at.0;
                    pending.push(if good {
                        Event::Succeeded { device }
                    } else {
                        Event::Failed {
                            device,
                            error: "health check failed".into(),
                        }
                    });
                    // Every tenth report is sent twice, as after a lost answer.
                    if dice.below(10) == 0 {
                        pending.push(Event::Succeeded { device });
                    }
                }
                None if rollout.progress().state.is_final() => break,
                None => {
                    now_ms += 600_000;
                    pending.push(Event::Tick);
                }
            }
            continue;
        };
        let (next, effects) = rollout.step(event, now_ms);
        rollout = next;
        steps += 1;
        for effect in effects {
            match effect {
                // 1 of 100 fails, 1 of 500 is never heard again; the canary is sound.
                Effect::Start { device } => match dice.below(500) {
                    0 if device > 0 => silent += 1,
                    roll => due.push(Due(
                        std::cmp::Reverse(now_ms + 1000 + dice.below(300_000)),
                        device,
                        roll > 5 || device == 0,
                    )),
                },
                Effect::GiveUp { .. } => silent -= 1,
                _ => {}
            }
        }
        most_active = most_active.max(rollout.tallies().iter().map(|tally| tally.active).sum());
    }
    assert_eq!(rollout.progress().state, State::Finished);
    assert_eq!(silent, 0, "every silent device was given up");
    let sum = |count: fn(&pytheas_rollout::Tally) -> u32| rollout.tallies().iter().map(count).sum();
    let (succeeded, failed): (u32, u32) = (sum(|t| t.succeeded), sum(|t| t.failed));
    assert_eq!(succeeded + failed, DEVICES);
    assert!((500..2500).contains(&failed), "{failed}");
    assert!(
        most_active <= 55_000,
        "{most_active}: the half-fleet group and stragglers"
    );
    let seconds = began.elapsed().as_secs_f64();
    println!("{steps} steps in {seconds:.2} s, {most_active} active at most, {failed} failed");
}

#[test]
fn a_bad_release_reaches_only_the_canaries_of_a_hundred_thousand() {
    let groups = vec![GroupSize::Count(10), GroupSize::Percent(100)];
    let plan = Plan::new(groups, Gates::default()).unwrap();
    let (mut rollout, effects) = Rollout::new(plan, 0..100_000u32)
        .unwrap()
        .step(Event::Begin, 0);
    let mut started = 0;
    let mut queue = effects;
    while let Some(effect) = queue.pop() {
        if let Effect::Start { device } = effect {
            started += 1;
            let failed = Event::Failed {
                device,
                error: "does not start".into(),
            };
            let (next, more) = rollout.step(failed, 1000);
            rollout = next;
            queue.extend(more);
        }
    }
    assert_eq!(started, 10);
    assert!(matches!(rollout.progress().state, State::Paused { .. }));
}
