//! What is audited: the packages of a lock (PEP 751), of a bill of materials (CycloneDX, whoever
//! made it), or of a built tree, with its interpreter.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pep440_rs::Version;
use pytheas_project::{Project, Pylock, PylockError, export, normalised_name};
use pytheas_release::{Platform, RECORD_FILE};
use serde_json::Value;

use super::advisory::Kind;
use crate::known::inventory::{Inventory, InventoryError};

/// One thing that may have advisories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// Normalised name (PEP 503); `cpython` for the interpreter.
    pub name: String,
    /// Its version; none when nobody knows it.
    pub version: Option<Version>,
    /// When it is installed (PEP 508); always when absent.
    pub marker: Option<String>,
    /// The project's targets that it is part of; empty when there are none, or it is unknown.
    pub targets: Vec<String>,
    /// Whether the program reaches one of its modules, as far as imports tell.
    pub reached: Option<bool>,
}

/// What is audited.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its parts.
    pub parts: Vec<Part>,
    /// Packages without a version: from a folder or a repository.
    pub unversioned: Vec<String>,
}

/// Something that cannot be audited.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SubjectError {
    /// The lock cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Lock(#[from] PylockError),
    /// The tree cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tree(#[from] InventoryError),
    /// No lock yet.
    #[error("there is no lock file `{}`", path.display())]
    #[diagnostic(
        code(pytheas::audit::no_lock),
        help("run `pytheas lock` first, or give a built folder or a bill of materials")
    )]
    NoLock {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(pytheas::audit::read),
        help("check that the file exists and its permissions allow it")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No bill of materials.
    #[error("`{}` is no bill of materials: {reason}", path.display())]
    #[diagnostic(
        code(pytheas::audit::sbom),
        help("CycloneDX in JSON is understood: what `pytheas sbom` prints, for instance")
    )]
    Sbom {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Subject {
    /// The parts of the built tree in `dir`, with what its imports reach.
    ///
    /// # Errors
    /// When it is no built tree, or cannot be read.
    pub fn of_tree(dir: &Path) -> Result<Self, SubjectError> {
        let inventory = Inventory::read(dir)?;
        let bill = crate::known::sbom(dir)?;
        let mut subject = Self::of_bill(dir, &bill)?;
        let reached = reached(&inventory);
        for part in &mut subject.parts {
            if part.kind == Kind::Package {
                part.reached = reached.get(&part.name).copied();
            }
        }
        Ok(subject)
    }

    /// The parts in the bill of materials `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn of_bill_file(path: &Path) -> Result<Self, SubjectError> {
        let bytes = std::fs::read(path).map_err(|source| SubjectError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::of_bill(path, &bytes)
    }

    fn of_bill(path: &Path, bytes: &[u8]) -> Result<Self, SubjectError> {
        let wrong = |reason: String| SubjectError::Sbom {
            path: path.to_owned(),
            reason,
        };
        let bill: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if bill["bomFormat"] != "CycloneDX" {
            return Err(wrong("its `bomFormat` is not `CycloneDX`".to_owned()));
        }
        let mut subject = Self::empty(path);
        let mut open: Vec<&Value> = bill["components"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        open.extend(bill["metadata"].get("component"));
        let mut seen = BTreeSet::new();
        while let Some(component) = open.pop() {
            open.extend(component["components"].as_array().into_iter().flatten());
            let Some((kind, name, version)) = part_of(component) else {
                continue;
            };
            if seen.insert((kind, name.clone(), version.clone())) {
                subject.add(kind, name, version.as_deref(), None, Vec::new());
            }
        }
        subject.sort();
        Ok(subject)
    }

    /// The packages of the lock at `path`; of those, with `platform`, that it may need.
    /// `project` names the targets.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn of_lock(
        path: &Path,
        project: Option<&Project>,
        platform: Option<&Platform>,
    ) -> Result<Self, SubjectError> {
        let lock = Pylock::read(path)?.ok_or_else(|| SubjectError::NoLock {
            path: path.to_owned(),
        })?;
        let mut subject = Self::empty(path);
        let targets: BTreeMap<&str, &Platform> = project
            .into_iter()
            .flat_map(|project| &project.settings.target)
            .filter_map(|(name, target)| Some((name.as_str(), target.platform.as_ref()?)))
            .collect();
        for package in &lock.packages {
            let marker = package.marker.as_deref();
            let needs = |platform: &Platform| {
                marker.is_none_or(|marker| export::may_need(marker, platform))
            };
            if platform.is_some_and(|platform| !needs(platform)) {
                continue;
            }
            let used_by = targets.iter().filter(|(_, platform)| needs(platform));
            subject.add(
                Kind::Package,
                normalised_name(&package.name),
                package.version.as_deref(),
                package.marker.clone(),
                used_by.map(|(name, _)| (*name).to_owned()).collect(),
            );
        }
        subject.sort();
        Ok(subject)
    }

    /// What `path` is: a built tree, a bill of materials, a lock, or a project's folder or file.
    ///
    /// # Errors
    /// As for each of them.
    pub fn find(
        path: &Path,
        project: impl FnOnce() -> Result<Project, miette::Report>,
        platform: Option<&Platform>,
    ) -> Result<Self, miette::Report> {
        if path.join(RECORD_FILE).is_file() {
            return Ok(Self::of_tree(path)?);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && name.ends_with(".json") {
            return Ok(Self::of_bill_file(path)?);
        }
        if path.is_file() && name.starts_with("pylock.") && name.ends_with(".toml") {
            return Ok(Self::of_lock(path, None, platform)?);
        }
        let project = project()?;
        Ok(Self::of_lock(
            &project.lock_path(),
            Some(&project),
            platform,
        )?)
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            parts: Vec::new(),
            unversioned: Vec::new(),
        }
    }

    fn add(
        &mut self,
        kind: Kind,
        name: String,
        version: Option<&str>,
        marker: Option<String>,
        targets: Vec<String>,
    ) {
        let version = version.and_then(|text| text.parse().ok());
        if version.is_none() {
            self.unversioned.push(name.clone());
        }
        self.parts.push(Part {
            kind,
            name,
            version,
            marker,
            targets,
            reached: None,
        });
    }

    fn sort(&mut self) {
        self.parts
            .sort_by(|a, b| (a.kind, &a.name, &a.version).cmp(&(b.kind, &b.name, &b.version)));
        self.unversioned.sort();
        self.unversioned.dedup();
    }
}

/// A component of a bill that can have advisories.
fn part_of(component: &Value) -> Option<(Kind, String, Option<String>)> {
    let purl = component["purl"].as_str()?;
    let plain = purl.split(['?', '#']).next().unwrap_or(purl);
    let (path, version) = match plain.rsplit_once('@') {
        Some((path, version)) => (path, Some(decoded(version))),
        None => (plain, component["version"].as_str().map(str::to_owned)),
    };
    if let Some(name) = path.strip_prefix("pkg:pypi/") {
        return Some((Kind::Package, normalised_name(&decoded(name)), version));
    }
    let is_interpreter = ["pkg:generic/cpython", "pkg:generic/python"].contains(&path);
    is_interpreter.then(|| (Kind::Interpreter, "cpython".to_owned(), version))
}

/// Percent encoding undone.
fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
        .next()
        .map_or_else(|| text.to_owned(), |(name, _)| name.into_owned())
}

/// Which distributions have a module that the program reaches.
fn reached(inventory: &Inventory) -> BTreeMap<String, bool> {
    let graph = pytheas_project::graph::Graph::build(&crate::explain::start(inventory, &[]));
    let mut files = BTreeSet::new();
    for module in graph.reached.keys() {
        let found = graph.modules.get(module);
        files.extend(found.and_then(|module| module.file.clone()));
    }
    inventory
        .distributions
        .iter()
        .map(|distribution| {
            let is_reached = distribution
                .files
                .iter()
                .any(|file| files.contains(&inventory.dir.join(file)));
            (distribution.name.clone(), is_reached)
        })
        .collect()
}
