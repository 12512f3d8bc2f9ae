//! The one place where the agent reads the clock.

/// Now, by the device's clock.
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
