//! `report.json`: what an image holds and why, what was left out and why, what each part costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::firmware::{Has, Instead};

/// The report's file in a built tree.
pub const REPORT_FILE: &str = "report.json";

/// Why a module is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Why {
    /// It is started.
    Entry,
    /// A module imports it.
    Import {
        /// The file that does.
        by: String,
        /// The line, where one is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<u32>,
        /// Inside a function.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lazy: bool,
    },
    /// The package of a module that is there.
    Parent {
        /// That module.
        of: String,
    },
    /// `keep` names it.
    Keep {
        /// As written.
        pattern: String,
    },
    /// Data of a package that is there.
    Data,
    /// `include` names it.
    Include,
}

impl Why {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Entry => "entry point".to_owned(),
            Self::Import { by, line, lazy } => {
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                let when = if *lazy { ", inside a function" } else { "" };
                format!("imported by {by}{line}{when}")
            }
            Self::Parent { of } => format!("package of {of}"),
            Self::Keep { pattern } => format!("`keep` has `{pattern}`"),
            Self::Data => "data of its package".to_owned(),
            Self::Include => "`include` names it".to_owned(),
        }
    }
}

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its path on the board, below `/app`.
    pub path: String,
    /// Its module; none for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// `app`, or the package.
    pub from: String,
    /// What it takes in the image.
    pub bytes: u64,
    /// What its source has.
    pub source_bytes: u64,
    /// Why it is there.
    pub why: Why,
}

/// One file that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The file.
    pub path: String,
    /// `app`, or the package.
    pub from: String,
    /// Its size.
    pub bytes: u64,
    /// Why it is not there.
    pub why: String,
}

/// A module that the firmware has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareUse {
    /// How.
    pub has: Has,
    /// The first file that imports it.
    pub by: String,
    /// Its line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// A locked package has it, too, and was left out for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hides: Option<String>,
}

/// When a missing module would be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Needed {
    /// With the module that names it: the app cannot start.
    Always,
    /// When a function is called.
    Later,
    /// In a `try`, an `if` or the like: the program may do without.
    Perhaps,
}

/// A module that nothing has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub module: String,
    /// The file that imports it.
    pub by: String,
    /// The line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// When it would be imported.
    pub when: Needed,
    /// What to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<Instead>,
}

impl Missing {
    /// Whether the app cannot start without it.
    pub fn is_certain(&self) -> bool {
        self.when == Needed::Always
    }

    /// `file:line`.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.by),
            None => self.by.clone(),
        }
    }
}

/// An import that only running decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecided {
    /// The file.
    pub by: String,
    /// The line.
    pub line: u32,
    /// The call.
    pub call: String,
}

/// The content of `report.json` (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Format: 1.
    pub format: u32,
    /// The image's length.
    pub image_bytes: u64,
    /// What is in it.
    pub kept: Vec<Kept>,
    /// What is not.
    pub dropped: Vec<Dropped>,
    /// Imported modules that the firmware has.
    pub firmware: BTreeMap<String, FirmwareUse>,
    /// Imported modules that nothing has.
    pub missing: Vec<Missing>,
    /// Imports that only running decides.
    pub undecided: Vec<Undecided>,
    /// Bytes by package.
    pub packages: BTreeMap<String, u64>,
}

impl Report {
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a report has only string keys");
        bytes.push(b'\n');
        bytes
    }

    /// Why `module` is there: first it, then what led to it, up to the entry point.
    pub fn chain(&self, module: &str) -> Vec<(&str, &Why)> {
        let mut chain: Vec<(&str, &Why)> = Vec::new();
        let mut wanted = self
            .kept
            .iter()
            .find(|kept| kept.module.as_deref() == Some(module) || kept.path == module);
        while let Some(kept) = wanted {
            let name = kept.module.as_deref().unwrap_or(&kept.path);
            if chain.iter().any(|(other, _)| *other == name) {
                break;
            }
            chain.push((name, &kept.why));
            wanted = match &kept.why {
                Why::Import { by, .. } => self.kept.iter().find(|kept| kept.is_source(by)),
                Why::Parent { of } => self
                    .kept
                    .iter()
                    .find(|kept| kept.module.as_deref() == Some(of)),
                _ => None,
            };
        }
        chain
    }
}

impl Kept {
    /// Whether `source`, the file of an import, became this one.
    fn is_source(&self, source: &str) -> bool {
        let stem = |path: &str| {
            path.trim_end_matches(".mpy")
                .trim_end_matches(".py")
                .to_owned()
        };
        let own = stem(&self.path);
        let other = stem(source);
        own == other
            || ["src/", "lib/"]
                .iter()
                .any(|root| other.strip_prefix(root) == Some(&own))
    }
}
