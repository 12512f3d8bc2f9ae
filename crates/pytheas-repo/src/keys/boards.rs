//! What boards trust: the raw Ed25519 public keys of whoever publishes for them.
//!
//! A board has no root metadata. It gets these keys (32 bytes each, one after the other) when it
//! is set up, and new ones in signed images after a rotation.

use std::path::Path;

use aws_lc_rs::signature::KeyPair as _;
use pytheas_release::board::{self, ImageError, ImageSignature};
use tough::schema::{RoleType, Root, key::Key};

use super::{KeyError, KeyFile, RootFile, folder, public};
use crate::sign::role_keys;

/// The public keys that boards of the repository whose keys lie in `dir` shall trust: those of the
/// targets role, as `root.json` names them. No private key is opened.
///
/// # Errors
/// [`KeyError`]; [`KeyError::NoBoardKey`] when none of them is Ed25519.
pub fn board_keys(dir: &Path) -> Result<Vec<[u8; 32]>, KeyError> {
    let keys = of_role(&RootFile::load(dir)?.signed);
    some(keys, "the role `targets`")
}

/// As [`board_keys`], for what the team `team` publishes: the keys that `dir` has of it
/// (`TEAM.pem`, `TEAM-….pem` or `.toml`).
///
/// # Errors
/// As [`board_keys`].
pub fn team_board_keys(dir: &Path, team: &str) -> Result<Vec<[u8; 32]>, KeyError> {
    let keys = folder::team_publics(dir, team)?;
    let keys = keys.iter().filter_map(raw).collect();
    some(keys, &format!("the team `{team}`"))
}

fn some(keys: Vec<[u8; 32]>, whose: &str) -> Result<Vec<[u8; 32]>, KeyError> {
    if keys.is_empty() {
        let whose = whose.to_owned();
        return Err(KeyError::NoBoardKey { whose });
    }
    Ok(keys)
}

/// The Ed25519 keys of the targets role, in the order of the root metadata.
pub(crate) fn of_role(root: &Root) -> Vec<[u8; 32]> {
    let by = role_keys(root, RoleType::Targets);
    let keys = by.keyids.iter().filter_map(|id| root.keys.get(id));
    keys.filter_map(raw).collect()
}

/// The raw public key, of an Ed25519 one.
pub(crate) fn raw(key: &Key) -> Option<[u8; 32]> {
    match key {
        Key::Ed25519 { keyval, .. } => keyval.public.as_ref().try_into().ok(),
        _ => None,
    }
}

/// `image` signed anew by `key` alone, with this counter: from a developer's desk straight to a
/// board that trusts the key. It names no keys of its own, and no repository knows it.
///
/// # Errors
/// [`ImageError`] when it is no board image.
pub fn sign_image(key: &KeyFile, counter: u32, image: &[u8]) -> Result<Vec<u8>, ImageError> {
    let read = board::read(image)?;
    let mut manifest = read.manifest;
    manifest.counter = counter;
    manifest.keys = Vec::new();
    let pair = key.key_pair();
    let public = pair.public_key();
    let message = board::signed_message(&manifest.encode());
    let signed = pair.sign(message.as_bytes());
    let (Ok(public), Ok(signature)) = (public.as_ref().try_into(), signed.as_ref().try_into())
    else {
        unreachable!("Ed25519 keys have 32 bytes, signatures 64 (RFC 8032)");
    };
    let signature = ImageSignature {
        key_id: board::key_id(public),
        signature,
    };
    board::assemble(&manifest, &[signature], read.body)
}

/// One line for people: the key in hex.
pub fn hex(key: &[u8; 32]) -> String {
    public::hex(key)
}
