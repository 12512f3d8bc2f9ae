//! The hub's clock: the only place of this crate that reads the time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system.
    #[default]
    System,
    /// A number that tests move, milliseconds since 1970.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Now, in milliseconds since 1970.
    #[expect(clippy::disallowed_methods, reason = "the hub's clock is this edge")]
    pub fn now_ms(&self) -> i64 {
        match self {
            Self::Manual(ms) => ms.load(Ordering::Relaxed),
            Self::System => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| {
                    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
                }),
        }
    }
}

/// The machine's kind of time.
pub(crate) fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
