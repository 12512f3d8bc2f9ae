//! The cache folder: what is in it, and making it smaller while builds may be going on.
//!
//! Everything in it can be made or fetched again. What works with it holds a shared lock on
//! `CACHE/.lock` ([`use_cache`]); collecting takes it alone, so nothing vanishes under a build. An
//! entry is renamed before it is removed: what a killed collection leaves is no entry any more.
//!
//! Beside it lie the folders of *apps* on this machine, which are not the builder's: `run`, trees
//! that one-file bundles unpacked, and `venvs`, environments that wheelhouses made. Only what has the
//! name that launchers give is an entry there (`PYTHEAS_UNPACK_DIR` may be anyone's folder, `/tmp`
//! say), and of those only what no process uses is removed (`/proc`), each under the lock that its
//! launcher takes.
//!
//! When an entry was used last is the youngest time of its files: read (`atime`, exact to a day on
//! most file systems, not kept on `noatime`) or changed.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use miette::Diagnostic;
use pytheas_durable::{FileLock, LockError};
use pytheas_project::Environment;
use serde::Serialize;

use crate::budget::Budget;

/// The lock file in the cache folder.
const LOCK: &str = ".lock";
/// What is being removed.
const GONE: &str = ".gone-";

/// What only projects hold, not caches.
const OF_PROJECTS: &[&str] = &[".git", ".hg", "pyproject.toml", "setup.py", "main.py"];

/// A folder of the cache: its name, what it holds, and how deep its entries lie.
const PARTS: &[(&str, &str, usize)] = &[
    ("wheels", "packages, as fetched and unpacked", 1),
    ("interpreters", "prepared Pythons", 1),
    ("bytecode", "byte code of packages", 2),
    ("frames", "packed parts of one-file bundles", 1),
    ("native", "what was compiled, and its tools", 2),
    ("debian", "packages of Debian", 1),
    ("tools", "uv, zig, mpy-cross", 1),
    ("micropython", "modules and packages for boards", 2),
    ("test-locks", "what tests need", 1),
    ("boards", "what is known of boards", 1),
];
/// The same of apps.
const APPS: &[(&str, &str)] = &[
    ("run", "unpacked one-file bundles"),
    ("venvs", "environments of wheelhouses"),
];

/// Whose a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheOwner {
    /// The builder's.
    Builds,
    /// Of apps that run on this machine.
    Apps,
}

/// One folder of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CachePart {
    /// Its name, e.g. `wheels`.
    pub name: String,
    /// What it holds.
    pub what: String,
    /// Where it is.
    pub dir: PathBuf,
    /// Whose it is.
    pub owner: CacheOwner,
    /// How many entries.
    pub entries: usize,
    /// Their size.
    pub size_bytes: u64,
    /// Seconds since 1970 when an entry of it was used last.
    pub used: Option<i64>,
}

/// What is in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheInfo {
    /// The folder.
    pub dir: PathBuf,
    /// Its parts that exist.
    pub parts: Vec<CachePart>,
    /// The size of all of them.
    pub size_bytes: u64,
}

/// What to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collect {
    /// What was not used for so long; then the least recently used until the rest is small enough.
    Unused {
        /// For so long.
        older_than: Duration,
        /// Size of what may stay, all of the builder's parts together; apps' trees do not count, and
        /// do not go for it: making them again is the apps' next start.
        max_bytes: Option<u64>,
    },
    /// All of these parts; of all that are the builder's when empty.
    Parts(Vec<String>),
}

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Whether it was only looked at.
    pub dry_run: bool,
    /// The entries.
    pub removed: Vec<PathBuf>,
    /// Their size.
    pub removed_bytes: u64,
    /// Entries that would have gone, but are in use.
    pub in_use: Vec<PathBuf>,
    /// The size of what stays.
    pub kept_bytes: u64,
}

/// A cache that cannot be looked at or made smaller.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum CacheError {
    /// A build works with it.
    #[error("the cache `{}` is in use", dir.display())]
    #[diagnostic(
        code(pytheas::cache::locked),
        help("wait until the build or the other collection has ended, then try again")
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The lock.
        source: pytheas_durable::LockError,
    },
    /// A folder that holds other things as well: `tools` in it may be anyone's.
    #[error("`{}` is no folder of the cache's own: {reason}", dir.display())]
    #[diagnostic(
        code(pytheas::parts::shared),
        help("nothing was removed; let `PYTHEAS_CACHE_DIR` name a folder that holds nothing else")
    )]
    Shared {
        /// The folder.
        dir: PathBuf,
        /// What else it is.
        reason: String,
    },
    /// No such part.
    #[error("the cache has no part `{name}`")]
    #[diagnostic(code(pytheas::parts::unknown), help("its parts are {known}"))]
    Part {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The system.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::cache::io),
        help("check the permissions; `PYTHEAS_CACHE_DIR` names another cache")
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

/// Bytes of a size as people write it: `500 MB`, `2GiB`.
///
/// # Errors
/// When it is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    Budget::parse(text.trim())
        .map(|budget| budget.bytes)
        .map_err(|_| format!("`{text}` is no size such as `500 MB` or `2 GB`"))
}

/// Keeps the cache from being made smaller while this is held; waits while it is. Where no lock can
/// be had (a read-only cache) there is none.
pub fn use_cache(environment: &Environment) -> Option<FileLock> {
    let dir = environment.cache_dir();
    pytheas_durable::create_dir_all(&dir).ok()?;
    FileLock::share(&dir.join(LOCK)).ok()
}

/// One thing that can be removed by itself.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    owner: CacheOwner,
    size: u64,
    used: i64,
}

/// The folders, whether they exist or not.
fn parts(
    environment: &Environment,
) -> Vec<(&'static str, &'static str, PathBuf, CacheOwner, usize)> {
    let cache = environment.cache_dir();
    let mut parts: Vec<_> = PARTS
        .iter()
        .map(|(name, what, depth)| (*name, *what, cache.join(name), CacheOwner::Builds, *depth))
        .collect();
    let base = environment
        .path("XDG_CACHE_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(environment.home()?.join(".cache")));
    for (name, what) in APPS {
        let chosen = environment
            .path("PYTHEAS_UNPACK_DIR")
            .filter(|_| *name == "run");
        let own = base.as_ref().map(|base| base.join("pytheas").join(name));
        let mut seen: Vec<PathBuf> = Vec::new();
        for dir in chosen.into_iter().chain(own) {
            let real = dir.canonicalize().unwrap_or_else(|_| dir.clone());
            if !seen.contains(&real) {
                seen.push(real);
                parts.push((*name, *what, dir, CacheOwner::Apps, 1));
            }
        }
    }
    parts
}

/// Refuses a folder that is not only a cache, as `PYTHEAS_CACHE_DIR=$HOME` names one: its `tools`
/// may be the user's.
fn check_own(environment: &Environment, cache: &Path) -> Result<(), CacheError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let cache_is = real(cache);
    let is_above_home = environment
        .home()
        .is_some_and(|home| real(&home).starts_with(&cache_is));
    let of_project = OF_PROJECTS.iter().find(|name| cache.join(name).exists());
    let reason = match (is_above_home, of_project) {
        (true, _) => "your home folder lies there".to_owned(),
        (false, Some(name)) => format!("it holds `{name}`"),
        (false, None) => return Ok(()),
    };
    Err(CacheError::Shared {
        dir: cache.to_owned(),
        reason,
    })
}

/// Whether a launcher named an entry of `part` so: `run/<tree id>`, `venvs/APP-<key>`; or it is
/// what a killed start or collection left of one.
fn is_of_launchers(part: &str, name: &str) -> bool {
    let name = name.strip_prefix(GONE).unwrap_or(name);
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let is_hex = |text: &str, length| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    match part {
        "run" => is_hex(name, 64),
        _ => name
            .rsplit_once('-')
            .is_some_and(|(app, key)| !app.is_empty() && is_hex(key, 16)),
    }
}

/// What is in the cache.
///
/// # Errors
/// When a folder that exists cannot be read.
pub fn cache_info(environment: &Environment) -> Result<CacheInfo, CacheError> {
    let mut info = CacheInfo {
        dir: environment.cache_dir(),
        parts: Vec::new(),
        size_bytes: 0,
    };
    for (name, what, dir, owner, depth) in parts(environment) {
        if !dir.is_dir() {
            continue;
        }
        let entries = entries(name, &dir, owner, depth)?;
        let size_bytes = entries.iter().map(|entry| entry.size).sum();
        info.size_bytes += size_bytes;
        info.parts.push(CachePart {
            name: name.to_owned(),
            what: what.to_owned(),
            dir,
            owner,
            entries: entries.len(),
            size_bytes,
            used: entries.iter().map(|entry| entry.used).max(),
        });
    }
    info.parts
        .sort_by_key(|part| std::cmp::Reverse(part.size_bytes));
    Ok(info)
}

/// The entries `depth` levels below `dir`, the folder of `part`.
fn entries(
    part: &str,
    dir: &Path,
    owner: CacheOwner,
    depth: usize,
) -> Result<Vec<Entry>, CacheError> {
    let mut found = Vec::new();
    let children = fs::read_dir(dir).map_err(|source| CacheError::Io {
        what: "read",
        path: dir.to_owned(),
        source,
    })?;
    for child in children.flatten() {
        let path = child.path();
        let is_dir = child.file_type().is_ok_and(|kind| kind.is_dir());
        // Locks stay: a process may be waiting for one.
        if !is_dir && path.extension().is_some_and(|end| end == "lock") {
            continue;
        }
        if depth > 1 && is_dir {
            found.extend(entries(part, &path, owner, depth - 1)?);
            continue;
        }
        let name = child.file_name();
        if owner == CacheOwner::Apps && !is_of_launchers(part, &name.to_string_lossy()) {
            continue;
        }
        let (size, used) = measured(&path);
        found.push(Entry {
            path,
            owner,
            size,
            used,
        });
    }
    Ok(found)
}

/// The size of what lies at `path`, and when it was used last.
fn measured(path: &Path) -> (u64, i64) {
    let (mut size, mut used) = (0, 0);
    let walk = walkdir::WalkDir::new(path).follow_root_links(false);
    for entry in walk.into_iter().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            // Looking into a folder, as here, is no use of it.
            used = used.max(meta.ctime());
        } else {
            size += meta.len();
            used = used.max(meta.atime()).max(meta.mtime()).max(meta.ctime());
        }
    }
    (size, used)
}

/// Makes the cache smaller; `now` is in seconds since 1970.
///
/// # Errors
/// When a build uses it, a part does not exist, or something cannot be removed.
pub fn collect_cache(
    environment: &Environment,
    what: &Collect,
    now: i64,
    dry_run: bool,
) -> Result<Collected, CacheError> {
    let cache = environment.cache_dir();
    let parts = parts(environment);
    if let Collect::Parts(names) = what {
        for name in names {
            if !parts.iter().any(|part| part.0 == name) {
                let known: Vec<String> = parts.iter().map(|part| format!("`{}`", part.0)).collect();
                return Err(CacheError::Part {
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
    }
    let is_wanted = |name: &str, owner: CacheOwner| match what {
        Collect::Unused { .. } => true,
        Collect::Parts(names) if names.is_empty() => owner == CacheOwner::Builds,
        Collect::Parts(names) => names.iter().any(|wanted| wanted == name),
    };
    let mut collected = Collected {
        dry_run,
        ..Collected::default()
    };
    check_own(environment, &cache)?;
    let _alone = if cache.is_dir() && !dry_run {
        let lock = FileLock::acquire(&cache.join(LOCK));
        Some(lock.map_err(|error| match error {
            LockError::Io { path, source } => CacheError::Io {
                what: "lock",
                path,
                source,
            },
            source => CacheError::InUse { dir: cache, source },
        })?)
    } else {
        None
    };
    let mut all = Vec::new();
    for (name, _, dir, owner, depth) in &parts {
        if dir.is_dir() && is_wanted(name, *owner) {
            all.extend(entries(name, dir, *owner, *depth)?);
        }
    }
    all.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut left: u64 = all.iter().map(|entry| entry.size).sum();
    let is_builders = |entry: &&Entry| entry.owner == CacheOwner::Builds;
    let mut of_builds: u64 = all.iter().filter(is_builders).map(|entry| entry.size).sum();
    let used = processes_files();
    for entry in all {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
        // With the lock held nobody works on these.
        let is_leftover = entry.owner == CacheOwner::Builds
            && (name.starts_with(GONE) || name.starts_with(".new-") || name.starts_with(".tmp"));
        let goes = match what {
            Collect::Parts(_) => true,
            Collect::Unused {
                older_than,
                max_bytes,
            } => {
                let age = u64::try_from(now - entry.used).unwrap_or(0);
                is_leftover
                    || age > older_than.as_secs()
                    || entry.owner == CacheOwner::Builds
                        && max_bytes.is_some_and(|limit| of_builds > limit)
            }
        };
        if !goes {
            continue;
        }
        if is_used(&used, &entry.path) {
            collected.in_use.push(entry.path);
            continue;
        }
        if !dry_run && !remove(&entry)? {
            collected.in_use.push(entry.path);
            continue;
        }
        left -= entry.size;
        if entry.owner == CacheOwner::Builds {
            of_builds -= entry.size;
        }
        collected.removed_bytes += entry.size;
        collected.removed.push(entry.path);
    }
    collected.kept_bytes = left;
    Ok(collected)
}

/// Removes an entry; false when it is an app's that is being started or unpacked.
fn remove(entry: &Entry) -> Result<bool, CacheError> {
    let failed = |what| {
        let path = entry.path.clone();
        move |source| CacheError::Io { what, path, source }
    };
    let name = entry.path.file_name().unwrap_or_default();
    let folder = entry.path.parent().unwrap_or(Path::new("."));
    let mut _launchers = None;
    if entry.owner == CacheOwner::Apps {
        let text = name.to_string_lossy();
        let id = text.strip_prefix(GONE).unwrap_or(&text);
        let id = id.strip_suffix(".tmp").unwrap_or(id);
        match FileLock::acquire(&folder.join(format!("{id}.lock"))) {
            Ok(lock) => _launchers = Some(lock),
            Err(_) => return Ok(false),
        }
    }
    let gone = if name.as_bytes().starts_with(GONE.as_bytes()) {
        entry.path.clone()
    } else {
        let mut gone = std::ffi::OsString::from(GONE);
        gone.push(name);
        let gone = folder.join(gone);
        if gone.is_dir() {
            pytheas_durable::remove_tree(&gone).map_err(failed("remove"))?;
        }
        rename(&entry.path, &gone).map_err(failed("remove"))?;
        gone
    };
    // An app that was started at that moment runs from there, and has it back.
    let started = entry.owner == CacheOwner::Apps && is_used(&processes_files(), &gone);
    if started {
        rename(&gone, &entry.path).map_err(failed("put back"))?;
        return Ok(false);
    }
    let removed = if gone.is_dir() && !gone.is_symlink() {
        pytheas_durable::remove_tree(&gone)
    } else {
        fs::remove_file(&gone)
    };
    removed.map_err(failed("remove"))?;
    Ok(true)
}

#[expect(
    clippy::disallowed_methods,
    reason = "an entry of the cache on its way out; nothing needs it to be there after a power cut"
)]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Whether a process uses what lies at `path`; it may know it by a link above it.
fn is_used(files: &[PathBuf], path: &Path) -> bool {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    files
        .iter()
        .any(|file| file.starts_with(path) || file.starts_with(&real))
}

/// What the processes of this machine, as far as we may look, run, map and were started with.
fn processes_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = process.path();
        let is_process = process
            .file_name()
            .as_bytes()
            .iter()
            .all(u8::is_ascii_digit);
        if !is_process {
            continue;
        }
        files.extend(
            ["exe", "cwd"]
                .iter()
                .filter_map(|link| fs::read_link(dir.join(link)).ok()),
        );
        let maps = fs::read_to_string(dir.join("maps")).unwrap_or_default();
        let mapped = maps
            .lines()
            .filter_map(|line| Some(&line[line.find('/')?..]));
        files.extend(mapped.map(PathBuf::from));
        let arguments = fs::read(dir.join("cmdline")).unwrap_or_default();
        let arguments = arguments.split(|byte| *byte == 0);
        let paths = arguments.filter(|argument| argument.first() == Some(&b'/'));
        files.extend(paths.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path))));
    }
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests;
