//! MicroPython's side of a release: the formats a board reads (ROMFS, `.mpy`), the firmware files
//! an image is put into, and the link to a board.
//!
//! The image itself, with its manifest and signatures, is [`pytheas_release::board`]: publishing
//! and verifying know it, too.

pub mod deploy;
pub mod firmware;
pub mod lines;
pub mod link;
pub mod mpy;
pub mod romfs;
