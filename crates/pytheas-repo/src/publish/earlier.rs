//! What the repository has already: earlier releases, and where their objects lie.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use pytheas_release::{BlobRef, Release, Sha256, Tree};

use super::{PublishError, Published, pack::Pack};
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

/// The newest `count` earlier releases that deltas are worth making from.
pub(super) fn newest<'e>(
    earlier: &'e [Earlier],
    new: &Published,
    count: usize,
) -> Vec<&'e Earlier> {
    let mut same: Vec<&Earlier> = earlier
        .iter()
        .filter(|old| {
            old.release.name == new.reference.name
                && old.release.platform == new.platform
                && old.release.tree.id != new.tree
        })
        .collect();
    same.sort_by_key(|old| std::cmp::Reverse(old.listed.published));
    let mut seen = BTreeSet::new();
    same.retain(|old| seen.insert(old.release.tree.id));
    same.truncate(count);
    same
}
