//! Whether a tag is taken: what it is, who signed it, and what it follows.

use std::{cmp::Ordering, ffi::OsStr, path::PathBuf};

use pytheas_release::Version;

use super::{
    Channel, GitError, Refusal, Tag,
    clone::{Found, run},
    keyring::Keyring,
    ledger::Ledger,
    order::compare,
};

impl Channel {
    pub(super) fn judge(
        &self,
        ledger: &Ledger,
        found: &Found,
        version: Option<Version>,
        newest: Option<&(String, String)>,
        keyring: &Keyring,
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
    fn verify(&self, found: &Found, keyring: &Keyring) -> Result<String, Judged> {
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
}

/// Why a tag is not taken, or could not be judged.
pub(super) enum Judged {
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
