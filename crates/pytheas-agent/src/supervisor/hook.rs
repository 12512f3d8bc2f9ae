//! Runs a hook of a release: as the app would be run, in its data folder, to its end or its time-out.
//!
//! What it writes goes into the app's log. It ends with the agent; what it left running is ended
//! before the next one begins.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pytheas_release::{BuildRecord, Hook, ReleaseRef, TreeId};
use pytheas_update::{Failure, Reason};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::info;

use super::{Confinement, Launch, STOP_TIMEOUT, app::App, leftover, log::AppLog};
use crate::paths::StateDir;

/// How `ended` says that all is well.
const WELL: &str = "exit status 0";

/// A hook to be run.
pub(crate) struct HookRun<'a> {
    /// Its component.
    pub(crate) dir: &'a StateDir,
    /// `after-update`, …
    pub(crate) name: &'static str,
    /// The hook.
    pub(crate) hook: &'a Hook,
    /// The slot it comes from.
    pub(crate) tree: TreeId,
    /// What that slot says about itself.
    pub(crate) record: &'a BuildRecord,
    /// The release that the component comes from, if any.
    pub(crate) from: Option<&'a ReleaseRef>,
    /// The one it goes to.
    pub(crate) to: Option<&'a ReleaseRef>,
    /// What it may not: the same as the app.
    pub(crate) confinement: &'a Confinement,
}

/// Why a hook did not succeed.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The agent was asked to end.
    ByAgent,
    /// It failed, or took too long.
    Failed(Failure),
}

/// Ends what a hook left running.
pub(crate) fn end_left_over(dir: &StateDir) {
    leftover::end(&dir.hook_pid());
}

/// Runs a hook to its end.
///
/// # Errors
/// [`Stopped`].
pub(crate) fn run(run: &HookRun<'_>, stop: &AtomicBool) -> Result<(), Stopped> {
    let (dir, name) = (run.dir, run.name);
    end_left_over(dir);
    let mut launch = Launch::new(run.tree, run.record.clone(), None);
    let release = launch.release.clone();
    let failed = |message: String, log: Vec<String>| {
        let message = format!("the hook `{name}` of `{release}` {message}");
        Stopped::Failed(Failure::new(Reason::Hook, message).with_log(log))
    };
    let Some((program, arguments)) = run.hook.command.split_first() else {
        return Err(failed("has no command".into(), Vec::new()));
    };
    // An absolute path stays what it is.
    let program = dir.slot(run.tree).join(program);
    launch.hook = Some((program.clone(), arguments.to_vec()));
    let text = |release: Option<&ReleaseRef>| release.map_or_else(String::new, ToString::to_string);
    launch.env.extend([
        ("PYTHEAS_HOOK".to_owned(), name.to_owned()),
        ("PYTHEAS_FROM_RELEASE".to_owned(), text(run.from)),
        ("PYTHEAS_TO_RELEASE".to_owned(), text(run.to)),
    ]);
    let mut log = AppLog::open(&dir.logs());
    log.mark(&format!("hook {name} of {release}"));
    let mut app = App::spawn(dir, &launch, "", None, run.confinement).map_err(|error| {
        failed(
            format!("cannot be started: `{}`: {error}", program.display()),
            Vec::new(),
        )
    })?;
    info!(release = %release, pid = app.pid(), "running the hook `{name}` of `{release}`");
    pytheas_durable::faults::point("agent:hook:spawned");
    let timeout = Duration::from_millis(run.hook.timeout_ms);
    let deadline = Instant::now() + timeout;
    loop {
        app.copy_output(&mut log);
        if let Some(how) = app.ended(&mut log) {
            log.mark(&format!("hook {name}: {how}"));
            return match how == WELL {
                true => Ok(()),
                false => Err(failed(format!("failed: {how}"), log.last_lines())),
            };
        }
        if stop.load(Ordering::Relaxed) {
            let how = app.stop(STOP_TIMEOUT, &mut log);
            log.mark(&format!("hook {name}: the agent ends: {how}"));
            return Err(Stopped::ByAgent);
        }
        if Instant::now() >= deadline {
            let how = app.stop(STOP_TIMEOUT, &mut log);
            log.mark(&format!("hook {name}: took too long: {how}"));
            let message = format!("did not end within {} s", timeout.as_secs_f64());
            return Err(failed(message, log.last_lines()));
        }
        wait(&app);
    }
}

/// Until it writes or ends, at most a moment.
fn wait(app: &App) {
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let mut fds: Vec<PollFd<'_>> = [app.output(), app.pidfd()]
        .into_iter()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    if fds.is_empty() {
        std::thread::sleep(Duration::from_millis(50));
        return;
    }
    let _interrupted_is_fine = poll(&mut fds, Some(&moment));
}
