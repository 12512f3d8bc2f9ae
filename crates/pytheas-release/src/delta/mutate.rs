//! Deltas that somebody would send who knows the format and means harm: for tests and fuzzing.

use pytheas_codec::patch;

use super::{
    REFERENCE_MAX, SEGMENT_MAX,
    plan::{self, Head, Method},
};
use crate::Tree;

/// A delta for `old` whose plan and segments are what a fuzzer likes: the length of the plan (two
/// bytes), the plan, the segments.
#[doc(hidden)]
pub fn for_fuzzing(old: &Tree, bytes: &[u8]) -> Vec<u8> {
    let (len, rest) = bytes.split_at(bytes.len().min(2));
    let len = len
        .iter()
        .fold(0_usize, |len, byte| len << 8 | usize::from(*byte));
    let (plan, segments) = rest.split_at(len.min(rest.len()));
    let mut out = Head::encode(old.id(), old.id(), plan).unwrap_or_default();
    out.extend_from_slice(segments);
    out
}

/// What [`for_fuzzing`] makes this delta of, but for its ids: where a fuzzer begins.
#[doc(hidden)]
pub fn as_fuzzed(delta: &[u8]) -> Option<Vec<u8>> {
    let mut segments = delta;
    let head = Head::read(&mut segments).ok()?;
    let plan = plan::encode(&head.steps, &head.sizes, &head.segments);
    let len = u16::try_from(plan.len()).ok()?;
    Some([&len.to_be_bytes()[..], &plan, segments].concat())
}

/// A delta with its plan, one of its segments or their description changed at random (`below` gives
/// numbers below its argument), all checks made right again: what somebody would send who knows
/// the format.
#[doc(hidden)]
pub fn mutated(delta: &[u8], below: &mut dyn FnMut(usize) -> usize) -> Option<Vec<u8>> {
    let mut rest = delta;
    let head = Head::read(&mut rest).ok()?;
    let (mut steps, mut sizes, mut segments) = (head.steps, head.sizes, head.segments);
    let mut packed = Vec::new();
    for segment in &segments {
        let (bytes, after) = rest.split_at_checked(segment.packed_len)?;
        packed.push(bytes.to_vec());
        rest = after;
    }
    let mut raw = 0;
    for _ in 0..=below(3) {
        let at = below(segments.len());
        let segment = &mut segments[at];
        match below(12) {
            0 => change(&mut steps, below),
            1 => {
                let which = below(sizes.len());
                sizes[which] = wild(below);
            }
            2 => {
                segment.method =
                    [Method::Text, Method::Binary, Method::Patch, Method::Records][below(4)];
            }
            3 if !segment.old.is_empty() => {
                let which = below(segment.old.len());
                segment.old[which].entry = below(12);
                segment.old[which].part =
                    (below(2) == 0).then(|| (wild(below), wild(below) as usize));
            }
            4 => {
                let which = below(segment.new.len());
                segment.new[which].content = below(sizes.len());
                segment.new[which].part =
                    (below(2) == 0).then(|| (wild(below), wild(below) as usize));
            }
            5 => {
                let which = below(segment.new.len());
                segment.new[which].short = wild(below) as usize;
            }
            6 => {
                let again = segment.old.clone();
                segment.old.extend(again);
            }
            7 => raw += 1,
            8 | 9 if segment.method == Method::Patch => {
                let changed = patch::for_fuzzing(&packed[at], &mut |bytes| change(bytes, below));
                packed[at] = changed?;
            }
            _ => change(&mut packed[at], below),
        }
    }
    for (segment, packed) in segments.iter_mut().zip(&packed) {
        segment.packed_len = packed.len();
        segment.check = plan::check(packed);
    }
    let mut plan = plan::encode(&steps, &sizes, &segments);
    for _ in 0..raw {
        change(&mut plan, below);
    }
    let mut out = Head::encode(head.old, head.new, &plan).ok()?;
    out.extend(packed.concat());
    Some(out)
}

/// Changes some bytes, or some in a row, or cuts, or repeats a part.
fn change(bytes: &mut Vec<u8>, below: &mut dyn FnMut(usize) -> usize) {
    let at = below(bytes.len() + 1);
    match below(6) {
        0 => bytes.truncate(at),
        1 => bytes.splice(at..at, [0xff; 9]).for_each(drop),
        2 => {
            let part = bytes[at..bytes.len().min(at + 40)].to_vec();
            let to = below(bytes.len() + 1);
            bytes.splice(to..to, part).for_each(drop);
        }
        _ => {
            for _ in 0..=below(3) {
                let at = below(bytes.len() + 1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(8);
                }
            }
        }
    }
}

/// Numbers around those that matter.
fn wild(below: &mut dyn FnMut(usize) -> usize) -> u64 {
    let near = below(5) as u64;
    match below(6) {
        0 => near,
        1 => u64::MAX - near,
        2 => (1_u64 << below(64)).wrapping_sub(2).wrapping_add(near),
        3 => REFERENCE_MAX as u64 - 2 + near,
        4 => SEGMENT_MAX as u64 - 2 + near,
        _ => below(5000) as u64,
    }
}
