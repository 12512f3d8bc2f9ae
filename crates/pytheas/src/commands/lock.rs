//! `pytheas lock`: every package of the project, with versions and hashes, for every platform.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use miette::{Context as _, IntoDiagnostic};

use pytheas_project::{
    Connectivity, Event, Project, Uv,
    lock::{self, LockOptions, LockStatus, Upgrade},
};
use pytheas_release::Platform;
use serde::Serialize;

use crate::{
    commands::{
        input::{self, InputArgs},
        lock_boards,
    },
    context::{Context, Progress},
    exit,
    output::{Paint, Show},
};

/// Lock the project's requirements for every platform
///
/// Reads `pyproject.toml`, `setup.cfg`, `Pipfile`, `requirements.txt` or
/// another of the known inputs and writes `pylock.toml` (PEP 751). Versions that are locked stay unless the requirements forbid
/// them or `--upgrade` is given. Packages for boards (`[tool.pytheas.micropython]`) are locked in
/// `pytheas.mip.lock`.
#[derive(Debug, clap::Args)]
pub(crate) struct LockArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Only check: exit with 1 when the lock is missing or stale, naming what changed
    #[arg(long, conflicts_with_all = ["upgrade", "upgrade_package"])]
    check: bool,
    /// Take the newest versions of all packages
    #[arg(long, short = 'U')]
    upgrade: bool,
    /// Take the newest version of this package
    #[arg(long, short = 'P', value_name = "NAME", conflicts_with = "upgrade")]
    upgrade_package: Vec<String>,
    /// Write the lock as requirements with hashes, too, for pip and others; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    export: Option<PathBuf>,
    /// With `--export`: without what this platform never needs [default: every platform]
    #[arg(long, value_name = "PLATFORM", requires = "export")]
    platform: Option<Platform>,
    /// Write the locked packages for boards into a folder that is an index of mip's format
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    mirror: Option<PathBuf>,
    /// Use no network: what is not in uv's cache is missing
    #[arg(long)]
    offline: bool,
    /// Let the code that runs to build packages use the network, all of it [default: only what `[tool.pytheas.build]` names]
    #[arg(long)]
    allow_build_network: bool,
}

/// What locking did, or what checking found.
#[derive(Serialize)]
struct Locked {
    /// Packages for boards.
    #[serde(skip_serializing_if = "Option::is_none")]
    boards: Option<lock_boards::LockedBoards>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exported: Option<PathBuf>,
    input: String,
    lock: PathBuf,
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    packages: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<String>,
}

impl Show for Locked {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let path = self.lock.display();
        if let Some(boards) = &self.boards {
            boards.text(out)?;
        }
        if let Some(file) = &self.exported {
            out.line(format!("wrote {}", file.display()))?;
        }
        match (self.packages, self.written) {
            (Some(packages), Some(true)) => {
                let input = &self.input;
                out.line(format!(
                    "locked {packages} packages in {path}, from {input}"
                ))
            }
            (Some(packages), _) => out.line(format!("{path} stays as it is: {packages} packages")),
            _ => out.line(format!("{path} is up to date")),
        }
    }
}

/// Locks or checks.
pub(crate) fn run(args: &LockArgs, context: &Context) -> miette::Result<ExitCode> {
    let project = args.input.load(context)?;
    if args.check {
        return check(&project, context);
    }
    let boards = lock_boards::lock(
        &project,
        &lock_boards::Wanted {
            upgrade: upgrade_of(args.upgrade, &args.upgrade_package),
            offline: args.offline,
            environment: super::build::environment(args.allow_build_network),
            mirror: args.mirror.as_deref(),
        },
        context,
    )?;
    if let Some(boards) = &boards
        && lock_boards::is_for_boards_only(&project)
    {
        context.show(boards)?;
        return Ok(ExitCode::SUCCESS);
    }
    let progress = context.progress();
    let observer = |event: Event| show(&event, &progress, context);
    let connectivity = if args.offline {
        Connectivity::Offline
    } else {
        Connectivity::Online
    };
    let uv = Uv::find(
        &super::build::environment(args.allow_build_network),
        connectivity,
        &observer,
    )?;
    let options = LockOptions {
        upgrade: upgrade_of(args.upgrade, &args.upgrade_package),
        ..LockOptions::default()
    };
    let report = lock::lock(&project, &uv, &options, &observer)?;
    drop(progress);
    let exported = match &args.export {
        Some(file) => export(file, &report.path, args.platform.as_ref(), context)?,
        None => None,
    };
    if args.export.is_some() && exported.is_none() {
        return Ok(ExitCode::SUCCESS); // standard output holds the requirements alone
    }
    context.show(&Locked {
        boards,
        exported,
        input: input::shown(&project),
        lock: report.path,
        current: true,
        packages: Some(report.packages),
        written: Some(report.written),
        changes: Vec::new(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What `--upgrade` and `--upgrade-package` ask for.
pub(crate) fn upgrade_of(everything: bool, packages: &[String]) -> Upgrade {
    match (packages, everything) {
        (_, true) => Upgrade::Everything,
        ([], false) => Upgrade::Nothing,
        (names, false) => Upgrade::Packages(names.to_vec()),
    }
}

/// Writes the lock as requirements with hashes; gives the file, none for standard output.
fn export(
    file: &Path,
    lock: &Path,
    platform: Option<&Platform>,
    context: &Context,
) -> miette::Result<Option<PathBuf>> {
    let exported = pytheas_project::export::requirements(lock, platform)?;
    for package in &exported.without_hash {
        context.warn(format!(
            "`{package}` comes from a folder or a repository and has no hash; `pip --require-hashes` refuses it"
        ));
    }
    if file == Path::new("-") {
        let mut out = io::stdout().lock();
        let written = out
            .write_all(exported.text.as_bytes())
            .and_then(|()| out.flush());
        // A reader that has seen enough, such as `head`, is no failure.
        return match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error)
                .into_diagnostic()
                .wrap_err("cannot write to standard output"),
            _ => Ok(None),
        };
    }
    pytheas_durable::replace(file, exported.text.as_bytes())
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write `{}`", file.display()))?;
    Ok(Some(file.to_owned()))
}

fn check(project: &Project, context: &Context) -> miette::Result<ExitCode> {
    lock_boards::check(project)?;
    if lock_boards::is_for_boards_only(project) {
        context.show(&lock_boards::current(project)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if context.json {
        let (current, changes) = match lock::status(project)? {
            LockStatus::Current(_) => (true, Vec::new()),
            LockStatus::Missing => (false, vec!["there is no lock file".to_owned()]),
            LockStatus::Foreign(_) => (false, vec!["another tool wrote it".to_owned()]),
            LockStatus::Stale(changes) => {
                (false, changes.iter().map(ToString::to_string).collect())
            }
        };
        let lock = project.lock_path();
        context.show(&Locked {
            boards: None,
            exported: None,
            input: input::shown(project),
            lock,
            current,
            packages: None,
            written: None,
            changes,
        })?;
        return Ok(if current {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(exit::USER)
        });
    }
    lock::check(project)?;
    let lock = project.lock_path();
    context.show(&Locked {
        boards: None,
        exported: None,
        input: input::shown(project),
        lock,
        current: true,
        packages: None,
        written: None,
        changes: vec![],
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what happens while a project is read and locked.
pub(crate) fn show(event: &Event, progress: &Progress, context: &Context) {
    match event {
        Event::FetchingUv { version, from } => {
            progress.step(format!("fetching uv {version} from {from}"));
        }
        Event::FetchedUv { .. } => progress.step("uv is in the cache"),
        Event::Resolving { requirements } => {
            progress.step(format!("resolving {requirements} requirements"));
        }
        Event::PinsFrom { file, packages } => {
            context.note(format!(
                "note: the {packages} versions of `{file}` are kept where they fit"
            ));
        }
        Event::Locked { packages } => progress.step(format!("locked {packages} packages")),
        Event::Warning { text } => context.warn(text),
        _ => {}
    }
}
