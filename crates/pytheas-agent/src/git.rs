//! A git repository as a channel: signed tags become releases.
//!
//! The `git` program does the work: it fetches the tags, and verifies their signatures against the
//! allowed keys alone (SSH: an allowed signers file, ssh-keygen(1); OpenPGP: a keyring made of the
//! given keys for this one call). The user's own keys and trust count for nothing.
//! ```text
//! DIR/repo.git     a bare clone of the tags
//! DIR/follow.json  the ledger: which tag was which commit, and what became of it
//! ```
//! A tag is taken when it is an annotated tag whose *signed* name is the one it was found under
//! (else a signed `v1` could be shown as `v2`), signed by an allowed key, newer than what was taken
//! last, and its commit has that one among its ancestors. A tag that was seen once is that commit
//! for ever. A tag that is refused is looked at again with each poll: the list of keys may change.
//!
//! Nothing of the repository runs here: no hooks, no filters, no submodules, and its configuration
//! is never read.

mod clone;
mod error;
mod judge;
mod keyring;
mod ledger;
mod order;
mod watched;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clone::{Found, run};
pub use error::{GitError, Refusal};
use judge::Judged;
use ledger::{Fate, Ledger, Seen};
use order::compare;
use pytheas_release::Version;

/// What is followed, and by whose keys.
#[derive(Debug, Clone)]
pub struct Channel {
    /// The repository: an address that `git fetch` takes.
    pub url: String,
    /// Which tags: `v*`; what the `*` stands for is the version.
    pub tags: String,
    /// SSH keys that may sign, as `gpg.ssh.allowedSignersFile` has them.
    pub allowed_signers: Option<PathBuf>,
    /// OpenPGP keys that may sign, armoured or not, as `gpg --export` writes them.
    pub openpgp_keys: Option<PathBuf>,
    /// Also take a tag whose history does not contain the one taken before.
    pub any_history: bool,
    /// Where the clone and the ledger lie.
    pub dir: PathBuf,
}

/// A tag that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name: `v1.1.0`.
    pub name: String,
    /// The version it stands for: `1.1.0`.
    pub version: Version,
    /// The commit.
    pub commit: String,
    /// What git says about the signature.
    pub signed: String,
}

/// What a poll found.
#[derive(Debug, Default)]
pub struct Polled {
    /// Tags to be released, oldest first.
    pub accepted: Vec<Tag>,
    /// Tags that are refused, and whether that is news.
    pub refused: Vec<(String, Refusal, bool)>,
}

impl Channel {
    /// Fetches the tags and judges those that are new. What is accepted is offered again until
    /// [`Self::done`] was told.
    ///
    /// # Errors
    /// [`GitError`]: no git, no network, no keys, a ledger that cannot be used.
    pub fn poll(&self) -> Result<Polled, GitError> {
        if self.allowed_signers.is_none() && self.openpgp_keys.is_none() {
            return Err(GitError::NoKeys);
        }
        for keys in [&self.allowed_signers, &self.openpgp_keys]
            .into_iter()
            .flatten()
        {
            fs::metadata(keys).map_err(GitError::io("read", keys))?;
        }
        let prefix = self.prefix()?;
        pytheas_durable::create_dir_all(&self.dir).map_err(GitError::io("create", &self.dir))?;
        let mut ledger = Ledger::load(&self.dir, &self.url)?;
        let keyring = self.keyring()?;
        self.fetch()?;
        let mut found: Vec<(Option<Version>, Found)> = self
            .list()?
            .into_iter()
            .map(|found| {
                let version = found.name.strip_prefix(prefix).and_then(|rest| {
                    let begins = rest.starts_with(|c: char| c.is_ascii_digit());
                    begins.then(|| rest.parse().ok()).flatten()
                });
                (version, found)
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) => compare(a.as_str(), b.as_str()),
            (a, b) => a.is_some().cmp(&b.is_some()),
        });
        let mut polled = Polled::default();
        let first_time = ledger.newest.is_none();
        let mut last = ledger.newest.clone().and_then(|newest| {
            let commit = ledger.tags.get(&newest)?.commit.clone();
            Some((newest, commit))
        });
        for (version, found) in found {
            let seen = ledger.tags.get(&found.name);
            let settled = seen.is_some_and(|seen| {
                matches!(seen.fate, Fate::Released | Fate::Passed) && seen.commit == found.commit
            });
            if settled {
                continue;
            }
            match self.judge(&ledger, &found, version, last.as_ref(), &keyring) {
                Err(Judged::Error(error)) => return Err(error),
                Err(Judged::Refused(refusal)) => {
                    let why = refusal.to_string();
                    let news = seen.is_none_or(|seen| seen.why.as_deref() != Some(&why));
                    let seen = ledger
                        .tags
                        .entry(found.name.clone())
                        .or_insert_with(|| Seen::new(&found.commit, Fate::Refused));
                    seen.why = Some(why);
                    polled.refused.push((found.name, refusal, news));
                }
                Ok(tag) => {
                    // At the first poll only the newest counts: nobody asks for the past.
                    if let Some(passed) = polled.accepted.pop_if(|_| first_time) {
                        let seen = Seen::new(&passed.commit, Fate::Passed);
                        ledger.tags.insert(passed.name, seen);
                    }
                    let seen = Seen::new(&tag.commit, Fate::Accepted);
                    ledger.tags.insert(tag.name.clone(), seen);
                    if !first_time {
                        last = Some((tag.name.clone(), tag.commit.clone()));
                    }
                    polled.accepted.push(tag);
                }
            }
        }
        ledger.save(&self.dir)?;
        Ok(polled)
    }

    /// Writes down that `tag` was released.
    ///
    /// # Errors
    /// [`GitError`] when the ledger cannot be written.
    pub fn done(&self, tag: &Tag) -> Result<(), GitError> {
        let mut ledger = Ledger::load(&self.dir, &self.url)?;
        ledger.newest = Some(tag.name.clone());
        let seen = Seen {
            signed: Some(tag.signed.clone()),
            ..Seen::new(&tag.commit, Fate::Released)
        };
        ledger.tags.insert(tag.name.clone(), seen);
        ledger.save(&self.dir)
    }

    /// Writes the files of `tag` (below `only`, when given) into the new folder `into`.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn checkout(&self, tag: &Tag, into: &Path, only: Option<&str>) -> Result<(), GitError> {
        pytheas_durable::remove_tree(into).map_err(GitError::io("remove", into))?;
        pytheas_durable::create_dir_all(into).map_err(GitError::io("create", into))?;
        let index = self.dir.join("index");
        let _fresh = fs::remove_file(&index);
        let tree = match only {
            None => format!("{}^{{tree}}", tag.commit),
            Some(folder) => format!("{}:{}", tag.commit, folder.trim_matches('/')),
        };
        let in_tree = || {
            let mut git = self.git();
            git.arg("--work-tree")
                .arg(into)
                .env("GIT_INDEX_FILE", &index);
            git
        };
        run(
            "read the tree of",
            &tag.name,
            in_tree().args(["read-tree", &tree]),
        )?;
        run(
            "write the files of",
            &tag.name,
            in_tree().args(["checkout-index", "--all", "--quiet"]),
        )?;
        let _no_longer_needed = fs::remove_file(&index);
        Ok(())
    }

    /// What stands before the version in a tag's name.
    fn prefix(&self) -> Result<&str, GitError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/*+".contains(&byte);
        match self.tags.split_once('*') {
            Some((prefix, "")) if self.tags.bytes().all(plain) && !prefix.starts_with('-') => {
                Ok(prefix)
            }
            _ => Err(GitError::Pattern(self.tags.clone())),
        }
    }
}
