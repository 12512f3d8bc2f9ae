//! LZMA without a header that looks back at bytes both sides have.

#[cfg(any(feature = "encode", test))]
use std::io;

use crate::{Damaged, lzma};

/// Literal contexts for text (`lc` 4, `lp` 0, `pb` 0) or machine code (3, 0, 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text and byte code.
    Text,
    /// Machine code and tables.
    Binary,
}

/// Appends the `len` bytes that were packed against what `buffer` holds.
///
/// # Errors
/// [`Damaged`]; `buffer` then holds part of them.
pub fn unpack(packed: &[u8], buffer: &mut Vec<u8>, len: usize, kind: Kind) -> Result<(), Damaged> {
    match (len, kind) {
        (0, _) => Ok(()),
        (_, Kind::Text) => lzma::decode(packed, buffer, len, 4, 0),
        (_, Kind::Binary) => lzma::decode(packed, buffer, len, 3, 2),
    }
}

/// `bytes` packed against `known`.
///
/// # Errors
/// Whatever the packer says; it has no reason to fail.
#[cfg(any(feature = "encode", test))]
pub fn pack(bytes: &[u8], known: &[u8], kind: Kind) -> io::Result<Vec<u8>> {
    use std::io::Write as _;

    use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};

    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let (lc, lp, pb) = match kind {
        Kind::Text => (4, 0, 0),
        Kind::Binary => (3, 0, 2),
    };
    let dictionary = u32::try_from(known.len() + bytes.len())
        .map_err(io::Error::other)?
        .max(4096);
    let mut options = LzmaOptions::new(
        dictionary,
        lc,
        lp,
        pb,
        EncodeMode::Normal,
        273,
        MfType::Bt4,
        256,
    );
    options.preset_dict = (!known.is_empty()).then(|| known.to_vec());
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
    writer.write_all(bytes)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that no packer makes shorter.
    fn noise(mut state: u32, len: usize) -> impl Iterator<Item = u8> {
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(len)
    }

    /// What makes a packer use all of the format: new bytes, copies from near and far, the same
    /// distance again with a byte changed in between, runs.
    fn mixed(mut known: Vec<u8>, parts: &[(u8, u32, usize)]) -> Vec<u8> {
        let begin = known.len();
        let mut distance = 1;
        for (kind, number, len) in parts {
            let all = &mut known;
            match kind % 4 {
                0 => all.extend(noise(*number, len % 40)),
                1 if !all.is_empty() => {
                    let (most, len) = match number % 2 {
                        0 => (all.len().min(24), len % 24),
                        _ => (all.len(), *len),
                    };
                    distance = *number as usize / 2 % most + 1;
                    (0..len).for_each(|_| all.push(all[all.len() - distance]));
                }
                2 if all.len() >= distance => {
                    all.push(*number as u8);
                    (0..len % 30).for_each(|_| all.push(all[all.len() - distance]));
                }
                _ => all.extend(std::iter::repeat_n(*number as u8, *len)),
            }
        }
        known.split_off(begin)
    }

    proptest! {
        #[test]
        fn whatever_is_packed_comes_back_and_what_is_damaged_does_no_harm(
            known in 0_usize..80_000,
            parts in prop::collection::vec((any::<u8>(), any::<u32>(), 0_usize..400), 0..80),
            damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..9),
        ) {
            let known: Vec<u8> = noise(7, known).collect();
            let bytes = mixed(known.clone(), &parts);
            for kind in [Kind::Text, Kind::Binary] {
                let mut packed = pack(&bytes, &known, kind).unwrap();
                let mut buffer = known.clone();
                unpack(&packed, &mut buffer, bytes.len(), kind).unwrap();
                prop_assert!(buffer[known.len()..] == bytes);
                let len = packed.len().max(1);
                for (at, value) in &damage {
                    packed.get_mut(at % len).into_iter().for_each(|byte| *byte ^= value);
                }
                buffer.truncate(known.len());
                let _right_or_wrong = unpack(&packed, &mut buffer, bytes.len(), kind);
                prop_assert!(buffer.len() <= known.len() + bytes.len());
                prop_assert!(buffer[..known.len()] == known);
            }
        }
    }

    #[test]
    fn text_packed_against_what_is_known_comes_back() {
        let known = b"the quick brown fox jumps over the lazy dog, again and again".repeat(50);
        for kind in [Kind::Text, Kind::Binary] {
            for known in [&known[..], b""] {
                for len in [1, 50, 3000] {
                    let bytes: Vec<u8> = known
                        .iter()
                        .chain(b"something new ")
                        .copied()
                        .cycle()
                        .skip(7)
                        .take(len)
                        .collect();
                    let packed = pack(&bytes, known, kind).unwrap();
                    let mut buffer = known.to_vec();
                    unpack(&packed, &mut buffer, len, kind).unwrap();
                    assert_eq!(buffer[known.len()..], bytes);
                    for cut in 0..packed.len() {
                        let mut buffer = known.to_vec();
                        let _right_or_wrong = unpack(&packed[..cut], &mut buffer, len, kind);
                        assert!(buffer.len() <= known.len() + len);
                    }
                }
            }
        }
    }
}
