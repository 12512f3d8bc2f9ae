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
use walkdir::WalkDir;

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
    /// A source that cannot be compiled for the target.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Native(#[from] crate::native::NativeError),
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
    /// The index does not know who asks.
    #[error("the package index refuses the locked packages")]
    #[diagnostic(
        code(pytheas::dependencies::credentials),
        help(
            "check the index's address and your credentials for it: `netrc`, `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`, or keyring with `UV_KEYRING_PROVIDER=subprocess`"
        )
    )]
    Credentials {
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
    /// A package that fills disks.
    #[error("a locked package unpacks to too much")]
    #[diagnostic(
        code(pytheas::dependencies::refused::too_large),
        help("it was not installed; require another version of it, and report it to the index")
    )]
    TooLarge {
        /// Which package, and the limit.
        source: UvSaid,
    },
    /// A source distribution cannot be built.
    #[error("a package without a fitting wheel cannot be built from its source")]
    #[diagnostic(
        code(pytheas::dependencies::build),
        help(
            "install what its build needs (a C compiler, headers), or require a version that has a wheel; builds run without a network and with an empty home folder: `[tool.pytheas.build] network = [\"NAME\"]` or `--allow-build-network` allows it"
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
            UvFailure::Credentials => DependencyError::Credentials { source },
            UvFailure::Offline => DependencyError::Offline { source },
            UvFailure::DiskFull => DependencyError::DiskFull { source },
            UvFailure::TooLarge => DependencyError::TooLarge { source },
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

/// Lets uv install the packages of `lock`, which lies in the file `path`, into `target` for
/// `python`. Files are copies: they will be changed.
pub(crate) fn install(
    uv: &Uv,
    python: &Path,
    lock: &Pylock,
    path: &Path,
    target: &Path,
) -> Result<(), DependencyError> {
    let mut command = uv.command();
    command
        .args(["pip", "install", "--link-mode", "copy", "--python"])
        .arg(python)
        .arg("--target")
        .arg(target);
    // A sdist's build must not take the time into its files, nor the scratch folder that it is
    // compiled in, which debug information names.
    let mut flags = command
        .get_envs()
        .find(|(name, _)| *name == "CFLAGS")
        .and_then(|(_, value)| Some(value?.to_owned()))
        .unwrap_or_default();
    flags.push(" -g0");
    command
        .env("SOURCE_DATE_EPOCH", "315532800")
        .env("CFLAGS", flags)
        // Editable: a path of this machine instead of the package.
        .env("UV_NO_EDITABLE", "1");
    // uv takes a folder for unchanged as long as its `pyproject.toml` is.
    for package in lock.packages.iter().filter(|p| p.directory.is_some()) {
        command.args(["--refresh-package", &package.name]);
    }
    command
        .args(["--preview-features", "pylock", "-r"])
        .arg(path);
    uv.run(command)
        .map(|_| ())
        .map_err(|error| uv_error(uv, error))
}

/// Top folders of data that wheels install into `sys.prefix` (PEP 427, `*.data/data`): programs look
/// for it there, but with `--target` uv puts it beside the packages.
const DATA: &[&str] = &["etc", "lib", "man", "share", "var"];

/// Frees an installation in `site` of what differs from build to build, and brings the rest to its
/// place under `home`, the interpreter's prefix: data, and programs that packages bring (not the
/// start scripts, whose first line names this machine's Python).
pub(crate) fn normalise(site: &Path, home: &Path) -> Result<(), BuildError> {
    let scripts = site.join("bin");
    let mut programs: Vec<PathBuf> = list(&scripts)?;
    programs.sort();
    for program in programs.iter().filter(|path| path.is_file()) {
        let bytes = fs::read(program).map_err(io_error("read", program))?;
        let target = home
            .join("bin")
            .join(program.file_name().unwrap_or_default());
        if !bytes.starts_with(b"#!") && !target.exists() {
            scratch::write(&target, &bytes, scratch::Kind::Program)
                .map_err(io_error("write", &target))?;
        }
    }
    remove(&scripts)?;
    remove(&site.join(".lock"))?;
    for name in DATA {
        move_data(&site.join(name), &home.join(name))?;
    }
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
            normalise_record(site, home, &child.join("RECORD"))?;
        }
    }
    Ok(())
}

/// Moves the files of the data folder `from` into `to`; one of Python's own stays as it is. A
/// folder of modules is a package that happens to have this name.
fn move_data(from: &Path, to: &Path) -> Result<(), BuildError> {
    let is_module = |path: &PathBuf| path.extension().is_some_and(|end| end == "py");
    if !from.is_dir() || list(from)?.iter().any(is_module) {
        return Ok(());
    }
    for entry in WalkDir::new(from).sort_by_file_name() {
        let entry = entry.map_err(|error| io_error("read", from)(error.into()))?;
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        if entry.file_type().is_file() && !target.exists() {
            scratch::copy(entry.path(), &target).map_err(io_error("write", &target))?;
        }
    }
    remove(from)
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

/// `RECORD` (PEP 376) with the lines of files that are there, in one order; data by its new path.
fn normalise_record(site: &Path, home: &Path, record: &Path) -> Result<(), BuildError> {
    let Ok(text) = fs::read_to_string(record) else {
        return Ok(());
    };
    let depth = site.strip_prefix(home).unwrap_or(site).components().count();
    let up = "../".repeat(depth);
    let now = |line: &str| {
        let (quote, rest) = match line.strip_prefix('"') {
            Some(rest) => ("\"", rest),
            None => ("", line),
        };
        let path = if quote.is_empty() {
            rest.split(',').next().unwrap_or(rest).to_owned()
        } else {
            rest.split("\",")
                .next()
                .unwrap_or(rest)
                .replace("\"\"", "\"")
        };
        let top = path.split('/').next().unwrap_or("");
        if path.is_empty() {
            None
        } else if site.join(&path).exists() {
            Some(line.to_owned())
        } else if DATA.contains(&top) && home.join(&path).exists() {
            Some(format!("{quote}{up}{rest}"))
        } else {
            None
        }
    };
    let lines: BTreeSet<String> = text.lines().filter_map(now).collect();
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    scratch::write(record, text.as_bytes(), scratch::Kind::Data).map_err(io_error("write", record))
}
