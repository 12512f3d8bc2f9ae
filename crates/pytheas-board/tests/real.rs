//! The formats against the programs that read and write them for real: MicroPython's Unix port,
//! mpremote, mpy-cross, mpy-tool and the readers of firmware files.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and has nothing to lose"
)]

#[path = "real/firmware.rs"]
mod firmware;
#[path = "real/mpy.rs"]
mod mpy;
#[path = "real/rig.rs"]
mod rig;
#[path = "real/romfs.rs"]
mod romfs;
