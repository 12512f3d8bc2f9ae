//! Where a project's requirements are written, when that is not `[project]` or a requirements
//! file: one reader per kind, each giving the same [`Found`].
//!
//! The order in a folder, the first that is there: `[project]` of `pyproject.toml`,
//! `[tool.poetry]`, `setup.cfg`/`setup.py`, `Pipfile`, `Pipfile.lock`, `requirements.txt`, the
//! only `requirements*.txt`, `environment.yml`, a bare package. A file that is named wins.

mod compile;
mod conda;
mod dependency;
mod detect;
mod finish;
mod pins;
mod pipfile;
mod poetry;
mod published;
mod ranges;
mod redact;
mod script;
mod setup;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use miette::Diagnostic;

pub(crate) use compile::{prepare, wanted};
pub(crate) use detect::{choose, load_file};
pub(crate) use finish::{dependencies_of_conda, scrub_credentials};
pub(crate) use pins::{as_pylock as pins_as_pylock, of as pins_of};
pub(crate) use pipfile::expanded;
pub(crate) use redact::redacted;
pub use script::ScriptError;

use crate::{
    manifest::{self, ManifestError},
    python::PythonRequest,
};

/// The app's own files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sources {
    /// The project's folder, or the wheel that its build back end makes.
    #[default]
    Folder,
    /// This file of the folder: a script, or a zip application.
    File(pytheas_release::RelPath),
    /// The folder is itself a package, imported by this name.
    Package(String),
    /// None: the app is one of the locked packages.
    None,
}

/// What a reader found in a file, PEP 508 and PEP 440 throughout.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) requires_python: Option<PythonRequest>,
    pub(crate) dependencies: Vec<String>,
    pub(crate) extras: BTreeMap<String, Vec<String>>,
    pub(crate) groups: BTreeMap<String, Vec<String>>,
    pub(crate) scripts: BTreeMap<String, String>,
    /// Whether the folder is a distribution that its build back end can build.
    pub(crate) is_package: bool,
    pub(crate) indexes: Vec<NamedIndex>,
    /// Packages (normalised names) that come from the index of this name.
    pub(crate) pinned_index: BTreeMap<String, String>,
    /// Normalised names of what was written as a conda package.
    pub(crate) conda: BTreeSet<String>,
    /// Options for pip, of conda's `pip:` part.
    pub(crate) pip_options: Vec<String>,
    /// Hashes (`sha256:…`) that the files of a package may have, by its normalised name.
    pub(crate) hashes: BTreeMap<String, BTreeSet<String>>,
    pub(crate) notes: Vec<String>,
}

/// An index that the project's file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedIndex {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) is_default: bool,
    pub(crate) is_explicit: bool,
}

/// A file with requirements that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum InputError {
    /// It cannot be read, or is no TOML.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] ManifestError),
    /// A script's metadata.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Script(#[from] ScriptError),
    /// JSON or YAML that cannot be parsed.
    #[error("`{}` line {line}, column {column}: {message}", file.display())]
    #[diagnostic(code(pytheas::input::syntax))]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A dependency that has no spelling as a Python requirement.
    #[error("`{name}` in `{}` is `{value}`: {reason}", file.display())]
    #[diagnostic(
        code(pytheas::input::dependency),
        help("correct it there; a range that every tool reads is written as `>=1.2,<2`")
    )]
    Dependency {
        /// The file.
        file: PathBuf,
        /// The dependency.
        name: String,
        /// What is written.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// conda packages that are not covered.
    #[error("`{}` asks for conda packages that are not covered yet: {list}", file.display())]
    #[diagnostic(
        code(pytheas::input::conda),
        help(
            "covered are the `pip:` part and pure Python packages that the package index has by the same name; move what has wheels there below `pip:`, and take the rest from the device's system"
        )
    )]
    Conda {
        /// The file.
        file: PathBuf,
        /// The packages, each with the reason.
        list: String,
    },
    /// A file of no known kind.
    #[error("`{}` is no kind of project that is known", file.display())]
    #[diagnostic(
        code(pytheas::input::unknown),
        help(
            "known are `pyproject.toml`, `setup.py`, `setup.cfg`, `Pipfile`, `Pipfile.lock`, `requirements*.txt`, `environment.yml`, a script (`.py`), a zip application (`.pyz`) and a folder"
        )
    )]
    Unknown {
        /// The file.
        file: PathBuf,
    },
    /// No zip application.
    #[error("`{}` is no zip application but {reason}", file.display())]
    #[diagnostic(
        code(pytheas::input::zipapp),
        help("make one with `python -m zipapp FOLDER -m MODULE:CALLABLE`")
    )]
    Zipapp {
        /// The file.
        file: PathBuf,
        /// What it is.
        reason: String,
    },
    /// Several files, none of which is the obvious one.
    #[error("`{}` has several requirements files: {files}", dir.display())]
    #[diagnostic(code(pytheas::input::several), help("name one: `--project FILE`"))]
    Several {
        /// The folder.
        dir: PathBuf,
        /// Their names, in backticks.
        files: String,
    },
    /// The wheel for `--from` is not there.
    #[error("cannot read the wheel `{}`", path.display())]
    #[diagnostic(
        code(pytheas::input::wheel),
        help("give the path of a wheel that is there, or a package's name: `octoprint==1.10.3`")
    )]
    Wheel {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The text for `--from` is no requirement.
    #[error("`{text}` is no requirement")]
    #[diagnostic(
        code(pytheas::input::requirement),
        help(
            "write a package's name, with a version if you want one: `octoprint==1.10.3`; with an address, `NAME @ git+https://…`; or the path of a wheel"
        )
    )]
    Requirement {
        /// The text.
        text: String,
    },
}

impl InputError {
    /// conda packages that are not covered, with the reason for each.
    pub(crate) fn conda(file: &Path, packages: Vec<(String, String)>) -> Self {
        let list: Vec<String> = packages
            .iter()
            .map(|(name, reason)| format!("`{name}` ({reason})"))
            .collect();
        Self::Conda {
            file: file.to_owned(),
            list: list.join(", "),
        }
    }
}

/// The file's text, without a byte order mark.
pub(crate) fn text(file: &Path) -> Result<String, InputError> {
    Ok(manifest::text(file)?)
}

/// JSON as a TOML value, so that one reader knows both; `null` is left out.
fn json(file: &Path, content: &str) -> Result<toml::Value, InputError> {
    fn value(json: serde_json::Value) -> Option<toml::Value> {
        Some(match json {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(value) => value.into(),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => number.into(),
                None => number.as_f64()?.into(),
            },
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(list) => {
                toml::Value::Array(list.into_iter().filter_map(value).collect())
            }
            serde_json::Value::Object(map) => toml::Value::Table(
                map.into_iter()
                    .filter_map(|(key, json)| Some((key, value(json)?)))
                    .collect(),
            ),
        })
    }
    let parsed: serde_json::Value =
        serde_json::from_str(content).map_err(|error| InputError::Syntax {
            file: file.to_owned(),
            line: error.line(),
            column: error.column(),
            message: error
                .to_string()
                .split(" at line")
                .next()
                .unwrap_or_default()
                .to_owned(),
        })?;
    Ok(value(parsed).unwrap_or(toml::Value::Table(toml::Table::new())))
}

/// Whether an address is the public package index that everybody's files name. What it means here
/// is the default index that this machine is configured for: a mirror, perhaps.
fn is_public_index(url: &str) -> bool {
    let host = url::Url::parse(url)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| {
        let labels: Vec<&str> = host.trim_start_matches("www.").split('.').collect();
        matches!(labels.as_slice(), ["pypi", top] if top.chars().all(|c| c.is_ascii_alphabetic()))
    })
}
