//! What happens while a project is read and locked, told as it happens.

use std::path::PathBuf;

/// One step of the work; readers (terminal, JSON, tests) ignore those they do not know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// uv is not on this machine: its wheel is being fetched.
    FetchingUv {
        /// Its version.
        version: String,
        /// What fetches it: an index's address without credentials, or `pip`.
        from: String,
    },
    /// uv lies in the cache now.
    FetchedUv {
        /// The program.
        path: PathBuf,
    },
    /// uv is looking for versions that fit together.
    Resolving {
        /// Number of requirements written down by the user.
        requirements: usize,
    },
    /// There is no lock file yet: the versions that another tool locked are preferred.
    PinsFrom {
        /// Its lock file.
        file: &'static str,
        /// Number of packages in it.
        packages: usize,
    },
    /// The lock file was made.
    Locked {
        /// Number of packages in it.
        packages: usize,
    },
    /// Something that does not stop the work but should be known.
    Warning {
        /// The text, without `warning:`.
        text: String,
    },
}

/// Who is told.
pub type Observer<'a> = &'a dyn Fn(Event);
