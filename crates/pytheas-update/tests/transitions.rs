//! The whole transition table, as a file that other implementations (MicroPython) must pass too.
//!
//! Every machine in `machines` × every event in `events`: `steps` lists the pairs that change the
//! machine, with the machine after; every pair that is not listed leaves the machine as it was.
//! `PYTHEAS_WRITE_VECTORS=1 cargo nextest run -p pytheas-update` writes the file anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{collections::BTreeMap, path::Path};

use pytheas_release::{Sha256, TreeId};
use pytheas_update::{Event, Failure, Found, Installed, Machine, Offer, Reason, Report};
use serde_json::{Value, json};

fn installed(version: &str) -> Installed {
    Installed {
        tree: TreeId(Sha256::of(version.as_bytes())),
        release: format!("greenhouse@{version}").parse().unwrap(),
    }
}

fn target(version: &str) -> String {
    format!("greenhouse/{version}/linux-x86_64/release.json")
}

fn offer(version: &str) -> Offer {
    Offer::one(target(version))
}

fn found(version: &str) -> Vec<Found> {
    let (target, to) = (target(version), installed(version));
    vec![Found { target, to }]
}

/// Another component.
fn broker() -> Found {
    let to = Installed {
        tree: TreeId(Sha256::of(b"broker")),
        release: "broker@2.0.0".parse().unwrap(),
    };
    let target = "broker/2.0.0/linux-x86_64/release.json".into();
    Found { target, to }
}

fn offer_of_two() -> Offer {
    Offer {
        also: vec![target("1.1.0")],
        ..Offer::one(broker().target)
    }
}

fn because(reason: Reason) -> Failure {
    Failure::new(reason, "the reason")
}

fn wanted(action: &str, version: &str) -> Event {
    Event::Wanted {
        action: Some(action.parse().unwrap()),
        offer: offer(version),
    }
}

fn verified(to: TreeId, migrates: bool) -> Event {
    Event::Verified { to, migrates }
}

fn checked(version: &str) -> Event {
    Event::Checked {
        offer: offer(version),
        found: found(version),
    }
}

/// One machine for each state an update from 1.0.0 to 1.1.0 (action 7) passes.
fn machines() -> BTreeMap<&'static str, Machine> {
    let to = installed("1.1.0").tree;
    let first = installed("1.0.0").tree;
    let mut all = BTreeMap::new();
    let empty = Machine::default();
    let checking_first = empty.clone().step(wanted("6", "1.0.0"));
    let fetching_first = checking_first.clone().step(checked("1.0.0"));
    let switching_first = fetching_first
        .step(Event::Fetched { to: first })
        .step(Event::Staged { to: first })
        .step(verified(first, false));
    let probation_first = switching_first.step(Event::Switched { to: first });
    let told = probation_first.clone().step(Event::Healthy { to: first });
    let report = told.outbox()[0].clone();
    let idle = told
        .clone()
        .step(Event::Tidied { current: first })
        .step(Event::Delivered { report });
    let checking = idle.clone().step(wanted("7", "1.1.0"));
    let fetching = checking.clone().step(checked("1.1.0"));
    let staging = fetching.clone().step(Event::Fetched { to });
    let verifying = staging.clone().step(Event::Staged { to });
    let damaged = Event::Damaged {
        to,
        because: because(Reason::Content),
    };
    let fetching_again = verifying.clone().step(damaged);
    let verifying_again = fetching_again
        .clone()
        .step(Event::Fetched { to })
        .step(Event::Staged { to });
    let switching = verifying.clone().step(verified(to, false));
    let preparing = verifying.clone().step(verified(to, true));
    let snapshotting = preparing.clone().step(Event::Prepared { to });
    let switching_data = snapshotting.clone().step(Event::Snapshotted { to });
    let migrating = switching_data.clone().step(Event::Switched { to });
    let migrating_last = migrating
        .clone()
        .step(Event::Restarted)
        .step(Event::Restarted);
    let rolling_back_data = migrating_last.clone().step(Event::Restarted);
    let both = broker().to.tree;
    let checking_two = idle.clone().step(Event::Wanted {
        action: Some("7".parse().unwrap()),
        offer: offer_of_two(),
    });
    let two = [vec![broker()], found("1.1.0")].concat();
    let fetching_two = checking_two.clone().step(Event::Checked {
        offer: offer_of_two(),
        found: two,
    });
    let probation_two = fetching_two
        .clone()
        .step(Event::Fetched { to: both })
        .step(Event::Staged { to: both })
        .step(verified(both, false))
        .step(Event::Switched { to: both });
    let rolling_back_two = probation_two.clone().step(Event::NotReady {
        to: both,
        because: because(Reason::NotReady),
    });
    let committed_two = probation_two.clone().step(Event::Healthy { to: both });
    let back_two = committed_two
        .clone()
        .step(Event::Tidied { current: both })
        .step(Event::RollbackWanted);
    let probation = switching.clone().step(Event::Switched { to });
    let died = |tries_left| Event::Died {
        to,
        tries_left,
        because: because(Reason::Died),
    };
    let probation_last = probation.clone().step(died(2)).step(died(1));
    let rolling_back = probation_last.clone().step(died(0));
    let rolled_back = rolling_back.clone().step(Event::RolledBack { from: to });
    let committed = probation.clone().step(Event::Healthy { to });
    let idle_after = committed.clone().step(Event::Tidied { current: to });
    let operator_rollback = idle_after.clone().step(Event::RollbackWanted);
    all.insert("idle-never-installed", empty);
    all.insert("checking-first-install", checking_first);
    all.insert("probation-first-install", probation_first);
    all.insert("idle", idle);
    all.insert("checking", checking);
    all.insert("fetching", fetching);
    all.insert("staging", staging);
    all.insert("verifying", verifying);
    all.insert("fetching-again", fetching_again);
    all.insert("verifying-again", verifying_again);
    all.insert("switching", switching);
    all.insert("preparing", preparing);
    all.insert("snapshotting", snapshotting);
    all.insert("switching-migrating", switching_data);
    all.insert("migrating", migrating);
    all.insert("migrating-last-try", migrating_last);
    all.insert("rolling-back-migrated", rolling_back_data);
    all.insert("checking-two", checking_two);
    all.insert("fetching-two", fetching_two);
    all.insert("probation-two", probation_two);
    all.insert("rolling-back-two", rolling_back_two);
    all.insert("committed-two", committed_two);
    all.insert("verifying-operator-rollback-after-two", back_two);
    all.insert("probation", probation);
    all.insert("probation-last-try", probation_last);
    all.insert("rolling-back", rolling_back);
    all.insert("idle-after-rollback", rolled_back);
    all.insert("committed", committed);
    all.insert("idle-not-yet-told", idle_after);
    all.insert("verifying-operator-rollback", operator_rollback);
    all
}

fn events() -> BTreeMap<&'static str, Event> {
    let to = installed("1.1.0").tree;
    let failure = || because(Reason::Device);
    let succeeded = Report {
        action: "7".parse().unwrap(),
        outcome: pytheas_update::Outcome::Succeeded {
            message: "`greenhouse@1.1.0` runs and is committed".into(),
        },
    };
    [
        ("restarted", Event::Restarted),
        ("wanted-same-action", wanted("7", "1.1.0")),
        ("wanted-next-action", wanted("8", "1.2.0")),
        (
            "wanted-by-operator",
            Event::Wanted {
                action: None,
                offer: offer("1.2.0"),
            },
        ),
        (
            "cancel-wanted",
            Event::CancelWanted {
                action: "7".parse().unwrap(),
            },
        ),
        (
            "cancel-wanted-unknown",
            Event::CancelWanted {
                action: "99".parse().unwrap(),
            },
        ),
        ("rollback-wanted", Event::RollbackWanted),
        (
            "lost",
            Event::Lost {
                name: installed("1.0.0").release.name,
            },
        ),
        ("checked", checked("1.1.0")),
        (
            "checked-same-as-current",
            Event::Checked {
                offer: offer("1.1.0"),
                found: found("1.0.0"),
            },
        ),
        (
            "check-failed",
            Event::CheckFailed {
                offer: offer("1.1.0"),
                because: failure(),
            },
        ),
        ("fetched", Event::Fetched { to }),
        (
            "fetch-failed",
            Event::FetchFailed {
                to,
                because: failure(),
            },
        ),
        ("staged", Event::Staged { to }),
        (
            "stage-failed",
            Event::StageFailed {
                to,
                because: failure(),
            },
        ),
        ("verified", verified(to, false)),
        ("verified-migrates", verified(to, true)),
        ("prepared", Event::Prepared { to }),
        (
            "prepare-failed",
            Event::PrepareFailed {
                to,
                because: failure(),
            },
        ),
        ("snapshotted", Event::Snapshotted { to }),
        (
            "snapshot-failed",
            Event::SnapshotFailed {
                to,
                because: failure(),
            },
        ),
        ("migrated", Event::Migrated { to }),
        (
            "migrate-failed",
            Event::MigrateFailed {
                to,
                because: failure(),
            },
        ),
        (
            "damaged",
            Event::Damaged {
                to,
                because: failure(),
            },
        ),
        ("switched", Event::Switched { to }),
        (
            "switch-failed",
            Event::SwitchFailed {
                to,
                because: failure(),
            },
        ),
        ("healthy", Event::Healthy { to }),
        (
            "healthy-of-another-tree",
            Event::Healthy {
                to: installed("0.9.0").tree,
            },
        ),
        (
            "died-first-start",
            Event::Died {
                to,
                tries_left: 2,
                because: failure(),
            },
        ),
        (
            "died-last-start",
            Event::Died {
                to,
                tries_left: 0,
                because: failure(),
            },
        ),
        (
            "not-ready",
            Event::NotReady {
                to,
                because: failure(),
            },
        ),
        ("rolled-back", Event::RolledBack { from: to }),
        ("tidied", Event::Tidied { current: to }),
        ("delivered", Event::Delivered { report: succeeded }),
    ]
    .into()
}

fn stored(machine: &Machine) -> Value {
    let mut stored: Value = serde_json::from_slice(&machine.encode()).unwrap();
    stored.as_object_mut().unwrap().remove("check"); // of the file, not of the machine
    stored
}

#[test]
fn the_transition_table_is_the_one_others_were_given() {
    let (machines, events) = (machines(), events());
    let mut steps = Vec::new();
    for (from, machine) in &machines {
        for (event, value) in &events {
            let after = machine.clone().step(value.clone());
            if after != *machine {
                steps.push(json!({"from": from, "event": event, "to": stored(&after)}));
            }
        }
    }
    let table = json!({
        "format": 1,
        "about": "pairs of machine and event that are not in `steps` leave the machine unchanged",
        "machines": machines.iter().map(|(name, m)| (*name, stored(m))).collect::<BTreeMap<_, _>>(),
        "events": events,
        "steps": steps,
    });
    let text = format!("{table:#}\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/transitions.json");
    if std::env::var_os("PYTHEAS_WRITE_VECTORS").is_some() {
        #[expect(
            clippy::disallowed_methods,
            reason = "a file of the repository, under version control"
        )]
        std::fs::write(&path, &text).unwrap();
    }
    let given = std::fs::read_to_string(&path).unwrap();
    assert!(
        given == text,
        "vectors/transitions.json is stale: see this file's header"
    );
}

#[test]
fn a_doubled_event_changes_nothing_more() {
    for (name, machine) in machines() {
        for (event, value) in events() {
            // A restart is never a double: each one is a start that nobody saw end. A second
            // damage is news as well: what was fetched anew is damaged again.
            if matches!(
                value,
                Event::Restarted | Event::RollbackWanted | Event::Lost { .. }
            ) {
                continue;
            }
            let once = machine.clone().step(value.clone());
            let twice = once.clone().step(value.clone());
            assert_eq!(once, twice, "`{event}` twice in `{name}`");
        }
    }
}

#[test]
fn a_release_is_started_three_times_at_most() {
    let to = installed("1.1.0").tree;
    let mut machine = machines()["switching"].clone().step(Event::Switched { to });
    let mut starts = 1;
    while machine.state().name() == "probation" {
        machine = machine.step(Event::Restarted);
        starts += usize::from(machine.state().name() == "probation");
    }
    assert_eq!((starts, machine.state().name()), (3, "rolling-back"));
}

#[test]
fn an_action_that_failed_is_answered_from_memory() {
    let to = installed("1.1.0").tree;
    let failed = machines()["rolling-back"]
        .clone()
        .step(Event::RolledBack { from: to });
    let report = failed.outbox()[0].clone();
    let told = failed.step(Event::Delivered {
        report: report.clone(),
    });
    assert!(told.outbox().is_empty());
    let again = told.step(wanted("7", "1.1.0"));
    assert_eq!(again.state().name(), "idle");
    assert_eq!(again.outbox(), [report]);
    let retried = again.step(wanted("8", "1.1.0"));
    assert_eq!(
        retried.state().name(),
        "checking",
        "a new action is a new decision"
    );
}

#[test]
fn memory_and_reports_stay_bounded() {
    let mut machine = Machine::default();
    for i in 0..200 {
        machine = machine
            .step(wanted(&i.to_string(), "1.1.0"))
            .step(Event::CheckFailed {
                offer: offer("1.1.0"),
                because: because(Reason::Incompatible),
            });
        machine = machine.step(Event::CancelWanted {
            action: format!("c{i}").parse().unwrap(),
        });
    }
    assert!(machine.outbox().len() <= 17, "{}", machine.outbox().len());
    assert!(machine.refused().len() <= 16);
}

#[test]
fn what_was_moved_together_goes_back_together() {
    let both = broker().to.tree;
    let newer = Found {
        target: "broker/2.1.0/linux-x86_64/release.json".into(),
        to: Installed {
            tree: TreeId(Sha256::of(b"broker 2.1")),
            release: "broker@2.1.0".parse().unwrap(),
        },
    };
    let all = machines();
    let idle = all["committed-two"]
        .clone()
        .step(Event::Tidied { current: both });
    let names = |machine: &Machine| -> Vec<String> {
        machine
            .installed()
            .map(|installed| installed.release.to_string())
            .collect()
    };
    assert_eq!(names(&idle), ["greenhouse@1.1.0", "broker@2.0.0"]);
    let offer = Offer {
        also: vec![target("1.2.0")],
        ..Offer::one(newer.target.clone())
    };
    let to = newer.to.tree;
    let committed = idle
        .step(Event::Wanted {
            action: Some("9".parse().unwrap()),
            offer: offer.clone(),
        })
        .step(Event::Checked {
            offer,
            found: [vec![newer], found("1.2.0")].concat(),
        })
        .step(Event::Fetched { to })
        .step(Event::Staged { to })
        .step(verified(to, false))
        .step(Event::Switched { to })
        .step(Event::Healthy { to })
        .step(Event::Tidied { current: to });
    assert_eq!(names(&committed), ["greenhouse@1.2.0", "broker@2.1.0"]);
    let back = committed.step(Event::RollbackWanted);
    let goals: Vec<String> = back
        .state()
        .job()
        .unwrap()
        .goals()
        .map(|g| g.release.to_string())
        .collect();
    assert_eq!(goals, ["broker@2.0.0", "greenhouse@1.1.0"]);
    assert_eq!(Machine::parse(&back.encode()).unwrap(), back);
}

#[test]
fn a_migration_that_takes_the_device_down_is_tried_three_times() {
    let mut machine = machines()["migrating"].clone();
    let mut tries = vec![machine.effect() == pytheas_update::Effect::Rest];
    while let pytheas_update::Effect::Migrate { again, .. } = machine.effect() {
        tries.push(again);
        machine = machine.step(Event::Restarted);
    }
    assert_eq!(tries, [false, false, true, true]);
    assert_eq!(machine.state().name(), "rolling-back");
}
