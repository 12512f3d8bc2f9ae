//! `pytheas run`: the project's app from its sources, on this machine or a MicroPython.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
};

use miette::{Context as _, IntoDiagnostic};
use pytheas_build::{LockMode, Place};
use pytheas_project::{
    Connectivity, Entry, Environment, Project, Uv,
    sync::{self, SyncMode, SyncOptions},
};

use crate::{commands::lock, context::Context};

/// Run the app from its sources
///
/// Brings `.venv` to what is locked, as `pytheas sync` does, and starts the
/// app's entry in it; its exit code is the app's. What `[tool.pytheas.config]`
/// gives a default is in the environment. For a `micropython` target, or with
/// `--on`, it runs on MicroPython with what it imports and nothing else.
///
/// Examples: `pytheas run -- --verbose`, `pytheas run --target node --on qemu`
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Folder of the project
    #[arg(long, short = 'C', default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// A target of `[tool.pytheas.target.NAME]`: its entry
    #[arg(long, short, value_name = "NAME")]
    target: Option<String>,
    /// Where: `cpython`, `unix`, `unix:PROGRAM`, `wasm` or `qemu` [default: cpython, for a `micropython` target unix]
    #[arg(long, value_name = "MACHINE")]
    on: Option<Place>,
    /// Take the environment as it is
    #[arg(long)]
    no_sync: bool,
    /// Fail when a lock file is missing or stale instead of writing it
    #[arg(long, conflicts_with = "frozen")]
    locked: bool,
    /// Use the lock files as they are, stale or not
    #[arg(long)]
    frozen: bool,
    /// Use no network
    #[arg(long)]
    offline: bool,
    /// Arguments for the app
    #[arg(last = true, value_name = "ARG")]
    arguments: Vec<String>,
}

impl RunArgs {
    fn connectivity(&self) -> Connectivity {
        if self.offline {
            Connectivity::Offline
        } else {
            Connectivity::Online
        }
    }
}

/// Runs it; its exit code.
pub(crate) fn run(args: &RunArgs, context: &Context) -> miette::Result<ExitCode> {
    let project = Project::load(&args.project)?;
    let target = project.target(args.target.as_deref())?;
    let default = if target.form.as_deref() == Some("micropython") {
        Place::Unix(None)
    } else {
        Place::CPython
    };
    let place = args.on.clone().unwrap_or(default);
    let environment = Environment::current();
    if place != Place::CPython {
        return on_micropython(args, &project, &place, &environment);
    }
    let entry = project.entry(target.entry.as_ref())?;
    let python = python(args, &project, context)?;
    let mut command = environment.command(&python);
    match &entry {
        Entry::Callable { module, callable } => {
            let (name, _) = callable.split_once('.').unwrap_or((callable, ""));
            command.arg("-c").arg(format!(
                "import sys; sys.argv[0] = {:?}; from {module} import {name}; sys.exit({callable}())",
                project.name.as_str()
            ));
        }
        Entry::Module(module) => {
            command.args(["-m", module]);
        }
        Entry::Script(path) => {
            command.arg(path.under(&project.dir));
        }
    }
    command.args(&args.arguments);
    for option in project.settings.config(&project.name).into_values() {
        if let Some(default) = option.default
            && std::env::var_os(&option.env).is_none()
        {
            command.env(option.env, default);
        }
    }
    place_sources(&mut command, &project);
    activate(&mut command, &python);
    // The app is this process from here on: signals and the exit code are its own.
    let error = command.exec();
    Err(error)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot start `{}`", python.display()))
}

/// The Python of the project's environment, which is brought to what is locked.
fn python(args: &RunArgs, project: &Project, context: &Context) -> miette::Result<PathBuf> {
    let environment = super::build::environment(false);
    if args.no_sync {
        let dir = environment
            .path("UV_PROJECT_ENVIRONMENT")
            .map_or_else(|| project.dir.join(".venv"), |dir| project.dir.join(dir));
        let python = dir.join("bin/python");
        if !python.is_file() {
            return Err(miette::miette!(
                code = "pytheas::run::no_environment",
                help = "run `pytheas sync`, or leave out `--no-sync`",
                "there is no environment `{}`",
                dir.display()
            ));
        }
        return Ok(python);
    }
    let progress = context.progress();
    let observer = |event| lock::show(&event, &progress, context);
    let uv = Uv::find(&environment, args.connectivity(), &observer)?;
    let options = SyncOptions {
        mode: match (args.locked, args.frozen) {
            (true, _) => SyncMode::Locked,
            (_, true) => SyncMode::Frozen,
            _ => SyncMode::Apply,
        },
        ..SyncOptions::default()
    };
    let report = sync::sync(project, &uv, &environment, &options, &observer)?;
    Ok(report.environment.join("bin/python"))
}

/// A project that is not installed is found where it lies.
fn place_sources(command: &mut Command, project: &Project) {
    if project.has_build_system {
        return;
    }
    let mut path: Vec<PathBuf> = [project.dir.join("src"), project.dir.clone()]
        .into_iter()
        .filter(|dir| dir.is_dir())
        .collect();
    if let Some(given) = std::env::var_os("PYTHONPATH") {
        path.extend(std::env::split_paths(&given));
    }
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PYTHONPATH", path);
    }
}

/// Programs of the environment come first, as after `source .venv/bin/activate`.
fn activate(command: &mut Command, python: &Path) {
    let Some(bin) = python.parent() else { return };
    let given = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&given));
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PATH", path);
    }
    command.env("VIRTUAL_ENV", bin.parent().unwrap_or(bin));
    command.env_remove("PYTHONHOME");
}

fn on_micropython(
    args: &RunArgs,
    project: &Project,
    place: &Place,
    environment: &Environment,
) -> miette::Result<ExitCode> {
    let target = args.target.as_deref();
    let run = pytheas_build::prepare_run(
        project,
        target,
        &args.arguments,
        place,
        environment,
        args.connectivity(),
        match (args.locked, args.frozen) {
            (true, _) => LockMode::Locked,
            (_, true) => LockMode::Frozen,
            _ => LockMode::Update,
        },
    )?;
    let Some(mut command) = run.command()? else {
        let mut out = io::stdout();
        let code = run.on_board(&mut |bytes| {
            let _closed_pipe = out.write_all(bytes).and_then(|()| out.flush());
        })?;
        return Ok(ExitCode::from(code));
    };
    let program = OsString::from(command.get_program());
    let child = command
        .spawn()
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot start `{}`", Path::new(&program).display()))?;
    let status = hand_on_signals(child)
        .into_diagnostic()
        .wrap_err("cannot wait for the app")?;
    // As a shell tells of a signal.
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
}

/// Waits for the child; what is sent to this process goes to it.
fn hand_on_signals(mut child: Child) -> io::Result<std::process::ExitStatus> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let pid = rustix::process::Pid::from_child(&child);
    // A terminal sends Ctrl-C to both.
    let is_interactive = io::stdin().is_terminal();
    std::thread::spawn(move || {
        for signal in &mut signals {
            let signal = match signal {
                SIGINT if is_interactive => continue,
                SIGINT => rustix::process::Signal::INT,
                SIGHUP => rustix::process::Signal::HUP,
                _ => rustix::process::Signal::TERM,
            };
            let _ended_already = rustix::process::kill_process(pid, signal);
        }
    });
    child.wait()
}
