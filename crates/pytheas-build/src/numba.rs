//! numba's cache, filled when a bundle is built, so that the first start on a device compiles
//! nothing that the build could compile.
//!
//! A bundle with numba gets the module `_pytheas_numba` (`numba/reader.py` says what it does). The
//! app's modules that ask for caching (`cache=True`) are imported at build, isolated like a build
//! back end, which compiles functions with signatures; for all others the project names callables:
//!
//! ```toml
//! [tool.pytheas.numba]
//! warm = ["greenhouse.model:warm"]   # calls what shall be compiled, with arguments of the real types
//! features = ["avx2", "fma"]         # what every device's CPU has, by LLVM's names
//! ```
//!
//! numba's own index is kept: below `_pytheas_numba/` lie its files `*.nbi` and `*.nbc`, in folders
//! as the bundle's sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use miette::Diagnostic;
use pytheas_project::{Entry, normalised_name};
use pytheas_release::Platform;
use serde::Deserialize;
use walkdir::WalkDir;

use crate::{
    app_packages,
    bundle::app_roots,
    error::{BuildError, io_error},
    form::Job,
    scratch::{self, Kind},
};

const READER: &str = include_str!("numba/reader.py");
const FILL: &str = include_str!("numba/fill.py");
/// The folder of the cache, beside the packages.
const FOLDER: &str = "_pytheas_numba";

/// The cache cannot be filled as the project asks.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum NumbaError {
    /// `warm` is there, numba is not.
    #[error("`warm` in `[tool.pytheas.numba]` is for numba, which the app does not have")]
    #[diagnostic(
        code(pytheas::numba::absent),
        help("add `numba` to the dependencies, or remove the table")
    )]
    Absent,
    /// A feature that is no name.
    #[error("`{feature}` in `features` of `[tool.pytheas.numba]` is no feature of a CPU")]
    #[diagnostic(
        code(pytheas::numba::feature),
        help("name features as LLVM does, e.g. `avx2`, without signs")
    )]
    Feature {
        /// What is written.
        feature: String,
    },
    /// A callable of `warm` failed.
    #[error("`{callable}` of `warm` in `[tool.pytheas.numba]` failed")]
    #[diagnostic(
        code(pytheas::numba::warm),
        help(
            "it runs when the bundle is built: without network and devices, in the bundle's folder, with an empty home"
        )
    )]
    Warm {
        /// The callable.
        callable: String,
        /// Its traceback.
        #[source]
        source: Traceback,
    },
    /// The filling itself ended.
    #[error("numba's cache cannot be filled")]
    #[diagnostic(
        code(pytheas::numba::ended),
        help(
            "run the app's modules by hand; `fill = false` in `[tool.pytheas.numba]` builds without the cache"
        )
    )]
    Ended {
        /// What was said.
        #[source]
        source: Traceback,
    },
}

/// What Python said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Traceback(String);

/// What the filling Python tells.
#[derive(Debug, Deserialize)]
struct Answer {
    /// Functions and signatures in the cache.
    kept: usize,
    /// Modules that could not be imported, and why.
    failed: Vec<(String, String)>,
    /// The callable that failed, and its traceback.
    error: Option<(String, String)>,
}

/// Adds the reader to the packages in `site`, when numba is one of them; says whether it is.
pub(crate) fn add_reader(job: &Job<'_>, site: &Path) -> Result<bool, BuildError> {
    let spec = &job.project.settings.numba;
    if !site.join("numba/core/caching.py").is_file() {
        return if spec.warm.is_empty() {
            Ok(false)
        } else {
            Err(NumbaError::Absent.into())
        };
    }
    let depth = job.interpreter.site_packages.as_str().split('/').count() + 1;
    let text = READER
        .replace("@FEATURES@", &features(&spec.features)?)
        .replace("@UP@", &"../".repeat(depth));
    for (name, text) in [
        ("_pytheas_numba.py", text.as_str()),
        ("_pytheas_numba.pth", "import _pytheas_numba\n"),
    ] {
        let file = site.join(name);
        scratch::write(&file, text.as_bytes(), Kind::Data).map_err(io_error("write", &file))?;
    }
    Ok(true)
}

/// As LLVM takes them: `+avx2,+fma`.
fn features(names: &[String]) -> Result<String, NumbaError> {
    let mut signed = BTreeSet::new();
    for name in names {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            || !name.chars().all(is_name)
        {
            return Err(NumbaError::Feature {
                feature: name.clone(),
            });
        }
        signed.insert(format!("+{name}"));
    }
    Ok(signed.into_iter().collect::<Vec<String>>().join(","))
}

/// Fills the cache of the finished bundle `into`, in which [`add_reader`] found numba.
pub(crate) fn fill(job: &Job<'_>, into: &Path, site: &Path) -> Result<(), BuildError> {
    let spec = &job.project.settings.numba;
    let modules = modules(job, into, site)?;
    if !spec.fill || (modules.is_empty() && spec.warm.is_empty()) {
        return Ok(());
    }
    let runs_here = Platform::host().is_ok_and(|host| host.arch() == job.platform.arch());
    let Some(python) = job.interpreter.tool().filter(|_| runs_here) else {
        job.warn(format!(
            "numba compiles at the first start on the device: nothing here runs code for `{}`",
            job.platform
        ));
        return Ok(());
    };
    let room = tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let room_path = room
        .path()
        .canonicalize()
        .map_err(io_error("find", room.path()))?;
    // The root is known by its real path, as Python's modules are.
    let root = into.canonicalize().map_err(io_error("find", into))?;
    let inside = |path: &Path| root.join(path.strip_prefix(into).unwrap_or(path));
    let out = room_path.join("cache");
    fs::create_dir(&out).map_err(io_error("make", &out))?;
    let paths: Vec<PathBuf> = app_roots(into, site)
        .iter()
        .filter(|path| path.is_dir() && *path != site)
        .map(|path| inside(path))
        .collect();
    let request = serde_json::json!({
        "packages": inside(site),
        "paths": paths,
        "out": out,
        "features": features(&spec.features)?,
        "modules": modules,
        "warm": spec.warm,
    });
    let mut command = job.environment.python(&python);
    command
        .args(["-s", "-S", "-B", "-X", "utf8", "-c", FILL])
        .arg(request.to_string())
        .env("PYTHONHASHSEED", "0")
        .env("HOME", &room_path)
        .env("TMPDIR", &room_path)
        .current_dir(&root)
        .stdin(Stdio::null());
    let isolation = job.uv.isolation();
    isolation.enclose(
        &mut command,
        job.name.as_str(),
        std::slice::from_ref(&room_path),
        &[root.clone(), python.clone()],
    );
    let output = command.output().map_err(io_error("start", &python))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    tracing::debug!(said, "numba's cache was filled");
    let file = out.join("answer.json");
    let answer: Option<Answer> = fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (true, Some(answer)) = (output.status.success(), answer) else {
        let source = Traceback(format!("{}: {said}", output.status));
        return Err(NumbaError::Ended { source }.into());
    };
    if let Some((callable, text)) = answer.error {
        let source = Traceback(text.trim().to_owned());
        return Err(NumbaError::Warm { callable, source }.into());
    }
    for (module, reason) in answer.failed {
        job.warn(format!(
            "numba's cache has nothing of `{module}`, which cannot be imported when the bundle is built: {reason}"
        ));
    }
    tracing::info!(functions = answer.kept, "filled numba's cache");
    keep(&out, &site.join(FOLDER))
}

/// Copies numba's files to their place in the bundle.
fn keep(from: &Path, to: &Path) -> Result<(), BuildError> {
    for entry in WalkDir::new(from).sort_by_file_name() {
        let entry = entry.map_err(|error| io_error("read", from)(error.into()))?;
        let path = entry.path();
        // No links: code of packages ran here, apart, and a link would be read outside of that.
        let is_numbas = entry.file_type().is_file()
            && path
                .extension()
                .is_some_and(|end| end == "nbi" || end == "nbc");
        let Some(inside) = path.strip_prefix(from).ok().filter(|_| is_numbas) else {
            continue;
        };
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        let file = to.join(inside);
        scratch::write(&file, &bytes, Kind::Data).map_err(io_error("write", &file))?;
    }
    Ok(())
}

/// The app's own modules that ask numba to cache, in order.
fn modules(job: &Job<'_>, into: &Path, site: &Path) -> Result<Vec<String>, BuildError> {
    let mut found = BTreeSet::new();
    let script = match job.entry {
        Entry::Script(script) => Some(script.under(&into.join("app"))),
        _ => None,
    };
    for root in app_roots(into, site).iter().filter(|root| *root != site) {
        for entry in WalkDir::new(root).into_iter().flatten() {
            let path = entry.path();
            let Some(inside) = path.strip_prefix(root).ok().and_then(Path::to_str) else {
                continue;
            };
            // What `app/src` holds is found there.
            if inside.starts_with("src/") && !root.join("src/__init__.py").exists() {
                continue;
            }
            let Some(module) = app_packages::module_of(inside) else {
                continue;
            };
            if caches(path, script.as_deref())? {
                found.insert(module);
            }
        }
    }
    for record in own_records(job, site)? {
        for line in record.lines() {
            let file = site.join(line.split(',').next().unwrap_or_default());
            if let Some(module) = app_packages::module_of(line)
                && caches(&file, script.as_deref())?
            {
                found.insert(module);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The lists of files of the app's own packages: those that the lock does not have, or that were
/// asked for by name.
fn own_records(job: &Job<'_>, site: &Path) -> Result<Vec<String>, BuildError> {
    let locked: BTreeSet<String> = job
        .lock
        .packages
        .iter()
        .map(|package| normalised_name(&package.name))
        .collect();
    let asked = app_packages::names(job.project);
    let mut records = Vec::new();
    for child in fs::read_dir(site).map_err(io_error("read", site))? {
        let child = child.map_err(io_error("read", site))?;
        let name = child.file_name().to_string_lossy().into_owned();
        let Some((name, _)) = name
            .strip_suffix(".dist-info")
            .and_then(|stem| stem.rsplit_once('-'))
        else {
            continue;
        };
        let name = normalised_name(name);
        if asked.contains(&name) || !locked.contains(&name) {
            let file = child.path().join("RECORD");
            records.push(fs::read_to_string(&file).map_err(io_error("read", &file))?);
        }
    }
    Ok(records)
}

/// Whether the module in `file` has functions that numba caches and may be imported: a script that
/// runs at once may not.
fn caches(file: &Path, script: Option<&Path>) -> Result<bool, BuildError> {
    if file.extension().is_none_or(|end| end != "py") || !file.is_file() {
        return Ok(false);
    }
    let bytes = fs::read(file).map_err(io_error("read", file))?;
    let text = String::from_utf8_lossy(&bytes);
    let asks = text
        .match_indices("cache")
        .any(|(at, word)| is_true(&text[at + word.len()..]));
    Ok(text.contains("numba") && asks && (script != Some(file) || text.contains("__name__")))
}

/// Whether what follows the name of an argument gives it the value `True`.
fn is_true(rest: &str) -> bool {
    rest.trim_start()
        .strip_prefix('=')
        .is_some_and(|value| value.trim_start().starts_with("True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_ask_for_caching_are_told_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.py");
        let is_one = |text: &str, script: Option<&Path>| {
            scratch::write(&file, text.as_bytes(), Kind::Data).unwrap();
            caches(&file, script).unwrap()
        };
        let asking = "from numba import njit\n@njit(fastmath=True, cache = True)\ndef f(): pass\n";
        assert!(is_one(asking, None));
        assert!(!is_one(
            "from numba import njit\n@njit\ndef f(cache=None): pass\n",
            None
        ));
        assert!(!is_one("import x\n@x(cache=True)\ndef f(): pass\n", None));
        // A script without a guard would run.
        assert!(!is_one(asking, Some(&file)));
        let guarded = format!("{asking}if __name__ == '__main__':\n    f()\n");
        assert!(is_one(&guarded, Some(&file)));
    }

    #[test]
    fn only_numbas_own_files_are_kept_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (out, to) = (dir.path().join("out"), dir.path().join("to"));
        for name in [
            "out/app/f.nbi",
            "out/app/f.1.nbc",
            "out/answer.json",
            "secret",
        ] {
            scratch::write(&dir.path().join(name), b"x", Kind::Data).unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("secret"), out.join("app/g.nbi")).unwrap();
        keep(&out, &to).unwrap();
        let mut kept: Vec<_> = fs::read_dir(to.join("app"))
            .unwrap()
            .map(|child| child.unwrap().file_name())
            .collect();
        kept.sort();
        assert_eq!(kept, ["f.1.nbc", "f.nbi"]);
        assert!(!to.join("answer.json").exists());
    }

    #[test]
    fn features_are_signed_sorted_and_checked() {
        let names = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            features(&names(&["fma", "avx2", "sse4.2"])).unwrap(),
            "+avx2,+fma,+sse4.2"
        );
        assert!(features(&names(&["+avx2"])).is_err());
        assert!(features(&names(&["avx2\"; import os"])).is_err());
    }
}
