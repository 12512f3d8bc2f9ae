//! A real hub on loopback, a real database in a temporary folder, raw HTTP over a socket.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "helpers of tests: they write broken files on purpose, and what fails shall panic"
)]

mod artifacts;
mod boards;
mod config;
mod confirmation;
mod ddi;
mod enrolment;
mod in_use;
mod made_deltas;
mod pages;
mod repo;
mod rest;
mod rollouts;
mod starting;
mod tls;
mod traps;
mod wire;
mod world;
