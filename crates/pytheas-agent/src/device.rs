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

mod apps;
mod boards;
mod config;
mod effects;
mod gate;
mod migrate;
mod narrate;
mod orders;
mod own;
mod scrubbing;
mod talk;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use pytheas_api::ddi::Feedback;
use pytheas_durable::{FileLock, faults};
use pytheas_release::{Name, TreeId};
use pytheas_update::{ActionId, Effect, Event, Machine, State};
use tracing::{error, warn};

use crate::{
    app_config::{AppConfig, Revision},
    backoff::Backoff,
    enrol,
    error::AgentError,
    failure::device_failure,
    http::Http,
    hub::Hub,
    identity::Identity,
    launcher,
    offline::Order,
    paths::{self, StateDir},
    remove, request, scrub,
    settings::{AgentSettings, SettingsError},
    slots,
    status::Live,
    supervisor::{self, AppEvent, StopHandle, Supervisor},
    written::Written,
};

use self::apps::App;
use self::boards::BoardEvent;

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
    /// The device's model, when the hardware's own word is not wanted.
    pub model: Option<String>,
    /// Whether older releases may take the place of newer ones.
    pub downgrades: DowngradePolicy,
}

/// Whether older releases may take the place of newer ones on this device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DowngradePolicy {
    /// When one of the two releases, or the rollout, allows it
    #[default]
    Asked,
    /// Always
    Always,
    /// Only when one of the two releases allows it, whatever the hub says
    Never,
}

/// What wakes the agent.
#[derive(Debug)]
pub(crate) enum Wake {
    /// End: stop the app, leave everything for the next start.
    Stop,
    /// Ask the hub now, and look whether an operator asked for something.
    Poll,
    /// Something became of the app.
    App(AppEvent),
    /// Something was heard of a board.
    Board(BoardEvent),
}

/// Sends signals and events to a running [`Device`].
#[derive(Debug, Clone)]
pub struct Waker {
    wakes: Sender<Wake>,
    stop: Arc<AtomicBool>,
    handover: Arc<AtomicBool>,
    apps: Arc<Mutex<Vec<StopHandle>>>,
}

impl Waker {
    /// Ends the agent; the app is stopped at once, a download in progress is broken off.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // The loop may be waiting for a hub that does not answer; the app need not.
        for app in self.handles() {
            app.stop();
        }
        let _ended_already = self.wakes.send(Wake::Stop);
    }

    /// Waits until the apps are gone, after [`Self::stop`].
    pub fn wait_for_app(&self) {
        for app in self.handles() {
            app.stop_and_wait(supervisor::GIVEN_UP_AFTER);
        }
    }

    fn handles(&self) -> Vec<StopHandle> {
        self.apps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn add(&self, app: StopHandle) {
        self.apps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(app);
    }

    /// Another agent is to work from here on.
    fn hand_over(&self) {
        self.handover.store(true, Ordering::Release);
    }

    /// Whether the loop ended because another agent is to work.
    pub(crate) fn hands_over(&self) -> bool {
        self.handover.load(Ordering::Acquire)
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
/// How soon `status` shows that an app has come up, and what else it says when no hub is polled.
const LOOK_FOR_APP: Duration = Duration::from_millis(500);
const LOOK_DETACHED: Duration = Duration::from_secs(60);
/// Progress kept for a hub that is away; the closing report says the rest.
const MAX_PROGRESS: usize = 16;

/// The agent of one state directory.
pub struct Device {
    dir: StateDir,
    settings: Settings,
    identity: Identity,
    /// The device's model, if it has one.
    model: Option<String>,
    http: Http,
    hub: Option<Hub>,
    machine: Machine,
    /// Events whose outcome could not be saved yet.
    pending: VecDeque<Event>,
    /// The app that was installed first.
    first: App,
    /// The others, by name.
    others: BTreeMap<Name, App>,
    /// Releases on probation that have proved that they work.
    proved: BTreeSet<TreeId>,
    /// The boards on this device's ports.
    boards: boards::Boards,
    /// The apps' settings.
    app_config: AppConfig,
    /// Those the hub wants.
    config_offer: Option<Revision>,
    /// Releases that have proved that they work with those on trial.
    config_proved: BTreeSet<TreeId>,
    /// Apps are told to read them again, not started anew.
    config_reloads: bool,
    /// Nothing is done about them before this moment.
    config_at: Instant,
    /// When an app is to be started that failed a moment ago.
    next_launch: Option<Instant>,
    /// The update from a file that is under way.
    order: Option<Order>,
    /// The one to begin next.
    ordered_next: Option<Order>,
    /// There is no hub to ask: the device knows none, or is to leave it alone.
    detached: bool,
    progress: VecDeque<(ActionId, Feedback)>,
    attributes_due: bool,
    tidy_due: bool,
    removals_due: bool,
    /// What was written by the update under way.
    written: Written,
    /// How often one after the other the hub was too busy to be told something.
    refused_as_busy: Option<(u8, Instant)>,
    /// The action whose progress the hub does not want to hear any more.
    heard_enough: Option<ActionId>,
    scrubbed: scrub::Progress,
    scrub_at: Instant,
    /// The current release ended or cannot be started: is it whole?
    suspected: bool,
    suspect_at: Instant,
    /// Why the agent itself goes back to the release before.
    taking_over: Option<String>,
    /// This program as a component of the device.
    own: own::Own,
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
    /// A deployment waits at the hub for the end of what is under way here.
    asks_again: bool,
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
        let identity = Identity::load_and_mend(&dir.identity())?;
        let http = enrol::connect(&identity, &settings.agent.network)?;
        let (sender, wakes) = channel();
        let waker = Waker {
            wakes: sender,
            stop: Arc::default(),
            handover: Arc::default(),
            apps: Arc::default(),
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
        waker.add(supervisor.stop_handle());
        let now = Instant::now();
        let interval = settings.poll_interval.unwrap_or(DEFAULT_INTERVAL);
        let mut device = Self {
            hub: Hub::of(&identity, &http),
            machine: Machine::default(),
            pending: VecDeque::new(),
            first: App::new(dir.clone(), supervisor),
            others: BTreeMap::new(),
            proved: BTreeSet::new(),
            boards: boards::Boards::load(dir, &settings.agent.boards),
            app_config: AppConfig::load(dir),
            config_offer: None,
            config_proved: BTreeSet::new(),
            config_reloads: false,
            config_at: now,
            next_launch: None,
            order: None,
            ordered_next: None,
            detached: identity.hub.is_empty(),
            progress: VecDeque::new(),
            attributes_due: true,
            tidy_due: true,
            removals_due: true,
            written: Written::default(),
            refused_as_busy: None,
            heard_enough: None,
            scrubbed: scrub::Progress::load(dir, crate::clock::now().as_millisecond()),
            scrub_at: now + FIRST_SCRUB.min(settings.scrub),
            suspected: false,
            suspect_at: now,
            taking_over: None,
            own: own::Own::new(),
            interval,
            poll_at: now,
            tell_at: now,
            effect_at: now,
            hub_backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE.min(interval)),
            effect_backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE.min(interval)),
            live: Live::default(),
            polled: false,
            asks_again: false,
            dir: dir.clone(),
            model: crate::model::find(settings.model.as_deref()),
            settings,
            identity,
            http,
            wakes,
            waker,
            _lock: lock,
        };
        device.machine = device.load_machine()?;
        let restarted = device.own_failure().unwrap_or(Event::Restarted);
        device.happen(restarted);
        device.take_up_order();
        device.take_up_config();
        Ok(device)
    }

    /// Says everywhere that `agent.toml` is unusable and the settings in force last are still.
    pub(crate) fn has_broken_settings(&mut self, broken: Option<&SettingsError>) {
        self.live.settings = broken.map(|broken| {
            error!("{broken}; the settings that were in force before it changed stay in force");
            broken.to_string()
        });
    }

    /// Leaves the hub alone, whatever this device knows of one.
    pub fn detach(&mut self) {
        self.detached = true;
        self.hub = None;
        self.show(); // nothing of an agent before this one
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
            if self.gives_way() {
                break;
            }
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
            self.mind_config();
            self.tell();
            self.supervise();
            if matches!(self.machine.state(), State::Idle) {
                self.finish_removals();
            }
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
        self.boards.stop();
        self.stop_all();
        self.show();
        self.hub_backoff.failures() == 0
    }

    fn is_stopping(&self) -> bool {
        self.waker.stop.load(Ordering::Relaxed)
    }

    /// Leaves what `status` shows.
    fn show(&mut self) {
        self.live.app = self.first.supervisor.status();
        self.live.apps = self.other_apps();
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
        let waits = self.config_offer.is_some() && matches!(self.machine.state(), State::Idle);
        // What cannot be written is the next start's.
        let configured = !self.config_on_trial() && !waits || self.config_at > Instant::now();
        self.polled && at_rest && told && nothing_ordered && configured
    }

    /// Effects during which no app may be running, or the wrong one: the network can wait.
    fn is_urgent(&self) -> bool {
        matches!(
            self.machine.effect(),
            Effect::Snapshot(_)
                | Effect::Switch(_)
                | Effect::Migrate { .. }
                | Effect::RollBack(_)
                | Effect::Tidy(_)
        )
    }

    fn load_machine(&mut self) -> Result<Machine, AgentError> {
        match crate::status::load_machine(&self.dir) {
            Ok(Some(machine)) => Ok(machine),
            Ok(None) => Ok(Machine::default()),
            Err(AgentError::State { source, path }) if source.is_damage() => {
                if std::fs::symlink_metadata(&path).is_ok() {
                    let aside = path.with_extension("json.damaged");
                    paths::set_aside(&path, &aside).map_err(AgentError::io("set aside", &path))?;
                }
                self.rebuild(&crate::http::chain(&source))
            }
            // The newer agent that wrote it is damaged, or never starts again: better an app that runs.
            Err(AgentError::State { source, path })
                if source.is_newer() && launcher::is_last_resort(&self.dir) =>
            {
                let aside = path.with_extension("json.newer");
                paths::set_aside(&path, &aside).map_err(AgentError::io("set aside", &path))?;
                self.rebuild(&crate::http::chain(&source))
            }
            Err(other) => Err(other),
        }
    }

    /// The machine of a device whose state was lost. The release that runs is known by `current`;
    /// what was under way is not, and the hub will say again what it wants. The running release may
    /// have been on probation, or on its way back: with an older one beside it, it has to prove that
    /// it works.
    fn rebuild(&mut self, why: &str) -> Result<Machine, AgentError> {
        let found = slots::recover(&self.dir);
        let others = self.dir.components();
        let others = others
            .iter()
            .filter_map(|name| slots::recover(&self.dir.component(name)))
            .map(|found| found.current);
        let others = others.collect();
        let from = match &found {
            Some(_) => "was rebuilt from what runs",
            None => "no whole release was found; roll one out to this device",
        };
        let mut data_moved = false;
        for dir in self.dirs() {
            // Nobody knows whether it was still needed.
            if let Ok(Some(kept)) = crate::data::rescue(&dir) {
                data_moved = true;
                warn!(
                    "data that was set aside for an update lies in `{}`",
                    kept.display()
                );
            }
        }
        let (current, before) = found.map(|found| (found.current, found.before)).unzip();
        // The older release may not know what has become of its data.
        let before = before.flatten().filter(|_| !data_moved);
        let machine = Machine::recovered(current, before, others);
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
                    for dir in self.dirs() {
                        let _as_far_as_it_goes = slots::tidy(&dir, &needed);
                    }
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
        if self.config_at > Instant::now() {
            until = until.min(self.config_at);
        }
        if let Some(at) = self.own.at {
            until = until.min(at);
        }
        if let Some(at) = self.next_launch {
            until = until.min(at);
        }
        // What `status` shows: an app that comes up says nothing, and no poll may be due for days.
        let coming = self.awaits_app();
        if coming || self.detached {
            let look = if coming { LOOK_FOR_APP } else { LOOK_DETACHED };
            until = until.min(Instant::now() + look);
        }
        // At least a moment, so that no mistake here can burn a processor.
        let timeout = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(10));
        match self.wakes.recv_timeout(timeout) {
            Ok(Wake::App(event)) => self.app_event(event),
            Ok(Wake::Board(event)) => self.board_event(event),
            Ok(Wake::Poll) => {
                self.poll_at = Instant::now();
                self.tell_at = Instant::now();
                self.effect_at = Instant::now();
            }
            Ok(Wake::Stop) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    /// Takes a component off this device.
    fn remove(&mut self, name: &Name, data: remove::Data) {
        let possible = remove::possible(&self.dir, &self.machine, name)
            .and_then(|()| remove::mark(&self.dir, &self.machine, name, data));
        if let Err(error) = possible {
            warn!("an operator asked to remove `{name}`: {error}");
            return self.failed(format!("`{name}` is not removed: {error}"));
        }
        faults::point("agent:remove:marked");
        self.removals_due = true;
        self.happen(Event::RemoveWanted { name: name.clone() });
    }

    /// Stops and deletes what the machine has forgotten.
    fn finish_removals(&mut self) {
        if !self.removals_due || !self.pending.is_empty() {
            return;
        }
        self.stop_removed();
        match remove::finish(&self.dir, &self.machine) {
            Ok(()) => {
                self.removals_due = false;
                self.attributes_due = true;
            }
            Err(error) => {
                let failure = device_failure("remove an app in", self.dir.root(), &error);
                self.failed(failure.message().to_owned());
                self.removals_due = false; // again at the next start
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
            request::Wanted::Remove { name, data } => self.remove(&name, data),
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
        State::Preparing { .. } => "agent:state:preparing",
        State::Snapshotting { .. } => "agent:state:snapshotting",
        State::Switching { .. } => "agent:state:switching",
        State::Migrating { .. } => "agent:state:migrating",
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
