//! The real command, end to end: bad input, bundles, fleets, other clients, the demo.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and has nothing to lose"
)]

mod board_inject;
mod board_link;
mod board_ota;
mod board_trouble;
mod boards_gateway;
mod bundles;
mod busy;
mod cache;
mod channels;
mod common;
mod confirming;
mod dashboard;
mod demo;
mod device_keys;
mod errors;
mod fleet;
mod fleet_config;
mod hooks;
mod in_use;
mod interrupted;
mod key_drill;
mod known;
mod made_deltas;
mod many_deltas;
mod on_boards;
mod packaging;
mod partners;
mod published;
mod races;
mod swupdate;
mod test_verb;
mod together;
