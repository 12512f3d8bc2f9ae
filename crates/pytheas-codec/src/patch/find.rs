//! Finds approximate copies: Colin Percival's bsdiff (2003), with chains of equal eight-byte groups
//! instead of a suffix array, so that memory stays at nine bytes per byte of the old piece.

use crate::fields::Piece;

/// Bytes that must agree before two places are compared at all.
const GROUP: usize = 8;
/// How many earlier places with the same group are tried.
const TRIES: usize = 96;
/// An agreement this long is taken without looking for a longer one.
const ENOUGH: usize = 48;

struct Index<'a> {
    old: &'a [u8],
    heads: Vec<u32>,
    chain: Vec<u32>,
    bits: u32,
}

impl<'a> Index<'a> {
    fn new(old: &'a [u8]) -> Self {
        let bits = (usize::BITS - old.len().leading_zeros()).clamp(10, 22);
        let mut index = Self {
            old,
            heads: vec![u32::MAX; 1 << bits],
            chain: vec![u32::MAX; old.len()],
            bits,
        };
        // From the back, so that chains run forwards.
        for at in (0..old.len().saturating_sub(GROUP - 1)).rev() {
            let slot = index.slot(&old[at..]);
            index.chain[at] = index.heads[slot];
            index.heads[slot] = at as u32;
        }
        index
    }

    fn slot(&self, bytes: &[u8]) -> usize {
        let mut group = [0; GROUP];
        group.copy_from_slice(&bytes[..GROUP]);
        (u64::from_le_bytes(group).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.bits)) as usize
    }

    /// The longest agreement of `new` with a place in the old piece: length and place. `hint` is
    /// tried first.
    fn longest(&self, new: &[u8], hint: Option<usize>) -> (usize, usize) {
        let (mut len, mut place) = match hint {
            Some(hint) if hint < self.old.len() => (agree(&self.old[hint..], new), hint),
            _ => (0, 0),
        };
        if len >= ENOUGH || new.len() < GROUP {
            return (len, place);
        }
        let mut at = self.heads[self.slot(new)];
        for _ in 0..TRIES {
            let Some(candidate) = self.old.get(at as usize..) else {
                break;
            };
            // Worth comparing only when it beats the best at its end.
            if len == 0 || candidate.get(len) == new.get(len) {
                let found = agree(candidate, new);
                if found > len {
                    (len, place) = (found, at as usize);
                    if len > 4096 {
                        break;
                    }
                }
            }
            at = self.chain[at as usize];
        }
        (len, place)
    }
}

fn agree(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let words = a[..len].chunks_exact(8).zip(b[..len].chunks_exact(8));
    let same = words.take_while(|(a, b)| a == b).count() * 8;
    same + a[same..len]
        .iter()
        .zip(&b[same..len])
        .take_while(|(a, b)| a == b)
        .count()
}

/// Copies of pieces of `old` that make up most of `new`; between them it is new.
pub(super) fn copies(old: &[u8], new: &[u8]) -> Vec<Piece> {
    let index = Index::new(old);
    let mut pieces = Vec::new();
    let (mut scan, mut len, mut place) = (0_usize, 0_usize, 0_usize);
    let (mut last_scan, mut last_place, mut offset) = (0_usize, 0_usize, 0_i64);
    let old_at = |at: usize, offset: i64| {
        usize::try_from(at as i64 + offset)
            .ok()
            .and_then(|at| old.get(at))
    };
    while scan < new.len() {
        let mut score = 0_usize;
        scan += len;
        let mut scored = scan;
        while scan < new.len() {
            let hint = usize::try_from(scan as i64 + offset).ok();
            (len, place) = index.longest(&new[scan..], hint);
            while scored < scan + len {
                score += usize::from(old_at(scored, offset) == Some(&new[scored]));
                scored += 1;
            }
            if (len == score && len != 0) || len > score + 8 {
                break;
            }
            if old_at(scan, offset) == Some(&new[scan]) {
                score = score.saturating_sub(1);
            }
            scan += 1;
            scored = scored.max(scan);
        }
        if len == score && scan < new.len() {
            continue;
        }
        let mut forwards = longest_half((last_scan..scan).map(|at| {
            old_at(at, last_place as i64 - last_scan as i64).map(|byte| *byte == new[at])
        }));
        let mut backwards = 0;
        if scan < new.len() {
            backwards = longest_half(
                (1..=(scan - last_scan).min(place))
                    .map(|back| Some(old[place - back] == new[scan - back])),
            );
        }
        if last_scan + forwards > scan - backwards {
            let overlap = last_scan + forwards - (scan - backwards);
            let (mut score, mut best, mut keep) = (0_i64, 0_i64, 0);
            for i in 0..overlap {
                let before = forwards - overlap + i;
                score += i64::from(new[last_scan + before] == old[last_place + before]);
                score -= i64::from(new[scan - backwards + i] == old[place - backwards + i]);
                if score > best {
                    (best, keep) = (score, i + 1);
                }
            }
            forwards = forwards + keep - overlap;
            backwards -= keep;
        }
        if forwards > 0 {
            pieces.push(Piece {
                old: last_place,
                new: last_scan,
                len: forwards,
            });
        }
        last_scan = scan - backwards;
        last_place = place.saturating_sub(backwards);
        offset = place as i64 - scan as i64;
    }
    pieces
}

/// The length up to which agreements outnumber disagreements most.
fn longest_half(agreements: impl Iterator<Item = Option<bool>>) -> usize {
    let (mut score, mut best, mut len) = (0_i64, 0_i64, 0);
    for (at, agrees) in agreements.enumerate() {
        let Some(agrees) = agrees else { break };
        score += if agrees { 1 } else { -1 };
        if score > best {
            (best, len) = (score, at + 1);
        }
    }
    len
}
