//! What happens during a build, told as it happens: the terminal, JSON and tests read this.

use std::path::PathBuf;

/// One step of a build; readers ignore those they do not know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// From reading and locking the project.
    Project(pytheas_project::Event),
    /// The build entered a phase.
    Phase(Phase),
    /// The interpreter that will be used.
    Interpreter {
        /// Provider, e.g. `host`.
        provider: String,
        /// Version, e.g. `3.11.7`.
        version: String,
        /// Where it was taken from.
        origin: PathBuf,
    },
    /// An archive is being fetched.
    Fetching {
        /// Its name.
        what: String,
        /// Where from, without credentials.
        from: String,
    },
    /// C code is being compiled for the target.
    Compiling {
        /// The package or modules.
        what: String,
        /// The target.
        platform: pytheas_release::Platform,
    },
    /// What is being done, in words.
    Step {
        /// The text.
        text: String,
    },
    /// Something that does not stop the build but should be known.
    Warning {
        /// The text, without `warning:`.
        text: String,
    },
}

/// The phases of a build, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The lock file is checked or written.
    Lock,
    /// The interpreter is found, copied and compiled, or taken from the cache.
    Interpreter,
    /// Packages are fetched and installed.
    Dependencies,
    /// The app itself is built or copied.
    App,
    /// Byte code of packages and app is written.
    ByteCode,
    /// The tree is read back and hashed.
    Tree,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::Lock,
        Self::Interpreter,
        Self::Dependencies,
        Self::App,
        Self::ByteCode,
        Self::Tree,
    ];
}

/// Who is told.
pub type Observer<'a> = &'a dyn Fn(Event);
