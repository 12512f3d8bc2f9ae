//! The supervisor's thread: one `poll` loop over orders, the app's words, its output and its end.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, mpsc::Receiver},
    time::{Duration, Instant},
};

use pytheas_release::Ready;
use pytheas_update::{Failure, Reason};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};
use tracing::{info, warn};

use super::{
    AppEvent, AppStatus, Launch, Order, STOP_TIMEOUT, Settings, app::App, log::AppLog,
    notify::NotifySocket, probe::Probe,
};
use crate::{backoff::Backoff, paths::StateDir};

/// Time between two HTTP readiness checks.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Worker {
    dir: StateDir,
    settings: Settings,
    socket: NotifySocket,
    log: AppLog,
    inbox: Receiver<Order>,
    wake: Arc<OwnedFd>,
    status: Arc<Mutex<AppStatus>>,
    events: Box<dyn Fn(AppEvent) + Send>,
    launch: Option<Launch>,
    app: Option<Running>,
    restart_at: Option<Instant>,
    backoff: Backoff,
}

/// An app that was started, and how far it is.
struct Running {
    app: App,
    started: Instant,
    ready_at: Option<Instant>,
    /// Judged already: healthy, or committed before it was started.
    settled: bool,
    last_ping: Instant,
    probe: Option<Probe>,
    next_probe: Instant,
}

impl Worker {
    /// A worker that has started nothing yet.
    pub(super) fn new(
        dir: &StateDir,
        settings: Settings,
        inbox: Receiver<Order>,
        wake: Arc<OwnedFd>,
        status: Arc<Mutex<AppStatus>>,
        events: Box<dyn Fn(AppEvent) + Send>,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: NotifySocket::bind(&dir.notify_socket())?,
            log: AppLog::open(&dir.logs()),
            dir: dir.clone(),
            settings,
            inbox,
            wake,
            status,
            events,
            launch: None,
            app: None,
            restart_at: None,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        })
    }

    /// Works until it is told to quit.
    pub(super) fn run(&mut self) {
        loop {
            self.wait();
            while let Ok(order) = self.inbox.try_recv() {
                match order {
                    Order::Reload(launch) if self.reload(&launch) => {}
                    Order::Start(launch) | Order::Reload(launch) => {
                        self.end_app();
                        self.backoff.reset();
                        if self.launch.as_ref().map(|l| l.tree) != Some(launch.tree) {
                            self.log.begin_release();
                        }
                        self.launch = Some(launch);
                        self.spawn();
                    }
                    Order::Stop(done) => {
                        self.end_app();
                        self.launch = None;
                        self.restart_at = None;
                        let _asker_gave_up = done.send(());
                    }
                    Order::Quit => return self.end_app(),
                }
            }
            self.listen();
            self.look();
            if self.restart_at.is_some_and(|at| at <= Instant::now()) {
                self.restart_at = None;
                self.spawn();
            }
            self.publish();
        }
    }

    /// Sleeps until something can be done.
    fn wait(&mut self) {
        let now = Instant::now();
        let mut until = self.restart_at;
        let mut sooner = |at: Instant| until = Some(until.map_or(at, |u| u.min(at)));
        let mut fds = vec![
            PollFd::new(&*self.wake, PollFlags::IN),
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
        ];
        if let (Some(running), Some(launch)) = (&self.app, &self.launch) {
            if let Some(output) = running.app.output() {
                fds.push(PollFd::from_borrowed_fd(output, PollFlags::IN));
            }
            match running.app.pidfd() {
                Some(pidfd) => fds.push(PollFd::from_borrowed_fd(pidfd, PollFlags::IN)),
                None => sooner(now + Duration::from_millis(100)), // before Linux 5.3
            }
            match (running.settled, running.ready_at) {
                (true, _) => {}
                (false, Some(at)) => {
                    sooner(at + Duration::from_millis(launch.health.stay_up_ms));
                }
                (false, None) => {
                    sooner(running.started + Duration::from_millis(launch.health.deadline_ms));
                    if matches!(launch.health.ready, Ready::Http { .. }) {
                        sooner(running.next_probe);
                    }
                }
            }
            if let Some(watchdog) = self.settings.watchdog {
                sooner(running.last_ping + watchdog);
            }
        }
        let timeout = until.map(|at| {
            let left = at.saturating_duration_since(now) + Duration::from_millis(1);
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let _interrupted_is_fine = poll(&mut fds, timeout.as_ref());
        let mut count = [0; 8];
        let _nothing_there_is_fine = rustix::io::read(&*self.wake, &mut count);
    }

    fn spawn(&mut self) {
        let Some(launch) = &self.launch else { return };
        self.socket.drain(); // what an earlier app said is not this one's word
        let now = Instant::now();
        match App::spawn(
            &self.dir,
            launch,
            &self.socket.address(),
            self.settings.watchdog,
            &self.settings.confinement,
        ) {
            Ok(app) => {
                self.status.lock().unwrap_or_else(|e| e.into_inner()).guards =
                    app.guards().to_vec();
                info!(release = %launch.release, pid = app.pid(), "started `{}`", launch.release);
                self.log
                    .mark(&format!("started {} (pid {})", launch.release, app.pid()));
                self.app = Some(Running {
                    app,
                    started: now,
                    ready_at: None,
                    settled: launch.trial.is_none(),
                    last_ping: now,
                    probe: None,
                    next_probe: now,
                });
                pytheas_durable::faults::point("agent:app:spawned");
            }
            Err(error) => {
                let path = self.dir.current().join(launch.entry.as_str());
                // The system's own word: an unknown user is not found either, and says so itself.
                let not_there =
                    error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error());
                let missing = not_there && path.exists();
                let what = match missing {
                    true => {
                        "the program that its first line names, or its loader, is not there".into()
                    }
                    false => error.to_string(),
                };
                self.ended(format!("cannot start `{}`: {what}", path.display()), now);
            }
        }
        self.publish();
    }

    /// Takes in what the app says and writes.
    fn listen(&mut self) {
        let messages = self.socket.drain();
        let Some(running) = &mut self.app else { return };
        running.app.copy_output(&mut self.log);
        for message in messages {
            running.last_ping = if message.watchdog {
                Instant::now()
            } else {
                running.last_ping
            };
            if let Some(says) = message.status {
                self.status.lock().unwrap_or_else(|e| e.into_inner()).says = Some(says);
            }
            let asked = self.launch.as_ref().map(|launch| &launch.health.ready);
            if message.ready && matches!(asked, Some(Ready::Notify)) {
                running.ready_at.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Looks whether the app has ended, is ready, is late, is silent.
    fn look(&mut self) {
        let (Some(running), Some(launch)) = (&mut self.app, &self.launch) else {
            return;
        };
        let started = running.started;
        if let Some(how) = running.app.ended(&mut self.log) {
            self.app = None;
            return self.ended(how, started);
        }
        let now = Instant::now();
        if let Some(watchdog) = self.settings.watchdog
            && now >= running.last_ping + watchdog
        {
            self.end_app();
            let how = format!("no `WATCHDOG=1` for {} ms", watchdog.as_millis());
            return self.ended(how, started);
        }
        if running.settled {
            return;
        }
        match &launch.health.ready {
            Ready::StayUp => {
                running.ready_at.get_or_insert(running.started);
            }
            Ready::Notify => {}
            Ready::Http { url } => {
                if running.probe.as_ref().and_then(Probe::result) == Some(true) {
                    running.ready_at.get_or_insert(now);
                }
                if running.ready_at.is_none() && now >= running.next_probe {
                    running.next_probe = now + PROBE_INTERVAL;
                    if running
                        .probe
                        .as_ref()
                        .is_none_or(|probe| probe.result().is_some())
                    {
                        running.probe = Some(Probe::start(url, Arc::clone(&self.wake)));
                    }
                }
            }
        }
        let stay_up = Duration::from_millis(launch.health.stay_up_ms);
        if running.ready_at.is_some_and(|at| now >= at + stay_up) {
            running.settled = true;
            let tree = launch.tree;
            if let Some(launch) = &mut self.launch {
                launch.trial = None; // from here on it is started again when it ends
            }
            (self.events)(AppEvent::Healthy { tree });
        } else if running.ready_at.is_none()
            && now >= running.started + Duration::from_millis(launch.health.deadline_ms)
        {
            let (tree, message) = (launch.tree, not_ready(launch, running.probe.as_ref()));
            self.end_app();
            let because = Failure::new(Reason::NotReady, message).with_log(self.log.last_lines());
            self.launch = None;
            (self.events)(AppEvent::NotReady { tree, because });
        }
    }

    /// The app that was `started` then is gone, in the way `how`.
    fn ended(&mut self, how: String, started: Instant) {
        let Some(launch) = &self.launch else { return };
        self.log.mark(&how);
        let message = format!("`{}` ended: {how}", launch.release);
        let because = Failure::new(Reason::Died, message).with_log(self.log.last_lines());
        self.status
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .last_exit = Some(how.clone());
        match launch.trial {
            Some(tries_left) => {
                let tree = launch.tree;
                self.launch = None;
                (self.events)(AppEvent::Died {
                    tree,
                    tries_left,
                    because,
                });
            }
            None => {
                if started.elapsed() >= self.settings.recovered_after {
                    self.backoff.reset();
                }
                let pause = self.backoff.next_limit();
                warn!(release = %launch.release, pause_ms = pause.as_millis() as u64,
                    "`{}` ended: {how}; it is started again", launch.release);
                self.restart_at = Some(Instant::now() + pause);
                self.status
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .restarts += 1;
                (self.events)(AppEvent::Crashed { because });
            }
        }
    }

    /// Tells the running app to read its settings again; whether it runs.
    fn reload(&mut self, launch: &Launch) -> bool {
        let (Some(running), Some(now)) = (&mut self.app, &self.launch) else {
            return false;
        };
        if now.tree != launch.tree {
            return false;
        }
        self.log.mark("SIGHUP: new settings");
        running.app.signal(Signal::HUP);
        // That it still lives after a while is all that is asked: not every app says so.
        running.ready_at = Some(Instant::now());
        running.settled = false;
        self.launch = Some(launch.clone());
        true
    }

    fn end_app(&mut self) {
        self.restart_at = None;
        if let Some(mut running) = self.app.take() {
            let how = running.app.stop(STOP_TIMEOUT, &mut self.log);
            self.log.mark(&format!("stopped: {how}"));
        }
        self.publish();
    }

    fn publish(&self) {
        let mut status = self.status.lock().unwrap_or_else(|e| e.into_inner());
        status.pid = self.app.as_ref().map(|running| running.app.pid());
        status.started = self.app.as_ref().map(|running| running.started);
        status.ready = self
            .app
            .as_ref()
            .is_some_and(|r| r.settled || r.ready_at.is_some());
        if self.app.is_none() {
            status.says = None;
        }
    }
}

fn not_ready(launch: &Launch, probe: Option<&Probe>) -> String {
    let (release, seconds) = (&launch.release, launch.health.deadline_ms as f64 / 1000.0);
    match &launch.health.ready {
        Ready::Notify => {
            format!("`{release}` did not say `READY=1` within {seconds} s")
        }
        Ready::Http { url } => {
            let last = probe
                .and_then(Probe::answer)
                .unwrap_or_else(|| "no answer".into());
            format!("`{url}` did not answer 2xx within {seconds} s; last: {last}")
        }
        Ready::StayUp => format!("`{release}` did not stay up within {seconds} s"),
    }
}
