//! What this process has done of an update beyond what its state says: files that it hashed on their
//! way to the disk need not be read again at once, a tree put together ahead not a second time.
//!
//! Kept in memory only. After a restart, and so after every power cut, nothing is known here and
//! everything is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    sync::{Mutex, PoisonError},
};

use pytheas_durable::trees::Facts;
use pytheas_release::{Sha256, TreeId};

/// Most files that are remembered, each with some hundred bytes; others are read again.
const FILES_MAX: usize = 1 << 14;

/// What this process has written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The files, by device and inode, with their hashes.
    files: Mutex<BTreeMap<(u64, u64), (Facts, Sha256)>>,
    /// Trees that lie in `staging/`, complete.
    staged: Mutex<BTreeSet<TreeId>>,
}

impl Written {
    /// Remembers that `file`, which nobody writes to any more, has this content.
    pub(crate) fn note(&self, file: &File, sha256: Sha256) {
        let Ok(metadata) = file.metadata() else {
            return;
        };
        let facts = Facts::of(&metadata);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() < FILES_MAX {
            files.insert(facts.id, (facts, sha256));
        }
    }

    /// The hash of the file that is as `facts` say, if it was written here and not since.
    pub(crate) fn hash(&self, facts: &Facts) -> Option<Sha256> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, sha256) = files.get(&facts.id)?;
        (then.len == facts.len && then.modified == facts.modified).then_some(*sha256)
    }

    /// Remembers that `tree` was put together ahead of its step.
    pub(crate) fn note_staged(&self, tree: TreeId) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.insert(tree);
    }

    /// Whether it was; the next time that is forgotten.
    pub(crate) fn take_staged(&self, tree: TreeId) -> bool {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.remove(&tree)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        time::{Duration, SystemTime},
    };

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
}
