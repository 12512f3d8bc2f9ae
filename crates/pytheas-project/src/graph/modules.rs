//! Which modules there are: an index of the folders that Python looks in, made from file names
//! alone, in Python's own order (a regular package before a module, both before a namespace).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Whose module it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The app's.
    App,
    /// An installed package's.
    Package,
    /// The standard library's.
    Stdlib,
}

/// What a module is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder with `__init__.py`.
    Package,
    /// A file `name.py`.
    Source,
    /// A shared object.
    Extension,
    /// A folder without `__init__.py` (PEP 420).
    Namespace,
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its dotted name.
    pub name: String,
    /// Its file; none for a namespace.
    pub file: Option<PathBuf>,
    /// What it is made of.
    pub kind: Kind,
    /// Whose it is.
    pub origin: Origin,
}

/// A folder that modules are looked for in.
#[derive(Debug, Clone)]
pub struct Root {
    /// The folder.
    pub dir: PathBuf,
    /// Whose modules lie there.
    pub origin: Origin,
}

/// The modules of some folders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Modules {
    by_name: BTreeMap<String, Module>,
}

/// Folders below a package deeper than this are no modules.
const DEEPEST: usize = 24;

impl Modules {
    /// The modules below `roots`; earlier ones hide later ones.
    pub(crate) fn index(roots: &[Root]) -> Self {
        let mut modules = Self::default();
        for root in roots {
            modules.folder(&root.dir, "", root.origin, 0);
        }
        modules
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Module> {
        self.by_name.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Module> {
        self.by_name.values()
    }

    /// The modules whose name begins with `package.`, its children and theirs.
    pub(crate) fn below<'a>(&'a self, package: &str) -> impl Iterator<Item = &'a Module> {
        let from = format!("{package}.");
        let to = format!("{package}/"); // `/` is the character after `.`
        self.by_name.range(from..to).map(|(_, module)| module)
    }

    fn folder(&mut self, dir: &Path, package: &str, origin: Origin, depth: usize) {
        let Ok(children) = std::fs::read_dir(dir) else {
            return;
        };
        let mut children: Vec<_> = children.flatten().collect();
        children.sort_by_key(std::fs::DirEntry::file_name);
        let join = |name: &str| match package {
            "" => name.to_owned(),
            package => format!("{package}.{name}"),
        };
        let mut namespaces = Vec::new();
        for child in children {
            let Ok(file_name) = child.file_name().into_string() else {
                continue;
            };
            let path = child.path();
            if path.is_dir() {
                let is_name =
                    super::imports::is_module_name(&file_name) && file_name != "__pycache__";
                // The folders of packages lie inside the standard library's.
                let is_own_root = matches!(
                    file_name.as_str(),
                    "site-packages" | "dist-packages" | "lib-dynload"
                ) || (origin == Origin::Package && file_name.ends_with("-info"));
                if !is_name || is_own_root || depth >= DEEPEST {
                    continue;
                }
                let init = path.join("__init__.py");
                if init.is_file() {
                    let name = join(&file_name);
                    let is_first = self.add(Module {
                        name: name.clone(),
                        file: Some(init),
                        kind: Kind::Package,
                        origin,
                    });
                    if is_first {
                        self.folder(&path, &name, origin, depth + 1);
                    }
                } else {
                    namespaces.push((file_name, path));
                }
            } else if let Some((stem, kind)) = module_file(&file_name)
                && !(stem == "__init__" && !package.is_empty() && kind == Kind::Source)
                && !(kind == Kind::Extension && is_plain_library(&path, &file_name, stem))
            {
                self.add(Module {
                    name: join(stem),
                    file: Some(path),
                    kind,
                    origin,
                });
            }
        }
        for (name, path) in namespaces {
            let name = join(&name);
            let is_free = self
                .by_name
                .get(&name)
                .is_none_or(|module| module.kind == Kind::Namespace);
            if is_free {
                let before = self.by_name.len();
                self.folder(&path, &name, origin, depth + 1);
                if self.by_name.len() > before {
                    self.add(Module {
                        name,
                        file: None,
                        kind: Kind::Namespace,
                        origin,
                    });
                }
            }
        }
    }

    /// Adds a module unless its name is taken by one that Python would find first.
    fn add(&mut self, module: Module) -> bool {
        match self.by_name.get(&module.name) {
            // A source and an extension of the same name in one folder: both are kept by the
            // caller's file, Python takes the extension.
            Some(before) if before.kind != Kind::Namespace => {
                let same_folder = before.file.as_deref().and_then(Path::parent)
                    == module.file.as_deref().and_then(Path::parent);
                if before.kind == Kind::Source && module.kind == Kind::Extension && same_folder {
                    self.by_name.insert(module.name.clone(), module);
                }
                false
            }
            Some(_) if module.kind == Kind::Namespace => false,
            _ => {
                self.by_name.insert(module.name.clone(), module);
                true
            }
        }
    }
}

/// The module in a file of this name.
pub(crate) fn module_file(file_name: &str) -> Option<(&str, Kind)> {
    if let Some(stem) = file_name.strip_suffix(".py") {
        return super::imports::is_module_name(stem).then_some((stem, Kind::Source));
    }
    let stem = file_name.strip_suffix(".so")?;
    let stem = stem.split('.').next().unwrap_or(stem);
    super::imports::is_module_name(stem).then_some((stem, Kind::Extension))
}

/// Whether `NAME.so` is no module but a library that is opened by its path (`ctypes`, cffi's
/// `dlopen`), and so data: nothing in it is called `PyInit_NAME`.
fn is_plain_library(path: &Path, file_name: &str, stem: &str) -> bool {
    if file_name.strip_suffix(".so") != Some(stem) {
        return false;
    }
    let wanted = format!("PyInit_{stem}");
    let wanted = wanted.as_bytes();
    std::fs::read(path).is_ok_and(|bytes| {
        !bytes
            .windows(wanted.len())
            .any(|window| window[0] == b'P' && window == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_tells_the_module() {
        assert_eq!(module_file("a.py"), Some(("a", Kind::Source)));
        assert_eq!(
            module_file("_x.cpython-311-x86_64-linux-gnu.so"),
            Some(("_x", Kind::Extension))
        );
        assert_eq!(module_file("x.abi3.so"), Some(("x", Kind::Extension)));
        assert_eq!(module_file("libx.so.1"), None);
        assert_eq!(module_file("a-b.py"), None);
        assert_eq!(module_file("a.pyi"), None);
    }
}
