//! Bringing the trusted metadata up to date: TUF 1.0.33, §5.1 to §5.6, step by step.
//!
//! Delegations (§5.6.7) are not followed: a Pytheas repository has none yet, and a target that
//! only a delegated role names is simply not there.

use jiff::Timestamp as Time;
use pytheas_release::{BlobRef, Sha256};
use tough::schema::{Metafile, RoleType, Root, Snapshot, Targets, Timestamp};
use tracing::debug;

use super::{
    Client,
    metadata::{MetadataError, check_expiry, parse, verify},
    trusted::{Stored, signed_at},
};
use crate::{
    fetch::{DownloadError, check, fetch_if_any, fetch_some},
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
        self.update_timestamp(&mut start)?;
        // 5.3.10 The newest root must not have expired.
        check_expiry(&self.trusted.root.signed, &self.root_file(), start)?;
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
        let refreshed = Refreshed {
            root: self.trusted.root.signed.signed.version.get(),
            timestamp: self
                .trusted
                .timestamp
                .as_ref()
                .map_or(0, |t| t.signed.signed.version.get()),
            snapshot,
            targets,
            changed: before != after,
            time_used: start,
        };
        debug!(?refreshed, "trusted metadata is up to date");
        Ok(refreshed)
    }

    fn root_file(&self) -> String {
        layout::root(self.trusted.root.signed.signed.version.get())
    }

    /// 5.3 Update the root role.
    fn update_root(&mut self) -> Result<(), MetadataError> {
        for _ in 0..self.limits.root_updates {
            // 5.3.2 N is the version of the trusted root.
            let n = self.trusted.root.signed.signed.version.get();
            let next = n.saturating_add(1);
            // 5.3.3 Ask for version N+1, of bounded length; without one, N is the newest.
            let file = layout::root(next);
            let Some(bytes) = fetch_if_any(self.fetch, &file, self.limits.root)? else {
                break;
            };
            let signed = parse::<Root>(&file, &bytes)?;
            // 5.3.4 Enough keys of version N and enough of N+1 itself must have signed it.
            verify(&self.trusted.root.signed.signed, &signed, &file)?;
            verify(&signed.signed, &signed, &file)?;
            // 5.3.5 It must be N+1 exactly.
            let found = signed.signed.version.get();
            if found != next {
                return Err(MetadataError::OtherVersion {
                    file,
                    by: "its name".to_owned(),
                    expected: next,
                    found,
                });
            }
            // 5.3.6 Whether it has expired does not matter as long as there may be a newer one.
            // 5.3.7, 5.3.8 Trust it and keep it. 5.3.11 is done there, too.
            self.trusted
                .keep_root(&self.metadata_dir, Stored { bytes, signed })?;
            // 5.3.9 Again.
        }
        // 5.3.12 Consistent snapshots: a Pytheas repository always has them, and the names below
        // are built so.
        Ok(())
    }

    /// 5.4 Update the timestamp role.
    fn update_timestamp(&mut self, start: &mut Time) -> Result<(), MetadataError> {
        let file = layout::TIMESTAMP;
        // 5.4.1 Its length is unknown, so bounded.
        let bytes = fetch_some(self.fetch, file, self.limits.timestamp)?;
        let signed = parse::<Timestamp>(file, &bytes)?;
        // 5.4.2 Enough keys must have signed it.
        verify(&self.trusted.root.signed.signed, &signed, file)?;
        let new_snapshot = listed(&signed.signed.meta, "snapshot.json", file)?
            .version
            .get();
        if let Some(time) = signed_at(&signed.signed) {
            *start = time.max(*start);
        }
        if let Some(old) = &self.trusted.timestamp {
            let (trusted, offered) = (old.signed.signed.version.get(), signed.signed.version.get());
            // 5.4.3.1 Its version must not go back.
            if offered < trusted {
                return Err(older(file, RoleType::Timestamp, trusted, offered));
            }
            // The same version is no news. Off-spec: the cycle is not ended here, because a power
            // cut may have ended the last one before the snapshot was kept.
            if offered == trusted {
                return check_expiry(&old.signed, file, *start);
            }
            // 5.4.3.2 Nor may the snapshot's version in it.
            let old_snapshot = listed(&old.signed.signed.meta, "snapshot.json", file)?
                .version
                .get();
            if new_snapshot < old_snapshot {
                return Err(older(file, RoleType::Snapshot, old_snapshot, new_snapshot));
            }
        }
        // 5.4.4 It must not have expired.
        check_expiry(&signed, file, *start)?;
        // 5.4.5 Keep it.
        self.trusted
            .keep_timestamp(&self.metadata_dir, Stored { bytes, signed })
    }

    /// 5.5 Update the snapshot role.
    fn update_snapshot(&mut self, start: Time) -> Result<u64, MetadataError> {
        let Some(timestamp) = &self.trusted.timestamp else {
            return Err(not_listed(layout::TIMESTAMP, "snapshot.json"));
        };
        let meta = listed(
            &timestamp.signed.signed.meta,
            "snapshot.json",
            layout::TIMESTAMP,
        )?;
        let version = meta.version.get();
        let file = layout::snapshot(version);
        if let Some(old) = &self.trusted.snapshot
            && old.signed.signed.version.get() == version
            && pinned(&file, &old.bytes, meta).is_ok()
        {
            check_expiry(&old.signed, &file, start)?;
            return Ok(version); // nothing new
        }
        // 5.5.1 As long as the timestamp says, bounded.
        let limit = meta
            .length
            .unwrap_or(self.limits.snapshot)
            .min(self.limits.snapshot);
        let bytes = fetch_some(self.fetch, &file, limit)?;
        // 5.5.2 It must have the hash that the timestamp names, if it does.
        pinned(&file, &bytes, meta)?;
        let signed = parse::<Snapshot>(&file, &bytes)?;
        // 5.5.3 Enough keys must have signed it.
        verify(&self.trusted.root.signed.signed, &signed, &file)?;
        // 5.5.4 It must have the version that the timestamp names.
        let found = signed.signed.version.get();
        if found != version {
            let by = format!("`{}`", layout::TIMESTAMP);
            return Err(MetadataError::OtherVersion {
                file,
                by,
                expected: version,
                found,
            });
        }
        listed(&signed.signed.meta, "targets.json", &file)?;
        // 5.5.5 No role it lists may go back or vanish. (The trusted snapshot's own expiry does
        // not matter here.)
        if let Some(old) = &self.trusted.snapshot {
            for (name, old_meta) in &old.signed.signed.meta {
                let new_meta = listed(&signed.signed.meta, name, &file)?;
                if new_meta.version < old_meta.version {
                    let role = name.trim_end_matches(".json");
                    let (trusted, offered) = (old_meta.version.get(), new_meta.version.get());
                    return Err(older(&file, role, trusted, offered));
                }
            }
        }
        // 5.5.6 It must not have expired.
        check_expiry(&signed, &file, start)?;
        // 5.5.7 Keep it.
        self.trusted
            .keep_snapshot(&self.metadata_dir, Stored { bytes, signed })?;
        Ok(version)
    }

    /// 5.6 Update the targets role.
    fn update_targets(&mut self, start: Time) -> Result<u64, MetadataError> {
        let Some(snapshot) = &self.trusted.snapshot else {
            return Err(not_listed(layout::TIMESTAMP, "snapshot.json"));
        };
        let snapshot_file = layout::snapshot(snapshot.signed.signed.version.get());
        let meta = listed(&snapshot.signed.signed.meta, "targets.json", &snapshot_file)?;
        let version = meta.version.get();
        let file = layout::targets(version);
        if let Some(old) = &self.trusted.targets
            && old.signed.signed.version.get() == version
            && pinned(&file, &old.bytes, meta).is_ok()
        {
            check_expiry(&old.signed, &file, start)?;
            return Ok(version); // nothing new
        }
        // 5.6.1 As long as the snapshot says, bounded.
        let limit = meta
            .length
            .unwrap_or(self.limits.targets)
            .min(self.limits.targets);
        let bytes = fetch_some(self.fetch, &file, limit)?;
        // 5.6.2 It must have the hash that the snapshot names, if it does.
        pinned(&file, &bytes, meta)?;
        let signed = parse::<Targets>(&file, &bytes)?;
        // 5.6.3 Enough keys must have signed it.
        verify(&self.trusted.root.signed.signed, &signed, &file)?;
        // 5.6.4 It must have the version that the snapshot names.
        let found = signed.signed.version.get();
        if found != version {
            let by = format!("`{snapshot_file}`");
            return Err(MetadataError::OtherVersion {
                file,
                by,
                expected: version,
                found,
            });
        }
        // 5.6.5 It must not have expired.
        check_expiry(&signed, &file, start)?;
        // 5.6.6 Keep it.
        self.trusted
            .keep_targets(&self.metadata_dir, Stored { bytes, signed })?;
        Ok(version)
    }
}

/// What metadata lists about `name`.
fn listed<'m>(
    meta: &'m std::collections::HashMap<String, Metafile>,
    name: &str,
    file: &str,
) -> Result<&'m Metafile, MetadataError> {
    meta.get(name).ok_or_else(|| not_listed(file, name))
}

fn not_listed(file: &str, missing: &str) -> MetadataError {
    MetadataError::NotListed {
        file: file.to_owned(),
        missing: missing.to_owned(),
    }
}

fn older(file: &str, role: impl ToString, trusted: u64, offered: u64) -> MetadataError {
    MetadataError::Older {
        file: file.to_owned(),
        role: role.to_string(),
        trusted,
        offered,
    }
}

/// Whether `bytes` has the length and the hash that `meta` names, as far as it names them.
fn pinned(file: &str, bytes: &[u8], meta: &Metafile) -> Result<(), DownloadError> {
    let size_bytes = meta.length.unwrap_or(bytes.len() as u64);
    let sha256 = match &meta.hashes {
        // A digest of another length cannot be the digest of anything.
        Some(hashes) => <[u8; 32]>::try_from(&hashes.sha256[..])
            .map_or(Sha256::from_bytes([0; 32]), Sha256::from_bytes),
        None => Sha256::of(bytes),
    };
    check(file, bytes, &BlobRef { sha256, size_bytes })
}
