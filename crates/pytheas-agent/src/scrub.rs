//! Bit rot: slots are read again in idle time, and what has rotted is replaced.
//!
//! A few files at a time, spread over the whole interval, so that a pass costs no noticeable time and
//! wears nothing; `scrub.json` says how far it is and survives a restart. Good content comes from
//! another slot or path, else from the content store, by hash. A file is never written in place:
//! hard links let one rotten file rot every slot, so the new one takes the name of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use pytheas_durable::{faults, trees};
use pytheas_release::{Entry, Platform, RelPath, Sha256, Tree, TreeId, target_name};
use pytheas_repo::{client::Client, fetch::Fetch};
use pytheas_update::Installed;
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{content::ObjectFiles, paths::StateDir, slots};

/// Shortest pause between two files: no processor is kept busy by a short interval.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// A step reads so many files at most, and no further one after so many bytes.
const STEP_ENTRIES: usize = 64;
const STEP_BYTES: u64 = 1 << 20;
/// Files named in a message.
const MAX_NAMED: usize = 3;

/// How far a pass is (`scrub.json`, format 1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    format: u32,
    /// The slot that is being read.
    tree: Option<TreeId>,
    /// Entries of it that are done.
    done: usize,
    /// Slots that are done.
    slots: BTreeSet<TreeId>,
    /// When the pass began, milliseconds since 1970.
    began_ms: i64,
}

/// What one step found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Whole files; the next ones are due after this pause.
    Whole(Duration),
    /// Damage in this slot.
    Damaged(TreeId),
    /// Everything was read; the next pass begins after this pause.
    Done(Duration),
}

impl Progress {
    /// The progress of the device in `dir`; a new pass when there is none that can be read.
    pub(crate) fn load(dir: &StateDir, now_ms: i64) -> Self {
        let stored = crate::paths::read(&dir.scrub())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|stored| stored.format == 1 && stored.began_ms <= now_ms);
        stored.unwrap_or_else(|| Self::begin(now_ms))
    }

    /// A pass that begins now.
    fn begin(now_ms: i64) -> Self {
        Self {
            format: 1,
            began_ms: now_ms,
            ..Self::default()
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a lost step is read again; syncing each would wear the flash"
    )]
    fn save(&self, dir: &StateDir) {
        let path = dir.scrub();
        let temp = path.with_extension("json.new");
        if let Ok(bytes) = serde_json::to_vec(self)
            && fs::write(&temp, bytes).is_ok()
        {
            let _read_again_after_a_restart = fs::rename(temp, path);
        }
    }

    /// Reads the next files of the slots `needed`, each with the folder of its component; `dir` is
    /// the device's.
    pub(crate) fn step(
        &mut self,
        dir: &StateDir,
        needed: &[(StateDir, TreeId)],
        interval: Duration,
        now_ms: i64,
    ) -> Step {
        let at_hand = needed.iter().find(|(_, tree)| self.tree == Some(*tree));
        let next = at_hand.or_else(|| {
            self.done = 0;
            needed.iter().find(|(_, tree)| !self.slots.contains(tree))
        });
        let Some((home, tree)) = next.map(|(home, tree)| (home, *tree)) else {
            let took = Duration::from_millis(u64::try_from(now_ms - self.began_ms).unwrap_or(0));
            *self = Self::begin(now_ms);
            self.save(dir);
            return Step::Done(interval.saturating_sub(took).max(SHORTEST_PAUSE));
        };
        self.tree = Some(tree);
        let Some(document) = slots::document(home, tree) else {
            return Step::Damaged(tree);
        };
        let root = home.slot(tree);
        let (before, mut bytes) = (self.done, 0);
        for (path, entry) in document.iter().skip(before).take(STEP_ENTRIES) {
            if !is_whole(&path.under(&root), entry) {
                return Step::Damaged(tree);
            }
            self.done += 1;
            if let Entry::File { size_bytes, .. } = entry {
                bytes += size_bytes;
            }
            if bytes >= STEP_BYTES {
                break;
            }
        }
        // As if every slot were as large as this one: the pass ends somewhat early or late.
        let all = document.iter().count().max(1) * needed.len().max(1);
        let share = (self.done - before).max(1) as f64 / all as f64;
        if self.done == before {
            self.next_slot();
        }
        self.save(dir);
        Step::Whole(interval.mul_f64(share.min(1.0)).max(SHORTEST_PAUSE))
    }

    /// The slot at hand is done with, whole or not.
    fn next_slot(&mut self) {
        self.slots.extend(self.tree.take());
        self.done = 0;
    }
}

/// Whether what lies at `path` is `entry`, read from the disk and not from memory.
fn is_whole(path: &Path, entry: &Entry) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    match entry {
        Entry::Directory => metadata.is_dir(),
        Entry::Symlink { target } => {
            fs::read_link(path).is_ok_and(|found| found.as_os_str() == target.as_str())
        }
        Entry::File {
            size_bytes,
            sha256,
            executable,
        } => {
            let mode = metadata.permissions().mode();
            metadata.is_file()
                && metadata.len() == *size_bytes
                && (mode & 0o100 != 0) == *executable
                && is_on_disk(path, *sha256)
        }
    }
}

/// Whether the file on the disk has this content: pages that the kernel keeps in memory may be
/// better than what they were read from.
fn is_on_disk(path: &Path, sha256: Sha256) -> bool {
    if let Ok(file) = File::open(path) {
        let _kept_when_in_use = fadvise(&file, 0, None, Advice::DontNeed);
    }
    trees::hash_file(path).is_ok_and(|(_, found)| found == sha256)
}

/// What is wrong with a slot, entry by entry; one that cannot be read is wrong, too.
fn damage<'t>(dir: &StateDir, tree: TreeId, document: &'t Tree) -> Vec<(&'t RelPath, &'t Entry)> {
    let root = dir.slot(tree);
    document
        .iter()
        .filter(|(path, entry)| !is_whole(&path.under(&root), entry))
        .collect()
}

/// What was done about damage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// What was damaged, for people.
    pub what: String,
    /// Files and links that were replaced.
    pub count: usize,
    /// Those whose content came over the network.
    pub fetched: usize,
    /// The files that were replaced, by device and inode: who uses one of them should begin anew.
    pub replaced: Vec<(u64, u64)>,
}

/// Repairs the slot of `of`; nothing when it is whole. Content is looked for in the slots `others`
/// and then fetched.
///
/// # Errors
/// What is damaged and why it stays so, for people.
pub(crate) fn repair(
    dir: &StateDir,
    of: &Installed,
    others: &[(StateDir, TreeId)],
    platform: &Platform,
    fetch: &mut dyn Fetch,
) -> Result<Option<Repaired>, String> {
    let mut network = Network {
        dir,
        of,
        platform,
        fetch,
    };
    let mut repaired = Repaired::default();
    let document = match slots::document(dir, of.tree) {
        Some(document) => document,
        None => {
            repaired.count += 1;
            repaired.what = "its list of files was lost".into();
            let document = match trees::scan(&dir.slot(of.tree)) {
                Ok(found) if found.id() == of.tree => found,
                _ => network.document()?,
            };
            let path = dir.slot_document(of.tree);
            pytheas_durable::create_dir_all(&dir.slots())
                .and_then(|()| pytheas_durable::replace(&path, &document.encode()))
                .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
            document
        }
    };
    let damaged = damage(dir, of.tree, &document);
    if damaged.is_empty() {
        return Ok(Some(repaired).filter(|repaired| repaired.count > 0));
    }
    let named: Vec<String> = damaged
        .iter()
        .take(MAX_NAMED)
        .map(|(path, _)| format!("`{path}`"))
        .collect();
    let more = match damaged.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    repaired.what = format!("{}{more}", named.join(", "));
    warn!(release = %of.release, "`{}` has rotted on the disk: {}", of.release, repaired.what);
    let why = |error: String| format!("{} of `{}`: {error}", repaired.what, of.release);

    // Good contents are gathered first, in a folder that a power cut leaves as litter only.
    let folder = dir.staging().join("repair");
    pytheas_durable::remove_tree(&folder)
        .and_then(|()| pytheas_durable::create_dir_all(&folder))
        .map_err(|error| why(error.to_string()))?;
    let missing = gather(others, &damaged, &folder).map_err(|e| why(e.to_string()))?;
    repaired.fetched = missing.len();
    if !missing.is_empty() {
        network.objects(&missing, &folder).map_err(why)?;
    }
    trees::sync(&folder).map_err(|error| why(error.to_string()))?;
    faults::point("agent:scrub:gathered");
    for (path, entry) in damaged {
        faults::point("agent:scrub:replace");
        let place = path.under(&dir.slot(of.tree));
        let old = fs::symlink_metadata(&place).ok();
        replace(&place, entry, &folder)
            .map_err(|error| why(format!("cannot replace `{}`: {error}", place.display())))?;
        repaired.count += 1;
        repaired
            .replaced
            .extend(old.map(|old| (old.dev(), old.ino())));
    }
    let _litter = pytheas_durable::remove_tree(&folder);
    Ok(Some(repaired))
}

/// Copies what is whole in another place on this device into `folder`; what is nowhere.
fn gather(
    others: &[(StateDir, TreeId)],
    damaged: &[(&RelPath, &Entry)],
    folder: &Path,
) -> io::Result<BTreeMap<Sha256, u64>> {
    let mut missing: BTreeMap<Sha256, u64> = BTreeMap::new();
    for (_, entry) in damaged {
        if let Entry::File {
            sha256, size_bytes, ..
        } = entry
        {
            missing.insert(*sha256, *size_bytes);
        }
    }
    for (dir, other) in others {
        let Some(document) = slots::document(dir, *other) else {
            continue;
        };
        for (path, entry) in document.iter() {
            let Entry::File { sha256, .. } = entry else {
                continue;
            };
            let place = path.under(&dir.slot(*other));
            if missing.contains_key(sha256) && is_whole(&place, entry) {
                fs::copy(&place, folder.join(sha256.to_string()))?;
                missing.remove(sha256);
            }
        }
    }
    Ok(missing)
}

/// Puts a good `entry` at `place` in one step, whatever is there.
fn replace(place: &Path, entry: &Entry, folder: &Path) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        pytheas_durable::create_dir_all(parent)?;
    }
    let is_folder = fs::symlink_metadata(place).is_ok_and(|metadata| metadata.is_dir());
    match entry {
        Entry::Directory if is_folder => Ok(()),
        Entry::Directory => {
            pytheas_durable::remove_tree(place)?;
            pytheas_durable::create_dir_all(place)
        }
        Entry::Symlink { target } => {
            if is_folder {
                pytheas_durable::remove_tree(place)?;
            }
            let fresh = folder.join("link");
            pytheas_durable::remove_tree(&fresh)?;
            std::os::unix::fs::symlink(target, &fresh)?;
            pytheas_durable::move_dir(&fresh, place)
        }
        Entry::File {
            sha256, executable, ..
        } => {
            if is_folder {
                pytheas_durable::remove_tree(place)?;
            }
            // A copy for each place: the modes of one content may differ.
            let fresh = folder.join("file");
            pytheas_durable::remove_tree(&fresh)?;
            fs::copy(folder.join(sha256.to_string()), &fresh)?;
            let mode = if *executable { 0o555 } else { 0o444 };
            fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
            File::open(&fresh)?.sync_all()?;
            if !is_on_disk(&fresh, *sha256) {
                return Err(io::Error::other(
                    "the new file is damaged, too; the disk is failing",
                ));
            }
            pytheas_durable::move_dir(&fresh, place)
        }
    }
}

/// The repository that the release came from.
struct Network<'a> {
    dir: &'a StateDir,
    of: &'a Installed,
    platform: &'a Platform,
    fetch: &'a mut dyn Fetch,
}

impl Network<'_> {
    fn with<T>(
        &mut self,
        work: impl FnOnce(
            &mut Client<'_>,
            &pytheas_release::Release,
        ) -> Result<T, pytheas_repo::client::ContentError>,
    ) -> Result<T, String> {
        let release = &self.of.release;
        let target = target_name(&release.name, &release.version, self.platform);
        let text = |error: &dyn std::error::Error| {
            format!("fetching failed: {}", crate::http::chain(error))
        };
        let mut client = Client::open(self.dir.device(), self.fetch).map_err(|e| text(&e))?;
        client.refresh(crate::clock::now()).map_err(|e| text(&e))?;
        let found = client
            .fetch_release(&target, self.platform)
            .map_err(|e| text(&e))?;
        if found.tree.id != self.of.tree {
            return Err(format!("`{target}` is another tree in the repository now"));
        }
        work(&mut client, &found).map_err(|e| text(&e))
    }

    fn document(&mut self) -> Result<Tree, String> {
        self.with(|client, release| client.tree(release))
    }

    fn objects(&mut self, missing: &BTreeMap<Sha256, u64>, folder: &Path) -> Result<(), String> {
        let mut sink = ObjectFiles::new(folder.to_owned());
        self.with(|client, release| {
            let index = client.index(release)?;
            client.objects(&index, missing, &mut sink, &mut |_| {})
        })
    }
}

/// Whether one of the processes `pids` has one of `files` (device, inode) mapped or open.
pub(crate) fn is_used(files: &[(u64, u64)], pids: &[u32]) -> bool {
    let mapped = |pid: &u32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        // proc(5): address, rights, offset, device, inode, path. Devices have other numbers here on
        // some file systems (btrfs): a start too many does no harm.
        maps.lines().any(|line| {
            let inode = line
                .split_whitespace()
                .nth(4)
                .and_then(|word| word.parse().ok());
            inode.is_some_and(|inode: u64| files.iter().any(|(_, ino)| *ino == inode))
        })
    };
    let open = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|links| {
            links.flatten().any(|link| {
                fs::metadata(link.path())
                    .is_ok_and(|metadata| files.contains(&(metadata.dev(), metadata.ino())))
            })
        })
    };
    !files.is_empty() && pids.iter().any(|pid| mapped(pid) || open(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot with 200 small files.
    fn slot(dir: &StateDir) -> TreeId {
        let root = dir.root().join("made");
        for n in 0..200 {
            let path = root.join(format!("f{n}"));
            pytheas_durable::create_dir_all(&root).unwrap();
            pytheas_durable::replace(&path, format!("{n}").as_bytes()).unwrap();
        }
        let tree = trees::scan(&root).unwrap();
        pytheas_durable::create_dir_all(&dir.slots()).unwrap();
        pytheas_durable::move_dir(&root, &dir.slot(tree.id())).unwrap();
        pytheas_durable::replace(&dir.slot_document(tree.id()), &tree.encode()).unwrap();
        tree.id()
    }

    #[test]
    fn a_pass_is_spread_over_its_interval_and_goes_on_after_a_restart() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(tmp.path());
        let tree = slot(&dir);
        let day = Duration::from_secs(86_400);
        let mut steps = Vec::new();
        loop {
            // Each step as by an agent that was started for it.
            let mut progress = Progress::load(&dir, 1000);
            match progress.step(&dir, &[(dir.clone(), tree)], day, 1000) {
                Step::Done(pause) => break assert_eq!(pause, day, "the next pass is a day away"),
                Step::Whole(pause) => steps.push(pause),
                Step::Damaged(_) => panic!("it is whole"),
            }
        }
        let spread: Duration = steps.iter().sum();
        assert_eq!(
            steps.len(),
            5,
            "64, 64, 64, 8 files, and the end: {steps:?}"
        );
        assert!(spread >= day && spread < day + day / 100, "{spread:?}");

        // What is written in place, is missing or is of another kind.
        let path = dir.slot(tree).join("f150");
        pytheas_durable::replace(&path, b"rot").unwrap();
        let mut progress = Progress::load(&dir, 2000);
        let mut last = progress.step(&dir, &[(dir.clone(), tree)], day, 2000);
        while matches!(last, Step::Whole(_)) {
            last = progress.step(&dir, &[(dir.clone(), tree)], day, 2000);
        }
        assert_eq!(last, Step::Damaged(tree));
    }

    #[test]
    fn progress_that_cannot_be_read_or_comes_from_another_time_begins_anew() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(tmp.path());
        for (stored, now) in [("{torn", 5), (r#"{"format":2}"#, 5)] {
            pytheas_durable::replace(&dir.scrub(), stored.as_bytes()).unwrap();
            assert_eq!(Progress::load(&dir, now), Progress::begin(now));
        }
        Progress::begin(1_000_000).save(&dir);
        assert_eq!(
            Progress::load(&dir, 7),
            Progress::begin(7),
            "the clock was set back"
        );
    }

    #[test]
    fn a_process_is_known_by_the_files_it_has_open() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x");
        pytheas_durable::replace(&path, b"x").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let files = [(metadata.dev(), metadata.ino())];
        let own = [std::process::id()];
        let open = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(is_used(&files, &own), "replaced, and still in use");
        drop(open);
        assert!(!is_used(&[], &own));
    }
}
