//! `pytheas build`: the project as something that runs elsewhere.

use std::{
    io,
    path::{Path, PathBuf},
};

use pytheas_build::{BuildRequest, Built, Event, InterpreterChoice, LockMode, Phase};
use pytheas_project::{Connectivity, Entry, Environment, Project, PythonRequest};
use pytheas_release::{BuildRecord, Name, Platform, Version};
use serde::Serialize;

use crate::{
    commands::{
        build_board, build_forms,
        input::{self, InputArgs},
        lock,
    },
    context::{Context, Progress},
    output::{Paint, Show, bytes, duration},
};

/// Build the project into a folder that runs with no Python on the machine
///
/// Interpreter, dependencies and app in one relocatable folder; `bin/APP`
/// starts it. A folder with only `main.py` and `requirements.txt` needs no
/// configuration. The same input gives the same bytes.
///
/// Examples: `pytheas build -o out`, `pytheas build tool.py`,
/// `pytheas build --from datasette==0.65.1`
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    input: InputArgs,
    /// A target of `[tool.pytheas.target.NAME]`
    #[arg(long, short, value_name = "NAME")]
    target: Option<String>,
    /// What starts the app: `module:callable`, a module, or a script
    #[arg(long, short, value_name = "MODULE:CALLABLE")]
    entry: Option<Entry>,
    /// Name of the app, and of the program in `bin/` [default: the project's]
    #[arg(long, value_name = "APP")]
    name: Option<Name>,
    /// Version of the release [default: the project's]
    #[arg(long, value_name = "VERSION")]
    release_version: Option<Version>,
    /// The folder to build; an earlier bundle there is replaced in one step [default: dist/APP]
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The form: bundle, wheelhouse, wheel (and sdist, into `-o DIR`), or micropython
    #[arg(long, value_name = "FORM")]
    form: Option<String>,
    /// The platform, e.g. linux-x86_64 [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Fail when the lock file is missing or stale instead of writing it
    #[arg(long, conflicts_with = "frozen")]
    locked: bool,
    /// Use the lock file as it is, stale or not
    #[arg(long)]
    frozen: bool,
    /// Pack the bundle into one program, `-o FILE` [default: dist/APP.run]
    #[arg(long)]
    one_file: bool,
    /// Leave out what the import graph does not reach, as `slim = true` of a target does
    #[arg(long)]
    slim: bool,
    /// With `--slim`: a module or package to keep though nothing is seen to import it
    #[arg(long, value_name = "MODULE", requires = "slim")]
    keep: Vec<String>,
    /// Build a second time elsewhere and fail when the bytes differ
    #[arg(long)]
    check_reproducible: bool,
    #[command(flatten)]
    tools: ToolArgs,
}

/// What a build works with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ToolArgs {
    /// The Python, e.g. `3.11` [default: the project's, else the newest found]
    #[arg(long, value_name = "VERSION")]
    python: Option<PythonRequest>,
    /// Where the interpreter comes from: `auto`, `pbs`, `debian`, `host`, or the path of a Python
    #[arg(long, value_name = "PROVIDER", default_value = "auto")]
    interpreter: InterpreterChoice,
    /// Address or folder of python-build-standalone archives
    #[arg(long, env = "PYTHEAS_PYTHON_MIRROR", value_name = "URL|DIR")]
    python_mirror: Option<String>,
    /// Use no network
    #[arg(long)]
    offline: bool,
    /// Let the code that runs to build packages use the network, all of it [default: only what `[tool.pytheas.build]` names]
    #[arg(long)]
    allow_build_network: bool,
}

impl ToolArgs {
    /// Whether the network may be used.
    pub(crate) fn connectivity(&self) -> Connectivity {
        if self.offline {
            Connectivity::Offline
        } else {
            Connectivity::Online
        }
    }
}

/// What was built, as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    input: &'a str,
    dir: &'a Path,
    program: PathBuf,
    tree_id: String,
    size_bytes: u64,
    files: u64,
    seconds: f64,
    interpreter_origin: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_written: Option<&'a Path>,
    warnings: &'a [String],
    record: &'a BuildRecord,
}

impl Show for Shown<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let BuildRecord {
            name,
            version,
            form,
            platform,
            ..
        } = self.record;
        out.fact("built", format!("{name} {version}, {form} for {platform}"))?;
        out.fact("from", self.input)?;
        out.fact("program", self.program.display())?;
        let origin = self.interpreter_origin.display();
        out.fact(
            "python",
            format!("{} from {origin}", interpreter(self.record)),
        )?;
        if let Some(lock) = self.lock_written {
            out.fact("locked", lock.display())?;
        }
        out.fact(
            "size",
            format!("{} in {} files", bytes(self.size_bytes), self.files),
        )?;
        out.fact("tree", &self.tree_id)?;
        out.fact(
            "took",
            duration(std::time::Duration::from_secs_f64(self.seconds)),
        )
    }
}

/// The interpreter in a record, for people: `CPython 3.11.7 (host)`.
pub(crate) fn interpreter(record: &BuildRecord) -> String {
    record
        .interpreter
        .as_ref()
        .map_or("no interpreter".into(), |interpreter| {
            format!("CPython {} ({})", interpreter.version, interpreter.provider)
        })
}

/// Builds it.
pub(crate) fn run(args: &BuildArgs, context: &Context) -> miette::Result<()> {
    let project = args.input.load(context)?;
    let input = input::shown(&project);
    let request = BuildRequest {
        target: args.target.clone(),
        name: args.name.clone(),
        version: args.release_version.clone(),
        entry: args.entry.clone(),
        form: args.form.clone(),
        platform: args.platform.clone(),
        out: args.out.clone(),
        slim: args.slim,
        keep: args.keep.clone(),
        lock: match (args.locked, args.frozen) {
            (true, _) => LockMode::Locked,
            (_, true) => LockMode::Frozen,
            _ => LockMode::Update,
        },
        ..with_tools(project, &args.tools)
    };
    if pytheas_build::is_wheel_form(&request)? {
        let progress = context.progress();
        let observer = |event: Event| show(&event, &progress, context);
        let made = pytheas_build::distributions(&request, &observer)?;
        if args.check_reproducible {
            pytheas_build::check_wheel_reproducible(&request, &made, &quietly(&observer))?;
            context.note(SAME_BYTES);
        }
        pytheas_build::write_wheel_provenance(&request, &made)?;
        drop(progress);
        return build_forms::show_distributions(&made, context);
    }
    if pytheas_build::micropython::is_board_form(&request)? {
        if args.one_file {
            return Err(miette::miette!(
                help = "leave `--one-file` out: the image is one file already",
                "a board runs no program of Linux"
            ));
        }
        return build_board::run(&request, args.check_reproducible, context);
    }
    if args.one_file {
        let (scratch, file) = build_forms::one_file_places(&request)?;
        let request = BuildRequest {
            out: Some(scratch.path().join("tree")),
            ..request
        };
        let built = build(&request, context)?;
        // The file is made of the tree alone.
        if args.check_reproducible {
            check_again(&request, &built, context)?;
        }
        return build_forms::pack(&request, &built, &file, context);
    }
    let built = build(&request, context)?;
    if args.check_reproducible {
        check_again(&request, &built, context)?;
    }
    pytheas_build::write_provenance(&request, &built, None)?;
    context.show(&Shown {
        input: &input,
        dir: &built.dir,
        program: built.record.entry.under(&built.dir),
        tree_id: built.tree_id.to_string(),
        size_bytes: built.size_bytes,
        files: built.file_count,
        seconds: built.elapsed.as_secs_f64(),
        interpreter_origin: &built.interpreter.origin,
        lock_written: built
            .locked
            .as_ref()
            .filter(|report| report.written)
            .map(|report| report.path.as_path()),
        warnings: &built.warnings,
        record: &built.record,
    })
}

const SAME_BYTES: &str = "a second build elsewhere gave the same bytes";

/// What a second build says: its steps, not the warnings again.
fn quietly<'a>(observer: &'a dyn Fn(Event)) -> impl Fn(Event) + 'a {
    move |event| match event {
        Event::Warning { .. } | Event::Project(_) => {}
        event => observer(event),
    }
}

/// Builds a second time elsewhere and compares.
fn check_again(request: &BuildRequest, built: &Built, context: &Context) -> miette::Result<()> {
    let progress = context.progress();
    let observer = |event: Event| show(&event, &progress, context);
    pytheas_build::check_reproducible(request, built, &quietly(&observer))?;
    context.note(SAME_BYTES);
    Ok(())
}

/// Builds the project in `source` as a bundle in `out`, with nothing else said.
pub(crate) fn bundle(
    source: &Path,
    out: &Path,
    tools: &ToolArgs,
    context: &Context,
) -> miette::Result<Built> {
    let request = BuildRequest {
        out: Some(out.to_owned()),
        form: Some("bundle".to_owned()),
        ..with_tools(Project::load(source)?, tools)
    };
    build(&request, context)
}

pub(crate) fn with_tools(project: Project, tools: &ToolArgs) -> BuildRequest {
    BuildRequest {
        python: tools.python.clone(),
        interpreter: tools.interpreter.clone(),
        python_mirror: tools.python_mirror.clone(),
        connectivity: tools.connectivity(),
        environment: environment(tools.allow_build_network),
        ..BuildRequest::new(project)
    }
}

/// This process's environment, with the builds of packages let to the network if asked for.
pub(crate) fn environment(allow_build_network: bool) -> Environment {
    let environment = Environment::current();
    if allow_build_network {
        environment.with(pytheas_project::isolate::NETWORK, "*")
    } else {
        environment
    }
}

fn build(request: &BuildRequest, context: &Context) -> miette::Result<Built> {
    let progress = context.progress();
    let observer = |event: Event| show(&event, &progress, context);
    Ok(pytheas_build::build(request, &observer)?)
}

pub(crate) fn show(event: &Event, progress: &Progress, context: &Context) {
    match event {
        Event::Project(event) => lock::show(event, progress, context),
        Event::Phase(phase) => {
            let number = Phase::ALL
                .iter()
                .position(|other| other == phase)
                .unwrap_or(0)
                + 1;
            let what = match phase {
                Phase::Lock => "checking the lock file",
                Phase::Interpreter => "preparing the interpreter",
                Phase::Dependencies => "installing packages",
                Phase::App => "adding the app",
                Phase::ByteCode => "compiling byte code",
                Phase::Tree => "hashing the tree",
            };
            progress.phase(number, Phase::ALL.len(), what);
        }
        Event::Fetching { what, from } => progress.step(format!("fetching {what} from {from}")),
        Event::Compiling { what, platform } => {
            progress.step(format!("compiling {what} for {platform}"))
        }
        Event::Interpreter {
            provider, version, ..
        } => {
            progress.step(format!("CPython {version} ({provider})"));
        }
        Event::Step { text } => progress.step(text),
        Event::Warning { text } => progress.suspend(|| context.warn(text)),
        _ => {}
    }
}
