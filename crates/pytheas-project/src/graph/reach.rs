//! The walk: from the entry points along the imports to everything that can be reached, with the
//! reason for each module. Breadth first, so a module's chain of reasons is a shortest one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
};

use serde::Serialize;

use super::{
    imports::{self, Import, Source, What, When},
    modules::{Kind, Module, Modules, Origin, Root},
    rules::RULES,
};

/// Something that is loaded by its name in `entry_points.txt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The group.
    pub group: String,
    /// Its name in it.
    pub name: String,
    /// The module it lies in.
    pub module: String,
    /// The distribution that has it.
    pub distribution: String,
}

/// What a graph begins with.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The folders of modules, in Python's order.
    pub roots: Vec<Root>,
    /// Modules that are run.
    pub modules: Vec<String>,
    /// Scripts that are run, with the folder they lie in first on the path.
    pub scripts: Vec<PathBuf>,
    /// Modules that are kept though nothing is seen to import them; `name.*` is all below.
    pub keep: Vec<String>,
    /// Plug-ins; those of groups that some reached module names are reached.
    pub plugins: Vec<Plugin>,
}

/// Why a module is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// It is the program, or imported by its start.
    Entry,
    /// It is imported.
    Import {
        /// By this module.
        by: String,
        /// On this line.
        line: u32,
        /// Inside a function.
        lazy: bool,
    },
    /// It is the package of a reached module.
    Parent {
        /// The reached module.
        of: String,
    },
    /// A string with its name stands in a module.
    Named {
        /// In this module.
        by: String,
        /// On this line.
        line: u32,
    },
    /// Any module of its package may be imported.
    AnyOf {
        /// By this module.
        by: String,
        /// On this line.
        line: u32,
    },
    /// A compiled module, whose imports cannot be seen, may need it.
    Compiled {
        /// The compiled module.
        by: String,
    },
    /// A built-in rule.
    Rule {
        /// The module that the rule is for; `*` for every program.
        when: String,
    },
    /// A plug-in of a group that a reached module names.
    Plugin {
        /// The group.
        group: String,
        /// Its name in it.
        name: String,
    },
    /// `keep` says so.
    Keep {
        /// The line of `keep`.
        pattern: String,
    },
}

/// An import that leads to nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// What is imported.
    pub name: String,
    /// By this module.
    pub by: String,
    /// On this line.
    pub line: u32,
    /// It need not be there: guarded by `try` or `if`, or inside a function.
    pub optional: bool,
}

/// An import whose name is known only when it happens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Undecided {
    /// The module.
    pub module: String,
    /// Its file.
    pub file: PathBuf,
    /// The line.
    pub line: u32,
    /// The call.
    pub call: String,
}

/// What is reached, and why.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The reached modules with their reasons.
    pub reached: BTreeMap<String, Reason>,
    /// Every module there is.
    pub modules: BTreeMap<String, Module>,
    /// Imports that lead to nothing, of the app's and the packages' modules.
    pub missing: BTreeSet<Missing>,
    /// Imports that could not be decided, of the app's and the packages' modules.
    pub undecided: BTreeSet<Undecided>,
    /// Top-level names that reached modules outside the standard library import, with the
    /// importing modules and lines.
    pub imported_by: BTreeMap<String, Vec<(String, u32)>>,
    /// Every string of reached modules that could be a name: for what is looked up by name.
    pub words: BTreeSet<String>,
}

impl Graph {
    /// Walks from `start`.
    pub fn build(start: &Start) -> Self {
        let mut roots = start.roots.clone();
        for script in &start.scripts {
            if let Some(dir) = script.parent() {
                let dir = dir.to_owned();
                roots.insert(
                    0,
                    Root {
                        dir,
                        origin: Origin::App,
                    },
                );
            }
        }
        let modules = Modules::index(&roots);
        let mut walk = Walk {
            modules: &modules,
            graph: Self::default(),
            open: VecDeque::new(),
            sources: HashMap::new(),
        };
        for script in &start.scripts {
            walk.script(script);
        }
        for name in &start.modules {
            walk.reach_name(name, &Reason::Entry);
            walk.reach_name(&format!("{name}.__main__"), &Reason::Entry);
        }
        for pattern in &start.keep {
            walk.keep(
                pattern,
                &Reason::Keep {
                    pattern: pattern.clone(),
                },
            );
        }
        walk.run();
        // What the program itself asks for comes first: it gives the better reasons.
        loop {
            let before = walk.graph.reached.len();
            for rule in &RULES.rule {
                if rule.when == "*" || walk.graph.reached.contains_key(&rule.when) {
                    let when = rule.when.clone();
                    for pattern in &rule.keep {
                        walk.keep(pattern, &Reason::Rule { when: when.clone() });
                    }
                }
            }
            for plugin in &start.plugins {
                if walk.graph.words.contains(&plugin.group) {
                    let reason = Reason::Plugin {
                        group: plugin.group.clone(),
                        name: plugin.name.clone(),
                    };
                    walk.reach_name(&plugin.module, &reason);
                }
            }
            walk.run();
            if walk.graph.reached.len() == before {
                break;
            }
        }
        let mut graph = walk.graph;
        graph.modules = modules
            .iter()
            .map(|module| (module.name.clone(), module.clone()))
            .collect();
        graph
    }

    /// The chain of reasons from an entry point to `module`, the module last; empty when it is
    /// not reached.
    pub fn chain(&self, module: &str) -> Vec<(String, Reason)> {
        let mut chain = Vec::new();
        let mut seen = BTreeSet::new();
        let mut name = module.to_owned();
        while let Some(reason) = self.reached.get(&name) {
            if !seen.insert(name.clone()) {
                break;
            }
            chain.push((name, reason.clone()));
            name = match reason {
                Reason::Import { by, .. }
                | Reason::Named { by, .. }
                | Reason::AnyOf { by, .. }
                | Reason::Compiled { by } => by.clone(),
                Reason::Parent { of } => of.clone(),
                Reason::Rule { when } => when.clone(),
                Reason::Entry | Reason::Plugin { .. } | Reason::Keep { .. } => break,
            };
        }
        chain.reverse();
        chain
    }
}

struct Walk<'a> {
    modules: &'a Modules,
    graph: Graph,
    open: VecDeque<String>,
    sources: HashMap<String, Source>,
}

impl Walk<'_> {
    fn run(&mut self) {
        while let Some(name) = self.open.pop_front() {
            let Some(module) = self.modules.get(&name).cloned() else {
                continue;
            };
            match (module.kind, &module.file) {
                (Kind::Extension, Some(file)) => self.compiled(&module, file),
                (_, Some(file)) => {
                    let text = read_source(file);
                    let source = imports::read(&text);
                    self.follow(&module, &source);
                    self.sources.insert(name, source);
                }
                (_, None) => {}
            }
        }
    }

    /// A script has no name that could be imported.
    fn script(&mut self, path: &std::path::Path) {
        let name = "__main__".to_owned();
        let module = Module {
            name: name.clone(),
            file: Some(path.to_owned()),
            kind: Kind::Source,
            origin: Origin::App,
        };
        self.graph.reached.insert(name, Reason::Entry);
        let source = imports::read(&read_source(path));
        self.follow(&module, &source);
    }

    fn follow(&mut self, module: &Module, source: &Source) {
        let is_program = module.name == "__main__" || module.name.ends_with(".__main__");
        let is_entry = self.graph.reached.get(&module.name) == Some(&Reason::Entry);
        for import in &source.imports {
            match import.when {
                When::TypeChecking => continue,
                When::AsProgram if !is_program && !is_entry => continue,
                _ => {}
            }
            self.import(module, import);
        }
        if module.origin == Origin::Stdlib {
            return;
        }
        for (line, call) in &source.undecided {
            if let Some(file) = &module.file {
                self.graph.undecided.insert(Undecided {
                    module: module.name.clone(),
                    file: file.clone(),
                    line: *line,
                    call: call.clone(),
                });
            }
        }
        self.words(module, source);
    }

    /// Strings that name a module: a dotted name that is one, `module:object`, and, in packages
    /// that load lazily, the names of their own parts.
    fn words(&mut self, module: &Module, source: &Source) {
        let package = package_of(module).to_owned();
        for (word, line) in &source.words {
            let reason = Reason::Named {
                by: module.name.clone(),
                line: *line,
            };
            let name = word.split(':').next().unwrap_or(word);
            if name.contains('.') && !name.starts_with('.') && imports::is_module_name(name) {
                // `package.module.Object` names the module too.
                let (parent, last) = name.rsplit_once('.').unwrap_or((name, ""));
                let is_class = last.starts_with(|c: char| c.is_uppercase());
                let target = [name, parent].into_iter().find(|name| {
                    (is_class || name.contains('.')) && self.modules.get(name).is_some()
                });
                if let Some(target) = target.map(str::to_owned) {
                    self.reach_name(&target, &reason);
                }
            } else if word.contains(':') && imports::is_module_name(name) {
                self.reach_name(name, &reason);
            } else if source.is_lazy && !package.is_empty() {
                let own = format!("{package}.{}", name.trim_start_matches('.'));
                self.reach_name(&own, &reason);
            }
            self.graph.words.insert(word.clone());
        }
    }

    fn import(&mut self, module: &Module, import: &Import) {
        let lazy = import.when == When::Lazy;
        let reason = Reason::Import {
            by: module.name.clone(),
            line: import.line,
            lazy,
        };
        match &import.what {
            What::Module { name } => self.imported(module, import, name, &reason),
            What::Names { level, name, names } => {
                let Some(base) = absolute(module, *level, name) else {
                    return;
                };
                self.imported(module, import, &base, &reason);
                for part in names {
                    if part == "*" {
                        self.star(&base, &reason);
                    } else {
                        self.reach_name(&format!("{base}.{part}"), &reason);
                    }
                }
            }
            What::AnyOf {
                level,
                package,
                start,
            } => {
                let Some(base) = absolute(module, *level, package) else {
                    return;
                };
                let reason = Reason::AnyOf {
                    by: module.name.clone(),
                    line: import.line,
                };
                self.reach_name(&base, &reason);
                let begins = format!("{base}.{start}");
                let names: Vec<String> = self
                    .modules
                    .below(&base)
                    .filter(|module| module.name.starts_with(&begins) && !is_test(&module.name))
                    .map(|module| module.name.clone())
                    .collect();
                for name in names {
                    self.reach_name(&name, &reason);
                }
            }
        }
    }

    fn imported(&mut self, module: &Module, import: &Import, name: &str, reason: &Reason) {
        let top = name.split('.').next().unwrap_or(name);
        if RULES.ignores(&module.name, top) && module.origin == Origin::Stdlib {
            return;
        }
        if module.origin != Origin::Stdlib && !top.is_empty() {
            let place = (module.name.clone(), import.line);
            let places = self.graph.imported_by.entry(top.to_owned());
            places.or_default().push(place);
        }
        if self.modules.get(name).is_some() {
            self.reach_name(name, reason);
            return;
        }
        // The parts of the name that are there: `import os.path` reaches `os`.
        let mut known = name;
        while let Some((parent, _)) = known.rsplit_once('.') {
            known = parent;
            if self.modules.get(known).is_some() {
                self.reach_name(known, reason);
                return;
            }
        }
        if module.origin != Origin::Stdlib && !is_built_in(top) {
            self.graph.missing.insert(Missing {
                name: name.to_owned(),
                by: module.name.clone(),
                line: import.line,
                optional: import.when != When::Always,
            });
        }
    }

    /// `from base import *` imports the submodules that `__all__` names.
    fn star(&mut self, base: &str, reason: &Reason) {
        let module = self.modules.get(base);
        let module = module.filter(|module| module.kind != Kind::Extension);
        let Some(file) = module.and_then(|module| module.file.clone()) else {
            return;
        };
        let exported = match self.sources.get(base) {
            Some(source) => source.exported.clone(),
            None => imports::read(&read_source(&file)).exported,
        };
        for name in exported {
            self.reach_name(&format!("{base}.{name}"), reason);
        }
    }

    /// A compiled module's imports are told by the names of modules that stand in its bytes; the
    /// Python modules of its own package are all kept.
    fn compiled(&mut self, module: &Module, file: &std::path::Path) {
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
        if let Ok(bytes) = std::fs::read(file) {
            let words = words_of(&bytes);
            let others = self.modules.iter().filter(|module| {
                module.origin == Origin::Stdlib
                    && !module.name.starts_with('_')
                    && !module.name.contains('.')
                    && words.contains(module.name.as_str())
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

    /// Reaches what a line of `keep` or of a rule means.
    fn keep(&mut self, pattern: &str, reason: &Reason) {
        if let Some(package) = pattern.strip_suffix(".*") {
            self.reach_name(package, reason);
            let names: Vec<String> = self
                .modules
                .below(package)
                .filter(|module| !is_test(&module.name))
                .map(|module| module.name.clone())
                .collect();
            for name in names {
                self.reach_name(&name, reason);
            }
        } else if let Some(start) = pattern.strip_suffix('*') {
            let names: Vec<String> = self
                .modules
                .iter()
                .filter(|module| module.name.starts_with(start))
                .map(|module| module.name.clone())
                .collect();
            for name in names {
                self.reach_name(&name, reason);
            }
        } else {
            self.reach_name(pattern, reason);
        }
    }

    /// Reaches a module that exists, and its packages.
    fn reach_name(&mut self, name: &str, reason: &Reason) {
        if self.modules.get(name).is_none() || self.graph.reached.contains_key(name) {
            return;
        }
        // The packages above are imported first, for the same reason.
        let mut at = 0;
        while let Some(dot) = name[at..].find('.') {
            let parent = &name[..at + dot];
            at += dot + 1;
            if self.modules.get(parent).is_some() && !self.graph.reached.contains_key(parent) {
                self.graph.reached.insert(parent.to_owned(), reason.clone());
                self.open.push_back(parent.to_owned());
            }
        }
        self.graph.reached.insert(name.to_owned(), reason.clone());
        self.open.push_back(name.to_owned());
    }
}

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

/// Modules of C that lie inside the interpreter: no file shows them.
const BUILT_IN: &[&str] = &[
    "array",
    "atexit",
    "audioop",
    "binascii",
    "builtins",
    "cmath",
    "errno",
    "faulthandler",
    "fcntl",
    "gc",
    "grp",
    "itertools",
    "marshal",
    "math",
    "mmap",
    "msvcrt",
    "nt",
    "ossaudiodev",
    "posix",
    "pwd",
    "pyexpat",
    "readline",
    "resource",
    "select",
    "spwd",
    "sys",
    "syslog",
    "termios",
    "time",
    "unicodedata",
    "winreg",
    "winsound",
    "xxsubtype",
    "zlib",
];

/// Whether a module without a file belongs to the interpreter: the public ones by name, the
/// private ones by their underscore.
pub(crate) fn is_built_in(top: &str) -> bool {
    BUILT_IN.contains(&top) || top.starts_with('_')
}

/// Whether the module belongs to a package's tests.
pub(crate) fn is_test(name: &str) -> bool {
    name.split('.')
        .skip(1)
        .any(|part| matches!(part, "tests" | "test" | "conftest" | "_tests"))
}

fn package_of(module: &Module) -> &str {
    if matches!(module.kind, Kind::Package | Kind::Namespace) {
        &module.name
    } else {
        module
            .name
            .rsplit_once('.')
            .map_or("", |(parent, _)| parent)
    }
}

/// The absolute name of `level` dots and `name` in `module`; none when it leads above the top.
fn absolute(module: &Module, level: usize, name: &str) -> Option<String> {
    if level == 0 {
        return (!name.is_empty()).then(|| name.to_owned());
    }
    let mut base = package_of(module);
    for _ in 1..level {
        base = base.rsplit_once('.').map(|(parent, _)| parent)?;
    }
    match (base, name) {
        ("", name) if !name.is_empty() => Some(name.to_owned()), // a script's neighbours
        ("", _) => None,
        (base, "") => Some(base.to_owned()),
        (base, name) => Some(format!("{base}.{name}")),
    }
}

fn read_source(path: &std::path::Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
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
