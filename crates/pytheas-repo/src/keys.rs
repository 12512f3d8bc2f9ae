//! Signing keys on disk: made, shown, loaded; and the root metadata that says what they may do.
//!
//! ```text
//! keys/root.json               the root metadata in force: which keys may sign what (public)
//! keys/1.root.json, 2.root.…   every version of it, as devices want to read them one by one
//! keys/proposal.json           a root that lacks signatures yet ([`proposal`])
//! keys/root.pem                signs root.json; best kept offline
//! keys/targets.pem             signs what may be installed; stays with the developer
//! keys/NAME.pem, NAME.toml     further keys: in a file, or of a program ([`command`])
//! keys/online/root.json        the same as above
//! keys/online/snapshot.pem     these two go to the hub, which renews signatures with them;
//! keys/online/timestamp.pem    they cannot sign a release
//! ```
//! What a key may do, `root.json` alone says; names of files are for people. New keys are Ed25519
//! in PKCS#8 PEM files, mode 0600, folders 0700. With a passphrase, root and targets are encrypted
//! (PBES2, RFC 8018: PBKDF2-HMAC-SHA-256, AES-256-CBC), readable by OpenSSL. The online keys are
//! not, because the hub must start without anybody typing. No key is ever overwritten or removed.

pub mod boards;
pub mod change;
pub(crate) mod command;
mod file;
mod folder;
pub mod proposal;
pub(crate) mod public;
mod root;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder},
    io,
    num::NonZeroU64,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use miette::Diagnostic;
use tough::schema::{RoleKeys, RoleType, Root};

pub use file::{KeyFile, Passphrase};
pub(crate) use folder::days_left;
pub use folder::{
    KeyInfo, KeysInfo, RoleInfo, SigningKey, export, new_command_key, new_key, read_public, show,
};
pub(crate) use public::KeyId;
pub use root::RootFile;
use root::{numbered, store_root};

use crate::sign::{self, SignError};

const ROOT_JSON: &str = "root.json";
const ROLES: [RoleType; 4] = [
    RoleType::Root,
    RoleType::Targets,
    RoleType::Snapshot,
    RoleType::Timestamp,
];

/// Keys that cannot be made, found or used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum KeyError {
    /// There are keys already.
    #[error("there are keys in `{}` already: `{}` exists", dir.display(), found.display())]
    #[diagnostic(
        code(pytheas::keys::exists),
        help(
            "keys are never overwritten, devices would stop trusting you; choose another folder, or use the keys that are there"
        )
    )]
    Exists {
        /// The folder.
        dir: PathBuf,
        /// What is there.
        found: PathBuf,
    },
    /// A file is missing.
    #[error("there is no `{}`", path.display())]
    #[diagnostic(code(pytheas::keys::missing), help("{help}"))]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        help: &'static str,
    },
    /// Others can read a private key.
    #[error("the key `{}` can be read by others (mode {mode:04o})", path.display())]
    #[diagnostic(code(pytheas::keys::refused::mode), help("`chmod 600 {}`; if someone else may have read it, replace the key", path.display()))]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is encrypted and no passphrase was given.
    #[error("the key `{}` is protected by a passphrase and none was given", path.display())]
    #[diagnostic(
        code(pytheas::keys::passphrase_needed),
        help("type it when asked, or set PYTHEAS_KEY_PASSPHRASE")
    )]
    PassphraseNeeded {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is wrong.
    #[error("the passphrase does not open the key `{}`", path.display())]
    #[diagnostic(
        code(pytheas::keys::wrong_passphrase),
        help("try again; a lost passphrase cannot be recovered")
    )]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty")]
    #[diagnostic(
        code(pytheas::keys::empty_passphrase),
        help("choose a passphrase, or make keys without one")
    )]
    EmptyPassphrase,
    /// Not a key.
    #[error("`{}` is not an Ed25519 private key (PKCS#8 PEM)", path.display())]
    #[diagnostic(
        code(pytheas::keys::not_a_key),
        help("restore it from your backup; `openssl pkey -in FILE -noout -text` shows what it is")
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// Not root metadata.
    #[error("`{}` is not signed root metadata: {why}", path.display())]
    #[diagnostic(
        code(pytheas::keys::bad_root),
        help(
            "restore it from your backup, or take the newest `metadata/N.root.json` of your repository"
        )
    )]
    BadRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key belongs to another repository.
    #[error("the key `{}` ({id}) is not a key of the role `{role}` in `root.json`", path.display())]
    #[diagnostic(
        code(pytheas::keys::not_in_root),
        help(
            "the keys of two repositories are mixed up; `pytheas keys show` lists the ids that are expected"
        )
    )]
    NotInRoot {
        /// The file.
        path: PathBuf,
        /// Its key id, shortened.
        id: String,
        /// The role.
        role: RoleType,
    },
    /// The file system.
    #[error("cannot use `{}`", path.display())]
    #[diagnostic(
        code(pytheas::keys::io),
        help("is the folder there and yours to write?")
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The metadata was not signed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sign(#[from] SignError),
    /// Too few of a role's keys are here.
    #[error("the role `{role}` needs {needed} signatures, `{}` has keys for {have}", dir.display())]
    #[diagnostic(
        code(pytheas::keys::too_few),
        help(
            "`pytheas keys show` lists which keys are here; bring the others, or let their holders sign: `--propose FILE`, then `pytheas keys sign FILE` there"
        )
    )]
    TooFew {
        /// The folder.
        dir: PathBuf,
        /// The role.
        role: String,
        /// Keys that are there.
        have: u64,
        /// Keys that are needed.
        needed: u64,
    },
    /// A file that should describe a signing command does not.
    #[error("`{}` describes no signing command: {why}", path.display())]
    #[diagnostic(
        code(pytheas::keys::bad_command),
        help(
            "it needs `command = \"…\"` and `public = \"…\"`; `pytheas keys new NAME --command … --public FILE` writes it"
        )
    )]
    BadCommand {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Not a public half.
    #[error("`{}` holds no public key", path.display())]
    #[diagnostic(
        code(pytheas::keys::not_public),
        help(
            "expected is what `pytheas keys export` wrote, or a public key in PEM: Ed25519, ECDSA on P-256, RSA of at least 2048 bits"
        )
    )]
    NotPublic {
        /// The file.
        path: PathBuf,
    },
    /// Boards check no other keys.
    #[error("{whose} has no Ed25519 key, and boards check no other")]
    #[diagnostic(
        code(pytheas::keys::no_board_key),
        help(
            "`pytheas keys add targets` makes one for the role, `pytheas keys new TEAM` for a team"
        )
    )]
    NoBoardKey {
        /// Whose keys.
        whose: String,
    },
    /// A name that is no name.
    #[error("`{name}` is no name for a key")]
    #[diagnostic(
        code(pytheas::keys::bad_name),
        help(
            "small letters, digits, `-` and `_`, at most 64; a new key of a role: `pytheas keys add ROLE`"
        )
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// Several ids begin so.
    #[error("`{key}` is the beginning of the ids of several keys ({names})")]
    #[diagnostic(
        code(pytheas::keys::several),
        help("give the name of one, or more digits of its id")
    )]
    Several {
        /// What was given.
        key: String,
        /// The files.
        names: String,
    },
    /// No key is called so.
    #[error("there is no key `{key}` in `{}`", dir.display())]
    #[diagnostic(code(pytheas::keys::unknown), help("{have}"))]
    Unknown {
        /// What was given.
        key: String,
        /// The folder.
        dir: PathBuf,
        /// What there is.
        have: String,
    },
}

impl KeyError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// How to make keys.
#[derive(Debug)]
pub struct Init<'a> {
    /// The folder; made if missing.
    pub dir: &'a Path,
    /// Protects the root and targets keys.
    pub passphrase: Option<&'a str>,
    /// The time.
    pub now: Timestamp,
    /// How long the root metadata is good.
    pub root_valid: SignedDuration,
}

/// Where the private key of `role` lies in `dir`.
fn key_path(dir: &Path, role: RoleType) -> PathBuf {
    match role {
        RoleType::Snapshot | RoleType::Timestamp => dir.join("online").join(format!("{role}.pem")),
        _ => dir.join(format!("{role}.pem")),
    }
}

/// Makes the keys of a new repository and its signed root metadata.
///
/// # Errors
/// [`KeyError::Exists`] when the folder has keys already; nothing is changed then.
pub fn init(init: &Init<'_>) -> Result<KeysInfo, KeyError> {
    if init.passphrase.is_some_and(str::is_empty) {
        return Err(KeyError::EmptyPassphrase);
    }
    let dir = init.dir;
    let online = dir.join("online");
    let mut paths: Vec<PathBuf> = ROLES.iter().map(|role| key_path(dir, *role)).collect();
    paths.extend([
        dir.join(ROOT_JSON),
        online.join(ROOT_JSON),
        numbered(dir, 1),
    ]);
    if let Some(found) = paths
        .into_iter()
        .find(|path| fs::symlink_metadata(path).is_ok())
    {
        return Err(KeyError::Exists {
            dir: dir.to_owned(),
            found,
        });
    }
    make_private(dir)?;
    make_private(&online)?;

    let mut root = Root {
        spec_version: sign::SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: sign::expiry(init.now, init.root_valid),
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    let mut keys = Vec::new();
    for role in ROLES {
        let path = key_path(dir, role);
        let secret = matches!(role, RoleType::Root | RoleType::Targets);
        let key = KeyFile::generate(&path, init.passphrase.filter(|_| secret))?;
        let key = SigningKey::File(key);
        root.keys.insert(key.id(), key.public());
        let role_keys = RoleKeys {
            keyids: vec![key.id()],
            threshold: NonZeroU64::MIN,
            _extra: HashMap::new(),
        };
        root.roles.insert(role, role_keys);
        keys.push(key);
    }
    let signed = sign::sign_top(root.clone(), &root, &keys)?;
    store_root(dir, 1, &signed.bytes)?;
    show(dir, init.now)
}

/// Makes the folder `dir`, for its owner only, if it is not there.
fn make_private(dir: &Path) -> Result<(), KeyError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(KeyError::io(dir))
}

/// Everything needed to publish: the targets keys (or a team's) and the online keys.
#[derive(Debug)]
pub struct PublisherKeys {
    /// The root metadata.
    pub root: RootFile,
    /// The folder.
    pub(crate) dir: PathBuf,
    /// The team that publishes, if it is not the targets role.
    pub(crate) team: Option<String>,
    /// The keys of whoever publishes.
    pub(crate) signers: Vec<SigningKey>,
    /// Further ones that sign images for boards, see [`Self::with_board_keys`].
    pub(crate) board_signers: Vec<SigningKey>,
    /// A team may have none: then the hub signs the snapshot.
    pub(crate) online: Option<OnlineKeys>,
}

/// What a hub has: the keys of the roles it renews.
#[derive(Debug)]
pub struct OnlineKeys {
    /// The root metadata.
    pub root: RootFile,
    pub(crate) keys: Vec<SigningKey>,
}

impl PublisherKeys {
    /// The keys in `dir`; `passphrase` is asked only when a key is protected.
    ///
    /// # Errors
    /// [`KeyError`], naming the file.
    pub fn load(dir: &Path, passphrase: &Passphrase<'_>) -> Result<Self, KeyError> {
        let root = RootFile::load(dir)?;
        let signers =
            folder::role_keys(dir, &root, RoleType::Targets, folder::Need::All, passphrase)?;
        Self::with(dir, root, None, signers)
    }

    /// As [`Self::load`] with as many keys of the targets role as there are, none refused: the
    /// rest signs elsewhere.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_some(dir: &Path, passphrase: &Passphrase<'_>) -> Result<Self, KeyError> {
        let root = RootFile::load(dir)?;
        let signers = folder::role_keys(
            dir,
            &root,
            RoleType::Targets,
            folder::Need::Some,
            passphrase,
        )?;
        Self::with(dir, root, None, signers)
    }

    /// The keys of `team`: the files `TEAM.pem`, `TEAM-2.pem`, … (or `.toml`) in `dir`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_team(
        dir: &Path,
        team: &str,
        passphrase: &Passphrase<'_>,
    ) -> Result<Self, KeyError> {
        let root = RootFile::load(dir)?;
        let signers = folder::team_keys(dir, team, passphrase)?;
        Self::with(dir, root, Some(team.to_owned()), signers)
    }

    fn with(
        dir: &Path,
        root: RootFile,
        team: Option<String>,
        signers: Vec<SigningKey>,
    ) -> Result<Self, KeyError> {
        let online = dir.join("online");
        let online = match OnlineKeys::load_under(&online, &root) {
            Err(_) if team.is_some() && !online.exists() => None,
            other => Some(other?),
        };
        let dir = dir.to_owned();
        Ok(Self {
            root,
            dir,
            team,
            signers,
            board_signers: Vec::new(),
            online,
        })
    }

    /// These keys and, for images of boards, every Ed25519 key in the folder that the targets role
    /// has or had: a board that has not seen a release since a rotation knows only the old one.
    ///
    /// # Errors
    /// [`KeyError`], naming the file.
    pub fn with_board_keys(mut self, passphrase: &Passphrase<'_>) -> Result<Self, KeyError> {
        if self.team.is_some() {
            return Ok(self);
        }
        let mut trusted: Vec<[u8; 32]> = Vec::new();
        for root in self.root.versions(&self.dir)?.iter().rev() {
            trusted.extend(boards::of_role(&root.signed));
        }
        trusted.retain({
            let have: Vec<_> = self.signers.iter().map(SigningKey::public).collect();
            move |raw| !have.iter().any(|key| boards::raw(key) == Some(*raw))
        });
        self.board_signers = folder::with_public(&self.dir, &trusted, passphrase)?;
        Ok(self)
    }
}

impl PublisherKeys {
    /// The online keys, which all but teams need.
    pub(crate) fn online(&self) -> Result<&OnlineKeys, KeyError> {
        self.online.as_ref().ok_or_else(|| KeyError::Missing {
            path: self.dir.join("online"),
            help: file::MISSING,
        })
    }
}

impl OnlineKeys {
    /// The snapshot and timestamp keys in `dir`, the `online` folder of the developer's keys.
    ///
    /// # Errors
    /// [`KeyError`], naming the file.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        Self::load_under(dir, &RootFile::load(dir)?)
    }

    /// As [`Self::load`], for what `root` says.
    fn load_under(dir: &Path, root: &RootFile) -> Result<Self, KeyError> {
        let mut keys: Vec<SigningKey> = Vec::new();
        for role in [RoleType::Snapshot, RoleType::Timestamp] {
            keys.extend(folder::role_keys(
                dir,
                root,
                role,
                folder::Need::All,
                &|_| None,
            )?);
        }
        let root = root.clone();
        Ok(Self { root, keys })
    }
}

#[cfg(test)]
mod tests;
