//! The bare clone of the tags: `git` with nobody's configuration, the fetch, and what was fetched.

use std::{
    io,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use super::{Channel, GitError, watched};

/// A server that is silent for so long is given up (over HTTP git does so after 60 s by itself), and
/// one whose answer has not come to an end.
const PATIENCE: watched::Patience = watched::Patience {
    silence: Duration::from_secs(120),
    all: Duration::from_secs(2 * 3600),
};

/// A tag as it was fetched.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) object: String,
    pub(super) kind: String,
    /// What it says its name is.
    pub(super) says: String,
    pub(super) commit: String,
    pub(super) commit_kind: String,
}

impl Channel {
    fn repo(&self) -> PathBuf {
        self.dir.join("repo.git")
    }

    /// `git` on the clone, with nobody's configuration.
    pub(super) fn git(&self) -> Command {
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

    pub(super) fn fetch(&self) -> Result<(), GitError> {
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

    pub(super) fn list(&self) -> Result<Vec<Found>, GitError> {
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
}

pub(super) fn run(what: &'static str, of: &str, git: &mut Command) -> Result<Output, GitError> {
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
