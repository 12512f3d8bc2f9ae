//! The form `bundle`: a relocatable folder with interpreter, packages and app.
//!
//! ```text
//! bin/<app>           the launcher
//! pytheas.launch      what it starts
//! pytheas_start.py    only for `module:callable`: imports and calls it
//! python/             the interpreter; packages in its own folder for them
//! app/                the project's sources (not with a [build-system]: then it is a package)
//! pytheas.json        the build record (written by the build around it)
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use pytheas_project::{ByteCode, Entry};
use pytheas_release::Version;

use crate::{
    app, bytecode, dependencies, entry_check,
    error::{BuildError, io_error},
    event::Phase,
    form::{Form, Job, Made},
    install::Installer,
    launcher::{LAUNCH_FILE, Record, encode, machine_code},
    native,
    scratch::{self, Kind},
    start, startup,
};

const START_FILE: &str = "pytheas_start.py";
const APP: &str = "app";

/// The form `bundle`.
pub(crate) struct Bundle;

impl Form for Bundle {
    fn name(&self) -> &'static str {
        "bundle"
    }

    fn make(&self, job: &Job<'_>, into: &Path) -> Result<Made, BuildError> {
        dependencies::check_available(job.lock, job.interpreter, job.platform)?;
        let home = into.join("python");
        job.interpreter
            .copy_to(&home)
            .map_err(io_error("copy the interpreter to", &home))?;
        let site = job.interpreter.site_packages.under(&home);
        fs::create_dir_all(&site).map_err(io_error("make", &site))?;
        // uv remembers what it learnt of a Python by its path: the one in the cache stays.
        let python = job.interpreter.tool().unwrap_or(job.interpreter.python());
        let installer = Installer {
            interpreter: job.interpreter,
            platform: job.platform,
            uv: job.uv,
            connectivity: job.connectivity,
            environment: job.environment,
            observer: job.observer,
        };

        job.phase(Phase::Dependencies);
        if !job.lock.packages.is_empty()
            && !installer.install_lock(job.lock, job.lock_path, &site)?
        {
            dependencies::install(job.uv, &python, job.lock, job.lock_path, &site)?;
        }

        job.phase(Phase::App);
        let app = into.join(APP);
        let built = self.add_app(job, &installer, &site, &app)?;
        if let Some(spec) = &job.project.settings.compile {
            let roots = app_roots(into, &site);
            native::compile::compile(&installer, spec, job.name.as_str(), job.entry, &roots)?;
        }
        if let Entry::Script(script) = job.entry
            && job.project.has_entry_in_metadata()
        {
            crate::installed_entry::bring_script(script, &site, &app)?;
        }
        dependencies::normalise(&site, &home)?;
        for library in job.interpreter.add_libraries(&site, &home.join("lib"))? {
            job.warn(format!(
                "packages need `{library}`, which is not on this machine; devices must have it"
            ));
        }
        let roots = paths(&app, &site, &job.interpreter.stdlib.under(&home));
        entry_check::check(
            job.entry,
            &app,
            &job.project.dir,
            &roots,
            &python,
            job.environment,
        )?;
        for (name, entry) in crate::hooks::entries(&job.project.settings.hooks) {
            entry_check::check(
                entry,
                &app,
                &job.project.dir,
                &roots,
                &python,
                job.environment,
            )
            .map_err(|source| crate::hooks::HookError::entry(name, entry, source))?;
        }
        warn_of_clashes(job, &app, &site);
        warn_of_metadata(job, &app);
        crate::complete::warn_of_missing(job, &site);
        self.add_path_file(job, &app, &site)?;
        self.add_start(job, into)?;
        startup::add_module(&site)?;
        let has_numba = crate::numba::add_reader(job, &site)?;
        crate::tools::add(job, into, &site)?;
        crate::hooks::add(job, into)?;
        // First what goes, then the work on what stays.
        if let Some(keep) = job.slim {
            let mut all = crate::app_packages::keep(job.project, &site);
            all.extend_from_slice(keep);
            all.extend(crate::hooks::modules(&job.project.settings.hooks));
            crate::slim::cut(job, into, &all)?;
        }
        let stdlib = job.interpreter.stdlib.under(&home);
        let sources = [app.clone(), into.join(crate::tools::TOOLS)];
        crate::trim::tree(&stdlib, &site, &sources)?;
        // The interpreter's own files were stripped when it was prepared.
        crate::strip::tree(&site)?;
        crate::strip::files(&home.join("lib"))?;

        if has_numba {
            crate::numba::fill(job, into, &site)?;
        }

        job.phase(Phase::ByteCode);
        if job.bytecode == ByteCode::None {
            bytecode::choice::drop_all(into)?;
            return self.made(job, built.as_deref());
        }
        let Some(compiler) = job.interpreter.compiler(job.environment) else {
            job.warn(format!(
                "there is no byte code in the bundle, so it starts slowly: no Python {} and no qemu-user for `{}` on this machine",
                job.interpreter.version, job.platform
            ));
            return self.made(job, built.as_deref());
        };
        let failed = bytecode::kept::compile(
            job.interpreter,
            &compiler,
            job.environment,
            into,
            &[site.clone(), app.clone()],
            job.ahead.take(),
        )?;
        for file in failed {
            tracing::debug!(
                path = file.path,
                reason = file.reason,
                "left without byte code"
            );
            if file.path.starts_with("app/") {
                job.warn(format!("`{}` does not compile: {}", file.path, file.reason));
            }
        }
        let stdlib = job.interpreter.stdlib.under(&home);
        if job.bytecode == ByteCode::Only
            && let Some(suffix) = startup::suffix(&stdlib.join("__pycache__"))
        {
            let mut kept = vec![site.join("_pytheas.py")];
            if let Entry::Script(script) = job.entry {
                kept.push(script.under(&app));
            }
            bytecode::choice::drop_sources(&[site, app], &suffix, &kept)?;
        }
        self.made(job, built.as_deref())
    }
}

impl Bundle {
    /// Version and entry of the finished bundle.
    fn made(&self, job: &Job<'_>, built: Option<&str>) -> Result<Made, BuildError> {
        let version = match (job.version, built) {
            (Some(version), _) => version.clone(),
            (None, Some(text)) => parse_version(text)?,
            // An application given by its published name has that release's version.
            (None, None) => parse_version(locked_version(job).unwrap_or("0.0.0"))?,
        };
        Ok(Made {
            version,
            entry: format!("bin/{}", job.name),
        })
    }

    /// Installs the app as a package, or copies its sources; gives the version its build tells.
    fn add_app(
        &self,
        job: &Job<'_>,
        installer: &Installer<'_>,
        site: &Path,
        app: &Path,
    ) -> Result<Option<String>, BuildError> {
        if !job.project.has_build_system {
            app::copy_sources(job.project, app, job.output)?;
            return Ok(None);
        }
        let scratch =
            tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
        let python = job.interpreter.tool().unwrap_or(job.interpreter.python());
        let wheel =
            native::own::wheel(installer, job.project, &python, scratch.path(), job.output)?;
        installer
            .install_wheel(&wheel, site)
            .map_err(dependencies::DependencyError::from)?;
        if let Entry::Script(script) = job.entry {
            let from = script.under(&job.project.dir);
            if from.is_file() {
                scratch::copy(&from, &script.under(app)).map_err(io_error("copy", &from))?;
            }
        }
        Ok(app::version_of_wheel(&wheel))
    }

    /// A file for Python's `site` that puts the sources on the path, also of child processes. The
    /// paths in it are relative to the folder it lies in.
    fn add_path_file(&self, job: &Job<'_>, app: &Path, site: &Path) -> Result<(), BuildError> {
        let up = "../".repeat(job.interpreter.site_packages.as_str().split('/').count() + 1);
        let text: String = app_folders(app)
            .into_iter()
            .map(|folder| format!("{up}{folder}\n"))
            .collect();
        if text.is_empty() {
            return Ok(());
        }
        let file = site.join(PATH_FILE);
        scratch::write(&file, text.as_bytes(), Kind::Data).map_err(io_error("write", &file))
    }

    /// The launcher, what it starts, and for a callable the module that calls it.
    fn add_start(&self, job: &Job<'_>, into: &Path) -> Result<(), BuildError> {
        let program = format!("python/{}", job.interpreter.program);
        let texts = job.interpreter.loader.as_ref().map(|loader| {
            (
                loader,
                loader.texts("python/", Some(job.interpreter.program.as_str())),
            )
        });
        let script;
        let mut records = match &texts {
            Some((loader, texts)) => loader.records(texts),
            None => vec![Record::Program(&program)],
        };
        records.extend([
            // The host's settings for its own Python are not ours; child processes keep out too.
            Record::Drop("PYTHON"),
            Record::Set("PYTHONNOUSERSITE=1"),
            // The tree is a signed release: running it must not change it.
            Record::Set("PYTHONDONTWRITEBYTECODE=1"),
        ]);
        // These only tell how to run and are asked for by services and containers; `-I` and `-E`
        // would pass over them. Children have them too.
        records.extend(
            [
                "PYTHONUNBUFFERED=-u",
                "PYTHONFAULTHANDLER=-Xfaulthandler",
                "PYTHONDEVMODE=-Xdev",
            ]
            .map(Record::When),
        );
        match job.entry {
            // As `-I`, but with the script's folder first on the path, as `python main.py` has it.
            Entry::Script(path) => {
                script = format!("{APP}/{path}");
                records.extend(["-E", "-s", "-B"].map(Record::Argument));
                records.push(Record::Path(&script));
            }
            Entry::Module(module) => {
                records.extend(["-I", "-B", "-m", module].map(Record::Argument));
            }
            Entry::Callable { module, callable } => {
                records.extend(["-I", "-B"].map(Record::Argument));
                records.push(Record::Path(START_FILE));
                let file = into.join(START_FILE);
                let text = start::text(job.name.as_str(), module, callable);
                scratch::write(&file, text.as_bytes(), Kind::Data)
                    .map_err(io_error("write", &file))?;
            }
        }
        let file = into.join(LAUNCH_FILE);
        scratch::write(&file, &encode(&records), Kind::Data).map_err(io_error("write", &file))?;
        let file = into.join("bin").join(job.name.as_str());
        let mut code = machine_code(job.platform.arch()).ok_or_else(|| BuildError::Platform {
            form: "bundle".to_owned(),
            platform: job.platform.clone(),
            host: std::env::consts::ARCH.to_owned(),
        })?;
        if let Entry::Callable { .. } = job.entry {
            code = start::with_archive(code, START_FILE).map_err(io_error("make", &file))?;
        }
        scratch::write(&file, &code, Kind::Program).map_err(io_error("write", &file))
    }
}

/// Puts the app's sources on the path of every Python of the bundle.
pub(crate) const PATH_FILE: &str = "pytheas_app.pth";

/// The folders of sources, relative to the bundle: `app`, and `app/src` when it holds modules.
fn app_folders(app: &Path) -> Vec<&'static str> {
    let mut folders = Vec::new();
    if app.is_dir() {
        folders.push(APP);
        let src = app.join("src");
        if src.is_dir() && !src.join("__init__.py").exists() {
            folders.push("app/src");
        }
    }
    folders
}

/// Where the app's own modules lie in the bundle `tree`, whose packages are in `site`.
pub(crate) fn app_roots(tree: &Path, site: &Path) -> Vec<PathBuf> {
    let app = tree.join(APP);
    vec![app.join("src"), app, site.to_owned()]
}

/// Where modules are looked for.
fn paths(app: &Path, site: &Path, stdlib: &Path) -> Vec<PathBuf> {
    let src = app.join("src");
    [app, &src, site, stdlib]
        .iter()
        .map(|path| path.to_path_buf())
        .collect()
}

/// A module of the app that has a package's name hides it, or is hidden by it.
fn warn_of_clashes(job: &Job<'_>, app: &Path, site: &Path) {
    let mut names: Vec<String> = fs::read_dir(app)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|child| child.file_name().into_string().ok())
        .filter(|name| name.ends_with(".py") || app.join(name).join("__init__.py").is_file())
        .collect();
    names.sort();
    for name in names {
        let stem = name.strip_suffix(".py").unwrap_or(&name);
        if site.join(stem).is_dir() || site.join(format!("{stem}.py")).is_file() {
            job.warn(format!(
                "the app's `{name}` has the name of an installed package; one hides the other"
            ));
        }
    }
}

/// Warns where the app asks for its own metadata, which only an installed app has.
fn warn_of_metadata(job: &Job<'_>, app: &Path) {
    if job.project.has_build_system {
        return;
    }
    let name = job.project.name.as_str();
    let files = walkdir::WalkDir::new(app).sort_by_file_name();
    for entry in files.into_iter().flatten() {
        let path = entry.path();
        let is_small = entry.metadata().is_ok_and(|data| data.len() <= 1 << 20);
        if path.extension().is_none_or(|end| end != "py") || !is_small {
            continue;
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        if asks_for_metadata(&text, name) {
            let file = path.strip_prefix(app).unwrap_or(path).display();
            job.warn(format!(
                "`{file}` asks for the metadata of `{name}`, and there is none: without `[build-system]` in `pyproject.toml` the app's sources are copied, not installed; add `[build-system]` with `requires = [\"setuptools\"]`, or whatever builds it"
            ));
            return;
        }
    }
}

/// Whether a source has `version("NAME")` or the like.
fn asks_for_metadata(text: &str, name: &str) -> bool {
    let asks = ["version", "metadata", "distribution", "files", "requires"];
    let quoted = ['"', '\''].map(|quote| format!("({quote}{name}{quote})"));
    [
        "importlib.metadata",
        "importlib_metadata",
        "pkg_resources",
        "importlib import metadata",
    ]
    .iter()
    .any(|module| text.contains(module))
        && asks.iter().any(|ask| {
            quoted
                .iter()
                .any(|quoted| text.contains(&format!("{ask}{quoted}")))
        })
}

/// The version of the locked package that is called as the app is.
fn locked_version<'a>(job: &Job<'a>) -> Option<&'a str> {
    let name = pytheas_project::normalised_name(job.name.as_str());
    let name = job.project.package.clone().unwrap_or(name);
    let package = job
        .lock
        .packages
        .iter()
        .find(|package| package.name == name)?;
    package.version.as_deref()
}

fn parse_version(text: &str) -> Result<Version, BuildError> {
    text.parse().map_err(|_| {
        pytheas_project::ProjectError::Version {
            text: text.to_owned(),
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_asks_for_its_own_metadata_is_seen() {
        let check = |text: &str, expected| {
            assert_eq!(asks_for_metadata(text, "app"), expected, "{text}");
        };
        check(
            "from importlib.metadata import version\nversion(\"app\")",
            true,
        );
        check(
            "from importlib import metadata\nv = metadata.version('app')",
            true,
        );
        check(
            "import pkg_resources\npkg_resources.get_distribution('app').version",
            true,
        );
        check(
            "from importlib.metadata import version\nversion('other')",
            false,
        );
        check("def version(of): ...\nversion('app')", false);
    }
}
