//! The entry point exists: looked up in the built tree without importing anything.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use miette::Diagnostic;
use pytheas_project::{Entry, Environment, closest};

const SCRIPT: &str = r#"
import ast, sys
tree = ast.parse(open(sys.argv[1], "rb").read(), sys.argv[1])
names = set()
def collect(body):
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.With)):
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    names.add(child.id)
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                collect(getattr(node, field, []))
        for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            collect(part.body)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            names.add("*")  # `globals().update(…)`, `exec(…)`: anything
collect(tree.body)
print("\n".join(sorted(names)))
"#;

/// An entry point that does not exist.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum EntryCheckError {
    /// The script is not among the app's files.
    #[error("entry point missing: there is no `{script}` in `{}`", project.display())]
    #[diagnostic(
        code(pytheas::entry::script),
        help("correct `--entry`, or `entry` or `exclude` in `[tool.pytheas]`")
    )]
    Script {
        /// The script.
        script: String,
        /// The project.
        project: PathBuf,
    },
    /// No such module in the app and its packages.
    #[error("entry point missing: there is no module `{module}` in the app and its packages")]
    #[diagnostic(code(pytheas::entry::module))]
    Module {
        /// The module.
        module: String,
        /// What to do.
        #[help]
        help: String,
    },
    /// The package cannot be run.
    #[error("entry point missing: the package `{package}` has no `__main__.py`")]
    #[diagnostic(
        code(pytheas::entry::package),
        help("name a callable: `{package}.MODULE:CALLABLE`")
    )]
    NotRunnable {
        /// The package.
        package: String,
    },
    /// The module has no such callable.
    #[error("entry point missing: module `{module}` has no `{callable}`")]
    #[diagnostic(code(pytheas::entry::callable))]
    Callable {
        /// The module.
        module: String,
        /// The callable.
        callable: String,
        /// What to do.
        #[help]
        help: String,
    },
}

/// Checks that `entry` can be found in `roots` (the folders of `sys.path` in the built tree).
pub(crate) fn check(
    entry: &Entry,
    app: &Path,
    project: &Path,
    roots: &[PathBuf],
    python: &Path,
    environment: &Environment,
) -> Result<(), EntryCheckError> {
    match entry {
        Entry::Script(script) if script.under(app).is_file() => Ok(()),
        Entry::Script(script) => Err(EntryCheckError::Script {
            script: script.to_string(),
            project: project.to_owned(),
        }),
        Entry::Module(module) => match find(module, roots) {
            Some(Found::Package(dir)) if !dir.join("__main__.py").is_file() => {
                Err(EntryCheckError::NotRunnable {
                    package: module.clone(),
                })
            }
            Some(_) => Ok(()),
            None => Err(no_module(module, roots)),
        },
        Entry::Callable { module, callable } => {
            let first = callable.split('.').next().unwrap_or(callable);
            let source = match find(module, roots) {
                None => return Err(no_module(module, roots)),
                // `package:module.callable`: importing a module makes it a name of its package.
                Some(Found::Package(_)) if find(&format!("{module}.{first}"), roots).is_some() => {
                    return Ok(());
                }
                Some(Found::Source(path)) => path,
                Some(Found::Package(dir)) => dir.join("__init__.py"),
                Some(Found::Compiled) => return Ok(()),
            };
            let Ok(names) = names_of(&source, python, environment) else {
                return Ok(());
            };
            // With `*` or a module-level `__getattr__`, only running it would tell.
            if names
                .iter()
                .any(|name| name == first || name == "*" || name == "__getattr__")
            {
                return Ok(());
            }
            let public: Vec<&str> = names
                .iter()
                .map(String::as_str)
                .filter(|name| !name.starts_with('_'))
                .collect();
            let help = match (closest(first, public.iter().copied()), public.len()) {
                (Some(near), _) => format!("did you mean `{module}:{near}`?"),
                (None, 0) => "the module defines nothing".to_owned(),
                (None, count) if count <= 12 => format!("it has {}", listed(&public)),
                (None, count) => {
                    format!("it has {} and {} more", listed(&public[..10]), count - 10)
                }
            };
            Err(EntryCheckError::Callable {
                module: module.clone(),
                callable: callable.clone(),
                help,
            })
        }
    }
}

enum Found {
    Source(PathBuf),
    Package(PathBuf),
    Compiled,
}

/// The module's file, as the import system would find it.
fn find(module: &str, roots: &[PathBuf]) -> Option<Found> {
    let path = module.replace('.', "/");
    roots.iter().find_map(|root| {
        let base = root.join(&path);
        // A folder without `__init__.py` is a namespace package: `python -m` runs its `__main__`.
        if base.join("__init__.py").is_file() || base.join("__main__.py").is_file() {
            return Some(Found::Package(base));
        }
        let source = root.join(format!("{path}.py"));
        if source.is_file() {
            return Some(Found::Source(source));
        }
        let stem = format!("{}.", base.file_name()?.to_str()?);
        let compiled = std::fs::read_dir(base.parent()?)
            .ok()?
            .flatten()
            .any(|child| {
                child
                    .file_name()
                    .to_str()
                    .is_some_and(|name| name.starts_with(&stem) && name.ends_with(".so"))
            });
        compiled.then_some(Found::Compiled)
    })
}

fn no_module(module: &str, roots: &[PathBuf]) -> EntryCheckError {
    let mut candidates: Vec<String> = Vec::new();
    // Siblings of what is missing: in the deepest part of the name that exists.
    let parent = module
        .rsplit_once('.')
        .map(|(parent, _)| parent)
        .filter(|parent| matches!(find(parent, roots), Some(Found::Package(_))));
    // The standard library is the last. Its names are near many others by chance, so only a slip of
    // one letter is taken for one of them.
    for (index, root) in roots.iter().enumerate() {
        let is_stdlib = index + 1 == roots.len() && parent.is_none();
        let dir = parent.map_or(root.clone(), |parent| root.join(parent.replace('.', "/")));
        for child in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(name) = child.file_name().into_string() else {
                continue;
            };
            let is_package = child.path().join("__init__.py").is_file();
            if let Some(stem) = name
                .strip_suffix(".py")
                .or(is_package.then_some(name.as_str()))
                && (!is_stdlib || is_one_slip(stem, module))
            {
                candidates
                    .push(parent.map_or(stem.to_owned(), |parent| format!("{parent}.{stem}")));
            }
        }
    }
    let help = match closest(module, candidates.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "is the package that has it among the requirements?".to_owned(),
    };
    EntryCheckError::Module {
        module: module.to_owned(),
        help,
    }
}

/// Whether the names have one length, give or take a letter, and differ in one place (or in two
/// neighbouring letters that changed places).
fn is_one_slip(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..]
        .iter()
        .rev()
        .zip(b[start..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (a, b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    match (a, b) {
        ([_], [_]) | ([_], []) | ([], [_]) => true,
        ([first, second], [other_first, other_second]) => {
            first == other_second && second == other_first
        }
        _ => false,
    }
}

/// The names that the module's top level binds.
fn names_of(source: &Path, python: &Path, environment: &Environment) -> io::Result<Vec<String>> {
    let output = environment
        .python(python)
        .args(["-I", "-B", "-X", "utf8", "-c", SCRIPT])
        .arg(source)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn listed(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
