//! Why there is no interpreter: what was wanted, where it was looked for, what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_release::{Platform, Sha256};

/// No interpreter.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum InterpreterError {
    /// None fits.
    #[error("no {wanted} for `{platform}`")]
    #[diagnostic(
        code(pytheas::interpreter::none),
        help("{}\ninstall one, choose another with `--python`, or name a mirror of python-build-standalone with `PYTHEAS_PYTHON_MIRROR`", found.join("; "))
    )]
    None {
        /// What was wanted.
        wanted: String,
        /// For what.
        platform: Platform,
        /// What there is.
        found: Vec<String>,
    },
    /// The named program is no usable Python.
    #[error("`{}` is no Python that a bundle can be made of", path.display())]
    #[diagnostic(
        code(pytheas::interpreter::unusable),
        help("give the path of a CPython 3.8 or newer, or `--interpreter host` to have one found")
    )]
    Unusable {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The named Python has another version than the project wants.
    #[error("`{}` is Python {version}, but {wanted} is wanted", path.display())]
    #[diagnostic(
        code(pytheas::interpreter::version),
        help(
            "give another one, or change `--python`, `python` in `[tool.pytheas]`, or `requires-python`"
        )
    )]
    Version {
        /// The program.
        path: PathBuf,
        /// Its version.
        version: String,
        /// What is wanted.
        wanted: String,
    },
    /// An archive does not have its pinned hash.
    #[error("`{file}` from `{from}` is not the file it should be")]
    #[diagnostic(
        code(pytheas::interpreter::hash),
        help(
            "its SHA-256 is {found}, expected {expected} ({by}); fetch it again from a place you trust"
        )
    )]
    Hash {
        /// The archive.
        file: String,
        /// Where it came from.
        from: String,
        /// Its hash.
        found: Sha256,
        /// What it should be.
        expected: Sha256,
        /// Who says so.
        by: &'static str,
    },
    /// Nobody says what an archive's hash should be.
    #[error("nothing says what `{file}` should contain")]
    #[diagnostic(
        code(pytheas::interpreter::no_hash),
        help("put the release's `SHA256SUMS` beside it in `{from}`")
    )]
    NoHash {
        /// The archive.
        file: String,
        /// Where it lies.
        from: String,
    },
    /// The mirror does not answer.
    #[error("cannot fetch `{file}`")]
    #[diagnostic(
        code(pytheas::interpreter::network),
        help(
            "check `PYTHEAS_PYTHON_MIRROR` or `python-mirror` in `[tool.pytheas]`; `--interpreter host` uses a Python of this machine"
        )
    )]
    Network {
        /// The archive.
        file: String,
        /// Why.
        source: pytheas_project::http::HttpError,
    },
    /// No mirror of Debian is known.
    #[error("no mirror of Debian is configured")]
    #[diagnostic(
        code(pytheas::interpreter::no_debian_mirror),
        help(
            "set `PYTHEAS_DEBIAN_MIRROR` to the address or folder of one, with the suite after it: `ADDRESS bookworm`; on Debian, apt's own sources are used"
        )
    )]
    NoDebianMirror,
    /// A file of the archive is needed, but not the network.
    #[error("`{file}` of Debian's archive is not in the cache, and the network is not to be used")]
    #[diagnostic(
        code(pytheas::interpreter::debian_offline),
        help("build once without `--offline`, or name a folder with `PYTHEAS_DEBIAN_MIRROR`")
    )]
    DebianOffline {
        /// The file.
        file: String,
    },
    /// The archive's keys are not there.
    #[error("the keys of Debian's archive are not on this machine")]
    #[diagnostic(
        code(pytheas::interpreter::no_keyring),
        help(
            "install `debian-archive-keyring`, or name a keyring that you trust with `PYTHEAS_DEBIAN_KEYRING`"
        )
    )]
    NoKeyring,
    /// The signature cannot be checked.
    #[error("cannot check the signature of Debian's archive")]
    #[diagnostic(
        code(pytheas::interpreter::no_gpgv),
        help("install `gpgv`; nothing of the archive is used unchecked")
    )]
    NoGpgv {
        /// Why.
        source: io::Error,
    },
    /// The signature is wrong.
    #[error("`{suite}` from `{from}` is not signed by a key in `{}`", keyring.display())]
    #[diagnostic(
        code(pytheas::interpreter::signature),
        help("nothing of it was used; choose a mirror you trust, or update the keyring")
    )]
    Signature {
        /// The suite.
        suite: String,
        /// The mirror.
        from: String,
        /// The keys.
        keyring: PathBuf,
        /// What gpgv says.
        source: io::Error,
    },
    /// No mirror is known.
    #[error("no place is configured to fetch python-build-standalone from")]
    #[diagnostic(
        code(pytheas::interpreter::no_mirror),
        help(
            "set `PYTHEAS_PYTHON_MIRROR` to the address of its releases or to a folder with its `install_only` archives"
        )
    )]
    NoMirror,
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::interpreter::io),
        help("check permissions and free space; `PYTHEAS_CACHE_DIR` chooses another cache")
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A shared library or program cannot be made relocatable.
    #[error("cannot make `{}` relocatable", path.display())]
    #[diagnostic(
        code(pytheas::interpreter::elf),
        help("use another interpreter (`--interpreter`), and report this one's version")
    )]
    Elf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: object_rewrite::Error,
    },
    /// The prepared tree does not run.
    #[error("the copy of `{}` does not run", origin.display())]
    #[diagnostic(
        code(pytheas::interpreter::broken),
        help("use another interpreter (`--interpreter`), and report this one's version")
    )]
    Broken {
        /// The original.
        origin: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> InterpreterError + use<> {
    let path = path.to_owned();
    move |source| InterpreterError::Io {
        action,
        path: path.clone(),
        source,
    }
}
