//! A home for gpg in which only the allowed OpenPGP keys are known.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Channel, GitError};

/// A folder for one call, mode 0700, gone afterwards.
pub(super) struct Keyring(PathBuf);

impl Keyring {
    pub(super) fn new(path: &Path) -> Result<Self, GitError> {
        let _left_by_a_crash = fs::remove_dir_all(path);
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(GitError::io("create", path))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

impl Channel {
    /// A home for gpg in which only the allowed keys are known, if any are.
    pub(super) fn keyring(&self) -> Result<Keyring, GitError> {
        let home = Keyring::new(&self.dir.join("gnupg"))?;
        if let Some(keys) = &self.openpgp_keys {
            let mut gpg = Command::new("gpg");
            gpg.env("LC_ALL", "C")
                .arg("--homedir")
                .arg(home.path())
                .args(["--batch", "--quiet", "--no-autostart", "--import"])
                .arg(keys);
            let output = gpg.output().map_err(GitError::start_gpg)?;
            if !output.status.success() {
                return Err(GitError::Failed {
                    what: "import the keys of",
                    of: keys.display().to_string(),
                    said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                });
            }
        }
        Ok(home)
    }
}
