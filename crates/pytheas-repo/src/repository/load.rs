//! Reading the metadata of a store, every signature, hash and version checked from a root on
//! (TUF 1.0.33 §5.3 to §5.6). Expiry is the caller's: whoever holds keys may sign again.
//!
//! A team whose metadata its present keys did not sign has no releases until it publishes again;
//! that must not lock the others out.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use tough::schema::{Metafile, Role, Root, Signed, Snapshot, Targets, Timestamp};

use super::RepositoryError;
use crate::{
    client::ROOT_MAX,
    layout,
    store::{Seen, Store},
};

/// Longest metadata file that is read, in bytes.
pub(crate) const METADATA_MAX: u64 = 64 << 20;

/// Why metadata is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It is not there.
    #[error("`{0}` is missing")]
    Missing(String),
    /// It is not what other metadata says, or no metadata.
    #[error("`{file}`: {why}")]
    Wrong {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The signatures.
    #[error("`{file}` is not signed as it must be")]
    Signatures {
        /// The file.
        file: String,
        /// What `tough` says.
        source: tough::schema::Error,
    },
}

/// Verified metadata of one moment.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) root: Signed<Root>,
    pub(crate) targets: Signed<Targets>,
    /// Metadata of the teams, by name.
    pub(crate) teams: BTreeMap<String, Signed<Targets>>,
    /// What the snapshot lists.
    pub(crate) meta: HashMap<String, Metafile>,
    /// Those the metadata was found by; none when it was recovered without them.
    pub(crate) online: Option<(Signed<Snapshot>, Signed<Timestamp>)>,
    /// Versions of snapshot and timestamp that are taken.
    pub(crate) taken: (u64, u64),
}

/// Reads files of one store.
pub(crate) struct Reader<'s>(pub(crate) &'s Store);

impl Reader<'_> {
    fn untrusted(&self, source: Untrusted) -> RepositoryError {
        RepositoryError::Unverified {
            store: self.0.to_string(),
            source: Box::new(source),
        }
    }

    fn wrong(&self, file: &str, why: impl ToString) -> RepositoryError {
        self.untrusted(Untrusted::Wrong {
            file: file.to_owned(),
            why: why.to_string(),
        })
    }

    fn signatures(
        &self,
        file: &str,
    ) -> impl FnOnce(tough::schema::Error) -> RepositoryError + use<> {
        let (store, file) = (self.0.to_string(), file.to_owned());
        move |source| RepositoryError::Unverified {
            store,
            source: Box::new(Untrusted::Signatures { file, source }),
        }
    }

    pub(crate) async fn bytes(&self, file: &str) -> Result<bytes::Bytes, RepositoryError> {
        let bytes = self.0.get(file, METADATA_MAX).await?;
        bytes.ok_or_else(|| self.untrusted(Untrusted::Missing(file.to_owned())))
    }

    fn parse<T: DeserializeOwned>(&self, file: &str, bytes: &[u8]) -> Result<T, RepositoryError> {
        serde_json::from_slice(bytes).map_err(|error| self.wrong(file, error))
    }

    /// The newest root that `trusted` leads to.
    pub(crate) async fn root(&self, trusted: &[u8]) -> Result<Signed<Root>, RepositoryError> {
        let mut root: Signed<Root> = self.parse("root.json", trusted)?;
        root.signed
            .verify_role(&root)
            .map_err(self.signatures("root.json"))?;
        loop {
            let next = root.signed.version.get().saturating_add(1);
            let file = layout::root(next);
            let Some(bytes) = self.0.get(&file, ROOT_MAX).await? else {
                return Ok(root);
            };
            let newer: Signed<Root> = self.parse(&file, &bytes)?;
            for by in [&root.signed, &newer.signed] {
                by.verify_role(&newer).map_err(self.signatures(&file))?;
            }
            if newer.signed.version.get() != next {
                return Err(self.wrong(&file, format!("it has version {}", newer.signed.version)));
            }
            root = newer;
        }
    }

    /// The file of `role`, as `meta` describes it.
    async fn listed<T: Role + DeserializeOwned>(
        &self,
        role: &str,
        meta: &Metafile,
    ) -> Result<Signed<T>, RepositoryError> {
        let file = layout::role(role, Some(meta.version.get()));
        let bytes = self.bytes(&file).await?;
        let sha256 = pytheas_release::Sha256::of(&bytes);
        if meta
            .length
            .is_some_and(|length| length != bytes.len() as u64)
            || meta
                .hashes
                .as_ref()
                .is_some_and(|hashes| hashes.sha256[..] != sha256.as_bytes()[..])
        {
            return Err(self.wrong(&file, "it is not the file that was signed for"));
        }
        let signed: Signed<T> = self.parse(&file, &bytes)?;
        if signed.signed.version() != meta.version {
            return Err(self.wrong(&file, format!("it has version {}", signed.signed.version())));
        }
        Ok(signed)
    }

    /// Everything, from `trusted_root` on; `timestamp` is the file as it was seen.
    pub(crate) async fn all(
        &self,
        trusted_root: &[u8],
        timestamp: &Seen,
    ) -> Result<Metadata, RepositoryError> {
        let root = self.root(trusted_root).await?;
        let file = layout::TIMESTAMP;
        let timestamp: Signed<Timestamp> = self.parse(file, &timestamp.bytes)?;
        root.signed
            .verify_role(&timestamp)
            .map_err(self.signatures(file))?;
        let of = |meta: &HashMap<String, Metafile>, name: &str| {
            let listed = meta.get(name).cloned();
            listed.ok_or_else(|| self.wrong(name, "it is not listed"))
        };
        let meta = of(&timestamp.signed.meta, "snapshot.json")?;
        let snapshot: Signed<Snapshot> = self.listed("snapshot", &meta).await?;
        root.signed
            .verify_role(&snapshot)
            .map_err(self.signatures("snapshot.json"))?;
        let meta = of(&snapshot.signed.meta, "targets.json")?;
        let targets: Signed<Targets> = self.listed("targets", &meta).await?;
        root.signed
            .verify_role(&targets)
            .map_err(self.signatures("targets.json"))?;
        let mut teams = BTreeMap::new();
        if let Some(delegations) = &targets.signed.delegations {
            for role in &delegations.roles {
                let Some(meta) = snapshot.signed.meta.get(&format!("{}.json", role.name)) else {
                    continue; // delegated, but nothing was published yet
                };
                let team: Signed<Targets> = self.listed(&role.name, meta).await?;
                match delegations.verify_role(&team, &role.name) {
                    Ok(()) => drop(teams.insert(role.name.clone(), team)),
                    Err(error) => {
                        let team = &role.name;
                        tracing::warn!(team, "the releases of `{team}` are left out: {error}");
                    }
                }
            }
        }
        Ok(Metadata {
            taken: (
                snapshot.signed.version.get(),
                timestamp.signed.version.get(),
            ),
            meta: snapshot.signed.meta.clone(),
            root,
            targets,
            teams,
            online: Some((snapshot, timestamp)),
        })
    }
}
