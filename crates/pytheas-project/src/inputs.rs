//! What a lock was made from, in one spelling: kept in `[tool.pytheas]` of `pylock.toml`, so that
//! a stale lock is noticed offline and the change can be named.

use std::collections::{BTreeMap, BTreeSet};

use pytheas_release::Sha256;
use serde::{Deserialize, Serialize};

use crate::{
    project::{Project, RequirementSource},
    requirements::{self, RequirementsError, normalise},
    source::{redacted, wanted},
};

/// The inputs of a lock (format 1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LockInputs {
    /// Version of this table's format.
    pub format: u32,
    /// `project.requires-python`, or the Python that the settings want.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Everything the app needs, extras and groups included.
    pub requirements: BTreeSet<String>,
    /// Limits on versions.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub constraints: BTreeSet<String>,
    /// Options written into requirements files.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub options: BTreeSet<String>,
    /// Platforms of the targets.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub platforms: BTreeSet<String>,
    /// Hash of `[tool.uv]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uv_settings: Option<String>,
    /// Hashes that requirements files demand, by package.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hashes: BTreeMap<String, BTreeSet<String>>,
    /// Hashes of other files that it was made from, by their paths from the lock: those of local
    /// packages, those that a build back end reads.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// One difference between what a lock was made from and what is written now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A requirement is new.
    Added(String),
    /// A requirement is gone.
    Removed(String),
    /// Another version, marker or extra of the same package is asked for.
    Changed {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// Another Python is wanted.
    Python {
        /// Before.
        from: Option<String>,
        /// Now.
        to: Option<String>,
    },
    /// A platform is new.
    PlatformAdded(String),
    /// A platform is gone.
    PlatformRemoved(String),
    /// `[tool.uv]` or an option such as `--index-url` changed.
    Options(String),
    /// A file of a local package, or one that the build back end reads, changed.
    File(String),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let python = |value: &Option<String>| value.clone().unwrap_or_else(|| "any".to_owned());
        match self {
            Self::Added(what) => write!(f, "added `{what}`"),
            Self::Removed(what) => write!(f, "removed `{what}`"),
            Self::Changed { from, to } => write!(f, "changed `{from}` to `{to}`"),
            Self::Python { from, to } => write!(
                f,
                "changed Python from `{}` to `{}`",
                python(from),
                python(to)
            ),
            Self::PlatformAdded(what) => write!(f, "added platform `{what}`"),
            Self::PlatformRemoved(what) => write!(f, "removed platform `{what}`"),
            Self::Options(what) => write!(f, "changed {what}"),
            Self::File(path) => write!(f, "changed `{path}`"),
        }
    }
}

impl LockInputs {
    /// What the project asks for now.
    ///
    /// # Errors
    /// When a requirements file cannot be read.
    pub fn of(project: &Project) -> Result<Self, RequirementsError> {
        let mut inputs = Self {
            format: 1,
            python: project.python(None).map(|request| request.normalised()),
            uv_settings: project
                .uv_settings
                .as_ref()
                .map(|text| Sha256::of(text.as_bytes()).to_string()),
            platforms: project
                .settings
                .target
                .values()
                .filter_map(|target| target.platform.as_ref())
                .map(ToString::to_string)
                .collect(),
            ..Self::default()
        };
        match project.source {
            RequirementSource::RequirementsTxt => {
                let found = requirements::read(&project.dir.join(&project.input))?;
                inputs.requirements = found.requirements;
                inputs.constraints = found.constraints;
                inputs.options = found.options;
                inputs.hashes = found.hashes;
            }
            RequirementSource::BuildBackend => {
                for name in ["pyproject.toml", "setup.py", "setup.cfg"] {
                    if let Ok(bytes) = std::fs::read(project.dir.join(name)) {
                        let hash = Sha256::of(&bytes);
                        inputs.options.insert(format!("{name} sha256:{hash}"));
                    }
                }
            }
            _ => {}
        }
        inputs.require(&wanted(project));
        inputs.hashes.extend(project.found.hashes.clone());
        for index in &project.found.indexes {
            inputs
                .options
                .insert(redacted(&format!("index {} {}", index.name, index.url)));
        }
        let options = &project.found.pip_options;
        inputs
            .options
            .extend(options.iter().map(|option| redacted(option)));
        Ok(inputs)
    }

    fn require(&mut self, list: &[String]) {
        self.requirements
            .extend(list.iter().map(|text| normalise(text)));
    }

    /// What changed from `self` to `now`; nothing when a lock made from `self` still holds.
    pub fn changes(&self, now: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        requirement_changes(&self.requirements, &now.requirements, &mut changes);
        requirement_changes(&self.constraints, &now.constraints, &mut changes);
        if self.python != now.python {
            changes.push(Change::Python {
                from: self.python.clone(),
                to: now.python.clone(),
            });
        }
        changes.extend(
            now.platforms
                .difference(&self.platforms)
                .cloned()
                .map(Change::PlatformAdded),
        );
        changes.extend(
            self.platforms
                .difference(&now.platforms)
                .cloned()
                .map(Change::PlatformRemoved),
        );
        changes.extend(
            self.options
                .symmetric_difference(&now.options)
                .map(|option| Change::Options(format!("option `{option}`"))),
        );
        let names: BTreeSet<_> = self.hashes.keys().chain(now.hashes.keys()).collect();
        changes.extend(
            names
                .into_iter()
                .filter(|name| self.hashes.get(*name) != now.hashes.get(*name))
                .map(|name| Change::Options(format!("hashes of `{name}`"))),
        );
        changes.extend(
            self.files
                .iter()
                .filter(|(path, hash)| now.files.get(*path) != Some(hash))
                .map(|(path, _)| Change::File(path.clone())),
        );
        if self.uv_settings != now.uv_settings {
            changes.push(Change::Options("`[tool.uv]`".to_owned()));
        }
        changes
    }
}

/// The name of the package that a requirement asks for; the whole text when it is none.
fn key(text: &str) -> String {
    requirements::parse(text).map_or_else(
        || text.to_owned(),
        |requirement| requirement.name.to_string(),
    )
}

fn requirement_changes(old: &BTreeSet<String>, new: &BTreeSet<String>, changes: &mut Vec<Change>) {
    let mut removed: Vec<&String> = old.difference(new).collect();
    for added in new.difference(old) {
        match removed.iter().position(|text| key(text) == key(added)) {
            Some(at) => changes.push(Change::Changed {
                from: removed.remove(at).clone(),
                to: added.clone(),
            }),
            None => changes.push(Change::Added(added.clone())),
        }
    }
    changes.extend(removed.into_iter().cloned().map(Change::Removed));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(requirements: &[&str]) -> LockInputs {
        LockInputs {
            requirements: requirements.iter().map(ToString::to_string).collect(),
            ..LockInputs::default()
        }
    }

    #[test]
    fn each_change_is_named() {
        let mut old = inputs(&["a", "b>=1", "c"]);
        old.platforms.insert("linux-armv7".to_owned());
        let mut new = inputs(&["a", "b>=2", "d"]);
        new.python = Some(">=3.11".to_owned());
        old.files.insert("lib/setup.py".to_owned(), "00".to_owned());
        old.files.insert("deps.in".to_owned(), "00".to_owned());
        new.files.insert("deps.in".to_owned(), "00".to_owned());
        let shown: Vec<String> = old.changes(&new).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "changed `b>=1` to `b>=2`",
                "added `d`",
                "removed `c`",
                "changed Python from `any` to `>=3.11`",
                "removed platform `linux-armv7`",
                "changed `lib/setup.py`",
            ]
        );
        assert!(new.changes(&new).is_empty());
    }
}
