//! What is done of the packages while the interpreter is still being prepared: they are fetched,
//! unpacked into the cache and compiled by the Python that the interpreter is a copy of.
//!
//! Only time depends on it. What fails here fails again, and is told, when the packages are
//! installed; byte code whose names or sources turn out to be others is passed over.

use std::{collections::BTreeMap, path::PathBuf};

use pytheas_project::Pylock;

use crate::{
    bytecode::kept::{self, Ahead},
    install::Installer,
};

/// Byte code of the lock's packages, grouped as it is kept; nothing when one of them is no wheel.
pub(crate) fn packages(
    installer: &Installer<'_>,
    lock: &Pylock,
    lock_path: &std::path::Path,
) -> Ahead {
    let Some(python) = installer.interpreter.tool() else {
        return Ahead::default();
    };
    let sources = match installer.sources(lock, lock_path) {
        Ok(Some(sources)) => sources,
        Ok(None) => return Ahead::default(),
        Err(error) => {
            tracing::debug!(%error, "nothing is compiled ahead");
            return Ahead::default();
        }
    };
    let site = format!("python/{}", installer.interpreter.site_packages);
    let mut groups: BTreeMap<String, Vec<(String, PathBuf)>> = BTreeMap::new();
    for (path, file) in sources {
        let first = path.as_str().split('/').next().unwrap_or_default();
        let name = format!("{site}/{path}");
        groups
            .entry(first.to_owned())
            .or_default()
            .push((name, file));
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for group in &mut groups {
        // As folders are walked: part by part.
        group.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
    }
    kept::ahead(&python.into(), installer.environment, groups).unwrap_or_else(|error| {
        tracing::debug!(%error, "nothing is compiled ahead");
        Ahead::default()
    })
}
