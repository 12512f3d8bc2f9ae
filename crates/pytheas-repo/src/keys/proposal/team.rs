//! Metadata of a team that waits for signatures by its other keys.
//!
//! Carries the whole targets metadata, because that alone says which keys are the team's: whoever
//! signs verifies it under the root that the proposal builds on and need not believe anybody.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tough::schema::{RoleKeys, Root, Signed, Targets, key::Key};

use crate::{delegations, keys::KeyId};

/// What is proposed, and what makes it a team's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OfTeam {
    /// The team's name.
    pub(crate) team: String,
    /// The targets metadata, which delegates to the team.
    pub(crate) targets: Signed<Targets>,
    /// The team's metadata, not signed enough yet.
    pub(crate) signed: Signed<Targets>,
}

impl OfTeam {
    /// What is wrong with it, if it builds on `root`. To be asked before anything else.
    pub(super) fn check(&self, root: &Root) -> Result<(), String> {
        root.verify_role(&self.targets)
            .map_err(|error| format!("the targets metadata in it: {error}"))?;
        let (_, role) = delegations::role(&self.targets.signed, &self.team)
            .map_err(|error| error.to_string())?;
        let proposed = &self.signed.signed;
        if proposed.delegations.is_some() {
            return Err(format!("the team `{}` cannot delegate", self.team));
        }
        let mut names = proposed.targets.keys();
        match names.find(|name| !delegations::covers(&role.paths, name.raw())) {
            Some(name) => Err(format!(
                "`{}` is not for the team `{}` to sign",
                name.raw(),
                self.team
            )),
            None => Ok(()),
        }
    }

    /// The keys that must sign.
    pub(super) fn by(&self) -> Option<RoleKeys> {
        let (_, role) = delegations::role(&self.targets.signed, &self.team).ok()?;
        Some(delegations::signers(role))
    }

    /// The public halves of teams' keys.
    pub(super) fn keys(&self) -> Option<&HashMap<KeyId, Key>> {
        let all = self.targets.signed.delegations.as_ref()?;
        Some(&all.keys)
    }
}
