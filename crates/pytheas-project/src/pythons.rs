//! Pythons of this machine, also those that uv passes over: where pyenv's shims come first on `PATH`,
//! uv takes a shim that does not run for the end of its search.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pep440_rs::Version;

use crate::{environment::Environment, python::PythonRequest};

/// How many programs are asked for their version at most.
const MOST: usize = 48;

/// The newest Python on `PATH` or among pyenv's that `request` allows.
pub(crate) fn fitting(environment: &Environment, request: &PythonRequest) -> Option<PathBuf> {
    candidates(environment)
        .into_iter()
        .take(MOST)
        .filter_map(|path| Some((version_of(&path, environment)?, path)))
        .filter(|(version, _)| request.contains(version))
        .max_by(|(a, _), (b, _)| a.cmp(b))
        .map(|(_, path)| path)
}

/// The version of the Python at `path`; none when it does not run.
pub(crate) fn version_of(path: &Path, environment: &Environment) -> Option<Version> {
    let script = "import sys; print('%d.%d.%d' % sys.version_info[:3])";
    let mut command = environment.python(path);
    let output = command.args(["-I", "-c", script]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().ok().filter(|_| output.status.success())
}

fn candidates(environment: &Environment) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let path = environment.get("PATH").unwrap_or_default();
    for folder in std::env::split_paths(path) {
        // A shim tells nothing that is not among the versions below.
        if folder.is_absolute() && !folder.ends_with("shims") {
            found.extend(children(&folder).filter(|path| is_python(path)));
        }
    }
    let pyenv = environment
        .path("PYENV_ROOT")
        .or_else(|| Some(environment.home()?.join(".pyenv")));
    if let Some(pyenv) = pyenv {
        let versions = children(&pyenv.join("versions"));
        found.extend(
            versions
                .map(|version| version.join("bin/python3"))
                .filter(|path| path.is_file()),
        );
    }
    found
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let children = std::fs::read_dir(folder).into_iter().flatten().flatten();
    children.map(|child| child.path())
}

/// `python3`, `python3.11`; not `python3-config`, `python3.11-dbg`.
fn is_python(path: &Path) -> bool {
    let rest = path
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("python3"));
    rest.is_some_and(|rest| {
        rest.strip_prefix('.').map_or(rest.is_empty(), |minor| {
            !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_newest_python_that_fits_and_runs_is_found_behind_shims() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("shims/python3.12", "#!/bin/sh\nexit 127\n");
        program("bin/python3.11", "#!/bin/sh\necho 3.11.9\n");
        program("bin/python3.12-config", "#!/bin/sh\necho 3.12.9\n");
        program(
            "root/versions/3.12.1/bin/python3",
            "#!/bin/sh\necho 3.12.1\n",
        );
        program(
            "root/versions/3.12.4/bin/python3",
            "#!/bin/sh\necho 3.12.4\n",
        );
        program("root/versions/3.12.7/bin/python3", "#!/bin/sh\nexit 1\n");
        let path = format!("{0}/shims:{0}/bin", dir.path().display());
        let environment = Environment::default()
            .with("PATH", path)
            .with("PYENV_ROOT", dir.path().join("root"));
        let find = |text: &str| {
            let found = fitting(&environment, &text.parse().unwrap());
            found.map(|path| path.strip_prefix(dir.path()).unwrap().to_owned())
        };
        let newest = Path::new("root/versions/3.12.4/bin/python3");
        assert_eq!(find("3.12").as_deref(), Some(newest));
        assert_eq!(
            find(">=3.9,<3.12").as_deref(),
            Some(Path::new("bin/python3.11"))
        );
        assert_eq!(find("3.13"), None);
    }
}
