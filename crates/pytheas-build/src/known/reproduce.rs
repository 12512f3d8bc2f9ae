//! Whether a build gives the same bytes again: the project is built a second time from a copy in
//! another folder, with another home, temporary folder, interpreter cache, locale, time zone and
//! hash seed, and the two trees are compared entry by entry.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_project::{Connectivity, Environment, Project, Sources, Uv};
use pytheas_release::{Entry, RelPath, Sha256, Tree};

use crate::{
    BuildRequest, Built, Distributions, LockMode, app,
    error::{BuildError, io_error},
    event::Observer,
    scratch,
};

/// How many differences an error names.
const NAMED: usize = 10;

/// Two builds that differ.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("a second build of `{name}` differs in {count} of its files: {}", first.join(", "))]
#[diagnostic(
    code(pytheas::build::not_reproducible),
    help(
        "files of the app: look for what its build takes from the time, the folder or the machine; a package built from its source: require a version that has a wheel"
    )
)]
pub struct NotReproducible {
    /// The app.
    pub name: String,
    /// Number of entries that differ.
    pub count: usize,
    /// The first of them, with how they differ.
    pub first: Vec<String>,
}

/// Builds `request` once more elsewhere and compares the result with `built`, which it gave.
///
/// # Errors
/// [`BuildError::NotReproducible`] when they differ; else whatever stops the second build.
pub fn check_reproducible(
    request: &BuildRequest,
    built: &Built,
    observer: Observer<'_>,
) -> Result<(), BuildError> {
    let elsewhere = tempfile::Builder::new()
        .prefix("pytheas elsewhere ")
        .tempdir()
        .map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let root = elsewhere.path();
    let lock_path = built
        .locked
        .as_ref()
        .map_or_else(|| request.project.lock_path(), |report| report.path.clone());
    let project = copied(&request.project, Some(&lock_path), &built.dir, root)?;
    let environment = moved(request, root)?.with("SOURCE_DATE_EPOCH", "1000000000");
    // A version from the git tag: the copy need not be a repository.
    let derives = request.project.settings.version.is_some();
    let again = BuildRequest {
        version: derives
            .then(|| built.record.version.clone())
            .or(request.version.clone()),
        project,
        name: Some(built.record.name.clone()),
        out: Some(root.join("result of the second build")),
        lock: LockMode::Frozen,
        environment,
        ..request.clone()
    };
    let second = crate::build(&again, observer)?;
    compare(built.record.name.as_str(), &built.tree, &second.tree).map_err(Into::into)
}

/// As [`check_reproducible`], for the wheel and the source distribution `made`.
///
/// # Errors
/// As there; the files that differ are those in the archives.
pub fn check_wheel_reproducible(
    request: &BuildRequest,
    made: &Distributions,
    observer: Observer<'_>,
) -> Result<(), BuildError> {
    let elsewhere = tempfile::Builder::new()
        .prefix("pytheas elsewhere ")
        .tempdir()
        .map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let root = elsewhere.path();
    let out = made.wheel.parent().unwrap_or(Path::new("/"));
    let again = BuildRequest {
        project: copied(&request.project, None, out, root)?,
        out: Some(root.join("result of the second build")),
        environment: moved(request, root)?,
        ..request.clone()
    };
    let second = crate::distributions(&again, observer)?;
    let pairs = [(&made.wheel, &second.wheel), (&made.sdist, &second.sdist)];
    let mut differing = Vec::new();
    for (one, two) in pairs {
        let read = |path: &Path| std::fs::read(path).map_err(io_error("read", path));
        let (one_bytes, two_bytes) = (read(one)?, read(two)?);
        let name = one.file_name().unwrap_or_default().to_string_lossy();
        if one.file_name() != two.file_name() {
            let other = two.file_name().unwrap_or_default().to_string_lossy();
            differing.push(format!("`{name}` (now `{other}`)"));
        } else if one_bytes != two_bytes {
            differing.extend(differing_members(&name, &one_bytes, &two_bytes));
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let count = differing.len();
    differing.truncate(NAMED);
    Err(NotReproducible {
        name: request.project.name.to_string(),
        count,
        first: differing,
    }
    .into())
}

/// What differs between two archives of one name, or the archive itself where its files are the same.
fn differing_members(name: &str, one: &[u8], two: &[u8]) -> Vec<String> {
    let (one, two) = (members(one), members(two));
    let mut all: Vec<&String> = one.keys().chain(two.keys()).collect();
    all.sort();
    all.dedup();
    let list: Vec<String> = all
        .into_iter()
        .filter(|member| one.get(*member) != two.get(*member))
        .map(|member| match (one.get(member), two.get(member)) {
            (Some(_), None) => format!("`{member}` of `{name}` (only in the first)"),
            (None, Some(_)) => format!("`{member}` of `{name}` (only in the second)"),
            _ => format!("`{member}` of `{name}` (content)"),
        })
        .collect();
    if list.is_empty() {
        vec![format!("`{name}` (archive)")]
    } else {
        list
    }
}

/// The files of a wheel or a source distribution with their hashes, as far as they can be read.
fn members(archive: &[u8]) -> BTreeMap<String, Sha256> {
    let mut members = BTreeMap::new();
    if let Ok(mut zip) = zip::ZipArchive::new(io::Cursor::new(archive)) {
        for index in 0..zip.len() {
            let Ok(mut entry) = zip.by_index(index) else {
                continue;
            };
            let Ok(name) = entry.name().map(std::borrow::Cow::into_owned) else {
                continue;
            };
            let mut content = Vec::new();
            if entry.read_to_end(&mut content).is_ok() {
                members.insert(name, Sha256::of(&content));
            }
        }
        return members;
    }
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    for mut entry in tar.entries().into_iter().flatten().flatten() {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        if entry.read_to_end(&mut content).is_ok() {
            members.insert(name, Sha256::of(&content));
        }
    }
    members
}

/// The environment of `request` with everything but uv's cache below `root`, and another locale, time
/// zone and hash seed.
fn moved(request: &BuildRequest, root: &Path) -> Result<Environment, BuildError> {
    let uv = Uv::find(&request.environment, request.connectivity, &|_| {})?;
    let mut environment = request
        .environment
        .clone()
        .with("PYTHEAS_UV", uv.path)
        .with(crate::bytecode::kept::ANEW, "1")
        .with("LC_ALL", "C")
        .with("TZ", "Pacific/Chatham")
        .with("PYTHONHASHSEED", "77");
    // uv's cache holds what was fetched; everything else is made again.
    if request.environment.path("UV_CACHE_DIR").is_none() {
        let default = request
            .environment
            .path("XDG_CACHE_HOME")
            .or_else(|| Some(request.environment.home()?.join(".cache")));
        if let Some(cache) = default {
            environment = environment.with("UV_CACHE_DIR", cache.join("uv"));
        }
    }
    for (name, folder) in [("HOME", "home"), ("TMPDIR", "tmp")] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        environment = environment.with(name, folder);
    }
    // Without the network an interpreter cannot be fetched a second time.
    let cache = if request.connectivity == Connectivity::Online {
        root.join("cache")
    } else {
        request.environment.cache_dir()
    };
    Ok(environment.with("PYTHEAS_CACHE_DIR", cache))
}

/// The project in another folder; the same one where requirements lead out of it. `output` is not
/// copied, and neither is anything else where the app is a single file or none.
fn copied(
    project: &Project,
    lock: Option<&Path>,
    output: &Path,
    root: &Path,
) -> Result<Project, BuildError> {
    let lock_text = match lock {
        Some(path) => std::fs::read_to_string(path).unwrap_or_default(),
        None => String::new(),
    };
    let leads_out = lock_text.contains("path = \"");
    if leads_out {
        return Ok(project.clone());
    }
    let folder = project
        .dir
        .file_name()
        .map_or_else(|| "project".into(), PathBuf::from);
    let dir = root.join("another folder").join(folder);
    std::fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
    match &project.sources {
        Sources::Folder | Sources::Package(_) => app::copy_for_build(&project.dir, &dir, output)?,
        Sources::File(file) => {
            let (from, to) = (file.under(&project.dir), file.under(&dir));
            scratch::copy(&from, &to).map_err(io_error("copy", &from))?;
        }
        Sources::None => {}
    }
    let mut copy = project.clone();
    copy.dir = dir;
    if !lock_text.is_empty() {
        let lock = copy.lock_path();
        scratch::write(&lock, lock_text.as_bytes(), scratch::Kind::Data)
            .map_err(io_error("write", &lock))?;
    }
    Ok(copy)
}

/// The trees are one and the same.
fn compare(name: &str, first: &Tree, second: &Tree) -> Result<(), NotReproducible> {
    let mut differing: Vec<String> = Vec::new();
    let how = |one: Option<&Entry>, two: Option<&Entry>| match (one, two) {
        (Some(_), None) => "only in the first",
        (None, Some(_)) => "only in the second",
        (Some(Entry::File { sha256: one, .. }), Some(Entry::File { sha256: two, .. }))
            if one == two =>
        {
            "mode"
        }
        (Some(Entry::File { .. }), Some(Entry::File { .. })) => "content",
        _ => "kind",
    };
    let missing = second
        .iter()
        .filter(|(path, _)| first.get(path).is_none())
        .map(|(path, _)| path);
    let mut paths: Vec<&RelPath> = first.iter().map(|(path, _)| path).chain(missing).collect();
    paths.sort();
    for path in paths {
        let (one, two) = (first.get(path), second.get(path));
        // The bill's serial number is made from all the other files.
        if one != two && path.as_str() != super::SBOM_FILE {
            differing.push(format!("`{path}` ({})", how(one, two)));
        }
    }
    if first.id() == second.id() {
        return Ok(());
    }
    let count = differing.len();
    differing.truncate(NAMED);
    Err(NotReproducible {
        name: name.to_owned(),
        count,
        first: differing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str, bool)]) -> Tree {
        let mut tree = Tree::default();
        for (path, content, executable) in files {
            let entry = Entry::File {
                size_bytes: content.len() as u64,
                sha256: Sha256::of(content.as_bytes()),
                executable: *executable,
            };
            tree.insert(path.parse().unwrap(), entry).unwrap();
        }
        tree
    }

    #[test]
    fn the_differing_files_are_named_with_how_they_differ() {
        let one = tree(&[("a", "1", false), ("b", "1", false), ("c", "1", false)]);
        let two = tree(&[("a", "2", false), ("b", "1", true), ("d", "1", false)]);
        assert!(compare("app", &one, &one).is_ok());
        let error = compare("app", &one, &two).unwrap_err();
        insta::assert_snapshot!(error, @"a second build of `app` differs in 4 of its files: `a` (content), `b` (mode), `c` (only in the first), `d` (only in the second)");
    }
}
