//! What stops a build. Errors of a part lie with it (interpreters, sources, dependencies); here
//! are those of the whole, and the one that every file operation can have.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_durable::trees::ScanError;
use pytheas_project::{EntryError, ProjectError, UvError, lock::LockError};
use pytheas_release::Platform;

use crate::{
    app::AppError, dependencies::DependencyError, entry_check::EntryCheckError,
    interpreter::InterpreterError, output::OutputError,
};

/// A build that was not finished; what was in the output's place before is untouched.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum BuildError {
    /// The project does not have what the request names.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Project(#[from] ProjectError),
    /// The version that the project names a source for.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Version(#[from] pytheas_project::VersionError),
    /// Nothing says what starts the app.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Entry(#[from] EntryError),
    /// The entry point does not exist.
    #[error(transparent)]
    #[diagnostic(transparent)]
    EntryCheck(#[from] EntryCheckError),
    /// The app's package does not say what starts it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    InstalledEntry(#[from] crate::installed_entry::InstalledEntryError),
    /// Programs of dependencies.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tools(#[from] crate::tools::ToolsError),
    /// A hook that devices could not run.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Hook(#[from] crate::hooks::HookError),
    /// No uv.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Uv(#[from] UvError),
    /// The lock.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Lock(#[from] LockError),
    /// The interpreter.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interpreter(#[from] InterpreterError),
    /// The packages.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Dependencies(#[from] DependencyError),
    /// Something cannot be compiled for the target.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Native(#[from] crate::native::NativeError),
    /// numba's cache.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Numba(#[from] crate::numba::NumbaError),
    /// Nothing was measured.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Bench(#[from] crate::native::bench::BenchError),
    /// The app's own files.
    #[error(transparent)]
    #[diagnostic(transparent)]
    App(#[from] AppError),
    /// The place of the result.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Output(#[from] OutputError),
    /// The result cannot be listed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Inventory(#[from] crate::known::InventoryError),
    /// A second build differs.
    #[error(transparent)]
    #[diagnostic(transparent)]
    NotReproducible(#[from] crate::known::NotReproducible),
    /// Wheel and source distribution.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Wheel(#[from] crate::wheel_form::WheelFormError),
    /// A board's release.
    #[error(transparent)]
    #[diagnostic(transparent)]
    MicroPython(#[from] crate::micropython::MicroPythonError),
    /// A form that does not exist (yet).
    #[error("form `{form}` is {state}")]
    #[diagnostic(code(pytheas::build::form), help("available: {available}"))]
    Form {
        /// Its name.
        form: String,
        /// `not built yet` or `not known`.
        state: &'static str,
        /// The forms there are.
        available: String,
    },
    /// Another platform than this machine's.
    #[error("form `{form}` cannot be built for `{platform}` on `{host}` yet")]
    #[diagnostic(
        code(pytheas::build::platform),
        help("build on a `{platform}` machine")
    )]
    Platform {
        /// The form.
        form: String,
        /// What was asked for.
        platform: Platform,
        /// This machine.
        host: String,
    },
    /// A budget that is no size.
    #[error("the budget `{text}` is no size")]
    #[diagnostic(
        code(pytheas::build::budget),
        help("write e.g. `40 MB`, `800 kB` or `64 MiB`")
    )]
    Budget {
        /// What is written.
        text: String,
    },
    /// The result is larger than the target allows.
    #[error("the result has {size}, {over} more than the budget of {budget}")]
    #[diagnostic(code(pytheas::build::over_budget), help("largest parts: {largest}"))]
    OverBudget {
        /// Its size.
        size: String,
        /// How much it is too large.
        over: String,
        /// The budget as written.
        budget: String,
        /// The largest parts.
        largest: String,
    },
    /// A package is larger than the target allows.
    #[error("`{package}` has {size}, {over} more than its budget of {budget}")]
    #[diagnostic(
        code(pytheas::build::package_over_budget),
        help(
            "largest parts: {largest}; `pytheas check` names lighter packages, `slim = true` leaves out what nothing reaches"
        )
    )]
    PackageOverBudget {
        /// The package.
        package: String,
        /// Its size.
        size: String,
        /// How much it is too large.
        over: String,
        /// The budget as written.
        budget: String,
        /// Its largest parts.
        largest: String,
    },
    /// Something a tree cannot hold.
    #[error("the result cannot be a release tree")]
    #[diagnostic(
        code(pytheas::build::tree),
        help("rename or exclude the file; `exclude` in `[tool.pytheas]` takes patterns")
    )]
    Tree {
        /// Why.
        source: ScanError,
    },
    /// The disk is full.
    #[error("the disk is full: cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::build::disk_full),
        help(
            "free space there, or choose another place with `-o`, `PYTHEAS_CACHE_DIR` or `TMPDIR`; nothing was replaced"
        )
    )]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::build::io),
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
pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> BuildError + use<> {
    let path = path.to_owned();
    move |source| {
        let path = path.clone();
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            BuildError::DiskFull {
                action,
                path,
                source,
            }
        } else {
            BuildError::Io {
                action,
                path,
                source,
            }
        }
    }
}

/// An error and its causes in one line, for places that hold a text only.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
