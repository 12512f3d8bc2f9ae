//! The app's own files in the bundle: sources copied as they are, or, with a `[build-system]`, the
//! wheel that its build back end makes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};
use miette::Diagnostic;
use pytheas_project::{Project, Sources, Uv, UvCallError, UvFailure, UvSaid};
use pytheas_release::{PathError, RelPath};

use crate::{
    error::{BuildError, io_error},
    output::SCRATCH,
    scratch,
};

/// Files of the app that cannot be taken along.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum AppError {
    /// A pattern of `[tool.pytheas]` that is none.
    #[error("`{pattern}` in `[tool.pytheas]` is no file pattern: {reason}")]
    #[diagnostic(
        code(pytheas::app::pattern),
        help("`*` stands for a part of a name, `**` for any folders")
    )]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A name that no release can hold.
    #[error("the name of `{}` {reason}", path.display())]
    #[diagnostic(
        code(pytheas::app::name),
        help("rename it, or leave it out with `exclude` in `[tool.pytheas]`")
    )]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: PathError,
    },
    /// A link that leads out of the project.
    #[error("the link `{}` leads out of the project, to `{}`", path.display(), target.display())]
    #[diagnostic(
        code(pytheas::app::link_escapes),
        help(
            "copy the file into the project, or leave the link out with `exclude` in `[tool.pytheas]`"
        )
    )]
    LinkEscapes {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A link that leads to itself or to a folder above it.
    #[error("the link `{}` leads in a circle", path.display())]
    #[diagnostic(
        code(pytheas::app::link_circle),
        help("remove it, or leave it out with `exclude` in `[tool.pytheas]`")
    )]
    LinkCircle {
        /// The link.
        path: PathBuf,
    },
    /// A link that leads nowhere.
    #[error("the link `{}` leads nowhere", path.display())]
    #[diagnostic(
        code(pytheas::app::link_broken),
        help("correct it, or leave it out with `exclude` in `[tool.pytheas]`")
    )]
    LinkBroken {
        /// The link.
        path: PathBuf,
    },
    /// A pipe, socket or device.
    #[error("`{}` is no file, folder or link", path.display())]
    #[diagnostic(
        code(pytheas::app::special),
        help("leave it out with `exclude` in `[tool.pytheas]`")
    )]
    Special {
        /// The file.
        path: PathBuf,
    },
    /// The build back end failed.
    #[error("`{name}` cannot be built into a wheel")]
    #[diagnostic(code(pytheas::app::build), help("what its build back end says is above; `uv build --wheel` in `{}` does the same", dir.display()))]
    Build {
        /// The project.
        name: String,
        /// Its folder.
        dir: PathBuf,
        /// What uv says.
        source: UvSaid,
    },
    /// The build back end made no wheel.
    #[error("the build back end of `{name}` made no wheel")]
    #[diagnostic(
        code(pytheas::app::no_wheel),
        help("try `uv build --wheel` in the project")
    )]
    NoWheel {
        /// The project.
        name: String,
    },
}

/// Copies the project's sources to `app`; `output` is where the result will lie, perhaps inside
/// the project. Gives the number of files.
pub(crate) fn copy_sources(
    project: &Project,
    app: &Path,
    output: &Path,
) -> Result<usize, BuildError> {
    match &project.sources {
        Sources::Folder => {}
        Sources::None => return Ok(0),
        Sources::File(file) => {
            let from = file.under(&project.dir);
            scratch::copy(&from, &file.under(app)).map_err(io_error("copy", &from))?;
            return Ok(1);
        }
        // The package's folder is copied by its name, with the same rules.
        Sources::Package(name) => {
            let mut folder = project.clone();
            folder.sources = Sources::Folder;
            return copy_sources(&folder, &app.join(name), output);
        }
    }
    let mut copier = Copier {
        root: &project.dir,
        output,
        include: patterns(&project.settings.include)?,
        exclude: patterns(&project.settings.exclude)?,
        open: Vec::new(),
        files: 0,
    };
    fs::create_dir_all(app).map_err(io_error("make", app))?;
    copier.folder(&project.dir, "", app, Verdict::Taken)?;
    Ok(copier.files)
}

/// Copies the project into `scratch` to be built there: back ends leave files beside the sources.
/// Gives the copy.
pub(crate) fn copied_for_build(
    project: &Project,
    scratch: &Path,
    output: &Path,
) -> Result<PathBuf, BuildError> {
    let source = scratch.join("source");
    copy_for_build(&project.dir, &source, output)?;
    // A `setup.cfg` alone is a project to setuptools, but not to build front ends.
    let setup = source.join("setup.py");
    if !source.join("pyproject.toml").is_file() && !setup.is_file() {
        let text = b"from setuptools import setup\n\nsetup()\n";
        scratch::write(&setup, text, scratch::Kind::Data).map_err(io_error("write", &setup))?;
    }
    Ok(source)
}

/// Builds the copy `source` of the project into a wheel with its build back end; gives the wheel.
pub(crate) fn build_copied(
    project: &Project,
    uv: &Uv,
    python: &Path,
    scratch: &Path,
    source: &Path,
) -> Result<PathBuf, BuildError> {
    let wheels = scratch.join("wheels");
    let mut command = uv.command();
    command
        .args(["build", "--wheel", "--no-create-gitignore", "--out-dir"])
        .arg(&wheels)
        .arg("--python")
        .arg(python)
        .arg(source)
        .env("SOURCE_DATE_EPOCH", "315532800");
    let name = project.name.to_string();
    uv.isolation().describe(&mut command, &name, &wheels);
    uv.run(command).map_err(|error| match error {
        UvCallError::Failed(
            UvFailure::Build | UvFailure::Unresolvable | UvFailure::Other,
            source,
        ) => AppError::Build {
            name: name.clone(),
            dir: project.dir.clone(),
            source,
        }
        .into(),
        other => BuildError::from(crate::dependencies::uv_error(uv, other)),
    })?;
    let children = fs::read_dir(&wheels)
        .map_err(io_error("read", &wheels))?
        .flatten();
    let wheel = children
        .map(|child| child.path())
        .find(|path| path.extension().is_some_and(|end| end == "whl"));
    Ok(wheel.ok_or(AppError::NoWheel { name })?)
}

/// The version in a wheel's name.
pub(crate) fn version_of_wheel(wheel: &Path) -> Option<String> {
    wheel
        .file_name()?
        .to_str()?
        .split('-')
        .nth(1)
        .map(str::to_owned)
}

fn patterns(texts: &[String]) -> Result<Vec<Pattern>, AppError> {
    let pattern = |text: &String| {
        Pattern::new(text.trim_start_matches("./").trim_end_matches('/')).map_err(|error| {
            AppError::Pattern {
                pattern: text.clone(),
                reason: error.msg,
            }
        })
    };
    texts.iter().map(pattern).collect()
}

fn matches(patterns: &[Pattern], path: &str) -> bool {
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::new()
    };
    patterns
        .iter()
        .any(|pattern| pattern.matches_with(path, options))
}

/// Whether what lies in a folder is taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Unless a rule leaves it out.
    Taken,
    /// A pattern of `include` names it or a folder above it.
    Included,
    /// Left out unless a pattern of `include` names it.
    LeftOut,
}

struct Copier<'a> {
    root: &'a Path,
    output: &'a Path,
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    /// Folders that are being copied, links followed: a link to one of them is a circle.
    open: Vec<PathBuf>,
    files: usize,
}

impl Copier<'_> {
    fn folder(
        &mut self,
        dir: &Path,
        relative: &str,
        to: &Path,
        above: Verdict,
    ) -> Result<(), BuildError> {
        let real = dir.canonicalize().map_err(io_error("read", dir))?;
        if self.open.contains(&real) {
            return Err(AppError::LinkCircle {
                path: dir.to_owned(),
            }
            .into());
        }
        self.open.push(real);
        let mut children = Vec::new();
        for child in fs::read_dir(dir).map_err(io_error("read", dir))? {
            children.push(child.map_err(io_error("read", dir))?.path());
        }
        children.sort();
        for path in children {
            self.child(&path, relative, to, above)?;
        }
        self.open.pop();
        Ok(())
    }

    fn child(
        &mut self,
        path: &Path,
        relative: &str,
        to: &Path,
        above: Verdict,
    ) -> Result<(), BuildError> {
        let file_name = path.file_name().unwrap_or_default();
        let name = file_name.to_string_lossy();
        let relative = if relative.is_empty() {
            name.to_string()
        } else {
            format!("{relative}/{name}")
        };
        if path == self.output || matches(&self.exclude, &relative) || is_never_taken(path, &name) {
            return Ok(());
        }
        let verdict = if above == Verdict::Included || matches(&self.include, &relative) {
            Verdict::Included
        } else if above == Verdict::LeftOut || is_left_out(&relative, &name, path) {
            Verdict::LeftOut
        } else {
            Verdict::Taken
        };
        if verdict == Verdict::LeftOut && self.include.is_empty() {
            return Ok(());
        }
        let metadata = fs::symlink_metadata(path).map_err(io_error("read", path))?;
        let is_dir = if metadata.is_symlink() {
            if verdict == Verdict::LeftOut {
                return Ok(());
            }
            self.check_link(path)?
        } else {
            metadata.is_dir()
        };
        let target = to.join(file_name);
        if verdict != Verdict::LeftOut {
            relative
                .parse::<RelPath>()
                .map_err(|reason| AppError::Name {
                    path: path.to_owned(),
                    reason,
                })?;
            if file_name.to_str().is_none() {
                return Err(AppError::Name {
                    path: path.to_owned(),
                    reason: PathError::NotUtf8,
                }
                .into());
            }
        }
        if is_dir {
            return self.folder(path, &relative, &target, verdict);
        }
        if verdict == Verdict::LeftOut {
            return Ok(());
        }
        if !metadata.is_symlink() && !metadata.is_file() {
            return Err(AppError::Special {
                path: path.to_owned(),
            }
            .into());
        }
        scratch::copy(path, &target).map_err(io_error("copy", path))?;
        self.files += 1;
        Ok(())
    }

    /// Whether the link leads to a folder; it must lead to something inside the project.
    fn check_link(&self, path: &Path) -> Result<bool, BuildError> {
        let target = match path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(AppError::LinkBroken {
                    path: path.to_owned(),
                }
                .into());
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(AppError::LinkCircle {
                    path: path.to_owned(),
                }
                .into());
            }
            Err(error) => return Err(io_error("read", path)(error)),
        };
        if !target.starts_with(self.root) {
            return Err(AppError::LinkEscapes {
                path: path.to_owned(),
                target,
            }
            .into());
        }
        Ok(target.is_dir())
    }
}

/// What not even `include` brings in: other people's data and other builds.
fn is_never_taken(path: &Path, name: &str) -> bool {
    matches!(
        name,
        ".git" | ".hg" | ".svn" | ".jj" | "__pycache__" | "node_modules"
    ) || is_somebodys_state(path)
        || name.ends_with(".pyc")
        || name.ends_with(".provenance.json") // of an earlier build, beside its result
        || name.contains(SCRATCH) // what is being built: a copy into itself would not end
        || crate::one_file::is_made_here(path) // each build would hold all before it
}

/// A virtual environment, a bundle, or the state of an agent or hub that was tried out inside the
/// project: the last two hold tokens, which must never be shipped.
fn is_somebodys_state(path: &Path) -> bool {
    ["pyvenv.cfg", "pytheas.launch", "agent.lock", "hub.lock"]
        .into_iter()
        .any(|mark| path.join(mark).is_file())
}

/// What only `include` brings in: hidden files (they hold secrets: `.env`), tests, results.
fn is_left_out(relative: &str, name: &str, path: &Path) -> bool {
    let at_top = !relative.contains('/');
    name.starts_with('.')
        || name.ends_with(".egg-info")
        || (at_top
            && path.is_dir()
            && matches!(name, "tests" | "test" | "dist" | "build" | "venv" | "env"))
        || (at_top && name.starts_with("pylock.") && name.ends_with(".toml"))
}

/// Copies a project for its build back end: all but environments, caches and results (setuptools
/// would pack what an earlier build left in `build/lib`, gone modules included); version control
/// stays, since some back ends take the version from it.
pub(crate) fn copy_for_build(from: &Path, to: &Path, output: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(to).map_err(io_error("make", to))?;
    for child in fs::read_dir(from).map_err(io_error("read", from))? {
        let child = child.map_err(io_error("read", from))?;
        let (path, name) = (
            child.path(),
            child.file_name().to_string_lossy().into_owned(),
        );
        let target = to.join(child.file_name());
        let skipped = matches!(
            name.as_str(),
            "__pycache__"
                | "node_modules"
                | ".venv"
                | ".tox"
                | ".mypy_cache"
                | ".ruff_cache"
                | ".pytest_cache"
        ) || path == output
            || name.ends_with(".egg-info")
            || name.contains(SCRATCH)
            || name.ends_with(".provenance.json")
            || path.join("CACHEDIR.TAG").is_file()
            || is_setuptools_result(from, &name)
            || is_somebodys_state(&path)
            || crate::one_file::is_made_here(&path);
        if skipped {
            continue;
        }
        let kind = child.file_type().map_err(io_error("read", &path))?;
        if kind.is_dir() {
            copy_for_build(&path, &target, output)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&path).map_err(io_error("read", &path))?;
            std::os::unix::fs::symlink(link, &target).map_err(io_error("make", &target))?;
        } else if kind.is_file() {
            scratch::copy(&path, &target).map_err(io_error("copy", &path))?;
        }
    }
    Ok(())
}

/// What setuptools left of an earlier build: `build/lib`, `build/bdist.linux-x86_64` and the like.
fn is_setuptools_result(dir: &Path, name: &str) -> bool {
    let is_result = |start: &str| name == start || name.starts_with(&format!("{start}."));
    dir.ends_with("build")
        && dir.with_file_name("pyproject.toml").is_file()
        && ["lib", "bdist", "temp"].into_iter().any(is_result)
}
