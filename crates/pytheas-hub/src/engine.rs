//! Carries out what the rollout machine decides: one transaction per event, actions and progress
//! in it, the events published once it is committed.
//!
//! All changes of actions go through here, one at a time. Machines of open rollouts are kept in
//! memory; a change takes them out and puts them back only when its transaction was committed, so
//! after a failure they are read from the database again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use pytheas_api::{
    ActionStatus, DeviceId, EventKind,
    ddi::{Execution, Feedback, Finished, Progress as Step},
};
use pytheas_rollout::{Effect, Event, Rollout, Standing};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    Clock,
    bus::Bus,
    clock::unsigned,
    secret::{self, Hash},
    store::{
        self, Store, Tx,
        actions::{self, Action},
        audit, devices, rollouts,
    },
};

/// Reports per action; a device that says more is told to stop (hawkBit's limit).
const ENTRIES_MAX: i64 = 1000;
/// Lines kept of one report, and characters of one line.
const LINES_MAX: usize = 200;
const LINE_CHARS_MAX: usize = 2000;

type Machines = HashMap<i64, Rollout<DeviceId>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    store: Store,
    bus: Arc<Bus>,
    clock: Clock,
    machines: Mutex<Machines>,
}

/// Which resource a device reports on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// `deploymentBase`.
    Deployment,
    /// `cancelAction`.
    Cancel,
}

/// A report that was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// No such action of this device.
    #[error("no such action")]
    Unknown,
    /// The action is closed.
    #[error("the action is closed")]
    Closed,
    /// A report on a cancellation that nobody asked for.
    #[error("the action is not being cancelled")]
    NotCancelling,
    /// Too many reports.
    #[error("the action has {ENTRIES_MAX} reports already")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// A new rollout, ready to begin.
#[derive(Debug)]
pub(crate) struct NewRollout {
    /// `greenhouse@1.1.0`.
    pub(crate) release: String,
    /// Whether it is an uploaded artifact.
    pub(crate) is_artifact: bool,
    /// The machine, not begun.
    pub(crate) machine: Rollout<DeviceId>,
    /// What each device gets.
    pub(crate) modules: std::collections::BTreeMap<DeviceId, i64>,
}

/// What a person does with a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Nothing new starts.
    Pause,
    /// Go on, accepting the failures so far.
    Resume,
    /// Take it back.
    Abort,
}

impl Command {
    fn word(self) -> &'static str {
        match self {
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Abort => "rollout.abort",
        }
    }
}

impl Engine {
    pub(crate) fn new(store: Store, bus: Arc<Bus>, clock: Clock) -> Self {
        Self { store, bus, clock, machines: Mutex::new(HashMap::new()) }
    }

    async fn begin(&self) -> store::Result<Change<'_>> {
        let machines = self.machines.lock().await;
        let tx = self.store.begin().await?;
        Ok(Change {
            tx,
            bus: &self.bus,
            machines,
            taken: HashMap::new(),
            events: Vec::new(),
            now_ms: self.clock.now_ms(),
        })
    }

    /// Starts a rollout.
    pub(crate) async fn start(&self, new: NewRollout, actor: &str) -> store::Result<i64> {
        let mut change = self.begin().await?;
        let NewRollout { release, is_artifact, machine, modules } = new;
        let now_ms = change.now_ms;
        let db = &mut *change.tx;
        let id =
            rollouts::add(db, &release, is_artifact, actor, &machine, &modules, now_ms).await?;
        let detail = format!("{release} to {} devices", machine.members().len());
        audit::note(db, now_ms, actor, "rollout.start", &id.to_string(), &detail).await?;
        change.taken.insert(id, machine);
        change.feed(id, Event::Begin).await?;
        change.tell_rollout(id);
        change.commit().await?;
        Ok(id)
    }

    /// A person pauses, resumes or aborts; false when there is no such rollout.
    pub(crate) async fn command(
        &self,
        id: i64,
        command: Command,
        actor: &str,
    ) -> store::Result<bool> {
        let mut change = self.begin().await?;
        if !change.take(id).await? {
            return Ok(false);
        }
        let by = actor.to_owned();
        let event = match command {
            Command::Pause => Event::Pause { by },
            Command::Resume => Event::Resume,
            Command::Abort => Event::Abort { by },
        };
        let now_ms = change.now_ms;
        audit::note(&mut change.tx, now_ms, actor, command.word(), &id.to_string(), "").await?;
        change.feed(id, event).await?;
        change.commit().await?;
        Ok(true)
    }

    /// Time passed: silent devices are given up.
    pub(crate) async fn tick(&self) -> store::Result<()> {
        let mut change = self.begin().await?;
        for id in rollouts::open(&mut change.tx).await? {
            change.feed(id, Event::Tick).await?;
        }
        change.commit().await
    }

    /// A device has read its assignment for the first time.
    pub(crate) async fn retrieved(&self, action: &Action) -> store::Result<()> {
        let lines = ["the device has read its assignment".to_owned()];
        self.moved(action, ActionStatus::Retrieved, &lines).await
    }

    /// A device fetches a whole artifact.
    pub(crate) async fn downloading(&self, action: &Action, file: &str) -> store::Result<()> {
        let lines = [format!("the device fetches `{file}`")];
        self.moved(action, ActionStatus::Downloading, &lines).await
    }

    async fn moved(
        &self,
        action: &Action,
        status: ActionStatus,
        lines: &[String],
    ) -> store::Result<()> {
        let mut change = self.begin().await?;
        // Read again: between the caller's look and this transaction it may have moved on.
        let Some(action) = actions::of_device(&mut *change.tx, &action.device, action.id).await?
        else {
            return Ok(());
        };
        if !matches!(action.status, ActionStatus::Pending | ActionStatus::Retrieved)
            || action.status == status
        {
            return Ok(());
        }
        change.note(&action, status, lines, None).await?;
        change.feed(action.rollout, Event::Heard { device: action.device }).await?;
        change.commit().await
    }

    /// A device reports.
    pub(crate) async fn report(
        &self,
        device: &DeviceId,
        id: i64,
        base: Base,
        feedback: &Feedback,
    ) -> Result<(), ReportError> {
        let mut change = self.begin().await?;
        let action = actions::of_device(&mut *change.tx, device, id)
            .await?
            .ok_or(ReportError::Unknown)?;
        let digest = digest(base, feedback);
        if action.status.is_closed() {
            // A closing report whose answer was lost comes again, word for word.
            let repeated = action.closing_digest == Some(digest);
            return if repeated { Ok(()) } else { Err(ReportError::Closed) };
        }
        if base == Base::Cancel && action.status != ActionStatus::Cancelling {
            return Err(ReportError::NotCancelling);
        }
        if action.entries >= ENTRIES_MAX && !feedback.is_closing() {
            return Err(ReportError::TooMany);
        }
        let status = match base {
            Base::Deployment => after_deployment_report(action.status, feedback),
            Base::Cancel => after_cancel_report(feedback),
        };
        let lines = lines(feedback, status);
        change.note(&action, status, &lines, status.is_closed().then_some(digest)).await?;
        let device = device.clone();
        if status == ActionStatus::Succeeded {
            devices::want_config(&mut change.tx, &device, true).await?;
        }
        let event = match status {
            ActionStatus::Succeeded => Event::Succeeded { device },
            ActionStatus::Failed => Event::Failed {
                device,
                error: lines.first().cloned().unwrap_or_default(),
            },
            ActionStatus::Cancelled => Event::Cancelled { device },
            _ => Event::Heard { device },
        };
        change.feed(action.rollout, event).await?;
        change.commit().await?;
        Ok(())
    }

    /// Removes a device; its rollouts go on without it. False when there is none.
    pub(crate) async fn remove_device(
        &self,
        device: &DeviceId,
        actor: &str,
    ) -> store::Result<bool> {
        let mut change = self.begin().await?;
        let now_ms = change.now_ms;
        for id in rollouts::older_with(&mut change.tx, device, i64::MAX).await? {
            change.feed(id, Event::Cancelled { device: device.clone() }).await?;
        }
        if !devices::remove(&mut change.tx, device).await? {
            return Ok(false);
        }
        audit::note(&mut change.tx, now_ms, actor, "device.remove", device.as_str(), "").await?;
        change.events.push(EventKind::DeviceRemoved { device: device.clone() });
        change.commit().await?;
        Ok(true)
    }
}

/// One transaction, the machines it touches, and what is told when it is committed.
struct Change<'a> {
    tx: Tx,
    bus: &'a Bus,
    machines: MutexGuard<'a, Machines>,
    taken: Machines,
    events: Vec<EventKind>,
    now_ms: i64,
}

impl Change<'_> {
    /// Makes sure that the machine is at hand; false when there is no such rollout.
    async fn take(&mut self, id: i64) -> store::Result<bool> {
        if !self.taken.contains_key(&id) {
            let machine = match self.machines.remove(&id) {
                Some(machine) => Some(machine),
                None => rollouts::load(&mut self.tx, id).await?,
            };
            let Some(machine) = machine else { return Ok(false) };
            self.taken.insert(id, machine);
        }
        Ok(true)
    }

    /// Feeds one event to one machine, and what follows from it to others.
    async fn feed(&mut self, rollout: i64, event: Event<DeviceId>) -> store::Result<()> {
        let mut queue = VecDeque::from([(rollout, event)]);
        while let Some((id, event)) = queue.pop_front() {
            if !self.take(id).await? {
                continue;
            }
            let Some(machine) = self.taken.remove(&id) else { continue };
            let before = machine.progress().clone();
            let (machine, effects) = machine.step(event, unsigned(self.now_ms));
            let changed = *machine.progress() != before;
            if changed {
                rollouts::save(&mut self.tx, id, machine.progress(), self.now_ms).await?;
            }
            self.taken.insert(id, machine);
            for effect in effects {
                self.perform(id, effect, &mut queue).await?;
            }
        }
        Ok(())
    }

    async fn perform(
        &mut self,
        id: i64,
        effect: Effect<DeviceId>,
        queue: &mut VecDeque<(i64, Event<DeviceId>)>,
    ) -> store::Result<()> {
        match effect {
            Effect::Opened { group } => {
                tracing::info!(rollout.id = id, group, "rollout {id} opened group {}", group + 1);
            }
            Effect::StateChanged => self.tell_rollout(id),
            Effect::Ended { device, standing } => {
                rollouts::save_member(&mut self.tx, id, &device, &standing).await?;
            }
            Effect::Start { device } => self.assign(id, device, queue).await?,
            Effect::Withdraw { device } => {
                if let Some(action) = actions::of_rollout(&mut *self.tx, id, &device).await? {
                    self.withdraw(&action, "the rollout was aborted").await?;
                }
            }
            Effect::GiveUp { device, silent_ms } => {
                let action = actions::of_rollout(&mut *self.tx, id, &device).await?;
                if let Some(action) = action.filter(|action| !action.status.is_closed()) {
                    let seconds = silent_ms / 1000;
                    let line = format!("given up: the device reported nothing for {seconds} s");
                    self.note(&action, ActionStatus::Failed, &[line], None).await?;
                }
            }
        }
        Ok(())
    }

    /// Assigns the rollout's module; what the device had open before is taken back.
    async fn assign(
        &mut self,
        id: i64,
        device: DeviceId,
        queue: &mut VecDeque<(i64, Event<DeviceId>)>,
    ) -> store::Result<()> {
        if devices::credentials(&mut *self.tx, &device).await?.is_none() {
            queue.push_back((id, Event::Cancelled { device })); // it was removed meanwhile
            return Ok(());
        }
        for action in actions::open(&mut *self.tx, &device).await? {
            self.withdraw(&action, &format!("replaced by rollout {id}")).await?;
        }
        for older in rollouts::older_with(&mut self.tx, &device, id).await? {
            queue.push_back((older, Event::Cancelled { device: device.clone() }));
        }
        let module = rollouts::module_of(&mut self.tx, id, &device).await?;
        let action = actions::add(&mut self.tx, &device, id, module, self.now_ms).await?;
        let standing = Standing::Active { heard_ms: unsigned(self.now_ms) };
        rollouts::save_member(&mut self.tx, id, &device, &standing).await?;
        self.events.push(EventKind::ActionChanged {
            device,
            action,
            rollout: id,
            status: ActionStatus::Pending,
            message: None,
        });
        Ok(())
    }

    /// Takes an action back: closed at once when the device never saw it.
    async fn withdraw(&mut self, action: &Action, why: &str) -> store::Result<()> {
        let status = match action.status {
            ActionStatus::Pending => ActionStatus::Cancelled,
            ActionStatus::Cancelling => return Ok(()),
            status if status.is_closed() => return Ok(()),
            _ => ActionStatus::Cancelling,
        };
        self.note(action, status, &[why.to_owned()], None).await
    }

    async fn note(
        &mut self,
        action: &Action,
        status: ActionStatus,
        lines: &[String],
        digest: Option<Hash>,
    ) -> store::Result<()> {
        actions::report(&mut self.tx, action.id, status, lines, digest, self.now_ms).await?;
        self.events.push(EventKind::ActionChanged {
            device: action.device.clone(),
            action: action.id,
            rollout: action.rollout,
            status,
            message: lines.first().cloned(),
        });
        Ok(())
    }

    fn tell_rollout(&mut self, id: i64) {
        if let Some(machine) = self.taken.get(&id) {
            let state = &machine.progress().state;
            self.events.push(EventKind::RolloutChanged {
                rollout: id,
                state: rollouts::wire_state(state),
                reason: state.reason(),
            });
        }
    }

    async fn commit(mut self) -> store::Result<()> {
        self.tx.commit().await?;
        for (id, machine) in self.taken {
            if !machine.progress().state.is_final() {
                self.machines.insert(id, machine);
            }
        }
        for event in self.events {
            self.bus.publish(event);
        }
        Ok(())
    }
}

/// What a report means apart from its time: a repeat may carry a new one.
fn digest(base: Base, feedback: &Feedback) -> Hash {
    let status = serde_json::to_string(&feedback.status).unwrap_or_default();
    secret::hash(&format!("{base:?} {status}"))
}

fn after_deployment_report(status: ActionStatus, feedback: &Feedback) -> ActionStatus {
    use ActionStatus as S;
    match (feedback.status.execution, feedback.status.result.finished) {
        (Execution::Closed, Finished::Failure) => S::Failed,
        (Execution::Closed, Finished::Success | Finished::None) => S::Succeeded,
        // While it is taken back, only its end counts.
        _ if status == S::Cancelling => S::Cancelling,
        (Execution::Download | Execution::Downloaded, _) => S::Downloading,
        (Execution::Proceeding, _) => match feedback.status.code.and_then(Step::from_code) {
            Some(Step::Downloading) => S::Downloading,
            Some(Step::Probation) => S::Probation,
            Some(Step::Staged | Step::Switched) | None => S::Installing,
        },
        (Execution::Scheduled | Execution::Resumed | Execution::Rejected | Execution::Canceled, _) => {
            if status == S::Pending { S::Retrieved } else { status }
        }
    }
}

fn after_cancel_report(feedback: &Feedback) -> ActionStatus {
    match (feedback.status.execution, feedback.status.result.finished) {
        (Execution::Closed, Finished::Success | Finished::None) => ActionStatus::Cancelled,
        // The device refuses: it is past the point, and goes on.
        (Execution::Closed, Finished::Failure) | (Execution::Rejected, _) => {
            ActionStatus::Installing
        }
        _ => ActionStatus::Cancelling,
    }
}

/// The report's lines, bounded; never empty, the first one short enough for a table.
fn lines(feedback: &Feedback, status: ActionStatus) -> Vec<String> {
    let mut lines: Vec<String> = feedback
        .status
        .details
        .iter()
        .take(LINES_MAX)
        .map(|line| line.chars().filter(|c| !c.is_control() || *c == '\t').take(LINE_CHARS_MAX).collect())
        .collect();
    if lines.iter().all(String::is_empty) {
        lines = vec![match status {
            ActionStatus::Failed => "the device gave no reason".to_owned(),
            status => status.as_str().to_owned(),
        }];
    }
    if let Some(steps) = feedback.status.result.progress.filter(|steps| steps.of > 0) {
        lines[0].push_str(&format!(" ({} of {})", steps.cnt, steps.of));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: ActionStatus, execution: Execution, finished: Finished) -> ActionStatus {
        after_deployment_report(status, &Feedback::new(execution, finished))
    }

    #[test]
    fn reports_move_an_action_as_ddi_says() {
        use ActionStatus as S;
        let open = S::Retrieved;
        assert_eq!(after(open, Execution::Closed, Finished::Success), S::Succeeded);
        assert_eq!(after(open, Execution::Closed, Finished::None), S::Succeeded);
        assert_eq!(after(open, Execution::Closed, Finished::Failure), S::Failed);
        assert_eq!(after(open, Execution::Proceeding, Finished::None), S::Installing);
        assert_eq!(after(open, Execution::Downloaded, Finished::None), S::Downloading);
        assert_eq!(after(open, Execution::Rejected, Finished::None), S::Retrieved);
        assert_eq!(after(open, Execution::Canceled, Finished::None), S::Retrieved);
        assert_eq!(after(S::Cancelling, Execution::Proceeding, Finished::None), S::Cancelling);
        assert_eq!(after(S::Cancelling, Execution::Closed, Finished::Success), S::Succeeded);
        let probation = Feedback::proceeding(Step::Probation);
        assert_eq!(after_deployment_report(open, &probation), S::Probation);
    }

    #[test]
    fn lines_are_bounded_and_say_something() {
        let silent = Feedback::new(Execution::Closed, Finished::Failure);
        assert_eq!(lines(&silent, ActionStatus::Failed), ["the device gave no reason"]);
        let long = silent.clone().details((0..500).map(|_| "x\u{7}".repeat(5000)));
        let kept = lines(&long, ActionStatus::Failed);
        assert_eq!((kept.len(), kept[0].len()), (LINES_MAX, LINE_CHARS_MAX));
        assert!(!kept[0].contains('\u{7}'));
    }
}
