//! `pytheas sync`: the project's virtual environment from the lock, as editors expect it.
//!
//! uv makes the environment and brings it to exactly what is locked: what is missing comes, what
//! is not locked goes. A project with a `[build-system]` is in it as an editable installation.
//! Groups that do not belong to the app (`dev`, and those asked for) are locked beside it, in
//! `pylock.GROUPS.toml` (PEP 751's names), with the versions of `pylock.toml` where both have one.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pep440_rs::Version;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use crate::{
    environment::Environment,
    event::{Event, Observer},
    inputs::LockInputs,
    local_files,
    lock::{self, LockError, LockOptions, LockReport, LockStatus, Upgrade},
    project::{Project, ProjectError, normalised_name, same_name},
    pylock::{PYLOCK_FILE, Pylock},
    python::PythonRequest,
    pythons,
    uv::{Uv, UvCallError, UvFailure, UvSaid},
};

/// The group that is taken without being asked for, where a project has it.
const DEFAULT_GROUP: &str = "dev";
/// What uv reads, in the environment's folder.
const COMBINED_FILE: &str = "pylock.sync.toml";

/// Whether anything may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Lock when needed, then bring the environment to the lock.
    #[default]
    Apply,
    /// As [`SyncMode::Apply`], but the lock must hold as it is.
    Locked,
    /// As [`SyncMode::Locked`], but a stale lock is used as it is.
    Frozen,
    /// Change nothing; say what would be.
    Check,
}

/// How to sync.
#[derive(Debug, Clone, Default)]
pub struct SyncOptions {
    /// Groups besides the app's own.
    pub groups: Vec<String>,
    /// Extras besides the app's own.
    pub extras: Vec<String>,
    /// Leave out the group `dev`.
    pub no_dev: bool,
    /// Whether anything may be changed.
    pub mode: SyncMode,
    /// The Python; else what the project says.
    pub python: Option<PythonRequest>,
    /// Which locked versions may change though the requirements still allow them; only with
    /// [`SyncMode::Apply`].
    pub upgrade: Upgrade,
}

/// What syncing did.
#[derive(Debug, Clone)]
pub struct SyncReport {
    /// The environment.
    pub environment: PathBuf,
    /// Its Python's version.
    pub python: String,
    /// Whether the environment was made (again).
    pub created: bool,
    /// The groups in it besides the app's own.
    pub groups: Vec<String>,
    /// What locking did; none when every lock held.
    pub locked: Vec<LockReport>,
    /// What came and went, as uv writes it: `+ idna==3.7`, `- six==1.17.0`.
    pub changes: Vec<String>,
}

/// An environment that was not synced.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SyncError {
    /// The lock.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Lock(#[from] LockError),
    /// A group that does not exist.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Project(#[from] ProjectError),
    /// The environment is not as it should be.
    #[error("`{}` is not what is locked: {}", dir.display(), changes.join(", "))]
    #[diagnostic(code(pytheas::sync::out_of_sync), help("run `pytheas sync`"))]
    OutOfSync {
        /// The environment.
        dir: PathBuf,
        /// What would change.
        changes: Vec<String>,
    },
    /// Something else lies there.
    #[error("`{}` is no virtual environment", dir.display())]
    #[diagnostic(
        code(pytheas::sync::not_an_environment),
        help("move it away, or name another folder with `UV_PROJECT_ENVIRONMENT`")
    )]
    NotAnEnvironment {
        /// The folder.
        dir: PathBuf,
    },
    /// uv found no Python, or cannot make the environment.
    #[error("cannot make the environment `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::sync::create),
        help(
            "what uv says is above; install such a Python (`uv python install VERSION`, or a package of your system), or choose another with `--python`"
        )
    )]
    Create {
        /// The environment.
        dir: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// The packages cannot be installed.
    #[error("cannot install what is locked into `{}`", dir.display())]
    #[diagnostic(code(pytheas::sync::install), help("{help}"))]
    Install {
        /// The environment.
        dir: PathBuf,
        /// What to do.
        help: &'static str,
        /// What uv says.
        source: UvSaid,
    },
    /// A file is not the one that was locked.
    #[error("what is to be installed into `{}` is not what was locked", dir.display())]
    #[diagnostic(
        code(pytheas::sync::hash),
        help(
            "do not use it; if the index replaced a file on purpose, run `pytheas lock --upgrade`"
        )
    )]
    Hash {
        /// The environment.
        dir: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// The index does not answer.
    #[error("cannot fetch what is to be installed into `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::sync::network),
        help("check the network, proxy and index settings")
    )]
    Network {
        /// The environment.
        dir: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(code(pytheas::sync::io), help("check permissions and free space"))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The lock of the groups and extras, which `pytheas lock` does not write.
    #[error("`{}` {why}", path.display())]
    #[diagnostic(
        code(pytheas::sync::groups_lock),
        help("run `pytheas sync` with the same groups and extras")
    )]
    GroupsLock {
        /// The file.
        path: PathBuf,
        /// What it is or has.
        why: String,
    },
    /// A lock file is no TOML.
    #[error("`{}` is no lock file", path.display())]
    #[diagnostic(code(pytheas::sync::lock_file), help("run `pytheas lock`"))]
    LockFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml_edit::TomlError>,
    },
}

/// Brings the project's environment to what is locked.
///
/// # Errors
/// See [`SyncError`]; [`SyncError::OutOfSync`] when only checking and something would change.
pub fn sync(
    project: &Project,
    uv: &Uv,
    environment: &Environment,
    options: &SyncOptions,
    observer: Observer<'_>,
) -> Result<SyncReport, SyncError> {
    let uv = &uv.for_project(project);
    let (wider, groups) = with_groups(project, options)?;
    let mut locked = Vec::new();
    let main = current_lock(project, uv, options, &mut locked, observer)?;
    let added_extras = &wider.settings.extras[project.settings.extras.len()..];
    let lock_file = if groups.is_empty() && added_extras.is_empty() {
        project.dir.join(PYLOCK_FILE)
    } else {
        let path = project.dir.join(groups_file(&groups, added_extras));
        lock_groups(&wider, &main, &path, uv, options, &mut locked, observer)?;
        path
    };
    tell_not_required(&locked, observer);
    let dir = environment
        .path("UV_PROJECT_ENVIRONMENT")
        .map_or_else(|| project.dir.join(".venv"), |dir| project.dir.join(dir));
    let wanted = project.python(options.python.as_ref());
    let allowed = main.requires_python.as_deref();
    let allowed: Option<PythonRequest> = allowed.and_then(|text| text.parse().ok());
    let fits = |version: &Version| {
        [&wanted, &allowed]
            .into_iter()
            .flatten()
            .all(|request| request.contains(version))
    };
    let existing = python_of(&dir, environment).filter(|version| fits(version));
    let created = existing.is_none();
    let version = match existing {
        Some(version) => version,
        None if options.mode == SyncMode::Check => {
            let what = "there is no environment with a fitting Python";
            let changes = vec![what.to_owned()];
            return Err(SyncError::OutOfSync { dir, changes });
        }
        None => create(
            &dir,
            wanted.as_ref().or(allowed.as_ref()),
            project,
            uv,
            environment,
        )?,
    };
    let changes = install(project, &lock_file, &dir, uv, options.mode)?;
    if options.mode == SyncMode::Check && !changes.is_empty() {
        return Err(SyncError::OutOfSync { dir, changes });
    }
    Ok(SyncReport {
        environment: dir,
        python: version.to_string(),
        created,
        groups,
        locked,
        changes,
    })
}

/// The project with the groups added to those of the app, and the added ones.
fn with_groups(
    project: &Project,
    options: &SyncOptions,
) -> Result<(Project, Vec<String>), ProjectError> {
    let mut wider = project.clone();
    let dev = project
        .dependency_groups
        .keys()
        .find(|name| !options.no_dev && same_name(name, DEFAULT_GROUP));
    let mut added: Vec<String> = Vec::new();
    for name in dev.into_iter().chain(&options.groups) {
        let name = normalised_name(name);
        let is_in = |names: &[String]| names.iter().any(|other| same_name(other, &name));
        if !is_in(&project.settings.groups) && !is_in(&added) {
            added.push(name);
        }
    }
    added.sort();
    wider.settings.groups.extend(added.iter().cloned());
    let mut extras: Vec<String> = Vec::new();
    for name in &options.extras {
        let is_in = |names: &[String]| names.iter().any(|other| same_name(other, name));
        if !is_in(&project.settings.extras) && !is_in(&extras) {
            extras.push(normalised_name(name));
        }
    }
    extras.sort();
    wider.settings.extras.extend(extras);
    wider.check_groups()?;
    Ok((wider, added))
}

/// The lock beside the app's, e.g. `pylock.dev-extra-web.toml`.
fn groups_file(groups: &[String], extras: &[String]) -> String {
    let extras = extras.iter().map(|name| format!("extra-{name}"));
    let parts: Vec<String> = groups.iter().cloned().chain(extras).collect();
    format!("pylock.{}.toml", parts.join("-"))
}

/// `pylock.toml`, locked now if that is needed and allowed.
fn current_lock(
    project: &Project,
    uv: &Uv,
    options: &SyncOptions,
    locked: &mut Vec<LockReport>,
    observer: Observer<'_>,
) -> Result<Pylock, SyncError> {
    let status = lock::status(project)?;
    let upgrades = options.upgrade != Upgrade::Nothing && options.mode == SyncMode::Apply;
    match status {
        _ if upgrades => {}
        LockStatus::Current(lock) | LockStatus::Foreign(lock) => return Ok(lock),
        LockStatus::Stale(_) if options.mode == SyncMode::Frozen => {
            if let Some(lock) = Pylock::read(&project.lock_path()).map_err(LockError::from)? {
                return Ok(lock);
            }
        }
        _ if options.mode == SyncMode::Apply => {}
        _ => return Ok(lock::check(project)?),
    }
    let path = project.lock_path();
    let report = lock::lock_into(project, &path, uv, &lock_options(options), observer)?;
    locked.push(report);
    Ok(lock::check(project)?)
}

/// Warns of packages that were to be upgraded and that none of the locks made now has.
fn tell_not_required(locked: &[LockReport], observer: Observer<'_>) {
    let Some((first, others)) = locked.split_first() else {
        return;
    };
    for name in &first.not_required {
        if others.iter().all(|lock| lock.not_required.contains(name)) {
            observer(Event::Warning {
                text: format!("`{name}` shall be upgraded, but nothing requires it"),
            });
        }
    }
}

fn lock_options(options: &SyncOptions) -> LockOptions {
    let lowest = options.python.as_ref().and_then(PythonRequest::lower_bound);
    LockOptions {
        python_version: lowest.map(|version| version.to_string()),
        upgrade: options.upgrade.clone(),
        ..LockOptions::default()
    }
}

/// The lock of the app with its groups, made again when it is stale or `pylock.toml` moved on.
fn lock_groups(
    wider: &Project,
    main: &Pylock,
    path: &Path,
    uv: &Uv,
    options: &SyncOptions,
    locked: &mut Vec<LockReport>,
    observer: Observer<'_>,
) -> Result<(), SyncError> {
    let mut now = LockInputs::of(wider).map_err(LockError::from)?;
    let existing = Pylock::read(path).map_err(LockError::from)?;
    let changes = match existing.as_ref().map(|lock| (lock, lock.inputs())) {
        None => None,
        Some((_, None)) => Some(Vec::new()),
        Some((lock, Some(before))) if has_versions_of(lock, main) => {
            now.files = local_files::now(&wider.dir, &before.files);
            Some(before.changes(&now))
        }
        Some(_) => None,
    };
    let upgrades = options.upgrade != Upgrade::Nothing && options.mode == SyncMode::Apply;
    if changes.as_ref().is_some_and(Vec::is_empty) && !upgrades {
        return Ok(());
    }
    if options.mode == SyncMode::Frozen && existing.is_some() {
        return Ok(());
    }
    if options.mode != SyncMode::Apply {
        let why = match changes {
            Some(changes) => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                format!("is stale: {}", changes.join(", "))
            }
            None if existing.is_none() => "is missing".to_owned(),
            None => format!("has other versions than `{PYLOCK_FILE}`"),
        };
        let path = path.to_owned();
        return Err(SyncError::GroupsLock { path, why });
    }
    let report = lock::lock_beside(wider, path, uv, &lock_options(options), observer)?;
    locked.push(report);
    Ok(())
}

/// Whether `lock` has no other version of a package than `main`.
fn has_versions_of(lock: &Pylock, main: &Pylock) -> bool {
    let mut versions: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for package in &main.packages {
        let known = versions.entry(&package.name).or_default();
        known.push(package.version.as_deref());
    }
    lock.packages.iter().all(|package| {
        versions
            .get(package.name.as_str())
            .is_none_or(|known| known.contains(&package.version.as_deref()))
    })
}

/// The version of the environment's Python; none when there is none that runs.
fn python_of(dir: &Path, environment: &Environment) -> Option<Version> {
    if !dir.join("pyvenv.cfg").is_file() {
        return None;
    }
    pythons::version_of(&dir.join("bin/python"), environment)
}

/// Makes the environment; one whose Python does not fit (any more) is replaced.
fn create(
    dir: &Path,
    python: Option<&PythonRequest>,
    project: &Project,
    uv: &Uv,
    environment: &Environment,
) -> Result<Version, SyncError> {
    let is_empty = std::fs::read_dir(dir).map_or(true, |mut children| children.next().is_none());
    // Also a link to nowhere is something.
    let is_free = dir.symlink_metadata().is_err() || (dir.is_dir() && is_empty);
    let may_be_replaced = is_free || dir.join("pyvenv.cfg").is_file() || is_half_made(dir);
    if !may_be_replaced {
        return Err(SyncError::NotAnEnvironment {
            dir: dir.to_owned(),
        });
    }
    let failed = |source| SyncError::Create {
        dir: dir.to_owned(),
        source,
    };
    let run = |python: Option<&OsStr>| {
        let mut command = uv.command();
        command.args(["venv", "--no-project", "--clear", "--prompt"]);
        command.arg(project.name.as_str());
        command.args(
            python
                .into_iter()
                .flat_map(|python| [OsStr::new("--python"), python]),
        );
        uv.run(command_in(command, dir))
    };
    let asked = python.map(ToString::to_string);
    let mut result = run(asked.as_deref().map(OsStr::new));
    if let (Err(UvCallError::Failed(..)), Some(request)) = (&result, python)
        && let Some(found) = pythons::fitting(environment, request)
    {
        result = run(Some(found.as_os_str()));
    }
    match result {
        Ok(_) => {}
        Err(UvCallError::Start(source)) => {
            return Err(LockError::Start {
                path: uv.path.clone(),
                source,
            }
            .into());
        }
        Err(UvCallError::Failed(UvFailure::DiskFull, source)) => {
            return Err(LockError::DiskFull { source }.into());
        }
        Err(UvCallError::Failed(_, said)) => return Err(failed(said)),
    }
    python_of(dir, environment).ok_or_else(|| failed(UvSaid("its Python does not run".to_owned())))
}

/// Whether the folder is what uv leaves of an environment when the disk was full or it was killed:
/// its mark of a cache, and nothing but what it makes.
fn is_half_made(dir: &Path) -> bool {
    const MADE: [&str; 8] = [
        ".gitignore",
        ".lock",
        "CACHEDIR.TAG",
        "bin",
        "include",
        "lib",
        "lib64",
        "share",
    ];
    let is_made = |child: io::Result<std::fs::DirEntry>| {
        child.is_ok_and(|child| MADE.iter().any(|name| child.file_name() == *name))
    };
    dir.join("CACHEDIR.TAG").is_file()
        && std::fs::read_dir(dir).is_ok_and(|mut children| children.all(is_made))
}

fn command_in(mut command: std::process::Command, dir: &Path) -> std::process::Command {
    command.arg(dir);
    command
}

/// Lets uv install and remove; gives what changed, or would.
fn install(
    project: &Project,
    lock_file: &Path,
    dir: &Path,
    uv: &Uv,
    mode: SyncMode,
) -> Result<Vec<String>, SyncError> {
    let scratch;
    let combined = if mode == SyncMode::Check {
        // A check writes nothing, not even into the environment.
        scratch = tempfile::tempdir().map_err(|source| SyncError::Io {
            action: "make a folder in",
            path: std::env::temp_dir(),
            source,
        })?;
        scratch.path().join(COMBINED_FILE)
    } else {
        dir.join(COMBINED_FILE)
    };
    let text = combine(project, lock_file)?;
    pytheas_durable::replace(&combined, text.as_bytes()).map_err(|source| SyncError::Io {
        action: "write",
        path: combined.clone(),
        source,
    })?;
    let mut command = uv.command();
    command
        .args(["pip", "sync", "--preview-features", "pylock", "--python"])
        .arg(dir.join("bin/python"))
        .arg("--allow-empty-requirements");
    if mode == SyncMode::Check {
        command.arg("--dry-run");
    }
    match uv.run(command_in(command, &combined)) {
        Ok((_, said)) => Ok(changes(&said)),
        Err(UvCallError::Start(source)) => Err(LockError::Start {
            path: uv.path.clone(),
            source,
        }
        .into()),
        Err(UvCallError::Failed(failure, source)) => {
            let dir = dir.to_owned();
            Err(match failure {
                UvFailure::Hash => SyncError::Hash { dir, source },
                UvFailure::Network => SyncError::Network { dir, source },
                UvFailure::DiskFull => LockError::DiskFull { source }.into(),
                failure => SyncError::Install {
                    dir,
                    help: help(failure),
                    source,
                },
            })
        }
    }
}

fn help(failure: UvFailure) -> &'static str {
    match failure {
        UvFailure::Credentials => "check the index's address and your credentials for it",
        UvFailure::Offline => "run once without `--offline`",
        UvFailure::TooLarge => {
            "it was not installed; require another version of it, and report it to the index"
        }
        UvFailure::Build => {
            "what its build back end says is above; it may need more to be installed (a C compiler, headers)"
        }
        UvFailure::Network
        | UvFailure::Hash
        | UvFailure::DiskFull
        | UvFailure::Unresolvable
        | UvFailure::Other => "what uv says is above",
    }
}

/// The lines in which uv says what it did: ` + idna==3.7`.
fn changes(said: &str) -> Vec<String> {
    let signs = [" + ", " - ", " ~ "];
    let is_change = |line: &&str| signs.iter().any(|sign| line.starts_with(sign));
    let lines = said.lines().filter(is_change);
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The lock with absolute paths, and the project itself as an editable installation.
fn combine(project: &Project, lock_file: &Path) -> Result<String, SyncError> {
    let text = std::fs::read_to_string(lock_file).map_err(|source| SyncError::Io {
        action: "read",
        path: lock_file.to_owned(),
        source,
    })?;
    let mut document: DocumentMut = text.parse().map_err(|source| SyncError::LockFile {
        path: lock_file.to_owned(),
        source: Box::new(source),
    })?;
    document.remove("tool");
    // A lock of nothing may be written as `packages = []`.
    let is_empty = |item: &Item| item.as_array().is_some_and(toml_edit::Array::is_empty);
    if document.get("packages").is_none_or(is_empty) {
        document.insert("packages", Item::ArrayOfTables(ArrayOfTables::new()));
    }
    if let Some(packages) = document["packages"].as_array_of_tables_mut() {
        for package in packages.iter_mut() {
            for source in ["directory", "archive", "vcs", "sdist"] {
                if let Some(path) = package
                    .get_mut(source)
                    .and_then(|item| item.get_mut("path"))
                {
                    make_absolute(path, &project.dir);
                }
            }
            let wheels = package.get_mut("wheels").and_then(Item::as_array_mut);
            for wheel in wheels.into_iter().flat_map(|wheels| wheels.iter_mut()) {
                let path = wheel
                    .as_inline_table_mut()
                    .and_then(|table| table.get_mut("path"));
                if let Some(path) = path {
                    let mut item = Item::Value(path.clone());
                    make_absolute(&mut item, &project.dir);
                    if let Item::Value(value) = item {
                        *path = value;
                    }
                }
            }
        }
        if project.has_build_system {
            packages.push(own_package(project));
        }
    }
    Ok(document.to_string())
}

/// The project as a package of the lock. Its distribution's name may differ from the app's.
fn own_package(project: &Project) -> Table {
    let mut source = toml_edit::InlineTable::new();
    source.insert("path", Value::from(project.dir.display().to_string()));
    source.insert("editable", Value::from(true));
    let mut table = Table::new();
    let name = distribution_name(project);
    table.insert("name", toml_edit::value(normalised_name(&name)));
    table.insert("directory", toml_edit::value(source));
    table
}

/// `project.name`, which `app` in `[tool.pytheas]` may hide.
fn distribution_name(project: &Project) -> String {
    let text = std::fs::read_to_string(project.dir.join("pyproject.toml")).unwrap_or_default();
    let document: Option<DocumentMut> = text.parse().ok();
    let name = document.and_then(|document| {
        let name = document.get("project")?.get("name")?.as_str()?;
        Some(name.to_owned())
    });
    name.unwrap_or_else(|| project.name.to_string())
}

fn make_absolute(item: &mut Item, base: &Path) {
    if let Some(text) = item.as_str()
        && Path::new(text).is_relative()
        && let Some(path) = base.join(text).to_str()
    {
        *item = toml_edit::value(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_uv_did_is_read_from_its_words() {
        let said =
            "Using Python 3.11\nPrepared 1 package\n + a==1 (from file:///x)\n - b==2\nDone\n";
        assert_eq!(changes(said), ["+ a==1 (from file:///x)", "- b==2"]);
    }

    #[test]
    fn the_lock_for_uv_names_absolute_paths_and_the_project() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let put = |name: &str, text: &str| {
            pytheas_durable::replace(&root.join(name), text.as_bytes()).unwrap();
        };
        put(
            "pyproject.toml",
            "[project]\nname = 'My_App'\nversion = '1'\n[build-system]\nrequires = ['x']\n",
        );
        put(
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'a'\nwheels = [{ path = 'w/a-1-py3-none-any.whl' }]\n[[packages]]\nname = 'b'\ndirectory = { path = '../b' }\n[tool.x]\ny = 1\n",
        );
        let project = Project::load(&root).unwrap();
        let text = combine(&project, &root.join("pylock.toml")).unwrap();
        let text = text.replace(&root.display().to_string(), "ROOT");
        insta::assert_snapshot!(text, @r#"
        lock-version = '1.0'
        [[packages]]
        name = 'a'
        wheels = [{ path = "ROOT/w/a-1-py3-none-any.whl" }]
        [[packages]]
        name = 'b'
        directory = { path = "ROOT/../b" }

        [[packages]]
        name = "my-app"
        directory = { path = "ROOT", editable = true }
        "#);
    }

    #[test]
    fn a_project_without_dependencies_is_installed_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let put = |name: &str, text: &str| {
            pytheas_durable::replace(&root.join(name), text.as_bytes()).unwrap();
        };
        put(
            "pyproject.toml",
            "[project]\nname = 'app'\nversion = '1'\n[build-system]\nrequires = ['x']\n",
        );
        let project = Project::load(&root).unwrap();
        for packages in ["packages = []\n", ""] {
            put("pylock.toml", &format!("lock-version = '1.0'\n{packages}"));
            let text = combine(&project, &root.join("pylock.toml")).unwrap();
            let lock: Pylock = toml::from_str(&text).unwrap();
            assert_eq!(lock.packages.len(), 1, "{text}");
            assert_eq!(lock.packages[0].name, "app");
        }
    }

    #[test]
    fn only_what_uv_leaves_of_an_environment_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| pytheas_durable::replace(&dir.path().join(name), b"").unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        assert!(!is_half_made(dir.path()));
        put("CACHEDIR.TAG");
        assert!(is_half_made(dir.path()));
        put("notes.txt");
        assert!(!is_half_made(dir.path()));
        assert!(!is_half_made(&dir.path().join("notes.txt")));
    }
}
