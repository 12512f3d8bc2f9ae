//! The lock as a whole: made, compared with the project, made again where it does not hold.

use std::collections::BTreeSet;

use pytheas_project::{Connectivity, Environment, Project, lock::Upgrade};

use super::{LOCK_FILE, MipError, MipLock, fetch::Fetcher, index::Index, resolve::Resolver};
use crate::{LockMode, event::Observer};

/// How to lock.
#[derive(Debug, Clone)]
pub struct MipOptions {
    /// Which versions may change.
    pub upgrade: Upgrade,
    /// Whether the network may be used.
    pub connectivity: Connectivity,
    /// Cache folder and settings.
    pub environment: Environment,
}

/// What locking did.
#[derive(Debug, Clone)]
pub struct MipReport {
    /// The lock.
    pub lock: MipLock,
    /// Whether the file's bytes changed.
    pub written: bool,
}

/// Locks the dependencies of `project`; without any, an old lock file is removed. None when there
/// is nothing to lock.
///
/// # Errors
/// [`MipError`]; the lock file is then as it was.
pub fn lock(
    project: &Project,
    options: &MipOptions,
    observer: Observer<'_>,
) -> Result<Option<MipReport>, MipError> {
    let settings = &project.settings.micropython;
    let before = MipLock::read(&project.dir);
    if settings.dependencies.is_empty() {
        let file = project.dir.join(LOCK_FILE);
        if file.exists() {
            std::fs::remove_file(&file).map_err(super::error::io_error("remove", &file))?;
        }
        return Ok(None);
    }
    let before = match options.upgrade {
        Upgrade::Everything => None,
        _ => before?,
    };
    let fetcher = Fetcher::new(&options.environment, options.connectivity, &project.dir);
    let index = Index::place_of(&options.environment, settings.index.as_deref())
        .map(|place| Index::open(at_project(project, place), &fetcher))
        .transpose()?;
    let resolver = Resolver::new(
        project,
        options,
        &fetcher,
        index.as_ref(),
        before.as_ref(),
        observer,
    );
    let mut packages = resolver.packages()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let lock = MipLock {
        version: 1,
        inputs: inputs(project),
        packages,
    };
    let written = lock.write(&project.dir)?;
    Ok(Some(MipReport { lock, written }))
}

/// A path in the settings is relative to the project.
fn at_project(project: &Project, place: String) -> String {
    if place.contains("://") || place.starts_with('/') {
        place
    } else {
        project.dir.join(place).display().to_string()
    }
}

/// Where the project's index is, when it has one.
pub(super) fn index_place(project: &Project, environment: &Environment) -> Option<String> {
    let setting = project.settings.micropython.index.as_deref();
    Index::place_of(environment, setting).map(|place| at_project(project, place))
}

/// What the lock is made from.
fn inputs(project: &Project) -> Vec<String> {
    let settings = &project.settings.micropython;
    let set: BTreeSet<String> = settings
        .dependencies
        .iter()
        .map(|text| text.trim().to_owned())
        .chain(settings.index.iter().map(|index| format!("index={index}")))
        .collect();
    set.into_iter().collect()
}

/// What the lock says, and what of the project it does not know; none when both agree.
///
/// # Errors
/// When the lock cannot be read.
pub fn status(project: &Project) -> Result<(Option<MipLock>, Option<String>), MipError> {
    let lock = MipLock::read(&project.dir)?;
    let wanted = inputs(project);
    let why = match &lock {
        None if wanted.is_empty() || project.settings.micropython.dependencies.is_empty() => None,
        None => Some("is missing".to_owned()),
        Some(lock) if lock.inputs == wanted => None,
        Some(lock) => {
            let changed = |from: &[String], to: &[String], sign: &str| -> Vec<String> {
                from.iter()
                    .filter(|text| !to.contains(text))
                    .map(|text| format!("{sign}`{text}`"))
                    .collect()
            };
            let mut changes = changed(&wanted, &lock.inputs, "new is ");
            changes.extend(changed(&lock.inputs, &wanted, "gone is "));
            Some(format!("does not hold: {}", changes.join(", ")))
        }
    };
    Ok((lock, why))
}

/// The lock, as `mode` says made again where it does not hold; none without dependencies.
///
/// # Errors
/// See [`MipError`].
pub fn lock_if_needed(
    project: &Project,
    mode: LockMode,
    options: &MipOptions,
    observer: Observer<'_>,
) -> Result<Option<MipLock>, MipError> {
    let (found, why) = status(project)?;
    match (mode, found, why) {
        (_, _, _) if project.settings.micropython.dependencies.is_empty() => Ok(None),
        (_, Some(lock), None) | (LockMode::Frozen, Some(lock), _) => Ok(Some(lock)),
        (LockMode::Locked | LockMode::Frozen, _, why) => Err(MipError::Stale {
            file: project.dir.join(LOCK_FILE),
            why: why.unwrap_or_else(|| "is missing".to_owned()),
        }),
        (LockMode::Update, _, _) => Ok(lock(project, options, observer)?.map(|report| report.lock)),
    }
}
