//! Decompression that cannot be made to eat memory: window and output are bounded.

use std::io::{self, Read};

/// Largest window a frame may ask for: 8 MiB, what zstd's level 19 uses at most.
const WINDOW_LOG_MAX: u32 = 23;

/// A document that does not decompress.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not zstd, or damaged.
    #[error("it does not decompress")]
    Damaged(#[source] io::Error),
    /// More comes out than is allowed.
    #[error("it decompresses to more than {limit_bytes} bytes")]
    TooLarge {
        /// What is allowed.
        limit_bytes: u64,
    },
}

/// A decoder of the one frame in `reader`.
pub(crate) fn decoder(reader: impl Read) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(reader)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// The content of the frame `packed`, at most `limit_bytes` of it.
///
/// # Errors
/// [`UnpackError`].
pub(crate) fn unpack(packed: &[u8], limit_bytes: u64) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    decoder(packed)
        .and_then(|decoder| decoder.take(limit_bytes + 1).read_to_end(&mut bytes))
        .map_err(UnpackError::Damaged)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(UnpackError::TooLarge { limit_bytes });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::encode_all(io::repeat(0).take(50 << 20), 3).unwrap();
        assert!(bomb.len() < 10_000);
        assert!(matches!(
            unpack(&bomb, 1 << 20),
            Err(UnpackError::TooLarge {
                limit_bytes: 1_048_576
            })
        ));
        assert_eq!(unpack(&bomb, 50 << 20).unwrap().len(), 50 << 20);
        assert!(matches!(
            unpack(b"not zstd", 100),
            Err(UnpackError::Damaged(_))
        ));
    }
}
