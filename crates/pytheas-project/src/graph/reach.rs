//! What can be reached from the entry points, with the reason for each module; `walk` finds it,
//! breadth first, so a module's chain of reasons is a shortest one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
};

use serde::Serialize;

mod names;
mod walk;

use walk::Walk;

use crate::settings::SlimRule;

use super::{
    modules::{Module, Modules, Origin, Root},
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
    /// The modules of a published app, which is kept whole as a project's own sources are.
    pub app: Vec<String>,
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
    /// For a top-level module: Python files of its package whose names no import can spell, with the
    /// dotted names they would have; they are run by their paths (`smi/mibs/SNMPv2-SMI.py`).
    pub unspelt: BTreeMap<String, Vec<(String, PathBuf)>>,
    /// Distributions that a published app requires: where no module of one is reached, something
    /// that cannot be seen names it (a configuration, a generated file), and it is kept whole.
    pub required: BTreeSet<String>,
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
    /// It is a part of the app.
    App,
    /// The app requires its distribution, and nothing imports that.
    Required {
        /// The distribution.
        distribution: String,
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
    /// The modules that are imported, or named, on the way of the program without a `try` or `if`
    /// around: not what only a plug-in's name or a guess leads to.
    pub certain: BTreeSet<String>,
    /// Top-level names that reached modules outside the standard library import, unless guarded,
    /// with the importing modules and lines.
    pub imported_by: BTreeMap<String, Vec<(String, u32)>>,
    /// Every string of reached modules that could be a name: for what is looked up by name.
    pub words: BTreeSet<String>,
}

/// Whether one of `roots` has a package or module with the name of `script`.
fn has_namesake(script: &Path, roots: &[Root]) -> bool {
    let Some(stem) = script.file_stem() else {
        return false;
    };
    roots.iter().any(|root| {
        let package = root.dir.join(stem);
        let module = package.with_extension("py");
        package.join("__init__.py").is_file() || (module != script && module.is_file())
    })
}

impl Graph {
    /// Walks from `start`.
    pub fn build(start: &Start) -> Self {
        let mut roots = start.roots.clone();
        for script in &start.scripts {
            if let Some(dir) = script.parent() {
                // A program that has the name of a package imports that, not itself.
                let at = match has_namesake(script, &start.roots) {
                    true => roots.len(),
                    false => 0,
                };
                let dir = dir.to_owned();
                roots.insert(
                    at,
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
            firm: BTreeMap::new(),
            is_firm: true,
            hidden: BTreeSet::new(),
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
        for name in &start.app {
            walk.reach_name(name, &Reason::App);
        }
        for text in &start.texts {
            walk.text(text);
        }
        walk.run();
        let mut unread = start.data.clone();
        let mut unspelt = start.unspelt.clone();
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
            let files: Vec<(String, PathBuf)> = unspelt
                .extract_if(.., |top, _| reached.contains_key(top))
                .flat_map(|(_, files)| files)
                .collect();
            for text in texts {
                walk.data(&text);
            }
            for (name, file) in files {
                walk.unspelt(name, file);
            }
            walk.run();
            if walk.graph.reached.len() == before {
                walk.required(start);
                walk.run();
            }
            if walk.graph.reached.len() == before {
                break;
            }
        }
        let certain = walk.certain();
        let mut graph = walk.graph;
        graph.certain = certain;
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
                Reason::Entry
                | Reason::App
                | Reason::Plugin { .. }
                | Reason::Keep { .. }
                | Reason::Required { .. } => break,
            };
        }
        chain.reverse();
        chain
    }
}

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
