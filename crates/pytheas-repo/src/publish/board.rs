//! The signed image of a MicroPython release, made at publish from the unsigned one in the tree:
//! counter and keys go into its manifest, signatures behind it; the body stays as it was built.
//!
//! Boards know no TUF. What stands in for it: the Ed25519 keys of the role that publishes sign the
//! manifest, and the counter, which a board never lets go down, is the version of that role's
//! metadata (or one above the highest counter in the repository, when a team begins to count).
//! Once the root has changed, the manifest names the targets role's keys, so that boards follow a
//! rotation as other devices do.

use std::path::{Path, PathBuf};

use pytheas_release::{
    BlobRef, BoardImage, BuildRecord, Entry, RelPath, Sha256, Tree,
    board::{self, ImageError, ImageManifest, ImageSignature},
};
use tough::schema::RoleType;

use super::{Event, Events, PublishError, Source, add};
use crate::{
    keys::{PublisherKeys, boards, public},
    sign::{SignError, role_keys},
};

/// Name of the file that maps tracebacks back to sources.
const LINES_FILE: &str = "lines.json";
/// Longest one that is published, in bytes.
const LINES_MAX: u64 = 16 << 20;

/// The image that was built, read and checked.
pub(super) struct Unsigned {
    path: PathBuf,
    manifest: ImageManifest,
    body: Vec<u8>,
    lines: Option<Vec<u8>>,
}

/// The image in the built folder `dir`, when it is one for boards.
pub(super) fn read(
    dir: &Path,
    record: &BuildRecord,
    tree: &Tree,
) -> Result<Option<Unsigned>, PublishError> {
    if !record.platform.is_board() {
        return Ok(None);
    }
    let path = dir.join(record.entry.as_str());
    let wrong = |why: String| PublishError::BoardImage {
        path: path.clone(),
        why,
    };
    let bytes = content(dir, &record.entry, tree, board::IMAGE_MAX as u64).map_err(wrong)?;
    let image = board::read(&bytes).map_err(|error| wrong(error.to_string()))?;
    let manifest = image.manifest;
    let says = format!(
        "{}@{} for {}",
        manifest.name, manifest.version, manifest.platform
    );
    let should = format!("{}@{} for {}", record.name, record.version, record.platform);
    if says != should {
        return Err(wrong(format!(
            "its manifest is of {says}, the folder's record of {should}"
        )));
    }
    let lines = match LINES_FILE.parse() {
        Ok(name) if tree.get(&name).is_some() => {
            Some(content(dir, &name, tree, LINES_MAX).map_err(wrong)?)
        }
        _ => None,
    };
    let body = image.body.to_vec();
    Ok(Some(Unsigned {
        path,
        manifest,
        body,
        lines,
    }))
}

/// The file `name` of the built folder, as the tree has it.
fn content(dir: &Path, name: &RelPath, tree: &Tree, limit: u64) -> Result<Vec<u8>, String> {
    let Some(Entry::File {
        sha256, size_bytes, ..
    }) = tree.get(name)
    else {
        return Err(format!("`{name}` is no file"));
    };
    if *size_bytes > limit {
        return Err(format!("`{name}` is longer than {limit} bytes"));
    }
    let bytes = std::fs::read(dir.join(name.as_str()))
        .map_err(|error| format!("`{name}` cannot be read: {error}"))?;
    if Sha256::of(&bytes) != *sha256 {
        return Err(format!("`{name}` was changed meanwhile"));
    }
    Ok(bytes)
}

impl Unsigned {
    /// Signs it and puts it on the list of uploads.
    pub(super) fn sign(
        self,
        keys: &PublisherKeys,
        counter: u64,
        uploads: &mut Vec<(BlobRef, Source)>,
        events: &Events,
    ) -> Result<BoardImage, PublishError> {
        let Self {
            path,
            mut manifest,
            body,
            lines,
        } = self;
        let wrong = |why: String| PublishError::BoardImage {
            path: path.clone(),
            why,
        };
        let counter = u32::try_from(counter).map_err(|_| {
            wrong(format!(
                "the counter {counter} is more than boards can count"
            ))
        })?;
        let root = &keys.root.signed;
        manifest.counter = counter;
        if keys.team.is_none() && root.version.get() > 1 && manifest.keys.is_empty() {
            let trusted = boards::of_role(root);
            manifest.keys = trusted.iter().map(|key| public::hex(key)).collect();
        }
        let message = board::signed_message(&manifest.encode());
        let mut signatures = Vec::new();
        let mut warnings = Vec::new();
        let mut kinds = Vec::new();
        for key in keys.signers.iter().chain(&keys.board_signers) {
            let half = key.public();
            let Some(raw) = boards::raw(&half) else {
                kinds.push(public::scheme(&half));
                continue;
            };
            let signature = key.sign(message.as_bytes())?;
            signatures.push(ImageSignature {
                key_id: board::key_id(&raw),
                signature: signature.try_into().map_err(|_| SignError::Key {
                    key: public::hex(&key.id()),
                    source: "its signature is not 64 bytes long".into(),
                })?,
            });
        }
        if signatures.is_empty() {
            let have = kinds.join(", ");
            return Err(PublishError::BoardKey { have });
        }
        if !kinds.is_empty() {
            warnings.push(format!(
                "boards check Ed25519 alone, so they do not see the signature of {}",
                kinds.join(", ")
            ));
        }
        let needed = role_keys(root, RoleType::Targets).threshold.get();
        if keys.team.is_none() && needed > 1 {
            warnings.push(format!(
                "a board takes an image that one of its keys signed; that {needed} sign is demanded by other devices only"
            ));
        }
        // The front has room for two, more only by luck: the keys of today come first.
        let signed = loop {
            match board::assemble(&manifest, &signatures, &body) {
                Ok(image) => break image,
                Err(_) if signatures.len() > 1 => {
                    signatures.pop();
                }
                Err(error) => return Err(wrong(bare(&error))),
            }
        };
        events.tell(Event::BoardSigned {
            counter,
            signatures: signatures.len(),
            warnings,
        });
        Ok(BoardImage {
            image: add(uploads, signed),
            counter,
            lines: lines.map(|lines| add(uploads, lines)),
        })
    }
}

fn bare(error: &ImageError) -> String {
    error
        .to_string()
        .trim_start_matches("no board image: ")
        .to_owned()
}
