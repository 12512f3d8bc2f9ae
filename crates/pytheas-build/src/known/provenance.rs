//! Where a build came from: an in-toto Statement (v1) with a SLSA Provenance predicate (v1), laid
//! beside the artifact as `NAME.provenance.json`. The build type is described in
//! `docs/reference/build-type.md`.
//!
//! Nothing in it changes from one day or machine to the next but what the build was made from, so
//! the same input gives the same statement. It is not in the tree: a commit that changes no file
//! of the app must not change the tree.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_project::Environment;
use pytheas_release::{Sha256, Tree};
use serde_json::{Value, json};

use super::SBOM_FILE;
use crate::{
    build::{BuildRequest, Built},
    wheel_form::Distributions,
};

/// `buildType` of every build.
pub const BUILD_TYPE: &str = "urn:pytheas:build:v1";
/// `builder.id` of builds by this command, on whatever machine.
const BUILDER: &str = "urn:pytheas:builder:command:v1";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// A statement that cannot be written, read or confirmed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProvenanceError {
    /// It cannot be written.
    #[error("cannot write `{}`", path.display())]
    #[diagnostic(
        code(pytheas::provenance::write),
        help("check the folder's permissions and the free space")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(pytheas::provenance::read),
        help(
            "`pytheas build` writes the statement beside what it makes, as `NAME.provenance.json`; name another place with `--statement FILE`"
        )
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no statement.
    #[error("`{}` is no provenance statement: {reason}", path.display())]
    #[diagnostic(
        code(pytheas::provenance::statement),
        help("expected is an in-toto Statement v1 with a SLSA Provenance v1 predicate, as JSON")
    )]
    NotAStatement {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It speaks of something else.
    #[error("`{}` does not speak of `{}`: no subject has the SHA-256 {sha256}", path.display(), artifact.display())]
    #[diagnostic(
        code(pytheas::provenance::refused::other),
        help("the artifact was changed after the build, or the statement is another build's")
    )]
    Other {
        /// The statement.
        path: PathBuf,
        /// The artifact.
        artifact: PathBuf,
        /// Its hash.
        sha256: Sha256,
    },
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ProvenanceError {
    let path = path.to_owned();
    move |source| ProvenanceError::Read { path, source }
}

/// The statement's place: beside the artifact.
pub fn provenance_path(artifact: &Path) -> PathBuf {
    let mut name = artifact.file_name().unwrap_or_default().to_owned();
    name.push(".provenance.json");
    artifact.with_file_name(name)
}

/// Writes the statement on a build beside its folder, or beside the one file `packed` that was
/// made of it; gives its place.
///
/// # Errors
/// When something cannot be read or written.
pub fn write_provenance(
    request: &BuildRequest,
    built: &Built,
    packed: Option<&Path>,
) -> Result<PathBuf, ProvenanceError> {
    let mut subjects = vec![json!({
        "name": format!("{}@{}", built.record.name, built.record.version),
        "digest": {"sha256": built.tree_id.0.to_string()},
        "mediaType": "application/vnd.pytheas.tree",
    })];
    if let Some(file) = packed {
        let (_, sha256) = pytheas_durable::trees::hash_file(file).map_err(read_error(file))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        subjects.push(json!({"name": name, "digest": {"sha256": sha256.to_string()}}));
    }
    let definition = json!({
        "buildType": BUILD_TYPE,
        "externalParameters": external(request, built, packed.is_some()),
        "internalParameters": {"tree": built.tree_id.0.to_string()},
        "resolvedDependencies": dependencies(request, built),
    });
    let path = provenance_path(packed.unwrap_or(&built.dir));
    write(&path, &statement(subjects.into(), definition))?;
    Ok(path)
}

/// Writes the statement on a wheel and its source distribution beside each of them; gives the places.
///
/// # Errors
/// When something cannot be read or written.
pub fn write_wheel_provenance(
    request: &BuildRequest,
    made: &Distributions,
) -> Result<Vec<PathBuf>, ProvenanceError> {
    let mut subjects = Vec::new();
    for file in [&made.wheel, &made.sdist] {
        let (_, sha256) = pytheas_durable::trees::hash_file(file).map_err(read_error(file))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        subjects.push(json!({"name": name, "digest": {"sha256": sha256.to_string()}}));
    }
    // NAME-VERSION-TAGS.whl (PEP 427)
    let wheel = made.wheel.file_name().unwrap_or_default().to_string_lossy();
    let version = wheel.split('-').nth(1).unwrap_or_default();
    let mut parameters = json!({
        "name": request.project.name.as_str(),
        "version": version,
        "form": "wheel",
        "input": request.project.input,
    });
    if let Some(target) = &request.target {
        parameters["target"] = target.as_str().into();
    }
    if let Some(platform) = &request.platform {
        parameters["platform"] = platform.as_str().into();
    }
    let names = wheel_names(&made.wheel);
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let source = source(&request.project.dir, &request.environment, &names);
    let uv = json!({"name": "uv", "uri": format!("pkg:pypi/uv@{}", made.uv_version)});
    let definition = json!({
        "buildType": BUILD_TYPE,
        "externalParameters": parameters,
        "internalParameters": {},
        "resolvedDependencies": source.into_iter().chain([uv]).collect::<Vec<Value>>(),
    });
    let statement = statement(subjects.into(), definition);
    let paths: Vec<PathBuf> = [&made.wheel, &made.sdist]
        .map(|file| provenance_path(file))
        .into();
    for path in &paths {
        write(path, &statement)?;
    }
    Ok(paths)
}

fn statement(subjects: Value, definition: Value) -> Value {
    json!({
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": definition,
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {"pytheas": env!("CARGO_PKG_VERSION")},
                },
            },
        },
    })
}

fn write(path: &Path, statement: &Value) -> Result<(), ProvenanceError> {
    let text = format!("{statement:#}\n");
    pytheas_durable::replace(path, text.as_bytes()).map_err(|source| ProvenanceError::Write {
        path: path.to_owned(),
        source,
    })
}

/// What the user said.
fn external(request: &BuildRequest, built: &Built, one_file: bool) -> Value {
    let record = &built.record;
    let mut parameters = json!({
        "name": record.name.as_str(),
        "version": record.version.as_str(),
        "form": record.form,
        "platform": record.platform.as_str(),
        "input": request.project.input,
        "oneFile": one_file,
    });
    let target = request.target.as_ref();
    if let Some(target) = target {
        parameters["target"] = target.as_str().into();
    }
    let table = target.and_then(|name| request.project.settings.target.get(name));
    if let Some(table) = table.filter(|table| table.slim) {
        parameters["slim"] = true.into();
        parameters["keep"] = json!(table.keep);
    }
    if let Some(entry) = &request.entry {
        parameters["entry"] = entry.to_string().into();
    }
    if let Some(python) = &request.python {
        parameters["python"] = python.to_string().into();
    }
    parameters
}

/// What went into it.
fn dependencies(request: &BuildRequest, built: &Built) -> Value {
    let project = &request.project;
    let paths: BTreeSet<&str> = built.tree.iter().map(|(path, _)| path.as_str()).collect();
    let mut list: Vec<Value> = source(&project.dir, &request.environment, &paths)
        .into_iter()
        .collect();
    let lock = match &built.locked {
        Some(report) => report.path.clone(),
        None => project.lock_path(),
    };
    if let Ok((_, sha256)) = pytheas_durable::trees::hash_file(&lock) {
        let name = lock.file_name().unwrap_or_default().to_string_lossy();
        list.push(json!({"name": name, "digest": {"sha256": sha256.to_string()}}));
    }
    list.extend(packages(&built.dir, &built.tree));
    if let Some(interpreter) = &built.record.interpreter {
        let mut one = json!({
            "name": "interpreter",
            "uri": format!("pkg:generic/{}@{}", interpreter.implementation, interpreter.version),
            "annotations": {"provider": interpreter.provider},
        });
        if let Some(sha256) = &interpreter.sha256 {
            one["digest"] = json!({"sha256": sha256.to_string()});
        }
        list.push(one);
    }
    list.push(json!({"name": "uv", "uri": format!("pkg:pypi/uv@{}", built.uv_version)}));
    list.into()
}

/// The packages: of a bundle as its bill of materials has them, of a wheelhouse its wheels.
fn packages(dir: &Path, tree: &Tree) -> Vec<Value> {
    let bill = std::fs::read(dir.join(SBOM_FILE)).ok();
    let bill = bill.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    if let Some(bill) = bill {
        let components = bill["components"].as_array().into_iter().flatten();
        return components
            .filter_map(|component| {
                let purl = component["purl"].as_str()?;
                if !purl.starts_with("pkg:pypi/") {
                    return None;
                }
                let mut one = json!({"uri": purl});
                let hash = component["hashes"].as_array().and_then(|list| list.first());
                if let Some(hash) = hash.filter(|hash| hash["alg"] == "SHA-256") {
                    one["digest"] = json!({"sha256": hash["content"]});
                }
                Some(one)
            })
            .collect();
    }
    tree.files()
        .filter(|(path, ..)| path.as_str().ends_with(".whl"))
        .map(|(path, _, sha256)| {
            let path = path.as_str();
            let name = path.rsplit('/').next().unwrap_or(path);
            json!({"name": name, "digest": {"sha256": sha256.to_string()}})
        })
        .collect()
}

/// The names of the files in a wheel; none when it cannot be read.
fn wheel_names(wheel: &Path) -> Vec<String> {
    let archive = std::fs::File::open(wheel).map(zip::ZipArchive::new);
    match archive {
        Ok(Ok(archive)) => archive
            .file_names()
            .filter_map(|name| Some(name.ok()?.into_owned()))
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether the project's file `path` is in the artifact with the files `paths`: as it lies in the
/// project, or as a wheel installs it.
fn is_in(path: &str, paths: &BTreeSet<&str>) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name.starts_with("pylock.") {
        return false; // named by its hash
    }
    let installed = path.strip_prefix("src/").unwrap_or(path);
    let ends = format!("-packages/{installed}");
    paths.contains(format!("app/{path}").as_str())
        || paths.contains(installed)
        || paths.iter().any(|found| found.ends_with(&ends))
}

/// The commit that the project is at, and whether the artifact with the files `paths` has others
/// than that has; none outside a repository or without git.
fn source(dir: &Path, environment: &Environment, paths: &BTreeSet<&str>) -> Option<Value> {
    let git = |args: &[&str]| {
        let mut command = environment.command(Path::new("git"));
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
            command.env_remove(name);
        }
        let output = command
            .arg("-C")
            .arg(dir)
            .args(["-c", "core.fsmonitor=false", "--no-optional-locks"])
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(
            String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned(),
        )
    };
    let commit = git(&["rev-parse", "--verify", "HEAD^{commit}"])?;
    let has_changes =
        !git(&["status", "--porcelain", "--untracked-files=no", "--", "."])?.is_empty();
    // Paths relative to `dir`.
    let untracked = git(&[
        "ls-files",
        "--others",
        "--exclude-standard",
        "-z",
        "--",
        ".",
    ])?;
    let is_dirty = has_changes || untracked.split('\0').any(|path| is_in(path, paths));
    let mut annotations = json!({"dirty": is_dirty});
    let folder = git(&["rev-parse", "--show-prefix"]).unwrap_or_default();
    if !folder.is_empty() {
        annotations["folder"] = folder.trim_end_matches('/').into();
    }
    let mut one = json!({
        "name": "source",
        "digest": {"gitCommit": commit},
        "annotations": annotations,
    });
    if let Some(uri) = git(&["config", "--get", "remote.origin.url"]).and_then(|url| remote(&url)) {
        one["uri"] = uri.into();
    }
    Some(one)
}

/// A remote's address without credentials; none for a folder of this machine.
fn remote(text: &str) -> Option<String> {
    if let Ok(mut url) = url::Url::parse(text) {
        if url.scheme() == "file" || url.host().is_none() {
            return None;
        }
        // Both fail only for addresses that cannot have credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        return Some(format!("git+{url}"));
    }
    // `git@host:path`
    let (host, path) = text.split_once(':')?;
    let host = host.rsplit('@').next().unwrap_or(host);
    let is_host = !host.is_empty() && !host.contains('/');
    is_host.then(|| format!("git+ssh://{host}/{}", path.trim_start_matches('/')))
}

/// A statement that was read.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The document.
    pub statement: Value,
    /// Where it was read from.
    pub path: PathBuf,
}

impl Provenance {
    /// Reads the statement in `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, ProvenanceError> {
        let bytes = std::fs::read(path).map_err(read_error(path))?;
        Self::parse(&bytes, path)
    }

    /// The statement in `bytes`, which came from `path`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ProvenanceError> {
        let wrong = |reason: String| ProvenanceError::NotAStatement {
            path: path.to_owned(),
            reason,
        };
        let statement: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        for (key, expected) in [("_type", STATEMENT), ("predicateType", PREDICATE)] {
            if statement[key] != expected {
                return Err(wrong(format!("its `{key}` is not `{expected}`")));
            }
        }
        Ok(Self {
            statement,
            path: path.to_owned(),
        })
    }

    /// That it speaks of `artifact`: the id of the tree in that folder, or the hash of that file.
    ///
    /// # Errors
    /// [`ProvenanceError::Other`] when it speaks of something else.
    pub fn check(&self, artifact: &Path) -> Result<Sha256, ProvenanceError> {
        let sha256 = if artifact.is_dir() {
            let tree = pytheas_durable::trees::scan(artifact)
                .map_err(|error| read_error(artifact)(io::Error::other(error)))?;
            tree.id().0
        } else {
            let hashed = pytheas_durable::trees::hash_file(artifact);
            hashed.map_err(read_error(artifact))?.1
        };
        self.check_sha256(sha256, artifact)
    }

    /// That a subject has this hash: the id of a tree, or that of a file. `artifact` is its name.
    ///
    /// # Errors
    /// [`ProvenanceError::Other`] when none has.
    pub fn check_sha256(&self, sha256: Sha256, artifact: &Path) -> Result<Sha256, ProvenanceError> {
        let subjects = self.statement["subject"].as_array().into_iter().flatten();
        let text = sha256.to_string();
        for subject in subjects {
            if subject["digest"]["sha256"] == text.as_str() {
                return Ok(sha256);
            }
        }
        Err(ProvenanceError::Other {
            path: self.path.clone(),
            artifact: artifact.to_owned(),
            sha256,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_lose_their_credentials() {
        for (given, expected) in [
            (
                "https://me:secret@git.example/a/b.git",
                Some("git+https://git.example/a/b.git"),
            ),
            (
                "git@git.example:a/b.git",
                Some("git+ssh://git.example/a/b.git"),
            ),
            (
                "ssh://git@git.example:22/a",
                Some("git+ssh://git.example:22/a"),
            ),
            (
                "https://git.example/a?token=x",
                Some("git+https://git.example/a"),
            ),
            ("/srv/a.git", None),
            ("file:///srv/a.git", None),
            ("../a:b", None),
        ] {
            assert_eq!(remote(given).as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn a_statement_speaks_of_one_artifact() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a.run"), dir.path().join("b.run"));
        pytheas_durable::replace(&file, b"a").unwrap();
        pytheas_durable::replace(&other, b"b").unwrap();
        let path = provenance_path(&file);
        assert!(path.ends_with("a.run.provenance.json"));
        let subject = json!([{"name": "a", "digest": {"sha256": Sha256::of(b"a").to_string()}}]);
        let statement = json!({"_type": STATEMENT, "predicateType": PREDICATE, "subject": subject});
        pytheas_durable::replace(&path, statement.to_string().as_bytes()).unwrap();
        let provenance = Provenance::read(&path).unwrap();
        assert_eq!(provenance.check(&file).unwrap(), Sha256::of(b"a"));
        let error = provenance.check(&other).unwrap_err();
        assert!(matches!(error, ProvenanceError::Other { .. }));
        pytheas_durable::replace(&path, b"{}").unwrap();
        let error = Provenance::read(&path).unwrap_err().to_string();
        assert!(error.contains("its `_type` is not"), "{error}");
    }
}
