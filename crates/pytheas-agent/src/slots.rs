//! Slots: whole, verified trees, and the link `current` that says which one runs.
//!
//! A tree is put together in `staging/`, where unchanged files are hard links into the running
//! slot; it is checked there, and one rename makes it a slot. Files are read-only, since a file may
//! be part of several slots.
//!
//! The check reads every byte, but for a hard link to a file of the running slot that nobody has
//! written to since that slot was checked: it is the same file; and but for what this very process
//! has hashed as it wrote it (`written`). What rots by itself is found by the scrub, in the running
//! slot too; a device that does not scrub reads all.
//! Where it need not read all, it is done as soon as the tree is put together, while the disk syncs
//! what was fetched; the sync of the tree itself comes before the slot all the same, and an update that
//! then waits to be installed is checked once more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

use miette::Diagnostic;
use pytheas_durable::{
    faults,
    trees::{self, Difference, ScanError},
};
use pytheas_release::{
    BuildRecord, Entry, RECORD_FILE, RecordError, RelPath, ReleaseRef, Sha256, Tree, TreeId,
};
use pytheas_update::Installed;

use crate::{cores, paths::StateDir, written::Written};

/// Write bits that files in a slot do not have.
const READ_ONLY: u32 = 0o222;
/// Differences named in a message.
const MAX_NAMED: usize = 3;

/// A slot that cannot be made or used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SlotError {
    /// A file operation failed.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(help("is the disk full or failing, or the state directory not writable?"))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Content that should be on the device is not.
    #[error("`{path}` of the new tree is neither downloaded nor in the running release")]
    Missing {
        /// The file.
        path: RelPath,
    },
    /// A slot that cannot be read as a tree.
    #[error("cannot read the tree in `{}`", path.display())]
    Scan {
        /// The slot.
        path: PathBuf,
        /// What is wrong.
        source: ScanError,
    },
    /// A slot without a usable record.
    #[error("the release in `{}` does not say how it is started", path.display())]
    #[diagnostic(help("`pytheas agent verify` shows what is damaged"))]
    Record {
        /// The slot.
        path: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// No such slot.
    #[error("there is no slot `{}`", path.display())]
    NoSlot {
        /// Where it should be.
        path: PathBuf,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SlotError {
    let path = path.to_owned();
    move |source| SlotError::Io { what, path, source }
}

impl SlotError {
    /// What the system said, if it was the system.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. }
            | Self::Scan {
                source: ScanError::Io { source, .. },
                ..
            } => Some(source),
            _ => None,
        }
    }
}

/// The document of the tree in a slot, if it is there and right.
pub(crate) fn document(dir: &StateDir, tree: TreeId) -> Option<Tree> {
    let bytes = fs::read(dir.slot_document(tree)).ok()?;
    (TreeId(Sha256::of(&bytes)) == tree).then(|| Tree::parse(&bytes).ok())?
}

/// Puts `tree` together in `staging/` from what was fetched and from the slot `from`.
///
/// What an earlier try left is removed first.
///
/// # Errors
/// [`SlotError`].
pub(crate) fn stage(dir: &StateDir, tree: &Tree, from: Option<TreeId>) -> Result<(), SlotError> {
    put_together(dir, tree, from)?;
    sync_staged(dir, tree.id())
}

/// The end of [`stage`]: makes what was put together safe.
///
/// # Errors
/// [`SlotError::Io`].
pub(crate) fn sync_staged(dir: &StateDir, tree: TreeId) -> Result<(), SlotError> {
    let root = dir.staged(tree);
    trees::sync(&root).map_err(io_error("sync", &root))
}

/// As [`stage`], but nothing of it is safe from a power cut.
///
/// # Errors
/// [`SlotError`].
pub(crate) fn put_together(
    dir: &StateDir,
    tree: &Tree,
    from: Option<TreeId>,
) -> Result<(), SlotError> {
    let id = tree.id();
    let root = dir.staged(id);
    remove(&root)?;
    pytheas_durable::create_dir_all(&root).map_err(io_error("create", &root))?;
    let old_root = from.map(|from| dir.slot(from));
    let old = from
        .and_then(|from| document(dir, from))
        .unwrap_or_default();
    let old_files = files_of(&old);
    // Content is by hash, the mode is not: what is executable in one place only cannot be shared.
    let mut modes: BTreeMap<Sha256, bool> = BTreeMap::new();
    let fetched_here = contents(&dir.objects(id))?;
    let mut folders = BTreeSet::new();
    let mut files = Vec::new();
    for (path, entry) in tree.iter() {
        let target = path.under(&root);
        if let Some(parent) = path.parent() {
            make_folder(&root, &parent, &mut folders)?;
        }
        match entry {
            Entry::Directory => make_folder(&root, path, &mut folders)?,
            Entry::Symlink { target: to } => {
                std::os::unix::fs::symlink(to, &target).map_err(io_error("create", &target))?;
            }
            Entry::File {
                sha256, executable, ..
            } => {
                let (source, share) = if fetched_here.contains(sha256) {
                    (
                        Content::Fetched(*sha256),
                        *modes.entry(*sha256).or_insert(*executable) == *executable,
                    )
                } else {
                    let same = old_files.get(&(*sha256, *executable));
                    let other = || old_files.get(&(*sha256, !*executable));
                    let Some(found) = same.or_else(other) else {
                        return Err(SlotError::Missing { path: path.clone() });
                    };
                    (Content::OfSlot(found), same.is_some())
                };
                let mode = if *executable { 0o755 } else { 0o644 } & !READ_ONLY;
                files.push((path, source, share, mode));
                continue;
            }
        }
        faults::point("agent:stage:entry");
    }
    cores::each(&files, |(path, source, share, mode)| {
        let target = path.under(&root);
        let source_path = match (source, &old_root) {
            (Content::Fetched(sha256), _) => dir.object(id, *sha256),
            (Content::OfSlot(found), Some(old_root)) => found.under(old_root),
            (Content::OfSlot(_), None) => {
                return Err(SlotError::Missing {
                    path: (*path).clone(),
                });
            }
        };
        let placed = match place(&source_path, &target, *share) {
            // Gone from the running slot: the check finds that, and then it is fetched.
            Err(_) if matches!(source, Content::OfSlot(_)) && !is_file(&source_path) => {
                return Ok(());
            }
            placed => placed?,
        };
        // A file of a slot got its mode there.
        if placed == Placed::Copied || matches!(source, Content::Fetched(_)) {
            set_mode(&target, *mode)?;
        }
        faults::point("agent:stage:entry");
        Ok(())
    })?;
    set_mode(&root, 0o755)
}

/// The contents in a folder of objects, by name.
///
/// # Errors
/// [`SlotError::Io`].
pub(crate) fn contents(objects: &Path) -> Result<BTreeSet<Sha256>, SlotError> {
    let names = names(objects)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Where the content of a file is to be found.
enum Content<'t> {
    /// Among what was fetched.
    Fetched(Sha256),
    /// At this path of the running slot.
    OfSlot(&'t RelPath),
}

/// How a file came to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    Linked,
    Copied,
}

/// Makes `target` a file with the content of `source`, the same one if it may be shared.
fn place(source: &Path, target: &Path, share: bool) -> Result<Placed, SlotError> {
    use rustix::io::Errno;
    if share {
        match fs::hard_link(source, target) {
            Ok(()) => return Ok(Placed::Linked),
            // Too many links, another file system, or one that has none: copy.
            Err(error)
                if [
                    Errno::MLINK,
                    Errno::XDEV,
                    Errno::PERM,
                    Errno::OPNOTSUPP,
                    Errno::NOSYS,
                ]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) => {}
            Err(error) => return Err(io_error("link", target)(error)),
        }
    }
    fs::copy(source, target)
        .map(|_| Placed::Copied)
        .map_err(io_error("copy to", target))
}

/// Where each content of `tree` lies, by its hash and whether it is executable.
fn files_of(tree: &Tree) -> BTreeMap<(Sha256, bool), &RelPath> {
    tree.iter()
        .filter_map(|(path, entry)| match entry {
            Entry::File {
                sha256, executable, ..
            } => Some(((*sha256, *executable), path)),
            _ => None,
        })
        .collect()
}

/// Makes the folder `path` below `root` and those above it, with the mode of a tree whatever the
/// umask is; `made` are those that are there.
fn make_folder(root: &Path, path: &RelPath, made: &mut BTreeSet<RelPath>) -> Result<(), SlotError> {
    if made.contains(path) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(root, &parent, made)?;
    }
    let folder = path.under(root);
    fs::create_dir(&folder).map_err(io_error("create", &folder))?;
    set_mode(&folder, 0o755)?;
    made.insert(path.clone());
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SlotError> {
    let now = fs::symlink_metadata(path)
        .map_err(io_error("read", path))?
        .permissions()
        .mode();
    if now & 0o7777 == mode {
        return Ok(()); // a shared file: leave its inode alone
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io_error("set the mode of", path))
}

/// What is wrong with the tree in the folder `root`; nothing when it is `tree`, byte by byte.
///
/// # Errors
/// [`SlotError::Scan`] when it cannot be read.
pub(crate) fn damage(root: &Path, tree: &Tree) -> Result<Option<String>, SlotError> {
    Ok(said(&differences(root, tree)?))
}

/// The differences as people are told of them, if there are any.
fn said(found: &[Difference]) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let named: Vec<String> = found
        .iter()
        .take(MAX_NAMED)
        .map(ToString::to_string)
        .collect();
    let more = match found.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{}{more}", named.join(", ")))
}

fn differences(root: &Path, tree: &Tree) -> Result<Vec<Difference>, SlotError> {
    trees::differences(root, tree).map_err(unreadable(root))
}

fn unreadable(root: &Path) -> impl FnOnce(ScanError) -> SlotError {
    let path = root.to_owned();
    move |source| SlotError::Scan { path, source }
}

/// Which files of a staged tree were checked already: those of a running slot.
struct Checked {
    root: PathBuf,
    tree: Tree,
    /// When all of it was found whole: its document is written right after that.
    at: (i64, i64),
}

impl Checked {
    fn of(dir: &StateDir, tree: TreeId) -> Option<Self> {
        let written = fs::metadata(dir.slot_document(tree)).ok()?;
        Some(Self {
            root: dir.slot(tree),
            tree: document(dir, tree)?,
            at: trees::Facts::of(&written).modified,
        })
    }

    /// The differences of the staged `tree` in `root`.
    fn differences(
        &self,
        root: &Path,
        tree: &Tree,
        written: &Written,
    ) -> Result<Vec<Difference>, SlotError> {
        let files = files_of(&self.tree);
        let known = |path: &RelPath, facts: &trees::Facts| {
            if let Some(sha256) = written.hash(facts) {
                return Some(sha256);
            }
            let Some(Entry::File {
                sha256, executable, ..
            }) = tree.get(path)
            else {
                return None;
            };
            let running = files.get(&(*sha256, *executable))?.under(&self.root);
            let same = fs::symlink_metadata(running).ok()?;
            let is_same = trees::Facts::of(&same) == *facts;
            (is_same && facts.modified < self.at).then_some(*sha256)
        };
        trees::differences_but(root, tree, &known).map_err(unreadable(root))
    }
}

/// As [`slot_damage`], of a slot that does not run, after what does not belong there was removed:
/// an app that wrote into its own slot must not block the way back to it.
///
/// # Errors
/// As [`slot_damage`], and [`SlotError::Io`].
pub(crate) fn mend(dir: &StateDir, tree: TreeId) -> Result<Option<String>, SlotError> {
    let root = dir.slot(tree);
    if let Some(document) = document(dir, tree).filter(|_| root.is_dir()) {
        for difference in differences(&root, &document)? {
            let Difference::Extra(path) = difference else {
                continue;
            };
            tracing::warn!(path = %path, "removing `{path}`: it does not belong into its slot");
            remove(&path.under(&root))?;
            let mut above = path.parent();
            while let Some(folder) = above.filter(|folder| document.get(folder).is_none()) {
                if fs::remove_dir(folder.under(&root)).is_err() {
                    break; // something else is in it
                }
                above = folder.parent();
            }
        }
    }
    slot_damage(dir, tree)
}

/// What is wrong with the slot of `tree`; nothing when it is whole, byte by byte.
///
/// # Errors
/// [`SlotError::NoSlot`], [`SlotError::Scan`].
pub(crate) fn slot_damage(dir: &StateDir, tree: TreeId) -> Result<Option<String>, SlotError> {
    let root = dir.slot(tree);
    if !root.is_dir() {
        return Err(SlotError::NoSlot { path: root });
    }
    if let Some(document) = document(dir, tree) {
        return damage(&root, &document);
    }
    // Without its document a tree can still be told from every other one, by its id.
    let found = trees::scan(&root)
        .map_err(|source| SlotError::Scan {
            path: root.clone(),
            source,
        })?
        .id();
    Ok((found != tree).then(|| format!("it is tree {found}")))
}

/// Checks the staged `tree` and makes it a slot; says what is wrong when it is not whole. Files that
/// it shares with the slot `checked` are not read again unless they were written to, and with such a
/// slot neither is what was hashed while it was `written`.
///
/// # Errors
/// [`SlotError`].
pub(crate) fn accept(
    dir: &StateDir,
    tree: &Tree,
    checked: Option<TreeId>,
    written: &Written,
) -> Result<Option<String>, SlotError> {
    let id = tree.id();
    let (staged, slot) = (dir.staged(id), dir.slot(id));
    let ahead = written.take_checked(&staged) && checked.is_some();
    if !ahead && let Some(damage) = said(&check(dir, tree, checked, written)?) {
        return Ok(Some(damage));
    }
    let slots = dir.slots();
    pytheas_durable::create_dir_all(&slots).map_err(io_error("create", &slots))?;
    let document = dir.slot_document(id);
    pytheas_durable::replace(&document, &tree.encode()).map_err(io_error("write", &document))?;
    faults::point("agent:verify:moving");
    pytheas_durable::move_dir(&staged, &slot).map_err(io_error("rename to", &slot))?;
    faults::point("agent:verify:moved");
    Ok(None)
}

/// The differences of the staged `tree`, found as [`accept`] does.
fn check(
    dir: &StateDir,
    tree: &Tree,
    checked: Option<TreeId>,
    written: &Written,
) -> Result<Vec<Difference>, SlotError> {
    let staged = dir.staged(tree.id());
    match checked.and_then(|checked| Checked::of(dir, checked)) {
        Some(checked) => checked.differences(&staged, tree, written),
        None => differences(&staged, tree),
    }
}

/// Checks the staged `tree` ahead of [`accept`], which then relies on it if it comes soon: for whom the slot `checked`
/// is known and the disk has other things to do. What is wrong is found again there.
pub(crate) fn check_ahead(dir: &StateDir, tree: &Tree, checked: TreeId, written: &Written) {
    let since = Instant::now();
    if check(dir, tree, Some(checked), written).is_ok_and(|found| found.is_empty()) {
        written.note_checked(dir.staged(tree.id()), since);
    }
}

/// Takes a slot out of use and removes it.
///
/// # Errors
/// [`SlotError::Io`].
pub(crate) fn discard(dir: &StateDir, tree: TreeId) -> Result<(), SlotError> {
    let slot = dir.slot(tree);
    if slot.exists() {
        // One rename: a half removed slot would look like a whole one after a power cut.
        let staging = dir.staging();
        pytheas_durable::create_dir_all(&staging).map_err(io_error("create", &staging))?;
        let waste = staging.join(format!("{tree}.removed"));
        remove(&waste)?;
        pytheas_durable::move_dir(&slot, &waste).map_err(io_error("rename to", &waste))?;
        faults::point("agent:discard:moved");
        remove(&waste)?;
    }
    remove(&dir.slot_document(tree))
}

/// Lets `current` lead to the slot of `tree`, or to nothing.
///
/// # Errors
/// [`SlotError::NoSlot`] when there is no such slot: `current` is then as it was.
pub(crate) fn point_current(dir: &StateDir, tree: Option<TreeId>) -> Result<(), SlotError> {
    let link = dir.current();
    let Some(tree) = tree else {
        remove(&link)?;
        return pytheas_durable::sync_dir(dir.root()).map_err(io_error("sync", dir.root()));
    };
    let slot = dir.slot(tree);
    if !slot.is_dir() {
        return Err(SlotError::NoSlot { path: slot });
    }
    pytheas_durable::swap_symlink(&link, &StateDir::current_target(tree))
        .map_err(io_error("point", &link))
}

/// The tree that `current` leads to, if it leads to a slot.
pub(crate) fn current(dir: &StateDir) -> Option<TreeId> {
    let target = fs::read_link(dir.current()).ok()?;
    let tree = target.file_name()?.to_str()?.parse().ok()?;
    dir.slot(tree).is_dir().then_some(tree)
}

/// What the release in a slot says about itself.
///
/// # Errors
/// [`SlotError::Io`], [`SlotError::Record`].
pub(crate) fn record(dir: &StateDir, tree: TreeId) -> Result<BuildRecord, SlotError> {
    let path = dir.slot(tree).join(RECORD_FILE);
    let bytes = fs::read(&path).map_err(io_error("read", &path))?;
    BuildRecord::parse(&bytes).map_err(|source| SlotError::Record {
        path: dir.slot(tree),
        source,
    })
}

/// Whether no release was ever in a slot here.
pub(crate) fn is_fresh(dir: &StateDir) -> bool {
    current(dir).is_none() && in_slots(dir).is_empty()
}

/// What a device whose state was lost has.
pub(crate) struct Recovered {
    /// What can run.
    pub(crate) current: Installed,
    /// An older release of the same app, when both are whole: the way back.
    pub(crate) before: Option<Installed>,
}

/// What can run, for a device whose state was lost: what `current` leads to, else another slot,
/// whole ones first.
pub(crate) fn recover(dir: &StateDir) -> Option<Recovered> {
    let mut trees: Vec<TreeId> = current(dir).into_iter().chain(in_slots(dir)).collect();
    let is_damaged = |tree: &TreeId| {
        let damage = match slot_damage(dir, *tree) {
            Ok(None) => return false,
            Ok(Some(damage)) => damage,
            Err(error) => error.to_string(),
        };
        tracing::error!(tree = %tree, "the release in a slot is damaged: {damage}");
        true
    };
    let damaged: BTreeSet<TreeId> = trees.iter().copied().filter(is_damaged).collect();
    trees.sort_by_key(|tree| damaged.contains(tree)); // stable: `current` stays first among its like
    let mut found = trees.into_iter().filter_map(|tree| {
        let record = record(dir, tree).ok()?;
        let (name, version) = (record.name, record.version);
        let release = ReleaseRef { name, version };
        Some(Installed { tree, release })
    });
    let current = found.next()?;
    let of_current = &current.release;
    let before = found.find(|other| {
        other.release.name == of_current.name
            && other.release.version.is_older_than(&of_current.version)
            && ![other.tree, current.tree]
                .iter()
                .any(|tree| damaged.contains(tree))
    });
    Some(Recovered { current, before })
}

fn in_slots(dir: &StateDir) -> Vec<TreeId> {
    let names = names(&dir.slots()).unwrap_or_default();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Removes slots, staged trees and downloads that are not `needed`.
///
/// # Errors
/// [`SlotError::Io`].
pub(crate) fn tidy(dir: &StateDir, needed: &[TreeId]) -> Result<(), SlotError> {
    for name in names(&dir.slots())? {
        let tree = name
            .strip_suffix(".tree")
            .unwrap_or(&name)
            .parse::<TreeId>();
        // What is no slot at all was not made by us, or by a newer agent: leave it.
        if let Ok(tree) = tree
            && !needed.contains(&tree)
        {
            faults::point("agent:tidy:slot");
            discard(dir, tree)?;
        }
    }
    for name in names(&dir.images())? {
        let tree = name.strip_suffix(".romfs").unwrap_or(&name);
        if !tree.parse().is_ok_and(|tree| needed.contains(&tree)) {
            remove(&dir.images().join(name))?;
        }
    }
    for folder in [dir.staging(), dir.downloads()] {
        if !folder.is_dir() {
            remove(&folder)?; // whatever took its place
        }
        for name in names(&folder)? {
            remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes the files that an agent was writing when it was killed, as far as that goes.
pub(crate) fn sweep(dir: &StateDir) {
    let (tuf, copy) = (dir.root().join("tuf"), dir.root().join("tuf-copy"));
    for folder in [dir.root(), &dir.slots(), &tuf, &copy] {
        if let Err(error) = pytheas_durable::sweep(folder) {
            tracing::warn!("cannot clean up `{}`: {error}", folder.display());
        }
    }
}

fn names(folder: &Path) -> Result<Vec<String>, SlotError> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io_error("read", folder)(error)),
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()),
    }
}

fn remove(path: &Path) -> Result<(), SlotError> {
    pytheas_durable::remove_tree(path).map_err(io_error("remove", path))
}

/// Bytes that may still be written below `path`.
///
/// # Errors
/// [`SlotError::Io`].
pub(crate) fn free_bytes(path: &Path) -> Result<u64, SlotError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|errno| io_error("ask for the free space of", path)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
