//! Locking: uv resolves for all platforms at once, the result is `pylock.toml` (PEP 751) with
//! what it was made from in `[tool.pytheas]`.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;

use crate::{
    event::{Event, Observer},
    inputs::{Change, LockInputs},
    local_files, lock_file,
    manifest::ManifestError,
    preferred,
    project::Project,
    pylock::{LockedPackage, PYLOCK_FILE, Pylock, PylockError},
    requirements::RequirementsError,
    resolve::{PRE, resolve},
    source::{self, InputError},
    uv::{Uv, UvSaid},
};

/// Which locked versions may change though the requirements still allow them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// None.
    #[default]
    Nothing,
    /// Those of these packages.
    Packages(Vec<String>),
    /// All.
    Everything,
}

impl Upgrade {
    /// The packages that are named here and are not in `lock`, by their normalised names.
    pub fn absent_from(&self, lock: &Pylock) -> Vec<String> {
        let Self::Packages(packages) = self else {
            return Vec::new();
        };
        let has = |name: &String| {
            let is_it = |package: &str| crate::normalised_name(package) == *name;
            lock.packages.iter().any(|package| is_it(&package.name))
        };
        packages
            .iter()
            .filter_map(|text| Some(crate::requirements::parse(text)?.name.to_string()))
            .map(|name| crate::normalised_name(&name))
            .filter(|name| !has(name))
            .collect()
    }
}

/// How to lock.
#[derive(Debug, Clone, Default)]
pub struct LockOptions {
    /// Which versions may change.
    pub upgrade: Upgrade,
    /// The lowest Python (`3.11`) when the project asks for none; the found one's when absent.
    pub python_version: Option<String>,
    /// A Python for uv to ask, where one is known.
    pub interpreter: Option<PathBuf>,
}

/// What locking did.
#[derive(Debug, Clone)]
pub struct LockReport {
    /// The file.
    pub path: PathBuf,
    /// The packages in it.
    pub packages: usize,
    /// Whether the file's bytes changed.
    pub written: bool,
    /// Packages that were to be upgraded, though nothing in this lock requires them.
    pub not_required: Vec<String>,
}

/// Whether a lock file holds.
#[derive(Debug, Clone)]
pub enum LockStatus {
    /// It was made from what the project says now.
    Current(Pylock),
    /// There is none.
    Missing,
    /// The project says something else now.
    Stale(Vec<Change>),
    /// Another tool made it, so nobody knows from what.
    Foreign(Pylock),
}

/// What to do when no versions fit together: another Python, where uv says that this one is why.
fn other_python(said: &UvSaid) -> String {
    let wanted = said
        .0
        .split_once("does not satisfy Python")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .map(|wanted| wanted.trim_end_matches(','));
    let bound = |operator: &str| {
        let (_, rest) = wanted?.split_once(operator)?;
        let mut parts = rest.split([',', '.']).map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let below = bound("<").and_then(|(major, minor)| Some((major, minor.checked_sub(1)?)));
    let version = below.or_else(|| bound(">="));
    match (wanted, version) {
        (Some(wanted), Some((major, minor))) => format!(
            "it needs Python{wanted}: give `--python {major}.{minor}`, which is fetched where the machine has none"
        ),
        _ => "loosen or correct the requirement that is named above".to_owned(),
    }
}

/// Locking failed, or a lock does not hold.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LockError {
    /// A requirements file cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Requirements(#[from] RequirementsError),
    /// The existing lock file cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pylock(#[from] PylockError),
    /// No versions fit together.
    #[error("the requirements in `{}` cannot be resolved", file.display())]
    #[diagnostic(code(pytheas::lock::unresolvable), help("{}", other_python(source)))]
    Unresolvable {
        /// The file with the requirements.
        file: PathBuf,
        /// uv's explanation.
        source: UvSaid,
    },
    /// Another kind of input cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Input(#[from] InputError),
    /// The index has other files than a requirements file demands.
    #[error("no file of `{package}` {version} has a hash that `{}` demands", file.display())]
    #[diagnostic(
        code(pytheas::lock::hash),
        help(
            "the index may serve a forged file; if its file is the right one, correct `--hash` (SHA-256 is compared)"
        )
    )]
    Hash {
        /// The file with the requirements.
        file: PathBuf,
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// The index does not answer.
    #[error("cannot reach the package index to resolve `{}`", file.display())]
    #[diagnostic(
        code(pytheas::lock::network),
        help(
            "check the network, proxy and index settings; with a lock file and a warm cache, `--offline` builds without a network"
        )
    )]
    Network {
        /// The file with the requirements.
        file: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// The index does not know who asks.
    #[error("the package index refuses access to resolve `{}`", file.display())]
    #[diagnostic(
        code(pytheas::lock::credentials),
        help(
            "check the index's address and your credentials for it: `netrc`, `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`, or keyring with `UV_KEYRING_PROVIDER=subprocess`"
        )
    )]
    Credentials {
        /// The file with the requirements.
        file: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// Not in the cache, and the network is not to be used.
    #[error("cannot resolve `{}` offline: the cache does not have all that is needed", file.display())]
    #[diagnostic(code(pytheas::lock::offline), help("run once without `--offline`"))]
    Offline {
        /// The file with the requirements.
        file: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// The disk is full.
    #[error("the disk is full")]
    #[diagnostic(
        code(pytheas::lock::disk_full),
        help(
            "free space where the cache of uv and the temporary files lie, or choose other places with `UV_CACHE_DIR` and `TMPDIR`"
        )
    )]
    DiskFull {
        /// What uv says.
        source: UvSaid,
    },
    /// A package that fills disks.
    #[error("a requirement in `{}` brings a package that unpacks to too much", file.display())]
    #[diagnostic(
        code(pytheas::lock::refused::too_large),
        help(
            "it was not built; require another version of it, or one that has a wheel, and report it to the index; if it really is that large, make a wheel of it yourself and require that"
        )
    )]
    TooLarge {
        /// The file with the requirements.
        file: PathBuf,
        /// Which package, and the limit.
        source: UvSaid,
    },
    /// uv failed otherwise.
    #[error("uv cannot lock `{}`", file.display())]
    #[diagnostic(code(pytheas::lock::uv), help("what uv says is above"))]
    Uv {
        /// The file with the requirements.
        file: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// uv cannot be started.
    #[error("cannot start `{}`", path.display())]
    #[diagnostic(code(pytheas::lock::start), help("name another uv with `PYTHEAS_UV`"))]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The lock file cannot be written.
    #[error("cannot write `{}`", path.display())]
    #[diagnostic(
        code(pytheas::lock::write),
        help("check the folder's permissions and free space")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// uv wrote something that is no lock file.
    #[error("uv {version} wrote a lock file that is not understood")]
    #[diagnostic(
        code(pytheas::lock::format),
        help("use uv {}, e.g. by unsetting `PYTHEAS_UV`", crate::uv::UV_VERSION)
    )]
    Format {
        /// uv's version.
        version: String,
        /// Why.
        source: Box<toml_edit::TomlError>,
    },
    /// There is no lock file.
    #[error("`{}` is missing", path.display())]
    #[diagnostic(code(pytheas::lock::missing), help("run `pytheas lock`"))]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The lock file does not hold.
    #[error("`{}` is stale: {}", path.display(), changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    #[diagnostic(code(pytheas::lock::stale), help("run `pytheas lock`"))]
    Stale {
        /// The file.
        path: PathBuf,
        /// What changed since.
        changes: Vec<Change>,
    },
    /// Another tool made the lock file.
    #[error("`{}` does not say what it was made from", path.display())]
    #[diagnostic(
        code(pytheas::lock::foreign),
        help(
            "another tool wrote it; run `pytheas lock`, or build with `--frozen` to use it as it is"
        )
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// Whether `pylock.toml` of the project holds. Works offline and without uv.
///
/// # Errors
/// When the lock file or a requirements file cannot be read.
pub fn status(project: &Project) -> Result<LockStatus, LockError> {
    let Some(lock) = Pylock::read(&project.lock_path())? else {
        return Ok(LockStatus::Missing);
    };
    let mut now = LockInputs::of(project)?;
    let changes = match lock.inputs() {
        None => return Ok(LockStatus::Foreign(lock)),
        Some(before) => {
            now.files = local_files::now(&project.dir, &before.files);
            before.changes(&now)
        }
    };
    Ok(if changes.is_empty() {
        LockStatus::Current(lock)
    } else {
        LockStatus::Stale(changes)
    })
}

/// The lock, if it holds: `pytheas lock --check`.
///
/// # Errors
/// [`LockError::Missing`], [`LockError::Stale`] or [`LockError::Foreign`] when it does not.
pub fn check(project: &Project) -> Result<Pylock, LockError> {
    let path = project.lock_path();
    match status(project)? {
        LockStatus::Current(lock) => Ok(lock),
        LockStatus::Missing => Err(LockError::Missing { path }),
        LockStatus::Stale(changes) => Err(LockError::Stale { path, changes }),
        LockStatus::Foreign(_) => Err(LockError::Foreign { path }),
    }
}

/// Resolves the project's requirements and writes `pylock.toml` into its folder.
///
/// Versions of an existing lock file are kept where they still fit.
///
/// # Errors
/// See [`LockError`]; an existing lock file is then as it was.
pub fn lock(
    project: &Project,
    uv: &Uv,
    options: &LockOptions,
    observer: Observer<'_>,
) -> Result<LockReport, LockError> {
    let report = lock_into(project, &project.lock_path(), uv, options, observer)?;
    for name in &report.not_required {
        observer(Event::Warning {
            text: not_required(name, project),
        });
    }
    Ok(report)
}

/// That a package is to be upgraded which the app does not require, and who does.
fn not_required(name: &str, project: &Project) -> String {
    let children = std::fs::read_dir(&project.dir).into_iter().flatten();
    let mut files: Vec<PathBuf> = children.flatten().map(|child| child.path()).collect();
    files.sort();
    let of_groups = files.into_iter().find_map(|path| {
        let file = path.file_name()?.to_str()?;
        let is_lock = file.starts_with("pylock.") && file.ends_with(".toml");
        let lock = Pylock::read(&path).ok().filter(|_| is_lock)??;
        let has = |package: &LockedPackage| crate::normalised_name(&package.name) == name;
        lock.packages.iter().any(has).then(|| file.to_owned())
    });
    match of_groups {
        Some(file) => format!(
            "`{name}` shall be upgraded, but only `{file}` has it: run `pytheas sync --upgrade-package {name}`"
        ),
        None => format!("`{name}` shall be upgraded, but nothing requires it"),
    }
}

/// As [`lock`], written to `path` (for project folders that cannot be written).
///
/// # Errors
/// As [`lock`].
pub fn lock_into(
    project: &Project,
    path: &Path,
    uv: &Uv,
    options: &LockOptions,
    observer: Observer<'_>,
) -> Result<LockReport, LockError> {
    let existing = project.lock_path();
    let mut preferred = None;
    if options.upgrade != Upgrade::Everything {
        if Pylock::read(&existing)?.is_some() {
            preferred = std::fs::read_to_string(&existing).ok();
        } else if let Some((file, pins)) =
            source::pins_of(&project.dir).filter(|_| project.lock_name.is_none())
        {
            preferred = Some(source::pins_as_pylock(&pins));
            observer(Event::PinsFrom {
                file,
                packages: pins.len(),
            });
        }
    }
    resolve_into(project, path, uv, options, preferred, observer)
}

/// The lock of the app with groups and extras, `wider`, at `path`: with the app's versions, and those
/// that `path` has of what the app does not need. Upgrades are of those.
///
/// # Errors
/// As [`lock`].
pub(crate) fn lock_beside(
    wider: &Project,
    path: &Path,
    uv: &Uv,
    options: &LockOptions,
    observer: Observer<'_>,
) -> Result<LockReport, LockError> {
    let preferred = preferred::versions(&wider.lock_path(), path, &options.upgrade)?;
    let options = LockOptions {
        upgrade: match &options.upgrade {
            // What the app needs was upgraded in its own lock.
            Upgrade::Everything => Upgrade::Nothing,
            other => other.clone(),
        },
        ..options.clone()
    };
    resolve_into(wider, path, uv, &options, preferred, observer)
}

/// Resolves and writes `path`; the versions of the lock `preferred` are kept where they fit.
fn resolve_into(
    project: &Project,
    path: &Path,
    uv: &Uv,
    options: &LockOptions,
    preferred: Option<String>,
    observer: Observer<'_>,
) -> Result<LockReport, LockError> {
    let uv = &uv.for_project(project);
    let inputs = LockInputs::of(project)?;
    observer(Event::Resolving {
        requirements: inputs.requirements.len(),
    });
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| LockError::Write { path, source }
    };
    let scratch = tempfile::tempdir().map_err(write(&std::env::temp_dir()))?;
    let output = scratch.path().join(PYLOCK_FILE);
    // uv prefers the versions of a lock file that it finds in its output's place.
    if let Some(text) = preferred {
        pytheas_durable::replace(&output, text.as_bytes()).map_err(write(&output))?;
    }
    let said = resolve(project, uv, options, &output, &inputs, observer)?;
    for line in said.lines() {
        // An app without requirements is nothing to warn of, nor is that the lowest Python of the
        // project is not on this machine; `--pre` is passed on.
        let text = line
            .strip_prefix("warning: ")
            .filter(|text| !text.contains("does not contain any dependencies"))
            .filter(|text| !text.contains("will be used to build dependencies instead"))
            .filter(|text| !(text.contains("unsupported option") && text.contains(PRE)));
        if let Some(text) = text {
            observer(Event::Warning {
                text: text.to_owned(),
            });
        }
    }
    let text = std::fs::read_to_string(&output).map_err(write(&output))?;
    let text = lock_file::finish(
        &text,
        project,
        &inputs,
        scratch.path(),
        path.parent().unwrap_or(&project.dir),
        &uv.version.to_string(),
    )?;
    let mut not_required = Vec::new();
    if let Ok(lock) = toml::from_str::<Pylock>(&text) {
        source::dependencies_of_conda(project, &lock)?;
        not_required = options.upgrade.absent_from(&lock);
    }
    let packages = text
        .lines()
        .filter(|line| line.trim() == "[[packages]]")
        .count();
    let written = std::fs::read(path).ok().as_deref() != Some(text.as_bytes());
    if written {
        pytheas_durable::replace(path, text.as_bytes()).map_err(write(path))?;
    }
    observer(Event::Locked { packages });
    Ok(LockReport {
        path: path.to_owned(),
        packages,
        written,
        not_required,
    })
}

impl From<ManifestError> for LockError {
    fn from(error: ManifestError) -> Self {
        Self::Pylock(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_for_another_python_says_which_to_give() {
        for (wanted, version) in [
            ("Python>=3.12", Some("3.12")),
            ("Python>=3.8,<3.11", Some("3.10")),
            ("Python>=3.13,<4.0", Some("3.13")),
            ("Python<3.10", Some("3.9")),
            ("Python", None),
            ("something else", None),
        ] {
            let help = other_python(&UvSaid(format!(
                "Because the requested Python version (>=3.11) does not satisfy {wanted} and a==6 depends on"
            )));
            let expected = match version {
                Some(version) => format!(
                    "it needs {wanted}: give `--python {version}`, which is fetched where the machine has none"
                ),
                None => "loosen or correct the requirement that is named above".to_owned(),
            };
            assert_eq!(help, expected);
        }
    }
}
