//! Test harness, dev-only: what tests of several rooms share.

mod skip;

pub use skip::skip;
