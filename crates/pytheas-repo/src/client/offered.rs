//! Deltas that a hub has made on demand: offered beside the repository, signed by nobody.
//!
//! `deltas/<from>-<to>.json` names a blob by its hash and length. Whoever can write to the hub can
//! write anything there, so it is only a hint where to read: the hash finds damage on the way, and
//! what the delta makes is compared with the signed tree before it is used.

use pytheas_release::{BlobRef, TreeId};

use super::{Client, ContentError};
use crate::{fetch::fetch_if_any, layout};

impl Client<'_> {
    /// The delta from tree `from` to tree `to` that is offered, if there is one that can be read;
    /// unverified. Hubs may begin to make one when they are asked.
    ///
    /// # Errors
    /// [`ContentError::Download`] when the repository does not answer, or answers too much.
    pub fn offered_delta(
        &mut self,
        from: TreeId,
        to: TreeId,
    ) -> Result<Option<BlobRef>, ContentError> {
        let path = layout::offered_delta(from, to);
        let bytes = fetch_if_any(self.fetch, &path, layout::OFFERED_MAX)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}
