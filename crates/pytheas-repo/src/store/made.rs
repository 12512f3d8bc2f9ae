//! Folders that were made to hold a repository, and go again when nothing came into them: a publish
//! that is refused, or a slip in `--repo`, leaves nothing behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pytheas_durable::FileLock;

/// Lies in every folder that is written to.
pub(super) const LOCK: &str = ".publish.lock";

/// Folders that were not there before, the innermost first.
#[derive(Debug)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// Those that making `path` makes.
    pub(super) fn by_making(path: &Path) -> Self {
        let is_missing =
            |path: &&Path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err();
        let missing = path.ancestors().take_while(is_missing);
        // The working directory may have changed until they go.
        Self(
            missing
                .filter_map(|path| std::path::absolute(path).ok())
                .collect(),
        )
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Some(folder) = self.0.first() else { return };
        let lock = folder.join(LOCK);
        let is_empty = fs::read_dir(folder).is_ok_and(|entries| {
            entries
                .into_iter()
                .all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
        });
        if !is_empty {
            return;
        }
        if lock.exists() {
            // Somebody else may be about to write.
            let Ok(_mine) = FileLock::acquire(&lock) else {
                return;
            };
            let _stays = fs::remove_file(&lock);
        }
        for folder in &self.0 {
            if fs::remove_dir(folder).is_err() {
                return; // no longer empty
            }
        }
    }
}
