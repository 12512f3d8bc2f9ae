//! What happens in the hub, told to everybody who listens: one stream of typed events that the
//! dashboard, `/api/v1/events` and the embedding program read.

use std::sync::atomic::{AtomicU64, Ordering};

use pytheas_api::{Event, EventKind};
use tokio::sync::broadcast;

use crate::Clock;

/// The stream's source. A reader more than 1024 events behind is told what it missed.
#[derive(Debug)]
pub(crate) struct Bus {
    sender: broadcast::Sender<Event>,
    next: AtomicU64,
    clock: Clock,
}

impl Bus {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            sender: broadcast::channel(1024).0,
            next: AtomicU64::new(1),
            clock,
        }
    }

    /// Tells everybody; nobody listening is fine.
    pub(crate) fn publish(&self, kind: EventKind) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let _nobody_listens = self.sender.send(Event {
            id,
            at_ms: self.clock.now_ms(),
            kind,
        });
    }

    /// Listens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}
