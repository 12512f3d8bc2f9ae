//! What lies in a built tree: the record, the installed distributions with their metadata and
//! files, and the shared libraries. Read from the tree itself, so that a tree somebody else made
//! is listed as well as one's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_project::normalised_name;
use pytheas_release::{BuildRecord, RECORD_FILE, RecordError};
use walkdir::WalkDir;

use super::{
    licence::Licence,
    metadata::{Metadata, headers},
};

/// A folder that cannot be listed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum InventoryError {
    /// It is no built tree.
    #[error("`{}` is no built tree: it has no `{RECORD_FILE}`", dir.display())]
    #[diagnostic(
        code(pytheas::known::no_tree),
        help("give the folder that `pytheas build` made, e.g. `dist/NAME`")
    )]
    NoTree {
        /// The folder.
        dir: PathBuf,
    },
    /// The record cannot be used.
    #[error("`{}` cannot be used", path.display())]
    #[diagnostic(code(pytheas::known::record), help("build it again"))]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RecordError,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(pytheas::known::io),
        help("check that the file exists and its permissions allow it")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// One installed distribution.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Normalised name (PEP 503).
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its metadata.
    pub metadata: Metadata,
    /// Under which licence it stands.
    pub licence: Licence,
    /// The wheel's tags (`WHEEL`), e.g. `py3-none-any`.
    pub tags: Vec<String>,
    /// Its `.dist-info` folder, relative to the tree.
    pub dist_info: String,
    /// Its files, relative to the tree.
    pub files: Vec<String>,
    /// Entry points: group, name, object.
    pub entry_points: Vec<(String, String, String)>,
}

/// What lies in a built tree.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The tree's folder.
    pub dir: PathBuf,
    /// What the build says of it.
    pub record: BuildRecord,
    /// Every file, relative to the tree, with its size.
    pub files: BTreeMap<String, u64>,
    /// The folders of packages, relative to the tree.
    pub sites: BTreeSet<String>,
    /// The distributions, by name.
    pub distributions: Vec<Distribution>,
}

impl Inventory {
    /// Lists the built tree in `dir`.
    ///
    /// # Errors
    /// When it is no built tree or cannot be read.
    pub fn read(dir: &Path) -> Result<Self, InventoryError> {
        let path = dir.join(RECORD_FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(InventoryError::NoTree {
                    dir: dir.to_owned(),
                });
            }
            other => other.map_err(read_error(&path))?,
        };
        let record =
            BuildRecord::parse(&bytes).map_err(|source| InventoryError::Record { path, source })?;
        Self::with_record(dir, record)
    }

    /// As [`Inventory::read`] for a tree whose record is known.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn with_record(dir: &Path, record: BuildRecord) -> Result<Self, InventoryError> {
        let mut files = BTreeMap::new();
        for entry in WalkDir::new(dir) {
            let entry = entry.map_err(|error| read_error(dir)(error.into()))?;
            if entry.file_type().is_file()
                && let Ok(relative) = entry.path().strip_prefix(dir)
                && let Some(relative) = relative.to_str()
            {
                let size = entry.metadata().map(|metadata| metadata.len()).unwrap_or(0);
                files.insert(relative.to_owned(), size);
            }
        }
        let mut inventory = Self {
            dir: dir.to_owned(),
            record,
            sites: BTreeSet::new(),
            distributions: Vec::new(),
            files,
        };
        let infos: Vec<(String, String)> = inventory
            .files
            .keys()
            .filter_map(|path| {
                let info = path.strip_suffix("/METADATA")?;
                let (site, name) = info.rsplit_once('/')?;
                let last = site.rsplit('/').next().unwrap_or(site);
                (name.ends_with(".dist-info") && matches!(last, "site-packages" | "dist-packages"))
                    .then(|| (site.to_owned(), info.to_owned()))
            })
            .collect();
        for (site, info) in infos {
            let distribution = inventory.distribution(&site, &info)?;
            inventory.distributions.push(distribution);
            inventory.sites.insert(site);
        }
        inventory
            .distributions
            .sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(inventory)
    }

    fn distribution(&self, site: &str, info: &str) -> Result<Distribution, InventoryError> {
        let text = |name: &str| -> Result<String, InventoryError> {
            let path = self.dir.join(info).join(name);
            match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                Err(error) => Err(read_error(&path)(error)),
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            }
        };
        let metadata = Metadata::parse(&text("METADATA")?);
        let tags = headers(&text("WHEEL")?)
            .into_iter()
            .filter(|(name, _)| *name == "Tag")
            .map(|(_, value)| value)
            .collect();
        let files: Vec<String> = text("RECORD")?
            .lines()
            .filter_map(record_path)
            .filter_map(|path| resolve(site, &path))
            .filter(|path| self.files.contains_key(path))
            .collect();
        // Wheels put licence files into `licenses` (PEP 639) or, before it, beside `METADATA`.
        let licence_texts: Vec<String> = self
            .files
            .range(format!("{info}/")..format!("{info}0"))
            .map(|(path, _)| path)
            .filter(|path| {
                let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
                path.starts_with(&format!("{info}/licenses/"))
                    || ["licen", "copying", "copyright", "notice"]
                        .iter()
                        .any(|start| name.starts_with(start))
            })
            .cloned()
            .collect();
        let licence = Licence::of(&metadata, &licence_texts, |path| {
            fs::read(self.dir.join(path))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        });
        Ok(Distribution {
            name: normalised_name(&metadata.name),
            version: metadata.version.clone(),
            metadata,
            licence,
            tags,
            dist_info: info.to_owned(),
            files,
            entry_points: entry_points(&text("entry_points.txt")?),
        })
    }

    /// The distribution that a file of the tree belongs to, for every file that belongs to one.
    pub fn owners(&self) -> BTreeMap<&str, &str> {
        let mut owners = BTreeMap::new();
        for distribution in &self.distributions {
            for file in &distribution.files {
                owners.insert(file.as_str(), distribution.name.as_str());
            }
        }
        owners
    }

    /// Whether the file is a shared library or an extension module by its name.
    pub(crate) fn is_shared_object(path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.ends_with(".so") || name.contains(".so.")
    }
}

pub(crate) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> InventoryError + use<> {
    let path = path.to_owned();
    move |source| InventoryError::Read { path, source }
}

/// The path of a line of `RECORD` (a CSV file, PEP 376).
fn record_path(line: &str) -> Option<String> {
    let path = match line.strip_prefix('"') {
        Some(quoted) => quoted.split("\",").next()?.replace("\"\"", "\""),
        None => line.split(',').next()?.to_owned(),
    };
    (!path.is_empty()).then_some(path)
}

/// `path` of a `RECORD`, relative to the tree; none when it leads out of it.
fn resolve(site: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = site.split('/').collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The lines of an `entry_points.txt`: group, name, object without extras.
pub(crate) fn entry_points(text: &str) -> Vec<(String, String, String)> {
    let mut group = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            group = name.trim().to_owned();
        } else if let Some((name, object)) = line.split_once('=')
            && !line.starts_with(['#', ';'])
        {
            let object = object.split('[').next().unwrap_or(object).trim();
            found.push((group.clone(), name.trim().to_owned(), object.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_record_are_the_trees() {
        assert_eq!(record_path("a/b.py,sha256=x,3").as_deref(), Some("a/b.py"));
        assert_eq!(
            record_path("\"a,\"\"b\"\".py\",sha256=x,3").as_deref(),
            Some("a,\"b\".py")
        );
        let site = "python/lib/python3.11/site-packages";
        assert_eq!(
            resolve(site, "../../../bin/tool").as_deref(),
            Some("python/bin/tool")
        );
        assert_eq!(resolve("site", "../../etc/passwd"), None);
    }

    #[test]
    fn entry_points_have_groups() {
        let found = entry_points(
            "[console_scripts]\nmkdocs = mkdocs.__main__:cli\n\n[mkdocs.plugins]\n# no\nsearch = mkdocs.contrib.search:SearchPlugin [x]\n",
        );
        assert_eq!(
            found[1],
            (
                "mkdocs.plugins".to_owned(),
                "search".to_owned(),
                "mkdocs.contrib.search:SearchPlugin".to_owned()
            )
        );
        assert_eq!(found.len(), 2);
    }
}
