//! Which files go onto the machine: what the tests, or the app's entry, reach in the project, in the
//! packages locked for boards, and in the board's own package `pytheas`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use include_dir::{Dir, include_dir};
use pytheas_project::{
    Connectivity, Environment, Project, Target,
    graph::{Graph, Kind, Origin, Root, Start},
};
use pytheas_release::RelPath;

use super::error::OnError;
use crate::{
    LockMode,
    error::{BuildError, io_error},
    micropython::{
        CompileOptions, Compiler, MicroPythonError, MpyCross, Source, board, included,
        mip::{self, MipOptions},
    },
    scratch::{self, Kind as FileKind},
};
use pytheas_board::mpy::{Arch, Mpy};

/// What a prepared board has.
static LIBRARY: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../micropython/pytheas");

/// Deeper than this there are no tests.
const DEEPEST: usize = 16;

/// Files by the path they have on the machine.
#[derive(Debug, Default)]
pub(super) struct Closure {
    pub(super) files: BTreeMap<RelPath, Vec<u8>>,
    /// Where in the project a file is from.
    pub(super) origins: BTreeMap<String, String>,
    /// Modules that are there compiled for MicroPython only.
    pub(super) ready_made: BTreeSet<String>,
}

/// Test modules, and where their names are looked up.
#[derive(Debug)]
pub(super) struct Found {
    /// What `unittest discover` begins with, relative to the project.
    pub(super) start: String,
    /// Whether it is a package: names then begin with its name.
    pub(super) is_package: bool,
    pub(super) modules: Vec<String>,
}

/// The project's test modules, as `unittest discover` finds them in `tests`, `test` or the project.
pub(super) fn tests(project: &Project) -> Result<Found, OnError> {
    let start = ["tests", "test"]
        .into_iter()
        .find(|name| project.dir.join(name).is_dir())
        .unwrap_or(".");
    let dir = match start {
        "." => project.dir.clone(),
        name => project.dir.join(name),
    };
    let is_package = start != "." && dir.join("__init__.py").is_file();
    let prefix = if is_package { start } else { "" };
    let mut modules = Vec::new();
    walk(&dir, prefix, 0, &mut modules);
    modules.sort();
    if modules.is_empty() {
        return Err(OnError::NoTests { dir });
    }
    Ok(Found {
        start: start.to_owned(),
        is_package,
        modules,
    })
}

fn walk(dir: &Path, package: &str, depth: usize, found: &mut Vec<String>) {
    let Ok(children) = std::fs::read_dir(dir) else {
        return;
    };
    for child in children.flatten() {
        let Ok(name) = child.file_name().into_string() else {
            continue;
        };
        let path = child.path();
        let join = |name: &str| match package {
            "" => name.to_owned(),
            package => format!("{package}.{name}"),
        };
        if path.is_dir() {
            if depth < DEEPEST && path.join("__init__.py").is_file() {
                walk(&path, &join(&name), depth + 1, found);
            }
        } else if let Some(stem) = name.strip_suffix(".py")
            && stem.starts_with("test")
        {
            found.push(join(stem));
        }
    }
}

/// Folders of the project's modules, those of its tests first.
pub(super) fn roots(project: &Project, tests: Option<&Found>) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    if let Some(tests) = tests.filter(|tests| !tests.is_package && tests.start != ".") {
        roots.push(project.dir.join(&tests.start));
    }
    for name in ["src", "lib"] {
        let dir = project.dir.join(name);
        if dir.is_dir() && !dir.join("__init__.py").is_file() {
            roots.push(dir);
        }
    }
    roots.push(project.dir.clone());
    roots
}

/// What the project's code may import besides its own, as folders below `dir`: packages locked for
/// boards, and the board's own package.
pub(super) fn others(
    project: &Project,
    environment: &Environment,
    connectivity: Connectivity,
    lock: LockMode,
    target: &Target,
    dir: &Path,
) -> Result<Vec<PathBuf>, OnError> {
    let put = |path: &Path, bytes: &[u8]| {
        scratch::write(path, bytes, FileKind::Data).map_err(io_error("write", path))
    };
    let packages = dir.join("packages");
    let options = MipOptions {
        upgrade: pytheas_project::lock::Upgrade::Nothing,
        connectivity,
        environment: environment.clone(),
    };
    let wrong = |error: mip::MipError| BuildError::from(MicroPythonError::from(error));
    let lock = mip::lock_if_needed(project, lock, &options, &|_| {}).map_err(wrong)?;
    if let Some(lock) = lock {
        // As for the board itself, so that what is tested is what is shipped.
        let board = target.board.as_deref().and_then(|name| board(name).ok());
        let port = board.as_ref().map(|board| board.port.as_str());
        let of_packages = mip::files(project, &lock, &options, port).map_err(wrong)?;
        for file in of_packages.files {
            put(&file.path.under(&packages), &file.bytes)?;
        }
    }
    let library = dir.join("library");
    for file in LIBRARY.files() {
        let name = file.path().file_name().unwrap_or_default();
        if file.path().extension().is_some_and(|end| end == "py") {
            put(&library.join("pytheas").join(name), file.contents())?;
        }
    }
    Ok(vec![packages, library])
}

/// The files that `modules` reach below `roots`, with the data in their folders; the target's `keep`
/// and what the project's `include` names besides.
pub(super) fn files(
    project: &Project,
    target: &Target,
    roots: &[PathBuf],
    modules: &[String],
) -> Result<Closure, OnError> {
    let mut closure = Closure::default();
    let mut start = Start {
        roots: roots
            .iter()
            .map(|dir| Root {
                dir: dir.clone(),
                origin: Origin::App,
            })
            .collect(),
        modules: modules.to_vec(),
        keep: target.keep.clone(),
        rules: project.settings.rule.clone(),
        ..Start::default()
    };
    let graph = loop {
        let graph = Graph::build(&start);
        let imports = closure.ready_made(roots, &graph, &start.modules)?;
        let before = start.modules.len();
        start.modules.extend(imports);
        start.modules.sort();
        start.modules.dedup();
        if start.modules.len() == before {
            break graph;
        }
    };
    let mut folders = BTreeSet::new();
    for name in graph.reached.keys() {
        let Some(module) = graph.modules.get(name) else {
            continue;
        };
        let (Some(file), Kind::Source | Kind::Package) = (&module.file, module.kind) else {
            continue;
        };
        let path = name.replace('.', "/");
        let path = match module.kind {
            Kind::Package => format!("{path}/__init__.py"),
            _ => format!("{path}.py"),
        };
        let Ok(path) = path.parse::<RelPath>() else {
            continue; // no module has such a name
        };
        let content = std::fs::read(file).map_err(io_error("read", file))?;
        let origin = file.strip_prefix(&project.dir).unwrap_or(file);
        closure
            .origins
            .insert(path.as_str().to_owned(), origin.display().to_string());
        if let (Some(dir), Some((folder, _))) = (file.parent(), path.as_str().rsplit_once('/'))
            && folders.insert(dir.to_owned())
        {
            closure.data(dir, folder)?;
        }
        closure.files.insert(path, content);
    }
    for file in included(project)? {
        closure
            .origins
            .entry(file.path.to_string())
            .or_insert(file.source);
        closure.files.entry(file.path).or_insert(file.bytes);
    }
    Ok(closure)
}

/// The modules as a board gets them: compiled, for its processor. One that does not compile goes as
/// it is: the board says so where it is imported, and the others run.
pub(super) fn compiled(
    files: &BTreeMap<RelPath, Vec<u8>>,
    arch: Option<Arch>,
    environment: &Environment,
    connectivity: Connectivity,
) -> Result<BTreeMap<RelPath, Vec<u8>>, OnError> {
    let mpy_cross = MpyCross::find(environment, connectivity, &|_| {}).map_err(BuildError::from)?;
    let compiler = Compiler::new(mpy_cross, environment);
    let options = CompileOptions { arch, optimize: 0 };
    let (modules, mut sources): (Vec<&RelPath>, Vec<Source>) = files
        .iter()
        .filter(|(path, _)| path.as_str().ends_with(".py"))
        .map(|(path, bytes)| {
            let name = path.as_str().to_owned();
            let bytes = bytes.clone();
            (path, Source { name, bytes })
        })
        .unzip();
    let mut all = files.clone();
    let compiled = match compiler.compile(&sources, options) {
        Ok(compiled) => compiled.into_iter().map(Some).collect(),
        Err(MicroPythonError::Compile { .. }) => {
            let mut each = Vec::new();
            for source in sources.drain(..) {
                each.push(match compiler.compile(&[source], options) {
                    Ok(compiled) => compiled.into_iter().next(),
                    Err(MicroPythonError::Compile { .. }) => None,
                    Err(error) => return Err(BuildError::from(error).into()),
                });
            }
            each
        }
        Err(error) => return Err(BuildError::from(error).into()),
    };
    for (path, mpy) in modules.into_iter().zip(compiled) {
        let stem = path.as_str().strip_suffix(".py").unwrap_or_default();
        if let (Some(mpy), Ok(compiled)) = (mpy, format!("{stem}.mpy").parse()) {
            all.remove(path);
            all.insert(compiled, mpy);
        }
    }
    Ok(all)
}

/// Where a module would lie that is there compiled only: its file, or all of its package's.
fn compiled_below(root: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = vec![root.join(format!("{name}.mpy"))];
    let walk = walkdir::WalkDir::new(root.join(name)).sort_by_file_name();
    let files = walk.into_iter().flatten().map(walkdir::DirEntry::into_path);
    found.extend(files.filter(|path| path.extension().is_some_and(|end| end == "mpy")));
    // MicroPython takes the source where there are both.
    found.retain(|path| path.is_file() && !path.with_extension("py").is_file());
    found
}

impl Closure {
    /// Adds the modules that `graph` leads to and that are there compiled only; what those import.
    fn ready_made(
        &mut self,
        roots: &[PathBuf],
        graph: &Graph,
        started: &[String],
    ) -> Result<Vec<String>, OnError> {
        let mut imports = Vec::new();
        let names = graph.imported_by.keys();
        let missing = graph.missing.iter().map(|one| &one.name);
        let tops: BTreeSet<&str> = names
            .chain(missing)
            .chain(started)
            .map(|name| name.split('.').next().unwrap_or(name))
            .filter(|name| !name.is_empty())
            .collect();
        for (root, name) in roots
            .iter()
            .flat_map(|root| tops.iter().map(move |name| (root, name)))
        {
            for file in compiled_below(root, name) {
                let inside = file.strip_prefix(root).unwrap_or(&file);
                let Ok(path) = inside.to_string_lossy().parse::<RelPath>() else {
                    continue;
                };
                if self.files.contains_key(&path) {
                    continue;
                }
                let content = std::fs::read(&file).map_err(io_error("read", &file))?;
                if let Ok(module) = Mpy::parse(&content) {
                    let found = module.imports().found.into_iter();
                    imports.extend(found.filter(|one| one.level == 0).map(|one| one.module));
                }
                self.ready_made.insert(path.to_string());
                self.files.insert(path, content);
            }
        }
        Ok(imports)
    }

    /// Adds what a package's folder `dir` has besides modules.
    fn data(&mut self, dir: &Path, folder: &str) -> Result<(), OnError> {
        let is_taken = |entry: &walkdir::DirEntry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !(name.starts_with('.') || name == "__pycache__")
        };
        let walk = walkdir::WalkDir::new(dir).into_iter();
        for entry in walk.filter_entry(is_taken).flatten() {
            let inside = entry.path().strip_prefix(dir).unwrap_or(entry.path());
            let is_module = inside
                .extension()
                .is_some_and(|end| end == "py" || end == "pyc" || end == "mpy");
            if is_module || !entry.file_type().is_file() {
                continue;
            }
            let path = format!("{folder}/{}", inside.display());
            let Ok(path) = path.parse::<RelPath>() else {
                continue; // the build says so
            };
            let content = std::fs::read(entry.path()).map_err(io_error("read", entry.path()))?;
            self.files.insert(path, content);
        }
        Ok(())
    }

    /// Adds a file of ours.
    pub(super) fn add(&mut self, path: &str, text: &str) {
        if let Ok(path) = path.parse() {
            self.files.insert(path, text.as_bytes().to_vec());
        }
    }

    /// A traceback of the machine with the project's own files in it, and without our runner's.
    pub(super) fn translate(&self, text: &str, ours: &[&str]) -> String {
        let mut lines = Vec::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("  File \"") else {
                lines.push(line.to_owned());
                continue;
            };
            let (file, tail) = rest.split_once('"').unwrap_or((rest, ""));
            let path = file.trim_start_matches('/');
            let known = [path, path.split_once('/').map_or("", |(_, rest)| rest)];
            if known.iter().any(|path| ours.contains(path)) {
                continue;
            }
            let origin = known.iter().find_map(|path| self.origins.get(*path));
            let file = origin.map_or(file, String::as_str);
            lines.push(format!("  File \"{file}\"{tail}"));
        }
        lines.join("\n")
    }
}
