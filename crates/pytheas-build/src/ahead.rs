//! What is done of the packages while the interpreter is still being prepared: they are fetched,
//! unpacked into the cache and compiled by the Python that the interpreter is a copy of.
//!
//! Only time depends on it. What fails here fails again, and is told, when the packages are
//! installed; byte code whose names or sources turn out to be others is passed over.

use std::{collections::BTreeMap, path::PathBuf};

use pytheas_project::Pylock;
use pytheas_release::RelPath;

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
    let groups = grouped(&site, sources);
    kept::ahead(&python.into(), installer.environment, groups).unwrap_or_else(|error| {
        tracing::debug!(%error, "nothing is compiled ahead");
        Ahead::default()
    })
}

/// The files as `kept` groups those of a bundle: by what lies directly in `site`, in the order in
/// which folders are walked, part by part.
fn grouped(site: &str, sources: Vec<(RelPath, PathBuf)>) -> Vec<Vec<(String, PathBuf)>> {
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
        group.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scratch::{self, Kind};

    #[test]
    fn files_are_grouped_and_ordered_as_those_of_the_finished_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let site = root.join("python/lib/site");
        let names = [
            "one.py",
            "pkg.py",
            "pkg/__init__.py",
            "pkg/a.py",
            "pkg/a/__init__.py",
            "pkg/a/x.py",
            "pkg/a-b/data.py",
            "pkg/a_b.py",
            "spaced/deep/er.py",
        ];
        let mut sources = Vec::new();
        for name in names {
            let path: RelPath = name.parse().unwrap();
            scratch::write(&path.under(&site), b"", Kind::Data).unwrap();
            sources.push((path.clone(), path.under(&site)));
        }
        let ahead: BTreeSet<Vec<PathBuf>> = grouped("python/lib/site", sources)
            .into_iter()
            .map(|group| group.into_iter().map(|(name, _)| root.join(name)).collect())
            .collect();
        let later = kept::groups(root, &[site]).unwrap();
        assert_eq!(ahead, later.into_iter().collect());
    }
}
