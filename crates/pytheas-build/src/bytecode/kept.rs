//! Byte code of earlier builds: what was compiled of the same sources by the same Python is not
//! compiled again.
//!
//! The cache's folder `bytecode/KEY` holds the packs of one compiler. A pack has the byte code of
//! one group of files: of a package, or of one file beside the packages. Its name is the hash of
//! the group's names and sources, its last 32 bytes are the SHA-256 of those before, so a torn or
//! damaged pack is found out and made again. Packs that were not used for [`UNUSED`] are removed.
//!
//! ```text
//! pack:   entry… sha256
//! entry:  u32 length, name in tracebacks; u8 1 = byte code, 0 = why there is none; u32 length, it
//! ```

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use pytheas_project::Environment;
use pytheas_release::{Hasher, Sha256};

use super::{NotCompiled, Runner, SCRIPT, each, name_of, run, sources, target};
use crate::{
    error::{BuildError, io_error},
    interpreter::Interpreter,
    scratch::{self, Kind},
    startup,
};

/// Raised when a pack has another form than before.
const FORMAT: &str = "1";
/// The variable that, when set, has everything compiled anew: for the proof that it is the same.
pub(crate) const ANEW: &str = "PYTHEAS_COMPILE_ANEW";
/// How long a pack stays that no build uses.
const UNUSED: Duration = Duration::from_secs(60 * 24 * 3600);

/// As [`super::compile`], with the byte code that earlier builds kept.
pub(crate) fn compile(
    interpreter: &Interpreter,
    python: &Runner,
    environment: &Environment,
    root: &Path,
    dirs: &[PathBuf],
    mut ahead: Ahead,
) -> Result<Vec<NotCompiled>, BuildError> {
    if environment.get(ANEW).is_some() {
        return super::compile(python, environment, root, dirs);
    }
    let own = interpreter.stdlib.under(&interpreter.dir);
    let Some(suffix) = startup::suffix(&own.join("__pycache__")) else {
        return super::compile(python, environment, root, dirs);
    };
    let packs = Packs {
        dir: environment
            .cache_dir()
            .join("bytecode")
            .join(key(interpreter, python)),
        suffix,
    };
    let mut failed = Vec::new();
    let mut fresh = Vec::new();
    let mut missing = Vec::new();
    for files in groups(root, dirs)? {
        let group = Group::read(root, files)?;
        let kept = packs.get(&group).or_else(|| {
            let pack = ahead.0.remove(&group.name)?;
            if let Err(error) = packs.put(&group, &pack) {
                tracing::debug!(path = %packs.dir.display(), %error, "byte code is not kept");
            }
            Some(pack)
        });
        match kept {
            Some(pack) => packs.unpack(&group, pack, &mut failed)?,
            None => {
                missing.extend(group.files.iter().map(|(_, path)| path.clone()));
                fresh.push(group);
            }
        }
    }
    if !missing.is_empty() {
        let reasons = run(python, environment, root, &missing)?;
        // The cache only saves time: what cannot be kept is compiled again.
        if let Err(error) = packs.keep(&fresh, &reasons) {
            tracing::debug!(path = %packs.dir.display(), %error, "byte code is not kept");
        }
        failed.extend(reasons);
    }
    failed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(failed)
}

/// What byte code depends on beside its source: the Python that compiles.
fn key(interpreter: &Interpreter, python: &Runner) -> String {
    let mut parts = vec![
        FORMAT.to_owned(),
        SCRIPT.to_owned(),
        interpreter.version.clone(),
        interpreter.tree.to_string(),
    ];
    // The interpreter itself is known by its tree; another Python by its program.
    if !python.program.starts_with(&interpreter.dir) {
        let program = python.program.canonicalize().unwrap_or_default();
        parts.push(program.display().to_string());
        if let Ok(metadata) = program.metadata() {
            parts.push(format!("{} {}", metadata.len(), metadata.mtime()));
        }
    }
    Sha256::of(parts.join("\0").as_bytes()).to_string()[..32].to_owned()
}

/// The Python files under `dirs`, by what lies directly in one of these.
pub(crate) fn groups(root: &Path, dirs: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, BuildError> {
    let mut groups: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for dir in dirs {
        for file in sources(std::slice::from_ref(dir))? {
            let below = file.strip_prefix(dir).unwrap_or(&file);
            let first = below.components().next().map_or(dir.clone(), |first| {
                dir.strip_prefix(root).unwrap_or(dir).join(first)
            });
            groups.entry(first).or_default().push(file);
        }
    }
    Ok(groups.into_values().collect())
}

/// Files that are kept together.
struct Group {
    name: Sha256,
    /// Name in tracebacks and path.
    files: Vec<(String, PathBuf)>,
}

impl Group {
    fn read(root: &Path, files: Vec<PathBuf>) -> Result<Self, BuildError> {
        let named = files
            .into_iter()
            .map(|path| (name_of(root, &path), path))
            .collect();
        Self::of(named)
    }

    /// The group of `files`, given by name in tracebacks and path.
    fn of(files: Vec<(String, PathBuf)>) -> Result<Self, BuildError> {
        let mut hasher = Hasher::new();
        for (name, path) in &files {
            let source = fs::read(path).map_err(io_error("read", path))?;
            hasher.update(format!("{name}\0{}\0", source.len()).as_bytes());
            hasher.update(&source);
        }
        Ok(Self {
            name: hasher.finish(),
            files,
        })
    }
}

/// Byte code, or why there is none.
type Entry<'a> = Result<&'a [u8], &'a [u8]>;

/// Packs that were made before the bundle's files are in place, by the names of their groups.
#[derive(Debug, Default)]
pub(crate) struct Ahead(BTreeMap<Sha256, Vec<u8>>);

/// Compiles `groups`, whose files are given by name in tracebacks and path.
pub(crate) fn ahead(
    python: &Runner,
    environment: &Environment,
    groups: Vec<Vec<(String, PathBuf)>>,
) -> Result<Ahead, BuildError> {
    let groups = groups.into_iter().map(Group::of);
    let groups = groups.collect::<Result<Vec<_>, _>>()?;
    let files: Vec<(PathBuf, String)> = groups
        .iter()
        .flat_map(|group| &group.files)
        .map(|(name, path)| (path.clone(), name.clone()))
        .collect();
    let codes = Mutex::new(vec![None; files.len()]);
    each(python, environment, &files, &|index, _, code| {
        let code = match code {
            Ok(code) => Ok(code.to_vec()),
            Err(reason) => Err(reason.to_owned()),
        };
        codes.lock().unwrap_or_else(|poison| poison.into_inner())[index] = Some(code);
        Ok(())
    })
    .map_err(io_error("start", &python.program))?;
    let codes = codes.into_inner().unwrap_or_else(|e| e.into_inner());
    let mut codes = codes.into_iter().flatten();
    let mut packs = BTreeMap::new();
    for group in groups {
        let mut pack = Vec::new();
        for ((name, _), code) in group.files.iter().zip(&mut codes) {
            put(&mut pack, name.as_bytes());
            pack.push(u8::from(code.is_ok()));
            match &code {
                Ok(code) => put(&mut pack, code),
                Err(reason) => put(&mut pack, reason.as_bytes()),
            }
        }
        seal(&mut pack);
        packs.insert(group.name, pack);
    }
    Ok(Ahead(packs))
}

struct Packs {
    dir: PathBuf,
    /// How the names of byte code end, e.g. `.cpython-311.pyc`.
    suffix: String,
}

impl Packs {
    fn path(&self, group: &Group) -> PathBuf {
        self.dir.join(group.name.to_string())
    }

    fn get(&self, group: &Group) -> Option<Vec<u8>> {
        let path = self.path(group);
        let bytes = fs::read(&path).ok()?;
        let whole = entries(&bytes).is_some_and(|entries| {
            entries
                .iter()
                .map(|(name, _)| *name)
                .eq(group.files.iter().map(|(name, _)| name.as_bytes()))
        });
        if !whole {
            tracing::info!(path = %path.display(), "kept byte code is damaged; it is made again");
            return None;
        }
        // When it was used last.
        if let Ok(file) = fs::File::open(&path) {
            let _ = file.set_modified(now());
        }
        Some(bytes)
    }

    /// Writes a pack's byte code beside the group's files.
    fn unpack(
        &self,
        group: &Group,
        pack: Vec<u8>,
        failed: &mut Vec<NotCompiled>,
    ) -> Result<(), BuildError> {
        let entries = entries(&pack).unwrap_or_default();
        for ((name, path), (_, entry)) in group.files.iter().zip(entries) {
            match entry {
                Ok(code) => {
                    let target = target(path, &self.suffix);
                    scratch::write(&target, code, Kind::Data)
                        .map_err(io_error("write", &target))?;
                }
                Err(reason) => failed.push(NotCompiled {
                    path: name.clone(),
                    reason: String::from_utf8_lossy(reason).into_owned(),
                }),
            }
        }
        Ok(())
    }

    /// Keeps what was just compiled of `groups`.
    fn keep(&self, groups: &[Group], failed: &[NotCompiled]) -> std::io::Result<()> {
        let reasons: BTreeMap<&str, &str> = failed
            .iter()
            .map(|file| (file.path.as_str(), file.reason.as_str()))
            .collect();
        fs::create_dir_all(&self.dir)?;
        self.forget()?;
        'groups: for group in groups {
            let mut pack = Vec::new();
            for (name, path) in &group.files {
                put(&mut pack, name.as_bytes());
                match (
                    fs::read(target(path, &self.suffix)),
                    reasons.get(name.as_str()),
                ) {
                    (_, Some(reason)) => {
                        pack.push(0);
                        put(&mut pack, reason.as_bytes());
                    }
                    (Ok(code), None) => {
                        pack.push(1);
                        put(&mut pack, &code);
                    }
                    // A name that cannot be told again, e.g. with a line's end in it.
                    (Err(_), None) => continue 'groups,
                }
            }
            seal(&mut pack);
            self.put(group, &pack)?;
        }
        Ok(())
    }

    /// Keeps a group's pack.
    fn put(&self, group: &Group, pack: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut fresh = tempfile::NamedTempFile::new_in(&self.dir)?;
        std::io::Write::write_all(&mut fresh, pack)?;
        fresh.persist(self.path(group)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Removes what was not used for long, of every compiler.
    fn forget(&self) -> std::io::Result<()> {
        let now = now();
        let all = self.dir.parent().unwrap_or(&self.dir);
        for dir in fs::read_dir(all)?.flatten() {
            for pack in fs::read_dir(dir.path()).into_iter().flatten().flatten() {
                let used = pack.metadata().and_then(|metadata| metadata.modified());
                let unused = used.ok().and_then(|used| now.duration_since(used).ok());
                if unused.is_some_and(|unused| unused > UNUSED) {
                    let _ = fs::remove_file(pack.path());
                }
            }
            // Only an empty one goes.
            if dir.path() != self.dir {
                let _ = fs::remove_dir(dir.path());
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "when a file of the cache was used; nothing that is built depends on it"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

fn put(pack: &mut Vec<u8>, bytes: &[u8]) {
    pack.extend((bytes.len() as u32).to_le_bytes());
    pack.extend(bytes);
}

/// Ends a pack with its hash.
fn seal(pack: &mut Vec<u8>) {
    let hash = Sha256::of(pack);
    pack.extend(hash.as_bytes());
}

/// What a pack holds; none when it is not whole.
fn entries(pack: &[u8]) -> Option<Vec<(&[u8], Entry<'_>)>> {
    let (mut rest, hash) = pack.split_at(pack.len().checked_sub(32)?);
    if Sha256::of(rest).as_bytes() != hash {
        return None;
    }
    fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (bytes, after) = rest.split_at_checked(len)?;
        *rest = after;
        Some(bytes)
    }
    fn counted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let len = take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)?;
        take(rest, usize::try_from(len).ok()?)
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let name = counted(&mut rest)?;
        let is_code = take(&mut rest, 1)? == [1];
        let bytes = counted(&mut rest)?;
        found.push((name, if is_code { Ok(bytes) } else { Err(bytes) }));
    }
    Some(found)
}
