//! `pytheas sync`: the project's virtual environment from the lock.

use std::{
    io,
    path::{Path, PathBuf},
};

use pytheas_project::{
    Connectivity, Project, PythonRequest, Uv,
    sync::{self, SyncMode, SyncOptions, SyncReport},
};
use serde::Serialize;

use crate::{
    commands::lock,
    context::Context,
    output::{Paint, Show},
};

/// Bring the project's virtual environment to what is locked
///
/// Makes `.venv` where editors look for it, installs what is missing,
/// removes what is not locked, and adds the project itself as an editable
/// installation when it has a `[build-system]`. Locks first when the lock is
/// missing or stale. The group `dev` is taken along and locked beside the app
/// in `pylock.dev.toml`.
#[derive(Debug, clap::Args)]
pub(crate) struct SyncArgs {
    /// Folder of the project
    #[arg(long, short = 'C', default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// Take this dependency group along
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// Take this extra (optional dependencies) along
    #[arg(long, value_name = "NAME")]
    extra: Vec<String>,
    /// Leave out the group `dev`
    #[arg(long)]
    no_dev: bool,
    /// Change nothing: exit with 1 when something would change, naming it
    #[arg(long)]
    check: bool,
    /// Fail when a lock file is missing or stale instead of writing it
    #[arg(long, conflicts_with = "frozen")]
    locked: bool,
    /// Use the lock files as they are, stale or not
    #[arg(long, conflicts_with = "check")]
    frozen: bool,
    /// Take the newest versions of all packages, groups and extras included
    #[arg(long, short = 'U', conflicts_with_all = ["check", "locked", "frozen"])]
    upgrade: bool,
    /// Take the newest version of this package
    #[arg(long, short = 'P', value_name = "NAME", conflicts_with_all = ["upgrade", "check", "locked", "frozen"])]
    upgrade_package: Vec<String>,
    /// The Python, e.g. `3.11` [default: the project's, else the newest found]
    #[arg(long, value_name = "VERSION")]
    python: Option<PythonRequest>,
    /// Use no network
    #[arg(long)]
    offline: bool,
    /// Let the code that runs to build packages use the network, all of it [default: only what `[tool.pytheas.build]` names]
    #[arg(long)]
    allow_build_network: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    environment: &'a Path,
    python: &'a str,
    created: bool,
    groups: &'a [String],
    changes: &'a [String],
    locks_written: Vec<&'a Path>,
}

impl Show for Shown<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let made = if self.created { ", made now" } else { "" };
        let environment = self.environment.display();
        out.fact("environment", format!("{environment}{made}"))?;
        out.fact("python", self.python)?;
        for lock in &self.locks_written {
            out.fact("locked", lock.display())?;
        }
        if self.changes.is_empty() {
            return out.fact("packages", "as locked before");
        }
        for change in self.changes {
            out.fact("package", change)?;
        }
        Ok(())
    }
}

/// Syncs or checks.
pub(crate) fn run(args: &SyncArgs, context: &Context) -> miette::Result<()> {
    let project = Project::load(&args.project)?;
    let environment = super::build::environment(args.allow_build_network);
    let progress = context.progress();
    let observer = |event| lock::show(&event, &progress, context);
    let connectivity = if args.offline {
        Connectivity::Offline
    } else {
        Connectivity::Online
    };
    let uv = Uv::find(&environment, connectivity, &observer)?;
    let options = SyncOptions {
        groups: args.group.clone(),
        extras: args.extra.clone(),
        no_dev: args.no_dev,
        mode: match (args.check, args.locked, args.frozen) {
            (true, ..) => SyncMode::Check,
            (_, true, _) => SyncMode::Locked,
            (_, _, true) => SyncMode::Frozen,
            _ => SyncMode::Apply,
        },
        python: args.python.clone(),
        upgrade: lock::upgrade_of(args.upgrade, &args.upgrade_package),
    };
    let report: SyncReport = sync::sync(&project, &uv, &environment, &options, &observer)?;
    drop(progress);
    let written = report.locked.iter().filter(|lock| lock.written);
    context.show(&Shown {
        environment: &report.environment,
        python: &report.python,
        created: report.created,
        groups: &report.groups,
        changes: &report.changes,
        locks_written: written.map(|lock| lock.path.as_path()).collect(),
    })
}
