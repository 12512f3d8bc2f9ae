//! What this process has done of an update beyond what its state says: files that it hashed on their
//! way to the disk need not be read again at once, a tree put together and checked ahead not a second
//! time.
//!
//! Kept in memory only. After a restart, and so after every power cut, nothing is known here and
//! everything is read; neither when the disk failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use pytheas_durable::trees::Facts;
use pytheas_release::Sha256;

/// Most files that are remembered, each with some hundred bytes; others are read again.
const FILES_MAX: usize = 1 << 14;
/// For so long a check that was done ahead counts: an update that waits for its window or for consent
/// is checked when it goes on, since what it shares with the running slot may be written to meanwhile.
const CHECK_COUNTS: Duration = Duration::from_secs(30);

/// What this process has written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The files, by device and inode, with their hashes.
    files: Mutex<BTreeMap<(u64, u64), (Facts, Sha256)>>,
    /// Folders in `staging/` that are complete.
    staged: Mutex<BTreeSet<PathBuf>>,
    /// Those of them that were found to be what they should be, and when that was begun.
    checked: Mutex<BTreeMap<PathBuf, Instant>>,
}

impl Written {
    /// Remembers that `file`, which nobody writes to any more, has this content.
    pub(crate) fn note(&self, file: &File, sha256: Sha256) {
        let Ok(metadata) = file.metadata() else {
            return;
        };
        let facts = Facts::of(&metadata);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is gone may have left its number to this one.
        if files.len() < FILES_MAX || files.contains_key(&facts.id) {
            files.insert(facts.id, (facts, sha256));
        }
    }

    /// The hash of the file that is as `facts` say, if it was written here and not since.
    pub(crate) fn hash(&self, facts: &Facts) -> Option<Sha256> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, sha256) = files.get(&facts.id)?;
        (then.len == facts.len && then.modified == facts.modified).then_some(*sha256)
    }

    /// Remembers that the tree in the folder `root` was put together ahead of its step.
    pub(crate) fn note_staged(&self, root: PathBuf) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.insert(root);
    }

    /// Whether it was; the next time that is forgotten.
    pub(crate) fn take_staged(&self, root: &Path) -> bool {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.remove(root)
    }

    /// Remembers that the tree in the folder `root` was checked ahead of its step, `since` when.
    pub(crate) fn note_checked(&self, root: PathBuf, since: Instant) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.insert(root, since);
    }

    /// Whether it was, a moment ago; the next time that is forgotten.
    pub(crate) fn take_checked(&self, root: &Path) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = checked.remove(root);
        since.is_some_and(|since| since.elapsed() < CHECK_COUNTS)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::SystemTime};

    use super::*;

    #[test]
    fn a_file_is_known_until_it_is_written_to_and_by_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a"), dir.path().join("b"));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"content").unwrap();
        let written = Written::default();
        let facts = |path| Facts::of(&std::fs::symlink_metadata(path).unwrap());
        assert_eq!(written.hash(&facts(&path)), None);
        written.note(&file, Sha256::of(b"content"));
        std::fs::hard_link(&path, &link).unwrap();
        assert_eq!(written.hash(&facts(&link)), Some(Sha256::of(b"content")));
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
        assert_eq!(written.hash(&facts(&link)), None);
    }

    #[test]
    fn a_check_done_ahead_counts_once_and_not_for_long() {
        let written = Written::default();
        let (root, now) = (Path::new("staging/a"), Instant::now());
        assert!(!written.take_checked(root));
        written.note_checked(root.into(), now);
        assert!(written.take_checked(root));
        assert!(!written.take_checked(root));
        // The window for installing opened later.
        if let Some(long_ago) = now.checked_sub(CHECK_COUNTS) {
            written.note_checked(root.into(), long_ago);
            assert!(!written.take_checked(root));
        }
    }

    #[test]
    fn a_full_memory_forgets_nothing_false() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = File::create(&path).unwrap();
        let facts = Facts::of(&file.metadata().unwrap());
        let written = Written::default();
        written.note(&file, Sha256::of(b"what was there before"));
        for n in 1..FILES_MAX as u64 {
            let mut other = facts;
            other.id = (u64::MAX, n);
            let mut files = written.files.lock().unwrap();
            files.insert(other.id, (other, Sha256::of(b"")));
        }
        written.note(&file, Sha256::of(b""));
        assert_eq!(written.hash(&facts), Some(Sha256::of(b"")));
        assert_eq!(written.files.lock().unwrap().len(), FILES_MAX);
    }
}
