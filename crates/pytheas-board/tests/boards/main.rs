//! The link and deploys against real partners: the emulated board, ports that are processes,
//! pyserial's servers, mpremote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deploy;
#[expect(dead_code, reason = "the tests on the board have more images")]
#[path = "../onboard/image.rs"]
mod image;
mod link;
mod rig;
mod slots;
mod tree;
