//! The agent as a whole: real processes, real files, a hub on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop"
)]

mod commands;
mod git;
mod memory;
mod offline;
mod power_cuts;
mod refusals;
mod support;
mod updates;
