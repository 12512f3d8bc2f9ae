//! What keeps code and tests from running on a machine. Tests that fail are a report, no error.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use pytheas_project::{EntryError, ProjectError};

use crate::error::BuildError;

impl OnError {
    /// Whether it is the project's, so that no other machine would do better.
    pub fn is_of_project(&self) -> bool {
        matches!(
            self,
            Self::Project(_) | Self::Entry(_) | Self::NoTests { .. } | Self::NoModule { .. }
        )
    }
}

/// Tests or an app that were not run.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OnError {
    /// The target or another part of the project.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Project(#[from] ProjectError),
    /// Nothing says what starts the app.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Entry(#[from] EntryError),
    /// A file operation.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Build(#[from] BuildError),
    /// A program that is needed is not on this machine.
    #[error("{what} is not on this machine, which `--on {place}` needs")]
    #[diagnostic(code(pytheas::test::no_micropython), help("{help}"))]
    Missing {
        /// What is missing.
        what: String,
        /// The machine that was asked for.
        place: String,
        /// What to do.
        help: &'static str,
    },
    /// There are no tests.
    #[error("no tests in `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::test::none),
        help("put files `test_*.py` with `unittest.TestCase` classes into the folder `tests`")
    )]
    NoTests {
        /// Where they were looked for.
        dir: PathBuf,
    },
    /// The app's start is not among its files.
    #[error("the entry `{entry}` is not in `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::run::no_module),
        help("set `entry = \"module:callable\"` in the target or in `[tool.pytheas]`")
    )]
    NoModule {
        /// The entry.
        entry: String,
        /// The project.
        dir: PathBuf,
    },
    /// The files are more than an image may hold, or cannot be in one.
    #[error("the project's files cannot be put onto the board")]
    #[diagnostic(
        code(pytheas::test::image),
        help("rename what the error names, or import less")
    )]
    Image {
        /// Why.
        source: pytheas_board::romfs::RomfsError,
    },
    /// The board's memory is too small for them.
    #[error("`{place}` has {free} bytes of memory free, and the files take {needed}")]
    #[diagnostic(
        code(pytheas::test::memory),
        help(
            "they are tested in the board's memory, its flash is not touched: choose fewer test files, or test on `qemu`"
        )
    )]
    Memory {
        /// The board.
        place: String,
        /// Bytes of the image.
        needed: usize,
        /// Bytes there are.
        free: u64,
    },
    /// No port.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Address {
        /// What is wrong.
        source: pytheas_board::link::address::AddressError,
    },
    /// The board cannot be reached.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Link {
        /// Why.
        source: pytheas_board::link::LinkError,
    },
    /// A program cannot be started.
    #[error("cannot start `{}`", program.display())]
    #[diagnostic(
        code(pytheas::test::start),
        help("check that it is a program for this machine and may be executed")
    )]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Python ended in the middle of the tests.
    #[error("CPython ended before its tests did ({how})\n{said}")]
    #[diagnostic(
        code(pytheas::test::start::ended),
        help("a test, or what it calls, has crashed Python itself; `-- -k NAME` runs the others")
    )]
    Ended {
        /// Its status.
        how: String,
        /// What it said last.
        said: String,
    },
    /// The machine did not come up.
    #[error("`{place}` did not start: {said}")]
    #[diagnostic(
        code(pytheas::test::start::silent),
        help("it has to be MicroPython, and free: no other program may hold its line")
    )]
    Silent {
        /// The machine.
        place: String,
        /// What it said last.
        said: String,
    },
}
