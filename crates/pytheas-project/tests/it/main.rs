//! Locking with the real uv and the real index; fetching uv itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checked;
mod inputs;
mod locking;
mod private;
mod projects;
mod support;
mod sync;
mod uv;
