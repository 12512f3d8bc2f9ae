//! Why a built tree holds what it holds: its import graph, sizes by package and module, and
//! whether the declared requirements are those that are imported.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use pytheas_project::{
    Project, RequirementsError,
    graph::{Graph, Kind, Missing, Origin, Plugin, Root, Start, Undecided, is_module_name},
    normalised_name, parse_requirement,
};
use serde::Serialize;

use crate::{
    app_packages,
    heavy::{Heavy, heavy},
    known::{Inventory, InventoryError},
    launcher::LAUNCH_FILE,
    tools::TOOLS,
};

/// The import graph of the built tree in `dir`; with the rules and the `keep` of the project that
/// it was built from, when that is known, as a slim build has them.
///
/// # Errors
/// When it is no built tree or cannot be read.
pub fn import_graph(dir: &Path, project: Option<&Project>) -> Result<Graph, InventoryError> {
    let inventory = Inventory::read(dir)?;
    Ok(Graph::build(&start_of_project(&inventory, project)))
}

/// Where the graph begins, with what a project says about it.
fn start_of_project(inventory: &Inventory, project: Option<&Project>) -> Start {
    let targets = project.iter().flat_map(|one| one.settings.target.values());
    let keep: BTreeSet<String> = targets.flat_map(|target| target.keep.clone()).collect();
    let keep: Vec<String> = keep.into_iter().collect();
    let mut start = start(inventory, &keep);
    if let Some(project) = project {
        start.rules.clone_from(&project.settings.rule);
    }
    if let Some(app) = app_packages::published(inventory, project) {
        start.app = app_packages::modules_of(inventory, app);
        start.required = app_packages::required_by_published(app, inventory);
    }
    start
}

/// Where the graph of a built tree begins; `keep` are modules that belong to it anyway.
pub(crate) fn start(inventory: &Inventory, keep: &[String]) -> Start {
    let dir = &inventory.dir;
    let mut roots = Vec::new();
    for folder in ["app", "app/src"] {
        let path = dir.join(folder);
        if path.is_dir() && !path.join("__init__.py").is_file() {
            roots.push(Root {
                dir: path,
                origin: Origin::App,
            });
        }
    }
    let root = |dir: PathBuf, origin| Root { dir, origin };
    for site in &inventory.sites {
        roots.push(root(dir.join(site), Origin::Package));
    }
    for folder in stdlib_folders(inventory) {
        roots.push(root(dir.join(&folder).join("lib-dynload"), Origin::Stdlib));
        roots.push(root(dir.join(&folder), Origin::Stdlib));
    }
    let mut start = Start {
        roots,
        keep: keep.to_vec(),
        ..Start::default()
    };
    start
        .keep
        .extend(["sitecustomize", "usercustomize", "_pytheas"].map(str::to_owned));
    start_of_launch(dir, &mut start);
    // The programs of dependencies that the project asked for have roots of their own.
    let tools = std::fs::read_dir(dir.join(TOOLS)).into_iter().flatten();
    let mut tools: Vec<PathBuf> = tools.flatten().map(|tool| tool.path()).collect();
    tools.sort();
    for tool in tools {
        start_of_launch(&tool, &mut start);
    }
    start.requires = requires(inventory);
    start.texts = texts(inventory);
    start.data = package_texts(inventory);
    start.unspelt = unspelt(inventory);
    for distribution in &inventory.distributions {
        start.distributions.insert(
            distribution.name.clone(),
            app_packages::modules_of(inventory, distribution),
        );
        for (group, name, object) in &distribution.entry_points {
            if group != "console_scripts" && group != "gui_scripts" {
                start.plugins.push(Plugin {
                    group: group.clone(),
                    name: name.clone(),
                    module: object.split(':').next().unwrap_or(object).trim().to_owned(),
                    distribution: distribution.name.clone(),
                });
            }
        }
    }
    start
}

/// Text files of the app that may name modules: a megabyte at most, by their ending.
fn texts(inventory: &Inventory) -> Vec<PathBuf> {
    const ENDINGS: &[&str] = &["yaml", "yml", "toml", "ini", "cfg", "conf", "json", "env"];
    inventory
        .files
        .iter()
        .filter(|(path, size)| path.starts_with("app/") && **size <= 1 << 20)
        .map(|(path, _)| path)
        .filter(|path| {
            let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
            ENDINGS.contains(&ending) && !path.contains("/.venv/") && *path != "app/pylock.toml"
        })
        // These name what is installed, not what is imported.
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            !matches!(
                name,
                "pyproject.toml" | "setup.cfg" | "tox.ini" | "pytest.ini"
            ) && !name.starts_with("pylock.")
        })
        .map(|path| inventory.dir.join(path))
        .collect()
}

/// The path relative to a folder that it lies in.
fn inside<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder)?.strip_prefix('/')
}

/// Text files of packages that may name modules, by the package's top-level module: small ones, by
/// their ending.
fn package_texts(inventory: &Inventory) -> BTreeMap<String, Vec<PathBuf>> {
    const ENDINGS: &[&str] = &["yaml", "yml", "toml", "ini", "cfg", "conf", "json"];
    let mut texts: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, size) in &inventory.files {
        let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
        if *size > 64 << 10 || !ENDINGS.contains(&ending) {
            continue;
        }
        let inside = inventory.sites.iter().find_map(|site| inside(path, site));
        if let Some((top, _)) = inside.and_then(|inside| inside.split_once('/'))
            && !top.contains('.')
        {
            let texts = texts.entry(top.to_owned()).or_default();
            texts.push(inventory.dir.join(path));
        }
    }
    texts
}

/// Python files of packages whose names no import can spell, by the package's top-level module. Those
/// of templates (`{{name}}.py`) and of tests are not run.
fn unspelt(inventory: &Inventory) -> BTreeMap<String, Vec<(String, PathBuf)>> {
    let mut found: BTreeMap<String, Vec<(String, PathBuf)>> = BTreeMap::new();
    for path in inventory.files.keys() {
        let inside = inventory.sites.iter().find_map(|site| inside(path, site));
        let Some(stem) = inside.and_then(|inside| inside.strip_suffix(".py")) else {
            continue;
        };
        let Some((top, rest)) = stem.split_once('/') else {
            continue;
        };
        let is_run = rest
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/'))
            && !rest
                .split('/')
                .any(|part| part == "tests" || part == "test");
        let name = stem.replace('/', ".");
        if is_run && is_module_name(top) && !is_module_name(&name) {
            let file = inventory.dir.join(path);
            found.entry(top.to_owned()).or_default().push((name, file));
        }
    }
    found
}

/// For the top-level modules of distributions with compiled parts: those of what they require.
fn requires(inventory: &Inventory) -> BTreeMap<String, BTreeSet<String>> {
    let mut tops: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (top, names) in module_owners(inventory) {
        for name in names {
            tops.entry(name).or_default().insert(top.clone());
        }
    }
    let mut requires: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for distribution in &inventory.distributions {
        if !distribution.files.iter().any(|file| file.ends_with(".so")) {
            continue;
        }
        let required: BTreeSet<String> = distribution
            .metadata
            .requires_dist
            .iter()
            .filter(|text| !text.contains("extra =="))
            .filter_map(|text| parse_requirement(text))
            .filter_map(|requirement| tops.get(&normalised_name(requirement.name.as_ref())))
            .flatten()
            .cloned()
            .collect();
        for top in tops.get(&distribution.name).into_iter().flatten() {
            requires
                .entry(top.clone())
                .or_default()
                .extend(required.iter().cloned());
        }
    }
    requires
}

/// What the launch file in `dir` starts.
fn start_of_launch(dir: &Path, start: &mut Start) {
    let launch = std::fs::read(dir.join(LAUNCH_FILE)).unwrap_or_default();
    let records: Vec<String> = launch
        .split(|byte| *byte == 0)
        .map(|record| String::from_utf8_lossy(record).into_owned())
        .collect();
    for (at, record) in records.iter().enumerate() {
        if record == "=-m" {
            let module = records.get(at + 1).and_then(|next| next.strip_prefix('='));
            start.modules.extend(module.map(str::to_owned));
        } else if let Some(path) = record.strip_prefix('@') {
            let text = std::fs::read_to_string(dir.join(path)).unwrap_or_default();
            match crate::start::modules(&text) {
                Some(modules) => start.modules.extend(modules),
                None => start.scripts.push(dir.join(path)),
            }
        }
    }
}

/// Folders of the standard library, relative to the tree.
pub(crate) fn stdlib_folders(inventory: &Inventory) -> Vec<String> {
    inventory
        .files
        .keys()
        .filter_map(|path| path.strip_suffix("/encodings/__init__.py"))
        .filter(|folder| inventory.files.contains_key(&format!("{folder}/os.py")))
        .map(str::to_owned)
        .collect()
}

/// The size of a part of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartSize {
    /// The package, `app`, or `python`.
    pub package: String,
    /// The module or folder in it.
    pub module: String,
    /// Sum of its files' sizes.
    pub size_bytes: u64,
    /// Number of files.
    pub files: u64,
}

/// Something a project imports but does not declare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undeclared {
    /// What is imported.
    pub module: String,
    /// The distribution it belongs to.
    pub package: String,
    /// The module of the app that imports it.
    pub by: String,
    /// On this line.
    pub line: u32,
}

/// What a check of a built tree found.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Imports of the app that lead to nothing and are not guarded.
    pub missing: Vec<Missing>,
    /// The same in modules that the program imports only under a condition or by a name that is
    /// made up when it runs, such as plug-ins for what need not be installed.
    pub perhaps_missing: Vec<Missing>,
    /// Imports of the app that are there only because another package needs them.
    pub undeclared: Vec<Undeclared>,
    /// Declared requirements that nothing reaches, whether or not a slim build left them out.
    pub unused: Vec<String>,
    /// Imports that cannot be decided, by the package they stand in (`app`: the app).
    pub undecided: BTreeMap<String, Vec<Undecided>>,
    /// The largest packages, and those with known lighter alternatives.
    pub heavy: Vec<Heavy>,
    /// The version of Python in it.
    pub python: Option<String>,
    /// Sizes, the largest first.
    pub sizes: Vec<PartSize>,
    /// The size of the tree.
    pub size_bytes: u64,
    /// What a slim build would leave out, in bytes of modules.
    pub unreached_bytes: u64,
}

impl Check {
    /// Whether something is wrong rather than improvable.
    pub fn has_failed(&self) -> bool {
        !self.missing.is_empty() || !self.undeclared.is_empty()
    }
}

/// Checks the built tree in `dir` against the project it was built from.
///
/// # Errors
/// When it is no built tree, or the project's requirements cannot be read.
pub fn check(project: &Project, dir: &Path) -> Result<Check, CheckError> {
    let inventory = Inventory::read(dir)?;
    let graph = Graph::build(&start_of_project(&inventory, Some(project)));
    let declared: BTreeSet<String> = pytheas_project::LockInputs::of(project)?
        .requirements
        .iter()
        .filter_map(|text| parse_requirement(text))
        .map(|requirement| normalised_name(requirement.name.as_ref()))
        .collect();
    let own = normalised_name(project.name.as_str());
    let owners = module_owners(&inventory);
    let is_app = |module: &str| {
        graph
            .modules
            .get(module)
            .map_or(module == "__main__", |module| module.origin == Origin::App)
            || owners
                .get(module.split('.').next().unwrap_or(module))
                .is_some_and(|names| names.contains(&own))
    };
    let (missing, perhaps_missing) = graph
        .missing
        .iter()
        .filter(|missing| !missing.optional && is_app(&missing.by))
        .cloned()
        .partition(|missing| graph.certain.contains(&missing.by));
    let mut undeclared = Vec::new();
    for (top, (by, line)) in imported_by_app(&graph, &is_app) {
        let Some(names) = owners.get(top.as_str()) else {
            continue;
        };
        // Several distributions may share a namespace: one declared is enough.
        if names
            .iter()
            .any(|name| declared.contains(name) || *name == own)
        {
            continue;
        }
        undeclared.push(Undeclared {
            package: names.iter().next().cloned().unwrap_or_default(),
            module: top,
            by,
            line,
        });
    }
    let mut reached_distributions: BTreeSet<&str> = BTreeSet::new();
    let file_owners = inventory.owners();
    for name in graph.reached.keys() {
        let file = graph
            .modules
            .get(name)
            .and_then(|module| module.file.as_ref());
        let relative = file.and_then(|file| file.strip_prefix(&inventory.dir).ok()?.to_str());
        if let Some(owner) = relative.and_then(|path| file_owners.get(path)) {
            reached_distributions.insert(owner);
        }
    }
    let lock = pytheas_project::Pylock::read(&project.lock_path())
        .ok()
        .flatten();
    let python = inventory.record.interpreter.as_ref();
    let python = python.map(|interpreter| interpreter.version.clone());
    // A slim build left out whole what nothing reaches.
    let locked = lock.iter().flat_map(|lock| {
        crate::gaps::locked_for(project, lock, &inventory.record.platform, python.as_deref())
    });
    let left_out = locked.filter(|name| {
        let mut built = inventory.distributions.iter();
        let is_stub = name.starts_with("types-") || name.ends_with("-stubs");
        declared.contains(name)
            && *name != own
            && !is_stub
            && !built.any(|built| built.name == *name)
    });
    let unused: BTreeSet<String> = inventory
        .distributions
        .iter()
        .filter(|distribution| {
            declared.contains(&distribution.name)
                && !reached_distributions.contains(distribution.name.as_str())
                && distribution
                    .files
                    .iter()
                    .any(|file| file.ends_with(".py") || file.ends_with(".so"))
        })
        .map(|distribution| distribution.name.clone())
        .chain(left_out)
        .collect();
    let sizes = sizes(&inventory);
    let mut heavy = heavy(&sizes, lock.as_ref(), &inventory.record.platform);
    heavy.retain(|heavy| heavy.package != own);
    let unreached_bytes = graph
        .modules
        .values()
        .filter(|module| {
            !graph.reached.contains_key(&module.name)
                && module.origin != Origin::App
                && module.kind != Kind::Namespace
        })
        .filter_map(|module| {
            let relative = module.file.as_ref()?.strip_prefix(&inventory.dir).ok()?;
            inventory.files.get(relative.to_str()?)
        })
        .sum();
    Ok(Check {
        missing,
        perhaps_missing,
        undeclared,
        unused: unused.into_iter().collect(),
        undecided: undecided_by_package(&inventory, &graph)
            .into_iter()
            .map(|(package, undecided)| {
                let short = undecided.into_iter();
                let short = short.map(|one| shortened(one, &inventory.dir));
                (package, short.collect())
            })
            .collect(),
        heavy,
        python,
        size_bytes: inventory.files.values().sum(),
        sizes,
        unreached_bytes,
    })
}

/// What the parts of the app are called among the packages.
pub(crate) const APP: &str = "app";

/// The undecided imports by the distribution they stand in; the app's own are `app`'s.
pub(crate) fn undecided_by_package(
    inventory: &Inventory,
    graph: &Graph,
) -> BTreeMap<String, Vec<Undecided>> {
    let owners = inventory.owners();
    let mut found: BTreeMap<String, Vec<Undecided>> = BTreeMap::new();
    for undecided in &graph.undecided {
        let path = undecided.file.strip_prefix(&inventory.dir);
        let path = path.unwrap_or(&undecided.file).to_string_lossy();
        let is_app = graph
            .modules
            .get(&undecided.module)
            .is_none_or(|module| module.origin == Origin::App);
        let package = match owners.get(path.as_ref()) {
            _ if is_app => APP,
            Some(owner) => owner,
            None => undecided.module.split('.').next().unwrap_or_default(),
        };
        found
            .entry(package.to_owned())
            .or_default()
            .push(undecided.clone());
    }
    found
}

fn shortened(undecided: Undecided, dir: &Path) -> Undecided {
    let file = undecided
        .file
        .strip_prefix(dir)
        .map_or_else(|_| undecided.file.clone(), Path::to_owned);
    Undecided { file, ..undecided }
}

/// What stops a check.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CheckError {
    /// The tree.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Inventory(#[from] InventoryError),
    /// The project's requirements.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Requirements(#[from] RequirementsError),
}

/// Top-level names that modules of the app import, with the first place.
fn imported_by_app(
    graph: &Graph,
    is_app: &dyn Fn(&str) -> bool,
) -> BTreeMap<String, (String, u32)> {
    graph
        .imported_by
        .iter()
        .filter_map(|(name, places)| {
            let place = places
                .iter()
                .find(|(by, _)| is_app(by) && graph.certain.contains(by))?;
            Some((name.clone(), place.clone()))
        })
        .collect()
}

/// The distributions that have modules of a top-level name.
fn module_owners(inventory: &Inventory) -> BTreeMap<String, BTreeSet<String>> {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for distribution in &inventory.distributions {
        for file in &distribution.files {
            let Some(inside) = inventory
                .sites
                .iter()
                .find_map(|site| file.strip_prefix(site.as_str())?.strip_prefix('/'))
            else {
                continue;
            };
            let top = match inside.split_once('/') {
                Some((folder, _)) => folder,
                None if inside.ends_with(".py") || inside.ends_with(".so") => {
                    inside.split('.').next().unwrap_or(inside)
                }
                None => continue,
            };
            if !top.contains('.') && top != "__pycache__" {
                owners
                    .entry(top.to_owned())
                    .or_default()
                    .insert(distribution.name.clone());
            }
        }
    }
    owners
}

/// Sizes by package and the first folder or module in it, the largest first.
pub(crate) fn sizes(inventory: &Inventory) -> Vec<PartSize> {
    let owners = inventory.owners();
    let stdlib = stdlib_folders(inventory);
    let mut parts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for (path, size) in &inventory.files {
        // Byte code belongs to its source.
        let source = source_of(path);
        let (package, module) = place(path, &source, inventory, &owners, &stdlib);
        let part = parts.entry((package, module)).or_default();
        part.0 += size;
        part.1 += 1;
    }
    let mut sizes: Vec<PartSize> = parts
        .into_iter()
        .map(|((package, module), (size_bytes, files))| PartSize {
            package,
            module,
            size_bytes,
            files,
        })
        .collect();
    sizes.sort_by(|a, b| {
        b.size_bytes
            .cmp(&a.size_bytes)
            .then_with(|| (&a.package, &a.module).cmp(&(&b.package, &b.module)))
    });
    sizes
}

fn place(
    path: &str,
    source: &str,
    inventory: &Inventory,
    owners: &BTreeMap<&str, &str>,
    stdlib: &[String],
) -> (String, String) {
    let module_of = |inside: &str| {
        let mut parts = inside.split('/');
        let first = parts.next().unwrap_or(inside);
        match (parts.next(), parts.next()) {
            (Some(second), Some(_)) => format!("{first}.{second}"),
            (Some(second), None) => {
                let stem = second.split('.').next().unwrap_or(second);
                if stem == "__init__" {
                    first.to_owned()
                } else {
                    format!("{first}.{stem}")
                }
            }
            _ => first.split('.').next().unwrap_or(first).to_owned(),
        }
    };
    let inside = |folder: &str| source.strip_prefix(folder)?.strip_prefix('/');
    if let Some(rest) = inventory.sites.iter().find_map(|site| inside(site)) {
        let package = owners.get(path).or_else(|| owners.get(source)).map_or_else(
            || rest.split('/').next().unwrap_or(rest).to_owned(),
            |owner| (*owner).to_owned(),
        );
        return (package, module_of(rest));
    }
    if let Some(rest) = stdlib.iter().find_map(|folder| inside(folder)) {
        let rest = rest.strip_prefix("lib-dynload/").unwrap_or(rest);
        let first = rest.split('/').next().unwrap_or(rest);
        let module = first.split('.').next().unwrap_or(first);
        return ("python".to_owned(), module.to_owned());
    }
    if let Some(rest) = inside("python") {
        return ("python".to_owned(), rest.to_owned());
    }
    if let Some(rest) = inside("app") {
        return (
            "app".to_owned(),
            rest.split('/').next().unwrap_or(rest).to_owned(),
        );
    }
    ("pytheas".to_owned(), source.to_owned())
}

/// The source of a file with byte code; any other file itself.
pub(crate) fn source_of(path: &str) -> String {
    let source = || {
        let (folder, name) = path.rsplit_once("/__pycache__/")?;
        let stem = name.strip_suffix(".pyc")?.split('.').next()?;
        Some(format!("{folder}/{stem}.py"))
    };
    source().unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_code_belongs_to_its_source() {
        assert_eq!(source_of("a/__pycache__/b.cpython-311.pyc"), "a/b.py");
        assert_eq!(source_of("a/b.so"), "a/b.so");
    }
}
