//! What lies in a folder of keys: which keys, for which roles, and how they are opened.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use pytheas_release::Sha256;
use tough::{
    schema::{RoleType, key::Key},
    sign::Sign as _,
};

use super::{
    KeyError, KeyFile, KeyId, Passphrase, ROLES, RootFile, boards,
    command::CommandKey,
    file::{self, Glance},
    key_path,
    proposal::Proposal,
    public,
};
use crate::sign::SignError;

/// Fewer digits of an id name no key: `beef` may be typed by accident, `b` is.
pub(super) const LEAST_DIGITS: usize = 4;

/// A key that can sign.
#[derive(Debug)]
pub enum SigningKey {
    /// Of a file.
    File(KeyFile),
    /// Of a program.
    Command(CommandKey),
}

impl SigningKey {
    /// The public half.
    pub(crate) fn public(&self) -> Key {
        match self {
            Self::File(key) => key.key_pair().tuf_key(),
            Self::Command(key) => key.key().clone(),
        }
    }

    /// The TUF key id.
    pub(crate) fn id(&self) -> KeyId {
        match self {
            Self::File(key) => key.id(),
            Self::Command(key) => public::id(key.key()),
        }
    }

    /// The signature over `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match self {
            Self::File(key) => Ok(key.key_pair().sign(message).as_ref().to_vec()),
            Self::Command(key) => key.sign(message).map_err(|error| SignError::Key {
                key: key.path().display().to_string(),
                source: Box::new(error),
            }),
        }
    }
}

/// A key of a folder, not opened yet.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) public: Option<Key>,
    encrypted: bool,
    command: Option<CommandKey>,
}

impl Found {
    pub(super) fn name(&self) -> &str {
        self.path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    pub(super) fn id(&self) -> Option<KeyId> {
        self.public.as_ref().map(public::id)
    }

    pub(super) fn open(&self, passphrase: &Passphrase<'_>) -> Result<SigningKey, KeyError> {
        match &self.command {
            Some(command) => Ok(SigningKey::Command(command.clone())),
            None => KeyFile::load(&self.path, passphrase).map(SigningKey::File),
        }
    }
}

/// The keys in `dir` and its `online` folder, those that open by themselves first.
pub(super) fn scan(dir: &Path) -> Result<Vec<Found>, KeyError> {
    let mut all = Vec::new();
    for dir in [dir, &dir.join("online")] {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(KeyError::io(dir))?,
        };
        for entry in entries {
            let path = entry.map_err(KeyError::io(dir))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("pem") => {
                    if let Some(Glance { encrypted, public }) = file::glance(&path)? {
                        all.push(Found {
                            path,
                            public,
                            encrypted,
                            command: None,
                        });
                    }
                }
                Some("toml") => {
                    let command = CommandKey::parse(&path, &file::read_text(&path)?)?;
                    all.push(Found {
                        path,
                        public: Some(command.key().clone()),
                        encrypted: false,
                        command: Some(command),
                    });
                }
                _ => {}
            }
        }
    }
    all.sort_by(|a, b| {
        let key = |f: &Found| (f.command.is_some(), f.encrypted, f.path.clone());
        key(a).cmp(&key(b))
    });
    Ok(all)
}

/// Whether fewer keys than the threshold will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// As many as the threshold says.
    All,
    /// As many as there are.
    Some,
}

/// Keys of `role` in `dir`, no more than are needed to sign as `root` says.
pub(super) fn role_keys(
    dir: &Path,
    root: &RootFile,
    role: RoleType,
    need: Need,
    passphrase: &Passphrase<'_>,
) -> Result<Vec<SigningKey>, KeyError> {
    let by = crate::sign::role_keys(&root.signed, role);
    let needed = by.threshold.get();
    let found = scan(dir)?;
    let mut keys: Vec<SigningKey> = Vec::new();
    for found in &found {
        // An old file that does not tell its public half is opened if it is called like the role.
        let may = match found.id() {
            Some(id) => by.keyids.contains(&id),
            None => found.name() == role.to_string(),
        };
        if !may || keys.len() as u64 >= needed {
            continue;
        }
        let key = found.open(passphrase)?;
        if by.keyids.contains(&key.id()) && !keys.iter().any(|known| known.id() == key.id()) {
            keys.push(key);
        }
    }
    let have = keys.len() as u64;
    if have >= needed || (need == Need::Some && have > 0) {
        return Ok(keys);
    }
    let usual = [key_path(dir, role), dir.join(format!("{role}.pem"))];
    let usual = usual.iter().find(|path| path.is_file()).unwrap_or(
        if dir.join("online").is_dir() || role == RoleType::Targets {
            &usual[0]
        } else {
            &usual[1]
        },
    );
    if have > 0 {
        return Err(KeyError::TooFew {
            dir: dir.to_owned(),
            role: role.to_string(),
            have,
            needed,
        });
    }
    match found.iter().find(|found| found.path == *usual) {
        Some(foreign) => Err(KeyError::NotInRoot {
            path: foreign.path.clone(),
            id: match foreign.id() {
                Some(id) => crate::client::short_key_id(&id),
                None => "another".to_owned(),
            },
            role,
        }),
        None if usual.is_file() => Err(KeyError::NotAKey {
            path: usual.clone(),
        }),
        None => Err(KeyError::Missing {
            path: usual.clone(),
            help: file::MISSING,
        }),
    }
}

/// Whether a key called `name` is one of `team`: `TEAM`, or `TEAM-N` with a number. A team may be
/// called `green-two` beside one called `green`; its keys stay closed then.
fn is_of_team(name: &str, team: &str) -> bool {
    let number = match name.strip_prefix(team) {
        Some("") => return true,
        rest => rest.and_then(|rest| rest.strip_prefix('-')),
    };
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The keys in `dir` that are called like `team`.
pub(super) fn team_keys(
    dir: &Path,
    team: &str,
    passphrase: &Passphrase<'_>,
) -> Result<Vec<SigningKey>, KeyError> {
    let mut keys = Vec::new();
    for found in scan(dir)? {
        if is_of_team(found.name(), team) {
            keys.push(found.open(passphrase)?);
        }
    }
    if keys.is_empty() {
        let path = dir.join(format!("{team}.pem"));
        if path.is_file() {
            return Err(KeyError::NotAKey { path });
        }
        return Err(KeyError::Missing {
            path,
            help: "a team's keys are called like the team, `TEAM` and `TEAM-2`: `pytheas keys new TEAM` makes one, the holder of the targets keys delegates to it with `pytheas keys delegate`",
        });
    }
    Ok(keys)
}

/// The public halves of a team's keys in `dir`.
pub(super) fn team_publics(dir: &Path, team: &str) -> Result<Vec<Key>, KeyError> {
    let of_team = |found: &Found| {
        let rest = found.name().strip_prefix(team);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let found = scan(dir)?.into_iter().filter(of_team);
    Ok(found.filter_map(|found| found.public).collect())
}

/// The keys in `dir` with these raw Ed25519 public halves, in their order, opened.
pub(super) fn with_public(
    dir: &Path,
    wanted: &[[u8; 32]],
    passphrase: &Passphrase<'_>,
) -> Result<Vec<SigningKey>, KeyError> {
    let found = scan(dir)?;
    let mut keys: Vec<SigningKey> = Vec::new();
    for raw in wanted {
        let is_it = |found: &&Found| found.public.as_ref().and_then(boards::raw) == Some(*raw);
        if let Some(found) = found.iter().find(is_it)
            && !keys.iter().any(|key| Some(key.id()) == found.id())
        {
            keys.push(found.open(passphrase)?);
        }
    }
    Ok(keys)
}

/// One key of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id (64 hex digits).
    pub id: String,
    /// `ed25519`, `ecdsa-sha2-nistp256` or `rsassa-pss-sha256`.
    pub scheme: &'static str,
    /// The private half, or the description of the command, if it is in this folder.
    pub file: Option<PathBuf>,
    /// Whether a passphrase protects it.
    pub encrypted: bool,
    /// Whether a program signs with it.
    pub command: bool,
}

/// Keys of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleInfo {
    /// `root`, `targets`, `snapshot` or `timestamp`.
    pub role: String,
    /// Its keys.
    pub keys: Vec<KeyInfo>,
    /// Signatures needed.
    pub threshold: u64,
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
    /// Whole days until then; negative when it has expired.
    pub days_left: i64,
    /// The roles: root, targets, snapshot, timestamp.
    pub roles: Vec<RoleInfo>,
    /// Keys here that no role uses: a team's, new ones, replaced ones.
    pub unused: Vec<KeyInfo>,
    /// Version of the root that waits for signatures.
    pub proposed: Option<u64>,
}

/// What the folder `dir` holds: the developer's, or the `online` folder of a hub.
///
/// # Errors
/// [`KeyError`] when its `root.json` is missing or not usable.
pub fn show(dir: &Path, now: Timestamp) -> Result<KeysInfo, KeyError> {
    let root = RootFile::load(dir)?;
    let mut found = scan(dir)?;
    let mut roles = Vec::new();
    let mut used = Vec::new();
    for role in ROLES {
        let by = crate::sign::role_keys(&root.signed, role);
        let mut keys = Vec::new();
        for id in &by.keyids {
            let at = found.iter().position(|f| f.id().as_ref() == Some(id));
            // An old encrypted key does not tell who it is; its name does.
            let at = at.or_else(|| {
                let named = |f: &Found| f.public.is_none() && f.name() == role.to_string();
                found.iter().position(named)
            });
            let scheme = root.signed.keys.get(id).map_or("unknown", public::scheme);
            used.extend(at);
            keys.push(info(public::hex(id), scheme, at.map(|at| &found[at])));
        }
        roles.push(RoleInfo {
            role: role.to_string(),
            keys,
            threshold: by.threshold.get(),
        });
    }
    let mut at = 0;
    found.retain(|_| {
        at += 1;
        !used.contains(&(at - 1))
    });
    let unused = found.iter().map(|found| {
        let id = found
            .id()
            .map_or("unknown".to_owned(), |id| public::hex(&id));
        let scheme = found.public.as_ref().map_or("unknown", public::scheme);
        info(id, scheme, Some(found))
    });
    Ok(KeysInfo {
        dir: dir.to_owned(),
        root_sha256: Sha256::of(&root.bytes),
        root_version: root.signed.version.get(),
        expires: root.signed.expires,
        days_left: days_left(root.signed.expires, now),
        roles,
        unused: unused.collect(),
        proposed: Proposal::pending(dir, &root)?.map(|proposal| proposal.version()),
    })
}

/// Whole days from `now` to `expires`.
pub(crate) fn days_left(expires: Timestamp, now: Timestamp) -> i64 {
    expires.duration_since(now).as_hours().div_euclid(24)
}

fn info(id: String, scheme: &'static str, found: Option<&Found>) -> KeyInfo {
    KeyInfo {
        id,
        scheme,
        file: found.map(|found| found.path.clone()),
        encrypted: found.is_some_and(|found| found.encrypted),
        command: found.is_some_and(|found| found.command.is_some()),
    }
}

/// Makes the key `name` in `dir` (made if missing) that no role uses yet. Its public half.
///
/// # Errors
/// [`KeyError`]; a file that is there is left alone.
pub fn new_key(dir: &Path, name: &str, passphrase: Option<&str>) -> Result<String, KeyError> {
    if passphrase.is_some_and(str::is_empty) {
        return Err(KeyError::EmptyPassphrase);
    }
    let path = place(dir, name, "pem")?;
    let key = KeyFile::generate(&path, passphrase)?;
    Ok(public::encode(&key.key_pair().tuf_key()))
}

/// Makes the key `name` in `dir` that signs by running `command`; `public_file` has its public
/// half. It is tried at once.
///
/// # Errors
/// [`KeyError::Sign`] when the command does not sign; nothing is kept then.
pub fn new_command_key(
    dir: &Path,
    name: &str,
    command: &str,
    public_file: &Path,
    timeout_ms: Option<u64>,
) -> Result<String, KeyError> {
    let key = read_public(public_file)?;
    let path = place(dir, name, "toml")?;
    let text = CommandKey::document(command, &key, timeout_ms);
    let parsed = SigningKey::Command(CommandKey::parse(&path, &text)?);
    parsed.sign(b"pytheas: is this the right key?\n")?;
    file::create(&path, text.as_bytes())?;
    Ok(public::encode(&key))
}

/// Where the new key `name` goes; nothing is there.
fn place(dir: &Path, name: &str, extension: &str) -> Result<PathBuf, KeyError> {
    let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let roles = ROLES.map(|role| role.to_string());
    if name.is_empty()
        || name.len() > 64
        || !name.chars().all(right)
        || name.starts_with('-')
        || roles.iter().any(|role| role == name)
    {
        return Err(KeyError::BadName {
            name: name.to_owned(),
        });
    }
    if let Some(found) = ["pem", "toml"]
        .map(|extension| dir.join(format!("{name}.{extension}")))
        .into_iter()
        .find(|path| fs::symlink_metadata(path).is_ok())
    {
        return Err(KeyError::Exists {
            dir: dir.to_owned(),
            found,
        });
    }
    super::make_private(dir)?;
    Ok(dir.join(format!("{name}.{extension}")))
}

/// The public half in the file `path`.
///
/// # Errors
/// [`KeyError::NotPublic`], [`KeyError::Missing`].
pub fn read_public(path: &Path) -> Result<Key, KeyError> {
    let help = "it is what `pytheas keys export` wrote where the private half is";
    let read = pytheas_durable::read_at_most(path, 1 << 20);
    let text = match read.map(|bytes| String::from_utf8(bytes).unwrap_or_default()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Missing {
                path: path.to_owned(),
                help,
            });
        }
        other => other.map_err(KeyError::io(path))?,
    };
    public::parse(&text).ok_or_else(|| KeyError::NotPublic {
        path: path.to_owned(),
    })
}

/// The key of `dir` whose file is called `name`.
pub(super) fn named(dir: &Path, name: &str) -> Option<Found> {
    let all = scan(dir).ok()?;
    all.into_iter().find(|found| found.name() == name)
}

/// The key of `dir` that `name` means: the name of its file, else its id or the first digits of it. A
/// file may be called like another key's first digits, so its name comes first.
pub(super) fn find(dir: &Path, name: &str) -> Result<Found, KeyError> {
    if let Some(found) = named(dir, name) {
        return Ok(found);
    }
    let mut all = scan(dir)?;
    let digits = name.to_ascii_lowercase();
    let begins = |found: &Found| {
        found
            .id()
            .is_some_and(|id| public::hex(&id).starts_with(&digits))
    };
    let meant: Vec<usize> = (0..all.len())
        .filter(|at| name.len() >= LEAST_DIGITS && begins(&all[*at]))
        .collect();
    match meant[..] {
        [] => {}
        // The same key may lie there twice.
        [first, ..] if meant.iter().all(|at| all[*at].id() == all[first].id()) => {
            return Ok(all.swap_remove(first));
        }
        _ => {
            let names = meant.iter().map(|at| all[*at].name()).collect::<Vec<_>>();
            return Err(KeyError::Several {
                key: name.to_owned(),
                names: names.join(", "),
            });
        }
    }
    let names: Vec<_> = all.iter().map(Found::name).collect();
    Err(KeyError::Unknown {
        key: name.to_owned(),
        dir: dir.to_owned(),
        have: if names.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        },
    })
}

/// The public half of the key `name` (a file's name or an id) of `dir`.
///
/// # Errors
/// [`KeyError::Unknown`]; [`KeyError::PassphraseNeeded`] for a key of an older version.
pub fn export(dir: &Path, name: &str, passphrase: &Passphrase<'_>) -> Result<String, KeyError> {
    let found = find(dir, name)?;
    Ok(public::encode(&match found.public {
        Some(key) => key,
        None => found.open(passphrase)?.public(),
    }))
}

#[cfg(test)]
mod tests {
    use super::is_of_team;

    #[test]
    fn a_teams_keys_are_told_from_those_of_a_team_whose_name_begins_alike() {
        for own in ["green", "green-2", "green-10"] {
            assert!(is_of_team(own, "green"), "{own}");
        }
        for other in [
            "green-two",
            "green-",
            "green2",
            "green-2-old",
            "gree",
            "red",
        ] {
            assert!(!is_of_team(other, "green"), "{other}");
        }
        assert!(is_of_team("green-two-2", "green-two"));
    }
}
