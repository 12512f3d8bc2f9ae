//! What could be shipped: modules and data of the app and of its packages, by name and by path on
//! the board.
//!
//! The app's modules are looked for in its folder, in `src` and in `lib` (the folder that boards
//! have on `sys.path`); below those two they lose the folder's name.

use std::{collections::BTreeMap, fs, path::Path};

use pytheas_project::{Project, graph};
use pytheas_release::{RelPath, Sha256};

use super::{
    compile::board_path,
    error::{MicroPythonError, io_error},
    mip::PackageFile,
};
use crate::error::BuildError;

/// The app itself, where names of packages stand.
pub(super) const APP: &str = "app";

/// One file that could be shipped.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its dotted name; none for data.
    pub(super) module: Option<String>,
    /// Its path on the board, a module's as source (`.py`) or as it came (`.mpy`).
    pub(super) path: RelPath,
    /// Where it lies: of the app's the path in the project.
    pub(super) source: String,
    /// `app`, or the package.
    pub(super) from: String,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
}

impl Candidate {
    pub(super) fn is_app(&self) -> bool {
        self.from == APP
    }

    pub(super) fn is_source(&self) -> bool {
        self.path.as_str().ends_with(".py")
    }

    /// The source; none of what is compiled.
    pub(super) fn text(&self) -> Option<String> {
        self.is_source()
            .then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }

    /// Whether it is a package's module that says nothing, as there are on the Python package index for
    /// the names of CPython's library.
    pub(super) fn is_placeholder(&self) -> bool {
        let says_nothing = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
        let text = if self.is_app() { None } else { self.text() };
        text.is_some_and(|text| text.lines().all(says_nothing))
    }

    /// Whether it is a package's `__init__`.
    pub(super) fn is_package(&self) -> bool {
        let name = self.path.as_str().rsplit('/').next().unwrap_or("");
        matches!(name, "__init__.py" | "__init__.mpy")
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) all: Vec<Candidate>,
    by_module: BTreeMap<String, usize>,
}

impl Candidates {
    /// Those of the app in `project` and of `packages`; `output` is where the result will lie.
    pub(super) fn collect(
        project: &Project,
        packages: Vec<PackageFile>,
        output: &Path,
    ) -> Result<Self, BuildError> {
        let scratch = tempfile::tempdir().map_err(crate::error::io_error(
            "make a folder in",
            &std::env::temp_dir(),
        ))?;
        crate::app::copy_sources(project, scratch.path(), output)?;
        let mut all = Self::default();
        let is_root = |name: &str| {
            let dir = scratch.path().join(name);
            dir.is_dir() && !dir.join("__init__.py").is_file()
        };
        let roots: Vec<&str> = ["src", "lib"]
            .into_iter()
            .filter(|name| is_root(name))
            .collect();
        for root in &roots {
            all.app_folder(scratch.path(), &format!("{root}/"))?;
        }
        all.app_folder(scratch.path(), "")?;
        all.add_packages(packages)?;
        all.index();
        Ok(all)
    }

    fn app_folder(&mut self, base: &Path, root: &str) -> Result<(), MicroPythonError> {
        let dir = base.join(root);
        for entry in walkdir::WalkDir::new(&dir).sort_by_file_name() {
            let entry = entry.map_err(|error| io_error("read", &dir)(error.into()))?;
            if !entry.file_type().is_file() {
                continue;
            }
            let inside = entry.path().strip_prefix(&dir).unwrap_or(entry.path());
            let inside = inside.to_string_lossy().into_owned();
            let bytes = fs::read(entry.path()).map_err(io_error("read", entry.path()))?;
            self.all.push(Candidate {
                module: module_name(&inside),
                path: board_path(&inside)?,
                source: format!("{root}{inside}"),
                from: APP.to_owned(),
                bytes,
            });
        }
        Ok(())
    }

    fn add_packages(&mut self, packages: Vec<PackageFile>) -> Result<(), MicroPythonError> {
        let mut seen: BTreeMap<String, (String, Sha256)> = BTreeMap::new();
        for file in packages {
            let path = file.path.as_str().to_owned();
            let hash = Sha256::of(&file.bytes);
            match seen.get(&path) {
                // The same marker in two halves of one namespace.
                Some((_, other)) if *other == hash => continue,
                Some((first, _)) => {
                    return Err(MicroPythonError::Conflict {
                        path,
                        first: format!("`{first}`"),
                        second: format!("`{}`", file.package),
                    });
                }
                None => seen.insert(path.clone(), (file.package.clone(), hash)),
            };
            self.all.push(Candidate {
                module: module_name(&path),
                path: file.path,
                source: path,
                from: file.package,
                bytes: file.bytes,
            });
        }
        Ok(())
    }

    /// MicroPython's order: the app before packages, a package before a module, source before
    /// compiled.
    fn index(&mut self) {
        let rank = |candidate: &Candidate| {
            (
                !candidate.is_app(),
                !candidate.is_package(),
                !candidate.is_source(),
            )
        };
        for (at, candidate) in self.all.iter().enumerate() {
            let Some(module) = &candidate.module else {
                continue;
            };
            let is_better = self
                .by_module
                .get(module)
                .is_none_or(|other| rank(candidate) < rank(&self.all[*other]));
            if is_better {
                self.by_module.insert(module.clone(), at);
            }
        }
    }

    pub(super) fn get(&self, module: &str) -> Option<usize> {
        self.by_module.get(module).copied()
    }

    /// Whether it is a folder of modules without an `__init__`.
    pub(super) fn is_namespace(&self, module: &str) -> bool {
        self.below(module).next().is_some()
    }

    /// Modules inside the package `module`.
    pub(super) fn below<'a>(&'a self, module: &str) -> impl Iterator<Item = &'a str> {
        let from = format!("{module}.");
        let to = format!("{module}/");
        self.by_module
            .range(from..to)
            .map(|(name, _)| name.as_str())
    }

    pub(super) fn modules(&self) -> impl Iterator<Item = &str> {
        self.by_module.keys().map(String::as_str)
    }
}

/// The dotted name of the module in the file `path`.
fn module_name(path: &str) -> Option<String> {
    let stem = path.strip_suffix(".py").or(path.strip_suffix(".mpy"))?;
    let stem = stem.strip_suffix("/__init__").unwrap_or(stem);
    let name = stem.replace('/', ".");
    // `setup-board.py` can be started, but not imported.
    graph::is_module_name(&name).then_some(name)
}
