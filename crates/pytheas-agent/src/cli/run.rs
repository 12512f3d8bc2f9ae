//! `run`: the agent at work in a thread of this process, until a signal ends it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use pytheas_durable::FileLock;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};
use tracing::warn;

use super::{RunArgs, host, lock};
use crate::{
    device::{Device, DowngradePolicy, Settings, Waker},
    enrol,
    error::{AgentError, exit},
    launcher::{self, Launched},
    offline::Order,
    paths::StateDir,
    peers, service,
    settings::{AgentSettings, NetworkArgs},
    supervisor::Confinement,
};

/// How long an agent that was asked to end waits for a hub that does not answer.
const LINGER: Duration = Duration::from_secs(2);

/// `run`: returns when a signal (or `--once`) ends it. A thread that waits for a silent hub may
/// still be there then; the process should end.
///
/// # Errors
/// [`AgentError`].
pub fn run(args: &RunArgs) -> Result<u8, AgentError> {
    crate::memory::settle();
    let dir = args.state.dir();
    let guarded = match launcher::launch(&dir)? {
        Launched::Here(guarded) => guarded,
        Launched::Ended(code) => return Ok(code),
    };
    let is_guarded = guarded.is_some();
    let lock = lock(&dir)?;
    let (agent, broken) = AgentSettings::resolve_or_last_good(&dir, &args.network)?;
    if let Some(hub) = &args.hub {
        let enrolment = args.options.enrolment(hub, &agent);
        if !enrol::is_prepared(&dir, &enrolment)? {
            enrol::prepare(&dir, &enrolment, host()?)?;
        }
    }
    let settings = Settings {
        poll_interval: args.poll_interval.or(agent.poll_interval),
        agent,
        watchdog: args.watchdog,
        confinement: args.confinement.clone(),
        scrub: args.scrub,
        once: args.once,
        enrolment_key: args.options.key.clone(),
        name: args.options.name.clone(),
        model: args.model.clone(),
        downgrades: args.downgrades,
    };
    let peers = settings.agent.peers.clone();
    let mut device = Device::open(&dir, settings, lock)?;
    device.has_broken_settings(broken.as_ref());
    device.may_hand_over(guarded);
    if peers.share
        && let Err(error) = peers::share(&dir, &peers)
    {
        // The app and its updates are worth more than the others'.
        warn!("cannot share on {}: {error}", peers.listen);
    }
    service::ready();
    let working = Working::start(device, &dir)?;
    let waker = working.waker.clone();
    let reached = working.end();
    if waker.hands_over() && !is_guarded {
        return Err(launcher::begin_anew(&dir));
    }
    Ok(if args.once && !reached {
        exit::WORLD
    } else {
        exit::OK
    })
}

/// Lets an agent update from a file in this process, the hub left alone.
pub(crate) fn run_order(
    dir: &StateDir,
    order: Order,
    confinement: &Confinement,
    lock: FileLock,
) -> Result<Working, AgentError> {
    let (agent, broken) = AgentSettings::resolve_or_last_good(dir, &NetworkArgs::default())?;
    let settings = Settings {
        poll_interval: None,
        agent,
        watchdog: None,
        confinement: confinement.clone(),
        scrub: Duration::ZERO,
        once: true,
        enrolment_key: None,
        name: None,
        model: None,
        downgrades: DowngradePolicy::default(),
    };
    let mut device = Device::open(dir, settings, lock)?;
    device.has_broken_settings(broken.as_ref());
    device.detach();
    device.apply(order);
    Working::start(device, dir)
}

/// An agent at work in a thread of this process; signals end it.
pub(crate) struct Working {
    waker: Waker,
    reports: Receiver<Option<std::thread::Result<bool>>>,
    ended: Arc<AtomicBool>,
}

impl Working {
    fn start(mut device: Device, dir: &StateDir) -> Result<Self, AgentError> {
        let waker = device.waker();
        let io = |error| AgentError::io("handle signals in", dir.root())(error);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(io)?;
        let (news, reports) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let finished = Arc::clone(&ended);
        let asked = news.clone();
        let signalled = waker.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .stack_size(64 << 10)
            .spawn(move || {
                for signal in signals.forever() {
                    match signal {
                        SIGHUP | SIGUSR1 => signalled.poll(),
                        _ => {
                            signalled.stop();
                            let _ended_already = asked.send(None);
                        }
                    }
                }
            })
            .map_err(io)?;
        std::thread::Builder::new()
            .name("agent".into())
            .spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| device.run()));
                drop(device);
                finished.store(true, Ordering::Release);
                let _nobody_waits = news.send(Some(result));
            })
            .map_err(io)?;
        Ok(Self {
            waker,
            reports,
            ended,
        })
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until it has ended; whether its last poll reached the hub.
    pub(crate) fn end(self) -> bool {
        let mut ended = self.reports.recv().ok().flatten();
        if ended.is_none() {
            // Asked to end. Once the app is gone there is nothing to wait for but a hub that does
            // not answer, and what is half done is taken up at the next start.
            self.waker.wait_for_app();
            ended = self.reports.recv_timeout(LINGER).ok().flatten();
        }
        match ended {
            Some(Ok(reached)) => reached,
            Some(Err(panic)) => resume_unwind(panic),
            None => false,
        }
    }
}
