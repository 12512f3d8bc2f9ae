//! Carries out what the rollout machine decides: one transaction per event, actions and progress
//! in it, the events published once it is committed.
//!
//! All changes of actions go through here, one at a time. Machines of open rollouts are kept in
//! memory; a change takes them out and puts them back only when its transaction was committed, so
//! after a failure they are read from the database again.

use std::{collections::HashMap, sync::Arc};

use pytheas_api::{ActionStatus, DeviceId, EventKind, RolloutState, ddi::Feedback};
use pytheas_rollout::{Event, Rollout, State};
use tokio::sync::Mutex;

use crate::{
    Clock,
    bus::Bus,
    store::{
        self, Store,
        actions::{self, Action},
        audit, devices, fleet_config, rollouts,
    },
};
use change::{Change, Machines};
use meaning::{after_cancel_report, after_deployment_report, digest, lines};

mod change;
mod confirm;
mod meaning;

/// Reports per action; a device that says more is told to stop (hawkBit's limit).
const ENTRIES_MAX: i64 = 1000;

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
    /// What devices that get a module get with it.
    pub(crate) also: std::collections::BTreeMap<i64, Vec<i64>>,
    /// Whether it may be older than what runs.
    pub(crate) allow_downgrade: bool,
    /// Whether somebody at each device has to agree first.
    pub(crate) confirm: bool,
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

/// What became of a [`Command`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was carried out, or was so already.
    Done,
    /// There is no such rollout.
    Unknown,
    /// The rollout has ended like this, and never changes again.
    Over(RolloutState),
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
        Self {
            store,
            bus,
            clock,
            machines: Mutex::new(HashMap::new()),
        }
    }

    async fn begin(&self) -> store::Result<Change<'_>> {
        Change::begin(&self.store, &self.bus, &self.machines, self.clock.now_ms()).await
    }

    /// Starts a rollout.
    pub(crate) async fn start(&self, new: NewRollout, actor: &str) -> store::Result<i64> {
        let mut change = self.begin().await?;
        let NewRollout {
            release,
            is_artifact,
            machine,
            modules,
            also,
            allow_downgrade,
            confirm,
        } = new;
        let now_ms = change.now_ms;
        let db = &mut *change.tx;
        let id =
            rollouts::add(db, &release, is_artifact, actor, &machine, &modules, now_ms).await?;
        rollouts::add_options(db, id, allow_downgrade, confirm, &also).await?;
        let older = match allow_downgrade {
            true => ", older ones too",
            false => "",
        };
        let asked = match confirm {
            true => ", each to be confirmed",
            false => "",
        };
        let detail = format!(
            "{release} to {} devices{older}{asked}",
            machine.members().len()
        );
        audit::note(db, now_ms, actor, "rollout.start", &id.to_string(), &detail).await?;
        change.taken.insert(id, machine);
        change.feed(id, Event::Begin).await?;
        change.tell_rollout(id);
        change.commit().await?;
        Ok(id)
    }

    /// A person pauses, resumes or aborts.
    pub(crate) async fn command(
        &self,
        id: i64,
        command: Command,
        actor: &str,
    ) -> store::Result<Answer> {
        let mut change = self.begin().await?;
        let Some(state) = change.state(id).await? else {
            return Ok(Answer::Unknown);
        };
        match state {
            // Once more, after the answer was lost.
            State::Aborted { .. } if command == Command::Abort => return Ok(Answer::Done),
            State::Finished => return Ok(Answer::Over(RolloutState::Finished)),
            State::Aborted { .. } => return Ok(Answer::Over(RolloutState::Aborted)),
            State::Created | State::Running | State::Paused { .. } => {}
        }
        let by = actor.to_owned();
        let event = match command {
            Command::Pause => Event::Pause { by },
            Command::Resume => Event::Resume,
            Command::Abort => Event::Abort { by },
        };
        let now_ms = change.now_ms;
        audit::note(
            &mut change.tx,
            now_ms,
            actor,
            command.word(),
            &id.to_string(),
            "",
        )
        .await?;
        change.feed(id, event).await?;
        change.commit().await?;
        Ok(Answer::Done)
    }

    /// Time passed: silent devices are given up.
    pub(crate) async fn tick(&self) -> store::Result<()> {
        if rollouts::open(&self.store.read).await?.is_empty() {
            return Ok(()); // nothing to write: leave the writer alone
        }
        let mut change = self.begin().await?;
        for id in rollouts::open(&mut *change.tx).await? {
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
        if !matches!(
            action.status,
            ActionStatus::Pending | ActionStatus::Retrieved
        ) || action.status == status
        {
            return Ok(());
        }
        change.note(&action, status, lines, None).await?;
        change
            .feed(
                action.rollout,
                Event::Heard {
                    device: action.device,
                },
            )
            .await?;
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
            return if repeated {
                Ok(())
            } else {
                Err(ReportError::Closed)
            };
        }
        if action.status == ActionStatus::Unconfirmed {
            return Err(ReportError::Unknown); // as hawkBit: nothing to report on yet
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
        change
            .note(
                &action,
                status,
                &lines,
                status.is_closed().then_some(digest),
            )
            .await?;
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
            change
                .feed(
                    id,
                    Event::Cancelled {
                        device: device.clone(),
                    },
                )
                .await?;
        }
        if !devices::remove(&mut change.tx, device).await? {
            return Ok(false);
        }
        // Whoever gets its id next does not get its settings.
        fleet_config::forget(&mut change.tx, device, actor, now_ms).await?;
        audit::note(
            &mut change.tx,
            now_ms,
            actor,
            "device.remove",
            device.as_str(),
            "",
        )
        .await?;
        change.events.push(EventKind::DeviceRemoved {
            device: device.clone(),
        });
        change.commit().await?;
        Ok(true)
    }
}
