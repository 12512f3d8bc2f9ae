//! The agent as a component of its device: it proves itself, or hands over to the one that should
//! work. All apps are stopped for a hand-over and started once by the next agent.

use std::time::{Duration, Instant};

use pytheas_release::TreeId;
use pytheas_update::{AGENT, Event, Failure, Installed, Job, Reason, State};
use tracing::{error, info};

use super::Device;
use crate::{
    launcher::{self, Guarded, Record},
    slots,
};

/// Pause before it is looked again whether another agent can take over.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What the loop knows about its own program.
#[derive(Debug)]
pub(super) struct Own {
    /// Another agent can be begun from here.
    can_hand_over: bool,
    guarded: Option<Guarded>,
    opened: Instant,
    /// When there is something to look at.
    pub(super) at: Option<Instant>,
    told: bool,
}

impl Own {
    pub(super) fn new() -> Self {
        Self {
            can_hand_over: false,
            guarded: None,
            opened: Instant::now(),
            at: None,
            told: false,
        }
    }

    fn tree(&self) -> Option<TreeId> {
        self.guarded.as_ref().map(|guarded| guarded.tree)
    }

    fn tell(&self, word: &str) {
        if let Some(guarded) = &self.guarded {
            guarded.tell(word);
        }
    }

    /// Tells the guardian once that this agent works.
    fn is_healthy(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.tell("healthy");
        }
    }
}

pub(super) fn is_agent(installed: &Installed) -> bool {
    installed.release.name.as_str() == AGENT
}

impl Device {
    /// This program may give way to another agent; `guarded` when it is one that was installed.
    pub(crate) fn may_hand_over(&mut self, guarded: Option<Guarded>) {
        self.own.can_hand_over = launcher::can_hand_over();
        self.own.guarded = guarded;
        self.own.tell("ready");
    }

    /// Why an update with this agent in it cannot be begun here, if it cannot.
    pub(super) fn cannot_update_agent(&self) -> Option<Failure> {
        (!self.own.can_hand_over).then(|| {
            let message = "the agent is updated by the agent that runs, and none does\n\
                           help: start it with `pytheas-agent run`, then update";
            Failure::new(Reason::Incompatible, message)
        })
    }

    /// What the restart of a device means to an update of its agent that was given up.
    pub(super) fn own_failure(&self) -> Option<Event> {
        let State::Probation { job, .. } = self.machine.state() else {
            return None;
        };
        let agent = job.goals().find(|goal| is_agent(goal))?;
        let home = launcher::home(&self.dir)?;
        let record = Record::of(&home, agent.tree);
        let because = record.given_up()?;
        Some(Event::NotReady {
            to: job.to.tree,
            because: Failure::new(Reason::NotReady, because),
        })
    }

    /// Looks to it that the right agent works; whether this one gives way now.
    pub(super) fn gives_way(&mut self) -> bool {
        if !self.pending.is_empty() || self.own.at.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        self.own.at = None;
        let running = self.machine.running();
        let wanted = running.into_iter().find(|i| is_agent(i)).cloned();
        let own = self.own.tree();
        let on_trial = match self.machine.state() {
            State::Probation { job, .. } => Some(job.clone()),
            State::Idle => None,
            _ => return false,
        };
        let on_trial = on_trial.filter(|job| job.goals().any(is_agent));
        if wanted.as_ref().map(|wanted| wanted.tree) == own {
            match (on_trial, own) {
                (Some(job), Some(own)) => self.prove_own(&job, own),
                _ => self.own.is_healthy(),
            }
            return false;
        }
        if let Some(failure) = self.own_failure() {
            self.happen(failure);
            return false;
        }
        self.own.at = Some(Instant::now() + LOOK_AGAIN_AFTER);
        if !self.own.can_hand_over {
            if let Some(job) = on_trial {
                let because = Failure::new(Reason::NotReady, "no agent runs that could give way");
                self.happen(Event::NotReady {
                    to: job.to.tree,
                    because,
                });
            }
            return false;
        }
        match wanted {
            Some(wanted) if !self.can_begin(&wanted) => return false,
            Some(wanted) => info!("`{}` takes over", wanted.release),
            None => info!("the base agent takes over"),
        }
        self.waker.hand_over();
        self.own.tell("handover");
        true
    }

    /// Whether the agent `wanted` can be begun; else what is to be done is done.
    fn can_begin(&mut self, wanted: &Installed) -> bool {
        let Some(home) = launcher::home(&self.dir) else {
            return false;
        };
        let record = Record::of(&home, wanted.tree);
        if let Some(because) = record.given_up() {
            let name = &wanted.release.name;
            let why = format!("`{}` does not work: {because}", wanted.release);
            let back = self.machine.way_back_of(name);
            let is_whole = |to: &&Installed| {
                matches!(
                    slots::slot_damage(&self.dir_of(&to.release.name), to.tree),
                    Ok(None)
                )
            };
            let has_way_back = !back.is_empty() && back.iter().all(is_whole);
            error!("{why}");
            self.failed(why.clone());
            if has_way_back {
                self.taking_over = Some(why);
                self.happen(Event::Lost { name: name.clone() });
            }
            return false;
        }
        if !matches!(slots::slot_damage(&home, wanted.tree), Ok(None)) {
            self.suspect();
            return false;
        }
        // A power cut between saving and linking, or a person, may have moved `current`.
        slots::current(&home) == Some(wanted.tree)
            || slots::point_current(&home, Some(wanted.tree)).is_ok()
    }

    /// On trial: it works when it has stayed up, and has reached the hub that sent it.
    fn prove_own(&mut self, job: &Job, own: TreeId) {
        if self.proved.contains(&own) {
            return;
        }
        let home = launcher::home(&self.dir);
        let record = home.and_then(|home| slots::record(&home, own).ok());
        let stay_up = record.map_or(Duration::ZERO, |record| {
            Duration::from_millis(record.health.stay_up_ms)
        });
        let proved_at = self.own.opened + stay_up;
        if Instant::now() < proved_at {
            self.own.at = Some(proved_at);
            return;
        }
        let needs_hub = !self.detached && job.action.is_some();
        if needs_hub && self.live.last_poll_ms.is_none() {
            return;
        }
        info!("this agent has proved itself");
        self.own.is_healthy();
        self.proved.insert(own);
        self.judge(job);
    }
}
