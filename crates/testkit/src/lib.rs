//! Test harness, dev-only: what tests of several rooms share.

pub mod board;
mod faults;
mod skip;

pub use faults::faults;
pub use skip::skip;
