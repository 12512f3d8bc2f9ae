//! Random histories: the hub offers, cancels and repeats; effects succeed, fail and are cut off;
//! events come late and twice; the agent is killed and started again at every point. After each
//! action the named invariants are checked.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use pytheas_release::Name;
use pytheas_release::{Sha256, TreeId};
use pytheas_update::{
    ActionId, Effect, Event, Failure, Found, Installed, Job, Machine, Offer, Outcome, Reason,
    Report, State,
};

/// Where an agent is killed within one round of save, effect, step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    Never,
    BeforeSave,
    BeforeEffect,
    AfterEffect,
}

/// How an effect ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Well,
    Badly,
    /// The app does not prove itself in time; elsewhere as `Badly`.
    Late,
}

#[derive(Debug, Clone)]
enum Action {
    /// Releases of one component, or of two together.
    Offer {
        releases: Vec<u8>,
    },
    Repeat,
    Cancel,
    OperatorRollback,
    Round {
        end: End,
        cut: Cut,
    },
    Deliver {
        lost: bool,
    },
    Late {
        which: usize,
    },
    Kill,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let end = prop_oneof![6 => Just(End::Well), 1 => Just(End::Badly), 1 => Just(End::Late)];
    let cut = prop_oneof![
        8 => Just(Cut::Never),
        1 => Just(Cut::BeforeSave),
        1 => Just(Cut::BeforeEffect),
        1 => Just(Cut::AfterEffect),
    ];
    let action = prop_oneof![
        3 => (0..5u8).prop_map(|release| Action::Offer { releases: vec![release] }),
        2 => (0..5u8, 5..8u8).prop_map(|(app, broker)| Action::Offer { releases: vec![broker, app] }),
        1 => Just(Action::Repeat),
        1 => Just(Action::Cancel),
        1 => Just(Action::OperatorRollback),
        20 => (end, cut).prop_map(|(end, cut)| Action::Round { end, cut }),
        3 => any::<bool>().prop_map(|lost| Action::Deliver { lost }),
        3 => any::<usize>().prop_map(|which| Action::Late { which }),
        1 => Just(Action::Kill),
    ];
    prop::collection::vec(action, 1..120)
}

/// A device: what lies on its disk survives `kill`, the rest does not.
#[derive(Default)]
struct Device {
    machine: Machine,
    saved: Vec<u8>,
    slots: BTreeSet<TreeId>,
    links: BTreeMap<Name, TreeId>,
    /// Which release each component's data is for.
    data: BTreeMap<Name, Data>,
    /// Data that was set aside.
    aside: BTreeMap<Name, Data>,
    fetched: BTreeSet<TreeId>,
    staged: BTreeSet<TreeId>,
    starts: BTreeMap<(Option<ActionId>, TreeId), u32>,
    past: Vec<Event>,
    hub_said: Vec<ActionId>,
    hub_heard: Vec<Report>,
    /// Actions that were saved as begun.
    taken: BTreeSet<ActionId>,
    /// Trees whose last probation ended badly, until a later action commits them.
    failed: BTreeSet<TreeId>,
}

/// The app's data: of the release that wrote it, or half way to another.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Data {
    None,
    Of(TreeId),
    Torn,
}

/// Releases from 5 on are of another component; some have hooks.
fn installed(release: u8) -> Installed {
    let name = if release < 5 { "app" } else { "broker" };
    Installed {
        tree: TreeId(Sha256::of(&[release])),
        release: format!("{name}@{release}").parse().unwrap(),
    }
}

fn target(release: u8) -> String {
    format!("app/{release}/linux-x86_64/release.json")
}

impl Device {
    fn save(&mut self) {
        self.saved = self.machine.encode();
        self.taken.extend(self.machine.state().action().cloned());
    }

    fn kill(&mut self) {
        let stored = Machine::parse(&self.saved).unwrap();
        self.machine = stored.step(Event::Restarted);
        self.save();
        self.watch();
    }

    fn happen(&mut self, event: Event) {
        let before = self.machine.state().clone();
        self.machine = std::mem::take(&mut self.machine).step(event.clone());
        self.past.push(event);
        if *self.machine.state() != before
            && let State::Fetching { job } | State::Verifying { job } = self.machine.state().clone()
        {
            // What is said about this tree from here on is about this try.
            self.past.retain(|event| !speaks_of(event, job.to.tree));
        }
        self.watch();
    }

    /// Notes what the invariants need to know.
    fn watch(&mut self) {
        match self.machine.state() {
            State::RollingBack { job, .. } => {
                self.failed.extend(job.goals().map(|goal| goal.tree));
            }
            State::Committed { job } => {
                for goal in job.goals() {
                    self.failed.remove(&goal.tree);
                }
            }
            _ => {}
        }
    }

    /// One round of the agent's loop.
    fn round(&mut self, end: End, cut: Cut) {
        if cut == Cut::BeforeSave {
            return self.kill();
        }
        self.save();
        if cut == Cut::BeforeEffect {
            return self.kill();
        }
        let event = self.perform(end);
        if cut == Cut::AfterEffect {
            return self.kill();
        }
        if let Some(event) = event {
            self.happen(event);
        }
    }

    fn perform(&mut self, end: End) -> Option<Event> {
        let because = || Failure::new(Reason::Device, "injected");
        let well = end == End::Well;
        Some(match self.machine.effect() {
            Effect::Rest => return None,
            Effect::Check { offer } => {
                let offer = offer.clone();
                let found = offer.targets().map(|target| Found {
                    target: target.to_owned(),
                    to: installed(target.split('/').nth(1).unwrap().parse().unwrap()),
                });
                let found = found.collect();
                if well {
                    Event::Checked { offer, found }
                } else {
                    Event::CheckFailed {
                        offer,
                        because: because(),
                    }
                }
            }
            Effect::Fetch(job) => {
                let to = job.to.tree;
                if !well {
                    return Some(Event::FetchFailed {
                        to,
                        because: because(),
                    });
                }
                self.fetched.extend(job.goals().map(|goal| goal.tree));
                Event::Fetched { to }
            }
            Effect::Stage(job) => {
                let to = job.to.tree;
                let mut goals = job.goals().map(|goal| goal.tree);
                if !well || !goals.all(|to| self.fetched.contains(&to) || self.slots.contains(&to))
                {
                    return Some(Event::StageFailed {
                        to,
                        because: because(),
                    });
                }
                self.staged.extend(job.goals().map(|goal| goal.tree));
                Event::Staged { to }
            }
            Effect::Verify(job) => {
                let to = job.to.tree;
                let mut goals = job.goals().map(|goal| goal.tree);
                if !well || !goals.all(|to| self.staged.contains(&to) || self.slots.contains(&to)) {
                    return Some(Event::Damaged {
                        to,
                        because: because(),
                    });
                }
                for goal in job.goals() {
                    self.staged.remove(&goal.tree);
                    self.slots.insert(goal.tree);
                }
                let migrates = job
                    .goals()
                    .any(|goal| goal.tree.0.as_bytes()[0].is_multiple_of(2));
                Event::Verified { to, migrates }
            }
            Effect::Prepare(job) => {
                let to = job.to.tree;
                match well {
                    true => Event::Prepared { to },
                    false => Event::PrepareFailed {
                        to,
                        because: because(),
                    },
                }
            }
            Effect::Snapshot(job) => {
                let to = job.to.tree;
                for name in job.names() {
                    let data = self.data.get(name).copied().unwrap_or(Data::None);
                    self.aside.insert(name.clone(), data);
                    if !well {
                        return Some(Event::SnapshotFailed {
                            to,
                            because: because(),
                        });
                    }
                }
                Event::Snapshotted { to }
            }
            Effect::Migrate { job, again } => {
                let to = job.to.tree;
                for part in job.each() {
                    let name = part.to.release.name.clone();
                    if again {
                        self.data.insert(name.clone(), self.aside[&name]);
                    }
                    let expected = part.from.map_or(Data::None, |from| Data::Of(from.tree));
                    assert_eq!(
                        self.data.get(&name).copied().unwrap_or(Data::None),
                        expected
                    );
                    if !well {
                        self.data.insert(name, Data::Torn);
                        return Some(Event::MigrateFailed {
                            to,
                            because: because(),
                        });
                    }
                    self.data.insert(name, Data::Of(part.to.tree));
                }
                Event::Migrated { to }
            }
            Effect::Switch(job) => {
                let to = job.to.tree;
                for goal in job.goals() {
                    self.links.insert(goal.release.name.clone(), goal.tree);
                    if !well {
                        return Some(Event::SwitchFailed {
                            to,
                            because: because(),
                        });
                    }
                }
                Event::Switched { to }
            }
            Effect::Prove { job, tries_left } => {
                let to = job.to.tree;
                *self.starts.entry((job.action.clone(), to)).or_default() += 1;
                match end {
                    End::Well => Event::Healthy { to },
                    End::Badly => Event::Died {
                        to,
                        tries_left,
                        because: because(),
                    },
                    End::Late => Event::NotReady {
                        to,
                        because: because(),
                    },
                }
            }
            Effect::Tidy(job) => {
                let current = job.to.tree;
                let needed = self.machine.needed();
                self.slots.retain(|slot| needed.contains(slot));
                self.fetched.clear();
                self.aside.clear();
                for goal in job.goals() {
                    // Without a migration the release finds its way with the data there is.
                    self.data
                        .insert(goal.release.name.clone(), Data::Of(goal.tree));
                }
                Event::Tidied { current }
            }
            Effect::RollBack(job) => {
                let from = job.to.tree;
                let job = job.clone();
                self.put_back(&job);
                Event::RolledBack { from }
            }
        })
    }

    fn put_back(&mut self, job: &Job) {
        for part in job.each().collect::<Vec<_>>().into_iter().rev() {
            let name = part.to.release.name;
            if let Some(aside) = self.aside.remove(&name).filter(|_| job.migrates) {
                self.data.insert(name.clone(), aside);
            }
            match part.from {
                Some(from) => self.links.insert(name, from.tree),
                None => self.links.remove(&name),
            };
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Offer { releases } => {
                let action: ActionId = (self.hub_said.len() + 1).to_string().parse().unwrap();
                self.hub_said.push(action.clone());
                self.happen(Event::Wanted {
                    action: Some(action),
                    offer: Offer {
                        also: releases[1..].iter().copied().map(target).collect(),
                        ..Offer::one(target(releases[0]))
                    },
                });
            }
            Action::Repeat => {
                if let Some(action) = self.hub_said.last().cloned() {
                    self.happen(Event::Wanted {
                        action: Some(action),
                        offer: Offer::one(target(1)),
                    });
                }
            }
            Action::Cancel => {
                if let Some(action) = self.hub_said.last().cloned() {
                    self.happen(Event::CancelWanted { action });
                }
            }
            Action::OperatorRollback => {
                let back = self.machine.way_back();
                let there = back.iter().all(|back| self.slots.contains(&back.tree));
                if there {
                    self.happen(Event::RollbackWanted);
                }
            }
            Action::Round { end, cut } => self.round(end, cut),
            Action::Deliver { lost } => {
                // The machine is saved before a report leaves, as before every effect.
                self.save();
                if let Some(report) = self.machine.outbox().first().cloned() {
                    self.hub_heard.push(report.clone());
                    if !lost {
                        self.happen(Event::Delivered { report });
                    }
                }
            }
            Action::Late { which } => {
                if !self.past.is_empty() {
                    let event = self.past[which % self.past.len()].clone();
                    self.happen(event);
                }
            }
            Action::Kill => self.kill(),
        }
    }
}

/// Whether `event` tells about work on `tree`.
fn speaks_of(event: &Event, tree: TreeId) -> bool {
    match event {
        Event::Fetched { to }
        | Event::FetchFailed { to, .. }
        | Event::Staged { to }
        | Event::StageFailed { to, .. }
        | Event::Verified { to, .. }
        | Event::Damaged { to, .. }
        | Event::Prepared { to }
        | Event::PrepareFailed { to, .. }
        | Event::Snapshotted { to }
        | Event::SnapshotFailed { to, .. }
        | Event::Migrated { to }
        | Event::MigrateFailed { to, .. }
        | Event::Switched { to }
        | Event::SwitchFailed { to, .. }
        | Event::Healthy { to }
        | Event::Died { to, .. }
        | Event::NotReady { to, .. } => *to == tree,
        Event::RolledBack { from } => *from == tree,
        Event::Tidied { current } => *current == tree,
        _ => false,
    }
}

/// `current` on disk leads to a slot, and only verified trees are slots.
fn invariant_current_is_a_complete_verified_tree(device: &Device) {
    for link in device.links.values() {
        assert!(
            device.slots.contains(link),
            "current leads to {link}, which is no slot"
        );
    }
    for live in device.machine.running() {
        assert!(
            device.slots.contains(&live.tree),
            "live is {}, which is no slot",
            live.release
        );
    }
}

/// A component that once ran a release always runs one.
fn invariant_a_device_with_a_release_never_loses_it(device: &Device) {
    for installed in device.machine.installed() {
        assert!(device.links.contains_key(&installed.release.name));
    }
}

/// At rest, every component runs its committed release, and none whose last probation failed; its
/// data is that release's.
fn invariant_a_failed_release_never_stays_current(device: &Device) {
    if matches!(device.machine.state(), State::Idle) {
        let committed: BTreeMap<Name, TreeId> = device
            .machine
            .installed()
            .map(|installed| (installed.release.name.clone(), installed.tree))
            .collect();
        assert_eq!(device.links, committed);
        for (name, link) in &device.links {
            assert!(
                !device.failed.contains(link),
                "{link} failed and is current"
            );
            assert_eq!(
                device.data.get(name),
                Some(&Data::Of(*link)),
                "the data of {name}"
            );
        }
    }
}

/// Every action that was saved as begun is worked on, waits to be told, or was told.
fn invariant_a_terminal_report_is_sent_at_least_once(device: &Device) {
    for action in &device.taken {
        let working = device.machine.state().action() == Some(action);
        let closes = |report: &Report| {
            report.action == *action && !matches!(report.outcome, Outcome::CancelRejected)
        };
        let told = device.hub_heard.iter().any(closes);
        let waits = device.machine.outbox().iter().any(closes);
        assert!(working || told || waits, "action {action} is forgotten");
    }
}

/// A release that never proves itself is started a bounded number of times.
fn invariant_a_release_is_not_tried_for_ever(device: &Device) {
    for ((action, tree), starts) in &device.starts {
        if action.is_some() {
            assert!(
                *starts <= 3,
                "{tree} was started {starts} times by action {action:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_loses_the_device(script in actions()) {
        let mut device = Device::default();
        device.save();
        for action in script {
            device.act(action);
            invariant_current_is_a_complete_verified_tree(&device);
            invariant_a_device_with_a_release_never_loses_it(&device);
            invariant_a_failed_release_never_stays_current(&device);
            invariant_a_terminal_report_is_sent_at_least_once(&device);
            invariant_a_release_is_not_tried_for_ever(&device);
        }
        // Left alone, every update comes to its end.
        for _ in 0..30 {
            device.round(End::Well, Cut::Never);
        }
        prop_assert_eq!(device.machine.state().name(), "idle");
    }
}
