//! `[tool.pytheas.compile]`: named modules of the app become extension modules of the target,
//! through Cython or mypyc and the same cross build as source distributions.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use pytheas_project::{CompileSpec, CompileWith, Entry, closest};
use pytheas_release::{RelPath, Sha256};
use walkdir::WalkDir;

use super::{
    NativeError,
    error::{ModulesError, Subject, io_error},
    write,
};
use crate::{
    install::Installer,
    scratch::{self, Kind},
};

/// Used where `version` does not say another.
const CYTHON: &str = "3.3.1";
const MYPY: &str = "2.4.1";
const SETUPTOOLS: &str = "84.2.1";

/// A module of the app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Module {
    /// `package.module`.
    name: String,
    /// `package/module.py`, relative to the root.
    path: String,
}

/// The folders among `roots` with the modules that `spec` names, each with its modules. The first
/// folder that has a module is the one that Python takes it from.
fn find(spec: &CompileSpec, roots: &[PathBuf]) -> Result<Vec<(PathBuf, Vec<Module>)>, NativeError> {
    let mut found: Vec<(PathBuf, BTreeSet<Module>)> = roots
        .iter()
        .map(|root| (root.clone(), BTreeSet::new()))
        .collect();
    for pattern in &spec.modules {
        let matched = found.iter_mut().any(|(root, modules)| {
            let new = matching(root, pattern);
            let any = !new.is_empty();
            modules.extend(new);
            any
        });
        if !matched {
            return Err(not_found(pattern, roots).into());
        }
    }
    let list = found.into_iter().filter(|(_, modules)| !modules.is_empty());
    Ok(list
        .map(|(root, modules)| (root, modules.into_iter().collect()))
        .collect())
}

/// The modules below `root` that `pattern` names.
fn matching(root: &Path, pattern: &str) -> Vec<Module> {
    let is_name =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    let (base, all) = match pattern.strip_suffix(".*") {
        Some(base) => (base, true),
        None => (pattern, false),
    };
    if !base.split('.').all(is_name) {
        return Vec::new();
    }
    let path = base.replace('.', "/");
    if !all {
        let path = format!("{path}.py");
        return if root.join(&path).is_file() {
            vec![Module {
                name: base.to_owned(),
                path,
            }]
        } else {
            Vec::new()
        };
    }
    let mut modules = Vec::new();
    for entry in WalkDir::new(root.join(&path))
        .sort_by_file_name()
        .into_iter()
        .flatten()
    {
        let file = entry.file_name().to_string_lossy();
        let Some(stem) = file.strip_suffix(".py") else {
            continue;
        };
        // These are looked at by name, not only imported.
        if !entry.file_type().is_file() || matches!(stem, "__init__" | "__main__") {
            continue;
        }
        let Some(inside) = entry
            .path()
            .strip_prefix(root)
            .ok()
            .and_then(|path| path.to_str())
        else {
            continue;
        };
        let name = inside.trim_end_matches(".py").replace('/', ".");
        if name.split('.').all(is_name) {
            modules.push(Module {
                name,
                path: inside.to_owned(),
            });
        }
    }
    modules
}

fn not_found(pattern: &str, roots: &[PathBuf]) -> ModulesError {
    let path = pattern.replace('.', "/");
    let is_package = roots
        .iter()
        .any(|root| root.join(&path).join("__init__.py").is_file());
    if is_package {
        return ModulesError::Package {
            name: pattern.to_owned(),
        };
    }
    let mut names = BTreeSet::new();
    for root in roots {
        for entry in WalkDir::new(root).max_depth(4).into_iter().flatten() {
            let inside = entry.path().strip_prefix(root).ok().and_then(Path::to_str);
            if let Some(module) = inside.and_then(|inside| inside.strip_suffix(".py")) {
                names.insert(module.replace('/', "."));
            }
        }
    }
    let help = match closest(pattern, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "name modules as `import` does, e.g. `package.module`, or `package.*` for all below a package".to_owned(),
    };
    ModulesError::None {
        name: pattern.to_owned(),
        help,
    }
}

/// Compiles what `spec` names, found in the folders `roots` of the app, and puts the extension
/// modules beside the sources. Gives their number.
pub(crate) fn compile(
    installer: &Installer<'_>,
    spec: &CompileSpec,
    app: &str,
    entry: &Entry,
    roots: &[PathBuf],
) -> Result<usize, NativeError> {
    let mut count = 0;
    for (root, modules) in find(spec, roots)? {
        if let Some(module) = modules.iter().find(|module| is_started(module, entry)) {
            return Err(ModulesError::Entry {
                name: module.name.clone(),
            }
            .into());
        }
        let subject = Subject {
            package: modules
                .iter()
                .map(|module| module.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            version: format!("of {app}"),
            platform: installer.platform.clone(),
        };
        let sources = sources(&root, &modules, spec.with)?;
        let setup = setup(spec.with, &modules);
        let project = project(spec);
        let key = key(&sources, &setup, &project);
        let unpack = |into: &Path| -> Result<PathBuf, NativeError> {
            for (path, bytes) in &sources {
                let to = into.join(path);
                scratch::write(&to, bytes, Kind::Data).map_err(io_error("write", &to))?;
            }
            write(&into.join("setup.py"), &setup, Kind::Data)?;
            write(&into.join("pyproject.toml"), &project, Kind::Data)?;
            Ok(into.to_owned())
        };
        let made =
            super::wheel_of(installer, &subject, &key, true, &unpack).map_err(
                |error| match error {
                    NativeError::Build { source, .. } => ModulesError::Failed {
                        with: spec.with.as_str(),
                        platform: installer.platform.clone(),
                        source,
                    }
                    .into(),
                    other => other,
                },
            )?;
        count += place(&made.bytes, &root)?;
        if let Some(module) = modules
            .iter()
            .find(|module| compiled(&root, module).is_none())
        {
            return Err(ModulesError::Missing {
                with: spec.with.as_str(),
                name: module.name.clone(),
            }
            .into());
        }
    }
    Ok(count)
}

/// Whether the interpreter starts the module as a program, which it cannot with compiled ones.
fn is_started(module: &Module, entry: &Entry) -> bool {
    match entry {
        Entry::Module(name) => *name == module.name || format!("{name}.__main__") == module.name,
        Entry::Script(path) => {
            let path = path.as_str();
            path == module.path || path.strip_prefix("src/") == Some(module.path.as_str())
        }
        Entry::Callable { .. } => false,
    }
}

/// The files that the compiler sees: the modules, and of their top packages what types are read
/// from.
fn sources(
    root: &Path,
    modules: &[Module],
    with: CompileWith,
) -> Result<Vec<(String, Vec<u8>)>, NativeError> {
    let tops: BTreeSet<&str> = modules
        .iter()
        .map(|module| module.path.split('/').next().unwrap_or(&module.path))
        .collect();
    let mut files = Vec::new();
    for top in tops {
        for entry in WalkDir::new(root.join(top)).sort_by_file_name() {
            let entry = entry.map_err(|error| io_error("read", root)(error.into()))?;
            let path = entry.path();
            let Some(inside) = path.strip_prefix(root).ok().and_then(Path::to_str) else {
                continue;
            };
            let is_module = modules.iter().any(|module| module.path == inside);
            let is_init = inside.ends_with("/__init__.py");
            let is_declaration = inside.ends_with(".pxd") || inside.ends_with(".pyi");
            let is_typed = with == CompileWith::Mypyc && inside.ends_with(".py");
            if entry.file_type().is_file() && (is_module || is_init || is_declaration || is_typed) {
                let bytes = std::fs::read(path).map_err(io_error("read", path))?;
                files.push((inside.to_owned(), bytes));
            }
        }
    }
    Ok(files)
}

fn project(spec: &CompileSpec) -> String {
    let version = |known: &str| spec.version.clone().unwrap_or_else(|| known.to_owned());
    let compiler = match spec.with {
        CompileWith::Cython => format!("Cython=={}", version(CYTHON)),
        CompileWith::Mypyc => format!("mypy[mypyc]=={}", version(MYPY)),
    };
    let compiler = serde_json::Value::from(compiler);
    format!(
        "[build-system]\nrequires = [\"setuptools=={SETUPTOOLS}\", {compiler}]\nbuild-backend = \"setuptools.build_meta\"\n"
    )
}

/// The `setup.py` that compiles `modules`. Names and paths are identifiers.
fn setup(with: CompileWith, modules: &[Module]) -> String {
    let extensions = match with {
        CompileWith::Cython => {
            let list: String = modules
                .iter()
                .map(|module| {
                    format!(
                        "    Extension(\"{}\", [\"{}\"]),\n",
                        module.name, module.path
                    )
                })
                .collect();
            format!(
                "from setuptools import Extension\nfrom Cython.Build import cythonize\n\nextensions = cythonize([\n{list}], language_level=3, quiet=True)\n"
            )
        }
        CompileWith::Mypyc => {
            let list: String = modules
                .iter()
                .map(|module| format!("    \"{}\",\n", module.path))
                .collect();
            format!(
                "from mypyc.build import mypycify\n\nextensions = mypycify([\n    \"--ignore-missing-imports\",\n{list}], debug_level=\"0\", group_name=\"{}\")\n",
                group(modules)
            )
        }
    };
    format!(
        "from setuptools import setup\n{extensions}\nsetup(name=\"pytheas-compiled\", version=\"1\", packages=[], py_modules=[], ext_modules=extensions)\n"
    )
}

/// The name of mypyc's shared module, by what is in it: two apps' must not be one.
fn group(modules: &[Module]) -> String {
    let names: String = modules
        .iter()
        .map(|module| format!("{}\n", module.name))
        .collect();
    Sha256::of(names.as_bytes()).to_string()[..12].to_owned()
}

fn key(sources: &[(String, Vec<u8>)], setup: &str, project: &str) -> String {
    let mut text = format!("{setup}\0{project}\0");
    for (path, bytes) in sources {
        text.push_str(&format!("{path} {}\n", Sha256::of(bytes)));
    }
    Sha256::of(text.as_bytes()).to_string()
}

/// Puts the extension modules of a wheel into `root`; gives their number.
fn place(wheel: &[u8], root: &Path) -> Result<usize, NativeError> {
    let wrong = |error: io::Error| io_error("unpack the modules for", root)(error);
    let mut archive = zip::ZipArchive::new(io::Cursor::new(wheel))
        .map_err(|error| wrong(io::Error::other(error)))?;
    let mut count = 0;
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| wrong(io::Error::other(error)))?;
        let name = entry
            .name()
            .map_err(|error| wrong(io::Error::other(error)))?
            .into_owned();
        if !name.ends_with(".so") {
            continue;
        }
        let path: RelPath = name
            .parse()
            .map_err(|reason| wrong(io::Error::other(format!("the name `{name}` {reason}"))))?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(wrong)?;
        let to = path.under(root);
        scratch::write(&to, &content, Kind::Data).map_err(io_error("write", &to))?;
        count += 1;
    }
    Ok(count)
}

/// The extension module beside a module's source.
fn compiled(root: &Path, module: &Module) -> Option<PathBuf> {
    let source = root.join(&module.path);
    let stem = source.file_stem()?.to_str()?.to_owned();
    let children = std::fs::read_dir(source.parent()?).ok()?.flatten();
    children.map(|child| child.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix(&stem))
            .is_some_and(|rest| rest.starts_with(".cpython-") && rest.ends_with(".so"))
    })
}

/// Removes the sources of compiled modules, and their byte code, from the finished tree. Last, as
/// imports are read from sources.
pub(crate) fn drop_sources(spec: &CompileSpec, roots: &[PathBuf]) -> Result<(), NativeError> {
    if spec.keep_sources {
        return Ok(());
    }
    for pattern in &spec.modules {
        for root in roots {
            for module in matching(root, pattern) {
                if compiled(root, &module).is_some() {
                    drop_source(&root.join(&module.path))?;
                }
            }
        }
    }
    Ok(())
}

fn drop_source(source: &Path) -> Result<(), NativeError> {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    std::fs::remove_file(source).map_err(io_error("remove", source))?;
    let cache = source.with_file_name("__pycache__");
    for child in std::fs::read_dir(&cache).into_iter().flatten().flatten() {
        let name = child.file_name();
        let is_its = name
            .to_str()
            .and_then(|name| name.strip_prefix(&*stem))
            .is_some_and(|rest| rest.starts_with(".cpython-"));
        if is_its {
            let path = child.path();
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    let _ = std::fs::remove_dir(&cache); // when it is empty
    Ok(())
}
