//! The packages of the lock in the bundle: checked to exist for the platform, installed by uv,
//! and freed of what depends on the machine or the moment of the build.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use miette::Diagnostic;
use pep508_rs::{MarkerEnvironment, MarkerTree};
use pytheas_project::{LockedPackage, Pylock, Uv, UvCallError, UvFailure, UvSaid};
use pytheas_release::Platform;

use crate::{
    error::{BuildError, io_error},
    interpreter::Interpreter,
    scratch,
    wheel::Tags,
};

/// Packages that cannot be installed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DependencyError {
    /// No file of the package fits.
    #[error("`{package}` {version} has no wheel for `{platform}` and Python {python}")]
    #[diagnostic(
        code(pytheas::dependencies::no_wheel),
        help(
            "it has no source distribution either; wheels exist for {available}; require another version, choose another Python with `--python`, or another `--platform`"
        )
    )]
    NoWheel {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What is built for.
        platform: Platform,
        /// The interpreter's version.
        python: String,
        /// Tags of the wheels there are.
        available: String,
    },
    /// A package file cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Install(#[from] crate::install::InstallError),
    /// A marker that is not understood.
    #[error("the marker `{marker}` of `{package}` in the lock file is not understood")]
    #[diagnostic(
        code(pytheas::dependencies::marker),
        help("run `pytheas lock` to write the lock file again")
    )]
    Marker {
        /// The package.
        package: String,
        /// Its marker.
        marker: String,
        /// Why.
        source: Box<pep508_rs::Pep508Error>,
    },
    /// A file does not have its locked hash.
    #[error("a package is not the file that was locked")]
    #[diagnostic(
        code(pytheas::dependencies::hash),
        help(
            "do not use it; if the index replaced a file on purpose, run `pytheas lock --upgrade`"
        )
    )]
    Hash {
        /// What uv says.
        source: UvSaid,
    },
    /// The network is needed.
    #[error("cannot fetch the locked packages")]
    #[diagnostic(
        code(pytheas::dependencies::network),
        help(
            "check the network and proxy settings; packages that were fetched once stay in uv's cache"
        )
    )]
    Network {
        /// What uv says.
        source: UvSaid,
    },
    /// The network is needed but not to be used.
    #[error("the cache does not have all locked packages, and the network is not to be used")]
    #[diagnostic(
        code(pytheas::dependencies::offline),
        help("build once without `--offline`")
    )]
    Offline {
        /// What uv says.
        source: UvSaid,
    },
    /// The disk is full.
    #[error("the disk is full")]
    #[diagnostic(
        code(pytheas::dependencies::disk_full),
        help(
            "free space where the bundle and uv's cache lie, or choose other places with `-o` and `UV_CACHE_DIR`; nothing was replaced"
        )
    )]
    DiskFull {
        /// What uv says.
        source: UvSaid,
    },
    /// A source distribution cannot be built.
    #[error("a package without a fitting wheel cannot be built from its source")]
    #[diagnostic(
        code(pytheas::dependencies::build),
        help(
            "install what its build needs (a C compiler, headers), or require a version that has a wheel"
        )
    )]
    Build {
        /// What uv says.
        source: UvSaid,
    },
    /// uv failed otherwise.
    #[error("uv cannot install the packages")]
    #[diagnostic(code(pytheas::dependencies::uv), help("what uv says is above"))]
    Uv {
        /// What uv says.
        source: UvSaid,
    },
    /// uv cannot be started.
    #[error("cannot start `{}`", path.display())]
    #[diagnostic(
        code(pytheas::dependencies::start),
        help("name another uv with `PYTHEAS_UV`")
    )]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The error of an unsuccessful call of uv that installs something.
pub(crate) fn uv_error(uv: &Uv, error: UvCallError) -> DependencyError {
    match error {
        UvCallError::Start(source) => DependencyError::Start {
            path: uv.path.clone(),
            source,
        },
        UvCallError::Failed(failure, source) => match failure {
            UvFailure::Hash => DependencyError::Hash { source },
            UvFailure::Network => DependencyError::Network { source },
            UvFailure::Offline => DependencyError::Offline { source },
            UvFailure::DiskFull => DependencyError::DiskFull { source },
            UvFailure::Build => DependencyError::Build { source },
            UvFailure::Unresolvable | UvFailure::Other => DependencyError::Uv { source },
        },
    }
}

/// Every package of the lock that is needed here has a file that fits.
pub(crate) fn check_available(
    lock: &Pylock,
    interpreter: &Interpreter,
    platform: &Platform,
) -> Result<(), DependencyError> {
    crate::install::choose(lock, interpreter, platform).map(|_| ())
}

/// The error for a package none of whose files fits.
pub(crate) fn no_wheel(
    package: &LockedPackage,
    interpreter: &Interpreter,
    platform: &Platform,
) -> DependencyError {
    let tags: Vec<Tags> = package
        .wheels
        .iter()
        .filter_map(|file| Tags::parse(file.file_name()))
        .collect();
    DependencyError::NoWheel {
        package: package.name.clone(),
        version: package.version.clone().unwrap_or_default(),
        platform: platform.clone(),
        python: interpreter.version.clone(),
        available: shown(&tags),
    }
}

fn shown(tags: &[Tags]) -> String {
    let all: BTreeSet<String> = tags.iter().map(Tags::shown).collect();
    let mut list: Vec<String> = all.iter().take(6).map(|tags| format!("`{tags}`")).collect();
    if all.len() > list.len() {
        list.push(format!("{} more", all.len() - list.len()));
    }
    list.join(", ")
}

/// Whether the package's marker holds for the target.
pub(crate) fn is_needed(
    package: &LockedPackage,
    markers: Option<&MarkerEnvironment>,
) -> Result<bool, DependencyError> {
    let (Some(text), Some(markers)) = (&package.marker, markers) else {
        return Ok(true);
    };
    let marker = MarkerTree::from_str(text).map_err(|source| DependencyError::Marker {
        package: package.name.clone(),
        marker: text.clone(),
        source: Box::new(source),
    })?;
    Ok(marker.evaluate(markers, &[]))
}

/// Lets uv install the packages of the lock file `lock` into `target` for `python`. Files are copies: they will be changed.
pub(crate) fn install(
    uv: &Uv,
    python: &Path,
    lock: &Path,
    target: &Path,
) -> Result<(), DependencyError> {
    let mut command = uv.command();
    command
        .args(["pip", "install", "--link-mode", "copy", "--python"])
        .arg(python)
        .arg("--target")
        .arg(target);
    // A sdist's build must not take the time into its files.
    command.env("SOURCE_DATE_EPOCH", "315532800");
    command
        .args(["--preview-features", "pylock", "-r"])
        .arg(lock);
    uv.run(command)
        .map(|_| ())
        .map_err(|error| uv_error(uv, error))
}

/// Frees an installation in `site` of what differs from build to build. Programs that packages
/// bring (not the start scripts, whose first line names this machine's Python) move to `bin`.
pub(crate) fn normalise(site: &Path, bin: &Path) -> Result<(), BuildError> {
    let scripts = site.join("bin");
    let mut programs: Vec<PathBuf> = list(&scripts)?;
    programs.sort();
    for program in programs.iter().filter(|path| path.is_file()) {
        let bytes = fs::read(program).map_err(io_error("read", program))?;
        let target = bin.join(program.file_name().unwrap_or_default());
        if !bytes.starts_with(b"#!") && !target.exists() {
            scratch::write(&target, &bytes, scratch::Kind::Program)
                .map_err(io_error("write", &target))?;
        }
    }
    remove(&scripts)?;
    remove(&site.join(".lock"))?;
    for child in list(site)? {
        if child
            .extension()
            .is_some_and(|extension| extension == "dist-info")
        {
            for name in [
                "INSTALLER",
                "REQUESTED",
                "direct_url.json",
                "uv_cache.json",
                "uv_build.json",
            ] {
                remove(&child.join(name))?;
            }
            normalise_record(site, &child.join("RECORD"))?;
        }
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let children = fs::read_dir(dir).map_err(io_error("read", dir))?;
    children
        .map(|child| {
            child
                .map(|child| child.path())
                .map_err(io_error("read", dir))
        })
        .collect()
}

fn remove(path: &Path) -> Result<(), BuildError> {
    pytheas_durable::remove_tree(path).map_err(io_error("remove", path))
}

/// `RECORD` (PEP 376) with the lines of files that are there, in one order.
fn normalise_record(site: &Path, record: &Path) -> Result<(), BuildError> {
    let Ok(text) = fs::read_to_string(record) else {
        return Ok(());
    };
    let is_there = |line: &&str| {
        let path = match line.strip_prefix('"') {
            Some(quoted) => quoted
                .split("\",")
                .next()
                .unwrap_or(quoted)
                .replace("\"\"", "\""),
            None => line.split(',').next().unwrap_or(line).to_owned(),
        };
        !path.is_empty() && site.join(path).exists()
    };
    let lines: BTreeSet<&str> = text.lines().filter(is_there).collect();
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    scratch::write(record, text.as_bytes(), scratch::Kind::Data).map_err(io_error("write", record))
}
