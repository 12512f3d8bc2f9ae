//! What is published beside the tree: the statement on where it came from, signed, and the bill of
//! materials.

use std::path::Path;

use pytheas_release::{BlobRef, TreeId};
use serde_json::Value;

use super::{Attached, Event, Events, PublishError, Source, add};
use crate::{
    dsse::{Envelope, IN_TOTO},
    keys::PublisherKeys,
};

/// Longest file that is taken, in bytes.
const MAX: u64 = 64 << 20;

/// Puts the files on the list of uploads: the statement in a signed envelope, and the bill.
pub(super) fn read(
    keys: &PublisherKeys,
    attached: &Attached,
    tree: TreeId,
    uploads: &mut Vec<(BlobRef, Source)>,
    events: &Events,
) -> Result<(Option<BlobRef>, Option<BlobRef>), PublishError> {
    let mut provenance = None;
    if let Some(path) = &attached.statement {
        match envelope(keys, path, tree) {
            Ok(envelope) => provenance = Some(add(uploads, envelope.encode())),
            Err(PublishError::Attached { path, why }) if attached.statement_was_found => {
                events.tell(Event::NoStatement { path, why });
            }
            Err(error) => return Err(error),
        }
    }
    let mut sbom = None;
    if let Some(path) = &attached.sbom {
        sbom = Some(add(uploads, content(path)?));
    }
    Ok((provenance, sbom))
}

/// The statement in `path`, signed.
fn envelope(keys: &PublisherKeys, path: &Path, tree: TreeId) -> Result<Envelope, PublishError> {
    let wrong = |why: String| PublishError::Attached {
        path: path.to_owned(),
        why,
    };
    let bytes = content(path)?;
    let statement: Value =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("it is no JSON: {error}")))?;
    if !speaks_of(&statement, tree) {
        return Err(wrong(format!(
            "none of its subjects has the id of this tree, {}",
            tree.0
        )));
    }
    Envelope::sign(keys, IN_TOTO, &bytes)
        .map_err(|error| wrong(format!("the targets key cannot sign it: {error}")))
}

/// Whether a subject of the in-toto statement is the tree.
fn speaks_of(statement: &Value, tree: TreeId) -> bool {
    let id = tree.0.to_string();
    let subjects = statement["subject"].as_array().into_iter().flatten();
    let mut digests = subjects.map(|subject| &subject["digest"]["sha256"]);
    digests.any(|digest| *digest == id.as_str())
}

fn content(path: &Path) -> Result<Vec<u8>, PublishError> {
    let wrong = |why: String| PublishError::Attached {
        path: path.to_owned(),
        why,
    };
    let cannot = |error: std::io::Error| wrong(format!("it cannot be read: {error}"));
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX {
        return Err(wrong(format!("it is longer than {MAX} bytes")));
    }
    std::fs::read(path).map_err(cannot)
}
