//! Metadata that waits for signatures: one file that is carried to whoever holds a key.
//!
//! ```json
//! { "format": 1,
//!   "root":     "{ \"signed\": … }\n",                  the text of the `root.json` it builds on
//!   "role":     "root",                                or "targets", or "team"
//!   "proposed": { "signed": …, "signatures": [] } }    plain TUF metadata, not signed enough yet;
//!                                                      for a team: [`team::OfTeam`]
//! ```
//! A root needs enough signatures by the keys of the root before and by its own (TUF §5.3.4);
//! targets those the root demands, a team's those that the targets metadata demands. Signatures that are there and do not fit are an error: somebody
//! changed the file on the way.

mod team;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use tough::schema::{Role, RoleKeys, RoleType, Root, Signed, Targets};

use super::{KeyError, KeyId, Passphrase, ROOT_JSON, RootFile, SigningKey, folder, public};
use crate::sign::{self, SignError};

pub(crate) use team::OfTeam;

/// The name of a root that waits in a folder of keys.
const FILE: &str = "proposal.json";
/// Longest proposal, in bytes.
const MAX: u64 = 64 << 20;

/// A proposal that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProposalError {
    /// The keys.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Key(#[from] KeyError),
    /// Not signed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sign(#[from] SignError),
    /// Not a proposal.
    #[error("`{}` is no proposal: {why}", path.display())]
    #[diagnostic(
        code(pytheas::proposal::refused::bad),
        help("copy it again from the machine that made it, or make it again")
    )]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It builds on a root that is not in force any more.
    #[error("`{}` is stale: it builds on root version {on}, here version {here} is in force", path.display())]
    #[diagnostic(
        code(pytheas::proposal::refused::stale),
        help("make the change again, on the root that is in force")
    )]
    Stale {
        /// The file.
        path: PathBuf,
        /// The version it builds on.
        on: u64,
        /// The version in the folder.
        here: u64,
    },
    /// It is of another repository.
    #[error("`{}` builds on a root that the root in `{}` does not vouch for", path.display(), dir.display())]
    #[diagnostic(
        code(pytheas::proposal::refused::foreign),
        help(
            "is it of another repository? If not, first bring the newer `root.json` here, one version after the other"
        )
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The folder.
        dir: PathBuf,
    },
    /// No key here may sign it.
    #[error("no key in `{}` may sign `{}`", dir.display(), path.display())]
    #[diagnostic(
        code(pytheas::proposal::no_key),
        help("it wants signatures of {wanted}")
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The folder.
        dir: PathBuf,
        /// Ids of keys.
        wanted: String,
    },
}

/// Metadata that lacks signatures, and the root it builds on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proposal {
    format: u32,
    root: Base,
    #[serde(flatten)]
    proposed: Proposed,
}

/// A root, and its text: the SHA-256 of that is what people compare.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Base {
    text: String,
    root: Signed<Root>,
}

impl TryFrom<String> for Base {
    type Error = serde_json::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let root = serde_json::from_str(&text)?;
        Ok(Self { text, root })
    }
}

impl From<Base> for String {
    fn from(base: Base) -> Self {
        base.text
    }
}

impl Base {
    fn of(root: &RootFile) -> Self {
        Self {
            // It was parsed as JSON: it is UTF-8.
            text: String::from_utf8_lossy(&root.bytes).into_owned(),
            root: Signed {
                signed: root.signed.clone(),
                signatures: root.parse().map(|root| root.signatures).unwrap_or_default(),
            },
        }
    }
}

impl std::ops::Deref for Base {
    type Target = Signed<Root>;

    fn deref(&self) -> &Self::Target {
        &self.root
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "role", content = "proposed", rename_all = "lowercase")]
enum Proposed {
    Root(Signed<Root>),
    Targets(Signed<Targets>),
    Team(Box<OfTeam>),
}

/// Signatures that one set of keys still owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Whose: `root version 1`, `root version 2`, `targets`, a team's name.
    pub role: String,
    /// Good signatures that are there.
    pub have: u64,
    /// Signatures needed.
    pub needed: u64,
    /// Ids of the keys that have not signed.
    pub keys: Vec<String>,
}

/// What signing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// `root`, `targets` or `team`.
    pub role: &'static str,
    /// Its version.
    pub version: u64,
    /// SHA-256 of the root it builds on, to compare over the telephone.
    pub root_sha256: String,
    /// What it says, line by line.
    pub says: Vec<String>,
    /// Ids of the keys that signed now.
    pub signed_by: Vec<String>,
    /// What is missing; nothing when it is complete.
    pub missing: Vec<Missing>,
    /// Whether it is the root in force in the folder now.
    pub in_force: bool,
}

impl Proposal {
    /// `proposed`, which builds on `root`.
    pub(super) fn root(root: &RootFile, proposed: Root) -> Self {
        Self {
            format: 1,
            root: Base::of(root),
            proposed: Proposed::Root(Signed {
                signed: proposed,
                signatures: Vec::new(),
            }),
        }
    }

    /// Targets metadata under `root`, with the signatures that are there.
    pub(crate) fn targets(root: &RootFile, signed: Signed<Targets>) -> Self {
        Self {
            format: 1,
            root: Base::of(root),
            proposed: Proposed::Targets(signed),
        }
    }

    /// Metadata of a team under `root`, with the signatures that are there.
    pub(crate) fn of_team(root: &RootFile, proposed: OfTeam) -> Self {
        Self {
            format: 1,
            root: Base::of(root),
            proposed: Proposed::Team(Box::new(proposed)),
        }
    }

    /// The proposed version.
    pub fn version(&self) -> u64 {
        match &self.proposed {
            Proposed::Root(signed) => signed.signed.version.get(),
            Proposed::Targets(signed) => signed.signed.version.get(),
            Proposed::Team(of) => of.signed.signed.version.get(),
        }
    }

    /// The proposed root.
    pub(super) fn as_root(&self) -> Option<&Signed<Root>> {
        match &self.proposed {
            Proposed::Root(signed) => Some(signed),
            _ => None,
        }
    }

    /// The proposed targets metadata.
    pub(crate) fn as_targets(&self) -> Option<&Signed<Targets>> {
        match &self.proposed {
            Proposed::Targets(signed) => Some(signed),
            _ => None,
        }
    }

    /// The proposed metadata of a team.
    pub(crate) fn as_team(&self) -> Option<&OfTeam> {
        match &self.proposed {
            Proposed::Team(of) => Some(of),
            _ => None,
        }
    }

    /// The team whose metadata is proposed, if it is a team's.
    pub fn team(&self) -> Option<&str> {
        self.as_team().map(|of| of.team.as_str())
    }

    /// The proposal in the file `path`.
    ///
    /// # Errors
    /// [`ProposalError::Bad`], [`KeyError::Missing`].
    pub fn read(path: &Path) -> Result<Self, ProposalError> {
        let bad = |why: String| ProposalError::Bad {
            path: path.to_owned(),
            why,
        };
        let bytes = match pytheas_durable::read_at_most(path, MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyError::Missing {
                    path: path.to_owned(),
                    help: "name the file that `pytheas keys` or `pytheas publish --propose` wrote",
                }
                .into());
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(bad(error.to_string()));
            }
            other => other.map_err(KeyError::io(path))?,
        };
        let proposal: Self =
            serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if proposal.format != 1 {
            return Err(bad(format!(
                "it has format {}, this program knows format 1",
                proposal.format
            )));
        }
        let root = &proposal.root;
        root.signed
            .verify_role(&root.root)
            .map_err(|error| bad(format!("the root it builds on: {error}")))?;
        if let Proposed::Root(new) = &proposal.proposed
            && new.signed.version.get() != root.signed.version.get() + 1
        {
            return Err(bad(format!(
                "it proposes root version {} after version {}",
                new.signed.version, root.signed.version
            )));
        }
        if let Some(of) = proposal.as_team() {
            of.check(&root.signed).map_err(bad)?;
        }
        // One key that is listed twice must not count twice.
        let proposed = proposal.as_root().into_iter().flat_map(|new| {
            let roles = new.signed.roles.iter();
            roles.map(|(role, by)| (role.to_string(), by.clone()))
        });
        for (role, by) in proposal.wanted().into_iter().chain(proposed) {
            let mut ids: Vec<_> = by.keyids.iter().collect();
            ids.sort();
            ids.dedup();
            if ids.len() != by.keyids.len() {
                return Err(bad(format!("a key of {role} is listed twice")));
            }
        }
        proposal.check_signatures().map_err(bad)?;
        Ok(proposal)
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// [`KeyError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), ProposalError> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|error| SignError::Encode(Box::new(error)))?;
        bytes.push(b'\n');
        Ok(pytheas_durable::replace(path, &bytes).map_err(KeyError::io(path))?)
    }

    /// Where the root that waits in the folder `dir` lies.
    pub fn place(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// The root that waits in the folder `dir`, if it builds on `root`.
    pub(super) fn pending(dir: &Path, root: &RootFile) -> Result<Option<Self>, KeyError> {
        let path = Self::place(dir);
        if !path.exists() {
            return Ok(None);
        }
        match Self::read(&path) {
            Ok(proposal) => Ok(Some(proposal).filter(|proposal| {
                proposal.root.signed == root.signed && proposal.as_root().is_some()
            })),
            Err(ProposalError::Key(error)) => Err(error),
            Err(error) => Err(KeyError::BadRoot {
                path,
                why: error.to_string(),
            }),
        }
    }

    /// The sets of keys that must sign.
    fn wanted(&self) -> Vec<(String, RoleKeys)> {
        let root = |root: &Root| {
            let name = format!("root version {}", root.version);
            (name, sign::role_keys(root, RoleType::Root))
        };
        match &self.proposed {
            Proposed::Root(new) => {
                let (old, new) = (root(&self.root.signed), root(&new.signed));
                if old.1 == new.1 {
                    vec![new]
                } else {
                    vec![old, new]
                }
            }
            Proposed::Targets(_) => {
                let by = sign::role_keys(&self.root.signed, RoleType::Targets);
                vec![("targets".to_owned(), by)]
            }
            Proposed::Team(of) => of
                .by()
                .into_iter()
                .map(|by| (of.team.clone(), by))
                .collect(),
        }
    }

    fn message(&self) -> Result<Vec<u8>, SignError> {
        let form = match &self.proposed {
            Proposed::Root(signed) => signed.signed.canonical_form(),
            Proposed::Targets(signed) => signed.signed.canonical_form(),
            Proposed::Team(of) => of.signed.signed.canonical_form(),
        };
        form.map_err(|error| SignError::Encode(Box::new(error)))
    }

    fn signatures(&self) -> &[tough::schema::Signature] {
        match &self.proposed {
            Proposed::Root(signed) => &signed.signatures,
            Proposed::Targets(signed) => &signed.signatures,
            Proposed::Team(of) => &of.signed.signatures,
        }
    }

    fn check_signatures(&self) -> Result<(), String> {
        let message = self.message().map_err(|error| error.to_string())?;
        let mut keys = match self.as_team() {
            Some(of) => of.keys().into_iter().collect(),
            None => vec![&self.root.signed.keys],
        };
        keys.extend(self.as_root().map(|root| &root.signed.keys));
        for signature in self.signatures() {
            let id = &signature.keyid;
            let Some(key) = keys.iter().find_map(|keys| keys.get(id)) else {
                return Err(format!("a stranger's key {} signed it", public::hex(id)));
            };
            if !public::verify(key, &message, &signature.sig) {
                return Err(format!(
                    "it was changed after the key {} had signed it",
                    crate::client::short_key_id(id)
                ));
            }
        }
        Ok(())
    }

    /// What is missing; nothing when it is complete.
    pub fn missing(&self) -> Vec<Missing> {
        let signed = |id: &KeyId| self.signatures().iter().any(|s| s.keyid == *id);
        let mut all = Vec::new();
        for (role, by) in self.wanted() {
            let have = by.keyids.iter().filter(|id| signed(id)).count() as u64;
            let needed = by.threshold.get();
            if have < needed {
                let open = by.keyids.iter().filter(|id| !signed(id));
                let keys = open.map(|id| public::hex(id)).collect();
                all.push(Missing {
                    role,
                    have,
                    needed,
                    keys,
                });
            }
        }
        all
    }

    /// Signs with every key in `dir` that is asked for. The ids of the keys.
    pub(super) fn sign_here(
        &mut self,
        dir: &Path,
        passphrase: &Passphrase<'_>,
    ) -> Result<Vec<String>, ProposalError> {
        let mut ids: Vec<KeyId> = Vec::new();
        for (_, by) in self.wanted() {
            for id in by.keyids {
                if !ids.contains(&id) && !self.signatures().iter().any(|s| s.keyid == id) {
                    ids.push(id);
                }
            }
        }
        let role = self.role();
        let mut keys: Vec<SigningKey> = Vec::new();
        for found in folder::scan(dir)? {
            let may = match found.id() {
                Some(id) => ids.contains(&id),
                None => found.name() == role, // an old file that does not tell its public half
            };
            if may {
                keys.push(found.open(passphrase)?);
            }
        }
        match &mut self.proposed {
            Proposed::Root(signed) => sign::add_signatures(signed, &ids, &keys)?,
            Proposed::Targets(signed) => sign::add_signatures(signed, &ids, &keys)?,
            Proposed::Team(of) => sign::add_signatures(&mut of.signed, &ids, &keys)?,
        };
        let used = keys
            .iter()
            .map(SigningKey::id)
            .filter(|id| ids.contains(id));
        Ok(used.map(|id| public::hex(&id)).collect())
    }

    /// `root`, `targets` or `team`.
    pub fn role(&self) -> &'static str {
        match &self.proposed {
            Proposed::Root(_) => "root",
            Proposed::Targets(_) => "targets",
            Proposed::Team(_) => "team",
        }
    }

    /// Puts the root into force in `dir` if it is complete and builds on the one there.
    pub(super) fn enforce(&self, dir: &Path) -> Result<bool, ProposalError> {
        let Some(new) = self.as_root() else {
            return Ok(false);
        };
        if !self.missing().is_empty() || !dir.join(ROOT_JSON).exists() {
            return Ok(false);
        }
        let here = RootFile::load(dir)?;
        if here.signed == new.signed {
            return Ok(true);
        }
        if here.signed != self.root.signed {
            return Ok(false);
        }
        let file = sign::SignedFile::of(new.clone())?;
        let root = RootFile {
            bytes: file.bytes,
            signed: new.signed.clone(),
        };
        root.follows(&here).map_err(|why| ProposalError::Bad {
            path: Self::place(dir),
            why,
        })?;
        // The root that is left behind stays readable by its number.
        let old = super::numbered(dir, here.signed.version.get());
        if !old.exists() {
            pytheas_durable::replace(&old, &here.bytes).map_err(KeyError::io(&old))?;
        }
        super::store_root(dir, root.signed.version.get(), &root.bytes)?;
        match fs::remove_file(Self::place(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(KeyError::io(&Self::place(dir))(error).into())
            }
            _ => Ok(true),
        }
    }

    /// What it says, for whoever signs it.
    fn says(&self) -> Vec<String> {
        let of_targets = |new: &Targets| {
            let mut names: Vec<_> = new.targets.keys().map(|name| name.raw()).collect();
            names.sort_unstable();
            let mut lines = vec![format!("expires {}", new.expires)];
            lines.extend(names.into_iter().map(|name| format!("lists {name}")));
            let roles = new.delegations.iter().flat_map(|all| &all.roles);
            lines.extend(roles.map(|role| format!("delegates to {}", role.name)));
            lines
        };
        match &self.proposed {
            Proposed::Root(new) => super::change::differences(&self.root.signed, &new.signed),
            Proposed::Targets(new) => of_targets(&new.signed),
            Proposed::Team(of) => {
                let mut lines = vec![format!("of the team {}", of.team)];
                lines.extend(of_targets(&of.signed.signed));
                lines
            }
        }
    }
}

/// Signs the proposal in the file `path` with the keys in `dir`, writes it back, and puts a
/// complete root into force there. A complete one without anything to sign is a success.
///
/// # Errors
/// [`ProposalError`]; the file is as it was then.
pub fn sign_file(
    path: &Path,
    dir: &Path,
    passphrase: &Passphrase<'_>,
) -> Result<Signing, ProposalError> {
    let mut proposal = Proposal::read(path)?;
    // A folder that cannot be written is not changed: no lock is needed.
    let _lock = super::root::lock(dir).ok();
    if dir.join(ROOT_JSON).exists() {
        let here = RootFile::load(dir)?;
        let (on, mine) = (&proposal.root.signed, &here.signed);
        let done = proposal.as_root().is_some_and(|new| new.signed == *mine);
        if !done && mine != on {
            if mine.version > on.version {
                return Err(ProposalError::Stale {
                    path: path.to_owned(),
                    on: on.version.get(),
                    here: mine.version.get(),
                });
            }
            if mine.version == on.version || mine.verify_role(&proposal.root.root).is_err() {
                return Err(ProposalError::Foreign {
                    path: path.to_owned(),
                    dir: dir.to_owned(),
                });
            }
        }
    }
    let signed_by = proposal.sign_here(dir, passphrase)?;
    let missing = proposal.missing();
    if signed_by.is_empty() && !missing.is_empty() {
        let wanted: Vec<_> = missing
            .iter()
            .flat_map(|m| &m.keys)
            .map(|id| &id[..12])
            .collect();
        return Err(ProposalError::NoKey {
            path: path.to_owned(),
            dir: dir.to_owned(),
            wanted: wanted.join(", "),
        });
    }
    if !signed_by.is_empty() {
        proposal.write(path)?;
    }
    let in_force = proposal.enforce(dir)?;
    Ok(Signing {
        role: proposal.role(),
        version: proposal.version(),
        root_sha256: pytheas_release::Sha256::of(proposal.root.text.as_bytes()).to_string(),
        says: proposal.says(),
        signed_by,
        missing,
        in_force,
    })
}
