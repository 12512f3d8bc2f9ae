//! The boards on this device's ports: an app that runs on boards is a component like the others, of
//! which the device keeps the release in a slot and each board keeps the image in two slots of its own.
//!
//! | state | here | on each board |
//! | --- | --- | --- |
//! | staging | the tree is put together | its other slot is filled, checked by the board |
//! | switching | `current` moves | – |
//! | probation | – | one board after the other starts it and must confirm it |
//! | rolling back | `current` moves back | what was begun is given up for what ran before |
//!
//! `boards.json` says what is known of each board, so that nobody is visited for it: a visit
//! interrupts the app. A board is noted as on trial before it is told to switch, and no longer when
//! it has been seen with something else or the update is committed; one that was away when the
//! update was rolled back is taken back when it answers again.

mod settings;
mod updating;

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pytheas_api::ddi::{
    ATTRIBUTE_BOARD, ATTRIBUTE_BOARD_APP, ATTRIBUTE_BOARD_CONFIG, ATTRIBUTE_BOARD_CONFIG_REFUSED,
};
use pytheas_board::link::Stop;
use pytheas_release::{Name, Platform, Sha256, TreeId};
use pytheas_update::{Event, Failure, Installed, State};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{Device, Wake};
use crate::{
    boards::{
        self, Seen,
        configured::Wanted,
        health::{self, Health},
    },
    failure::Trouble,
    paths::StateDir,
    settings::BoardSettings,
    slots,
};

/// Between two looks for boards that are away and owe an answer.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What is known of a board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Another board may have taken its place there.
    port: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    /// What runs there: `sensor-node 1.2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runs: Option<String>,
    /// The image that it may have switched to, and is to be taken back from unless it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_trial: Option<Sha256>,
    /// Why it was not seen when it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    away: Option<String>,
    /// How it was when it was visited last.
    #[serde(default, skip_serializing_if = "Health::is_empty")]
    health: Health,
    /// The hub's settings that it was to get last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<Given>,
    /// When it was visited.
    #[serde(skip)]
    visited: Option<Instant>,
}

/// Settings that a board was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    /// The newest revision that says so.
    tag: String,
    /// Its file.
    sha256: Sha256,
    /// Why it did not take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    /// The revision that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    has: Option<String>,
}

/// What a thread at the boards has to say.
#[derive(Debug)]
pub(crate) enum BoardEvent {
    /// A board said what it runs.
    Seen(Name, Box<Seen>),
    /// A board did not answer, or is none.
    Away(Name, String),
    /// It was to get settings: why it did not take them.
    Given(Name, Wanted, Option<String>),
    /// All boards have been looked at, in the work of this number.
    Looked(u64),
    /// How a trial ended.
    Tried {
        /// Its number.
        work: u64,
        /// The release.
        tree: TreeId,
        /// Why it did not work.
        outcome: Result<(), Failure>,
    },
}

/// Who is at the boards now.
struct Work {
    number: u64,
    stop: Stop,
    thread: JoinHandle<()>,
}

/// The boards of a device.
pub(super) struct Boards {
    known: BTreeMap<Name, Known>,
    work: Option<Work>,
    /// How often somebody went there.
    works: u64,
    /// Since when an update waits for a board.
    waits_since: Option<Instant>,
    look_at: Instant,
    /// Whether the component runs on boards, by its tree.
    on_boards: BTreeMap<TreeId, bool>,
}

impl Boards {
    pub(super) fn load(dir: &StateDir, settings: &[BoardSettings]) -> Self {
        let bytes = crate::paths::read(&dir.boards()).unwrap_or_default();
        // What is lost is asked again; what another version of the agent says of one board costs no
        // other its trial.
        let known: BTreeMap<Name, serde_json::Value> =
            serde_json::from_slice(&bytes).unwrap_or_default();
        let known = known.into_iter();
        let known: BTreeMap<Name, Known> = known
            .filter_map(|(name, board)| Some((name, serde_json::from_value(board).ok()?)))
            .collect();
        let known = settings.iter().map(|at| {
            let port = at.port.to_string();
            let of = known.get(&at.name).filter(|known| known.port == port);
            let new = || Known {
                port: port.clone(),
                ..Known::default()
            };
            (at.name.clone(), of.cloned().unwrap_or_else(new))
        });
        Self {
            known: known.collect(),
            work: None,
            works: 0,
            waits_since: None,
            look_at: Instant::now(),
            on_boards: BTreeMap::new(),
        }
    }

    fn save(&self, dir: &StateDir) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(&self.known)?;
        pytheas_durable::replace(&dir.boards(), &json)
    }

    /// Ends what goes on at the boards.
    pub(super) fn stop(&mut self) {
        if let Some(work) = self.work.take() {
            work.stop
                .0
                .store(true, std::sync::atomic::Ordering::Relaxed);
            let _panicked = work.thread.join();
        }
    }

    /// Whether the work `number` was the one under way, which has ended now.
    fn ended(&mut self, number: u64) -> bool {
        let ended = self.work.take_if(|work| work.number == number);
        ended.is_some()
    }

    /// The boards' apps with the platform that all of an app's boards run, as far as they are known.
    pub(super) fn apps(&self, settings: &[BoardSettings]) -> BTreeMap<Name, Option<Platform>> {
        let mut apps: BTreeMap<Name, Option<Platform>> = BTreeMap::new();
        for at in settings {
            let platform = self
                .known
                .get(&at.name)
                .and_then(|known| known.platform.clone());
            let of = apps.entry(at.app.clone()).or_default();
            *of = match (of.take(), platform) {
                (Some(one), Some(other)) => one
                    .runs()
                    .find(|both| other.runs().any(|runs| runs == *both)),
                (one, other) => one.or(other),
            };
        }
        apps
    }

    /// What the hub is told of them, at most [`health::ATTRIBUTES_MAX`]: first what rollouts go by,
    /// then what each board runs, then the settings that it has, then how it is.
    pub(super) fn attributes(&self, settings: &[BoardSettings]) -> BTreeMap<String, String> {
        let mut told = Vec::new();
        for (app, platform) in self.apps(settings) {
            if let Some(platform) = platform {
                told.push((format!("{ATTRIBUTE_BOARD_APP}{app}"), platform.to_string()));
            }
        }
        for (name, known) in &self.known {
            let mut text = known.runs.clone().unwrap_or_else(|| "nothing".to_owned());
            if let Some(platform) = &known.platform {
                text.push_str(&format!(" ({platform})"));
            }
            if let Some(away) = &known.away {
                let why = away.lines().next().unwrap_or_default();
                text = format!("{why}; last seen: {text}");
            } else if known.on_trial.is_some() {
                text.push_str(", on trial");
            }
            told.push((format!("{ATTRIBUTE_BOARD}{name}"), text));
        }
        for (name, known) in &self.known {
            let Some(given) = &known.config else { continue };
            if let Some(has) = &given.has {
                told.push((format!("{ATTRIBUTE_BOARD_CONFIG}{name}"), has.clone()));
            }
            if let Some(because) = &given.because {
                let key = format!("{ATTRIBUTE_BOARD_CONFIG_REFUSED}{name}");
                told.push((key, format!("{} {because}", given.tag)));
            }
        }
        let own = told.len();
        for (name, known) in &self.known {
            for (what, value) in health::told(&known.health, self.known.len(), own) {
                told.push((format!("{ATTRIBUTE_BOARD}{name}.{what}"), value.clone()));
            }
        }
        told.truncate(health::ATTRIBUTES_MAX);
        let cut = crate::attributes::cut;
        told.iter()
            .map(|(key, text)| (cut(key), cut(text)))
            .collect()
    }
}

impl Device {
    fn places(&self, app: &Name) -> Vec<BoardSettings> {
        let all = &self.settings.agent.boards;
        all.iter().filter(|at| at.app == *app).cloned().collect()
    }

    /// Whether the component runs on boards, so that no supervisor starts it.
    pub(super) fn is_on_boards(&mut self, installed: &Installed) -> bool {
        let (name, tree) = (&installed.release.name, installed.tree);
        if self.settings.agent.boards.iter().any(|at| at.app == *name) {
            return true;
        }
        if let Some(known) = self.boards.on_boards.get(&tree) {
            return *known;
        }
        // Its boards may no longer be in the settings.
        let dir = self.dir_of(name);
        let Ok(record) = slots::record(&dir, tree) else {
            return false;
        };
        *self
            .boards
            .on_boards
            .entry(tree)
            .or_insert(record.platform.is_board())
    }

    fn save_boards(&mut self) -> Result<(), String> {
        self.attributes_due = true;
        let saved = self.boards.save(&self.dir);
        saved.map_err(|error| format!("cannot write `{}`: {error}", self.dir.boards().display()))
    }

    fn keep_boards(&mut self) {
        if let Err(error) = self.save_boards() {
            warn!("{error}");
            self.failed(error);
        }
    }

    /// Begins work at the boards; it ends with what it sends last, which has its number.
    fn at_boards(&mut self, work: impl FnOnce(u64, &Stop, &dyn Fn(BoardEvent)) + Send + 'static) {
        self.boards.works += 1;
        let number = self.boards.works;
        let stop = Stop(Arc::default());
        let (own, events) = (stop.clone(), self.waker.wakes.clone());
        let begun = thread::Builder::new().name("boards".into()).spawn(move || {
            work(number, &own, &|event| {
                let _agent_ended = events.send(Wake::Board(event));
            });
        });
        match begun {
            Ok(thread) => {
                self.boards.work = Some(Work {
                    number,
                    stop,
                    thread,
                });
            }
            Err(error) => self.failed(format!("cannot begin a thread: {error}")),
        }
    }

    /// Between updates: asks boards that were never asked, and takes back what is owed.
    pub(super) fn mind_boards(&mut self) {
        if !matches!(self.machine.state(), State::Idle) {
            return;
        }
        self.boards.waits_since = None;
        if self.boards.work.is_some() {
            return;
        }
        self.note_settings();
        let all = &self.settings.agent.boards;
        let open: Vec<(BoardSettings, Option<Sha256>, Option<Wanted>)> = all
            .iter()
            .filter_map(|at| {
                let known = self.boards.known.get(&at.name)?;
                let asked = at.telemetry.zip(known.visited);
                let asked = asked.is_some_and(|(every, then)| then.elapsed() >= every);
                let due = known.platform.is_none()
                    || known.on_trial.is_some()
                    || asked
                    || at.telemetry.is_some() && known.visited.is_none();
                let wanted = self.wanted(at);
                let given = known.config.as_ref().map(|given| given.sha256);
                let due = due || wanted.as_ref().is_some_and(|one| Some(one.sha256) != given);
                let wanted = wanted.filter(|wanted| wanted.misfit().is_none());
                due.then(|| (at.clone(), known.on_trial, wanted))
            })
            .collect();
        if open.is_empty() {
            return;
        }
        if Instant::now() < self.boards.look_at {
            self.next_launch = Some(self.boards.look_at);
            return;
        }
        self.boards.look_at = Instant::now() + LOOK_AGAIN;
        self.at_boards(move |number, stop, tell| {
            for (at, owes, wanted) in &open {
                let seen = match owes {
                    Some(image) => boards::take_back(at, *image, stop),
                    None => boards::look(at, wanted.as_ref(), stop),
                };
                match seen {
                    Ok(seen) => {
                        let tried = wanted.as_ref().filter(|_| owes.is_none());
                        if let Some(wanted) = tried {
                            let because = seen.because.clone().filter(|_| !seen.has(wanted));
                            let name = at.name.clone();
                            tell(BoardEvent::Given(name, wanted.clone(), because));
                        }
                        tell(BoardEvent::Seen(at.name.clone(), Box::new(seen)));
                    }
                    Err(Trouble::Later(why)) => tell(BoardEvent::Away(at.name.clone(), why)),
                    Err(Trouble::Failed(failure)) => {
                        let why = failure.message().to_owned();
                        if let Some(wanted) = wanted.clone() {
                            let because = why.lines().next().map(str::to_owned);
                            tell(BoardEvent::Given(at.name.clone(), wanted, because));
                        }
                        tell(BoardEvent::Away(at.name.clone(), why));
                    }
                }
            }
            tell(BoardEvent::Looked(number));
        });
    }

    /// Takes in what was heard of the boards.
    pub(super) fn board_event(&mut self, event: BoardEvent) {
        match event {
            BoardEvent::Seen(name, seen) => self.saw(&name, &seen),
            BoardEvent::Away(name, why) => self.missed(&name, &why),
            BoardEvent::Given(name, wanted, because) => self.gave(&name, &wanted, because),
            BoardEvent::Looked(work) => {
                self.boards.ended(work);
            }
            BoardEvent::Tried {
                work,
                tree,
                outcome,
            } => {
                if !self.boards.ended(work) {
                    return; // it was broken off
                }
                let State::Probation { job, .. } = self.machine.state() else {
                    return;
                };
                let job = job.clone();
                match outcome {
                    Ok(()) => {
                        self.proved.insert(tree);
                        self.judge(&job);
                    }
                    Err(because) => {
                        let to = job.to.tree;
                        self.happen(Event::NotReady { to, because });
                    }
                }
            }
        }
    }

    /// Lets boards be visited at once: there is something for them.
    pub(super) fn boards_have_news(&mut self) {
        self.boards.look_at = Instant::now();
    }

    fn saw(&mut self, name: &Name, seen: &Seen) {
        let Some(known) = self.boards.known.get_mut(name) else {
            return;
        };
        let before = known.clone();
        known.away = None;
        known.visited = Some(Instant::now());
        known.health.clone_from(&seen.health);
        known.platform.clone_from(&seen.platform);
        known.runs = seen.runs.clone();
        if known.on_trial.is_some() && known.on_trial != seen.sha256 {
            known.on_trial = None;
        }
        if known.runs != before.runs || known.platform != before.platform {
            let runs = seen.runs.as_deref().unwrap_or("nothing");
            info!("board `{name}` runs {runs}");
        }
        let same = Known {
            visited: before.visited,
            ..known.clone()
        };
        if same != before {
            self.keep_boards();
        }
    }

    fn missed(&mut self, name: &Name, why: &str) {
        let Some(known) = self.boards.known.get_mut(name) else {
            return;
        };
        if known.away.as_deref() != Some(why) {
            known.away = Some(why.to_owned());
            warn!("{why}");
            self.failed(why.to_owned());
            self.keep_boards();
        }
    }
}

#[cfg(test)]
mod tests;
