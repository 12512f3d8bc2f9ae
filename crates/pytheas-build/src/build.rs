//! One build from request to result: decide, lock, find an interpreter, let the form fill a
//! scratch folder, read it back, swap it into place.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pytheas_project::{
    ByteCode, Connectivity, Entry, Environment, Project, PythonRequest, Uv, lock::LockReport,
};
use pytheas_release::{
    BuildRecord, Name, Platform, RECORD_FILE, RelPath, Tree, TreeId, UpdateRules, Version,
};

use crate::{
    budget::{Budget, largest, shown_bytes},
    error::{BuildError, io_error},
    event::{Event, Observer, Phase},
    form::{self, Job},
    interpreter::{Interpreter, InterpreterChoice},
    locking::{Decided, lock_and_interpreter},
    output::Output,
    scratch::{self, Kind},
};

/// What to do about the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockMode {
    /// Write it when it is missing or stale.
    #[default]
    Update,
    /// It must be there and hold; it is not written.
    Locked,
    /// It must be there and is used as it is, stale or not.
    Frozen,
}

/// What to build. Everything but the project may be left at its default.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The project.
    pub project: Project,
    /// A target of the project.
    pub target: Option<String>,
    /// Another name for the app.
    pub name: Option<Name>,
    /// Another version.
    pub version: Option<Version>,
    /// What starts it.
    pub entry: Option<Entry>,
    /// The form; `bundle` when neither this nor the target says.
    pub form: Option<String>,
    /// The platform; this machine's when neither this nor the target says.
    pub platform: Option<Platform>,
    /// The Python.
    pub python: Option<PythonRequest>,
    /// Where the interpreter comes from.
    pub interpreter: InterpreterChoice,
    /// Where python-build-standalone archives lie: an address or a folder; else
    /// `PYTHEAS_PYTHON_MIRROR`, else `python-mirror` in `[tool.pytheas]`.
    pub python_mirror: Option<String>,
    /// The folder of the result; `dist/NAME` in the project when absent.
    pub out: Option<PathBuf>,
    /// Only what the import graph reaches, whatever the target says.
    pub slim: bool,
    /// Modules or packages that a slim build keeps, beside the target's.
    pub keep: Vec<String>,
    /// What to do about the lock file.
    pub lock: LockMode,
    /// Whether the network may be used.
    pub connectivity: Connectivity,
    /// The environment: cache folder, tools, settings of child programs.
    pub environment: Environment,
}

impl BuildRequest {
    /// A build of `project` with nothing said.
    pub fn new(project: Project) -> Self {
        Self {
            project,
            target: None,
            name: None,
            version: None,
            entry: None,
            form: None,
            platform: None,
            python: None,
            interpreter: InterpreterChoice::default(),
            python_mirror: None,
            out: None,
            slim: false,
            keep: Vec::new(),
            lock: LockMode::default(),
            connectivity: Connectivity::default(),
            environment: Environment::current(),
        }
    }
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The folder with the result.
    pub dir: PathBuf,
    /// What `pytheas.json` in it says.
    pub record: BuildRecord,
    /// The tree.
    pub tree: Tree,
    /// Its id.
    pub tree_id: TreeId,
    /// Sum of all files' sizes.
    pub size_bytes: u64,
    /// Number of files.
    pub file_count: u64,
    /// The interpreter that was used.
    pub interpreter: Interpreter,
    /// The version of the uv that was used.
    pub uv_version: String,
    /// What locking did; none when the lock file held.
    pub locked: Option<LockReport>,
    /// What should be known.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Builds what `request` says.
///
/// # Errors
/// See [`BuildError`]; what was in the output's place before is then untouched.
pub fn build(request: &BuildRequest, observer: Observer<'_>) -> Result<Built, BuildError> {
    let start = Instant::now();
    let _nothing_vanishes = crate::cache::use_cache(&request.environment);
    let warnings = RefCell::new(Vec::new());
    let observer = &|event: Event| {
        match &event {
            Event::Warning { text } | Event::Project(pytheas_project::Event::Warning { text }) => {
                warnings.borrow_mut().push(text.clone());
            }
            _ => {}
        }
        observer(event);
    };
    let project = &request.project;
    let target = project.target(request.target.as_deref())?;
    let form = form::find(
        request
            .form
            .as_deref()
            .or(target.form.as_deref())
            .unwrap_or("bundle"),
    )?;
    let budget = target.budget.as_deref().map(Budget::parse).transpose()?;
    // They are looked at when all is built: nobody shall wait for that to learn of a slip.
    for text in target.budgets.values() {
        Budget::parse(text)?;
    }
    let host = Platform::host();
    let asked = request.platform.as_ref().or(target.platform.as_ref());
    let platform = match (asked, host) {
        (Some(platform), _) if platform.as_str().starts_with("linux-") => platform.clone(),
        (None, Ok(host)) => host,
        (asked, host) => {
            return Err(BuildError::Platform {
                form: form.name().to_owned(),
                platform: asked
                    .cloned()
                    .unwrap_or_else(|| "linux-x86_64".parse().expect("a known platform")),
                host: host.map_or(std::env::consts::ARCH.to_owned(), |host| host.to_string()),
            });
        }
    };
    let name = request.name.as_ref().unwrap_or(&project.name);
    let derived = match request.version {
        Some(_) => None,
        None => pytheas_project::resolve_version(project, &request.environment)?,
    };
    let version = request.version.as_ref().or(derived.as_ref());
    let entry = match project.entry(request.entry.as_ref().or(target.entry.as_ref())) {
        Ok(entry) => Some(entry),
        Err(_) if project.has_entry_in_metadata() => None,
        Err(error) => return Err(error.into()),
    };
    let default_out = project.dir.join("dist").join(name.as_str());
    let output = Output::prepare(request.out.as_deref().unwrap_or(&default_out), &project.dir)?;

    let python = project.python(request.python.as_ref().or(target.python.as_ref()));
    let uv = Uv::find(&request.environment, request.connectivity, &|event| {
        observer(Event::Project(event))
    })?
    .for_project(project);
    let compiles = form.name() == "bundle"
        && target.bytecode != ByteCode::None
        && !(target.slim || request.slim)
        && request
            .environment
            .get(crate::bytecode::kept::ANEW)
            .is_none();
    let Decided {
        interpreter,
        lock,
        ahead,
    } = lock_and_interpreter(request, python.as_ref(), &platform, &uv, compiles, observer)?;
    let ahead = Cell::new(ahead);

    let entry = match entry {
        Some(entry) if !crate::installed_entry::may_be_program(project, &entry) => {
            crate::installed_entry::placed(project, entry)
        }
        asked => crate::installed_entry::find(
            project,
            asked,
            &lock.content,
            &lock.path,
            &crate::install::Installer {
                interpreter: &interpreter,
                platform: &platform,
                uv: &uv,
                connectivity: request.connectivity,
                environment: &request.environment,
                observer,
            },
            output.target(),
        )?,
    };

    let keep: Vec<String> = target.keep.iter().chain(&request.keep).cloned().collect();
    let job = Job {
        project,
        name,
        version: version.or(project.version.as_ref()),
        entry: &entry,
        platform: &platform,
        lock: &lock.content,
        lock_path: &lock.path,
        interpreter: &interpreter,
        uv: &uv,
        connectivity: request.connectivity,
        environment: &request.environment,
        output: output.target(),
        bytecode: target.bytecode,
        slim: (target.slim || request.slim).then_some(keep.as_slice()),
        ahead: &ahead,
        observer,
    };
    let tree_dir = output.scratch();
    std::fs::create_dir(&tree_dir).map_err(io_error("make", &tree_dir))?;
    let made = form.make(&job, &tree_dir)?;

    observer(Event::Phase(Phase::Tree));
    let record = BuildRecord {
        format: 1,
        name: name.clone(),
        version: made.version,
        form: form.name().to_owned(),
        platform: platform.clone(),
        entry: made
            .entry
            .parse::<RelPath>()
            .map_err(|_| pytheas_project::ProjectError::Name {
                text: made.entry.clone(),
            })?,
        health: project.settings.health(),
        config: project.settings.config(name),
        interpreter: form.carries_interpreter().then(|| interpreter.record()),
        update: UpdateRules {
            rules: project.settings.rules(),
            hooks: crate::hooks::recorded(&project.settings.hooks, form.name(), &tree_dir)?,
        },
    };
    let record_file = tree_dir.join(RECORD_FILE);
    scratch::write(&record_file, &record.encode(), Kind::Data)
        .map_err(io_error("write", &record_file))?;
    if let Some(spec) = &project.settings.compile {
        if form.name() == "bundle" {
            let site = interpreter.site_packages.under(&tree_dir.join("python"));
            crate::native::compile::drop_sources(
                spec,
                &crate::bundle::app_roots(&tree_dir, &site),
            )?;
        } else {
            observer(Event::Warning {
                text: "only bundles hold compiled modules: `[tool.pytheas.compile]` is passed over"
                    .to_owned(),
            });
        }
    }
    if form.name() == "bundle" {
        crate::startup::add_index(&tree_dir, &interpreter)?;
    }
    let mut tree = read_back(&tree_dir)?;
    if form.name() == "bundle" {
        crate::known::add_sbom(&tree_dir, &mut tree, &record, &lock.content)?;
    }
    if let Some(Budget { text, bytes }) = budget.filter(|budget| tree.size_bytes() > budget.bytes) {
        return Err(BuildError::OverBudget {
            size: shown_bytes(tree.size_bytes()),
            over: shown_bytes(tree.size_bytes() - bytes),
            budget: text,
            largest: largest(&tree),
        });
    }
    for name in crate::budget::check_packages(&target.budgets, &tree_dir)? {
        observer(Event::Warning {
            text: format!("`budgets` names `{name}`, which the result does not have"),
        });
    }
    let dir = output.finish()?;
    Ok(Built {
        dir,
        record,
        tree_id: tree.id(),
        size_bytes: tree.size_bytes(),
        file_count: tree.file_count(),
        tree,
        interpreter,
        uv_version: uv.version.to_string(),
        locked: lock.report,
        warnings: warnings.take(),
        elapsed: start.elapsed(),
    })
}

/// One set of modes, whatever the umask was, and the tree as it lies on the disk.
fn read_back(dir: &Path) -> Result<Tree, BuildError> {
    pytheas_durable::trees::set_modes(dir, 0).map_err(io_error("set modes in", dir))?;
    pytheas_durable::trees::scan(dir).map_err(|source| BuildError::Tree { source })
}
