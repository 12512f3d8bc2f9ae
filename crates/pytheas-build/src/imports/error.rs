//! What stops a measurement of imports.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use miette::Diagnostic;
use pytheas_release::Platform;

use crate::known::InventoryError;

/// What stops a measurement.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ImportsError {
    /// The tree.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Inventory(#[from] InventoryError),
    /// Neither bundle nor environment.
    #[error("imports cannot be measured in `{}`: {reason}", dir.display())]
    #[diagnostic(
        code(pytheas::imports::subject),
        help(
            "give the folder of a bundle (`pytheas build`), or a virtual environment (`pytheas sync`)"
        )
    )]
    Subject {
        /// The folder.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another CPU.
    #[error("`{}` is for `{platform}`, whose programs do not run here", dir.display())]
    #[diagnostic(
        code(pytheas::imports::platform),
        help(
            "build it for this machine; on the device `python/bin/python3 -X importtime` measures in its folder"
        )
    )]
    Platform {
        /// The folder.
        dir: PathBuf,
        /// Its platform.
        platform: Platform,
    },
    /// It did not end.
    #[error("importing `{entry}` did not end within {} s", after.as_secs())]
    #[diagnostic(
        code(pytheas::imports::timeout),
        help(
            "does the module start the app when it is imported? put that below `if __name__ == \"__main__\":`"
        )
    )]
    Timeout {
        /// The entry point.
        entry: String,
        /// The limit.
        after: Duration,
    },
    /// Python ended early.
    #[error("Python ended with {status} while importing `{entry}`")]
    #[diagnostic(code(pytheas::imports::ended), help("it said: {said}"))]
    Ended {
        /// The entry point.
        entry: String,
        /// How.
        status: std::process::ExitStatus,
        /// The end of its standard error.
        said: String,
    },
    /// The system.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::imports::io),
        help("check that it exists and its permissions allow it")
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

pub(super) fn io_error<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> ImportsError + 'a {
    move |source| ImportsError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
