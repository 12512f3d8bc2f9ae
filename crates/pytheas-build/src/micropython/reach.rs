//! Following imports from the entry point: what is shipped and why, what the firmware has, what is
//! missing, what was left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pytheas_project::graph::{What, When};

use super::{
    candidates::{Candidate, Candidates},
    error::MicroPythonError,
    firmware::{Firmware, Has, instead},
    imports::{self, Import},
    report::{FirmwareUse, Missing, Needed, Undecided, Why},
};

/// A module as it is shipped.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) mpy: Vec<u8>,
    /// The same with lines, where the shipped one has none.
    pub(super) twin: Option<Vec<u8>>,
}

impl Compiled {
    pub(super) fn with_lines(&self) -> &[u8] {
        self.twin.as_deref().unwrap_or(&self.mpy)
    }
}

/// Compiles the sources among these candidates; the others are taken as they came.
pub(super) type Compile<'a> = &'a dyn Fn(&[&Candidate]) -> Result<Vec<Compiled>, MicroPythonError>;

/// Where following begins, and what is kept anyway.
pub(super) struct Start<'a> {
    pub(super) entry: &'a str,
    pub(super) compile: Compile<'a>,
    /// Modules, or packages with all that is in them.
    pub(super) keep: &'a [String],
    pub(super) firmware: &'a Firmware,
}

/// What following found.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Modules to ship, by name, with the candidate and why.
    pub(super) kept: BTreeMap<String, (usize, Why)>,
    /// Them compiled, by candidate.
    pub(super) compiled: BTreeMap<usize, Compiled>,
    /// Which modules each one imports when it is imported itself.
    edges: BTreeMap<String, Vec<String>>,
    pub(super) firmware: BTreeMap<String, FirmwareUse>,
    pub(super) missing: Vec<Missing>,
    pub(super) undecided: Vec<Undecided>,
}

impl Reached {
    /// The modules that importing `entry` brings in, each after those it imports itself.
    pub(super) fn order(&self, entry: &str) -> Vec<String> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        // Names with whether their imports were looked at already.
        let mut open = vec![(entry.to_owned(), false)];
        while let Some((name, is_done)) = open.pop() {
            if is_done {
                order.push(name);
                continue;
            }
            if !self.kept.contains_key(&name) || !seen.insert(name.clone()) {
                continue;
            }
            let next = self.edges.get(&name).into_iter().flatten();
            let next: Vec<_> = next.map(|name| (name.clone(), false)).collect();
            open.push((name.clone(), true));
            open.extend(next.into_iter().rev());
            // A package comes before what is in it.
            if let Some((above, _)) = name.rsplit_once('.') {
                open.push((above.to_owned(), false));
            }
        }
        order
    }
}

/// Follows imports.
pub(super) fn follow(
    candidates: &Candidates,
    start: &Start<'_>,
) -> Result<Reached, MicroPythonError> {
    // The firmware's half of a package cannot be reached beside a shipped half: `umqtt` in the
    // image hides the frozen one. Then the whole package is shipped.
    let mut shipped: BTreeSet<String> = start
        .keep
        .iter()
        .filter_map(|module| module.split('.').next())
        .map(str::to_owned)
        .collect();
    loop {
        let mut walk = Walk {
            candidates,
            start,
            shipped: &shipped,
            reached: Reached::default(),
            queue: VecDeque::new(),
        };
        walk.run()?;
        let reached = walk.reached;
        let halves: Vec<String> = reached
            .firmware
            .iter()
            .filter(|(_, used)| used.has != Has::Builtin)
            .filter_map(|(module, _)| module.split('.').next())
            .filter(|top| {
                let below = format!("{top}.");
                reached.kept.keys().any(|kept| kept.starts_with(&below))
            })
            .map(str::to_owned)
            .collect();
        let before = shipped.len();
        shipped.extend(halves);
        if shipped.len() == before {
            return Ok(reached);
        }
    }
}

struct Walk<'a> {
    candidates: &'a Candidates,
    start: &'a Start<'a>,
    shipped: &'a BTreeSet<String>,
    reached: Reached,
    queue: VecDeque<usize>,
}

/// Who asks for a module.
#[derive(Clone)]
struct Asker {
    /// Its name.
    module: String,
    /// Its file.
    by: String,
    line: Option<u32>,
    when: When,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), MicroPythonError> {
        self.add_with_parents(self.start.entry, &Why::Entry);
        for pattern in self.start.keep {
            let name = pattern.trim_end_matches(".*").to_owned();
            let why = Why::Keep {
                pattern: pattern.clone(),
            };
            let below: Vec<String> = self.candidates.below(&name).map(str::to_owned).collect();
            for module in std::iter::once(name).chain(below) {
                if self.candidates.get(&module).is_some() {
                    self.add_with_parents(&module, &why);
                }
            }
        }
        // Level by level, so that many are compiled at once.
        while !self.queue.is_empty() {
            let level: Vec<usize> = std::mem::take(&mut self.queue).into();
            let modules: Vec<&Candidate> =
                level.iter().map(|at| &self.candidates.all[*at]).collect();
            let compiled = (self.start.compile)(&modules)?;
            for (at, compiled) in level.into_iter().zip(compiled) {
                self.module(at, compiled.with_lines())?;
                self.reached.compiled.insert(at, compiled);
            }
        }
        Ok(())
    }

    fn add_with_parents(&mut self, module: &str, why: &Why) {
        let mut end = 0;
        while let Some(dot) = module[end..].find('.') {
            self.add(
                &module[..end + dot],
                &Why::Parent {
                    of: module.to_owned(),
                },
            );
            end += dot + 1;
        }
        self.add(module, why);
    }

    fn add(&mut self, module: &str, why: &Why) {
        let Some(at) = self.candidates.get(module) else {
            return;
        };
        if self.reached.kept.contains_key(module) {
            return;
        }
        self.reached
            .kept
            .insert(module.to_owned(), (at, why.clone()));
        self.queue.push_back(at);
    }

    fn module(&mut self, at: usize, code: &[u8]) -> Result<(), MicroPythonError> {
        let candidate = &self.candidates.all[at];
        let name = candidate.module.clone().unwrap_or_default();
        let said = imports::of(candidate, code)?;
        let package = if candidate.is_package() {
            name.clone()
        } else {
            name.rsplit_once('.')
                .map_or("", |(above, _)| above)
                .to_owned()
        };
        for import in &said.imports {
            self.import(import, &name, &candidate.source, &package);
        }
        for (line, call) in said.undecided {
            self.reached.undecided.push(Undecided {
                by: candidate.source.clone(),
                line,
                call,
            });
        }
        Ok(())
    }

    fn import(&mut self, import: &Import, module: &str, by: &str, package: &str) {
        // `__name__` is never `__main__` on a board but for the module that is started by name.
        if matches!(import.when, When::TypeChecking | When::AsProgram) {
            return;
        }
        let asker = Asker {
            module: module.to_owned(),
            by: by.to_owned(),
            line: import.line,
            when: import.when,
        };
        match &import.what {
            What::Module { name } => {
                self.need(name, &asker);
            }
            What::Names { level, name, names } => {
                let Some(base) = absolute(package, *level, name) else {
                    return;
                };
                if !base.is_empty() && !self.need(&base, &asker) {
                    return;
                }
                for name in names.iter().filter(|name| *name != "*") {
                    let inside = match base.as_str() {
                        "" => name.clone(),
                        base => format!("{base}.{name}"),
                    };
                    let is_module = self.candidates.get(&inside).is_some()
                        || self.candidates.is_namespace(&inside);
                    if is_module {
                        self.need(&inside, &asker);
                    }
                }
            }
            What::AnyOf {
                level,
                package: name,
                start,
            } => {
                let Some(base) = absolute(package, *level, name) else {
                    return;
                };
                let begin = format!("{base}.{start}");
                let all: Vec<String> = self
                    .candidates
                    .below(&base)
                    .filter(|module| module.starts_with(&begin))
                    .map(str::to_owned)
                    .collect();
                for module in all {
                    self.need(&module, &asker);
                }
            }
        }
    }

    /// Ships the module with its packages, or finds it in the firmware; whether one has it.
    fn need(&mut self, module: &str, asker: &Asker) -> bool {
        let top = module.split('.').next().unwrap_or(module);
        let has = self.start.firmware.has(module);
        let own = self.candidates.get(module);
        let is_namespace = own.is_none() && self.candidates.is_namespace(module);
        // The app's own module hides the firmware's; a package's does not: the firmware has it.
        let is_app = own.is_some_and(|at| self.candidates.all[at].is_app());
        let from_firmware = match has {
            None | Some(Has::Perhaps) => false,
            Some(_) => {
                self.start.firmware.is_fixed(module) || !is_app && !self.shipped.contains(top)
            }
        };
        if (own.is_some() || is_namespace) && !from_firmware {
            let why = Why::Import {
                by: asker.by.clone(),
                line: asker.line,
                lazy: asker.when == When::Lazy,
            };
            self.add_with_parents(module, &why);
            if asker.when != When::Lazy {
                let edges = self.reached.edges.entry(asker.module.clone()).or_default();
                edges.push(module.to_owned());
            }
            return true;
        }
        if let Some(has) = has {
            self.reached
                .firmware
                .entry(module.to_owned())
                .or_insert_with(|| FirmwareUse {
                    has,
                    by: asker.by.clone(),
                    line: asker.line,
                    hides: own.map(|at| self.candidates.all[at].from.clone()),
                });
            return true;
        }
        // `from a import b` where only a part of the dotted name is missing says the part.
        let found = instead(module);
        let missing = Missing {
            module: module.to_owned(),
            by: asker.by.clone(),
            line: asker.line,
            when: match asker.when {
                When::Always => Needed::Always,
                When::Lazy => Needed::Later,
                _ => Needed::Perhaps,
            },
            instead: found.cloned(),
        };
        if !self.reached.missing.contains(&missing) {
            self.reached.missing.push(missing);
        }
        // The packages above it may be there.
        if let Some((above, _)) = module.rsplit_once('.')
            && self.candidates.get(above).is_some()
        {
            self.add_with_parents(
                above,
                &Why::Parent {
                    of: module.to_owned(),
                },
            );
        }
        false
    }
}

/// `name` seen from `package` with `level` leading dots; none when that leads out of everything.
fn absolute(package: &str, level: usize, name: &str) -> Option<String> {
    if level == 0 {
        return Some(name.to_owned());
    }
    let mut base = package;
    for _ in 1..level {
        base = base.rsplit_once('.').map_or("", |(above, _)| above);
    }
    Some(match (base, name) {
        ("", name) => name.to_owned(),
        (base, "") => base.to_owned(),
        (base, name) => format!("{base}.{name}"),
    })
}
