//! What the repository has already: earlier releases, and where their objects lie.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use pytheas_release::{BlobRef, Release, ReleaseRef, Sha256, Tree};

use super::{Options, PublishError, Published, pack::Pack};
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

/// The earlier releases that deltas are made from: the newest ones, and those that are named.
pub(super) fn worth_a_delta<'e>(
    earlier: &'e [Earlier],
    new: &Published,
    options: &Options,
) -> Result<Vec<&'e Earlier>, PublishError> {
    let mut same: Vec<&Earlier> = earlier
        .iter()
        .filter(|old| {
            old.release.name == new.reference.name
                && old.release.platform == new.platform
                && old.release.tree.id != new.tree
        })
        .collect();
    same.sort_by_key(|old| std::cmp::Reverse(old.listed.published));
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
    let mut seen = BTreeSet::new();
    let mut left = options.deltas;
    same.retain(|old| {
        let named = options.delta_from.contains(&old.release.version);
        let is_new = left > 0;
        (named || is_new) && seen.insert(old.release.tree.id) && {
            left = left.saturating_sub(1);
            true
        }
    });
    Ok(same)
}
