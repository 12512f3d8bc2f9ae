//! The walk itself: module by module along the imports, breadth first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
};

use super::{
    super::{
        imports::{self, Import, Source, What, When},
        modules::{Kind, Module, Modules, Origin},
        rules::RULES,
    },
    Graph, Missing, Reason, Start, Undecided, is_built_in, is_test,
};

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

pub(super) struct Walk<'a> {
    pub(super) modules: &'a Modules,
    /// Top-level modules of installed packages.
    pub(super) tops: BTreeSet<String>,
    pub(super) requires: &'a BTreeMap<String, BTreeSet<String>>,
    pub(super) graph: Graph,
    pub(super) open: VecDeque<String>,
    pub(super) sources: HashMap<String, Source>,
    /// By module (none: the start): what it imports, or names, for certain.
    pub(super) firm: BTreeMap<String, BTreeSet<String>>,
    /// Whether the import that is followed happens, and must succeed, when its code is run.
    pub(super) is_firm: bool,
    /// Files that a package of their name hides and that a string names, once read.
    pub(super) hidden: BTreeSet<String>,
}

impl Walk<'_> {
    pub(super) fn run(&mut self) {
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
    pub(super) fn script(&mut self, path: &Path) {
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

    /// A package's file that is run by its path: it has the imports of a module of this name.
    pub(super) fn unspelt(&mut self, name: String, file: PathBuf) {
        let source = imports::read(&read_source(&file));
        let module = Module {
            name,
            file: Some(file),
            kind: Kind::Source,
            origin: Origin::Package,
        };
        self.follow(&module, &source);
    }

    pub(super) fn follow(&mut self, module: &Module, source: &Source) {
        let is_program = module.name == "__main__" || module.name.ends_with(".__main__");
        let is_entry = self.graph.reached.get(&module.name) == Some(&Reason::Entry);
        for import in &source.imports {
            match import.when {
                // What a lazy package imports for type checkers is what it loads on demand.
                When::TypeChecking if !source.is_lazy => continue,
                When::AsProgram if !is_program && !is_entry => continue,
                _ => {}
            }
            self.is_firm =
                !import.tried && matches!(import.when, When::Always | When::Lazy | When::AsProgram);
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
    fn stub(&mut self, module: &Module, source: &Source, file: &Path) {
        let stub = file.with_extension("pyi");
        if source.is_lazy && stub.is_file() {
            let stub = imports::read(&read_source(&stub));
            for import in &stub.imports {
                self.import(module, import);
            }
        }
    }

    /// Everything below a package but its tests.
    pub(super) fn below(&mut self, package: &str, reason: &Reason) {
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
    pub(super) fn whole(&mut self, when: &str, children: &[String]) {
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

    pub(super) fn import(&mut self, module: &Module, import: &Import) {
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
        // The two come in one distribution, and the first uses the second's copies.
        .chain((module == "pkg_resources").then_some("setuptools"))
        .flat_map(|package| VENDOR.iter().map(move |name| format!("{package}.{name}")))
        .filter(|folder| self.modules.get(folder).is_some())
        .collect()
    }

    fn imported(&mut self, module: &Module, import: &Import, name: &str, reason: &Reason) {
        let top = name.split('.').next().unwrap_or(name);
        if RULES.ignores(&module.name, top) && module.origin == Origin::Stdlib {
            return;
        }
        let is_needed = !import.tried && import.when != When::Guarded;
        if module.origin != Origin::Stdlib && !top.is_empty() && is_needed {
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
        if self.elsewhere(module, import, name, reason) {
            return;
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

    /// A package may put any folder of its own on `sys.path`: an import that leads to nothing is
    /// one of the package's modules whose name ends so (`import mock_storage_service`, which lies
    /// in the tests of a copy of boto), an app's likewise. Whether that settles it.
    fn elsewhere(&mut self, module: &Module, import: &Import, name: &str, reason: &Reason) -> bool {
        // What is guarded is mostly another package that need not be there.
        if !matches!(import.when, When::Always | When::Lazy) || module.origin == Origin::Stdlib {
            return false;
        }
        // The interpreter has it, whatever ends like it (`pkg.dates.time`).
        if is_built_in(name) && !name.starts_with('_') {
            return false;
        }
        let end = format!(".{name}");
        let has_end = |other: &&Module| {
            other.name.ends_with(&end) && other.name != module.name && other.file.is_some()
        };
        let top = module.name.split('.').next().unwrap_or_default();
        let own: Vec<&Module> = match module.origin {
            Origin::App => self
                .modules
                .iter()
                .filter(|other| other.origin == Origin::App)
                .filter(has_end)
                .collect(),
            _ => self.modules.below(top).filter(has_end).collect(),
        };
        let is_shipped = own.iter().any(|other| !is_test(&other.name));
        let names: Vec<String> = own
            .into_iter()
            .filter(|other| match is_shipped {
                true => !is_test(&other.name),
                false => import.when == When::Always,
            })
            .map(|other| other.name.clone())
            .collect();
        for found in &names {
            self.reach_name(found, reason);
            if let What::Names { names, .. } = &import.what {
                for part in names {
                    match part.as_str() {
                        "*" => self.star(found, reason),
                        part => self.reach_name(&format!("{found}.{part}"), reason),
                    }
                }
            }
        }
        // Of an app it is told all the same: whether it changes the path is not seen.
        !names.is_empty() && module.origin == Origin::Package
    }

    /// Keeps what the app requires and nothing reaches.
    pub(super) fn required(&mut self, start: &Start) {
        let known: BTreeMap<&String, &Vec<String>> = start
            .distributions
            .iter()
            .filter(|(distribution, _)| start.required.contains(*distribution))
            .collect();
        for (distribution, names) in known {
            let is_reached = |name: &String| self.graph.reached.contains_key(name);
            if names.iter().any(is_reached) {
                continue;
            }
            let reason = Reason::Required {
                distribution: distribution.clone(),
            };
            for name in names {
                self.reach_name(name, &reason);
            }
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

    /// Reaches what a line of `keep` or of a rule means.
    pub(super) fn keep(&mut self, pattern: &str, reason: &Reason) {
        if let Some(package) = pattern.strip_suffix(".*") {
            self.reach_name(package, reason);
            self.below(package, reason);
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
    pub(super) fn reach_name(&mut self, name: &str, reason: &Reason) {
        if self.modules.get(name).is_none() {
            return;
        }
        self.firmly(name, reason);
        if self.graph.reached.contains_key(name) {
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

impl Walk<'_> {
    /// Notes that `name`, and the packages above it, are imported for certain where `reason` says so.
    fn firmly(&mut self, name: &str, reason: &Reason) {
        let by = match reason {
            Reason::Entry => "",
            Reason::Import { by, .. } if self.is_firm => by,
            // A text file is no module: what it names begins by itself.
            Reason::Named { by, .. } if by.contains('/') => "",
            Reason::Named { by, .. } => by,
            _ => return,
        };
        let names = self.firm.entry(by.to_owned()).or_default();
        if names.contains(name) {
            return;
        }
        let ends = name.match_indices('.').map(|(end, _)| end);
        names.extend(ends.chain([name.len()]).map(|end| name[..end].to_owned()));
    }

    /// The modules that the program's start leads to by imports and names that must succeed.
    pub(super) fn certain(&self) -> BTreeSet<String> {
        let mut open = vec!["", "__main__"];
        let mut certain = BTreeSet::new();
        while let Some(name) = open.pop() {
            if certain.insert(name.to_owned()) {
                open.extend(
                    self.firm
                        .get(name)
                        .into_iter()
                        .flatten()
                        .map(String::as_str),
                );
            }
        }
        certain
    }
}

pub(super) fn package_of(module: &Module) -> &str {
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

pub(super) fn read_source(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
