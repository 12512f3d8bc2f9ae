//! What is measured: a bundle as its launch file starts it, or a virtual environment with the
//! project's entry point; and which package a module's file belongs to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pytheas_project::{Entry, normalised_name};
use pytheas_release::Platform;

use super::{ImportRequest, ImportsError, error::io_error};
use crate::{explain::APP, known::Inventory};

/// Of modules that belong to the interpreter.
const PYTHON: &str = "python";

/// Where the entry point begins.
pub(super) enum Begin {
    Module(String),
    Script(PathBuf),
}

/// What is measured, and whose its files are.
pub(super) struct Subject {
    pub(super) python: PathBuf,
    pub(super) flags: Vec<String>,
    pub(super) begin: Begin,
    pub(super) folders: Vec<PathBuf>,
    /// Real path of a file → its package.
    pub(super) owners: BTreeMap<PathBuf, String>,
    pub(super) app: PathBuf,
    pub(super) entry: String,
    pub(super) inventory: Option<Inventory>,
}

/// The bundle in `dir`, as its launch file starts it.
pub(super) fn bundle(dir: &Path) -> Result<Subject, ImportsError> {
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
pub(super) fn environment(dir: &Path, request: &ImportRequest) -> Result<Subject, ImportsError> {
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

/// Whose a module's file is; modules of C inside the interpreter have none.
pub(super) fn package(subject: &Subject, file: &Path) -> String {
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
