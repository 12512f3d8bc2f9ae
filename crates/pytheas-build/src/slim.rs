//! `slim = true`: of the packages and the standard library only what the import graph reaches.
//!
//! What goes: modules that nothing reaches (with their byte code), distributions without a reached
//! module, tests, type stubs, headers and C sources, and shared libraries that only dropped
//! modules needed. What stays: the app whole, data files of every package with a reached module,
//! whatever `keep` names. Each import that cannot be decided is a warning.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use pytheas_project::graph::{Graph, Origin};
use pytheas_release::BuildRecord;
use walkdir::WalkDir;

use crate::{
    bundle::PATH_FILE,
    error::{BuildError, io_error},
    event::{Event, Observer},
    explain,
    form::Job,
    interpreter::needed_libraries,
    known::Inventory,
    scratch, trim,
};

/// How many names one warning has.
const NAMED: usize = 5;

/// Cuts the tree in `dir` down to what is reached. It has everything but byte code, so that none
/// is compiled for what goes.
pub(crate) fn cut(job: &Job<'_>, dir: &Path, keep: &[String]) -> Result<(), BuildError> {
    let inventory = Inventory::with_record(dir, record(job)?)?;
    let mut start = explain::start(&inventory, keep);
    start.rules = job.project.settings.rule.clone();
    start.required = crate::app_packages::required(job.project, &inventory);
    let graph = Graph::build(&start);
    warn_of_undecided(&inventory, &graph, job.observer);

    let mut kept = kept_files(&inventory, &graph);
    // Of an app without packages nothing else is there: its hooks and children find it by this.
    let by_path = |path: &&String| path.ends_with(&format!("/{PATH_FILE}"));
    kept.extend(inventory.files.keys().filter(by_path).cloned());
    // A published app is kept as a project's sources are: with every file but its tests.
    let own = crate::app_packages::names(job.project);
    for distribution in &inventory.distributions {
        if own.contains(&distribution.name) {
            let files = distribution.files.iter().filter(|file| !is_of_tests(file));
            kept.extend(files.cloned());
        }
    }
    let dropped: BTreeSet<&str> = inventory
        .files
        .keys()
        .map(String::as_str)
        .filter(|path| !kept.contains(*path))
        .collect();
    let libraries = unneeded_libraries(&inventory, &dropped)?;
    for path in dropped
        .iter()
        .copied()
        .chain(libraries.iter().map(String::as_str))
    {
        let path = dir.join(path);
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
    }
    remove_leftovers(dir)?;
    for distribution in &inventory.distributions {
        shorten_record(dir, &distribution.dist_info)?;
    }
    Ok(())
}

/// The build's record as far as it is known before the tree is finished.
fn record(job: &Job<'_>) -> Result<BuildRecord, BuildError> {
    let wrong = |text: &str| pytheas_project::ProjectError::Name {
        text: text.to_owned(),
    };
    let entry = format!("bin/{}", job.name);
    let version = match job.version {
        Some(version) => version.clone(),
        None => "0".parse().map_err(|_| wrong("0"))?,
    };
    Ok(BuildRecord {
        format: 1,
        name: job.name.clone(),
        version,
        form: "bundle".to_owned(),
        platform: job.platform.clone(),
        entry: entry.parse().map_err(|_| wrong(&entry))?,
        health: job.project.settings.health(),
        config: job.project.settings.config(job.name),
        interpreter: Some(job.interpreter.record()),
        update: pytheas_release::UpdateRules::default(),
    })
}

/// The files that stay, relative to the tree.
fn kept_files(inventory: &Inventory, graph: &Graph) -> BTreeSet<String> {
    let stdlib = explain::stdlib_folders(inventory);
    let modules: BTreeMap<&str, bool> = graph
        .modules
        .values()
        .filter_map(|module| {
            let file = module.file.as_ref()?.strip_prefix(&inventory.dir).ok()?;
            let is_kept = graph.reached.contains_key(&module.name) || module.origin == Origin::App;
            Some((file.to_str()?, is_kept))
        })
        .collect();
    let tops: BTreeSet<&str> = graph
        .reached
        .keys()
        .filter(|name| {
            graph
                .modules
                .get(*name)
                .is_some_and(|module| module.file.is_some())
        })
        .map(|name| name.split('.').next().unwrap_or(name))
        .collect();
    let owners = inventory.owners();
    let is_module_kept = |path: &str| modules.get(path).copied();
    let mut kept_distributions: BTreeSet<&str> = BTreeSet::new();
    for (path, is_kept) in &modules {
        if let (true, Some(owner)) = (is_kept, owners.get(path)) {
            kept_distributions.insert(owner);
        }
    }
    // `importlib.metadata.version("name")` needs no module of it.
    for distribution in &inventory.distributions {
        if graph.words.contains(&distribution.name)
            || graph.words.contains(&distribution.metadata.name)
        {
            kept_distributions.insert(&distribution.name);
        }
    }
    let stubs = loaded_stubs(graph);
    let stubs: BTreeSet<String> = stubs
        .iter()
        .filter_map(|path| path.strip_prefix(&inventory.dir).ok()?.to_str())
        .map(str::to_owned)
        .collect();
    let mut kept = BTreeSet::new();
    for path in inventory.files.keys() {
        let source = explain::source_of(path);
        let in_site = inventory
            .sites
            .iter()
            .find_map(|site| source.strip_prefix(site.as_str())?.strip_prefix('/'));
        let in_stdlib = stdlib
            .iter()
            .find_map(|folder| source.strip_prefix(folder.as_str())?.strip_prefix('/'));
        let is_kept = if let Some(inside) = in_site {
            let top = inside.split('/').next().unwrap_or(inside);
            if let Some(info) = top.strip_suffix(".dist-info") {
                let _name_and_version = info;
                inventory
                    .distributions
                    .iter()
                    .find(|distribution| distribution.dist_info.ends_with(&format!("/{top}")))
                    .is_none_or(|distribution| {
                        kept_distributions.contains(distribution.name.as_str())
                    })
            } else if inside.ends_with(".pth") && !inside.contains('/') {
                path_file_works(&inventory.dir.join(path), inventory, &tops)
            } else {
                is_module_kept(&source)
                    .filter(|is_kept| *is_kept || !is_template(inventory, path, &modules))
                    .unwrap_or_else(|| {
                        let is_named = is_named(inside, &graph.words);
                        let hides = top
                            .strip_suffix(".py")
                            .is_some_and(|module| tops.contains(module));
                        (is_data(inside)
                            || is_named
                            || trim::is_data_stub(&inventory.dir.join(path))
                            || is_template(inventory, path, &modules)
                            || stubs.contains(path))
                            && (tops.contains(top)
                                || is_named && hides
                                || top.contains('.')
                                    && owners
                                        .get(path.as_str())
                                        .is_some_and(|owner| kept_distributions.contains(owner)))
                    })
            }
        } else if let Some(inside) = in_stdlib {
            let top = inside.split('/').next().unwrap_or(inside);
            is_module_kept(&source)
                .unwrap_or_else(|| is_data(inside) && (!inside.contains('/') || tops.contains(top)))
        } else {
            is_kept_elsewhere(
                path,
                owners
                    .get(path.as_str())
                    .map(|owner| kept_distributions.contains(owner)),
            ) || path.starts_with("python/share/zoneinfo/") && tops.contains("zoneinfo")
        };
        if is_kept {
            kept.insert(path.clone());
        }
    }
    kept
}

/// Whether a file outside the folders of modules stays; `owner` says whether the distribution it
/// belongs to does. Jupyter's templates, for one, lie in `share` and are read there.
fn is_kept_elsewhere(path: &str, owner: Option<bool>) -> bool {
    const FOR_PEOPLE: &[&str] = &[
        "python/include/",
        "python/share/man/",
        "python/share/doc/",
        "python/share/info/",
        "python/share/applications/",
        "python/share/bash-completion/",
        "python/share/zsh/",
        "python/share/fish/",
        "python/lib/pkgconfig/",
        "python/lib/cmake/",
    ];
    if FOR_PEOPLE.iter().any(|folder| path.starts_with(folder)) || path.ends_with(".a") {
        return false;
    }
    match owner {
        Some(is_kept) => is_kept,
        // Of the interpreter's own `share`, only certificates and terminals are read.
        None => {
            !path.starts_with("python/share/")
                || path.contains("certificates")
                || path.starts_with("python/share/terminfo/")
        }
    }
}

fn is_of_tests(path: &str) -> bool {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let inside = folder.split_once("-packages/").map_or("", |(_, rest)| rest);
    inside
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "tests" | "test" | "_tests"))
}

/// Whether a file that is no reachable module is data that the package may read. Sources that are
/// no modules (in `tests` and the like, or hidden by others) are none.
fn is_data(inside: &str) -> bool {
    let (folder, name) = inside.rsplit_once('/').unwrap_or(("", inside));
    let is_of_tests = folder
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "tests" | "test" | "_tests"));
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is_of_compilers = matches!(
        extension,
        "pyi"
            | "h"
            | "hpp"
            | "hh"
            | "c"
            | "cc"
            | "cpp"
            | "cxx"
            | "pyx"
            | "pxd"
            | "pxi"
            | "a"
            | "o"
            | "f90"
    ) || name == "py.typed";
    // Python files whose path is no module's name are data, e.g. templates.
    let is_name = |part: &str| part.chars().all(|c| c.is_alphanumeric() || c == '_');
    let stem = name.split('.').next().unwrap_or(name);
    let is_module_like =
        matches!(extension, "py" | "pyc") && folder.split('/').all(is_name) && is_name(stem);
    !is_of_tests && !is_of_compilers && !is_module_like
}

/// Whether a reached module has the name of a file that is of use to compilers otherwise, as
/// `os.path.join(os.path.dirname(__file__), "filter.c")` reads it, or of a Python file that another
/// module hides.
fn is_named(inside: &str, words: &BTreeSet<String>) -> bool {
    let name = inside.rsplit_once('/').map_or(inside, |(_, name)| name);
    !name.starts_with("__")
        && !inside
            .split('/')
            .skip(1)
            .any(|part| matches!(part, "tests" | "test" | "_tests"))
        && (words.contains(inside)
            || words.contains(name)
            || inside
                .match_indices('/')
                // `native/pump.h`, or `/pump.h` of `f"{folder}/pump.h"`
                .any(|(at, _)| words.contains(&inside[at + 1..]) || words.contains(&inside[at..])))
}

/// Whether a Python file that nothing reaches is copied out or run by its path rather than
/// imported: its folder is no package (it has no `__init__.py`) though one lies around it, and
/// other kinds of files or a well-known name show what it is for.
fn is_template(inventory: &Inventory, path: &str, modules: &BTreeMap<&str, bool>) -> bool {
    const NAMES: &[&str] = &[
        "template",
        "skeleton",
        "cookiecutter",
        "scaffold",
        "_ansiballz",
    ];
    let Some((folder, _)) = path.rsplit_once('/') else {
        return false;
    };
    if inventory
        .files
        .contains_key(&format!("{folder}/__init__.py"))
        || !path.ends_with(".py")
        || modules.get(path) == Some(&true)
    {
        return false;
    }
    let is_inside = std::iter::successors(folder.rsplit_once('/'), |(up, _)| up.rsplit_once('/'))
        .any(|(up, _)| inventory.files.contains_key(&format!("{up}/__init__.py")));
    let is_of_tests = folder
        .split('/')
        .any(|part| matches!(part, "tests" | "test" | "_tests"));
    let has_others = || {
        inventory
            .files
            .range(format!("{folder}/")..format!("{folder}0"))
            .any(|(other, _)| {
                ![".py", ".pyc", ".pyi", ".so", ".md", ".typed"]
                    .iter()
                    .any(|ending| other.ends_with(ending))
            })
    };
    let is_named = || NAMES.iter().any(|name| folder.contains(name));
    is_inside && !is_of_tests && (is_named() || has_others())
}

/// Type stubs that are read when the program runs (`lazy_loader.attach_stub`).
fn loaded_stubs(graph: &Graph) -> BTreeSet<std::path::PathBuf> {
    graph
        .reached
        .keys()
        .filter_map(|name| graph.modules.get(name)?.file.as_ref())
        .filter(|file| file.with_extension("pyi").is_file())
        .filter(|file| {
            let text = fs::read(file).unwrap_or_default();
            text.windows(11).any(|window| window == b"attach_stub")
        })
        .map(|file| file.with_extension("pyi"))
        .collect()
}

/// Whether every module that a `.pth` file imports at start-up is there.
fn path_file_works(path: &Path, inventory: &Inventory, tops: &BTreeSet<&str>) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let is_there = |name: &str| {
        inventory.sites.iter().any(|site| {
            inventory.files.contains_key(&format!("{site}/{name}.py"))
                || inventory
                    .files
                    .contains_key(&format!("{site}/{name}/__init__.py"))
        })
    };
    text.lines()
        .filter(|line| line.starts_with("import ") || line.starts_with("import\t"))
        .flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')))
        .filter(|word| is_there(word))
        .all(|word| tops.contains(word))
}

/// Shared libraries that were needed, but by dropped files only.
fn unneeded_libraries(
    inventory: &Inventory,
    dropped: &BTreeSet<&str>,
) -> Result<Vec<String>, BuildError> {
    let mut needs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for path in inventory.files.keys() {
        let is_program = path.starts_with("python/bin/");
        if Inventory::is_shared_object(path) || is_program {
            let file = inventory.dir.join(path);
            let bytes = fs::read(&file).map_err(io_error("read", &file))?;
            needs.insert(path, needed_libraries(&bytes));
        }
    }
    let is_library = |path: &&str| {
        path.strip_prefix("python/lib/")
            .is_some_and(|rest| !rest.contains('/'))
    };
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let all_needed: BTreeSet<&String> = needs.values().flatten().collect();
    // From everything that stays and is no library, along what each needs.
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<&str> = needs
        .keys()
        .copied()
        .filter(|path| !dropped.contains(path))
        .filter(|path| !is_library(path) || !all_needed.contains(&name(path)))
        .collect();
    while let Some(path) = open.pop() {
        for library in needs.get(path).into_iter().flatten() {
            if used.insert(library.clone()) {
                open.extend(needs.keys().copied().filter(|path| name(path) == *library));
            }
        }
    }
    Ok(needs
        .keys()
        .filter(|path| is_library(path) && !dropped.contains(**path))
        .filter(|path| all_needed.contains(&name(path)) && !used.contains(&name(path)))
        .map(|path| (*path).to_owned())
        .collect())
}

/// Links that lead to dropped files, and empty folders.
fn remove_leftovers(dir: &Path) -> Result<(), BuildError> {
    for entry in WalkDir::new(dir).contents_first(true).min_depth(1) {
        let entry = entry.map_err(|error| io_error("read", dir)(error.into()))?;
        let path = entry.path();
        if entry.path_is_symlink() && !path.exists() {
            fs::remove_file(path).map_err(io_error("remove", path))?;
        } else if entry.file_type().is_dir() && !path.starts_with(dir.join("app")) {
            // Fails for a folder that is not empty, which is what is meant.
            let _is_not_empty = fs::remove_dir(path);
        }
    }
    Ok(())
}

/// A `RECORD` without the lines of dropped files.
fn shorten_record(dir: &Path, info: &str) -> Result<(), BuildError> {
    let info = dir.join(info);
    shorten_record_at(info.parent().unwrap_or(dir), &info)
}

/// The same of the folder `info` in the folder `site`.
pub(crate) fn shorten_record_at(site: &Path, info: &Path) -> Result<(), BuildError> {
    let path = info.join("RECORD");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(());
    };
    let lines: String = text
        .lines()
        .filter(|line| {
            let name = match line.strip_prefix('"') {
                Some(quoted) => quoted
                    .split("\",")
                    .next()
                    .unwrap_or(quoted)
                    .replace("\"\"", "\""),
                None => line.split(',').next().unwrap_or(line).to_owned(),
            };
            site.join(name).exists()
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    scratch::write(&path, lines.as_bytes(), scratch::Kind::Data).map_err(io_error("write", &path))
}

/// One warning for the undecided imports of the app, and one for those of packages.
fn warn_of_undecided(inventory: &Inventory, graph: &Graph, observer: Observer<'_>) {
    let by_package = explain::undecided_by_package(inventory, graph);
    let (mut of_app, mut of_packages, mut count) = (Vec::new(), Vec::new(), 0);
    for (package, undecided) in &by_package {
        for one in undecided {
            let file = one.file.strip_prefix(&inventory.dir).unwrap_or(&one.file);
            let place = format!("{}:{}", file.display(), one.line);
            tracing::info!(package, place, call = one.call, "undecided import");
            if package == explain::APP {
                of_app.push(format!("{place} `{}`", one.call));
            }
        }
        if package != explain::APP {
            count += undecided.len();
            of_packages.push((undecided.len(), package.as_str()));
        }
    }
    let warn = |text| observer(Event::Warning { text });
    if !of_app.is_empty() {
        warn(format!(
            "the app imports what only running it tells: {}; name the modules in `keep`",
            first(&of_app)
        ));
    }
    if !of_packages.is_empty() {
        of_packages.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let names: Vec<String> = of_packages
            .iter()
            .map(|(count, package)| format!("{package} {count}"))
            .collect();
        warn(format!(
            "{count} imports in packages are decided only when they run ({}): what lies beside them is kept; run your tests against the result, name what they miss in `keep`; `pytheas check` lists them",
            first(&names)
        ));
    }
}

/// The first few of a list, and how many more there are.
fn first(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown}, {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_a_module_names_is_read() {
        let words = [
            "filter.c",
            "native/pump.h",
            "pump.py",
            "/valve.c",
            "__init__.py",
        ]
        .map(str::to_owned)
        .into();
        assert!(is_named("pkg/nvx/filter.c", &words));
        assert!(is_named("pkg/native/pump.h", &words));
        assert!(is_named("pkg/nvx/valve.c", &words));
        assert!(!is_named("pkg/other.c", &words));
        assert!(!is_named("pkg/other/pump.h", &words));
        assert!(is_named("pump.py", &words));
        assert!(!is_named("pkg/__init__.py", &words));
    }

    #[test]
    fn data_is_what_a_package_may_read() {
        for data in [
            "pkg/static/app.css",
            "pkg/templates/a-b/x.py",
            "pkg/x.txt",
            "pkg/tests.json",
            "_sysconfigdata__linux_x86_64-linux-gnu.py",
        ] {
            assert!(is_data(data), "{data}");
        }
        for none in [
            "pkg/x.pyi",
            "pkg/include/x.h",
            "pkg/tests/data.json",
            "pkg/sub/x.py",
            "pkg/py.typed",
        ] {
            assert!(!is_data(none), "{none}");
        }
    }
}
