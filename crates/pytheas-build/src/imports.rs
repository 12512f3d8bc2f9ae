//! What a start spends on imports, measured in what is shipped: the app's own Python imports what
//! its entry point imports, several times, and tells of each module how long it took
//! (`-X importtime`). Nothing else of the app is called: see `imports/probe.py`.
//!
//! Of each module the least time of all runs counts, because whatever else the machine does only
//! adds to it. A module's time stands where it was imported first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use miette::Diagnostic;
use pytheas_project::{Entry, Environment, Project, normalised_name};
use pytheas_release::{Platform, RECORD_FILE};
use serde::Serialize;

use crate::{
    explain::{self, APP},
    heavy,
    known::{Inventory, InventoryError},
};

const PROBE: &str = include_str!("imports/probe.py");
/// What the probe says before the first import of the app.
const BEGIN: &str = "pytheas: begin";
/// Of modules that belong to the interpreter.
const PYTHON: &str = "python";
/// A hint is given for what takes so much of all imports, and not less than [`LEAST_US`].
const SHARE: f64 = 0.1;
const LEAST_US: u64 = 10_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The project, whose entry point a virtual environment starts.
    pub project: Option<Project>,
    /// A bundle's folder, or a virtual environment.
    pub dir: PathBuf,
    /// How often.
    pub runs: u32,
    /// How long one run may take.
    pub timeout: Duration,
    /// The environment.
    pub environment: Environment,
}

/// One module of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedModule {
    /// Its full name.
    pub module: String,
    /// The package it belongs to, `app`, or `python`.
    pub package: String,
    /// The module whose import led to it; none for what the entry point itself imports.
    pub by: Option<String>,
    /// Microseconds for itself.
    pub self_us: u64,
    /// Microseconds with what it imported first.
    pub cumulative_us: u64,
    /// Bytes that are read for it: its byte code, else its source or extension module.
    pub size_bytes: Option<u64>,
    /// Whether it has byte code, where it has a source.
    pub has_byte_code: bool,
}

/// The modules of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedPackage {
    /// The package, `app`, or `python`.
    pub package: String,
    /// How many.
    pub modules: usize,
    /// Microseconds for its own modules.
    pub self_us: u64,
    /// Bytes that are read for them.
    pub size_bytes: u64,
}

/// What would make the start faster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportHint {
    /// The module or package.
    pub what: String,
    /// What it costs, in microseconds.
    pub cost_us: u64,
    /// What to do.
    pub text: String,
}

/// What a start spends on imports.
#[derive(Debug, Clone, Serialize)]
pub struct ImportReport {
    /// What was imported, e.g. `greenhouse.main` or `app/main.py`.
    pub entry: String,
    /// How often.
    pub runs: u32,
    /// Microseconds of the fastest run, all imports of the entry point.
    pub total_us: u64,
    /// Microseconds of the modules that Python itself imports before, and how many.
    pub python_us: u64,
    /// How many.
    pub python_modules: usize,
    /// Bytes that are read for the modules.
    pub size_bytes: u64,
    /// The import that failed, and why; what came before is measured.
    pub failed: Option<String>,
    /// By package, the slowest first.
    pub packages: Vec<ImportedPackage>,
    /// Every module, the slowest first.
    pub modules: Vec<ImportedModule>,
    /// What would help, the dearest first.
    pub hints: Vec<ImportHint>,
}

/// What stops a measurement.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ImportsError {
    /// The tree.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Inventory(#[from] InventoryError),
    /// Neither bundle nor environment.
    #[error("imports cannot be measured in `{}`: {reason}", dir.display())]
    #[diagnostic(
        code(pytheas::imports::subject),
        help(
            "give the folder of a bundle (`pytheas build`), or a virtual environment (`pytheas sync`)"
        )
    )]
    Subject {
        /// The folder.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another CPU.
    #[error("`{}` is for `{platform}`, whose programs do not run here", dir.display())]
    #[diagnostic(
        code(pytheas::imports::platform),
        help(
            "build it for this machine; on the device `python/bin/python3 -X importtime` measures in its folder"
        )
    )]
    Platform {
        /// The folder.
        dir: PathBuf,
        /// Its platform.
        platform: Platform,
    },
    /// It did not end.
    #[error("importing `{entry}` did not end within {} s", after.as_secs())]
    #[diagnostic(
        code(pytheas::imports::timeout),
        help(
            "does the module start the app when it is imported? put that below `if __name__ == \"__main__\":`"
        )
    )]
    Timeout {
        /// The entry point.
        entry: String,
        /// The limit.
        after: Duration,
    },
    /// Python ended early.
    #[error("Python ended with {status} while importing `{entry}`")]
    #[diagnostic(code(pytheas::imports::ended), help("it said: {said}"))]
    Ended {
        /// The entry point.
        entry: String,
        /// How.
        status: std::process::ExitStatus,
        /// The end of its standard error.
        said: String,
    },
    /// The system.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(
        code(pytheas::imports::io),
        help("check that it exists and its permissions allow it")
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ImportsError + 'a {
    move |source| ImportsError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Where the entry point begins.
enum Begin {
    Module(String),
    Script(PathBuf),
}

/// What is measured, and whose its files are.
struct Subject {
    python: PathBuf,
    flags: Vec<String>,
    begin: Begin,
    folders: Vec<PathBuf>,
    /// Real path of a file → its package.
    owners: BTreeMap<PathBuf, String>,
    app: PathBuf,
    entry: String,
    inventory: Option<Inventory>,
}

/// Measures.
///
/// # Errors
/// See [`ImportsError`]. An import of the app that fails is told in the report.
pub fn measure_imports(
    request: &ImportRequest,
    step: &dyn Fn(String),
) -> Result<ImportReport, ImportsError> {
    let dir = request
        .dir
        .canonicalize()
        .map_err(io_error("find", &request.dir))?;
    let subject = if dir.join(RECORD_FILE).is_file() {
        bundle(&dir)?
    } else {
        environment(&dir, request)?
    };
    let room = tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let probe = room.path().join("probe.py");
    pytheas_durable::replace(&probe, PROBE.as_bytes()).map_err(io_error("write", &probe))?;
    let mut runs = Vec::new();
    for number in 1..=request.runs.max(1) {
        step(format!(
            "importing {} ({number} of {})",
            subject.entry, request.runs
        ));
        runs.push(run(&subject, request, room.path(), &probe)?);
    }
    Ok(report(&subject, &runs, request.project.as_ref()))
}

/// The bundle in `dir`, as its launch file starts it.
fn bundle(dir: &Path) -> Result<Subject, ImportsError> {
    let inventory = Inventory::read(dir)?;
    let refused = |reason: &str| ImportsError::Subject {
        dir: dir.to_owned(),
        reason: reason.to_owned(),
    };
    let platform = inventory.record.platform.clone();
    if !Platform::host().is_ok_and(|host| host.arch() == platform.arch()) {
        return Err(ImportsError::Platform {
            dir: dir.to_owned(),
            platform,
        });
    }
    let launch = fs::read(dir.join(crate::launcher::LAUNCH_FILE))
        .map_err(|_| refused(&format!("its form is `{}`", inventory.record.form)))?;
    let records: Vec<String> = launch
        .split(|byte| *byte == 0)
        .map(|record| String::from_utf8_lossy(record).into_owned())
        .collect();
    let mut start = crate::explain::start(&inventory, &[]);
    let python = records
        .iter()
        .find_map(|record| record.strip_prefix('!'))
        .ok_or_else(|| refused("nothing says what it starts"))?;
    let begin = match (start.scripts.first(), start.modules.is_empty()) {
        (Some(script), _) => Begin::Script(script.clone()),
        (None, false) => Begin::Module(start.modules.swap_remove(0)),
        (None, true) => return Err(refused("nothing says what it starts")),
    };
    let folders = ["app", "app/src"]
        .map(|name| dir.join(name))
        .into_iter()
        .filter(|path| path.is_dir() && !path.join("__init__.py").exists())
        .collect();
    let owners = inventory
        .owners()
        .into_iter()
        .map(|(path, owner)| (dir.join(path), owner.to_owned()))
        .collect();
    let entry = match &begin {
        Begin::Module(module) => module.clone(),
        Begin::Script(script) => script
            .strip_prefix(dir)
            .unwrap_or(script)
            .display()
            .to_string(),
    };
    Ok(Subject {
        python: dir.join(python),
        flags: ["-E", "-s", "-B"].map(str::to_owned).to_vec(),
        begin,
        folders,
        owners,
        app: dir.join("app"),
        entry,
        inventory: Some(inventory),
    })
}

/// The virtual environment in `dir`, with the project's entry point.
fn environment(dir: &Path, request: &ImportRequest) -> Result<Subject, ImportsError> {
    let refused = |reason: &str| ImportsError::Subject {
        dir: dir.to_owned(),
        reason: reason.to_owned(),
    };
    let python = dir.join("bin/python");
    if !dir.join("pyvenv.cfg").is_file() || !python.exists() {
        return Err(refused(
            "it is neither a built tree nor a virtual environment",
        ));
    }
    let project = request
        .project
        .as_ref()
        .ok_or_else(|| refused("no project says what is started in it"))?;
    let entry = project
        .entry(None)
        .map_err(|error| refused(&error.to_string()))?;
    let (begin, entry) = match &entry {
        Entry::Script(script) => (
            Begin::Script(script.under(&project.dir)),
            script.to_string(),
        ),
        Entry::Module(module) | Entry::Callable { module, .. } => {
            (Begin::Module(module.clone()), module.clone())
        }
    };
    let app = project
        .dir
        .canonicalize()
        .map_err(io_error("find", &project.dir))?;
    let folders = [app.clone(), app.join("src")]
        .into_iter()
        .filter(|path| path.is_dir() && !path.join("__init__.py").exists())
        .collect();
    Ok(Subject {
        python,
        flags: ["-E", "-s"].map(str::to_owned).to_vec(),
        begin,
        folders,
        owners: owners_in(dir),
        app,
        entry,
        inventory: None,
    })
}

/// The files of an environment by their distributions, as the `RECORD`s say (PEP 376).
fn owners_in(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut owners = BTreeMap::new();
    let versions = fs::read_dir(dir.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    for site in versions.map(|version| version.path().join("site-packages")) {
        for info in fs::read_dir(&site).into_iter().flatten().flatten() {
            let name = info.file_name().to_string_lossy().into_owned();
            let Some((name, _)) = name
                .strip_suffix(".dist-info")
                .and_then(|stem| stem.split_once('-'))
            else {
                continue;
            };
            let record = fs::read_to_string(info.path().join("RECORD")).unwrap_or_default();
            for line in record.lines() {
                let path = line.split(',').next().unwrap_or(line).trim_matches('"');
                owners.insert(site.join(path), normalised_name(name));
            }
        }
    }
    owners
}

/// One run, as it was told.
#[derive(Debug, Default, PartialEq)]
struct Run {
    /// Depth, name and microseconds, in the order of their end: what a module imports comes first.
    before: Vec<(usize, String, u64)>,
    after: Vec<(usize, String, u64)>,
    spent_us: u64,
    failed: Option<String>,
    /// Name → file, byte code.
    files: BTreeMap<String, (PathBuf, PathBuf)>,
}

fn run(
    subject: &Subject,
    request: &ImportRequest,
    room: &Path,
    probe: &Path,
) -> Result<Run, ImportsError> {
    let (out, said) = (room.join("out"), room.join("said"));
    let _absent_at_first = fs::remove_file(&out);
    let stderr = File::create(&said).map_err(io_error("write", &said))?;
    let mut command: Command = request.environment.python(&subject.python);
    command
        .args(&subject.flags)
        .args(["-X", "importtime"])
        .arg(probe)
        .arg(&out);
    match &subject.begin {
        Begin::Module(module) => command.arg("module").arg(module),
        Begin::Script(script) => command.arg("script").arg(script),
    };
    command
        .args(&subject.folders)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(io_error("start", &subject.python))?;
    let group = rustix::process::Pid::from_raw(child.id().cast_signed());
    // Processes that a module starts when it is imported would stay, one of each run.
    let end_group = || {
        if let Some(group) = group {
            let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    };
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .map_err(io_error("wait for", &subject.python))?
        {
            end_group();
            break status;
        }
        if begun.elapsed() > request.timeout {
            end_group();
            let _ended = child.wait();
            return Err(ImportsError::Timeout {
                entry: subject.entry.clone(),
                after: request.timeout,
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = fs::read(&said).map_err(io_error("read", &said))?;
    let text = String::from_utf8_lossy(&text);
    let Ok(written) = fs::read(&out) else {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("import time:") && *line != BEGIN)
            .collect();
        return Err(ImportsError::Ended {
            entry: subject.entry.clone(),
            status,
            said: lines[lines.len().saturating_sub(5)..].join("\n"),
        });
    };
    Ok(parse(&text, &String::from_utf8_lossy(&written)))
}

/// What Python told on standard error, among all else that modules may write there, and the probe.
fn parse(said: &str, written: &str) -> Run {
    let mut run = Run::default();
    let mut has_begun = false;
    for line in said.lines() {
        if line == BEGIN {
            has_begun = true;
        }
        let Some(rest) = line.strip_prefix("import time:") else {
            continue;
        };
        let mut parts = rest.splitn(3, '|');
        let (Some(own), Some(_), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let Ok(own) = own.trim().parse() else {
            continue;
        };
        let name = name.strip_prefix(' ').unwrap_or(name);
        let depth = (name.len() - name.trim_start().len()) / 2;
        let entry = (depth, name.trim().to_owned(), own);
        if has_begun {
            run.after.push(entry);
        } else {
            run.before.push(entry);
        }
    }
    for line in written.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match *fields.as_slice() {
            ["spent", spent] => run.spent_us = spent.parse().unwrap_or(0),
            ["failed", reason] => run.failed = Some(reason.to_owned()),
            [_, name, file, code] => {
                run.files
                    .insert(name.to_owned(), (file.into(), code.into()));
            }
            _ => {}
        }
    }
    run
}

/// The modules of one run with the least times of all, each with its parent.
fn modules(runs: &[Run]) -> Vec<(String, Option<String>, u64, u64)> {
    let Some(shown) = runs.iter().min_by_key(|run| run.spent_us) else {
        return Vec::new();
    };
    let mut least: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, name, own) in runs.iter().flat_map(|run| &run.after) {
        let entry = least.entry(name).or_insert(*own);
        *entry = (*entry).min(*own);
    }
    let mut found: Vec<(String, Option<String>, u64, u64)> = Vec::new();
    // Positions whose parent comes later, by depth.
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    for (depth, name, _) in &shown.after {
        let own = least.get(name.as_str()).copied().unwrap_or(0);
        let mut all = own;
        while let Some((_, child)) = waiting.pop_if(|(inner, _)| *inner > *depth) {
            found[child].1 = Some(name.clone());
            all += found[child].3;
        }
        waiting.push((*depth, found.len()));
        found.push((name.clone(), None, own, all));
    }
    found
}

fn report(subject: &Subject, runs: &[Run], project: Option<&Project>) -> ImportReport {
    let fastest = runs.iter().min_by_key(|run| run.spent_us);
    let none = BTreeMap::new();
    let files = fastest.map_or(&none, |run| &run.files);
    let mut modules: Vec<ImportedModule> = modules(runs)
        .into_iter()
        .map(|(module, by, self_us, cumulative_us)| {
            let (file, code) = files.get(&module).cloned().unwrap_or_default();
            let length = |path: &Path| fs::metadata(path).ok().map(|meta| meta.len());
            let code = length(&code).filter(|_| !code.as_os_str().is_empty());
            let is_source = file.extension().is_some_and(|end| end == "py");
            ImportedModule {
                package: package(subject, &file),
                has_byte_code: code.is_some() || !is_source,
                size_bytes: code.or_else(|| length(&file)),
                module,
                by,
                self_us,
                cumulative_us,
            }
        })
        .collect();
    let mut packages: BTreeMap<&str, ImportedPackage> = BTreeMap::new();
    for module in &modules {
        let package = packages
            .entry(&module.package)
            .or_insert_with(|| ImportedPackage {
                package: module.package.clone(),
                modules: 0,
                self_us: 0,
                size_bytes: 0,
            });
        package.modules += 1;
        package.self_us += module.self_us;
        package.size_bytes += module.size_bytes.unwrap_or(0);
    }
    let mut packages: Vec<ImportedPackage> = packages.into_values().collect();
    packages.sort_by(|a, b| (b.self_us, &a.package).cmp(&(a.self_us, &b.package)));
    let hints = hints(subject, &modules, &packages, project);
    modules.sort_by(|a, b| (b.self_us, &a.module).cmp(&(a.self_us, &b.module)));
    let python = runs
        .iter()
        .map(|run| run.before.iter().map(|(_, _, own)| own).sum::<u64>());
    ImportReport {
        entry: subject.entry.clone(),
        runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
        total_us: fastest.map_or(0, |run| run.spent_us),
        python_us: python.min().unwrap_or(0),
        python_modules: fastest.map_or(0, |run| run.before.len()),
        size_bytes: packages.iter().map(|package| package.size_bytes).sum(),
        failed: runs.iter().find_map(|run| run.failed.clone()),
        packages,
        modules,
        hints,
    }
}

/// Whose a module's file is; modules of C inside the interpreter have none.
fn package(subject: &Subject, file: &Path) -> String {
    if file.as_os_str().is_empty() {
        return PYTHON.to_owned();
    }
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let owner = subject
        .owners
        .get(file)
        .or_else(|| subject.owners.get(&real));
    if let Some(owner) = owner {
        return owner.clone();
    }
    let in_packages = real.components().any(|part| {
        let part = part.as_os_str();
        part == "site-packages" || part == "dist-packages"
    });
    if real.starts_with(&subject.app) && !in_packages {
        APP.to_owned()
    } else if in_packages && real.file_name().is_some_and(|name| name == "_pytheas.py") {
        "pytheas".to_owned()
    } else {
        PYTHON.to_owned()
    }
}

/// What takes much, and what to do: import it later, or have something lighter.
fn hints(
    subject: &Subject,
    modules: &[ImportedModule],
    packages: &[ImportedPackage],
    project: Option<&Project>,
) -> Vec<ImportHint> {
    let total: u64 = modules.iter().map(|module| module.self_us).sum();
    let is_much = |us: u64| us >= LEAST_US && us as f64 >= total as f64 * SHARE;
    let apps: BTreeSet<&str> = modules
        .iter()
        .filter(|module| module.package == APP)
        .map(|module| module.module.as_str())
        .collect();
    let mut hints = Vec::new();
    let mut places = None;
    for module in modules {
        let by_app = module.by.as_deref().is_none_or(|by| apps.contains(by));
        if module.package == APP || !by_app || !is_much(module.cumulative_us) {
            continue;
        }
        let places = places.get_or_insert_with(|| imported_by(subject, project));
        let place = places
            .get(module.module.split('.').next().unwrap_or_default())
            .into_iter()
            .flatten()
            .find(|(by, _)| by == "__main__" || apps.contains(by.as_str()));
        let by = match (place, &module.by) {
            (Some((by, line)), _) if by == "__main__" => {
                format!("{} line {line}", subject.entry)
            }
            (Some((by, line)), _) => format!("{by} line {line}"),
            (None, Some(by)) => by.clone(),
            (None, None) => subject.entry.clone(),
        };
        hints.push(ImportHint {
            what: module.module.clone(),
            cost_us: module.cumulative_us,
            text: format!(
                "imported by {by}; inside the function that uses it, a start that does not call that goes without"
            ),
        });
    }
    for package in packages.iter().filter(|package| is_much(package.self_us)) {
        let Some((instead, note)) = heavy::lighter(&package.package) else {
            continue;
        };
        let instead = match instead {
            [] => String::new(),
            _ => format!("instead {}: ", instead.join(" or ")),
        };
        hints.push(ImportHint {
            what: package.package.clone(),
            cost_us: package.self_us,
            text: format!("{instead}{note}"),
        });
    }
    let bare: Vec<&ImportedModule> = modules.iter().filter(|one| !one.has_byte_code).collect();
    if !bare.is_empty() {
        hints.push(ImportHint {
            what: bare[0].module.clone(),
            cost_us: bare.iter().map(|module| module.self_us).sum(),
            text: format!(
                "{} modules have no byte code and are compiled at every start; `bytecode = \"with-source\"` brings it",
                bare.len()
            ),
        });
    }
    hints.sort_by_key(|hint| std::cmp::Reverse(hint.cost_us));
    hints
}

/// Which modules import a top-level name, and on which line, as the import graph has it.
fn imported_by(
    subject: &Subject,
    project: Option<&Project>,
) -> BTreeMap<String, Vec<(String, u32)>> {
    let graph = subject
        .inventory
        .as_ref()
        .and_then(|inventory| explain::import_graph(&inventory.dir, project).ok());
    graph.map_or_else(BTreeMap::new, |graph| graph.imported_by)
}

#[cfg(test)]
mod tests;
