//! The board image: one ROMFS image that is a whole MicroPython release, with its manifest and
//! signatures in private records that `vfs.VfsRom` skips.
//!
//! ```text
//! 0      d2 cd 31            ROMFS magic
//! 3      length of the rest  varuint, always 4 bytes (padded with 0x80 in front)
//! 7      kind 0x70 record    the manifest: JSON, keys sorted, no spaces
//!        kind 0x73 records   signatures, 72 bytes each: key id (8), Ed25519 signature (64)
//!        kind 1 record       padding up to …
//! front  the body            ordinary ROMFS records (a private 0x66 record with full hashes first)
//! ```
//! `front` is a multiple of [`FRONT_STEP`] and stands in the manifest. The manifest binds the body
//! by SHA-256; the signatures bind the manifest. Only the front changes when an image is signed, so
//! no offset in the body moves, and a board writes the front last: an image with a front is whole.

use std::collections::BTreeMap;

use miette::Diagnostic;
use serde::{Deserialize, Serialize};

use crate::{Name, Platform, Sha256, Version};

/// First bytes of a ROMFS image.
pub const MAGIC: [u8; 3] = [0xd2, 0xcd, 0x31];
/// ROMFS record kind of padding.
pub const KIND_PADDING: u8 = 1;
/// Record kind of the manifest.
pub const KIND_MANIFEST: u8 = 0x70;
/// Record kind of one signature.
pub const KIND_SIGNATURE: u8 = 0x73;
/// Record kind of the list of files with full hashes; lies in the body.
pub const KIND_FILES: u8 = 0x66;
/// The front's length is a multiple of this, in bytes.
pub const FRONT_STEP: usize = 512;
/// Longest manifest, in bytes.
pub const MANIFEST_MAX: usize = 4096;
/// Longest image, in bytes: what the length field of four bytes can say.
pub const IMAGE_MAX: usize = (1 << 28) - 1;

/// Room in the front for what publishing adds: two signatures, a longer counter, two keys.
const RESERVE: usize = 2 * SIGNATURE_RECORD + 24 + KEYS_FIELD;
/// `"keys":["…","…"],`
const KEYS_FIELD: usize = 10 + 2 * 67;
const SIGNATURE_RECORD: usize = 2 + 72;
const HEAD: usize = 7;

/// What must hold on a board for an image to be taken; absent parts always hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoardRules {
    /// Models it is for, as the board's own settings name its model; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boards: Vec<String>,
    /// MicroPython's oldest version that will do, such as `1.25.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micropython: Option<String>,
    /// The exact firmware it belongs to, as the board's own settings name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
}

/// The rest of the image, behind the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Its hash.
    pub sha256: Sha256,
    /// Its length.
    pub size: u64,
}

/// The signed description of a board image (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageManifest {
    /// Format of the manifest: 1.
    pub format: u32,
    /// The app.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// Never goes down on a board, unless `allow_downgrade`. 0 until it is published.
    pub counter: u32,
    /// The platform: `micropython-armv7m`; `micropython-any` when nothing in it is native code.
    pub platform: Platform,
    /// What is started: `module:function`, or a module that is imported.
    pub entry: String,
    /// Version of the `.mpy` format inside; none when there is only source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mpy: Option<u8>,
    /// Length of the front, in bytes.
    pub front: u64,
    /// What follows it.
    pub body: Body,
    /// Where it may run.
    #[serde(default)]
    pub requires: BoardRules,
    /// A lower counter than the board's is no reason to refuse it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_downgrade: bool,
    /// The public keys (hex, 32 bytes each) that boards trust from this release on; none: as before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Default values of what operators may set, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// One signature over [`signed_message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSignature {
    /// The first eight bytes of the SHA-256 of the raw public key (32 bytes).
    pub key_id: [u8; 8],
    /// Ed25519 (RFC 8032).
    pub signature: [u8; 64],
}

/// A read image: everything but the signatures' truth is checked.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// What it says of itself.
    pub manifest: ImageManifest,
    /// The manifest as it stands in the image: what is signed.
    pub manifest_bytes: &'a [u8],
    /// The signatures, none in an image that was only built.
    pub signatures: Vec<ImageSignature>,
    /// What follows the front; its hash is as the manifest says.
    pub body: &'a [u8],
}

/// An image that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("no board image: {0}")]
#[diagnostic(
    code(pytheas::release::board_image),
    help("build it again with `pytheas build` and copy it whole")
)]
pub struct ImageError(String);

/// Where offsets of pointer records count from: behind the magic and the length.
pub const POINTER_BASE: usize = HEAD;

/// What is signed: the hash of a fixed prefix and the manifest, 32 bytes, so that Ed25519's
/// SHA-512 needs one block on a board.
pub fn signed_message(manifest_bytes: &[u8]) -> Sha256 {
    Sha256::of(&[b"pytheas-board-1\n", manifest_bytes].concat())
}

/// Key id of a raw public key.
pub fn key_id(public_key: &[u8; 32]) -> [u8; 8] {
    let digest = Sha256::of(public_key);
    std::array::from_fn(|at| digest.as_bytes()[at])
}

impl ImageManifest {
    /// The manifest as it is stored and signed.
    pub fn encode(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("a manifest has only string keys");
        serde_json::to_vec(&value).expect("a value is encodable")
    }

    /// The front's length for this manifest, in bytes; the same for every body, because a body
    /// with pointers in it can only be made once it is known how far from the start it lies.
    pub fn front_length(&self) -> u64 {
        let mut longest = self.clone();
        longest.front = 9999;
        longest.body.size = IMAGE_MAX as u64;
        let need = HEAD + 4 + longest.encode().len() + RESERVE;
        (need.div_ceil(FRONT_STEP) * FRONT_STEP) as u64
    }

    /// Sets `front` and `body` for this body. Everything else must be final, but what publishing
    /// sets: the counter and up to two keys.
    pub fn bind(&mut self, body: &[u8]) {
        self.front = self.front_length();
        self.body = Body {
            sha256: Sha256::of(body),
            size: body.len() as u64,
        };
    }
}

/// The front of an image with this manifest and these signatures.
///
/// # Errors
/// [`ImageError`] when they do not fit into the front the manifest names, or the image is too long.
pub fn front(
    manifest: &ImageManifest,
    signatures: &[ImageSignature],
) -> Result<Vec<u8>, ImageError> {
    let wrong = |why: &str| ImageError(why.to_owned());
    let size = usize::try_from(manifest.front).map_err(|_| wrong("its front is too long"))?;
    let body = usize::try_from(manifest.body.size).map_err(|_| wrong("it is too long"))?;
    let total = size.checked_add(body).filter(|total| *total <= IMAGE_MAX);
    let total = total.ok_or_else(|| wrong("it is too long"))?;
    let text = manifest.encode();
    if text.len() > MANIFEST_MAX {
        return Err(wrong("its manifest is longer than 4096 bytes"));
    }
    let mut out = Vec::with_capacity(size);
    out.extend(MAGIC);
    let rest = u32::try_from(total - HEAD).map_err(|_| wrong("it is too long"))?;
    for shift in [21, 14, 7, 0] {
        let more = if shift == 0 { 0 } else { 0x80 };
        out.push(((rest >> shift) & 0x7f) as u8 | more);
    }
    record(&mut out, KIND_MANIFEST, &text);
    for signature in signatures {
        let payload = [&signature.key_id[..], &signature.signature[..]].concat();
        record(&mut out, KIND_SIGNATURE, &payload);
    }
    // A padding record is at least two bytes, and from 128 bytes on has a longer length.
    let left = size.checked_sub(out.len()).filter(|left| *left >= 2);
    let left = left.ok_or_else(|| wrong("manifest and signatures do not fit into its front"))?;
    let length = if left < 2 + 128 { left - 2 } else { left - 3 };
    out.push(KIND_PADDING);
    if left >= 2 + 128 {
        out.push(0x80 | (length >> 7) as u8);
    }
    out.push((length & 0x7f) as u8);
    out.resize(size, 0);
    Ok(out)
}

/// A whole image, unsigned when there are no signatures.
///
/// # Errors
/// See [`front`]; also when `body` is not the one the manifest binds.
pub fn assemble(
    manifest: &ImageManifest,
    signatures: &[ImageSignature],
    body: &[u8],
) -> Result<Vec<u8>, ImageError> {
    if manifest.body.sha256 != Sha256::of(body) || manifest.body.size != body.len() as u64 {
        return Err(ImageError(
            "its body is not the one its manifest names".into(),
        ));
    }
    let mut image = front(manifest, signatures)?;
    image.extend_from_slice(body);
    Ok(image)
}

/// The image in `bytes`; bytes behind it (the rest of a partition) are passed over.
///
/// # Errors
/// [`ImageError`] when anything but a signature is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Image<'_>, ImageError> {
    let wrong = |why: &str| ImageError(why.to_owned());
    let rest = bytes
        .strip_prefix(&MAGIC)
        .ok_or_else(|| wrong("it does not begin as ROMFS does"))?;
    let (length, after) = varuint(rest).ok_or_else(|| wrong("it is cut off"))?;
    if rest.len() - after.len() != 4 || after.len() < length {
        return Err(wrong("it is cut off"));
    }
    let image = &bytes[..HEAD + length];
    let mut at = &image[HEAD..];
    let (kind, manifest_bytes, next) = next_record(at).ok_or_else(|| wrong("it is cut off"))?;
    if kind != usize::from(KIND_MANIFEST) {
        return Err(wrong("it has no manifest: it is a plain ROMFS image"));
    }
    at = next;
    let manifest: ImageManifest = serde_json::from_slice(manifest_bytes)
        .map_err(|error| ImageError(format!("its manifest does not parse: {error}")))?;
    if manifest.format != 1 {
        let text = format!(
            "its manifest has format {}, this version reads 1",
            manifest.format
        );
        return Err(ImageError(text));
    }
    let front = usize::try_from(manifest.front).unwrap_or(usize::MAX);
    if front % FRONT_STEP != 0 || front > image.len() || front < image.len() - at.len() {
        return Err(wrong("its front has an impossible length"));
    }
    let mut signatures = Vec::new();
    while image.len() - at.len() < front {
        let (kind, payload, next) = next_record(at).ok_or_else(|| wrong("its front is cut off"))?;
        if kind == usize::from(KIND_SIGNATURE) {
            let wrong = || wrong("a signature has a wrong length");
            let (key_id, signature) = payload.split_first_chunk().ok_or_else(wrong)?;
            signatures.push(ImageSignature {
                key_id: *key_id,
                signature: signature.try_into().map_err(|_| wrong())?,
            });
        } else if kind != usize::from(KIND_PADDING) {
            // The rest of the front is not signed: nothing in it may be a file.
            return Err(wrong("its front holds more than manifest and signatures"));
        }
        at = next;
    }
    let body = &image[front..];
    if at.len() != body.len() {
        return Err(wrong("its front has an impossible length"));
    }
    if manifest.body.size != body.len() as u64 || manifest.body.sha256 != Sha256::of(body) {
        return Err(wrong("its body is not the one its manifest names"));
    }
    Ok(Image {
        manifest,
        manifest_bytes,
        signatures,
        body,
    })
}

fn record(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(kind);
    out.extend(encode_varuint(payload.len()));
    out.extend_from_slice(payload);
}

/// A varuint as ROMFS and `.mpy` write it: 7 bits a byte, most significant first.
pub fn encode_varuint(value: usize) -> Vec<u8> {
    let mut out = vec![(value & 0x7f) as u8];
    let mut left = value >> 7;
    while left > 0 {
        out.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    out.reverse();
    out
}

/// The varuint at the start of `bytes` and what follows; none when cut off or above 32 bits.
pub fn varuint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value: u64 = 0;
    for (at, byte) in bytes.iter().enumerate() {
        value = value.checked_shl(7)? | u64::from(byte & 0x7f);
        if value > u64::from(u32::MAX) {
            return None;
        }
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

/// Kind, payload and what follows of the ROMFS record at the start of `bytes`.
pub fn next_record(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let (kind, rest) = varuint(bytes)?;
    let (length, rest) = varuint(rest)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((kind, payload, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(body: &[u8]) -> ImageManifest {
        let mut manifest = ImageManifest {
            format: 1,
            name: "node".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            counter: 0,
            platform: "micropython-any".parse().unwrap(),
            entry: "node.main:run".into(),
            mpy: Some(6),
            front: 0,
            body: Body {
                sha256: Sha256::of(b""),
                size: 0,
            },
            requires: BoardRules::default(),
            allow_downgrade: false,
            keys: Vec::new(),
            config: BTreeMap::new(),
        };
        manifest.bind(body);
        manifest
    }

    #[test]
    fn signing_moves_nothing_in_the_body() {
        let body = b"\x02\x04abcd";
        let mut manifest = manifest(body);
        let built = assemble(&manifest, &[], body).unwrap();
        manifest.counter = u32::MAX;
        let signature = ImageSignature {
            key_id: [7; 8],
            signature: [9; 64],
        };
        let signed = assemble(&manifest, &[signature; 2], body).unwrap();
        assert_eq!(built.len(), signed.len());
        let image = read(&signed).unwrap();
        assert_eq!(image.signatures, [signature; 2]);
        assert_eq!(image.manifest, manifest);
        assert_eq!(read(&built).unwrap().body, image.body);
    }

    #[test]
    fn a_front_with_anything_else_in_it_is_refused_as_a_board_does() {
        let body = b"\x02\x04abcd";
        let manifest = manifest(body);
        let image = assemble(&manifest, &[], body).unwrap();
        let (_, _, padding) = next_record(&image[HEAD..]).unwrap();
        let at = image.len() - padding.len();
        assert_eq!(image[at], KIND_PADDING);
        // A directory, a file, a pointer, the list of files, another manifest.
        for kind in [2, 3, 4, 5, KIND_FILES, KIND_MANIFEST] {
            let mut image = image.clone();
            image[at] = kind;
            let why = read(&image).unwrap_err().to_string();
            assert!(why.contains("holds more than"), "{kind}: {why}");
        }
    }

    #[test]
    fn a_changed_byte_of_the_body_is_seen() {
        let body = b"\x02\x04abcd";
        let mut image = assemble(&manifest(body), &[], body).unwrap();
        *image.last_mut().unwrap() ^= 1;
        assert!(read(&image).unwrap_err().to_string().contains("its body"));
    }

    proptest! {
        #[test]
        fn what_is_no_image_is_an_error(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
            let _ = read(&bytes);
            let mut image = assemble(&manifest(&bytes), &[], &bytes).unwrap();
            prop_assert_eq!(read(&image).unwrap().body, &bytes[..]);
            let at = at.index(image.len());
            image[at] = to;
            let _ = read(&image);
        }

        #[test]
        fn varuints_round_trip(value in 0..=u32::MAX as usize) {
            let bytes = encode_varuint(value);
            prop_assert_eq!(varuint(&bytes), Some((value, &[][..])));
        }
    }
}
