//! Compatibility: what releases say about each other and about the device, and the check of a whole
//! plan before anything is downloaded.
//!
//! ```text
//! requires  agent = ">=0.2"            this agent's version
//!           model = "Raspberry Pi 4*"  the device's model; alternatives separated by ` | `
//!           platform = "linux-*"       the device's platform, likewise
//!           current = ">=1.4"          the version of the same app that runs now, if any does
//!           NAME = ">=2,<3"            another component of the device
//!           feature:NAME = "1"         a part of this format that the agent has to know
//! conflicts NAME = "<1"                a component that may not be there in these versions
//! ```
//! A plan is a set of releases that are to run together from some moment on. It holds when what
//! comes of it, the components that stay and those that come, violates nothing that a changed
//! component says or that is said about one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{Name, Pep440, Platform, ReleaseRef, Specifiers};

/// Keys of `requires` that name no component.
const AGENT: &str = "agent";
const MODEL: &str = "model";
const PLATFORM: &str = "platform";
const CURRENT: &str = "current";
const FEATURE: &str = "feature:";
/// Parts of the format that came after its first version; an agent that does not know one refuses
/// releases that need it.
const FEATURES: &[&str] = &["conflicts", "hooks"];

/// What a release says about where it may run (`[tool.pytheas]`: `requires`, `conflicts`,
/// `allow-downgrade`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// What must be there: see the module.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, String>,
    /// What must not be there: component → versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conflicts: BTreeMap<String, String>,
    /// An older release may take this one's place, and this one a newer one's, without anybody
    /// asking for it: both understand the data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_downgrade: bool,
}

impl Rules {
    /// What is wrong with them, for the one who writes them; nothing when they can be judged.
    pub fn problem(&self) -> Option<String> {
        let wrong = |table: &str, key: &str, why: &dyn fmt::Display| {
            Some(format!("`{key}` in `{table}`: {why}"))
        };
        for (key, value) in &self.requires {
            let found = match key.as_str() {
                MODEL | PLATFORM if value.split('|').any(|one| one.trim().is_empty()) => {
                    Some("a name such as `Raspberry Pi 4*` is wanted".to_owned())
                }
                MODEL | PLATFORM => None,
                AGENT | CURRENT => least_or_range(value).err().map(|e| e.to_string()),
                _ if key.starts_with(FEATURE) => None,
                _ => component(key, value).err(),
            };
            if let Some(why) = found {
                return wrong("requires", key, &why);
            }
        }
        for (key, value) in &self.conflicts {
            if is_reserved(key) {
                return wrong("conflicts", key, &"only components can be in conflict");
            }
            if let Err(why) = component(key, value) {
                return wrong("conflicts", key, &why);
            }
        }
        None
    }
}

fn is_reserved(key: &str) -> bool {
    matches!(key, AGENT | MODEL | PLATFORM | CURRENT) || key.starts_with(FEATURE)
}

fn component(key: &str, value: &str) -> Result<(), String> {
    key.parse::<Name>().map_err(|error| error.to_string())?;
    value
        .parse::<Specifiers>()
        .map(drop)
        .map_err(|error| error.to_string())
}

/// A range; a bare version means that or a later one.
fn least_or_range(text: &str) -> Result<Specifiers, crate::NotSpecifiers> {
    if text.parse::<Pep440>().is_ok() {
        return format!(">={}", text.trim()).parse();
    }
    text.parse()
}

/// The `requires` of a release document: what the rules say, and the features that an agent must
/// know to judge the rest of it.
pub fn requires_with_features(rules: &Rules, has_hooks: bool) -> BTreeMap<String, String> {
    let mut requires = rules.requires.clone();
    let mut need = |feature: &str, needed: bool| {
        if needed {
            requires.insert(format!("{FEATURE}{feature}"), "1".to_owned());
        }
    };
    need("conflicts", !rules.conflicts.is_empty());
    need("hooks", has_hooks);
    requires
}

/// A release and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Which.
    pub release: ReleaseRef,
    /// What it says.
    pub rules: Rules,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The agent's version.
    pub agent: String,
    /// The device's model, where it has one.
    pub model: Option<String>,
    /// Its platform.
    pub platform: Platform,
}

/// Whether older releases may take the place of newer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrades {
    /// Where one of the two releases says so.
    ByRelease,
    /// Anybody's: an operator asked for it.
    Allowed,
}

/// Why a plan does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A requirement that is not met.
    #[error("`{release}` requires {what} {wanted}; {have}")]
    Requires {
        /// Who requires.
        release: ReleaseRef,
        /// What: `agent`, `model`, a component in backticks, …
        what: String,
        /// Which.
        wanted: String,
        /// What there is.
        have: String,
    },
    /// A requirement that cannot be judged.
    #[error("`{release}` requires `{what}` {wanted}, which this agent cannot judge")]
    Unknown {
        /// Who requires.
        release: ReleaseRef,
        /// The key.
        what: String,
        /// Its value.
        wanted: String,
    },
    /// Two components that do not go together.
    #[error("`{release}` conflicts with `{with}`: it rules out `{name}` {range}", name = with.name)]
    Conflict {
        /// Who says so.
        release: ReleaseRef,
        /// With whom.
        with: ReleaseRef,
        /// The versions ruled out.
        range: String,
    },
    /// An older release in the place of a newer one.
    #[error("`{to}` is older than `{from}`, which runs")]
    Downgrade {
        /// What runs.
        from: ReleaseRef,
        /// What is offered.
        to: ReleaseRef,
    },
    /// The same component twice.
    #[error("the plan names `{name}` twice")]
    Twice {
        /// The component.
        name: Name,
    },
}

impl Problem {
    /// What an operator can do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Requires { what, .. } if what == AGENT => "update the agent first".into(),
            Self::Requires { what, wanted, .. } if what == CURRENT => {
                format!("roll out a release that is {wanted} first, then this one")
            }
            Self::Requires { what, .. } if what == MODEL || what == PLATFORM => {
                "roll this release out to other devices, or correct the device's attribute".into()
            }
            Self::Requires { what, wanted, .. } => {
                format!("roll out {what} {wanted} in the same rollout, or before")
            }
            Self::Unknown { .. } => "update the agent first".into(),
            Self::Conflict { with, .. } => {
                format!("roll out another version of `{}` in the same rollout", with.name)
            }
            Self::Downgrade { .. } => {
                "start the rollout with `--allow-downgrade`, or set `allow-downgrade = true` in `[tool.pytheas]` of a release whose data older ones understand".into()
            }
            Self::Twice { .. } => "name one version of each component".into(),
        }
    }
}

/// The order in which `coming` is to be switched to, as positions in it: what is required comes
/// before what requires it. `installed` is what the device has, one release per component.
///
/// # Errors
/// Every [`Problem`] that keeps the plan from being carried out.
pub fn solve(
    facts: &Facts,
    installed: &[Component],
    coming: &[Component],
    downgrades: Downgrades,
) -> Result<Vec<usize>, Vec<Problem>> {
    let mut problems = Vec::new();
    let changed: BTreeSet<&str> = coming.iter().map(|c| c.release.name.as_str()).collect();
    for (at, component) in coming.iter().enumerate() {
        let name = &component.release.name;
        if coming[..at].iter().any(|other| other.release.name == *name) {
            problems.push(Problem::Twice { name: name.clone() });
        }
        let before = installed.iter().find(|other| other.release.name == *name);
        of_device(facts, component, before, &mut problems);
        if let Some(before) = before
            && downgrades == Downgrades::ByRelease
            && !before.rules.allow_downgrade
            && !component.rules.allow_downgrade
            && component
                .release
                .version
                .is_older_than(&before.release.version)
        {
            problems.push(Problem::Downgrade {
                from: before.release.clone(),
                to: component.release.clone(),
            });
        }
    }
    let staying = installed
        .iter()
        .filter(|component| !changed.contains(component.release.name.as_str()));
    let after: Vec<&Component> = staying.chain(coming).collect();
    for component in &after {
        between(component, &after, &changed, &mut problems);
    }
    if problems.is_empty() {
        Ok(order(coming))
    } else {
        Err(problems)
    }
}

/// What `component` requires of the device and of the release `before` it.
fn of_device(
    facts: &Facts,
    component: &Component,
    before: Option<&Component>,
    problems: &mut Vec<Problem>,
) {
    for (key, wanted) in &component.rules.requires {
        let mut missing = |have: String| {
            problems.push(Problem::Requires {
                release: component.release.clone(),
                what: key.clone(),
                wanted: wanted.clone(),
                have,
            });
        };
        let known = match key.as_str() {
            AGENT => within(least_or_range(wanted), &facts.agent).map(|fits| {
                if !fits {
                    missing(format!("this is agent {}", facts.agent));
                }
            }),
            CURRENT => match before {
                None => Some(()), // nothing here that would have to be new enough
                Some(before) => within(least_or_range(wanted), before.release.version.as_str())
                    .map(|fits| {
                        if !fits {
                            missing(format!("`{}` runs", before.release));
                        }
                    }),
            },
            MODEL => {
                match &facts.model {
                    Some(model) if one_of(wanted, model) => {}
                    Some(model) => missing(format!("this is `{model}`")),
                    None => missing("this device does not know its model".into()),
                }
                Some(())
            }
            PLATFORM => {
                if !one_of(wanted, facts.platform.as_str()) {
                    missing(format!("this is `{}`", facts.platform));
                }
                Some(())
            }
            _ => match key.strip_prefix(FEATURE) {
                Some(feature) => (FEATURES.contains(&feature) && wanted == "1").then_some(()),
                None => component_rule(key, wanted).map(drop),
            },
        };
        if known.is_none() {
            problems.push(Problem::Unknown {
                release: component.release.clone(),
                what: key.clone(),
                wanted: wanted.clone(),
            });
        }
    }
}

/// Whether `version` is in the range; nothing when that cannot be said.
fn within(range: Result<Specifiers, crate::NotSpecifiers>, version: &str) -> Option<bool> {
    range.ok()?.contain(version).ok()
}

fn component_rule(key: &str, range: &str) -> Option<Specifiers> {
    if is_reserved(key) {
        return None;
    }
    key.parse::<Name>().ok()?;
    range.parse().ok()
}

/// What `component` says about the others that will be there.
fn between(
    component: &Component,
    after: &[&Component],
    changed: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) {
    let release = &component.release;
    let comes = changed.contains(release.name.as_str());
    // What two components that stay think of each other is no reason against this plan.
    let matters = |other: &str| comes || changed.contains(other);
    for (name, wanted) in &component.rules.requires {
        let Some(range) = component_rule(name, wanted).filter(|_| matters(name)) else {
            continue; // of the device, or unknown: said already
        };
        let there = after
            .iter()
            .find(|other| other.release.name.as_str() == name);
        let have = match there {
            None => "it is not on this device".to_owned(),
            Some(other) => match range.contain(other.release.version.as_str()) {
                Ok(true) => continue,
                Ok(false) if changed.contains(name.as_str()) => {
                    format!("`{}` would run", other.release)
                }
                Ok(false) => format!("`{}` runs", other.release),
                Err(error) => error.to_string(),
            },
        };
        problems.push(Problem::Requires {
            release: release.clone(),
            what: format!("`{name}`"),
            wanted: wanted.clone(),
            have,
        });
    }
    for (name, ruled_out) in &component.rules.conflicts {
        let Some(other) = after
            .iter()
            .find(|other| other.release.name.as_str() == name)
        else {
            continue;
        };
        let range = component_rule(name, ruled_out);
        // What cannot be judged was meant to keep the two apart.
        let clash = range.is_none_or(|range| {
            range
                .contain(other.release.version.as_str())
                .unwrap_or(true)
        });
        if clash && matters(name) && other.release != *release {
            problems.push(Problem::Conflict {
                release: release.clone(),
                with: other.release.clone(),
                range: ruled_out.clone(),
            });
        }
    }
}

/// Whether one of the alternatives in `wanted` is `text`; `*` stands for any characters.
fn one_of(wanted: &str, text: &str) -> bool {
    wanted.split('|').any(|pattern| {
        let mut parts = pattern.trim().split('*');
        let first = parts.next().unwrap_or("");
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let parts: Vec<&str> = parts.collect();
        let Some((last, between)) = parts.split_last() else {
            return rest.is_empty(); // no `*`
        };
        for part in between {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    })
}

/// Positions of `coming`, what is required before what requires it, otherwise as they came. A
/// circle is broken at its first member: all are there before any is started.
fn order(coming: &[Component]) -> Vec<usize> {
    let position = |name: &str| coming.iter().position(|c| c.release.name.as_str() == name);
    let mut ordered: Vec<usize> = Vec::with_capacity(coming.len());
    while ordered.len() < coming.len() {
        let left = || (0..coming.len()).filter(|at| !ordered.contains(at));
        let is_ready = |at: &usize| {
            coming[*at].rules.requires.keys().all(|name| {
                position(name).is_none_or(|needed| needed == *at || ordered.contains(&needed))
            })
        };
        let next = left().find(is_ready).or_else(|| left().next());
        ordered.extend(next);
    }
    ordered
}

#[cfg(test)]
mod tests;
