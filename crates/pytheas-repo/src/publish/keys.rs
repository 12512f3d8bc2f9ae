//! What the holder of keys does to a repository besides publishing releases: new roots put in
//! place, metadata signed again after a theft, teams given and taken the right to sign.
//!
//! Recovery (TUF §6.1, fast-forward attacks): when snapshot and timestamp do not verify under the
//! root in force, because its online keys are new, they are not believed at all. The newest targets
//! metadata that keys of ours signed is found by its number, and new snapshot and timestamp are
//! written on top of it. Their versions go on from those the thief signed; devices forget the old
//! ones when they see the new keys.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use jiff::Timestamp;
use tough::{
    TargetName,
    schema::{Metafile, RoleType, Signed, Snapshot, Targets},
};

use super::{
    Events, Options, PublishError, Reached,
    commit::{Batch, Written, propose, put_roots},
    turns,
};
use crate::{
    base::{Base, TIMESTAMP_MAX},
    delegations::{self, Delegate, Team},
    keys::{
        PublisherKeys, RootFile,
        proposal::{OfTeam, Proposal},
    },
    layout,
    repository::{
        Repository, RepositoryError,
        load::{METADATA_MAX, Metadata},
    },
    sign::{self, SignError, SignedFile},
    store::{Store, StoreError},
};

/// Versions above this are no counters but an attack: they are not gone on from.
const SANE: u64 = 1 << 48;
/// How many files that nobody of ours signed are looked past.
const JUNK: u64 = 256;

/// What to do besides putting roots in place.
#[derive(Debug, Clone, Default)]
pub struct Refresh {
    /// Targets that are left out of the targets metadata from now on.
    pub drop: Vec<String>,
    /// Complete targets metadata that waits to be put in force.
    pub proposal: Option<Proposal>,
}

/// What was put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// Version of the root in force.
    pub root: u64,
    /// Version of the targets metadata, if it was signed again.
    pub targets: Option<u64>,
    /// Snapshot, timestamp and when that expires; none without online keys or releases.
    pub online: Option<(u64, u64, Timestamp)>,
    /// Whether snapshot and timestamp were not believed.
    pub recovered: bool,
    /// The releases that devices can get.
    pub releases: Vec<String>,
    /// How far it came.
    pub reached: Reached,
}

/// Puts the roots of `keys` into `store`, and signs anew what the newest one demands.
///
/// # Errors
/// [`PublishError`].
pub async fn publish_keys(
    store: &Store,
    keys: &PublisherKeys,
    refresh: &Refresh,
    options: &Options,
    events: &Events,
) -> Result<Fresh, PublishError> {
    let expired = keys.root.signed.expires;
    if expired <= options.now {
        let now = options.now;
        return Err(PublishError::RootExpired { expired, now });
    }
    turns::in_turn(store, async || {
        publish_keys_once(store, keys, refresh, options, events).await
    })
    .await
}

async fn publish_keys_once(
    store: &Store,
    keys: &PublisherKeys,
    refresh: &Refresh,
    options: &Options,
    events: &Events,
) -> Result<Fresh, PublishError> {
    put_roots(store, keys, events).await?;
    let (base, recovered) = match Base::load(store, &keys.root).await {
        Ok(base) => {
            base.require_clock(options.now)?;
            (base, false)
        }
        Err(RepositoryError::Unverified { .. }) => (recover(store, keys).await?, true),
        Err(error) => return Err(error.into()),
    };
    let root = keys.root.signed.version.get();
    let mut fresh = Fresh {
        root,
        targets: None,
        online: None,
        recovered,
        releases: Vec::new(),
        reached: Reached::Devices,
    };
    let Some(repository) = &base.repository else {
        return Ok(fresh);
    };
    let there = repository.root().version.get();
    if there > root {
        return Err(PublishError::StaleRoot {
            store: store.to_string(),
            there,
            dir: keys.dir.clone(),
            here: root,
        });
    }
    let names = repository
        .releases()
        .into_iter()
        .map(|listed| listed.target);
    fresh.releases = names.filter(|name| !refresh.drop.contains(name)).collect();

    let mut roles = Vec::new();
    if let Some(proposal) = &refresh.proposal
        && let Some(of_team) = proposal.as_team()
    {
        let file = team_file(&base, proposal, of_team, options).await?;
        let names = of_team.signed.signed.targets.keys();
        fresh
            .releases
            .extend(names.map(|name| name.raw().to_owned()));
        fresh.releases.sort();
        fresh.releases.dedup();
        if keys.online.is_none() {
            // Whoever has the online keys puts it into a snapshot, as after any team's publish.
            let path = layout::role(&of_team.team, Some(proposal.version()));
            store.create(&path, Bytes::from(file.bytes)).await?;
            fresh.reached = Reached::Uploaded;
            return Ok(fresh);
        }
        roles.push((of_team.team.clone(), file));
    } else if let Some(file) = new_targets(&base, keys, refresh, options, &mut fresh).await? {
        fresh.targets = Some(file.signed.signed.version.get());
        roles.push(("targets".to_owned(), file));
    }
    let (Some(online), Reached::Devices) = (&keys.online, &fresh.reached) else {
        return Ok(fresh);
    };
    let batch = Batch {
        root: &keys.root.signed,
        roles,
        validity: &options.validity,
        now: options.now,
    };
    for (_, team, _) in base.uploaded(options.now).await? {
        let names = team.signed.targets.keys();
        fresh
            .releases
            .extend(names.map(|name| name.raw().to_owned()));
    }
    fresh.releases.sort();
    fresh.releases.dedup();
    let written: Written = base.write(online, batch, events).await?;
    fresh.online = Some((written.snapshot, written.timestamp, written.expires));
    Ok(fresh)
}

/// What a team proposed, complete, by the keys that the repository demands now.
async fn team_file(
    base: &Base,
    proposal: &Proposal,
    of_team: &OfTeam,
    options: &Options,
) -> Result<SignedFile<Targets>, PublishError> {
    let (now, valid) = (options.now, options.validity.targets);
    let (next, delegator, role) = base.next_of_team(&of_team.team, now, valid).await?;
    let lacks = |lacks| PublishError::Unsigned { lacks };
    if let Some(missing) = proposal.missing().first() {
        return Err(lacks(missing.needed - missing.have));
    }
    let (proposed, next) = (proposal.version(), next.version.get());
    if proposed != next {
        return Err(PublishError::StaleProposal { proposed, next });
    }
    // The delegation may be another one than when it was proposed.
    let all = delegator.signed.delegations.as_ref();
    let signed = &of_team.signed;
    let fits = all.is_some_and(|all| all.verify_role(signed, &of_team.team).is_ok());
    let names = signed.signed.targets.keys();
    if !fits
        || !names
            .into_iter()
            .all(|name| delegations::covers(&role.paths, name.raw()))
    {
        return Err(lacks(role.threshold.get()));
    }
    Ok(SignedFile::of(signed.clone())?)
}

/// The targets metadata that has to be signed again, if any.
async fn new_targets(
    base: &Base,
    keys: &PublisherKeys,
    refresh: &Refresh,
    options: &Options,
    fresh: &mut Fresh,
) -> Result<Option<SignedFile<Targets>>, PublishError> {
    let Some(repository) = &base.repository else {
        return Ok(None);
    };
    let root = &keys.root.signed;
    let old = &repository.metadata().targets;
    let valid = options.validity.targets;
    let mut targets = base.next_targets(options.now, valid).await?;
    if let Some(proposed) = refresh.proposal.as_ref().and_then(Proposal::as_targets) {
        let lacks = |lacks| PublishError::Unsigned { lacks };
        if let Some(missing) = refresh.proposal.iter().flat_map(Proposal::missing).next() {
            return Err(lacks(missing.needed - missing.have));
        }
        root.verify_role(proposed).map_err(|_| lacks(1))?;
        let (version, next) = (proposed.signed.version.get(), targets.version.get());
        if version != next {
            return Err(PublishError::StaleProposal {
                proposed: version,
                next,
            });
        }
        let releases = proposed.signed.targets.keys();
        fresh.releases = releases.map(|name| name.raw().to_owned()).collect();
        fresh.releases.sort();
        return Ok(Some(SignedFile::of(proposed.clone())?));
    }
    for name in &refresh.drop {
        let dropped = TargetName::new(name.as_str())
            .ok()
            .and_then(|name| targets.targets.remove(&name));
        if dropped.is_none() {
            let mut have: Vec<_> = old.signed.targets.keys().map(|n| n.raw()).collect();
            have.sort_unstable();
            return Err(PublishError::NoRelease {
                target: name.clone(),
                have: format!("the targets role lists {}", have.join(", ")),
            });
        }
    }
    let by = sign::role_keys(root, RoleType::Targets);
    let foreign = root.verify_role(old).is_err();
    let aged = old.signed.expires.duration_since(options.now) <= valid / 2
        && keys.signers.len() as u64 >= by.threshold.get();
    if !foreign && !aged && refresh.drop.is_empty() {
        return Ok(None);
    }
    match (
        sign::sign(targets.clone(), "targets", &by, &keys.signers),
        &options.propose,
    ) {
        (Err(SignError::TooFew { .. }), Some(path)) => {
            propose(targets, keys, path)?;
            fresh.reached = Reached::Proposed(path.clone());
            Ok(None)
        }
        (signed, _) => Ok(Some(signed?)),
    }
}

/// The repository, found without its snapshot and timestamp.
async fn recover(store: &Store, keys: &PublisherKeys) -> Result<Base, PublishError> {
    let timestamp = store.look(layout::TIMESTAMP, TIMESTAMP_MAX).await?;
    let claims = timestamp
        .as_ref()
        .and_then(|seen| {
            serde_json::from_slice::<Signed<tough::schema::Timestamp>>(&seen.bytes).ok()
        })
        .map(|timestamp| timestamp.signed);
    let sane = |version: u64| if version < SANE { version } else { 0 };
    let of_snapshot = claims.as_ref().and_then(|t| t.meta.get("snapshot.json"));
    let taken = (
        sane(of_snapshot.map_or(0, |meta| meta.version.get())),
        sane(claims.as_ref().map_or(0, |t| t.version.get())),
    );
    let roots = keys.root.versions(&keys.dir)?;
    let signed_by_us = |signed: &Signed<Targets>| {
        roots
            .iter()
            .rev()
            .any(|r| r.signed.verify_role(signed).is_ok())
    };
    let Some((targets, described)) = newest(store, "targets", signed_by_us).await? else {
        return Err(PublishError::NothingGood {
            store: store.to_string(),
        });
    };
    // A snapshot that an older root of ours vouches for also knows teams that were removed.
    let mut meta = match of_snapshot {
        Some(meta) => known(store, &roots, meta.version.get()).await?,
        None => HashMap::new(),
    };
    meta.insert("targets.json".to_owned(), described);
    let mut teams = BTreeMap::new();
    if let Some(all) = &targets.signed.delegations {
        for role in &all.roles {
            let fits = |signed: &Signed<Targets>| all.verify_role(signed, &role.name).is_ok();
            let key = format!("{}.json", role.name);
            match newest(store, &role.name, fits).await? {
                Some((team, described)) => {
                    meta.insert(key, described);
                    teams.insert(role.name.clone(), team);
                }
                None => drop(meta.remove(&key)),
            }
        }
    }
    let root = keys.root.parse().map_err(|_| PublishError::NothingGood {
        store: store.to_string(),
    })?;
    let metadata = Metadata {
        root,
        targets,
        teams,
        meta,
        online: None,
        taken,
    };
    Ok(Base {
        store: store.clone(),
        repository: Some(Repository::of(store, metadata)),
        timestamp,
    })
}

/// What the snapshot `version` lists, as far as the files are there: it may be a thief's.
async fn known(
    store: &Store,
    roots: &[RootFile],
    version: u64,
) -> Result<HashMap<String, Metafile>, StoreError> {
    let bytes = store.get(&layout::snapshot(version), METADATA_MAX).await?;
    let signed = bytes.and_then(|bytes| serde_json::from_slice::<Signed<Snapshot>>(&bytes).ok());
    let Some(snapshot) = signed.filter(|snapshot| {
        roots
            .iter()
            .any(|root| root.signed.verify_role(snapshot).is_ok())
    }) else {
        return Ok(HashMap::new());
    };
    let mut meta = HashMap::new();
    for (name, listed) in snapshot.signed.meta {
        let role = name.trim_end_matches(".json").to_owned();
        let file = layout::role(&role, Some(listed.version.get()));
        if store.size_bytes(&file).await?.is_some() {
            meta.insert(name, listed);
        }
    }
    Ok(meta)
}

/// The newest metadata of `role` in `store` that `fits`. Versions have no gaps, so the last one is
/// found by doubling and halving.
async fn newest(
    store: &Store,
    role: &str,
    fits: impl Fn(&Signed<Targets>) -> bool,
) -> Result<Option<(Signed<Targets>, Metafile)>, StoreError> {
    let (mut there, mut step) = (0_u64, 1_u64);
    while step > 0 {
        let file = layout::role(role, Some(there + step));
        if store.size_bytes(&file).await?.is_some() {
            there += step;
            step *= 2;
        } else {
            step /= 2;
        }
    }
    for version in (there.saturating_sub(JUNK)..=there)
        .rev()
        .filter(|v| *v > 0)
    {
        let file = layout::role(role, Some(version));
        let Some(bytes) = store.get(&file, METADATA_MAX).await? else {
            continue;
        };
        let Ok(signed) = serde_json::from_slice::<Signed<Targets>>(&bytes) else {
            continue;
        };
        if signed.signed.version.get() == version && fits(&signed) {
            let described = SignedFile {
                signed: signed.clone(),
                bytes: bytes.to_vec(),
            };
            return Ok(Some((signed, described.described())));
        }
    }
    Ok(None)
}

/// Changes who may sign what. What is new, line by line.
///
/// # Errors
/// [`PublishError`]; the repository is as it was then.
pub async fn delegate(
    store: &Store,
    keys: &PublisherKeys,
    change: &Delegate,
    options: &Options,
    events: &Events,
) -> Result<(Vec<String>, Reached), PublishError> {
    let expired = keys.root.signed.expires;
    if expired <= options.now {
        let now = options.now;
        return Err(PublishError::RootExpired { expired, now });
    }
    turns::in_turn(store, async || {
        delegate_once(store, keys, change, options, events).await
    })
    .await
}

async fn delegate_once(
    store: &Store,
    keys: &PublisherKeys,
    change: &Delegate,
    options: &Options,
    events: &Events,
) -> Result<(Vec<String>, Reached), PublishError> {
    let base = Base::load(store, &keys.root).await?;
    base.require_clock(options.now)?;
    let root = base.root(&keys.root);
    let valid = options.validity.targets;
    let mut targets = base.next_targets(options.now, valid).await?;
    let says = delegations::apply(&mut targets, change)?;
    put_roots(store, keys, events).await?;
    let by = sign::role_keys(root, RoleType::Targets);
    let file = match (
        sign::sign(targets.clone(), "targets", &by, &keys.signers),
        &options.propose,
    ) {
        (Err(SignError::TooFew { .. }), Some(path)) => {
            propose(targets, keys, path)?;
            return Ok((says, Reached::Proposed(path.clone())));
        }
        (signed, _) => signed?,
    };
    let batch = Batch {
        root,
        roles: vec![("targets".to_owned(), file)],
        validity: &options.validity,
        now: options.now,
    };
    base.write(keys.online()?, batch, events).await?;
    Ok((says, Reached::Devices))
}

/// One role of a repository: its version and when it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleState {
    /// `root`, `targets`, `snapshot`, `timestamp`, or a team.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: Timestamp,
    /// Whole days until then; negative when it has expired.
    pub days_left: i64,
}

/// The roles of the repository in `store` and its teams.
///
/// # Errors
/// [`RepositoryError`].
pub async fn roles(
    store: &Store,
    root: &RootFile,
    now: Timestamp,
) -> Result<(Vec<RoleState>, Vec<Team>), RepositoryError> {
    let base = Base::load(store, root).await?;
    let Some(repository) = &base.repository else {
        return Err(RepositoryError::Empty {
            store: store.to_string(),
        });
    };
    let metadata = repository.metadata();
    let state = |role: &str, version: u64, expires: Timestamp| RoleState {
        role: role.to_owned(),
        version,
        expires,
        days_left: crate::keys::days_left(expires, now),
    };
    let (root, targets) = (&metadata.root.signed, &metadata.targets.signed);
    let mut all = vec![
        state("root", root.version.get(), root.expires),
        state("targets", targets.version.get(), targets.expires),
    ];
    if let Some((snapshot, timestamp)) = &metadata.online {
        let (snapshot, timestamp) = (&snapshot.signed, &timestamp.signed);
        all.push(state("snapshot", snapshot.version.get(), snapshot.expires));
        all.push(state(
            "timestamp",
            timestamp.version.get(),
            timestamp.expires,
        ));
    }
    for (team, signed) in &metadata.teams {
        all.push(state(
            team,
            signed.signed.version.get(),
            signed.signed.expires,
        ));
    }
    Ok((all, delegations::teams(targets)))
}
