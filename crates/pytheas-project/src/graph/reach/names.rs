//! What is reached because its name stands somewhere: in a string, a text or data file, or the bytes
//! of a compiled module.

use std::{collections::BTreeSet, path::Path};

use super::{
    super::{
        imports::{self, Source},
        modules::{Kind, Module, Origin},
    },
    Reason, is_test,
    walk::{Walk, package_of, read_source},
};

/// Names of the standard library that a compiled module may hold without an end.
const UNENDED: &[&str] = &[
    "asyncio",
    "collections.abc",
    "contextvars",
    "dataclasses",
    "datetime",
    "decimal",
    "fractions",
    "inspect",
    "ipaddress",
    "logging",
    "pathlib",
    "traceback",
    "uuid",
    "warnings",
    "weakref",
    "zoneinfo",
    "threading",
    "tempfile",
];

impl Walk<'_> {
    /// Dotted names of modules in a text file of the app, e.g. the class of a log handler in a
    /// configuration, and the bare names of installed packages.
    pub(super) fn text(&mut self, path: &Path) {
        let text = read_source(path);
        let by = path.to_string_lossy().into_owned();
        for (line, word) in words_in(&text) {
            let by = by.clone();
            let reason = Reason::Named { by, line };
            if word.contains('.') && imports::is_module_name(word) {
                self.named(word, &reason);
            } else if self.tops.contains(word) {
                self.reach_name(word, &reason);
            }
            if imports::is_module_name(word) {
                self.graph.words.insert(word.to_owned());
            }
        }
    }

    /// Dotted names of installed packages' modules in a package's data, e.g. `class` in a theme.
    pub(super) fn data(&mut self, path: &Path) {
        let text = read_source(path);
        let by = path.to_string_lossy().into_owned();
        for (line, word) in words_in(&text) {
            let top = word.split('.').next().unwrap_or(word);
            if top.len() < word.len() && self.tops.contains(top) {
                let by = by.clone();
                self.named(word, &Reason::Named { by, line });
            }
        }
    }

    /// A dotted name of a module, or of something in one.
    pub(super) fn named(&mut self, name: &str, reason: &Reason) {
        let mut name = name;
        while name.contains('.') {
            if self.modules.get(name).is_some() {
                self.reach_name(name, reason);
                return;
            }
            name = name.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
        // `package.Class`: the package itself, when it is an installed one.
        if self.tops.contains(name) {
            self.reach_name(name, reason);
        }
    }

    /// Strings that name a module: a dotted name that is one, `module:object`, and, in packages
    /// that load lazily, the names of their own parts.
    pub(super) fn words(&mut self, module: &Module, source: &Source) {
        for (name, line) in &source.run {
            let by = module.name.clone();
            let reason = Reason::Named { by, line: *line };
            self.reach_name(name, &reason);
            self.reach_name(&format!("{name}.__main__"), &reason);
        }
        let package = package_of(module).to_owned();
        for (word, line) in &source.words {
            let reason = Reason::Named {
                by: module.name.clone(),
                line: *line,
            };
            if let Some(path) = word.strip_suffix(".py") {
                self.file(module, path, &reason);
            }
            let name = word.split(':').next().unwrap_or(word);
            if name.contains('.') && !name.starts_with('.') && imports::is_module_name(name) {
                // `package.module.Object` names the module too.
                self.named(name, &reason);
            } else if word.contains(':') && imports::is_module_name(name) {
                self.reach_name(name, &reason);
            } else if source.is_lazy && !package.is_empty() {
                let own = format!("{package}.{}", name.trim_start_matches('.'));
                self.reach_name(&own, &reason);
            } else if module.origin == Origin::App && self.tops.contains(name) {
                // As in Django's `INSTALLED_APPS`.
                self.reach_name(name, &reason);
            }
            self.graph.words.insert(word.clone());
        }
    }

    /// A string that ends with `.py` is a file that is run or read by its path: the modules of the
    /// same package whose paths end so, e.g. `workers/pump.py`, beside `sys.executable`.
    fn file(&mut self, module: &Module, path: &str, reason: &Reason) {
        let name = path.trim_start_matches(['.', '/']).replace('/', ".");
        if name.is_empty() || name.starts_with("__") || !imports::is_module_name(&name) {
            return;
        }
        let top = module.name.split('.').next().unwrap_or_default();
        let end = format!(".{name}");
        let names: Vec<String> = self
            .modules
            .below(top)
            .filter(|other| other.name.ends_with(&end) && !is_test(&other.name))
            .map(|other| other.name.clone())
            .collect();
        for name in names {
            self.reach_name(&name, reason);
        }
        if module.origin == Origin::App {
            self.reach_name(&name, reason);
        }
        // A file beside the folder of a package of its name, which hides it from imports
        // (`multipart.py` and `multipart/`).
        let hidden = self.modules.get(&name).filter(|_| !name.contains('.'));
        if let Some(package) = hidden
            .filter(|package| package.kind == Kind::Package)
            .cloned()
            && let Some(folder) = package.file.as_deref().and_then(Path::parent)
            && folder.with_extension("py").is_file()
            && self.hidden.insert(name)
        {
            let source = imports::read(&read_source(&folder.with_extension("py")));
            self.follow(&package, &source);
        }
    }

    /// A compiled module's imports are told by the names of modules that stand in its bytes; the
    /// Python modules of its own package are all kept.
    pub(super) fn compiled(&mut self, module: &Module, file: &Path) {
        if module.origin == Origin::Stdlib {
            return; // the rules know those
        }
        let reason = Reason::Compiled {
            by: module.name.clone(),
        };
        let top = module.name.split('.').next().unwrap_or_default().to_owned();
        let mut names: Vec<String> = self
            .modules
            .below(&top)
            .filter(|module| !is_test(&module.name))
            .map(|module| module.name.clone())
            .collect();
        // Cython and mypyc leave the source beside what they made of it.
        let mut has_source = false;
        if let (Some(dir), Some(name)) = (file.parent(), file.file_name()) {
            let name = name.to_string_lossy();
            let stem = name.split('.').next().unwrap_or(&name);
            for extension in ["py", "pyx"] {
                let source = dir.join(format!("{stem}.{extension}"));
                if source.is_file() {
                    has_source = true;
                    let source = imports::read(&read_source(&source));
                    self.follow(module, &source);
                }
            }
        }
        if !has_source {
            let required = self.requires.get(&top).into_iter().flatten();
            names.extend(required.cloned());
        }
        if let Ok(bytes) = std::fs::read(file) {
            let words = words_of(&bytes);
            let others = self.modules.iter().filter(|module| {
                let is_known = match module.origin {
                    Origin::Stdlib => !module.name.starts_with('_') && !module.name.contains('.'),
                    Origin::Package => true,
                    Origin::App => false,
                };
                is_known && words.contains(module.name.as_str())
            });
            names.extend(others.map(|module| module.name.clone()));
            // Programs in Rust do not end their strings: names that are no common words.
            for name in UNENDED {
                if contains(&bytes, name.as_bytes()) {
                    names.push((*name).to_owned());
                }
            }
        }
        for name in names {
            self.reach_name(&name, &reason);
        }
    }
}

/// The names in a binary that end with a zero byte, as strings of C do.
fn words_of(bytes: &[u8]) -> BTreeSet<&str> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| (2..40).contains(&word.len()))
        .filter_map(|word| std::str::from_utf8(word).ok())
        .filter(|word| imports::is_module_name(word))
        .collect()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else {
        return true;
    };
    bytes
        .iter()
        .enumerate()
        .any(|(at, byte)| byte == first && bytes[at..].starts_with(wanted))
}

/// Runs of letters, digits, underscores and dots, each with its line, from 1.
fn words_in(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    (1..).zip(text.lines()).flat_map(move |(number, line)| {
        line.split(move |c: char| !is_part(c))
            .map(move |word| (number, word.trim_matches('.')))
    })
}
