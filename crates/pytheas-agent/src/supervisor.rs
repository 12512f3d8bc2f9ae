//! Runs the app: starts it, listens to it, judges it, starts it again, stops it.
//!
//! One thread does everything in one `poll` loop and lives as long as the agent: the kernel ties
//! the app's life to the *thread* that started it (`PR_SET_PDEATHSIG`), so that thread must not end.
//!
//! ```text
//! Order::Start(trial) ─▶ app ─ready─▶ Healthy ──▶ supervised from here on
//!                         ├─ends───▶ Died        (the agent decides what comes next)
//!                         └─late───▶ NotReady
//! Order::Start(committed) ─▶ app ─ends─▶ started again after 1 s, 2 s, … 60 s, for ever
//! ```

mod app;
mod confine;
mod hook;
mod leftover;
mod log;
mod notify;
mod probe;
mod worker;

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pytheas_release::{BuildRecord, ConfigOption, Health, RelPath, ReleaseRef, TreeId};
use pytheas_update::Failure;
use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};

pub(crate) use self::app::die_with_the_agent;
pub use self::confine::{Confinement, Guard};
pub(crate) use self::hook::{HookRun, Stopped, end_left_over as end_hooks, run as run_hook};
pub(crate) use self::leftover::end_of as end_left_over;
use self::worker::Worker;
use crate::{
    app_config::{self, Revision},
    paths::StateDir,
};

/// How long the app may take to end after SIGTERM.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long whoever ends the agent waits for an app: it is killed well before that.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(20);

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The tree that runs.
    pub tree: TreeId,
    /// The release it belongs to.
    pub release: ReleaseRef,
    /// The program, inside the tree.
    pub entry: RelPath,
    /// When it counts as working.
    pub health: Health,
    /// Environment variables beside the agent's own.
    pub env: Vec<(String, String)>,
    /// What operators may set.
    pub options: BTreeMap<String, ConfigOption>,
    /// Set while the release has to prove itself: `tries_left` of the machine.
    pub trial: Option<u8>,
    /// Instead of the app: the program and arguments of a hook.
    pub hook: Option<(PathBuf, Vec<String>)>,
}

impl Launch {
    /// How to start the release in a slot, by its own record.
    pub fn new(tree: TreeId, record: BuildRecord, trial: Option<u8>) -> Self {
        let env = record
            .config
            .values()
            .filter(|option| std::env::var_os(&option.env).is_none())
            .filter_map(|option| Some((option.env.clone(), option.default.clone()?)))
            .collect();
        Self {
            tree,
            release: ReleaseRef {
                name: record.name,
                version: record.version,
            },
            entry: record.entry,
            health: record.health,
            env,
            options: record.config,
            trial,
            hook: None,
        }
    }

    /// The same with the hub's settings: what the release declares as variables, everything as the
    /// file that `PYTHEAS_CONFIG` names. What the agent's own environment says stays.
    #[must_use]
    pub(crate) fn with_settings(mut self, config: &Revision, dir: &StateDir) -> Self {
        if !config.is_any() {
            return self;
        }
        for (name, option) in &self.options {
            let own = std::env::var_os(&option.env).is_some();
            let set = app_config::variable(&config.settings, name, option);
            if let Some((variable, value)) = set.filter(|_| !own) {
                self.env.retain(|(default, _)| *default != variable);
                self.env.push((variable, value));
            }
        }
        let file = dir.config_file().into_os_string().into_string();
        if let Ok(file) = file {
            self.env.push(("PYTHEAS_CONFIG".to_owned(), file));
        }
        self.env
            .push(("PYTHEAS_CONFIG_REVISION".to_owned(), config.tag.clone()));
        self
    }

    /// What is started.
    fn command(&self, dir: &StateDir) -> Command {
        match &self.hook {
            None => Command::new(dir.current().join(self.entry.as_str())),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
        }
    }

    /// Where its process is noted.
    fn pid_file(&self, dir: &StateDir) -> PathBuf {
        match self.hook {
            None => dir.app_pid(),
            Some(_) => dir.hook_pid(),
        }
    }
}

/// What became of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppEvent {
    /// A release on trial proved that it works.
    Healthy {
        /// The tree.
        tree: TreeId,
    },
    /// A release on trial ended.
    Died {
        /// The tree.
        tree: TreeId,
        /// The start this is about.
        tries_left: u8,
        /// How it ended.
        because: Failure,
    },
    /// A release on trial did not prove itself in time; it was stopped.
    NotReady {
        /// The tree.
        tree: TreeId,
        /// What was waited for.
        because: Failure,
    },
    /// A committed release ended and will be started again.
    Crashed {
        /// How it ended.
        because: Failure,
    },
}

/// What is known about the app now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Its process.
    pub pid: Option<u32>,
    /// Seconds since it was started.
    pub uptime_s: Option<u64>,
    /// How often a committed release had to be started again.
    pub restarts: u64,
    /// Whether it proved that it works.
    pub ready: bool,
    /// Its last `STATUS=`.
    pub says: Option<String>,
    /// How it ended last.
    pub last_exit: Option<String>,
    /// What it is kept from, and whether that is in force.
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// When it was started.
    #[serde(skip)]
    started: Option<Instant>,
}

#[derive(Debug)]
enum Order {
    Start(Launch),
    Reload(Launch),
    Stop(Sender<()>),
    Quit,
}

/// The handle of the thread that runs the app.
#[derive(Debug)]
pub struct Supervisor {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    status: Arc<Mutex<AppStatus>>,
    thread: Option<JoinHandle<()>>,
}

/// Settings of the supervisor.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The app must say `WATCHDOG=1` this often.
    pub watchdog: Option<Duration>,
    /// A committed release that stayed up so long has recovered: the next crash waits briefly
    /// again.
    pub recovered_after: Duration,
    /// What the app may not.
    pub confinement: Confinement,
}

impl Default for Settings {
    /// No watchdog; one minute.
    fn default() -> Self {
        Self {
            watchdog: None,
            recovered_after: Duration::from_secs(60),
            confinement: Confinement::default(),
        }
    }
}

impl Supervisor {
    /// Starts the thread; what becomes of the app is told to `events`. What an earlier agent left
    /// running is ended first.
    ///
    /// # Errors
    /// When the notify socket, the log or the thread cannot be made.
    pub fn start(
        dir: &StateDir,
        settings: Settings,
        events: impl Fn(AppEvent) + Send + 'static,
    ) -> io::Result<Self> {
        leftover::end(&dir.app_pid());
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let status = Arc::new(Mutex::new(AppStatus::default()));
        let (orders, inbox) = channel();
        let mut worker = Worker::new(
            dir,
            settings,
            inbox,
            Arc::clone(&wake),
            Arc::clone(&status),
            Box::new(events),
        )?;
        let thread = std::thread::Builder::new()
            .name("supervisor".into())
            .stack_size(256 << 10)
            .spawn(move || worker.run())?;
        Ok(Self {
            orders,
            wake,
            status,
            thread: Some(thread),
        })
    }

    /// Starts a release; whatever runs is stopped first.
    pub fn launch(&self, launch: Launch) {
        self.order(Order::Start(launch));
    }

    /// Tells the release that runs, by SIGHUP, to read its settings again, and judges it as `launch`
    /// says; starts it when it does not run.
    pub fn reload(&self, launch: Launch) {
        self.order(Order::Reload(launch));
    }

    /// Stops the app and waits until it is gone.
    pub fn stop(&self) {
        if let Some(stopped) = self.stop_handle().order_stop() {
            let _thread_gone_means_app_gone = stopped.recv();
        }
    }

    /// A handle that others may stop the app by.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle {
            orders: self.orders.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    /// What is known about the app now.
    pub fn status(&self) -> AppStatus {
        let mut status = self
            .status
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        status.uptime_s = status.started.map(|started| started.elapsed().as_secs());
        status
    }

    fn order(&self, order: Order) {
        let _receiver_lives_as_long = self.orders.send(order);
        raise(&self.wake);
    }
}

/// Stops the app without waiting for it.
#[derive(Debug, Clone)]
pub struct StopHandle {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
}

impl StopHandle {
    /// Stops the app; it is not started again before the next [`Supervisor::launch`].
    pub fn stop(&self) {
        let _answer = self.order_stop();
    }

    /// As [`Self::stop`]; returns when the app is gone, or could not be ended in `most`.
    pub fn stop_and_wait(&self, most: Duration) {
        if let Some(stopped) = self.order_stop() {
            let _thread_gone_means_app_gone = stopped.recv_timeout(most);
        }
    }

    /// Where the app's end is told; nothing when its thread has ended, and the app with it.
    fn order_stop(&self) -> Option<Receiver<()>> {
        let (done, stopped) = channel();
        // An order that nobody took comes back, and with it the other end of the answer: it must
        // not be kept, or the answer is waited for for ever.
        self.orders.send(Order::Stop(done)).ok()?;
        raise(&self.wake);
        Some(stopped)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.order(Order::Quit);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The processes of the app that an agent in `dir` has started.
pub(crate) fn processes(dir: &StateDir) -> Vec<u32> {
    leftover::marked(&dir.app_pid())
}

fn raise(wake: &OwnedFd) {
    let _full_is_raised_too = rustix::io::write(wake, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests;
