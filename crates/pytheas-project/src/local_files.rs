//! Files beside the one with the requirements that a lock was made from: what a build back end
//! reads, local packages, the workspace above. A lock notes their hashes, so that a change of them
//! is noticed, offline and without running anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use pytheas_release::{RelPath, Sha256};

use crate::project::{Project, RequirementSource};

/// What says what a distribution needs.
const OF_DISTRIBUTIONS: [&str; 3] = ["pyproject.toml", "setup.py", "setup.cfg"];
/// Ends of names of files that such a file may read requirements from.
const READ_BY_THEM: [&str; 8] = [
    ".txt", ".in", ".json", ".yml", ".yaml", ".cfg", ".toml", ".lock",
];
/// Of how many folders that a file names its paths may be put together.
const MOST_FOLDERS: usize = 32;
/// A larger local archive is known by its size only in uv's lock.
const LARGEST: u64 = 256 << 20;

/// The hash of each file, by its path from `dir`, where the lock lies. `packages` are the paths of
/// the lock's local folders and archives.
pub(crate) fn hashes(
    project: &Project,
    dir: &Path,
    packages: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let mut paths = BTreeSet::new();
    if project.source == RequirementSource::BuildBackend {
        paths.extend(named_files(&project.dir));
    }
    for package in packages.iter().filter(|package| *package != ".") {
        let folder = Path::new(package);
        if !dir.join(folder).is_dir() {
            paths.insert(folder.to_owned());
            continue;
        }
        paths.extend(OF_DISTRIBUTIONS.map(|name| folder.join(name)));
        let named = named_files(&dir.join(folder));
        paths.extend(named.into_iter().map(|name| folder.join(name)));
    }
    paths.extend(workspace(&project.dir, dir));
    // A lock that a setting names (to leave it out of the package, say) is not made from itself.
    let lock = project.lock_path();
    paths
        .iter()
        .filter(|path| dir.join(path) != lock)
        .filter_map(|path| Some((path.to_str()?.to_owned(), hash(&dir.join(path))?)))
        .collect()
}

/// What the files of an earlier [`hashes`] are now.
pub(crate) fn now(dir: &Path, before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    before
        .keys()
        .filter_map(|path| Some((path.clone(), hash(&dir.join(path))?)))
        .collect()
}

/// Files of the folder that its `setup.py` and the like name: most often what they read
/// requirements from. A path may be in one piece (`reqs/base.txt`), put together of folders and a
/// name (`"reqs", "base.txt"`), or made of a folder and what is not known (`f"reqs/{name}.txt"`).
pub(crate) fn named_files(dir: &Path) -> BTreeSet<PathBuf> {
    let apart =
        |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '[' | ']' | '(' | ')');
    let may_be_read = |name: &str| READ_BY_THEM.iter().any(|end| name.ends_with(end));
    let relative = |word: &str| Some(PathBuf::from(word.parse::<RelPath>().ok()?.as_str()));
    let mut found = BTreeSet::new();
    for name in OF_DISTRIBUTIONS {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let words: BTreeSet<&str> = text
            .split(apart)
            .map(|word| word.strip_prefix("./").unwrap_or(word))
            .filter(|word| !word.is_empty() && !OF_DISTRIBUTIONS.contains(word))
            .collect();
        let mut folders: BTreeSet<PathBuf> = words
            .iter()
            .filter_map(|word| relative(word.trim_matches('/')))
            .filter(|path| dir.join(path).is_dir())
            .take(MOST_FOLDERS)
            .collect();
        let below: Vec<PathBuf> = folders
            .iter()
            .flat_map(|folder| {
                words
                    .iter()
                    .filter_map(|word| Some(folder.join(relative(word)?)))
            })
            .filter(|path| dir.join(path).is_dir())
            .take(MOST_FOLDERS)
            .collect();
        folders.extend(below);
        for word in words.iter().filter(|word| may_be_read(word)) {
            let Some(path) = relative(word.trim_start_matches('/')) else {
                continue;
            };
            let places = folders.iter().map(|folder| folder.join(&path));
            let here = std::iter::once(path.clone());
            let is_file = |path: &PathBuf| dir.join(path).is_file();
            found.extend(here.chain(places).filter(is_file));
            if word.contains(['{', '%', '*'])
                && let Some(folder) = path.parent().filter(|folder| *folder != Path::new(""))
            {
                let children = std::fs::read_dir(dir.join(folder)).into_iter().flatten();
                let names = children.filter_map(|child| child.ok()?.file_name().into_string().ok());
                let paths = names.filter(|name| may_be_read(name));
                found.extend(paths.map(|name| folder.join(name)).filter(is_file));
            }
        }
    }
    found
}

/// The root of the uv workspace above the project: its sources count for the members.
fn workspace(project: &Path, dir: &Path) -> Option<PathBuf> {
    if project != dir {
        return None; // locked elsewhere: such a lock is made anew each time
    }
    let mut way = PathBuf::new();
    for above in project.ancestors().skip(1).take(8) {
        way.push("..");
        let text = std::fs::read_to_string(above.join("pyproject.toml")).unwrap_or_default();
        if text.contains("[tool.uv.workspace]") {
            return Some(way.join("pyproject.toml"));
        }
    }
    None
}

fn hash(path: &Path) -> Option<String> {
    let is_small = path
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST);
    let bytes = is_small.then(|| std::fs::read(path).ok())??;
    Some(Sha256::of(&bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_a_back_end_reads_are_found_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        };
        write(
            "setup.py",
            "setup(install_requires=open('requirements.txt').read(), x=open(\"reqs/extra.in\"), y=open('/etc/hosts.txt'), z='gone.txt')",
        );
        write("requirements.txt", "a");
        write("reqs/extra.in", "b");
        write("other.txt", "");
        let found = named_files(dir.path());
        let found: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(found, ["reqs/extra.in", "requirements.txt"]);
    }

    #[test]
    fn files_whose_paths_are_put_together_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "setup.py",
            "reqs/base.txt",
            "deps/prod/web.in",
            "extras/a.txt",
            "extras/b.txt",
            "extras/c.py",
            "docs/index.txt",
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = "open(join(here, 'reqs', 'base.txt')); open(HERE / 'deps' / 'prod' / 'web.in'); open(f'extras/{name}.txt')";
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        }
        let found = named_files(dir.path());
        let found: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            found,
            [
                "deps/prod/web.in",
                "extras/a.txt",
                "extras/b.txt",
                "reqs/base.txt"
            ]
        );
    }
}
