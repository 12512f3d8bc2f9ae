//! The whole room at work: real keys, really published folders, the real client.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "helpers of tests: they write broken files on purpose, and what fails shall panic"
)]

mod attached;
mod attacks;
mod boards;
mod ceremonies;
mod clocks;
mod commands;
mod cuts;
mod downloads;
mod exports;
mod flips;
mod garbage;
mod http;
mod offered;
mod publishing;
mod python;
mod roots;
mod roundtrip;
mod team_ceremonies;
mod teams;
mod theft;
mod world;
