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
    use super::*;

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
