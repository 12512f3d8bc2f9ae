//! What keeps a git channel from working, and why a tag is refused.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;

/// A git channel that does not work.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum GitError {
    /// No git, or it does not start.
    #[error("cannot start `{program}`")]
    #[diagnostic(
        code(pytheas::git::start),
        help(
            "following a repository needs it: install the package that has it (Debian: `{package}`)"
        )
    )]
    Start {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// It failed.
    #[error("git cannot {what} `{of}`: {said}")]
    #[diagnostic(
        code(pytheas::git::failed),
        help("is the address right, is it reachable, and may this user read it?")
    )]
    Failed {
        /// What was tried.
        what: &'static str,
        /// On what.
        of: String,
        /// What it says.
        said: String,
    },
    /// Nobody may sign.
    #[error("nobody is allowed to sign the tags")]
    #[diagnostic(
        code(pytheas::git::no_keys),
        help("name who is: `--allowed-signers FILE` (SSH keys) or `--openpgp-keys FILE`")
    )]
    NoKeys,
    /// A pattern that cannot be used.
    #[error("`{0}` is no pattern of tags")]
    #[diagnostic(
        code(pytheas::git::pattern),
        help("it ends with one `*`, which stands for the version: `v*`")
    )]
    Pattern(String),
    /// A ledger that cannot be relied on.
    #[error("`{}` does not parse", path.display())]
    #[diagnostic(
        code(pytheas::git::refused::ledger),
        help(
            "it says which tags were seen as which commits, so nothing is taken without it; restore it from a backup, or remove it to trust what the repository shows next"
        )
    )]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A ledger of something else.
    #[error("`{}` belongs to `{of}`, not to `{asked}`", path.display())]
    #[diagnostic(
        code(pytheas::git::other),
        help("give each repository its own `--work` folder")
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The repository it is about.
        of: String,
        /// The one asked for.
        asked: String,
    },
    /// A file operation failed.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(help("is it there, is the disk full, or does it belong to another user?"))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl GitError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(super) fn start(source: io::Error) -> Self {
        Self::Start {
            program: "git",
            package: "git",
            source,
        }
    }

    pub(super) fn start_gpg(source: io::Error) -> Self {
        Self::Start {
            program: "gpg",
            package: "gpg",
            source,
        }
    }
}

/// Why a tag is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its name says no version.
    #[error("its name holds no version")]
    NoVersion,
    /// A name for a commit, which cannot be signed.
    #[error("it is not an annotated tag, so nobody can have signed it; make it with `git tag -s`")]
    NotAnnotated,
    /// Of something else than a commit.
    #[error("it is the tag of a {kind}, not of a commit")]
    NoCommit {
        /// What it is of.
        kind: String,
    },
    /// Annotated only.
    #[error("it is not signed; make it with `git tag -s`")]
    Unsigned,
    /// Signed by a kind of key that nobody may use.
    #[error("it is signed with an {kind} key, and no {kind} keys are allowed")]
    OtherKind {
        /// SSH or OpenPGP.
        kind: &'static str,
    },
    /// Not a good signature of an allowed key.
    #[error("its signature is not a good one by an allowed key: {said}")]
    Signature {
        /// What git says.
        said: String,
    },
    /// A signed tag under another name.
    #[error("it was signed as `{says}`: someone shows one tag as another")]
    OtherName {
        /// The name that was signed.
        says: String,
    },
    /// It was another commit before.
    #[error("it was moved: it was commit {was} and is {is} now")]
    Moved {
        /// The commit that was seen first.
        was: String,
        /// The commit now.
        is: String,
    },
    /// Older than what was taken.
    #[error("it is not newer than `{newest}`, which was taken before")]
    Backwards {
        /// The tag taken last.
        newest: String,
    },
    /// Its history does not contain what was taken.
    #[error(
        "its history does not contain `{newest}` (commit {commit}): history was rewritten, or it is on another branch (`--any-history` allows that)"
    )]
    Rewritten {
        /// The tag taken last.
        newest: String,
        /// Its commit.
        commit: String,
    },
}
