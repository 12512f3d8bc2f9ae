//! What stops a command of the agent, and its exit code.

use std::{
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_durable::LockError;
use pytheas_repo::client::MetadataError;
use pytheas_update::StoredStateError;

use crate::remove::RemoveError;
use crate::{
    apply::ApplyError,
    git::GitError,
    http::{CaError, HttpError},
    identity::IdentityError,
    settings::SettingsError,
    slots::SlotError,
};

/// Exit codes of the agent's commands.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// The user's mistake: a missing enrolment, a wrong file. (Arguments that do not parse: 2.)
    pub const USER: u8 = 1;
    /// The world's failure: network, disk, another agent at work.
    pub const WORLD: u8 = 3;
    /// Refused for safety: damaged, unsigned or unknown.
    pub const REFUSED: u8 = 4;
}

/// What stops a command of the agent.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum AgentError {
    /// No usable identity.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Identity(#[from] IdentityError),
    /// The hub did not answer as it should.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Http(#[from] HttpError),
    /// No usable authorities' file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ca(#[from] CaError),
    /// The settings cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Settings(#[from] SettingsError),
    /// The root of trust cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Metadata(#[from] MetadataError),
    /// The file that should be the root of trust is something else.
    #[error("`{}` is no root metadata that a device can trust", path.display())]
    #[diagnostic(
        code(pytheas::agent::root_file),
        help("give it `root.json` of your keys, or `metadata/1.root.json` of the repository")
    )]
    RootFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MetadataError,
    },
    /// The history is damaged.
    #[error("the history in `{}` does not parse", path.display())]
    #[diagnostic(
        code(pytheas::agent::history),
        help(
            "updates go on; the next one begins a new history and keeps this one as `history.json.damaged`"
        )
    )]
    History {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// An update from a file did not succeed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Apply(Box<ApplyError>),
    /// A component stays.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Remove(#[from] RemoveError),
    /// A followed repository cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] GitError),
    /// The stored state cannot be used.
    #[error("cannot use `{}`", path.display())]
    #[diagnostic(code(pytheas::agent::state), help("{}", source.help().map(|h| h.to_string()).unwrap_or_default()))]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: StoredStateError,
    },
    /// A slot cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Slot(#[from] SlotError),
    /// Another agent is at work.
    #[error("another agent (process {holder}) works in `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::agent::locked),
        help("one agent per state directory: stop that one, or give this one another `--state`")
    )]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// Its process.
        holder: String,
    },
    /// The device belongs to another hub.
    #[error("this device is enrolled at `{enrolled}`, not at `{asked}`")]
    #[diagnostic(
        code(pytheas::agent::other_hub),
        help("to hand it over, remove `{}` (its app's data is in `data/`) and enrol it again", dir.display())
    )]
    OtherHub {
        /// Where it is enrolled.
        enrolled: String,
        /// Where it should be enrolled now.
        asked: String,
        /// The state directory.
        dir: PathBuf,
    },
    /// The id belongs to another device.
    #[error("the hub knows another device with the id `{id}`")]
    #[diagnostic(
        code(pytheas::agent::id_taken),
        help("choose another `--id`, or remove the other one: `pytheas device remove {id}`")
    )]
    IdTaken {
        /// The id.
        id: String,
    },
    /// No root of trust was given.
    #[error("this device has no root of trust yet")]
    #[diagnostic(
        code(pytheas::agent::no_root),
        help(
            "give it the repository's first root metadata with `--root FILE`; `run` and `enrol` can fetch it, too, and compare it with `--root-sha256 HEX`"
        )
    )]
    NoRoot,
    /// Something at the hub's address, but not a repository.
    #[error("there is nothing to go back to")]
    #[diagnostic(help(
        "what the last update moved goes back together, and of that this device keeps no release before"
    ))]
    NoPrevious,
    /// An update is going on.
    #[error("an update is going on (`{state}`)")]
    #[diagnostic(help(
        "wait until `pytheas agent status` says `idle`; if it says that no agent runs, start one (`pytheas agent run`): it goes on then"
    ))]
    Busy {
        /// The machine's state.
        state: String,
    },
    /// The agent does not listen.
    #[error("agent {pid} does not take what it is asked for")]
    #[diagnostic(
        code(pytheas::agent::unheard),
        help(
            "somebody else has asked it for something before, and it has not begun; look at its log"
        )
    )]
    Unheard {
        /// Its process.
        pid: u32,
    },
    /// Nothing is installed.
    #[error("no release is installed in `{}`", dir.display())]
    NothingInstalled {
        /// The state directory.
        dir: PathBuf,
    },
    /// The running release is not what was verified.
    #[error("the running release `{release}` is damaged: {damage}")]
    #[diagnostic(
        code(pytheas::agent::damaged),
        help(
            "the disk may be failing. The next update fetches damaged files anew; `pytheas agent rollback` returns to the release before"
        )
    )]
    Damaged {
        /// The release.
        release: String,
        /// What is wrong.
        damage: String,
    },
    /// What was shown names it already.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Shown(Box<AgentError>),
    /// A file operation failed.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(help("is the disk full, or the state directory not writable for this user?"))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl From<ApplyError> for AgentError {
    fn from(error: ApplyError) -> Self {
        Self::Apply(Box::new(error))
    }
}

impl AgentError {
    /// That the history in the file `path` cannot be shown.
    pub(crate) fn history(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.get_ref() {
            // Not the system's, but ours: it is there and says nothing that we understand.
            Some(_) => Self::History {
                path: path.to_owned(),
                source,
            },
            None => Self::io("read", path)(source),
        }
    }

    /// That the root of trust in the file `path` is not taken: because of the file, or because of
    /// what the device trusts already.
    pub(crate) fn root_file(path: &Path) -> impl FnOnce(MetadataError) -> Self {
        move |source| match source {
            MetadataError::Parse { .. } => Self::RootFile {
                path: path.to_owned(),
                source,
            },
            other => Self::Metadata(other),
        }
    }

    /// A file operation that failed.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// The lock of the state directory `dir` was not obtained.
    pub(crate) fn lock(dir: &Path) -> impl FnOnce(LockError) -> Self {
        let dir = dir.to_owned();
        move |error| match error {
            LockError::Held { holder, .. } => Self::Locked { dir, holder },
            LockError::Io { path, source } => Self::Io {
                what: "lock",
                path,
                source,
            },
        }
    }

    /// The exit code that says what kind of error it is; see [`exit`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Identity(IdentityError::Missing { .. })
            | Self::Git(GitError::NoKeys | GitError::Pattern(_) | GitError::Other { .. })
            | Self::Ca(_)
            | Self::Settings(_)
            | Self::NoRoot
            | Self::NoPrevious
            | Self::OtherHub { .. }
            | Self::Remove(_)
            | Self::IdTaken { .. }
            | Self::NothingInstalled { .. } => exit::USER,
            Self::Metadata(_)
            | Self::RootFile { .. }
            | Self::State { .. }
            | Self::Damaged { .. } => exit::REFUSED,
            Self::Git(GitError::Ledger { .. }) => exit::REFUSED,
            Self::Apply(error) => error.exit_code(),
            Self::Shown(error) => error.exit_code(),
            _ => exit::WORLD,
        }
    }
}
