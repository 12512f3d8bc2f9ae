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

mod error;
mod ledger;
mod watched;

use std::{
    cmp::Ordering,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use pytheas_release::Version;

pub use error::{GitError, Refusal};
use ledger::{Fate, Ledger, Seen};

/// A server that is silent for so long is given up (over HTTP git does so after 60 s by itself), and
/// one whose answer has not come to an end.
const PATIENCE: watched::Patience = watched::Patience {
    silence: Duration::from_secs(120),
    all: Duration::from_secs(2 * 3600),
};

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

/// A tag as it was fetched.
struct Found {
    name: String,
    object: String,
    kind: String,
    /// What it says its name is.
    says: String,
    commit: String,
    commit_kind: String,
}

impl Channel {
    fn repo(&self) -> PathBuf {
        self.dir.join("repo.git")
    }

    /// `git` on the clone, with nobody's configuration.
    fn git(&self) -> Command {
        let mut git = Command::new("git");
        for name in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_OBJECT_DIRECTORY",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES",
            "GIT_COMMON_DIR",
            "GIT_NAMESPACE",
            "GIT_CONFIG_PARAMETERS",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG",
            "GIT_TEMPLATE_DIR",
            "GIT_EXTERNAL_DIFF",
        ] {
            git.env_remove(name);
        }
        git.env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            // No `ext::`, which runs any program.
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .arg("--git-dir")
            .arg(self.repo())
            .args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]);
        git
    }

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

    fn fetch(&self) -> Result<(), GitError> {
        let repo = self.repo();
        if !repo.join("HEAD").exists() {
            run(
                "make",
                "repo.git",
                self.git()
                    .args(["init", "--quiet", "--bare", "--template="]),
            )?;
        }
        let tags = format!("+refs/tags/{0}:refs/tags/{0}", self.tags);
        let mut git = self.git();
        // How to reach the repository (credentials, proxies) is the user's to say.
        git.env_remove("GIT_CONFIG_GLOBAL")
            .args([
                "-c",
                "transfer.fsckObjects=true",
                "-c",
                "protocol.version=2",
            ])
            .args(["-c", "http.lowSpeedLimit=100", "-c", "http.lowSpeedTime=60"])
            .args(["fetch", "--progress", "--prune", "--no-tags", "--force"])
            .args([
                "--no-recurse-submodules",
                "--no-auto-maintenance",
                "--no-write-fetch-head",
            ])
            .args(["--", &self.url, &tags]);
        let failed = |said: String| GitError::Failed {
            what: "fetch the tags of",
            of: self.url.clone(),
            said,
        };
        match watched::run(&mut git, PATIENCE) {
            Ok((status, _)) if status.success() => Ok(()),
            Ok((_, said)) => Err(failed(said)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(failed(error.to_string())),
            Err(error) => Err(GitError::start(error)),
        }
    }

    fn list(&self) -> Result<Vec<Found>, GitError> {
        let format = "%(refname:strip=2)%00%(objectname)%00%(objecttype)%00%(tag)%00%(*objectname)%00%(*objecttype)";
        let mut git = self.git();
        git.args(["for-each-ref", "--format", format, "refs/tags"]);
        let output = run("list the tags of", &self.url, &mut git)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split('\0').collect();
            let [name, object, kind, says, commit, commit_kind] = fields[..] else {
                return None;
            };
            let commit = if kind == "tag" { commit } else { object };
            Some(Found {
                name: name.to_owned(),
                object: object.to_owned(),
                kind: kind.to_owned(),
                says: says.to_owned(),
                commit: commit.to_owned(),
                commit_kind: commit_kind.to_owned(),
            })
        });
        Ok(found.collect())
    }

    fn judge(
        &self,
        ledger: &Ledger,
        found: &Found,
        version: Option<Version>,
        newest: Option<&(String, String)>,
        keyring: &tempfile_dir::Dir,
    ) -> Result<Tag, Judged> {
        if let Some(seen) = ledger.tags.get(&found.name)
            && seen.commit != found.commit
        {
            return Err(Refusal::Moved {
                was: short(&seen.commit),
                is: short(&found.commit),
            }
            .into());
        }
        let Some(version) = version else {
            return Err(Refusal::NoVersion.into());
        };
        if found.kind != "tag" {
            return Err(Refusal::NotAnnotated.into());
        }
        if found.commit_kind != "commit" {
            return Err(Refusal::NoCommit {
                kind: found.commit_kind.clone(),
            }
            .into());
        }
        let signed = self.verify(found, keyring)?;
        if found.says != found.name {
            return Err(Refusal::OtherName {
                says: found.says.clone(),
            }
            .into());
        }
        if let Some((newest, before)) = newest {
            let prefix = self.prefix()?;
            let of_newest = newest.strip_prefix(prefix).unwrap_or(newest.as_str());
            if compare(version.as_str(), of_newest) != Ordering::Greater {
                return Err(Refusal::Backwards {
                    newest: newest.clone(),
                }
                .into());
            }
            if !self.any_history && !self.is_ancestor(before, &found.commit)? {
                return Err(Refusal::Rewritten {
                    newest: newest.clone(),
                    commit: short(before),
                }
                .into());
            }
        }
        Ok(Tag {
            name: found.name.clone(),
            version,
            commit: found.commit.clone(),
            signed,
        })
    }

    /// Whether an allowed key has signed the tag; what git says about it.
    fn verify(&self, found: &Found, keyring: &tempfile_dir::Dir) -> Result<String, Judged> {
        let mut cat = self.git();
        cat.args(["cat-file", "tag", &found.object]);
        let content = run("read the tag", &found.name, &mut cat)?;
        let content = String::from_utf8_lossy(&content.stdout).into_owned();
        let has = |what: &str| content.contains(&format!("-----BEGIN {what} SIGNATURE-----"));
        let allowed = match (has("SSH"), has("PGP")) {
            (false, false) => return Err(Refusal::Unsigned.into()),
            (true, _) if self.allowed_signers.is_none() => Some("SSH"),
            (false, true) if self.openpgp_keys.is_none() => Some("OpenPGP"),
            _ => None,
        };
        if let Some(kind) = allowed {
            return Err(Refusal::OtherKind { kind }.into());
        }
        let none = PathBuf::from("/dev/null");
        let signers = self.allowed_signers.as_ref().unwrap_or(&none);
        let mut setting = OsStr::new("gpg.ssh.allowedSignersFile=").to_owned();
        setting.push(signers);
        let mut git = self.git();
        git.env("GNUPGHOME", keyring.path())
            .arg("-c")
            .arg(setting)
            .args(["-c", "gpg.ssh.program=ssh-keygen", "-c", "gpg.program=gpg"])
            .args([
                "-c",
                "gpg.x509.program=/nonexistent",
                "-c",
                "gpg.minTrustLevel=undefined",
            ])
            .args(["verify-tag", &found.object]);
        let output = git.output().map_err(GitError::start)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
        if !output.status.success() {
            let said: Vec<&str> = lines().collect();
            return Err(Refusal::Signature {
                said: said.join("; "),
            }
            .into());
        }
        let good = lines().find(|line| line.to_lowercase().contains("good "));
        Ok(good.unwrap_or("good signature").to_owned())
    }

    fn is_ancestor(&self, before: &str, commit: &str) -> Result<bool, GitError> {
        let mut git = self.git();
        git.args(["merge-base", "--is-ancestor", before, commit]);
        // 1 says no; 128 that the commit is gone, as after a force-push and a new clone.
        Ok(git.output().map_err(GitError::start)?.status.success())
    }

    /// A home for gpg in which only the allowed keys are known, if any are.
    fn keyring(&self) -> Result<tempfile_dir::Dir, GitError> {
        let home = tempfile_dir::Dir::new(&self.dir.join("gnupg"))?;
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

/// Why a tag is not taken, or could not be judged.
enum Judged {
    Refused(Refusal),
    Error(GitError),
}

impl From<Refusal> for Judged {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<GitError> for Judged {
    fn from(error: GitError) -> Self {
        Self::Error(error)
    }
}

fn short(commit: &str) -> String {
    commit.chars().take(12).collect()
}

fn run(what: &'static str, of: &str, git: &mut Command) -> Result<Output, GitError> {
    let output = git.output().map_err(GitError::start)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(GitError::Failed {
        what,
        of: of.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The order of versions: their leading numbers, then finished ones after those with a word
/// (`1.0.0rc1` before `1.0.0`), then the rest number by number.
fn compare(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let mut numbers = Vec::new();
        let mut rest = text;
        loop {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let Ok(number) = number.parse::<u64>() else {
                break;
            };
            numbers.push(number);
            rest = after;
            match after.strip_prefix('.') {
                Some(next) if next.starts_with(|c: char| c.is_ascii_digit()) => rest = next,
                _ => break,
            }
        }
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        // `+build` and `.post1` come after the version itself, all else before it.
        let rest = rest.trim_start_matches(['.', '-', '_']);
        let stage = match rest {
            "" => 1,
            late if late.starts_with('+') || late.starts_with("post") => 2,
            _ => 0,
        };
        (numbers, stage, rest.to_owned())
    };
    let ((a_numbers, a_stage, a_rest), (b_numbers, b_stage, b_rest)) = (parts(a), parts(b));
    a_numbers
        .cmp(&b_numbers)
        .then(a_stage.cmp(&b_stage))
        .then_with(|| natural(&a_rest, &b_rest))
}

/// Text by text, numbers in it by their value: `rc9` before `rc10`.
fn natural(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let word: String = text.chars().take_while(|c| !c.is_ascii_digit()).collect();
        let rest = &text[word.len()..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let rest = rest[digits.len()..].to_owned();
        (word, digits.parse::<u64>().unwrap_or(0), rest)
    };
    if a.is_empty() || b.is_empty() {
        return a.len().cmp(&b.len());
    }
    let ((a_word, a_number, a_rest), (b_word, b_number, b_rest)) = (split(a), split(b));
    (a_word, a_number)
        .cmp(&(b_word, b_number))
        .then_with(|| natural(&a_rest, &b_rest))
}

/// A folder for one call, mode 0700, gone afterwards.
mod tempfile_dir {
    use std::{
        fs::{self, DirBuilder},
        os::unix::fs::DirBuilderExt as _,
        path::{Path, PathBuf},
    };

    use super::GitError;

    pub(super) struct Dir(PathBuf);

    impl Dir {
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

    impl Drop for Dir {
        fn drop(&mut self) {
            let _best_effort = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_in_which_they_are_made() {
        let sorted = [
            "0.9",
            "0.10",
            "1.0.0a2",
            "1.0.0-rc9",
            "1.0.0-rc10",
            "1.0.0",
            "1.0.0.post1",
            "1.0.1",
            "1.2",
            "1.10",
            "2024.1.2",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0", "1.0.0"), Ordering::Equal);
    }
}
