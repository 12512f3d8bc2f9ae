//! Long downloads that can be broken off: when the agent is to stop, and when the hub, asked as
//! often as always, wants the action given up.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pytheas_repo::fetch::{Body, Fetch, Request, TransportError};
use pytheas_update::ActionId;

use crate::hub::{Hub, offer};

/// How often a download looks at the clock.
const WINDOW_LOOK: Duration = Duration::from_secs(1);

/// What may break a download off.
pub(crate) struct Guard {
    stop: Arc<AtomicBool>,
    hub: Option<Hub>,
    action: Option<ActionId>,
    interval: Duration,
    /// Whether downloads may go on by the clock.
    in_window: Box<dyn Fn() -> bool>,
    looked_at: Cell<Instant>,
    /// When the hub is asked next.
    pub(crate) poll_at: Cell<Instant>,
    /// Whether the download was broken off.
    pub(crate) broken_off: Cell<bool>,
}

impl Guard {
    pub(crate) fn new(
        stop: Arc<AtomicBool>,
        hub: Option<Hub>,
        action: Option<ActionId>,
        interval: Duration,
        poll_at: Instant,
        in_window: Box<dyn Fn() -> bool>,
    ) -> Rc<Self> {
        let (poll_at, broken_off) = (Cell::new(poll_at), Cell::new(false));
        Rc::new(Self {
            stop,
            hub,
            action,
            interval,
            in_window,
            looked_at: Cell::new(Instant::now()),
            poll_at,
            broken_off,
        })
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        let broken_off = |why: &str| {
            self.broken_off.set(true);
            Err(io::Error::other(why))
        };
        if self.stop.load(Ordering::Relaxed) {
            return broken_off("the agent stops");
        }
        let now = Instant::now();
        if now.duration_since(self.looked_at.get()) >= WINDOW_LOOK {
            self.looked_at.set(now);
            if !(self.in_window)() {
                return broken_off("the download window has closed");
            }
        }
        if now < self.poll_at.get() {
            return Ok(());
        }
        self.poll_at.set(now + self.interval);
        // A hub that cannot be reached is no reason to stop a download that works.
        let Some(Ok(root)) = self.hub.as_ref().map(Hub::poll) else {
            return Ok(());
        };
        if root.links.cancel_action.is_some() {
            return broken_off("the hub wants an action given up");
        }
        let offered = root.links.deployment_base.as_ref().and_then(offer);
        if offered.is_some_and(|offer| Some(&offer.action) != self.action.as_ref()) {
            return broken_off("the hub wants something else");
        }
        Ok(())
    }
}

/// A transport that asks its guard before each piece.
pub(crate) struct Guarded<F> {
    pub(crate) inner: F,
    pub(crate) guard: Rc<Guard>,
}

impl<F: Fetch> Fetch for Guarded<F> {
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
        self.guard.check()?;
        let body = self.inner.fetch(request)?;
        Ok(body.map(|body| Body {
            start: body.start,
            reader: Box::new(GuardedReader {
                inner: body.reader,
                guard: Rc::clone(&self.guard),
            }),
        }))
    }
}

struct GuardedReader {
    inner: Box<dyn Read>,
    guard: Rc<Guard>,
}

impl Read for GuardedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.guard.check()?;
        self.inner.read(buffer)
    }
}
