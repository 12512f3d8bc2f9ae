//! The agent at work: the update machine, its effects, the hub and the app, in one loop.
//!
//! ```text
//! loop: take in what happened (app, signals) ─▶ step, save
//!       perform the machine's effect        ─▶ step, save
//!       when it is time: poll the hub        ─▶ step, save
//!       tell the hub what it has to know
//! ```
//! The machine is saved before each effect begins, so a restart repeats an effect and never skips
//! one. What must not wait for the network (switching, rolling back, starting the app) does not.

mod effects;
mod gate;
mod narrate;
mod orders;
mod scrubbing;
mod talk;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use pytheas_api::ddi::Feedback;
use pytheas_durable::{FileLock, faults};
use pytheas_release::TreeId;
use pytheas_update::{ActionId, Effect, Event, Failure, Machine, State, StoredStateError};
use tracing::{error, warn};

use crate::{
    backoff::Backoff,
    enrol,
    error::AgentError,
    failure::{device_failure, slot_failure},
    http::Http,
    hub::Hub,
    identity::Identity,
    offline::Order,
    paths::StateDir,
    request, scrub,
    settings::AgentSettings,
    slots,
    status::Live,
    supervisor::{self, AppEvent, Launch, StopHandle, Supervisor},
};

/// The search for bit rot leaves the device alone for so long after a start.
const FIRST_SCRUB: Duration = Duration::from_secs(60);

/// How the agent works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Poll so often, whatever the hub says; for tests and demonstrations.
    pub poll_interval: Option<Duration>,
    /// What `agent.toml` says.
    pub agent: AgentSettings,
    /// The app must say `WATCHDOG=1` this often.
    pub watchdog: Option<Duration>,
    /// What the app may not.
    pub confinement: supervisor::Confinement,
    /// Every slot is read again within this time; zero: never.
    pub scrub: Duration,
    /// Poll once, finish the update if there is one, then stop the app and return.
    pub once: bool,
    /// Key by which the hub accepts the device at once.
    pub enrolment_key: Option<String>,
    /// The device's name for people, told when it asks to be accepted.
    pub name: Option<String>,
}

/// What wakes the agent.
#[derive(Debug)]
pub enum Wake {
    /// End: stop the app, leave everything for the next start.
    Stop,
    /// Ask the hub now, and look whether an operator asked for something.
    Poll,
    /// Something became of the app.
    App(AppEvent),
}

/// Sends signals and events to a running [`Device`].
#[derive(Debug, Clone)]
pub struct Waker {
    wakes: Sender<Wake>,
    stop: Arc<AtomicBool>,
    app: Option<StopHandle>,
}

impl Waker {
    /// Ends the agent; the app is stopped at once, a download in progress is broken off.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // The loop may be waiting for a hub that does not answer; the app need not.
        if let Some(app) = &self.app {
            app.stop();
        }
        let _ended_already = self.wakes.send(Wake::Stop);
    }

    /// Waits until the app is gone, after [`Self::stop`].
    pub fn wait_for_app(&self) {
        if let Some(app) = &self.app {
            app.stop_and_wait();
        }
    }

    /// Polls now.
    pub fn poll(&self) {
        let _ended_already = self.wakes.send(Wake::Poll);
    }
}

/// Shortest pause after a failure, and the longest when the hub's interval is longer.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Pause before a release on probation that ended is started again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// What we poll by until the hub has said otherwise.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);
/// What a hub may ask for at most; the clock does not hold any number.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30 * 86_400);
/// Progress kept for a hub that is away; the closing report says the rest.
const MAX_PROGRESS: usize = 16;

/// The agent of one state directory.
pub struct Device {
    dir: StateDir,
    settings: Settings,
    identity: Identity,
    http: Http,
    hub: Option<Hub>,
    machine: Machine,
    /// Events whose outcome could not be saved yet.
    pending: VecDeque<Event>,
    supervisor: Supervisor,
    /// What the supervisor was told last.
    ordered: Option<(TreeId, Option<u8>)>,
    launch_at: Instant,
    /// The update from a file that is under way.
    order: Option<Order>,
    /// The one to begin next.
    ordered_next: Option<Order>,
    /// There is no hub to ask: the device knows none, or is to leave it alone.
    detached: bool,
    progress: VecDeque<(ActionId, Feedback)>,
    attributes_due: bool,
    tidy_due: bool,
    scrubbed: scrub::Progress,
    scrub_at: Instant,
    /// The current release ended or cannot be started: is it whole?
    suspected: bool,
    suspect_at: Instant,
    /// Why the agent itself goes back to the release before.
    taking_over: Option<String>,
    interval: Duration,
    poll_at: Instant,
    /// Nobody is told anything before this moment.
    tell_at: Instant,
    /// The effect is not tried again before this moment.
    effect_at: Instant,
    hub_backoff: Backoff,
    effect_backoff: Backoff,
    live: Live,
    polled: bool,
    wakes: Receiver<Wake>,
    waker: Waker,
    _lock: FileLock,
}

impl Device {
    /// The agent of the enrolled device in `dir`; what an earlier agent left is taken up.
    ///
    /// # Errors
    /// [`AgentError`]: another agent is at work, the device has no identity, its state was written
    /// by a newer agent, or the state directory cannot be used.
    pub fn open(dir: &StateDir, settings: Settings, lock: FileLock) -> Result<Self, AgentError> {
        slots::sweep(dir);
        let identity = Identity::load(&dir.identity())?;
        let http = enrol::connect(&identity, &settings.agent.network)?;
        let (sender, wakes) = channel();
        let mut waker = Waker {
            wakes: sender,
            stop: Arc::default(),
            app: None,
        };
        let events = waker.wakes.clone();
        let supervisor = Supervisor::start(
            dir,
            supervisor::Settings {
                watchdog: settings.watchdog,
                confinement: settings.confinement.clone(),
                ..supervisor::Settings::default()
            },
            move |event| {
                let _agent_ended = events.send(Wake::App(event));
            },
        )
        .map_err(AgentError::io("start the supervisor in", dir.root()))?;
        waker.app = Some(supervisor.stop_handle());
        let now = Instant::now();
        let interval = settings.poll_interval.unwrap_or(DEFAULT_INTERVAL);
        let mut device = Self {
            hub: Hub::of(&identity, &http),
            machine: Machine::default(),
            pending: VecDeque::new(),
            supervisor,
            ordered: None,
            launch_at: now,
            order: None,
            ordered_next: None,
            detached: identity.hub.is_empty(),
            progress: VecDeque::new(),
            attributes_due: true,
            tidy_due: true,
            scrubbed: scrub::Progress::load(dir, crate::clock::now().as_millisecond()),
            scrub_at: now + FIRST_SCRUB.min(settings.scrub),
            suspected: false,
            suspect_at: now,
            taking_over: None,
            interval,
            poll_at: now,
            tell_at: now,
            effect_at: now,
            hub_backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE.min(interval)),
            effect_backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE.min(interval)),
            live: Live::default(),
            polled: false,
            dir: dir.clone(),
            settings,
            identity,
            http,
            wakes,
            waker,
            _lock: lock,
        };
        device.machine = device.load_machine()?;
        device.happen(Event::Restarted);
        device.take_up_order();
        Ok(device)
    }

    /// Leaves the hub alone, whatever this device knows of one.
    pub fn detach(&mut self) {
        self.detached = true;
        self.hub = None;
    }

    /// A handle for signal handlers and tests.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Works until [`Waker::stop`] (or, with `once`, until there is nothing more to do); stops the
    /// app at the end. Whether the last poll reached the hub.
    pub fn run(&mut self) -> bool {
        while !self.waker.stop.load(Ordering::Relaxed) {
            self.settle_pending();
            self.supervise();
            self.show(); // before the network, which may take its time
            if self.is_urgent() && self.effect_at <= Instant::now() {
                self.perform();
                continue;
            }
            self.take_request();
            self.begin_order();
            if self.poll_at <= Instant::now() {
                self.poll();
            }
            self.tell();
            self.supervise();
            if self.tidy_due && matches!(self.machine.state(), State::Idle) {
                self.tidy();
            }
            if self.scrub_due().is_some_and(|due| due <= Instant::now()) {
                self.scrub();
            }
            self.show();
            if self.settings.once && self.is_done() {
                break;
            }
            let waits_for_app =
                matches!(self.machine.effect(), Effect::Rest | Effect::Prove { .. });
            if !waits_for_app && self.effect_at <= Instant::now() {
                self.perform();
            } else {
                self.wait();
            }
        }
        self.supervisor.stop();
        self.show();
        self.hub_backoff.failures() == 0
    }

    /// Leaves what `status` shows.
    fn show(&mut self) {
        self.live.app = self.supervisor.status();
        self.live.device_id = Some(self.identity.device_id.to_string());
        self.live.hub = Some(self.identity.hub.clone());
        self.live.accepted = self.identity.token.is_some();
        self.live.save(&self.dir.status(), crate::clock::now());
    }

    /// With `once`: polled, nothing under way (or it waits for its window), and the hub knows it (or cannot be told).
    fn is_done(&self) -> bool {
        let told =
            self.machine.outbox().is_empty() || self.detached || self.hub_backoff.failures() > 0;
        let at_rest = matches!(self.machine.state(), State::Idle) || self.live.held.is_some();
        let nothing_ordered = self.ordered_next.is_none();
        self.polled && at_rest && told && nothing_ordered
    }

    /// Effects during which no app may be running, or the wrong one: the network can wait.
    fn is_urgent(&self) -> bool {
        matches!(
            self.machine.effect(),
            Effect::Switch(_) | Effect::RollBack(_) | Effect::Tidy(_)
        )
    }

    fn load_machine(&mut self) -> Result<Machine, AgentError> {
        match crate::status::load_machine(&self.dir) {
            Ok(Some(machine)) => Ok(machine),
            Ok(None) if slots::is_fresh(&self.dir) => Ok(Machine::default()),
            Ok(None) => self.rebuild("it is gone"),
            Err(AgentError::State {
                source: source @ (StoredStateError::Parse(_) | StoredStateError::Damaged),
                path,
            }) => {
                let aside = path.with_extension("json.damaged");
                pytheas_durable::move_dir(&path, &aside)
                    .map_err(AgentError::io("set aside", &path))?;
                self.rebuild(&crate::http::chain(&source))
            }
            Err(other) => Err(other),
        }
    }

    /// The machine of a device whose state was lost. The release that runs is known by `current`;
    /// what was under way is not, and the hub will say again what it wants.
    fn rebuild(&mut self, why: &str) -> Result<Machine, AgentError> {
        let found = slots::recover(&self.dir);
        let from = match &found {
            Some(_) => "was rebuilt from what runs",
            None => "no whole release was found; roll one out to this device",
        };
        let machine = Machine::recovered(found);
        let message = format!("the update state was lost and {from} ({why})");
        error!("{message}");
        self.failed(message);
        self.save(&machine)
            .map_err(AgentError::io("write", &self.dir.state()))?;
        Ok(machine)
    }

    fn save(&self, machine: &Machine) -> io::Result<()> {
        faults::point("agent:save:before");
        pytheas_durable::replace(&self.dir.state(), &machine.encode())?;
        faults::point("agent:save:after");
        faults::point(state_point(machine.state()));
        Ok(())
    }

    /// Takes an event in: the machine steps, and is saved before anything else is done.
    fn happen(&mut self, event: Event) {
        // A hub says the same again for as long as it cannot be saved.
        if !self.pending.contains(&event) {
            self.pending.push_back(event);
        }
        self.settle_pending();
    }

    fn settle_pending(&mut self) {
        while let Some(event) = self.pending.front() {
            let next = self.machine.clone().step(event.clone());
            if next != self.machine {
                self.remember(&next);
                let saved = self.save(&next).or_else(|error| {
                    // A full disk: what this update has brought so far makes room.
                    let mut needed = next.needed();
                    needed.extend(self.machine.needed());
                    let downloading = matches!(
                        next.state(),
                        State::Fetching { .. } | State::Staging { .. } | State::Verifying { .. }
                    );
                    if downloading {
                        return Err(error);
                    }
                    let _as_far_as_it_goes = slots::tidy(&self.dir, &needed);
                    self.save(&next)
                });
                if let Err(error) = saved {
                    self.failed(
                        device_failure("write", &self.dir.state(), &error)
                            .message()
                            .to_owned(),
                    );
                    self.effect_at = Instant::now() + self.effect_backoff.next();
                    return;
                }
                let before = std::mem::replace(&mut self.machine, next);
                self.moved(&before);
            }
            self.pending.pop_front();
        }
    }

    fn failed(&mut self, message: String) {
        self.live.last_error = Some(message);
        self.live.last_error_ms = Some(crate::clock::now().as_millisecond());
    }

    /// Lets the release run that should be running.
    fn supervise(&mut self) {
        if self.waker.stop.load(Ordering::Relaxed) {
            return; // it was stopped while we waited for the hub
        }
        let wanted = match self.machine.state() {
            State::Switching { .. } | State::RollingBack { .. } => return, // theirs to stop
            State::Probation {
                job, tries_left, ..
            } => Some((job.to.tree, Some(*tries_left))),
            _ => self.machine.live().map(|live| (live.tree, None)),
        };
        // Judged already, but not yet on disk (full?): starting it again would not help.
        let judged = |e: &Event| {
            matches!(
                e,
                Event::Healthy { .. } | Event::Died { .. } | Event::NotReady { .. }
            )
        };
        if self.pending.iter().any(judged) {
            return;
        }
        let Some((tree, trial)) = wanted.filter(|wanted| self.ordered != Some(*wanted)) else {
            return;
        };
        if Instant::now() < self.launch_at {
            return;
        }
        match slots::record(&self.dir, tree) {
            Ok(record) => {
                // A power cut between saving and linking, or a person, may have moved `current`.
                if slots::current(&self.dir) != Some(tree)
                    && let Err(error) = slots::point_current(&self.dir, Some(tree))
                {
                    return self.cannot_launch(tree, trial, slot_failure(&error));
                }
                self.supervisor.launch(Launch::new(tree, record, trial));
                self.ordered = Some((tree, trial));
            }
            Err(error) => self.cannot_launch(tree, trial, slot_failure(&error)),
        }
    }

    fn cannot_launch(&mut self, tree: TreeId, trial: Option<u8>, because: Failure) {
        match trial {
            Some(tries_left) => self.happen(Event::Died {
                to: tree,
                tries_left,
                because,
            }),
            None => {
                error!("cannot start the current release: {}", because.message());
                self.failed(because.message().to_owned());
                self.launch_at = Instant::now() + Duration::from_secs(10);
                self.suspect();
            }
        }
    }

    /// Waits until something happens or is due.
    fn wait(&mut self) {
        let mut until = self.poll_at;
        if !matches!(self.machine.effect(), Effect::Rest | Effect::Prove { .. })
            || !self.pending.is_empty()
        {
            until = until.min(self.effect_at);
        }
        if let Some(due) = self.scrub_due() {
            until = until.min(due);
        }
        let to_tell =
            !self.machine.outbox().is_empty() || !self.progress.is_empty() || self.attributes_due;
        if to_tell && self.hub.is_some() {
            until = until.min(self.tell_at);
        }
        if self.ordered.is_none() && self.machine.live().is_some() && !self.is_urgent() {
            until = until.min(self.launch_at);
        }
        // At least a moment, so that no mistake here can burn a processor.
        let timeout = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(10));
        match self.wakes.recv_timeout(timeout) {
            Ok(Wake::App(event)) => self.app_event(event),
            Ok(Wake::Poll) => {
                self.poll_at = Instant::now();
                self.tell_at = Instant::now();
                self.effect_at = Instant::now();
            }
            Ok(Wake::Stop) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn app_event(&mut self, event: AppEvent) {
        match event {
            AppEvent::Healthy { tree } => {
                self.ordered = Some((tree, None));
                self.happen(Event::Healthy { to: tree });
            }
            AppEvent::Died {
                tree,
                tries_left,
                because,
            } => {
                self.ordered = None;
                // What it needs (a port, a database) may be there a moment later.
                self.launch_at = Instant::now() + TRY_AGAIN_AFTER;
                self.happen(Event::Died {
                    to: tree,
                    tries_left,
                    because,
                });
            }
            AppEvent::NotReady { tree, because } => {
                self.ordered = None;
                self.happen(Event::NotReady { to: tree, because });
            }
            AppEvent::Crashed { because } => {
                self.failed(because.message().to_owned());
                self.suspect();
            }
        }
    }

    /// Does what an operator at this device has asked for.
    fn take_request(&mut self) {
        let Some(wanted) = request::take(&self.dir) else {
            return;
        };
        match wanted {
            request::Wanted::Apply(order) => self.apply(order),
            request::Wanted::Rollback => {
                match request::rollback_possible(&self.dir, &self.machine) {
                    Ok(()) => self.happen(Event::RollbackWanted),
                    Err(error) => {
                        warn!("an operator asked for a rollback: {error}");
                        self.failed(format!("no rollback: {error}"));
                    }
                }
            }
        }
    }
}

/// The point at which a test may stop the agent when it has just saved that it enters a state.
fn state_point(state: &State) -> &'static str {
    match state {
        State::Idle => "agent:state:idle",
        State::Checking { .. } => "agent:state:checking",
        State::Fetching { .. } => "agent:state:fetching",
        State::Staging { .. } => "agent:state:staging",
        State::Verifying { .. } => "agent:state:verifying",
        State::Switching { .. } => "agent:state:switching",
        State::Probation { .. } => "agent:state:probation",
        State::Committed { .. } => "agent:state:committed",
        State::RollingBack { .. } => "agent:state:rolling-back",
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}
