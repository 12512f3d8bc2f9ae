//! Which file of each package of the lock: markers (PEP 508) are evaluated for the target's
//! interpreter, wheels ranked by their tags.

use pep508_rs::MarkerEnvironment;
use pytheas_project::{LockedFile, LockedPackage, Pylock};
use pytheas_release::{Platform, Sha256};
use serde::Deserialize as _;

use crate::{
    dependencies::{DependencyError, is_needed, no_wheel},
    interpreter::Interpreter,
    wheel::Tags,
};

/// What a package is installed from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chosen<'a> {
    /// A wheel with its locked hash.
    Wheel(&'a LockedFile, Sha256),
    /// A source distribution with its locked hash.
    Source(&'a LockedFile, Sha256),
    /// Something else, in words.
    Other(&'static str),
}

/// The packages that are needed on the target, each with the best file.
pub(crate) fn choose<'a>(
    lock: &'a Pylock,
    interpreter: &Interpreter,
    platform: &Platform,
) -> Result<Vec<(&'a LockedPackage, Chosen<'a>)>, DependencyError> {
    let markers = MarkerEnvironment::deserialize(interpreter.markers.clone()).ok();
    let site = interpreter.site(platform);
    let mut chosen = Vec::new();
    for package in &lock.packages {
        if !is_needed(package, markers.as_ref())? {
            continue;
        }
        let best = package
            .wheels
            .iter()
            .filter_map(|file| {
                let rank = Tags::parse(file.file_name())?.rank(site)?;
                Some((rank, file, file.sha256()))
            })
            .max_by(|(a, ..), (b, ..)| a.cmp(b));
        let choice = match (best, &package.sdist) {
            (Some((_, file, Some(sha256))), _) => Chosen::Wheel(file, sha256),
            (Some((_, _, None)), _) => Chosen::Other("a wheel without a SHA-256 in the lock file"),
            (None, Some(file)) => match file.sha256() {
                Some(sha256) => Chosen::Source(file, sha256),
                None => Chosen::Other("an archive without a SHA-256 in the lock file"),
            },
            (None, None) if package.vcs.is_some() => Chosen::Other("version control"),
            (None, None) if package.directory.is_some() => Chosen::Other("a folder"),
            (None, None) if package.archive.is_some() => Chosen::Other("an archive"),
            (None, None) if package.wheels.is_empty() => Chosen::Other("nowhere"),
            (None, None) => return Err(no_wheel(package, interpreter, platform)),
        };
        chosen.push((package, choice));
    }
    Ok(chosen)
}
