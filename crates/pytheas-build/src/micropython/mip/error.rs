//! What can be wrong with packages for boards.

use std::path::PathBuf;

use miette::Diagnostic;

/// Packages that cannot be locked or fetched.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MipError {
    /// A dependency that is none.
    #[error("`{text}` in `[tool.pytheas.micropython]` is no dependency: {why}")]
    #[diagnostic(
        code(pytheas::mip::dependency),
        help(
            "write a name with versions (`umqtt.simple>=1.3`, `microdot ^2.0`), the address of a `package.json` or a module, `github:OWNER/REPOSITORY`, or a folder (`./lib/mine`)"
        )
    )]
    Dependency {
        /// As written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// No package of this name.
    #[error("no package `{name}`{} in {place}", asked_by(by))]
    #[diagnostic(code(pytheas::mip::no_package), help("{help}"))]
    NoPackage {
        /// Its name.
        name: String,
        /// Who asks for it.
        by: Option<String>,
        /// Where it was looked for.
        place: String,
        /// What to do.
        help: String,
    },
    /// No version fits.
    #[error("no version of `{name}` is {wanted}")]
    #[diagnostic(code(pytheas::mip::no_version), help("there are {known}"))]
    NoVersion {
        /// Its name.
        name: String,
        /// What is asked for, and by whom.
        wanted: String,
        /// The versions there are.
        known: String,
    },
    /// Packages that need each other.
    #[error("packages need each other in a circle: {chain}")]
    #[diagnostic(
        code(pytheas::mip::circle),
        help(
            "one of their manifests is wrong: take another version, or a copy without the circle"
        )
    )]
    Circle {
        /// `a → b → a`.
        chain: String,
    },
    /// A file that is not the one it should be.
    #[error("`{file}` of `{package}` is not the file it should be")]
    #[diagnostic(
        code(pytheas::mip::hash),
        help(
            "its SHA-256 is {found}, expected {expected}; if the package was changed on purpose, `pytheas lock --upgrade` takes the new one"
        )
    )]
    Hash {
        /// The package.
        package: String,
        /// The file.
        file: String,
        /// Its hash.
        found: String,
        /// What it should begin with, or be.
        expected: String,
    },
    /// A path that leads elsewhere.
    #[error("`{package}` has a file for `{path}`, which is no path in an app: {why}")]
    #[diagnostic(
        code(pytheas::mip::path),
        help("the package's manifest is wrong or hostile; nothing of it was used")
    )]
    Path {
        /// The package.
        package: String,
        /// As written.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A document that is not what it should be.
    #[error("{what} at `{place}` is not understood: {why}")]
    #[diagnostic(
        code(pytheas::mip::document),
        help("check the address; mip's format has `hashes`, `urls`, `deps` and `version`")
    )]
    Document {
        /// `the package manifest`, …
        what: &'static str,
        /// Where it is.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A package that is not pure Python.
    #[error("`{name}` {version} {why}")]
    #[diagnostic(
        code(pytheas::mip::not_for_boards),
        help("boards run pure Python only; look for a package that was made for MicroPython")
    )]
    NotPure {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// What is wrong.
        why: String,
    },
    /// The network has it, and is not to be used.
    #[error("`{what}` is not in the cache, and the network is not to be used")]
    #[diagnostic(
        code(pytheas::mip::offline),
        help(
            "run once without `--offline`, or set `PYTHEAS_MIP_INDEX` to a mirror (`pytheas lock --mirror DIR`)"
        )
    )]
    Offline {
        /// The address.
        what: String,
    },
    /// It cannot be fetched.
    #[error("cannot fetch `{what}`: {why}")]
    #[diagnostic(code(pytheas::mip::fetch), help("check the address and the network"))]
    Fetch {
        /// The address.
        what: String,
        /// Why not.
        why: String,
    },
    /// The Python package index has no answer.
    #[error("the Python package index has nothing for {}", names.join(", "))]
    #[diagnostic(
        code(pytheas::mip::pypi),
        help(
            "{why}\ncheck the names; packages of an index of mip's format need `index = \"…\"` in `[tool.pytheas.micropython]` or `PYTHEAS_MIP_INDEX`"
        )
    )]
    Pypi {
        /// The requirements.
        names: Vec<String>,
        /// What was said.
        why: String,
    },
    /// The lock file does not hold.
    #[error("`{}` {why}", file.display())]
    #[diagnostic(code(pytheas::mip::stale), help("run `pytheas lock`"))]
    Stale {
        /// The file.
        file: PathBuf,
        /// `is missing`, or what changed.
        why: String,
    },
    /// The lock file cannot be read.
    #[error("`{}` cannot be used: {why}", file.display())]
    #[diagnostic(
        code(pytheas::mip::lock),
        help("take it from version control again, or remove it and run `pytheas lock`")
    )]
    Lock {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::mip::io),
        help("check that it exists and its permissions allow it")
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

fn asked_by(by: &Option<String>) -> String {
    by.as_ref()
        .map(|by| format!(", which `{by}` needs,"))
        .unwrap_or_default()
}

/// The error of a file operation: `action` on `path`.
pub(super) fn io_error(
    action: &'static str,
    path: &std::path::Path,
) -> impl Fn(std::io::Error) -> MipError + use<> {
    let path = path.to_owned();
    move |source| MipError::Io {
        action,
        path: path.clone(),
        source,
    }
}
