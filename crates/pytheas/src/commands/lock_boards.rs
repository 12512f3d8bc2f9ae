//! The part of `pytheas lock` for boards: `pytheas.mip.lock`.

use std::{
    io,
    path::{Path, PathBuf},
};

use pytheas_build::micropython::mip::{self, LOCK_FILE, MipOptions};
use pytheas_project::{Connectivity, Environment, Project, RequirementSource, lock::Upgrade};
use serde::Serialize;

use crate::{
    commands::build,
    context::Context,
    output::{Paint, Show},
};

/// What to lock.
pub(crate) struct Wanted<'a> {
    pub(crate) upgrade: Upgrade,
    pub(crate) offline: bool,
    pub(crate) environment: Environment,
    pub(crate) mirror: Option<&'a Path>,
}

/// What locking did.
#[derive(Serialize)]
pub(crate) struct LockedBoards {
    lock: PathBuf,
    packages: Vec<String>,
    /// No board needs these: their markers say so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirrored: Option<usize>,
}

impl Show for LockedBoards {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let (lock, packages) = (self.lock.display(), self.packages.join(", "));
        match self.written {
            Some(true) => out.line(format!("locked for boards in {lock}: {packages}"))?,
            Some(false) => out.line(format!("{lock} stays as it is: {packages}"))?,
            None => out.line(format!("{lock} is up to date: {packages}"))?,
        }
        for package in &self.left_out {
            out.line(format!("left out: {package}"))?;
        }
        match self.mirrored {
            Some(count) => out.line(format!("mirrored {count} packages")),
            None => Ok(()),
        }
    }
}

fn shown(project: &Project, lock: &mip::MipLock) -> LockedBoards {
    let title = |package: &mip::LockedPackage| {
        let title = format!("{} {}", package.name, package.version);
        title.trim_end().to_owned()
    };
    let (left_out, packages): (Vec<_>, Vec<_>) = lock
        .packages
        .iter()
        .partition(|package| package.marker.is_some() && package.files.is_empty());
    LockedBoards {
        lock: project.dir.join(LOCK_FILE),
        packages: packages.into_iter().map(title).collect(),
        left_out: left_out
            .into_iter()
            .map(|package| {
                let marker = package.marker.as_deref().unwrap_or_default();
                format!("{}, it is for `{marker}` only", title(package))
            })
            .collect(),
        written: None,
        mirrored: None,
    }
}

/// Locks the packages for boards; none when the project names none.
pub(crate) fn lock(
    project: &Project,
    wanted: &Wanted<'_>,
    context: &Context,
) -> miette::Result<Option<LockedBoards>> {
    let options = MipOptions {
        upgrade: wanted.upgrade.clone(),
        connectivity: if wanted.offline {
            Connectivity::Offline
        } else {
            Connectivity::Online
        },
        environment: wanted.environment.clone(),
    };
    let progress = context.progress();
    let report = mip::lock(project, &options, &|event| {
        build::show(&event, &progress, context);
    })?;
    drop(progress);
    let Some(report) = report else {
        if let Some(dir) = wanted.mirror {
            return Err(miette::miette!(
                help = "name packages in `dependencies` of `[tool.pytheas.micropython]`",
                "there are no packages for boards to mirror into `{}`",
                dir.display()
            ));
        }
        return Ok(None);
    };
    let mirrored = wanted
        .mirror
        .map(|dir| mip::mirror(project, &report.lock, &options, dir))
        .transpose()?;
    Ok(Some(LockedBoards {
        written: Some(report.written),
        mirrored,
        ..shown(project, &report.lock)
    }))
}

/// Whether the project has packages for boards and no others.
pub(crate) fn is_for_boards_only(project: &Project) -> bool {
    !project.settings.micropython.dependencies.is_empty()
        && project.dependencies.is_empty()
        && project.optional_dependencies.is_empty()
        && project.dependency_groups.is_empty()
        && project.source == RequirementSource::Pyproject
        && !project.lock_path().exists()
}

/// Fails when the lock does not hold.
pub(crate) fn check(project: &Project) -> miette::Result<()> {
    match mip::status(project)? {
        (_, None) => Ok(()),
        (_, Some(why)) => Err(mip::MipError::Stale {
            file: project.dir.join(LOCK_FILE),
            why,
        }
        .into()),
    }
}

/// The lock as it is.
pub(crate) fn current(project: &Project) -> miette::Result<LockedBoards> {
    match mip::status(project)? {
        (Some(lock), _) => Ok(shown(project, &lock)),
        (None, _) => Err(mip::MipError::Stale {
            file: project.dir.join(LOCK_FILE),
            why: "is missing".to_owned(),
        }
        .into()),
    }
}
