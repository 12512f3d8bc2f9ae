//! The form `micropython`: one ROMFS image for boards, with only what the app's imports reach.
//!
//! ```text
//! pytheas.json   the build record; its entry is
//! app.romfs      the image, unsigned until it is published
//! lines.json     leads tracebacks back to the sources
//! report.json    what is inside and why, what was left out and why
//! files/         if asked for: the files one by one, for boards without ROMFS
//! manifest.py    if asked for, with frozen/: to build the app into firmware
//! ```
//!
//! [`compile_tree`] needs no project: it compiles any folder.

mod arch;
mod build;
mod candidates;
mod compile;
mod error;
mod firmware;
mod frozen;
mod imports;
mod include;
mod left_out;
mod lines;
mod measure;
pub mod mip;
mod mpy_cross;
mod plan;
mod reach;
mod report;

pub use arch::{Board, arch_of, board, platform};
pub(crate) use build::FORM;
pub use build::{BoardBuilt, BoardCheck, IMAGE_FILE, build_board, check_board, is_board_form};
pub use compile::{CompileOptions, Compiler, Source, compile_tree};
pub use error::MicroPythonError;
pub use firmware::{Has, Instead};
pub(crate) use include::included;
pub use lines::{LINES_FILE, read_lines};
pub use measure::{Cost, ModuleCost, NotMeasured};
pub use mpy_cross::{MPY_CROSS_VERSION, MpyCross};
pub use report::{
    Dropped, FirmwareUse, Kept, Missing, Needed, REPORT_FILE, Report, Undecided, Why,
};
