//! Looking for a target: in the top-level targets metadata, then in the roles it delegates to
//! (TUF §5.6.7 and §5.7).
//!
//! A device trusts a delegated target because each role on the way to it is signed by the keys its
//! delegator names, listed in the snapshot with exactly this version, not expired, and allowed to
//! name targets of this name by every role before it. The first role that names it decides.

use std::collections::HashSet;

use tracing::debug;

use super::{
    Client,
    delegations::Delegate,
    metadata::{MetadataError, check_expiry},
    schema::{Role as _, Target, Targets},
    trusted::{Stored, Trusted},
};

impl Client<'_> {
    /// What signed metadata says about the target `name`; `None` when nobody names it who may.
    ///
    /// Roles are asked depth first in the order in which they are delegated to, each once, at most
    /// [`super::Limits::delegations`]. Metadata of a role that cannot be had or is not in order
    /// ends the search with an error: roles after it have less to say (§5.6.7).
    pub(super) fn search(&mut self, name: &str) -> Result<Option<Target>, MetadataError> {
        // A role to ask, and who delegates to it; the top-level role has no delegator.
        let mut to_ask: Vec<(String, Option<String>)> = vec![(Targets::NAME.into(), None)];
        let mut asked = HashSet::new();
        while let Some((role, delegator)) = to_ask.pop() {
            if asked.contains(&role) {
                continue;
            }
            if asked.len() > self.limits.delegations {
                debug!("`{name}` was looked for in {} roles", asked.len());
                return Ok(None);
            }
            if let Some(delegator) = &delegator {
                self.update_delegated(&role, delegator)?;
            }
            let Some(stored) = self.trusted.targets_role(&role) else {
                return Err(MetadataError::NotRefreshed);
            };
            if let Some(target) = stored.signed.targets.get(name) {
                return Ok(Some(target.clone()));
            }
            let delegates = match &stored.signed.delegations {
                Some(delegations) => delegations.of(name),
                None => Vec::new(),
            };
            // 5.6.7.2.1 After a terminating role nobody else is asked, whoever waits.
            if delegates.iter().any(|delegate| delegate.terminating) {
                to_ask.clear();
            }
            let next = delegates.into_iter().rev();
            to_ask.extend(next.map(|Delegate { role: child, .. }| (child, Some(role.clone()))));
            asked.insert(role);
        }
        Ok(None)
    }

    /// 5.6.7.1 Brings the metadata of the delegated role `role` up to date, by the same steps as
    /// the targets role's, with the keys that `delegator` names.
    fn update_delegated(&mut self, role: &str, delegator: &str) -> Result<(), MetadataError> {
        let start = self.time.ok_or(MetadataError::NotRefreshed)?;
        let promise = self.promised(role)?;
        let delegations = self
            .trusted
            .targets_role(delegator)
            .and_then(|stored| stored.signed.delegations.as_ref());
        let Some(delegations) = delegations else {
            return Err(MetadataError::NotRefreshed);
        };
        let keys = delegations.keys(role);
        let stored = Trusted::load_delegated(&self.metadata_dir, role, keys);
        if let Some(stored) = stored.filter(|stored| promise.is_kept_by(stored)) {
            check_expiry(&stored.signed, role, &promise.file, start)?;
            self.trusted.delegated.insert(role.to_owned(), stored);
            return Ok(());
        }
        let fetched: Stored<Targets> = promise.fetch(self.fetch, self.limits.targets, keys)?;
        check_expiry(&fetched.signed, role, &promise.file, start)?;
        self.trusted
            .keep_delegated(&self.metadata_dir, role, fetched)
    }
}
