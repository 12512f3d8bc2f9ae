//! Builds that really happen: packages from the index through uv, Pythons of this machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod errors;
mod folders;
mod inputs;
mod interpreters;
mod isolation;
mod musl;
mod native;
mod numba;
mod packages;
mod platforms;
mod roots;
mod startup;
mod support;
mod updates;
