//! The walk: from the entry points along the imports to everything that can be reached, with the
//! reason for each module. Breadth first, so a module's chain of reasons is a shortest one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
};

use serde::Serialize;

use crate::settings::SlimRule;

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
    /// The project's own rules, beside the built-in ones.
    pub rules: Vec<SlimRule>,
    /// For a top-level module with compiled parts: the top-level modules of what its distribution
    /// requires.
    pub requires: BTreeMap<String, BTreeSet<String>>,
    /// Text files of the app (configuration, templates of it) whose words may name modules.
    pub texts: Vec<PathBuf>,
    /// The modules of each distribution, without its tests: one whose plug-in is reached is kept
    /// whole.
    pub distributions: BTreeMap<String, Vec<String>>,
    /// For a top-level module: text files of its package whose dotted words may name modules.
    pub data: BTreeMap<String, Vec<PathBuf>>,
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
        let tops = modules
            .iter()
            .filter(|module| module.origin == Origin::Package && !module.name.contains('.'))
            .map(|module| module.name.clone())
            .collect();
        let mut walk = Walk {
            modules: &modules,
            tops,
            requires: &start.requires,
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
        for text in &start.texts {
            walk.text(text);
        }
        walk.run();
        let mut unread = start.data.clone();
        // What the program itself asks for comes first: it gives the better reasons.
        loop {
            let before = walk.graph.reached.len();
            let own = start.rules.iter().map(|rule| (&rule.when, &rule.keep));
            let built_in = RULES.rule.iter().map(|rule| (&rule.when, &rule.keep));
            for (when, patterns) in own.chain(built_in) {
                if when == "*" || walk.graph.reached.contains_key(when) {
                    for pattern in patterns {
                        walk.keep(pattern, &Reason::Rule { when: when.clone() });
                    }
                }
            }
            for rule in &RULES.rule {
                if !rule.whole_with.is_empty() && walk.graph.reached.contains_key(&rule.when) {
                    walk.whole(&rule.when, &rule.whole_with);
                }
            }
            for plugin in &start.plugins {
                if walk.graph.words.contains(&plugin.group) {
                    let reason = Reason::Plugin {
                        group: plugin.group.clone(),
                        name: plugin.name.clone(),
                    };
                    walk.reach_name(&plugin.module, &reason);
                    // Themes and the like find the rest of themselves by name.
                    let rest = start.distributions.get(&plugin.distribution);
                    for name in rest.into_iter().flatten() {
                        walk.reach_name(name, &reason);
                    }
                }
            }
            let reached = &walk.graph.reached;
            let texts: Vec<PathBuf> = unread
                .extract_if(.., |top, _| reached.contains_key(top))
                .flat_map(|(_, texts)| texts)
                .collect();
            for text in texts {
                walk.data(&text);
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
    /// Top-level modules of installed packages.
    tops: BTreeSet<String>,
    requires: &'a BTreeMap<String, BTreeSet<String>>,
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
                    self.stub(&module, &source, file);
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
                // What a lazy package imports for type checkers is what it loads on demand.
                When::TypeChecking if !source.is_lazy => continue,
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
            // Mostly a module of the same package.
            let package = package_of(module).to_owned();
            if module.origin == Origin::Package && !package.is_empty() {
                let reason = Reason::AnyOf {
                    by: module.name.clone(),
                    line: *line,
                };
                self.below(&package, &reason);
            }
        }
        self.words(module, source);
    }

    /// The type stub of a lazy package says what it loads (`lazy_loader.attach_stub`).
    fn stub(&mut self, module: &Module, source: &Source, file: &std::path::Path) {
        let stub = file.with_extension("pyi");
        if source.is_lazy && stub.is_file() {
            let stub = imports::read(&read_source(&stub));
            for import in &stub.imports {
                self.import(module, import);
            }
        }
    }

    /// Everything below a package but its tests.
    fn below(&mut self, package: &str, reason: &Reason) {
        let names: Vec<String> = self
            .modules
            .below(package)
            .filter(|module| !is_test(&module.name))
            .map(|module| module.name.clone())
            .collect();
        for name in names {
            self.reach_name(&name, reason);
        }
    }

    /// Keeps each reached package whole that has one of these modules: what a framework looks for
    /// in every package it is told of.
    fn whole(&mut self, when: &str, children: &[String]) {
        let packages: Vec<String> = self
            .graph
            .reached
            .keys()
            .filter(|name| {
                self.modules.get(name).is_some_and(|module| {
                    module.kind == Kind::Package && module.origin != Origin::Stdlib
                }) && children
                    .iter()
                    .any(|child| self.modules.get(&format!("{name}.{child}")).is_some())
            })
            .cloned()
            .collect();
        for package in packages {
            let when = when.to_owned();
            self.below(&package, &Reason::Rule { when });
        }
    }

    /// Dotted names of modules in a text file of the app, e.g. the class of a log handler in a
    /// configuration, and the bare names of installed packages.
    fn text(&mut self, path: &std::path::Path) {
        let text = read_source(path);
        let by = path.to_string_lossy().into_owned();
        for (index, line) in text.lines().enumerate() {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            for word in line.split(|c: char| !is_part(c)) {
                let word = word.trim_matches('.');
                let reason = Reason::Named {
                    by: by.clone(),
                    line: u32::try_from(index + 1).unwrap_or(u32::MAX),
                };
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
    }

    /// Dotted names of installed packages' modules in a package's data, e.g. `class` in a theme.
    fn data(&mut self, path: &std::path::Path) {
        let text = read_source(path);
        let by = path.to_string_lossy().into_owned();
        for (index, line) in text.lines().enumerate() {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            for word in line.split(|c: char| !is_part(c)) {
                let word = word.trim_matches('.');
                let top = word.split('.').next().unwrap_or(word);
                if top.len() < word.len() && self.tops.contains(top) {
                    let reason = Reason::Named {
                        by: by.clone(),
                        line: u32::try_from(index + 1).unwrap_or(u32::MAX),
                    };
                    self.named(word, &reason);
                }
            }
        }
    }

    /// A dotted name of a module, or of something in one.
    fn named(&mut self, name: &str, reason: &Reason) {
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

    fn import(&mut self, module: &Module, import: &Import) {
        let lazy = import.when == When::Lazy;
        let reason = Reason::Import {
            by: module.name.clone(),
            line: import.line,
            lazy,
        };
        match &import.what {
            What::Module { name } => {
                self.vendored(module, name, &[], &reason);
                self.imported(module, import, name, &reason);
            }
            What::Names { level, name, names } => {
                let Some(base) = absolute(module, *level, name) else {
                    return;
                };
                if *level == 0 {
                    self.vendored(module, name, names, &reason);
                }
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

    /// A package may put a folder of copies of other packages on `sys.path` and import them by
    /// their own names (`poetry/core/_vendor/lark`).
    fn vendored(&mut self, module: &Module, name: &str, names: &[String], reason: &Reason) {
        for folder in self.vendor_folders(&module.name) {
            let mut known = format!("{folder}.{name}");
            let is_whole = self.modules.get(&known).is_some();
            while known.len() > folder.len() && self.modules.get(&known).is_none() {
                known.truncate(known.rfind('.').unwrap_or(0));
            }
            if known.len() > folder.len() {
                self.reach_name(&known, reason);
                for part in names.iter().filter(|_| is_whole) {
                    if part == "*" {
                        self.star(&known, reason);
                    } else {
                        self.reach_name(&format!("{known}.{part}"), reason);
                    }
                }
            }
        }
    }

    /// The folders of copied packages beside a module and in the packages above it.
    fn vendor_folders(&self, module: &str) -> Vec<String> {
        std::iter::successors(Some(module), |name| {
            name.rsplit_once('.').map(|(parent, _)| parent)
        })
        .flat_map(|package| VENDOR.iter().map(move |name| format!("{package}.{name}")))
        .filter(|folder| self.modules.get(folder).is_some())
        .collect()
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
        let is_vendored = || {
            let folders = self.vendor_folders(&module.name);
            let has = |folder: &String| self.modules.get(&format!("{folder}.{top}")).is_some();
            folders.iter().any(has)
        };
        if module.origin != Origin::Stdlib && !is_built_in(top) && !is_vendored() {
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

/// Names of folders that hold copies of other packages.
const VENDOR: &[&str] = &[
    "_vendor",
    "vendor",
    "_vendored",
    "vendored",
    "_vendored_packages",
    "extern",
    "_extern",
    "third_party",
    "_third_party",
    "_thirdparty",
];

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
