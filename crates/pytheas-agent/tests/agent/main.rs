//! The agent as a whole: real processes, real files, a hub on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop"
)]

mod away;
mod commands;
mod compat;
mod components;
mod configured;
mod confined;
mod control;
mod emulated;
mod enough;
mod forgery;
mod git;
mod local;
mod memory;
mod migrations;
mod network;
mod offered;
mod offline;
mod own;
mod peers;
mod power_cuts;
mod python_tuf;
mod refusals;
mod removal;
mod rot;
mod starts;
mod sticks;
mod support;
mod updates;
