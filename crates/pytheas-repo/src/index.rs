//! The content index of a release: where each object of its tree lies in the packs.
//!
//! A **pack** is a concatenation of zstd frames, one for each object. The index is a blob of the
//! content store, bound by hash in the release document, so what it says is as genuine as that:
//! ```json
//! {"format": 1, "packs": [{"sha256": "9f…", "size_bytes": 18412001}],
//!  "objects": [["ba78…15ad", 0, 0, 512], ["c3ab…", 0, 512, 88]]}
//! ```
//! (zstd-compressed; an object: hash, number of its pack, offset and length of its frame.)

use std::collections::{BTreeMap, BTreeSet};

use pytheas_release::{BlobRef, Sha256};
use serde::{Deserialize, Serialize};

use crate::unpack::{UnpackError, unpack};

/// Longest index we read, in bytes: a million objects.
const INDEX_MAX: u64 = 128 << 20;
/// Two frames that are this near to each other are fetched in one request, with what lies between.
pub const GAP_MAX: u64 = 64 << 10;
/// Where more requests than this are left, the nearest frames are fetched together, too, …
pub const FEW: usize = 8;
/// … as long as what lies between them is at most this part of what is wanted.
pub const BETWEEN_MAX: u64 = 8;

/// Where an object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(
    /// The object.
    pub Sha256,
    /// Number of its pack.
    pub u32,
    /// Offset of its frame in the pack, in bytes.
    pub u64,
    /// Length of its frame, in bytes.
    pub u64,
);

/// Where the objects of a tree lie (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentIndex {
    format: u32,
    /// The packs.
    pub packs: Vec<BlobRef>,
    /// The objects, sorted by hash.
    pub objects: Vec<Place>,
}

/// A content index that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It does not decompress.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Not JSON of the expected shape.
    #[error("the content index does not parse")]
    Parse(#[from] serde_json::Error),
    /// Written by a newer Pytheas.
    #[error("the content index has format {0}; this version reads format 1")]
    Format(u32),
    /// It speaks of bytes that are not in a pack.
    #[error("the content index places object {0} outside its pack")]
    Outside(Sha256),
    /// An object that should be in it is not.
    #[error("the content index does not name object {0}")]
    Unknown(Sha256),
}

/// Neighbouring frames that one request brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The pack.
    pub pack: BlobRef,
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// The objects in it that are wanted, by offset.
    pub objects: Vec<Place>,
}

impl ContentIndex {
    /// The index of `objects`, which lie in `packs`.
    pub fn new(packs: Vec<BlobRef>, mut objects: Vec<Place>) -> Self {
        objects.sort_by_key(|place| place.0);
        Self {
            format: 1,
            packs,
            objects,
        }
    }

    /// The index as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("an index has only numbers and digests");
        zstd::encode_all(json.as_slice(), 19).expect("memory does not fail")
    }

    /// The index in `packed`.
    ///
    /// # Errors
    /// [`IndexError`] when it does not parse or contradicts itself.
    pub fn parse(packed: &[u8]) -> Result<Self, IndexError> {
        let index: Self = serde_json::from_slice(&unpack(packed, INDEX_MAX)?)?;
        if index.format != 1 {
            return Err(IndexError::Format(index.format));
        }
        for Place(object, pack, offset, len) in &index.objects {
            let size = index.packs.get(*pack as usize).map(|pack| pack.size_bytes);
            if size.is_none_or(|size| offset.checked_add(*len).is_none_or(|end| end > size)) {
                return Err(IndexError::Outside(*object));
            }
        }
        Ok(index)
    }

    /// The requests that bring `wanted`, neighbours joined, in the order of packs and offsets.
    ///
    /// # Errors
    /// [`IndexError::Unknown`] when an object is not in the index.
    pub fn ranges<'a>(
        &self,
        wanted: impl IntoIterator<Item = &'a Sha256>,
    ) -> Result<Vec<Range>, IndexError> {
        let known: BTreeMap<Sha256, Place> = self.objects.iter().map(|p| (p.0, *p)).collect();
        let mut places = wanted
            .into_iter()
            .map(|object| {
                known
                    .get(object)
                    .copied()
                    .ok_or(IndexError::Unknown(*object))
            })
            .collect::<Result<Vec<_>, _>>()?;
        places.sort_by_key(|Place(_, pack, offset, _)| (*pack, *offset));
        places.dedup();
        let joined = joined(&places);
        let mut ranges: Vec<Range> = Vec::new();
        for (number, place @ Place(object, pack, offset, len)) in places.into_iter().enumerate() {
            let end = offset + len; // checked while parsing
            if let Some(last) = ranges.last_mut().filter(|_| joined.contains(&number)) {
                last.end = end;
                last.objects.push(place);
                continue;
            }
            let pack = self.packs.get(pack as usize);
            ranges.push(Range {
                pack: *pack.ok_or(IndexError::Outside(object))?,
                start: offset,
                end,
                objects: vec![place],
            });
        }
        Ok(ranges)
    }

    /// Bytes that fetching `wanted` moves, without headers.
    ///
    /// # Errors
    /// As [`Self::ranges`].
    pub fn cost_bytes<'a>(
        &self,
        wanted: impl IntoIterator<Item = &'a Sha256>,
    ) -> Result<u64, IndexError> {
        Ok(self
            .ranges(wanted)?
            .iter()
            .map(|range| range.end - range.start)
            .sum())
    }
}

/// Which of `places`, sorted by pack and offset, are fetched together with the one before.
fn joined(places: &[Place]) -> BTreeSet<usize> {
    let (mut near, mut far) = (BTreeSet::new(), Vec::new());
    for (number, pair) in places.windows(2).enumerate() {
        let [before, Place(_, pack, offset, _)] = pair else {
            continue;
        };
        let gap = offset.checked_sub(before.2 + before.3);
        match gap.filter(|_| before.1 == *pack) {
            Some(gap) if gap <= GAP_MAX => _ = near.insert(number + 1),
            Some(gap) => far.push((gap, number + 1)),
            None => {}
        }
    }
    far.sort_unstable();
    let wanted = places.iter().fold(0_u64, |sum, p| sum.saturating_add(p.3));
    let mut left = wanted / BETWEEN_MAX;
    for (gap, number) in far {
        if places.len() - near.len() <= FEW || gap > left {
            break;
        }
        left -= gap;
        near.insert(number);
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(n: u8) -> Sha256 {
        Sha256::of(&[n])
    }

    fn index() -> ContentIndex {
        let pack = |n: u8| BlobRef {
            sha256: object(200 + n),
            size_bytes: 40 << 20,
        };
        ContentIndex::new(
            vec![pack(0), pack(1)],
            vec![
                Place(object(1), 0, 0, 100),
                Place(object(2), 0, 100, 50),
                Place(object(3), 0, 150 + GAP_MAX, 10),
                Place(object(4), 0, 161 + 2 * GAP_MAX, 10),
                Place(object(5), 1, 0, 12 << 20),
                Place(object(6), 1, 12 << 20, 12 << 20),
            ],
        )
    }

    #[test]
    fn an_index_survives_its_encoding() {
        assert_eq!(ContentIndex::parse(&index().encode()).unwrap(), index());
    }

    #[test]
    fn neighbours_are_fetched_together_unless_far_apart() {
        let wanted: Vec<Sha256> = (1..=6).map(object).collect();
        let ranges = index().ranges(&wanted).unwrap();
        let shown: Vec<(u64, u64, usize)> = ranges
            .iter()
            .map(|r| (r.start, r.end - r.start, r.objects.len()))
            .collect();
        let gap = GAP_MAX;
        assert_eq!(
            shown,
            [(0, 160 + gap, 3), (161 + 2 * gap, 10, 1), (0, 24 << 20, 2),]
        );
        assert_eq!(index().cost_bytes(&[object(2)]).unwrap(), 50);
        assert!(matches!(
            index().ranges(&[object(9)]),
            Err(IndexError::Unknown(_))
        ));
    }

    #[test]
    fn many_far_apart_are_fetched_together_while_little_lies_between() {
        let far = |count: u64, len: u64, gap: u64| {
            let places = (0..count).map(|n| {
                let name = Sha256::of(&n.to_le_bytes());
                Place(name, 0, n * (len + gap), len)
            });
            let size_bytes = count * (len + gap);
            let sha256 = object(200);
            let index = ContentIndex::new(vec![BlobRef { sha256, size_bytes }], places.collect());
            let wanted: Vec<Sha256> = index.objects.iter().map(|place| place.0).collect();
            let ranges = index.ranges(&wanted).unwrap();
            let moved = index.cost_bytes(&wanted).unwrap() - count * len;
            (ranges.len(), moved)
        };
        let gap = GAP_MAX + 1;
        // 100 MB wanted, 6.5 MB between: 8 requests.
        assert_eq!(far(100, 1 << 20, gap), (FEW, 92 * gap));
        // Three bytes of four would be for nothing: so are all but an eighth of what is wanted.
        assert_eq!(far(100, gap / 3, gap), (100 - 4, 4 * gap));
        assert_eq!(far(8, 1 << 30, gap), (8, 0));
    }

    #[test]
    fn an_index_that_points_outside_its_packs_is_refused() {
        for place in [
            Place(object(1), 2, 0, 1),
            Place(object(1), 0, 40 << 20, 1),
            Place(object(1), 0, u64::MAX, 2),
        ] {
            let mut bad = index();
            bad.objects.push(place);
            assert!(
                matches!(
                    ContentIndex::parse(&bad.encode()),
                    Err(IndexError::Outside(_))
                ),
                "{place:?}"
            );
        }
        let mut newer = index();
        newer.format = 2;
        assert!(matches!(
            ContentIndex::parse(&newer.encode()),
            Err(IndexError::Format(2))
        ));
    }
}
