//! One change: a transaction, the machines it touches, and what is told once it is committed.

use std::collections::{HashMap, VecDeque};

use pytheas_api::{ActionStatus, DeviceId, EventKind};
use pytheas_rollout::{Effect, Event, Rollout, Standing, State};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    bus::Bus,
    clock::unsigned,
    secret::Hash,
    store::{
        self, Store, Tx,
        actions::{self, Action},
        devices, rollouts,
    },
};

/// Machines by the number of their rollout.
pub(super) type Machines = HashMap<i64, Rollout<DeviceId>>;

/// One transaction, the machines it touches, and what is told when it is committed.
pub(super) struct Change<'a> {
    pub(super) tx: Tx,
    bus: &'a Bus,
    machines: MutexGuard<'a, Machines>,
    pub(super) taken: Machines,
    pub(super) events: Vec<EventKind>,
    pub(super) now_ms: i64,
}

impl<'a> Change<'a> {
    /// Waits for its turn and begins.
    pub(super) async fn begin(
        store: &Store,
        bus: &'a Bus,
        machines: &'a Mutex<Machines>,
        now_ms: i64,
    ) -> store::Result<Self> {
        let machines = machines.lock().await;
        let tx = store.begin().await?;
        Ok(Self {
            tx,
            bus,
            machines,
            taken: HashMap::new(),
            events: Vec::new(),
            now_ms,
        })
    }

    /// Makes sure that the machine is at hand; false when there is no such rollout.
    async fn take(&mut self, id: i64) -> store::Result<bool> {
        if !self.taken.contains_key(&id) {
            let machine = match self.machines.remove(&id) {
                Some(machine) => Some(machine),
                None => rollouts::load(&mut self.tx, id).await?,
            };
            let Some(machine) = machine else {
                return Ok(false);
            };
            self.taken.insert(id, machine);
        }
        Ok(true)
    }

    /// Where a rollout stands.
    pub(super) async fn state(&mut self, id: i64) -> store::Result<Option<State>> {
        self.take(id).await?;
        Ok(self.taken.get(&id).map(|it| it.progress().state.clone()))
    }

    /// Feeds one event to one machine, and what follows from it to others.
    pub(super) async fn feed(&mut self, rollout: i64, event: Event<DeviceId>) -> store::Result<()> {
        let mut queue = VecDeque::from([(rollout, event)]);
        while let Some((id, event)) = queue.pop_front() {
            // What ended hears no more; reading its members for every late report would be slow.
            let at_hand = self.taken.contains_key(&id) || self.machines.contains_key(&id);
            if !at_hand && rollouts::is_over(&mut self.tx, id).await? {
                continue;
            }
            if !self.take(id).await? {
                continue;
            }
            let Some(machine) = self.taken.remove(&id) else {
                continue;
            };
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
                tracing::info!(
                    rollout.id = id,
                    group,
                    "rollout {id} opened group {}",
                    group + 1
                );
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
                    self.note(&action, ActionStatus::Failed, &[line], None)
                        .await?;
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
        if devices::credentials(&mut *self.tx, &device)
            .await?
            .is_none()
        {
            queue.push_back((id, Event::Cancelled { device })); // it was removed meanwhile
            return Ok(());
        }
        let open = actions::open(&mut *self.tx, &device).await?;
        if open.iter().any(|action| action.rollout > id) {
            queue.push_back((id, Event::Cancelled { device })); // a newer rollout has it
            return Ok(());
        }
        for action in open {
            self.withdraw(&action, &format!("replaced by rollout {id}"))
                .await?;
        }
        for older in rollouts::older_with(&mut self.tx, &device, id).await? {
            queue.push_back((
                older,
                Event::Cancelled {
                    device: device.clone(),
                },
            ));
        }
        let module = rollouts::module_of(&mut self.tx, id, &device).await?;
        let status = match rollouts::wants_confirmation(&mut *self.tx, id).await?
            && !devices::auto_confirm(&mut *self.tx, &device).await?.active
        {
            true => ActionStatus::Unconfirmed,
            false => ActionStatus::Pending,
        };
        let action = actions::add(&mut self.tx, &device, id, module, status, self.now_ms).await?;
        let standing = Standing::Active {
            heard_ms: unsigned(self.now_ms),
        };
        rollouts::save_member(&mut self.tx, id, &device, &standing).await?;
        self.events.push(EventKind::ActionChanged {
            device,
            action,
            rollout: id,
            status,
            message: None,
        });
        Ok(())
    }

    /// Takes an action back: closed at once when the device never saw it.
    async fn withdraw(&mut self, action: &Action, why: &str) -> store::Result<()> {
        let status = match action.status {
            ActionStatus::Unconfirmed | ActionStatus::Pending => ActionStatus::Cancelled,
            ActionStatus::Cancelling => return Ok(()),
            status if status.is_closed() => return Ok(()),
            _ => ActionStatus::Cancelling,
        };
        self.note(action, status, &[why.to_owned()], None).await
    }

    /// Notes what was said about an action, and where it stands now.
    pub(super) async fn note(
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

    /// Tells where the rollout stands.
    pub(super) fn tell_rollout(&mut self, id: i64) {
        if let Some(machine) = self.taken.get(&id) {
            let state = &machine.progress().state;
            self.events.push(EventKind::RolloutChanged {
                rollout: id,
                state: rollouts::wire_state(state),
                reason: state.reason(),
            });
        }
    }

    /// Makes it last, then tells it.
    pub(super) async fn commit(mut self) -> store::Result<()> {
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
