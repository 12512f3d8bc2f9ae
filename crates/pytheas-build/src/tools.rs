//! Programs of dependencies that the project asks for: `scripts = ["alembic"]`.
//!
//! Installers write console scripts whose first line names one machine's Python. A bundle has for
//! each a small root of its own, whose launcher finds it by its own place, so it works wherever the
//! bundle lies and needs no shell:
//!
//! ```text
//! tools/alembic/bin/alembic       the launcher
//! tools/alembic/pytheas.launch    what it starts: the bundle's Python with
//! tools/alembic/start.py          which imports and calls the entry point
//! bin/alembic                     a link to it
//! python/bin/alembic              another, where programs look beside `sys.executable`
//! ```

use std::{fs, path::Path};

use pytheas_project::closest;

use crate::{
    error::{BuildError, io_error},
    form::Job,
    known::entry_points,
    launcher::{LAUNCH_FILE, Record, encode, machine_code},
    scratch::{self, Kind},
    start,
};

/// The folder of the programs' roots.
pub(crate) const TOOLS: &str = "tools";
/// What a program's launcher lets Python run.
pub(crate) const START: &str = "start.py";

/// Programs that cannot be added.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ToolsError {
    /// No such program.
    #[error("no package has the program `{script}`, which `scripts` asks for")]
    #[diagnostic(code(pytheas::build::no_script), help("{help}"))]
    Unknown {
        /// Its name.
        script: String,
        /// What there is.
        help: String,
    },
    /// Two programs of one name.
    #[error("`scripts` asks for `{script}`, which is the app's own name")]
    #[diagnostic(
        code(pytheas::build::script_is_app),
        help("give the app another name (`app` in `[tool.pytheas]`), or leave the script out")
    )]
    App {
        /// The name.
        script: String,
    },
}

/// Adds the programs that the project's `scripts` names; `site` is where the packages lie.
pub(crate) fn add(job: &Job<'_>, into: &Path, site: &Path) -> Result<(), BuildError> {
    let wanted = &job.project.settings.scripts;
    if wanted.is_empty() {
        return Ok(());
    }
    let code = machine_code(job.platform.arch()).ok_or_else(|| BuildError::Platform {
        form: "bundle".to_owned(),
        platform: job.platform.clone(),
        host: std::env::consts::ARCH.to_owned(),
    })?;
    let there = scripts(site)?;
    for name in wanted {
        let Some((_, object)) = there.iter().find(|(script, _)| script == name) else {
            return Err(unknown(name, &there).into());
        };
        if name == job.name.as_str() {
            return Err(ToolsError::App {
                script: name.clone(),
            }
            .into());
        }
        add_root(job, into, &code, name, object)?;
        for (folder, up) in [("bin", ".."), ("python/bin", "../..")] {
            let link = into.join(folder).join(name);
            if let Some(folder) = link.parent() {
                fs::create_dir_all(folder).map_err(io_error("make", folder))?;
            }
            if fs::symlink_metadata(&link).is_err() {
                std::os::unix::fs::symlink(format!("{up}/{TOOLS}/{name}/bin/{name}"), &link)
                    .map_err(io_error("write", &link))?;
            }
        }
    }
    Ok(())
}

/// The root of the program `name`, which calls `object`, `module:callable`.
pub(crate) fn add_root(
    job: &Job<'_>,
    into: &Path,
    code: &[u8],
    name: &str,
    object: &str,
) -> Result<(), BuildError> {
    let root = into.join(TOOLS).join(name);
    let (module, callable) = object.split_once(':').unwrap_or((object, ""));
    let put = |path: &str, bytes: &[u8], kind| {
        let path = root.join(path);
        scratch::write(&path, bytes, kind).map_err(io_error("write", &path))
    };
    let program = start::with_archive(code.to_vec(), START).map_err(io_error("make", &root))?;
    put(&format!("bin/{name}"), &program, Kind::Program)?;
    put(LAUNCH_FILE, &launch(job), Kind::Data)?;
    put(
        START,
        start::text(name, module.trim(), callable.trim()).as_bytes(),
        Kind::Data,
    )
}

/// What the launcher of a program starts; its root lies two folders below the bundle's.
fn launch(job: &Job<'_>) -> Vec<u8> {
    const BASE: &str = "../../python/";
    let program = format!("{BASE}{}", job.interpreter.program);
    let texts = job.interpreter.loader.as_ref().map(|loader| {
        let texts = loader.texts(BASE, Some(job.interpreter.program.as_str()));
        (loader, texts)
    });
    let mut records = match &texts {
        Some((loader, texts)) => loader.records(texts),
        None => vec![Record::Program(&program)],
    };
    records.extend([
        // The app that calls it has set the bundle's own.
        Record::KeepRoot,
        Record::Drop("PYTHON"),
        Record::Set("PYTHONNOUSERSITE=1"),
        Record::Set("PYTHONDONTWRITEBYTECODE=1"),
        Record::Argument("-I"),
        Record::Argument("-B"),
        Record::Path(START),
    ]);
    encode(&records)
}

/// The console scripts of the packages in `site`: name and object.
fn scripts(site: &Path) -> Result<Vec<(String, String)>, BuildError> {
    let mut found = Vec::new();
    for child in fs::read_dir(site).map_err(io_error("read", site))? {
        let path = child
            .map_err(io_error("read", site))?
            .path()
            .join("entry_points.txt");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        found.extend(
            entry_points(&text)
                .into_iter()
                .filter(|(group, _, object)| group == "console_scripts" && object.contains(':'))
                .filter(|(_, name, _)| is_file_name(name))
                .map(|(_, name, object)| (name, object)),
        );
    }
    found.sort();
    Ok(found)
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'))
}

fn unknown(script: &str, there: &[(String, String)]) -> ToolsError {
    let names: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    let help = match closest(script, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "no locked package has any program".to_owned(),
        None => {
            let shown: Vec<String> = names.iter().take(12).map(|n| format!("`{n}`")).collect();
            format!(
                "there are {}{}; is the package that has it among the requirements?",
                shown.join(", "),
                if names.len() > 12 { ", …" } else { "" }
            )
        }
    };
    ToolsError::Unknown {
        script: script.to_owned(),
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_no_package_has_is_refused_with_a_near_one() {
        let there = vec![("alembic".to_owned(), "alembic.config:main".to_owned())];
        let help = |script: &str| match unknown(script, &there) {
            ToolsError::Unknown { help, .. } => help,
            ToolsError::App { .. } => String::new(),
        };
        assert_eq!(help("alembik"), "did you mean `alembic`?");
        insta::assert_snapshot!(help("celery"), @"there are `alembic`; is the package that has it among the requirements?");
    }

    #[test]
    fn only_names_of_files_are_scripts() {
        assert!(is_file_name("pip3.11"));
        assert!(!is_file_name("../x"));
        assert!(!is_file_name(""));
    }
}
