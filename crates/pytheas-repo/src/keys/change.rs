//! Changes to the root metadata: keys added, revoked, replaced, thresholds, expiry.
//!
//! Each change is a new version of the root, signed by enough keys of the old one and enough of
//! its own (TUF §5.3.4). With these keys in the folder it is in force at once; otherwise it waits
//! as a [`Proposal`], and further changes are made to that one, so that one ceremony signs all.

mod meant;

use std::{
    collections::HashMap,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use miette::Diagnostic;
use tough::schema::{RoleKeys, RoleType, Root, key::Key};

use super::{
    KeyError, KeyFile, KeyId, Passphrase, ROLES, RootFile, SigningKey, folder,
    proposal::{Missing, Proposal, ProposalError},
    public,
};
use crate::sign;

/// A change that is not made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ChangeError {
    /// The keys.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Key(#[from] KeyError),
    /// The proposal.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Proposal(#[from] ProposalError),
    /// No such role.
    #[error("there is no role `{role}`")]
    #[diagnostic(
        code(pytheas::keys::no_role),
        help(
            "the roles are root, targets, snapshot, timestamp; `online` is the last two; teams are changed by `pytheas keys delegate`"
        )
    )]
    NoRole {
        /// What was given.
        role: String,
    },
    /// More signatures than keys.
    #[error("the role `{role}` would need {threshold} signatures of {keys} keys")]
    #[diagnostic(
        code(pytheas::keys::refused::threshold),
        help(
            "add keys first (`pytheas keys add {role}`), or lower the threshold (`pytheas keys threshold {role} N`, at least 1)"
        )
    )]
    Threshold {
        /// The role.
        role: RoleType,
        /// Signatures.
        threshold: u64,
        /// Keys.
        keys: usize,
    },
    /// The role has the key already.
    #[error("the role `{role}` has the key {id} already")]
    #[diagnostic(
        code(pytheas::keys::has_it),
        help("`pytheas keys show` lists its keys")
    )]
    HasIt {
        /// The role.
        role: RoleType,
        /// The key.
        id: String,
    },
    /// One key would be both online and offline.
    #[error("the key {id} is a key of `{other}`; `{role}` must not share it")]
    #[diagnostic(
        code(pytheas::keys::refused::shared),
        help("a key that lies on a hub must not sign what the hub may not: make another one")
    )]
    Shared {
        /// The role that was to get it.
        role: RoleType,
        /// The key.
        id: String,
        /// The role that has it.
        other: RoleType,
    },
    /// No role has such a key.
    #[error("no role has a key `{key}`")]
    #[diagnostic(
        code(pytheas::keys::not_used),
        help(
            "`pytheas keys show` lists the keys of the roles; those of a team are named anew by `pytheas keys delegate TEAM --key FILE --repo …`"
        )
    )]
    NotUsed {
        /// What was given.
        key: String,
    },
    /// Another role has it.
    #[error("the role `{role}` has no key `{key}`; another role has it")]
    #[diagnostic(
        code(pytheas::keys::not_used),
        help("`pytheas keys show` lists the keys of each role")
    )]
    NotOf {
        /// The role.
        role: RoleType,
        /// What was given.
        key: String,
    },
    /// A key of the folder that no role has.
    #[error("the key `{key}` is in the folder, and no role has it: there is nothing to take away")]
    #[diagnostic(
        code(pytheas::keys::not_used),
        help(
            "`pytheas keys show` lists it as `(none)`; if it is a team's, `pytheas keys delegate TEAM --key FILE --repo …` names the team's keys anew"
        )
    )]
    Unused {
        /// What was given.
        key: String,
    },
    /// The proposal that waits says so.
    #[error("the key `{key}` is taken away already by the root that waits for signatures")]
    #[diagnostic(
        code(pytheas::keys::unchanged),
        help(
            "`pytheas keys sign` on the proposal that `pytheas keys show` names puts it in force"
        )
    )]
    RevokedAlready {
        /// What was given.
        key: String,
    },
    /// Hardly a name.
    #[error("`{key}` is too short to mean a key")]
    #[diagnostic(
        code(pytheas::keys::ambiguous),
        help("give at least 4 digits of an id that `pytheas keys show` lists, or a file's name")
    )]
    TooShort {
        /// What was given.
        key: String,
    },
    /// Without the key the role cannot sign.
    #[error(
        "without the key {id} the role `{role}` has {} of the {threshold} keys that must sign",
        count(*keys)
    )]
    #[diagnostic(
        code(pytheas::keys::refused::threshold),
        help(
            "replace it instead: `pytheas keys rotate {role} --key {id}`; or give the role another first: `pytheas keys add {role}`{}",
            lower(*role, *keys)
        )
    )]
    Needed {
        /// The role.
        role: RoleType,
        /// The key.
        id: String,
        /// Signatures.
        threshold: u64,
        /// Keys that would be left.
        keys: usize,
    },
    /// Several keys begin so, or one is called so and another begins so.
    #[error("`{key}` may mean several keys")]
    #[diagnostic(
        code(pytheas::keys::ambiguous),
        help("give more digits of the id that `pytheas keys show` lists, or all 64")
    )]
    Ambiguous {
        /// What was given.
        key: String,
    },
    /// It must be said which key.
    #[error("the role `{role}` has {keys} keys: which one is to be replaced?")]
    #[diagnostic(
        code(pytheas::keys::which),
        help("name it with `--key ID`; `pytheas keys show` lists the ids")
    )]
    Which {
        /// The role.
        role: RoleType,
        /// How many.
        keys: usize,
    },
    /// Nothing would change.
    #[error("nothing would change: {why}")]
    #[diagnostic(
        code(pytheas::keys::unchanged),
        help("`pytheas keys show` shows what is in force")
    )]
    Unchanged {
        /// What is so already.
        why: String,
    },
}

fn count(keys: usize) -> String {
    match keys {
        0 => "none".to_owned(),
        keys => format!("only {keys}"),
    }
}

fn lower(role: RoleType, keys: usize) -> String {
    match keys {
        0 => String::new(),
        keys => format!("; or let fewer sign: `pytheas keys threshold {role} {keys}`"),
    }
}

/// Where a key for a role comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A new one is made in the folder.
    New,
    /// A key of the folder: its file's name, or an id.
    Here(String),
    /// A file with the public half; somebody else has the private one.
    Public(PathBuf),
}

/// A change of the root metadata.
#[derive(Debug, Clone)]
pub enum Change {
    /// The role gets a further key.
    Add(RoleType, Source),
    /// The key with this id (or its beginning) is removed from every role.
    Revoke(String),
    /// The role needs this many signatures.
    Threshold(RoleType, u64),
    /// Keys of the roles are replaced by new ones: the named one, or all.
    Rotate(Vec<RoleType>, Option<String>, Source),
    /// Only the expiry is new.
    Renew,
    /// Several in one version, or none of them.
    All(Vec<Change>),
}

/// How to change.
pub struct How<'a> {
    /// The folder of keys.
    pub dir: &'a Path,
    /// The time.
    pub now: Timestamp,
    /// How long the new root metadata is good.
    pub root_valid: SignedDuration,
    /// Protects new keys of root and targets; asked for only if one is made.
    pub new_passphrase: Option<&'a str>,
    /// Opens keys.
    pub passphrase: &'a Passphrase<'a>,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Version of the new root.
    pub version: u64,
    /// When it expires.
    pub expires: Timestamp,
    /// What is new in it, line by line.
    pub says: Vec<String>,
    /// New key files.
    pub made: Vec<PathBuf>,
    /// The proposal, if signatures are missing.
    pub proposal: Option<PathBuf>,
    /// Which.
    pub missing: Vec<Missing>,
}

/// The roles that `name` means.
///
/// # Errors
/// [`ChangeError::NoRole`].
pub fn roles(name: &str) -> Result<Vec<RoleType>, ChangeError> {
    if name == "online" {
        return Ok(vec![RoleType::Snapshot, RoleType::Timestamp]);
    }
    let role = ROLES.into_iter().find(|role| role.to_string() == name);
    role.map(|role| vec![role]).ok_or(ChangeError::NoRole {
        role: name.to_owned(),
    })
}

fn is_online(role: RoleType) -> bool {
    matches!(role, RoleType::Snapshot | RoleType::Timestamp)
}

/// Makes `change`.
///
/// # Errors
/// [`ChangeError`]; the root in force is as it was then. A key that was made is never removed.
pub fn change(how: &How<'_>, change: &Change) -> Result<Changed, ChangeError> {
    let dir = how.dir;
    RootFile::load(dir)?;
    // Of two changes at once, the second is made to what the first has left.
    let _lock = super::root::lock(dir)?;
    let here = RootFile::load(dir)?;
    let pending = Proposal::pending(dir, &here)?;
    let mut root = match pending.as_ref().and_then(Proposal::as_root) {
        Some(pending) => pending.signed.clone(),
        None => here.signed.clone(),
    };
    let before = root.clone();
    let mut made = Vec::new();
    apply(&mut root, &here.signed, change, how, &mut made)?;
    if root == before && !matches!(change, Change::Renew) {
        return Err(ChangeError::Unchanged {
            why: "the root says so already".to_owned(),
        });
    }
    root.version = NonZeroU64::MIN.saturating_add(here.signed.version.get());
    root.expires = sign::expiry(how.now, how.root_valid);
    root.spec_version = sign::SPEC_VERSION.to_owned();
    let used: Vec<KeyId> = root
        .roles
        .values()
        .flat_map(|by| by.keyids.clone())
        .collect();
    root.keys.retain(|id, _| used.contains(id));

    let mut proposal = Proposal::root(&here, root.clone());
    proposal.sign_here(dir, how.passphrase)?;
    let missing = proposal.missing();
    let place = Proposal::place(dir);
    let waits = if missing.is_empty() {
        proposal.enforce(dir)?;
        None
    } else {
        proposal.write(&place)?;
        Some(place)
    };
    Ok(Changed {
        version: root.version.get(),
        expires: root.expires,
        says: differences(&here.signed, &root),
        made,
        proposal: waits,
        missing,
    })
}

fn apply(
    root: &mut Root,
    now: &Root,
    change: &Change,
    how: &How<'_>,
    made: &mut Vec<PathBuf>,
) -> Result<(), ChangeError> {
    match change {
        Change::Renew => {}
        Change::All(all) => {
            for change in all {
                apply(root, now, change, how, made)?;
            }
        }
        Change::Threshold(role, threshold) => {
            let by = keys_of(root, *role);
            let keys = by.keyids.len();
            let too_much = || ChangeError::Threshold {
                role: *role,
                threshold: *threshold,
                keys,
            };
            by.threshold = NonZeroU64::new(*threshold).ok_or_else(too_much)?;
        }
        Change::Add(role, source) => {
            let key = obtain(root, *role, source, how, made)?;
            add(root, *role, key)?;
        }
        Change::Revoke(key) => {
            let id = meant::used(root, now, how.dir, key)?;
            for (role, by) in &mut root.roles {
                let had = by.keyids.len();
                by.keyids.retain(|known| *known != id);
                if by.keyids.len() < had && by.threshold.get() > by.keyids.len() as u64 {
                    return Err(ChangeError::Needed {
                        role: *role,
                        id: crate::client::short_key_id(&id),
                        threshold: by.threshold.get(),
                        keys: by.keyids.len(),
                    });
                }
            }
        }
        Change::Rotate(roles, key, source) => {
            let named = key.as_deref();
            let named = named.map(|key| meant::used(root, now, how.dir, key));
            let named = named.transpose()?;
            for role in roles {
                let by = keys_of(root, *role).clone();
                let old: Vec<KeyId> = match &named {
                    Some(id) => by.keyids.iter().filter(|k| *k == id).cloned().collect(),
                    None if by.keyids.len() > 1 && !is_online(*role) => {
                        return Err(ChangeError::Which {
                            role: *role,
                            keys: by.keyids.len(),
                        });
                    }
                    None => by.keyids.clone(),
                };
                if let (Some(key), true) = (key, old.is_empty()) {
                    return Err(ChangeError::NotOf {
                        role: *role,
                        key: key.clone(),
                    });
                }
                for id in old {
                    let key = obtain(root, *role, source, how, made)?;
                    add(root, *role, key)?;
                    keys_of(root, *role).keyids.retain(|known| *known != id);
                }
            }
        }
    }
    for role in ROLES {
        let by = keys_of(root, role);
        if by.threshold.get() > by.keyids.len() as u64 {
            return Err(ChangeError::Threshold {
                role,
                threshold: by.threshold.get(),
                keys: by.keyids.len(),
            });
        }
    }
    Ok(())
}

fn keys_of(root: &mut Root, role: RoleType) -> &mut RoleKeys {
    root.roles.entry(role).or_insert_with(|| RoleKeys {
        keyids: Vec::new(),
        threshold: NonZeroU64::MIN,
        _extra: HashMap::new(),
    })
}

fn add(root: &mut Root, role: RoleType, key: Key) -> Result<(), ChangeError> {
    let id = public::id(&key);
    let short = crate::client::short_key_id(&id);
    for (other, by) in &root.roles {
        if !by.keyids.contains(&id) {
            continue;
        }
        if *other == role {
            return Err(ChangeError::HasIt { role, id: short });
        }
        if is_online(*other) != is_online(role) {
            return Err(ChangeError::Shared {
                role,
                id: short,
                other: *other,
            });
        }
    }
    keys_of(root, role).keyids.push(id.clone());
    root.keys.insert(id, key);
    Ok(())
}

/// The public half of the key that the role is to get.
fn obtain(
    root: &Root,
    role: RoleType,
    source: &Source,
    how: &How<'_>,
    made: &mut Vec<PathBuf>,
) -> Result<Key, ChangeError> {
    match source {
        Source::Public(path) => Ok(folder::read_public(path)?),
        Source::Here(name) => {
            let found = folder::find(how.dir, name)?;
            Ok(match found.public {
                Some(key) => key,
                None => found.open(how.passphrase)?.public(),
            })
        }
        Source::New => {
            // Made last: whatever else is wrong with the change should not leave a key behind.
            if how.new_passphrase.is_some_and(str::is_empty) {
                return Err(KeyError::EmptyPassphrase.into());
            }
            let usual = super::key_path(how.dir, role);
            let folder = usual.parent().unwrap_or(how.dir).to_owned();
            super::make_private(&folder)?;
            let next = root.keys.len() as u64 + 1000;
            let path = (2..next)
                .map(|n| folder.join(format!("{role}-{n}.pem")))
                .find(|path| std::fs::symlink_metadata(path).is_err())
                .unwrap_or(usual);
            let passphrase = how.new_passphrase.filter(|_| !is_online(role));
            let key = SigningKey::File(KeyFile::generate(&path, passphrase)?);
            made.push(path);
            Ok(key.public())
        }
    }
}

/// What `new` says other than `old`, line by line.
pub(super) fn differences(old: &Root, new: &Root) -> Vec<String> {
    let mut lines = Vec::new();
    for role in ROLES {
        let (was, is) = (sign::role_keys(old, role), sign::role_keys(new, role));
        let short = |id: &KeyId| public::hex(id).chars().take(12).collect::<String>();
        let of = |root: &Root, id: &KeyId| root.keys.get(id).map_or("unknown", public::scheme);
        for id in is.keyids.iter().filter(|id| !was.keyids.contains(id)) {
            lines.push(format!("{role}: new key {} ({})", short(id), of(new, id)));
        }
        for id in was.keyids.iter().filter(|id| !is.keyids.contains(id)) {
            lines.push(format!("{role}: key {} revoked", short(id)));
        }
        if was.threshold != is.threshold || was.keyids.len() != is.keyids.len() {
            lines.push(format!(
                "{role}: {} of {} signatures (was {} of {})",
                is.threshold,
                is.keyids.len(),
                was.threshold,
                was.keyids.len()
            ));
        }
    }
    for (what, was, is) in [
        (
            "consistent snapshots",
            old.consistent_snapshot.to_string(),
            new.consistent_snapshot.to_string(),
        ),
        (
            "specification",
            old.spec_version.clone(),
            new.spec_version.clone(),
        ),
    ] {
        if was != is {
            lines.push(format!("{what}: {is} (was {was})"));
        }
    }
    let mut unknown: Vec<_> = new
        ._extra
        .iter()
        .filter(|(name, value)| old._extra.get(*name) != Some(value))
        .map(|(name, _)| format!("further field `{name}`"))
        .collect();
    unknown.sort();
    lines.append(&mut unknown);
    lines.push(format!("expires {} (was {})", new.expires, old.expires));
    lines
}
