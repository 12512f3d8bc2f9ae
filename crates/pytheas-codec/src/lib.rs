//! The entropy coders of deltas. Two codes, both bounded by what the caller allows:
//!
//! - [`text`]: LZMA that looks back at what the device has (text, byte code, new files);
//! - [`patch`]: long approximate copies of one old file, addresses in them moved along with what
//!   they point to, the rest of the differences in an adaptive binary code (machine code).
//!
//! Nothing here reads a length that it does not check against the caller's, and no input makes it
//! panic: what is wrong is [`Damaged`].

#[cfg(any(feature = "encode", test))]
pub mod elf;
mod fields;
mod lzma;
pub mod number;
pub mod patch;
mod range;
pub mod text;

/// Bytes that no encoder has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub &'static str);
