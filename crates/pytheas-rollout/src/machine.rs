//! The machine: what each event does to a rollout.
//!
//! ```text
//! Begin ─▶ Running ──(more failures than allowed, a group fell short, Pause)──▶ Paused
//!             │  ◀──────────────────── Resume: failures so far are accepted ──────┘
//!             ├──(every device of every group ended)──▶ Finished
//!             └──Abort (also from Paused)─────────────▶ Aborted
//! member: Waiting ─▶ Active ─▶ Succeeded | Failed | Cancelled      (each at most once)
//! ```
//! Invariants: only members of opened groups are ever active; a paused rollout starts nothing;
//! a member that ended stays as it ended; finished and aborted rollouts never change again; an
//! event that comes late, doubled or for a stranger changes nothing and has no effects.

use std::{collections::BTreeMap, fmt::Display, ops::Range};

use serde::{Deserialize, Serialize};

use crate::{Plan, PlanError, Reason};

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Made, not begun.
    Created,
    /// Devices of the opened groups update.
    Running,
    /// Nothing new starts; what was begun goes on.
    Paused {
        /// Why.
        because: Reason,
    },
    /// Every device ended.
    Finished,
    /// Taken back.
    Aborted {
        /// Why.
        because: Reason,
    },
}

impl State {
    /// Whether nothing follows it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished | Self::Aborted { .. })
    }

    /// Why it does not go on, for people.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Paused { because } | Self::Aborted { because } => Some(because.to_string()),
            Self::Created | Self::Running | Self::Finished => None,
        }
    }
}

/// Where one device of a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum Standing {
    /// Its group is not open.
    Waiting,
    /// It was told.
    Active {
        /// When it was told, or last reported on it.
        heard_ms: u64,
    },
    /// It runs the release.
    Succeeded,
    /// It does not.
    Failed,
    /// It was taken out.
    Cancelled,
}

impl Standing {
    /// Whether nothing follows it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// One device of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<D> {
    /// Which.
    pub device: D,
    /// Where it stands.
    pub standing: Standing,
}

/// What happens to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<D> {
    /// It starts.
    Begin,
    /// A device reported on its action, and goes on.
    Heard {
        /// Which.
        device: D,
    },
    /// A device runs the release.
    Succeeded {
        /// Which.
        device: D,
    },
    /// A device does not, and said why.
    Failed {
        /// Which.
        device: D,
        /// Why.
        error: String,
    },
    /// A device was taken out: removed, or a newer rollout has it.
    Cancelled {
        /// Which.
        device: D,
    },
    /// Time passed.
    Tick,
    /// A person pauses it.
    Pause {
        /// Who.
        by: String,
    },
    /// A person lets it go on, accepting the failures so far.
    Resume,
    /// A person takes it back.
    Abort {
        /// Who.
        by: String,
    },
}

/// What is to be done; each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<D> {
    /// A group opened.
    Opened {
        /// Counted from 0.
        group: usize,
    },
    /// Assign the release to this device.
    Start {
        /// Which.
        device: D,
    },
    /// Write down how this device ended.
    Ended {
        /// Which.
        device: D,
        /// How.
        standing: Standing,
    },
    /// Close this device's action as failed: it was silent for too long.
    GiveUp {
        /// Which.
        device: D,
        /// For so long.
        silent_ms: u64,
    },
    /// Take this device's action back.
    Withdraw {
        /// Which.
        device: D,
    },
    /// The rollout's state is another: tell it.
    StateChanged,
}

/// Where the rollout as a whole stands; with the plan and the members all there is to restore it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// So many groups are open, from the first.
    pub opened: usize,
    /// Failures that a person accepted by resuming, by group.
    pub accepted: Vec<u32>,
}

/// Counts of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Devices in it.
    pub total: u32,
    /// Not started.
    pub waiting: u32,
    /// Started, not ended.
    pub active: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Ended badly.
    pub failed: u32,
    /// Taken out.
    pub cancelled: u32,
}

impl Tally {
    fn slot(&mut self, standing: &Standing) -> &mut u32 {
        match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Active { .. } => &mut self.active,
            Standing::Succeeded => &mut self.succeeded,
            Standing::Failed => &mut self.failed,
            Standing::Cancelled => &mut self.cancelled,
        }
    }

    /// Whether every device in it ended.
    pub fn is_done(&self) -> bool {
        self.waiting == 0 && self.active == 0
    }
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupStatus {
    /// An earlier group has to succeed first.
    Waiting,
    /// Its devices update.
    Open,
    /// All its devices ended.
    Done,
}

/// What was written down does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The plan is not one.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Counts differ.
    #[error(
        "a rollout of {groups} groups was stored with {opened} open and {accepted} accepted counts"
    )]
    Groups {
        /// Groups of the plan.
        groups: usize,
        /// Groups stored as open.
        opened: usize,
        /// Accepted counts stored.
        accepted: usize,
    },
    /// A member of a closed group is active.
    #[error("a device of group {group} is active, but the group is not open")]
    ActiveTooEarly {
        /// Counted from 0.
        group: usize,
    },
}

/// One release on its way to many devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout<D> {
    plan: Plan,
    progress: Progress,
    members: Vec<Member<D>>,
    index: BTreeMap<D, usize>,
    ranges: Vec<Range<usize>>,
    tallies: Vec<Tally>,
}

impl<D: Ord + Clone + Display> Rollout<D> {
    /// A rollout of `plan` to `devices`, in their order; those behind the last group are left out.
    ///
    /// # Errors
    /// [`PlanError`] without devices, or with one of them twice.
    pub fn new(plan: Plan, devices: impl IntoIterator<Item = D>) -> Result<Self, PlanError> {
        let mut members: Vec<_> = devices
            .into_iter()
            .map(|device| Member {
                device,
                standing: Standing::Waiting,
            })
            .collect();
        if members.is_empty() {
            return Err(PlanError::NoDevices);
        }
        let reached = plan
            .divide(members.len())
            .last()
            .map_or(0, |range| range.end);
        let ranges = plan.divide(members.len());
        members.truncate(reached);
        let progress = Progress {
            state: State::Created,
            opened: 0,
            accepted: vec![0; ranges.len()],
        };
        Self::assemble(plan, progress, members, ranges)
    }

    /// The rollout that was written down. `groups` tells each group's members.
    ///
    /// # Errors
    /// [`RestoreError`] when the parts do not fit together.
    pub fn restore(
        plan: Plan,
        progress: Progress,
        members: Vec<Member<D>>,
        ranges: Vec<Range<usize>>,
    ) -> Result<Self, RestoreError> {
        let groups = plan.groups().len();
        if ranges.len() != groups
            || progress.opened > groups
            || progress.accepted.len() != groups
            || ranges
                .last()
                .is_some_and(|range| range.end != members.len())
        {
            return Err(RestoreError::Groups {
                groups,
                opened: progress.opened,
                accepted: progress.accepted.len(),
            });
        }
        let rollout = Self::assemble(plan, progress, members, ranges)?;
        for (group, tally) in rollout
            .tallies
            .iter()
            .enumerate()
            .skip(rollout.progress.opened)
        {
            if tally.active > 0 {
                return Err(RestoreError::ActiveTooEarly { group });
            }
        }
        Ok(rollout)
    }

    fn assemble(
        plan: Plan,
        progress: Progress,
        members: Vec<Member<D>>,
        ranges: Vec<Range<usize>>,
    ) -> Result<Self, PlanError> {
        let mut index = BTreeMap::new();
        for (position, member) in members.iter().enumerate() {
            if index.insert(member.device.clone(), position).is_some() {
                return Err(PlanError::Twice {
                    device: member.device.to_string(),
                });
            }
        }
        let mut tallies = vec![Tally::default(); ranges.len()];
        for (tally, range) in tallies.iter_mut().zip(&ranges) {
            for member in &members[range.clone()] {
                tally.total += 1;
                *tally.slot(&member.standing) += 1;
            }
        }
        Ok(Self {
            plan,
            progress,
            members,
            index,
            ranges,
            tallies,
        })
    }

    /// What was asked for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Its devices, in the order of the groups.
    pub fn members(&self) -> &[Member<D>] {
        &self.members
    }

    /// Which members each group has.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Counts of each group.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// Where a group stands.
    pub fn group_status(&self, group: usize) -> GroupStatus {
        match self.tallies.get(group) {
            Some(tally) if tally.is_done() => GroupStatus::Done,
            Some(_) if group < self.progress.opened => GroupStatus::Open,
            _ => GroupStatus::Waiting,
        }
    }

    /// The group of a device, counted from 0.
    pub fn group_of(&self, device: &D) -> Option<usize> {
        let position = *self.index.get(device)?;
        self.ranges
            .iter()
            .position(|range| range.contains(&position))
    }

    /// The rollout after `event`, which came at `now_ms`, and what is to be done.
    pub fn step(mut self, event: Event<D>, now_ms: u64) -> (Self, Vec<Effect<D>>) {
        let mut effects = Vec::new();
        if !self.progress.state.is_final() {
            self.take(event, now_ms, &mut effects);
        }
        (self, effects)
    }

    fn take(&mut self, event: Event<D>, now_ms: u64, effects: &mut Vec<Effect<D>>) {
        match event {
            Event::Begin => {
                if self.progress.state == State::Created {
                    self.become_(State::Running, effects);
                    effects.clear(); // whoever begins it tells so
                    self.proceed(now_ms, effects);
                }
            }
            Event::Heard { device } => {
                if let Some(&at) = self.index.get(&device)
                    && let Standing::Active { heard_ms } = &mut self.members[at].standing
                {
                    *heard_ms = (*heard_ms).max(now_ms);
                }
            }
            Event::Succeeded { device } => {
                if let Some(at) = self.active(&device) {
                    self.end(at, Standing::Succeeded, effects);
                    self.proceed(now_ms, effects);
                }
            }
            Event::Failed { device, error } => {
                if let Some(at) = self.active(&device) {
                    self.fail(at, &error, effects);
                    self.proceed(now_ms, effects);
                }
            }
            Event::Cancelled { device } => {
                if let Some(&at) = self.index.get(&device)
                    && !self.members[at].standing.is_final()
                {
                    self.end(at, Standing::Cancelled, effects);
                    self.proceed(now_ms, effects);
                }
            }
            Event::Tick => {
                let open = self.ranges.get(self.progress.opened.wrapping_sub(1));
                for at in 0..open.map_or(0, |range| range.end) {
                    let Standing::Active { heard_ms } = self.members[at].standing else {
                        continue;
                    };
                    let silent_ms = now_ms.saturating_sub(heard_ms);
                    if silent_ms >= self.plan.gates().silence_ms {
                        let device = self.members[at].device.clone();
                        effects.push(Effect::GiveUp { device, silent_ms });
                        self.fail(at, &format!("silent for {}", duration(silent_ms)), effects);
                    }
                }
                self.proceed(now_ms, effects);
            }
            Event::Pause { by } => {
                if self.progress.state == State::Running {
                    self.become_(
                        State::Paused {
                            because: Reason::Person { by },
                        },
                        effects,
                    );
                }
            }
            Event::Resume => {
                if matches!(self.progress.state, State::Paused { .. }) {
                    for (accepted, tally) in self.progress.accepted.iter_mut().zip(&self.tallies) {
                        *accepted = tally.failed;
                    }
                    self.become_(State::Running, effects);
                    self.proceed(now_ms, effects);
                }
            }
            Event::Abort { by } => {
                for at in 0..self.members.len() {
                    if matches!(self.members[at].standing, Standing::Active { .. }) {
                        let device = self.members[at].device.clone();
                        effects.push(Effect::Withdraw { device });
                    }
                    if !self.members[at].standing.is_final() {
                        self.end(at, Standing::Cancelled, effects);
                    }
                }
                self.become_(
                    State::Aborted {
                        because: Reason::Person { by },
                    },
                    effects,
                );
            }
        }
    }

    fn active(&self, device: &D) -> Option<usize> {
        let at = *self.index.get(device)?;
        matches!(self.members[at].standing, Standing::Active { .. }).then_some(at)
    }

    fn group_at(&self, at: usize) -> usize {
        self.ranges.partition_point(|range| range.end <= at)
    }

    fn become_(&mut self, state: State, effects: &mut Vec<Effect<D>>) {
        self.progress.state = state;
        effects.push(Effect::StateChanged);
    }

    fn move_to(&mut self, at: usize, standing: Standing) {
        let group = self.group_at(at);
        let member = &mut self.members[at];
        *self.tallies[group].slot(&member.standing) -= 1;
        *self.tallies[group].slot(&standing) += 1;
        member.standing = standing;
    }

    fn end(&mut self, at: usize, standing: Standing, effects: &mut Vec<Effect<D>>) {
        let device = self.members[at].device.clone();
        effects.push(Effect::Ended {
            device,
            standing: standing.clone(),
        });
        self.move_to(at, standing);
    }

    /// The error gate: a failure while running pauses, when it is one too many.
    fn fail(&mut self, at: usize, error: &str, effects: &mut Vec<Effect<D>>) {
        self.end(at, Standing::Failed, effects);
        let group = self.group_at(at);
        let tally = self.tallies[group];
        let failed = tally.failed.saturating_sub(self.progress.accepted[group]);
        let allowed_percent = self.plan.gates().error_percent;
        if self.progress.state == State::Running
            && u64::from(failed) * 100 > u64::from(allowed_percent) * u64::from(tally.total)
        {
            let because = Reason::Failures {
                group,
                device: self.members[at].device.to_string(),
                error: error.to_owned(),
                failed,
                total: tally.total,
                allowed_percent,
            };
            self.become_(State::Paused { because }, effects);
        }
    }

    /// The success gate: opens groups for as long as the newest one has succeeded.
    fn proceed(&mut self, now_ms: u64, effects: &mut Vec<Effect<D>>) {
        while self.progress.state == State::Running {
            let groups = self.ranges.len();
            if let Some(group) = self.progress.opened.checked_sub(1) {
                let tally = self.tallies[group];
                if self.progress.opened == groups {
                    if self.tallies.iter().all(Tally::is_done) {
                        self.become_(State::Finished, effects);
                    }
                    return;
                }
                // Failures that a person accepted, and devices taken out, count neither way.
                let counted = tally.total - tally.cancelled - self.progress.accepted[group];
                let needed_percent = self.plan.gates().success_percent;
                if u64::from(tally.succeeded) * 100 < u64::from(needed_percent) * u64::from(counted)
                {
                    if tally.is_done() {
                        let because = Reason::FellShort {
                            group,
                            succeeded: tally.succeeded,
                            total: tally.total,
                            needed_percent,
                        };
                        self.become_(State::Paused { because }, effects);
                    }
                    return;
                }
            }
            let group = self.progress.opened;
            self.progress.opened += 1;
            effects.push(Effect::Opened { group });
            for at in self.ranges[group].clone() {
                if self.members[at].standing == Standing::Waiting {
                    self.move_to(at, Standing::Active { heard_ms: now_ms });
                    effects.push(Effect::Start {
                        device: self.members[at].device.clone(),
                    });
                }
            }
        }
    }
}

/// `90 s`, `15 min`, `24 h`: for sentences.
fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
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
        insta::assert_snapshot!(stored, @r#"{"state":"paused","because":{"kind":"failures","group":0,"device":"a","error":"boom","failed":1,"total":1,"allowed_percent":0},"opened":1,"accepted":[0,0]}"#);
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
}
