//! The link and deploys against real partners: the emulated board, ports that are processes,
//! pyserial's servers, mpremote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deploy;
mod link;
mod rig;
