//! The agent as a whole: real processes, real files, a hub on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop"
)]

mod commands;
mod forgery;
mod memory;
mod power_cuts;
mod python_tuf;
mod refusals;
mod support;
mod updates;
