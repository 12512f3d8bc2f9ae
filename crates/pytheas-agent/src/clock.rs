//! The one place where the agent reads the clock.

/// A clock that stands before this was never set: no agent is as old.
pub(crate) const EARLIEST: jiff::Timestamp = jiff::Timestamp::constant(1_767_225_600, 0); // 2026

/// Now, by the device's clock.
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
