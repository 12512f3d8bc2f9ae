//! What a device has: its components, their releases, what runs and where one can go back to.

use std::collections::BTreeMap;

use pytheas_release::{Name, TreeId};
use serde::{Deserialize, Serialize};

use crate::{Installed, Job, Machine, State};

/// The agent's own name: releases called so are the agent itself, never a device's first app.
pub const AGENT: &str = "pytheas-agent";

/// A component beside the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// The committed release.
    pub current: Installed,
    /// The release before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Installed>,
}

impl Machine {
    /// The committed release of the first component.
    pub fn current(&self) -> Option<&Installed> {
        self.current.as_ref()
    }

    /// The release before it.
    pub fn previous(&self) -> Option<&Installed> {
        self.previous.as_ref()
    }

    /// The components beside the first one, by name.
    pub fn components(&self) -> &BTreeMap<Name, Component> {
        &self.components
    }

    /// Every committed release.
    pub fn installed(&self) -> impl Iterator<Item = &Installed> {
        self.current
            .iter()
            .chain(self.components.values().map(|component| &component.current))
    }

    /// The committed release of a component.
    pub fn installed_as(&self, name: &Name) -> Option<&Installed> {
        self.installed()
            .find(|installed| installed.release.name == *name)
    }

    /// Name of the first component: the one installed first, or, on a fresh device, the first of
    /// what is being installed.
    pub fn first_name(&self) -> Option<&Name> {
        let is_app = |to: &&Installed| to.release.name.as_str() != AGENT;
        let coming = || self.update.job().and_then(|job| job.goals().find(is_app));
        self.current
            .as_ref()
            .or_else(coming)
            .map(|first| &first.release.name)
    }

    /// The release of the first component that should be running now.
    pub fn live(&self) -> Option<&Installed> {
        let first = self.first_name()?;
        self.running()
            .into_iter()
            .find(|installed| installed.release.name == *first)
    }

    /// The releases that should be running now: the new ones from the switch on. In the order in
    /// which they are started.
    pub fn running(&self) -> Vec<&Installed> {
        let moved: Vec<&Installed> = match &self.update {
            State::Switching { job }
            | State::Migrating { job, .. }
            | State::Probation { job, .. }
            | State::Committed { job } => job.goals().collect(),
            State::RollingBack { job, .. } => job.origins().collect(),
            _ => return self.installed().collect(),
        };
        let names: Vec<&Name> = self
            .update
            .job()
            .map(|job| job.names().collect())
            .unwrap_or_default();
        let stay = self
            .installed()
            .filter(|installed| !names.contains(&&installed.release.name));
        stay.chain(moved).collect()
    }

    /// The trees whose slots are needed now.
    pub fn needed(&self) -> Vec<TreeId> {
        let job = self.update.job();
        let previous = self
            .components
            .values()
            .filter_map(|component| component.previous.as_ref());
        self.installed()
            .chain(self.previous())
            .chain(previous)
            .chain(job.into_iter().flat_map(Job::goals))
            .chain(job.into_iter().flat_map(Job::origins))
            .map(|installed| installed.tree)
            .collect()
    }

    /// What [`Event::RollbackWanted`] leads to: what the last update moved goes back together.
    pub fn way_back(&self) -> Vec<&Installed> {
        let first = self.current.as_ref().map(|current| &current.release.name);
        let names: Vec<&Name> = match self.together.is_empty() {
            true => first.into_iter().collect(),
            false => self.together.iter().collect(),
        };
        let previous = |name: &Name| match first == Some(name) {
            true => self.previous.as_ref(),
            false => self.components.get(name)?.previous.as_ref(),
        };
        names.into_iter().filter_map(previous).collect()
    }

    /// What [`Event::Lost`] of the component `name` leads to; nothing when there is no way back
    /// for it.
    ///
    /// [`Event::Lost`]: crate::Event::Lost
    pub fn way_back_of(&self, name: &Name) -> Vec<&Installed> {
        let first = self.current.as_ref().map(|current| &current.release.name);
        let previous = match first == Some(name) {
            true => self.previous.as_ref(),
            false => self.components.get(name).and_then(|c| c.previous.as_ref()),
        };
        match previous {
            Some(_) if self.together.contains(name) => self.way_back(),
            alone => alone.into_iter().collect(),
        }
    }

    /// Notes what is committed for its component, and returns what was before.
    pub(crate) fn set_current(&mut self, to: Installed) -> Option<Installed> {
        let name = to.release.name.clone();
        let first = match &self.current {
            Some(current) => current.release.name == name,
            None => name.as_str() != AGENT,
        };
        if first {
            return self.current.replace(to);
        }
        match self.components.get_mut(&name) {
            Some(component) => Some(std::mem::replace(&mut component.current, to)),
            None => {
                let fresh = Component {
                    current: to,
                    previous: None,
                };
                self.components.insert(name, fresh);
                None
            }
        }
    }

    /// Forgets a component, unless it is the first one of several.
    pub(crate) fn remove(&mut self, name: &Name) {
        let is_first = self.current.as_ref().map(|first| &first.release.name) == Some(name);
        if is_first && self.components.keys().all(|other| other.as_str() == AGENT) {
            (self.current, self.previous) = (None, None);
        }
        self.components.remove(name);
        if self.together.contains(name) {
            // What went forward with it goes back without it, each by itself.
            self.together.clear();
        }
    }

    /// Where the release before a component's committed one is noted.
    pub(crate) fn previous_of(&mut self, name: &Name) -> Option<&mut Option<Installed>> {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.release.name == *name)
        {
            return Some(&mut self.previous);
        }
        self.components
            .get_mut(name)
            .map(|component| &mut component.previous)
    }
}

#[cfg(test)]
mod tests {
    use pytheas_release::Sha256;

    use super::*;
    use crate::Event;

    #[test]
    fn a_component_is_forgotten_and_the_first_one_only_as_the_last() {
        let installed = |release: &str| Installed {
            tree: TreeId(Sha256::of(release.as_bytes())),
            release: release.parse().unwrap(),
        };
        let name = |name: &str| -> Name { name.parse().unwrap() };
        let all = Machine::recovered(
            Some(installed("app@1")),
            None,
            vec![installed("broker@1"), installed("pytheas-agent@2")],
        );
        let without = |machine: &Machine, gone: &str| {
            let gone = name(gone);
            let left = machine.clone().step(Event::RemoveWanted { name: gone });
            let names = left.installed().map(|i| i.release.name.to_string());
            (names.collect::<Vec<_>>().join(" "), left)
        };
        assert_eq!(without(&all, "app").0, "app broker pytheas-agent");
        assert_eq!(without(&all, "other").0, "app broker pytheas-agent");
        let (names, left) = without(&all, "broker");
        assert_eq!(names, "app pytheas-agent");
        assert_eq!(without(&left, "app").0, "pytheas-agent");
    }

    #[test]
    fn after_a_lost_state_the_running_release_proves_itself_where_there_is_a_way_back() {
        let installed = |release: &str| Installed {
            tree: TreeId(Sha256::of(release.as_bytes())),
            release: release.parse().unwrap(),
        };
        let (old, new) = (installed("app@1"), installed("app@2"));
        let alone = Machine::recovered(Some(new.clone()), None, vec![]);
        assert_eq!((alone.state(), alone.current()), (&State::Idle, Some(&new)));

        let machine = Machine::recovered(Some(new.clone()), Some(old.clone()), vec![]);
        assert_eq!(machine.running(), [&new]);
        let to = new.tree;
        let proved = machine.clone().step(Event::Healthy { to });
        assert_eq!(proved.current(), Some(&new));
        assert_eq!(proved.previous(), Some(&old));
        let because = crate::Failure::new(crate::Reason::NotReady, "it said nothing");
        let failed = machine.step(Event::NotReady { to, because });
        assert_eq!(failed.running(), [&old]);
        let back = failed.step(Event::RolledBack { from: to });
        assert_eq!((back.state(), back.current()), (&State::Idle, Some(&old)));
    }
}
