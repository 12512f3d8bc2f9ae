//! Resolving: uv is called, once or, where the newest of everything is known not to work together,
//! again; what it says of a failure becomes a [`LockError`].

use std::{collections::BTreeSet, ffi::OsString, path::Path};

use crate::{
    as_released,
    event::{Event, Observer},
    inputs::LockInputs,
    lock::{LockError, LockOptions, Upgrade},
    project::{Project, RequirementSource},
    pylock::Pylock,
    requirements, setuptools,
    source::{self, InputError},
    uv::{Uv, UvCallError, UvFailure, UvSaid},
};

/// pip's option for versions before the release, as requirements files have it.
pub(crate) const PRE: &str = "--pre";

/// What narrows a resolution beside the project's own requirements.
#[derive(Debug, Clone, Default)]
struct Narrowed {
    /// No file is younger.
    as_of: Option<jiff::Timestamp>,
    /// Limits on versions.
    limits: Vec<&'static str>,
    /// A requirements file says `--pre`, which uv wants to hear on its command line.
    with_prereleases: bool,
}

/// Resolves; then again where the newest of everything is known not to work together. Gives what
/// uv said.
pub(crate) fn resolve(
    project: &Project,
    uv: &Uv,
    options: &LockOptions,
    output: &Path,
    inputs: &LockInputs,
    observer: Observer<'_>,
) -> Result<String, LockError> {
    let write = |source| LockError::Write {
        path: output.to_owned(),
        source,
    };
    let is_new = !output.exists();
    let mut narrowed = Narrowed {
        with_prereleases: inputs.options.contains(PRE),
        ..Narrowed::default()
    };
    let mut said = compile(project, uv, options, output, &narrowed)
        .map_err(|error| explain(project, uv, error))?;
    // A second resolution that fails leaves the first one as it was.
    let mut again = |narrowed: &Narrowed, note: String| -> Result<bool, LockError> {
        let before = std::fs::read(output).map_err(write)?;
        if narrowed.as_of.is_some() {
            // uv prefers what it finds there.
            std::fs::remove_file(output).map_err(write)?;
        }
        match compile(project, uv, options, output, narrowed) {
            Ok(text) => {
                said = text;
                observer(Event::Warning { text: note });
                Ok(true)
            }
            Err(LockError::Unresolvable { .. } | LockError::Uv { .. }) => {
                pytheas_durable::replace(output, &before).map_err(write)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    };
    if is_new
        && options.upgrade == Upgrade::Nothing
        && uv.setting("UV_EXCLUDE_NEWER").is_none()
        && let Some((package, version)) = as_released::pinned(project)
    {
        let text = std::fs::read_to_string(output).map_err(write)?;
        let python = python_arguments(project, options);
        if let Some(limit) = as_released::limit(&text, &package, &version, uv, &python) {
            narrowed.as_of = Some(limit);
            if !again(&narrowed, as_released::note(&package, &version, limit))? {
                narrowed.as_of = None;
            }
        }
    }
    let written: BTreeSet<String> = inputs
        .requirements
        .union(&inputs.constraints)
        .cloned()
        .collect();
    if Pylock::read(output)?.is_some_and(|lock| setuptools::is_too_new(&lock, &written)) {
        narrowed.limits.push(setuptools::LIMIT);
        again(&narrowed, setuptools::note())?;
    }
    Ok(said)
}

/// The Python that is resolved for, as uv's arguments.
fn python_arguments(project: &Project, options: &LockOptions) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let lowest = project
        .python(None)
        .and_then(|request| request.lower_bound())
        .map(|version| version.to_string());
    if let Some(version) = lowest.as_ref().or(options.python_version.as_ref()) {
        arguments.extend(["--python-version".into(), version.into()]);
    }
    if let Some(interpreter) = &options.interpreter {
        arguments.extend(["--python".into(), interpreter.into()]);
    }
    arguments
}

/// Calls `uv pip compile`; gives what it wrote to standard error.
fn compile(
    project: &Project,
    uv: &Uv,
    options: &LockOptions,
    output: &Path,
    narrowed: &Narrowed,
) -> Result<String, LockError> {
    let scratch = output.parent().unwrap_or(&project.dir);
    let write = |source| LockError::Write {
        path: scratch.to_owned(),
        source,
    };
    let prepared = source::prepare(project, scratch).map_err(write)?;
    let mut command = if project.found.indexes.iter().any(|index| index.is_default) {
        uv.command_without_pip_index()
    } else {
        uv.command()
    };
    command
        .current_dir(&prepared.dir)
        .env(crate::isolate::OWN, &prepared.dir)
        .args(["pip", "compile"])
        .args(&prepared.arguments)
        .args(["--universal", "--format", "pylock.toml", "--no-header"])
        .arg("--output-file")
        .arg(output);
    if !narrowed.limits.is_empty() {
        let file = scratch.join("limits.txt");
        pytheas_durable::replace(&file, narrowed.limits.join("\n").as_bytes()).map_err(write)?;
        command.arg("--constraints").arg(file);
    }
    if let Some(time) = narrowed.as_of {
        command.arg("--exclude-newer").arg(time.to_string());
    }
    if narrowed.with_prereleases {
        command.args(["--prerelease", "allow"]);
    }
    command.args(python_arguments(project, options));
    for name in local_packages(project, output) {
        command.args(["--refresh-package", &name]);
    }
    match &options.upgrade {
        Upgrade::Nothing => {}
        Upgrade::Everything => {
            command.arg("--upgrade");
        }
        Upgrade::Packages(packages) => {
            command.args(
                packages
                    .iter()
                    .flat_map(|package| ["--upgrade-package", package]),
            );
        }
    }
    let file = project.input_path();
    match uv.run(command) {
        Ok((_, said)) => Ok(said),
        Err(UvCallError::Start(source)) => Err(LockError::Start {
            path: uv.path.clone(),
            source,
        }),
        Err(UvCallError::Failed(failure, source)) => Err(match failure {
            UvFailure::Unresolvable => LockError::Unresolvable { file, source },
            UvFailure::Network => LockError::Network { file, source },
            UvFailure::Credentials => LockError::Credentials { file, source },
            UvFailure::Offline => LockError::Offline { file, source },
            UvFailure::DiskFull => LockError::DiskFull { source },
            UvFailure::TooLarge => LockError::TooLarge { file, source },
            UvFailure::Other if project.source == RequirementSource::RequirementsTxt => {
                match requirements::first_wrong(&file) {
                    Some(error) => LockError::Requirements(error),
                    None => LockError::Uv { file, source },
                }
            }
            UvFailure::Hash | UvFailure::Build | UvFailure::Other => LockError::Uv { file, source },
        }),
    }
}

/// Packages whose metadata uv must not take from its cache: for it, a source tree is what it was as
/// long as `setup.py` and the like are, though they may read other files.
fn local_packages(project: &Project, lock: &Path) -> BTreeSet<String> {
    let before = Pylock::read(lock).ok().flatten();
    let packages = before.iter().flat_map(|lock| &lock.packages);
    let mut names: BTreeSet<String> = packages
        .filter(|package| package.directory.is_some())
        .map(|package| package.name.clone())
        .collect();
    if project.source == RequirementSource::BuildBackend {
        names.insert(crate::normalised_name(project.name.as_str()));
    }
    names
}

/// conda packages that the index does not have are named all at once.
fn explain(project: &Project, uv: &Uv, error: LockError) -> LockError {
    let error = match error {
        // Where uv reads a file that was made for it, its name means nothing to the user.
        LockError::Unresolvable { file, source } => LockError::Unresolvable {
            file,
            source: UvSaid(
                source
                    .0
                    .replace("pytheas-request depends on", "you require"),
            ),
        },
        other => return other,
    };
    if project.found.conda.is_empty() {
        return error;
    }
    let is_missing = |requirement: &&String| {
        let mut command = uv.command();
        command.current_dir(std::env::temp_dir()).args([
            "pip",
            "compile",
            "--no-deps",
            "--no-header",
            "-",
        ]);
        matches!(
            uv.run_with_input(command, requirement),
            Err(UvCallError::Failed(UvFailure::Unresolvable, _))
        )
    };
    let is_conda = |text: &&String| {
        let name = crate::requirements::parse(text).map(|parsed| parsed.name.to_string());
        name.is_some_and(|name| project.found.conda.contains(&crate::normalised_name(&name)))
    };
    let missing: Vec<(String, String)> = project
        .dependencies
        .iter()
        .filter(is_conda)
        .filter(is_missing)
        .map(|text| (text.clone(), "not on the package index".to_owned()))
        .collect();
    if missing.is_empty() {
        error
    } else {
        LockError::Input(InputError::conda(&project.input_path(), missing))
    }
}
