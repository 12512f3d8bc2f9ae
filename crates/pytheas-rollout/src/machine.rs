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

use crate::{
    Effect, Event, GroupStatus, Member, Plan, PlanError, Progress, Reason, RestoreError, Standing,
    State, Tally,
};

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
            waived: 0,
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
                    // With the groups behind that have nobody left, or it would pause again at once.
                    let behind = &self.tallies[self.progress.opened..];
                    let empty = behind.iter().take_while(|tally| tally.is_done()).count();
                    self.progress.waived = self.progress.opened + empty;
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
                let short = u64::from(tally.succeeded) * 100
                    < u64::from(needed_percent) * u64::from(counted);
                // A group whose devices were all taken out (removed, or taken over by a newer
                // rollout) has proved nothing: only a person may go on from there.
                let unproved = needed_percent > 0
                    && tally.total > 0
                    && tally.succeeded == 0
                    && group >= self.progress.waived;
                if short || unproved {
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
mod tests;
