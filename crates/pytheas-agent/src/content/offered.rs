//! Takes a delta that the hub has made on demand, when the signed release names none from what runs
//! here.
//!
//! Nobody has signed it, so nothing that it does may keep the device from updating, and nothing
//! that it says is believed: the tree it makes must be the signed one, it is never longer than that
//! tree's files, and on any fault the contents are fetched. The first offer of an update is
//! written down, and that it was of no use, too: a hub cannot lead a device through one delta after
//! another. The device never waits for a delta; one that is being made serves those that come later.

use std::fs;

use pytheas_release::{
    BlobRef, Tree,
    delta::{DeltaError, Head},
};
use pytheas_repo::client::Client;
use tracing::{debug, warn};

use super::{DeltaTrouble, Fetching};
use crate::failure::Trouble;

impl Fetching<'_> {
    /// The delta that the hub offers from what runs here, and did not prove useless before.
    pub(super) fn offered_delta(&self, client: &mut Client<'_>) -> Option<BlobRef> {
        let from = self.job.from.as_ref()?;
        self.old.as_ref()?;
        let is_same_app = from.release.name == self.job.to.release.name;
        if self.job.attempt != 0 || !is_same_app || self.release.deltas.contains_key(&from.tree) {
            return None;
        }
        let noted = fs::read(self.dir.offered(self.job.to.tree)).ok();
        let blob = match noted.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(known) => Option::<BlobRef>::clone(&known)?,
            None => match client.offered_delta(from.tree, self.job.to.tree) {
                Ok(blob) => blob?,
                Err(error) => {
                    let text = crate::http::chain(&error);
                    debug!("the hub was asked for a delta in vain: {text}");
                    return None;
                }
            },
        };
        if blob.size_bytes > self.release.tree.size_bytes {
            warn!(
                size_bytes = blob.size_bytes,
                "the delta that the hub offers is longer than the release; it is left"
            );
            return None;
        }
        self.note_offer(Some(&blob)).then_some(blob)
    }

    /// Applies it. Only a network that fails on the way, after something came, is a reason to come
    /// back later; all else makes it [`DeltaTrouble::Unusable`].
    pub(super) fn by_offered(
        &self,
        client: &mut Client<'_>,
        blob: &BlobRef,
    ) -> Result<Tree, DeltaTrouble> {
        let before = self.applied_bytes();
        let (why, comes_again) = match self.by_delta(client, blob) {
            Ok(tree) => return Ok(tree),
            Err(DeltaTrouble::Unusable(error)) => (error, false),
            Err(DeltaTrouble::Trouble(Trouble::Later(_))) if self.applied_bytes() > before => {
                return Err(DeltaTrouble::Trouble(Trouble::Later(
                    "the delta that the hub has made broke off".into(),
                )));
            }
            Err(DeltaTrouble::Trouble(Trouble::Later(text))) => (DeltaError::Damaged(text), true),
            Err(DeltaTrouble::Trouble(Trouble::Failed(failure))) => {
                (DeltaError::Damaged(failure.message().to_owned()), false)
            }
        };
        if !comes_again {
            self.note_offer(None);
            self.forget_begun();
        }
        Err(DeltaTrouble::Unusable(why))
    }

    /// Whether what an offered delta says of itself can be true.
    pub(super) fn is_plausible(&self, head: &Head, blob: &BlobRef) -> Result<(), DeltaTrouble> {
        let from = self.job.from.as_ref().map(|from| from.tree);
        if from.is_some_and(|from| self.release.deltas.contains_key(&from)) {
            return Ok(()); // somebody signed for it
        }
        let why = if head.delta_bytes() != blob.size_bytes {
            "it is not as long as its plan says"
        } else if head.content_bytes() > self.release.tree.size_bytes {
            "it makes more than the release has"
        } else {
            return Ok(());
        };
        Err(DeltaTrouble::Unusable(DeltaError::Damaged(why.into())))
    }

    /// Writes down what was offered, or that it is of no use; whether that worked.
    fn note_offer(&self, blob: Option<&BlobRef>) -> bool {
        let path = self.dir.offered(self.job.to.tree);
        let bytes = serde_json::to_vec(&blob).unwrap_or_default();
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return true;
        }
        pytheas_durable::replace(&path, &bytes).is_ok()
    }

    /// Length of what is written down of the applying: it grows with each segment.
    fn applied_bytes(&self) -> u64 {
        let log = self.dir.fetched(self.job.to.tree).join("delta");
        fs::metadata(log).map_or(0, |metadata| metadata.len())
    }

    /// Removes what only serves to go on with a delta.
    fn forget_begun(&self) {
        let folder = self.dir.fetched(self.job.to.tree);
        let begun = |name: &str| name.starts_with("made-");
        let made = fs::read_dir(self.dir.objects(self.job.to.tree));
        for entry in made.into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(begun) {
                let _there_or_not = fs::remove_file(entry.path());
            }
        }
        for name in ["delta", "segment"] {
            let _there_or_not = fs::remove_file(folder.join(name));
        }
    }
}
