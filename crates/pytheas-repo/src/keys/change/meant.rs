//! Which key somebody means, by an id, its first digits or a file's name; and why it is none that a role
//! has.

use std::path::Path;

use tough::schema::Root;

use super::{ChangeError, KeyId};
use crate::keys::{
    folder::{self, LEAST_DIGITS},
    public,
};

/// The key of any role of `root` that `key` means: the first digits of its id, or the name of its file
/// in `dir` (`targets-2`, also as a path).
///
/// `now` is the root in force: what only that has was revoked by a proposal.
pub(super) fn used(root: &Root, now: &Root, dir: &Path, key: &str) -> Result<KeyId, ChangeError> {
    let ids = by_digits(root, key);
    // A file may be called like the digits of another key: nothing is taken away by a guess.
    let file = match is_in(dir, key) {
        true => folder::named(dir, file_stem(key)).and_then(|found| found.id()),
        false => None,
    };
    match (&ids[..], &file) {
        ([], _) => {}
        ([id], None) => return Ok((*id).clone()),
        ([id], Some(_)) if public::hex(id).len() == key.len() => return Ok((*id).clone()),
        (ids, Some(file)) if ids.contains(&file) => return Ok(file.clone()),
        _ => return Err(ChangeError::Ambiguous { key: key.into() }),
    }
    if key.is_empty() {
        return Err(ChangeError::TooShort { key: key.into() });
    }
    let has = |root: &Root, id: &KeyId| root.roles.values().any(|by| by.keyids.contains(id));
    let here = is_in(dir, key).then(|| folder::find(dir, file_stem(key)).ok());
    let here = here.flatten();
    if let Some(id) = here.as_ref().and_then(folder::Found::id) {
        return match (has(root, &id), has(now, &id)) {
            (true, _) => Ok(id),
            (false, true) => Err(ChangeError::RevokedAlready { key: key.into() }),
            (false, false) => Err(ChangeError::Unused { key: key.into() }),
        };
    }
    if !by_digits(now, key).is_empty() {
        return Err(ChangeError::RevokedAlready { key: key.into() });
    }
    let is_hex = key.chars().all(|c| c.is_ascii_hexdigit());
    Err(match key.len() < LEAST_DIGITS && is_hex {
        true => ChangeError::TooShort { key: key.into() },
        false => ChangeError::NotUsed { key: key.into() },
    })
}

fn by_digits<'a>(root: &'a Root, key: &str) -> Vec<&'a KeyId> {
    let key = key.to_ascii_lowercase();
    let mut ids: Vec<&KeyId> = root.roles.values().flat_map(|by| &by.keyids).collect();
    ids.sort();
    ids.dedup();
    ids.retain(|id| key.len() >= LEAST_DIGITS && public::hex(id).starts_with(&key));
    ids
}

/// Whether a file of this name can be one of the folder `dir`: a path that leads elsewhere means
/// another key, of whatever name.
fn is_in(dir: &Path, name: &str) -> bool {
    let path = Path::new(name);
    let parent = path.parent().unwrap_or(Path::new(""));
    if parent.as_os_str().is_empty() {
        return true;
    }
    match (path.canonicalize(), dir.canonicalize()) {
        (Ok(path), Ok(dir)) => path.starts_with(dir),
        // As `pytheas keys show` lists it, or seen from beside the folder.
        _ => dir.ends_with(parent) || dir.join("online").ends_with(parent),
    }
}

/// `targets-2` of `keys/targets-2.pem`.
fn file_stem(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    let stem = name.strip_suffix(".pem");
    stem.or_else(|| name.strip_suffix(".toml")).unwrap_or(name)
}
