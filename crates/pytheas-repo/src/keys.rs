//! Signing keys on disk: made, shown, loaded.
//!
//! ```text
//! keys/root.json               the root metadata: which keys may sign what (public)
//! keys/root.pem                signs root.json; best kept offline
//! keys/targets.pem             signs what may be installed; stays with the developer
//! keys/online/root.json        the same as above
//! keys/online/snapshot.pem     these two go to the hub, which renews signatures with them;
//! keys/online/timestamp.pem    they cannot sign a release
//! ```
//! Ed25519 in PKCS#8 PEM files, mode 0600, folders 0700. With a passphrase, root and targets are
//! encrypted (PBES2, RFC 8018: PBKDF2-HMAC-SHA-256, AES-256-CBC), readable by OpenSSL. The online
//! keys are not, because the hub must start without anybody typing. Nothing is ever overwritten.

mod file;

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
use pytheas_release::Sha256;
use tough::{
    key_source::KeySource,
    schema::{RoleKeys, RoleType, Root, Signed},
    sign::Sign,
};

pub use file::{KeyFile, Passphrase};

use crate::sign;

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
    /// The signature of the new root failed.
    #[error("cannot sign the root metadata")]
    #[diagnostic(code(pytheas::keys::sign))]
    Sign(#[source] Box<tough::error::Error>),
}

impl KeyError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Keys of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleInfo {
    /// `root`, `targets`, `snapshot` or `timestamp`.
    pub role: String,
    /// Ids of its keys (64 hex digits).
    pub key_ids: Vec<String>,
    /// Signatures needed.
    pub threshold: u64,
    /// The private key, if it is in this folder.
    pub file: Option<PathBuf>,
    /// Whether that file is protected by a passphrase.
    pub encrypted: bool,
}

/// What a folder of keys holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysInfo {
    /// The folder.
    pub dir: PathBuf,
    /// SHA-256 of `root.json`: what devices are enrolled with.
    pub root_sha256: Sha256,
    /// Version of the root metadata.
    pub root_version: u64,
    /// When the root metadata expires.
    pub expires: Timestamp,
    /// The roles: root, targets, snapshot, timestamp.
    pub roles: Vec<RoleInfo>,
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
    paths.extend([dir.join(ROOT_JSON), online.join(ROOT_JSON)]);
    if let Some(found) = paths
        .into_iter()
        .find(|path| fs::symlink_metadata(path).is_ok())
    {
        return Err(KeyError::Exists {
            dir: dir.to_owned(),
            found,
        });
    }
    for dir in [dir, &online] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(KeyError::io(dir))?;
    }

    let mut root = Root {
        spec_version: sign::SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: sign::expiry(init.now, init.root_valid),
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    let mut root_key = None;
    for role in ROLES {
        let path = key_path(dir, role);
        let secret = matches!(role, RoleType::Root | RoleType::Targets);
        let key = KeyFile::generate(&path, init.passphrase.filter(|_| secret))?;
        root.keys.insert(key.id(), key.key_pair().tuf_key());
        let role_keys = RoleKeys {
            keyids: vec![key.id()],
            threshold: NonZeroU64::MIN,
            _extra: HashMap::new(),
        };
        root.roles.insert(role, role_keys);
        if role == RoleType::Root {
            root_key = Some(key);
        }
    }
    let keys: Vec<Box<dyn KeySource>> = root_key
        .into_iter()
        .map(|key| Box::new(key) as Box<dyn KeySource>)
        .collect();
    let holder = root.clone();
    let signed = sign::block_on(sign::sign(root, &holder, &keys))
        .map_err(|error| KeyError::Sign(Box::new(error)))?;
    for path in [online.join(ROOT_JSON), dir.join(ROOT_JSON)] {
        pytheas_durable::replace(&path, signed.buffer()).map_err(KeyError::io(&path))?;
    }
    show(dir)
}

/// What the folder `dir` holds: the developer's, or the `online` folder of a hub.
///
/// # Errors
/// [`KeyError`] when its `root.json` is missing or not usable.
pub fn show(dir: &Path) -> Result<KeysInfo, KeyError> {
    let root = RootFile::load(dir)?;
    let mut roles = Vec::new();
    for role in ROLES {
        let Some(keys) = root.signed.roles.get(&role) else {
            continue;
        };
        let file = [key_path(dir, role), dir.join(format!("{role}.pem"))]
            .into_iter()
            .find(|path| path.is_file());
        let encrypted = match &file {
            Some(path) => file::is_encrypted(path)?,
            None => false,
        };
        roles.push(RoleInfo {
            role: role.to_string(),
            key_ids: keys.keyids.iter().map(|id| hex(id)).collect(),
            threshold: keys.threshold.get(),
            file,
            encrypted,
        });
    }
    Ok(KeysInfo {
        dir: dir.to_owned(),
        root_sha256: Sha256::of(&root.bytes),
        root_version: root.signed.version.get(),
        expires: root.signed.expires,
        roles,
    })
}

/// The root metadata of a folder of keys, its own signatures checked.
#[derive(Debug, Clone)]
pub struct RootFile {
    /// As it is stored and published.
    pub bytes: Vec<u8>,
    /// What it says.
    pub signed: Root,
}

impl RootFile {
    /// The `root.json` in `dir`.
    ///
    /// # Errors
    /// [`KeyError::Missing`], [`KeyError::BadRoot`].
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        Self::read(&dir.join(ROOT_JSON))
    }

    /// The root metadata in the file `path`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let path = path.to_owned();
        let help =
            "make keys with `pytheas keys init`, or name the folder that has them with `--keys`";
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyError::Missing { path, help });
            }
            other => other.map_err(KeyError::io(&path))?,
        };
        let bad = |why: String| KeyError::BadRoot {
            path: path.clone(),
            why,
        };
        let root: Signed<Root> =
            serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        root.signed
            .verify_role(&root)
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            bytes,
            signed: root.signed,
        })
    }
}

/// Everything needed to publish: the targets key and the online keys.
#[derive(Debug)]
pub struct PublisherKeys {
    /// The root metadata.
    pub root: RootFile,
    pub(crate) targets: Vec<Box<dyn KeySource>>,
    pub(crate) online: OnlineKeys,
}

/// What a hub has: the keys of the roles it renews.
#[derive(Debug)]
pub struct OnlineKeys {
    /// The root metadata.
    pub root: RootFile,
    pub(crate) sources: Vec<Box<dyn KeySource>>,
}

impl PublisherKeys {
    /// The keys in `dir`; `passphrase` is asked only when a key is protected.
    ///
    /// # Errors
    /// [`KeyError`], naming the file.
    pub fn load(dir: &Path, passphrase: &Passphrase<'_>) -> Result<Self, KeyError> {
        let root = RootFile::load(dir)?;
        let key = load_key(
            &root,
            &key_path(dir, RoleType::Targets),
            RoleType::Targets,
            passphrase,
        )?;
        let mut online = OnlineKeys::load(&dir.join("online"))?;
        online.root = root.clone();
        Ok(Self {
            root,
            targets: vec![key],
            online,
        })
    }
}

impl OnlineKeys {
    /// The snapshot and timestamp keys in `dir`, the `online` folder of the developer's keys.
    ///
    /// # Errors
    /// [`KeyError`], naming the file.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        let root = RootFile::load(dir)?;
        let mut sources = Vec::new();
        for role in [RoleType::Snapshot, RoleType::Timestamp] {
            sources.push(load_key(
                &root,
                &dir.join(format!("{role}.pem")),
                role,
                &|_| None,
            )?);
        }
        Ok(Self { root, sources })
    }
}

fn load_key(
    root: &RootFile,
    path: &Path,
    role: RoleType,
    passphrase: &Passphrase<'_>,
) -> Result<Box<dyn KeySource>, KeyError> {
    let key = KeyFile::load(path, passphrase)?;
    let known = root
        .signed
        .roles
        .get(&role)
        .is_some_and(|keys| keys.keyids.contains(&key.id()));
    if !known {
        let id = crate::client::short_key_id(&key.id());
        return Err(KeyError::NotInRoot {
            path: path.to_owned(),
            id,
            role,
        });
    }
    Ok(Box::new(key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
