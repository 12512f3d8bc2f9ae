//! The entry of an app that only its package's metadata tells: a published package, or a project
//! whose scripts are known to its build back end. `entry_points.txt` is read; nothing is run.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use pytheas_project::{Entry, Project, Pylock, RequirementSource, closest, normalised_name};
use pytheas_release::RelPath;

use crate::{
    dependencies::uv_error,
    error::{BuildError, io_error},
    install::Installer,
    scratch::{self, Kind},
};

/// A package that does not say what starts it.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum InstalledEntryError {
    /// Several scripts, none called as the package.
    #[error("`{package}` has several programs: {candidates}")]
    #[diagnostic(
        code(pytheas::entry::several_programs),
        help("choose one with `--entry`, e.g. `--entry {example}`")
    )]
    Several {
        /// The package.
        package: String,
        /// The programs with their entry points.
        candidates: String,
        /// One of the entry points.
        example: String,
    },
    /// No script and no package to run.
    #[error("`{package}` has no program: it is a library")]
    #[diagnostic(
        code(pytheas::entry::library),
        help("name what starts the app with `--entry MODULE:CALLABLE`")
    )]
    Library {
        /// The package.
        package: String,
    },
    /// A script that is no entry point.
    #[error("the program `{script}` of `{package}` is `{value}`, which is no entry point")]
    #[diagnostic(
        code(pytheas::entry::program),
        help("name what starts the app with `--entry MODULE:CALLABLE`")
    )]
    Program {
        /// The package.
        package: String,
        /// The script.
        script: String,
        /// What is written.
        value: String,
    },
    /// The package is not in the lock.
    #[error("`{package}` is not in the lock file `{}`", lock.display())]
    #[diagnostic(
        code(pytheas::entry::not_locked),
        help("run `pytheas lock` for it again")
    )]
    NotLocked {
        /// The package.
        package: String,
        /// The lock file.
        lock: PathBuf,
    },
}

/// The folder of programs, beside installed packages and in the app.
const BIN: &str = "bin";

/// Whether the entry of a published package may be the name of a program of it.
pub(crate) fn may_be_program(project: &Project, entry: &Entry) -> bool {
    project.source == RequirementSource::Published && matches!(entry, Entry::Module(_))
}

/// `entry` as it lies in the bundle: a script of a published package is one of its programs.
pub(crate) fn placed(project: &Project, entry: Entry) -> Entry {
    match &entry {
        Entry::Script(script)
            if project.source == RequirementSource::Published && !script.as_str().contains('/') =>
        {
            in_bin(script.as_str()).unwrap_or(entry)
        }
        _ => entry,
    }
}

/// The program `name` that an installed package has in `bin`. It stays in a folder `bin`: beside
/// the app's modules it would hide a package of its own name, which it mostly imports.
fn in_bin(name: &str) -> Option<Entry> {
    format!("{BIN}/{name}").parse().ok().map(Entry::Script)
}

/// Finds the entry in the metadata of the app's package: the program that is `asked` for, else its
/// console script of that name, else its only one, else its only package that `python -m` can run.
pub(crate) fn find(
    project: &Project,
    asked: Option<Entry>,
    lock: &Pylock,
    lock_path: &Path,
    installer: &Installer<'_>,
    output: &Path,
) -> Result<Entry, BuildError> {
    let scratch =
        tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
    let site = scratch.path().join("site");
    fs::create_dir(&site).map_err(io_error("make", &site))?;
    let package = match &project.package {
        Some(package) => {
            let mut only = lock.clone();
            only.packages.retain(|locked| locked.name == *package);
            let Some(locked) = only.packages.first() else {
                return Err(InstalledEntryError::NotLocked {
                    package: package.clone(),
                    lock: lock_path.to_owned(),
                }
                .into());
            };
            let what = match (&locked.version, &locked.archive, &locked.vcs) {
                (Some(version), None, None) => format!("{package}=={version}"),
                _ => project.dependencies.first().cloned().unwrap_or_default(),
            };
            if !installer.install_lock(&only, lock_path, &site)? {
                install_by_uv(installer, &what, &site)?;
            }
            package.clone()
        }
        None => {
            let interpreter = installer.interpreter;
            let python = interpreter.tool().unwrap_or(interpreter.python());
            let wheel =
                crate::native::own::wheel(installer, project, &python, scratch.path(), output)?;
            installer
                .install_wheel(&wheel, &site)
                .map_err(crate::dependencies::DependencyError::from)?;
            let name = wheel.file_name().unwrap_or_default().to_string_lossy();
            normalised_name(name.split('-').next().unwrap_or(&name))
        }
    };
    if let Some(Entry::Module(name)) = &asked
        && let Some(entry) = program(&site, &package, name)?
    {
        return Ok(entry);
    }
    match asked {
        Some(entry) => Ok(entry),
        None => Ok(choose(&site, &package, project.name.as_str())?),
    }
}

/// The program `name` of the package; none when `python -m` can run a module of this name.
fn program(site: &Path, package: &str, name: &str) -> Result<Option<Entry>, InstalledEntryError> {
    let path = name.replace('.', "/");
    let is_module =
        site.join(&path).join("__main__.py").is_file() || site.join(format!("{path}.py")).is_file();
    if is_module {
        return Ok(None);
    }
    if let Some(value) = scripts(site, package).get(name) {
        return parsed(package, name, value).map(Some);
    }
    let file = plain_scripts(site)
        .into_iter()
        .find(|script| script == name);
    Ok(file.and_then(|name| in_bin(&name)))
}

fn parsed(package: &str, script: &str, value: &str) -> Result<Entry, InstalledEntryError> {
    value.parse().map_err(|_| InstalledEntryError::Program {
        package: package.to_owned(),
        script: script.to_owned(),
        value: value.to_owned(),
    })
}

/// Programs that are Python files, not entry points (`scripts` of setuptools), by name.
fn plain_scripts(site: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(site.join("bin"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|child| is_python(&child.path()))
        .filter_map(|child| child.file_name().into_string().ok())
        .collect();
    found.sort();
    found
}

fn is_python(path: &Path) -> bool {
    let mut start = [0; 256];
    let Ok(length) = fs::File::open(path).and_then(|mut file| file.read(&mut start)) else {
        return false;
    };
    let line = start[..length].split(|byte| *byte == b'\n').next();
    line.is_some_and(|line| {
        line.starts_with(b"#!") && line.windows(6).any(|part| part == b"python")
    })
}

/// Brings the program `script`, which an installed package has in `bin`, into the app: there it is
/// started. Its first line names no interpreter of this machine afterwards.
pub(crate) fn bring_script(script: &RelPath, site: &Path, app: &Path) -> Result<(), BuildError> {
    let from = match script.as_str().starts_with("bin/") {
        true => script.under(site),
        false => script.under(&site.join(BIN)),
    };
    let to = script.under(app);
    if to.exists() || !is_python(&from) {
        return Ok(());
    }
    let bytes = fs::read(&from).map_err(io_error("read", &from))?;
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let mut text = b"#!python".to_vec();
    text.extend(&bytes[end..]);
    scratch::write(&to, &text, Kind::Data).map_err(io_error("write", &to))
}

/// Packages with C code and no wheel: uv builds them for this machine.
fn install_by_uv(installer: &Installer<'_>, what: &str, site: &Path) -> Result<(), BuildError> {
    let mut command = installer.uv.command();
    command
        .args(["pip", "install", "--no-deps", "--python"])
        .arg(installer.interpreter.python())
        .arg("--target")
        .arg(site)
        .arg(what);
    installer
        .uv
        .run(command)
        .map(|_| ())
        .map_err(|error| uv_error(installer.uv, error).into())
}

fn choose(site: &Path, package: &str, app: &str) -> Result<Entry, InstalledEntryError> {
    let scripts = scripts(site, package);
    let named = [package, app].iter().find_map(|wanted| {
        scripts
            .iter()
            .find(|(name, _)| normalised_name(name) == normalised_name(wanted))
    });
    let only = scripts.iter().next().filter(|_| scripts.len() == 1);
    if let Some((script, value)) = named.or(only) {
        return parsed(package, script, value);
    }
    if scripts.is_empty() {
        let plain = plain_scripts(site);
        let named = plain
            .iter()
            .find(|name| normalised_name(name) == package)
            .or(plain.first().filter(|_| plain.len() == 1));
        if let Some(entry) = named.and_then(|name| in_bin(name)) {
            return Ok(entry);
        }
        let modules = runnable(site);
        let wanted = package.replace('-', "_");
        let module = match modules.as_slice() {
            [only] => Some(only),
            several => several
                .iter()
                .find(|module| module.to_lowercase() == wanted),
        };
        return match module {
            Some(module) => Ok(Entry::Module(module.clone())),
            None => Err(InstalledEntryError::Library {
                package: package.to_owned(),
            }),
        };
    }
    let near = closest(package, scripts.keys().map(String::as_str));
    let example = near
        .and_then(|name| scripts.get(name))
        .or(scripts.values().next());
    let candidates: Vec<String> = scripts
        .iter()
        .map(|(name, value)| format!("`{name}` ({value})"))
        .collect();
    Err(InstalledEntryError::Several {
        package: package.to_owned(),
        candidates: candidates.join(", "),
        example: example.cloned().unwrap_or_default(),
    })
}

/// `[console_scripts]` and `[gui_scripts]` of the package's `entry_points.txt`.
fn scripts(site: &Path, package: &str) -> BTreeMap<String, String> {
    let text = fs::read_dir(site)
        .into_iter()
        .flatten()
        .flatten()
        .find(|child| {
            let name = child.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(".dist-info").unwrap_or_default();
            let stem = stem.rsplit_once('-').map_or(stem, |(name, _)| name);
            normalised_name(stem) == package
        })
        .and_then(|child| fs::read_to_string(child.path().join("entry_points.txt")).ok())
        .unwrap_or_default();
    let mut section = "";
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.trim();
        } else if matches!(section, "console_scripts" | "gui_scripts")
            && !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            found.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    found
}

fn runnable(site: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(site)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|child| child.path().join("__main__.py").is_file())
        .filter_map(|child| child.file_name().into_string().ok())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        }
        dir
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], package: &str, expected: &str) {
        let dir = site(files);
        let found = match choose(dir.path(), package, package) {
            Ok(entry) => entry.to_string(),
            Err(error) => format!("{error}; {}", error.help().unwrap()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_program_is_asked_for_by_name_unless_a_module_of_this_name_can_be_run() {
        let dir = site(&[
            (
                "tool_x-1.dist-info/entry_points.txt",
                "[console_scripts]\ntool-dump = tool_x.dump:main\ntool_x = tool_x.cli:main\ntool_x.watch = tool_x.watcher:main\ntool_x.late = tool_x.cli:late\n",
            ),
            ("tool_x/__main__.py", ""),
            ("tool_x/watch/__init__.py", ""),
            ("tool_x/late.py", ""),
            ("bin/toolctl", "#!/usr/bin/env python\nprint(1)\n"),
            ("bin/tool.sh", "#!/bin/sh\n"),
        ]);
        for (name, expected) in [
            ("tool-dump", Some("tool_x.dump:main")),
            ("tool_x", None),
            ("tool_x.watch", Some("tool_x.watcher:main")),
            ("tool_x.late", None),
            ("toolctl", Some("bin/toolctl")),
            ("tool.sh", None),
            ("absent", None),
        ] {
            let found = program(dir.path(), "tool-x", name).unwrap();
            assert_eq!(
                found.map(|entry| entry.to_string()).as_deref(),
                expected,
                "{name}"
            );
        }
        let script = "bin/toolctl".parse().unwrap();
        let app = dir.path().join("app");
        bring_script(&script, dir.path(), &app).unwrap();
        let text = fs::read_to_string(app.join("bin/toolctl")).unwrap();
        assert_eq!(text, "#!python\nprint(1)\n");
    }

    #[test]
    fn a_packages_program_is_the_one_of_its_name_or_its_only_one() {
        let points = "tool_x-1.dist-info/entry_points.txt";
        check(
            &[(
                points,
                "[console_scripts]\nother = a:b\ntool-x = tool_x.cli:main [extra]\n",
            )],
            "tool-x",
            "tool_x.cli:main",
        );
        check(
            &[(points, "[console_scripts]\ntx=a:b\n\n[x.plugins]\ny=z:w\n")],
            "tool-x",
            "a:b",
        );
        check(
            &[(
                points,
                "[console_scripts]\ntx = a:b\n[gui_scripts]\ntxg = a:g\n",
            )],
            "tool-x",
            "`tool-x` has several programs: `tx` (a:b), `txg` (a:g); choose one with `--entry`, e.g. `--entry a:b`",
        );
        check(&[("tool_x/__main__.py", "")], "tool-x", "tool_x");
        check(
            &[("bin/tx", "#!python\n"), ("tool_x/__init__.py", "")],
            "tool-x",
            "bin/tx",
        );
        check(
            &[("tool_x/__init__.py", "")],
            "tool-x",
            "`tool-x` has no program: it is a library; name what starts the app with `--entry MODULE:CALLABLE`",
        );
    }
}
