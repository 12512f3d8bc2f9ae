//! What the repository has already: earlier releases, and where their objects lie.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use pytheas_release::{BlobRef, Pep440, Release, ReleaseRef, Sha256, Tree};

use super::{IN_USE, NEWEST, Options, PublishError, Published, pack::Pack};
use crate::{
    client::ContentError,
    fetch::check,
    index::{ContentIndex, IndexError, Place},
    layout,
    repository::{Listed, Repository},
    store::Store,
};

/// An earlier release, and where its objects lie.
pub(super) struct Earlier {
    pub(super) listed: Listed,
    pub(super) release: Release,
    pub(super) index: ContentIndex,
}

/// All releases of the repository with their content indexes, verified.
pub(super) async fn load(
    store: &Store,
    repository: &Repository,
) -> Result<Vec<Earlier>, PublishError> {
    stream::iter(repository.releases())
        .map(|listed| async move {
            let release = repository.release(&listed.target).await?;
            let path = layout::blob(&release.index.sha256);
            let bytes = store
                .get(&path, release.index.size_bytes)
                .await?
                .unwrap_or_default();
            check(&path, &bytes, &release.index).map_err(ContentError::from)?;
            let index = ContentIndex::parse(&bytes)
                .map_err(|source: IndexError| ContentError::Index { file: path, source })?;
            Ok::<_, PublishError>(Earlier {
                listed,
                release,
                index,
            })
        })
        .buffered(8)
        .try_collect()
        .await
}

/// Where the objects of earlier releases lie: pack, offset, length.
pub(super) fn known_objects(earlier: &[Earlier]) -> BTreeMap<Sha256, (BlobRef, u64, u64)> {
    let places = earlier.iter().flat_map(|earlier| {
        let index = &earlier.index;
        index
            .objects
            .iter()
            .filter_map(|Place(object, pack, offset, len)| {
                Some((*object, (*index.packs.get(*pack as usize)?, *offset, *len)))
            })
    });
    places.collect()
}

pub(super) fn index_of(
    tree: &Tree,
    known: &BTreeMap<Sha256, (BlobRef, u64, u64)>,
    new: &[Pack],
) -> ContentIndex {
    let mut packs: Vec<BlobRef> = Vec::new();
    let mut objects = Vec::new();
    let mut place = |object: Sha256, pack: BlobRef, offset: u64, len: u64| {
        let number = packs
            .iter()
            .position(|known| *known == pack)
            .unwrap_or_else(|| {
                packs.push(pack);
                packs.len() - 1
            });
        objects.push(Place(
            object,
            u32::try_from(number).unwrap_or(u32::MAX),
            offset,
            len,
        ));
    };
    for pack in new {
        for (object, offset, len) in &pack.objects {
            place(*object, pack.blob, *offset, *len);
        }
    }
    for object in tree.objects().keys() {
        if let Some((pack, offset, len)) = known.get(object) {
            place(*object, *pack, *offset, *len);
        }
    }
    ContentIndex::new(packs, objects)
}

/// Why a delta is made from a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody named it.
    Asked,
    /// So many devices run it.
    InUse {
        /// How many.
        devices: u64,
    },
    /// It is one of the newest.
    Newest,
}

/// The earlier releases that deltas are made from, in the order in which they are: those that are
/// named; those that devices run, the most used first; the newest.
pub(super) fn worth_a_delta<'e>(
    earlier: &'e [Earlier],
    new: &Published,
    options: &Options,
) -> Result<Vec<(&'e Earlier, Reason)>, PublishError> {
    let mut same: Vec<&Earlier> = earlier
        .iter()
        .filter(|old| {
            old.release.name == new.reference.name
                && old.release.platform == new.platform
                && old.release.tree.id != new.tree
        })
        .collect();
    // Times are whole seconds: of two published within one, the higher version is the newer.
    let version = |old: &Earlier| old.release.version.as_str().parse::<Pep440>().ok();
    same.sort_by_cached_key(|old| std::cmp::Reverse((old.listed.published, version(old))));
    for version in &options.delta_from {
        if same.iter().all(|old| old.release.version != *version) {
            let there: Vec<&str> = same
                .iter()
                .map(|old| old.release.version.as_str())
                .collect();
            let wanted = ReleaseRef {
                name: new.reference.name.clone(),
                version: version.clone(),
            };
            return Err(PublishError::NoEarlier {
                wanted,
                platform: new.platform.clone(),
                have: match there.as_slice() {
                    [] => "this is its first release".into(),
                    there => format!("there are: {}", there.join(", ")),
                },
            });
        }
    }
    let asked = |old: &Earlier| options.delta_from.contains(&old.release.version);
    let devices = |old: &Earlier| -> u64 {
        let of_it = options.in_use.iter();
        let of_it = of_it.filter(|one| one.version == old.release.version);
        of_it.fold(0, |sum, one| sum.saturating_add(one.devices))
    };
    let mut used: Vec<(&Earlier, u64)> = same
        .iter()
        .map(|old| (*old, devices(old)))
        .filter(|(_, devices)| *devices > 0)
        .collect();
    // The newer of two that as many run comes first: the order above is kept.
    used.sort_by_key(|(_, devices)| std::cmp::Reverse(*devices));
    // Where it is known what devices run, of the newest only the one that they are about to.
    let (most, newest) = match used.is_empty() {
        true => (options.deltas.unwrap_or(NEWEST), usize::MAX),
        false => (options.deltas.unwrap_or(IN_USE), 1),
    };
    let used = used
        .into_iter()
        .map(|(old, devices)| (old, Reason::InUse { devices }));
    let newest = same.iter().take(newest).map(|old| (*old, Reason::Newest));
    let mut seen = BTreeSet::new();
    let mut chosen: Vec<(&Earlier, Reason)> = Vec::new();
    for old in same.iter().filter(|old| asked(old)) {
        if seen.insert(old.release.tree.id) {
            chosen.push((old, Reason::Asked));
        }
    }
    // One that is named besides counts as well.
    let mut counted = BTreeSet::new();
    for (old, reason) in used.chain(newest) {
        let tree = old.release.tree.id;
        let has_room = counted.len() < most;
        if has_room && counted.insert(tree) && seen.insert(tree) {
            chosen.push((old, reason));
        }
    }
    Ok(chosen)
}
