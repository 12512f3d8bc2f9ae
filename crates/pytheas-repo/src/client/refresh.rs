//! Bringing the trusted metadata up to date: TUF 1.0.33, §5.1 to §5.6, step by step.
//!
//! Delegated roles (§5.6.7) are asked when a target is looked for: [`super::search`].

use std::collections::HashMap;

use jiff::Timestamp as Time;
use pytheas_release::Sha256;
use tracing::debug;

use super::{
    Client,
    keys::Keys,
    metadata::{Envelope, MetadataError, check_expiry},
    pin::Pin,
    schema::{Metafile, Role, Root, Snapshot, Targets, Timestamp},
    trusted::Stored,
};
use crate::{
    fetch::{Fetch, fetch_if_any, fetch_some},
    layout,
};

/// What [`Client::refresh`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Version of the trusted root metadata.
    pub root: u64,
    /// Version of the trusted timestamp metadata.
    pub timestamp: u64,
    /// Version of the trusted snapshot metadata.
    pub snapshot: u64,
    /// Version of the trusted targets metadata.
    pub targets: u64,
    /// Whether the targets are other ones than before.
    pub changed: bool,
    /// The time that expiries were compared with: `now`, or later when the clock is known to be
    /// behind.
    pub time_used: Time,
}

impl Client<'_> {
    /// Brings the trusted metadata up to date with the repository.
    ///
    /// `now` is the device's clock. A board without a battery wakes up in 1970, and old metadata
    /// would look fresh to it: the timestamp metadata of a Pytheas repository says when it was
    /// signed, and a clock that is behind that time is not believed; the later of the two counts.
    /// A clock that is ahead is believed (and finds everything expired).
    ///
    /// May be cut off at any moment and repeated.
    ///
    /// # Errors
    /// [`MetadataError`], naming the file. What was trusted before is still trusted then, except
    /// for roles that were checked and kept before the failing one.
    pub fn refresh(&mut self, now: Time) -> Result<Refreshed, MetadataError> {
        // 5.2 The trusted root was loaded (and checked) when the client was opened.
        self.update_root()?;
        // 5.1 One fixed time for the whole cycle. Off-spec: raised to the time when timestamp
        // metadata was signed, see above, and fixed only here: what §5.3.11 made us forget does
        // not count.
        let mut start = now.max(self.trusted.clock_floor().unwrap_or(now));
        // 5.3.10 The newest root must not have expired: neither by what is known of the time now,
        // nor by what a new timestamp says of it.
        self.check_root_expiry(start)?;
        self.update_timestamp(&mut start)?;
        self.check_root_expiry(start)?;
        let snapshot = self.update_snapshot(start)?;
        let before = self
            .trusted
            .targets
            .as_ref()
            .map(|targets| Sha256::of(&targets.bytes));
        let targets = self.update_targets(start)?;
        let after = self
            .trusted
            .targets
            .as_ref()
            .map(|targets| Sha256::of(&targets.bytes));
        self.time = Some(start);
        let timestamp = self.trusted.timestamp.as_ref();
        let refreshed = Refreshed {
            root: self.trusted.root.signed.version(),
            timestamp: timestamp.map_or(0, |stored| stored.signed.version()),
            snapshot,
            targets,
            changed: before != after,
            time_used: start,
        };
        debug!(?refreshed, "trusted metadata is up to date");
        Ok(refreshed)
    }

    /// 5.3 Update the root role.
    fn update_root(&mut self) -> Result<(), MetadataError> {
        for _ in 0..self.limits.root_updates {
            // 5.3.2 N is the version of the trusted root.
            let trusted = &self.trusted.root.signed;
            let next = trusted.version().saturating_add(1);
            // 5.3.3 Ask for version N+1, of bounded length; without one, N is the newest.
            let file = layout::root(next);
            let Some(bytes) = fetch_if_any(self.fetch, &file, self.limits.root)? else {
                break;
            };
            // 5.3.4 Enough keys of version N and enough of N+1 itself must have signed it.
            let envelope = Envelope::read(&file, &bytes)?;
            envelope.judge(Root::NAME, trusted.keys(Root::NAME))?;
            let signed: Root = envelope.open()?;
            envelope.judge(Root::NAME, signed.keys(Root::NAME))?;
            // 5.3.5 It must be N+1 exactly.
            is_version(&file, "its name", next, signed.version())?;
            // 5.3.6 Whether it has expired does not matter as long as there may be a newer one.
            // 5.3.7, 5.3.8 Trust it and keep it. 5.3.11 is done there, too.
            self.trusted
                .keep_root(&self.metadata_dir, Stored { bytes, signed })?;
            // 5.3.9 Again.
        }
        // 5.3.12 Consistent snapshots are looked up in the root where names are made.
        Ok(())
    }

    fn check_root_expiry(&self, now: Time) -> Result<(), MetadataError> {
        let root = &self.trusted.root.signed;
        check_expiry(root, Root::NAME, &layout::root(root.version()), now)
    }

    /// 5.4 Update the timestamp role.
    fn update_timestamp(&mut self, start: &mut Time) -> Result<(), MetadataError> {
        let file = layout::TIMESTAMP;
        // 5.4.1 Its length is unknown, so bounded.
        let bytes = fetch_some(self.fetch, file, self.limits.timestamp)?;
        // 5.4.2 Enough keys must have signed it.
        let envelope = Envelope::read(file, &bytes)?;
        let root = &self.trusted.root.signed;
        envelope.judge(Timestamp::NAME, root.keys(Timestamp::NAME))?;
        let signed: Timestamp = envelope.open()?;
        let new_snapshot = listed(&signed.meta, Snapshot::NAME, file)?.version.get();
        if let Some(time) = signed.signed_at() {
            *start = time.max(*start);
        }
        if let Some(old) = &self.trusted.timestamp {
            let (trusted, offered) = (old.signed.version(), signed.version());
            // 5.4.3.1 Its version must not go back.
            if offered < trusted {
                return Err(older(file, Timestamp::NAME, trusted, offered));
            }
            // The same version is no news. Off-spec: the cycle is not ended here, because a power
            // cut may have ended the last one before the snapshot was kept.
            if offered == trusted {
                return check_expiry(&old.signed, Timestamp::NAME, file, *start);
            }
            // 5.4.3.2 Nor may the snapshot's version in it.
            let old_snapshot = listed(&old.signed.meta, Snapshot::NAME, file)?
                .version
                .get();
            if new_snapshot < old_snapshot {
                return Err(older(file, Snapshot::NAME, old_snapshot, new_snapshot));
            }
        }
        // 5.4.4 It must not have expired.
        check_expiry(&signed, Timestamp::NAME, file, *start)?;
        // 5.4.5 Keep it.
        self.trusted
            .keep_timestamp(&self.metadata_dir, Stored { bytes, signed })
    }

    /// 5.5 Update the snapshot role.
    fn update_snapshot(&mut self, start: Time) -> Result<u64, MetadataError> {
        let Some(timestamp) = &self.trusted.timestamp else {
            return Err(not_listed(layout::TIMESTAMP, "snapshot.json"));
        };
        let meta = listed(&timestamp.signed.meta, Snapshot::NAME, layout::TIMESTAMP)?;
        let root = &self.trusted.root.signed;
        let promise = Promise::new(root, Snapshot::NAME, meta, layout::TIMESTAMP)?;
        let old = self.trusted.snapshot.as_ref();
        if let Some(old) = old.filter(|old| promise.is_kept_by(old)) {
            check_expiry(&old.signed, Snapshot::NAME, &promise.file, start)?;
            return Ok(promise.version); // nothing new
        }
        // 5.5.1 to 5.5.4
        let keys = root.keys(Snapshot::NAME);
        let fetched = promise.fetch(self.fetch, self.limits.snapshot, keys)?;
        let (file, signed): (_, &Snapshot) = (&promise.file, &fetched.signed);
        listed(&signed.meta, Targets::NAME, file)?;
        // 5.5.5 No role it lists may go back or vanish. (The trusted snapshot's own expiry does
        // not matter here.)
        for (name, old_meta) in old.iter().flat_map(|old| &old.signed.meta) {
            let role = name.strip_suffix(".json").unwrap_or(name);
            let (trusted, offered) = (old_meta.version, listed(&signed.meta, role, file)?.version);
            if offered < trusted {
                return Err(older(file, role, trusted.get(), offered.get()));
            }
        }
        // 5.5.6 It must not have expired.
        check_expiry(signed, Snapshot::NAME, file, start)?;
        // 5.5.7 Keep it.
        self.trusted.keep_snapshot(&self.metadata_dir, fetched)?;
        Ok(promise.version)
    }

    /// 5.6 Update the targets role.
    fn update_targets(&mut self, start: Time) -> Result<u64, MetadataError> {
        let promise = self.promised(Targets::NAME)?;
        let old = self.trusted.targets.as_ref();
        if let Some(old) = old.filter(|old| promise.is_kept_by(old)) {
            check_expiry(&old.signed, Targets::NAME, &promise.file, start)?;
            return Ok(promise.version); // nothing new
        }
        // 5.6.1 to 5.6.4
        let keys = self.trusted.root.signed.keys(Targets::NAME);
        let fetched = promise.fetch(self.fetch, self.limits.targets, keys)?;
        // 5.6.5 It must not have expired.
        check_expiry(&fetched.signed, Targets::NAME, &promise.file, start)?;
        // 5.6.6 Keep it.
        self.trusted.keep_targets(&self.metadata_dir, fetched)?;
        Ok(promise.version)
    }

    /// What the trusted snapshot says about the targets role `role`.
    pub(super) fn promised(&self, role: &str) -> Result<Promise, MetadataError> {
        let Some(snapshot) = &self.trusted.snapshot else {
            return Err(not_listed(layout::TIMESTAMP, "snapshot.json"));
        };
        let file = layout::snapshot(snapshot.signed.version());
        let meta = listed(&snapshot.signed.meta, role, &file)?;
        Promise::new(&self.trusted.root.signed, role, meta, &file)
    }
}

/// What trusted metadata says about a metadata file that is to be fetched.
pub(super) struct Promise {
    role: String,
    pub(super) file: String,
    pub(super) version: u64,
    pin: Pin,
    /// The file that says so.
    by: String,
}

impl Promise {
    fn new(root: &Root, role: &str, meta: &Metafile, by: &str) -> Result<Self, MetadataError> {
        let version = meta.version.get();
        let file = layout::role(role, root.consistent_snapshot().then_some(version));
        Ok(Self {
            role: role.to_owned(),
            pin: Pin::of_metafile(&file, meta)?,
            file,
            version,
            by: format!("`{by}`"),
        })
    }

    /// Whether `stored` is the promised file.
    pub(super) fn is_kept_by<T: Role>(&self, stored: &Stored<T>) -> bool {
        stored.signed.version() == self.version && self.pin.check(&self.file, &stored.bytes).is_ok()
    }

    /// The file: not longer than promised nor than `limit` (§5.5.1), of the promised hash
    /// (§5.5.2), signed by enough of `keys` (§5.5.3), of the promised version (§5.5.4).
    pub(super) fn fetch<T: Role>(
        &self,
        fetch: &mut dyn Fetch,
        limit: u64,
        keys: Keys<'_>,
    ) -> Result<Stored<T>, MetadataError> {
        let limit = self.pin.length.unwrap_or(limit).min(limit);
        let bytes = fetch_some(fetch, &self.file, limit)?;
        self.pin.check(&self.file, &bytes)?;
        let envelope = Envelope::read(&self.file, &bytes)?;
        envelope.judge(&self.role, keys)?;
        let signed: T = envelope.open()?;
        is_version(&self.file, &self.by, self.version, signed.version())?;
        Ok(Stored { bytes, signed })
    }
}

fn is_version(file: &str, by: &str, expected: u64, found: u64) -> Result<(), MetadataError> {
    if found == expected {
        return Ok(());
    }
    Err(MetadataError::OtherVersion {
        file: file.to_owned(),
        by: by.to_owned(),
        expected,
        found,
    })
}

/// What metadata lists about the role `role`.
fn listed<'m>(
    meta: &'m HashMap<String, Metafile>,
    role: &str,
    file: &str,
) -> Result<&'m Metafile, MetadataError> {
    let name = format!("{role}.json");
    meta.get(&name).ok_or_else(|| not_listed(file, &name))
}

fn not_listed(file: &str, missing: &str) -> MetadataError {
    MetadataError::NotListed {
        file: file.to_owned(),
        missing: missing.to_owned(),
    }
}

fn older(file: &str, role: &str, trusted: u64, offered: u64) -> MetadataError {
    MetadataError::Older {
        file: file.to_owned(),
        role: role.to_owned(),
        trusted,
        offered,
    }
}
