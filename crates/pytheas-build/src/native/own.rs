//! The app's own package, where it holds C code: built as source distributions are, when this
//! machine's compiler would not do; and as a wheel for an index.

use std::path::{Path, PathBuf};

use pytheas_project::{Project, Target, Uv};
use pytheas_release::{Platform, Sha256};
use walkdir::WalkDir;

use super::{
    error::{self, NativeError, Subject, io_error},
    host_compiles, sdist, wheel_of,
};
use crate::{
    app,
    build::BuildRequest,
    error::BuildError,
    event::Observer,
    install::Installer,
    interpreter::{self, Wanted},
    scratch,
};

/// Builds the project into a wheel that fits the installer's platform; gives the wheel, in
/// `scratch`.
pub(crate) fn wheel(
    installer: &Installer<'_>,
    project: &Project,
    python: &Path,
    scratch: &Path,
    output: &Path,
) -> Result<PathBuf, BuildError> {
    let source = app::copied_for_build(project, scratch, output)?;
    let by_uv = || app::build_copied(project, installer.uv, python, scratch, &source);
    let by_zig = || compiled(installer, project, scratch, &source);
    if host_compiles(installer) {
        return by_uv();
    }
    if holds_code(&source) {
        return by_zig();
    }
    let wheel = by_uv()?;
    let fits = installer.interpreter.runs_here() || wheel.to_string_lossy().ends_with("-any.whl");
    if fits { Ok(wheel) } else { by_zig() }
}

fn compiled(
    installer: &Installer<'_>,
    project: &Project,
    scratch: &Path,
    source: &Path,
) -> Result<PathBuf, BuildError> {
    let subject = subject(installer, project);
    // Before anything is fetched for the target.
    check_tools(source, &subject)?;
    let unpack = |into: &Path| {
        scratch::copy_tree(source, into).map_err(io_error("copy", source))?;
        Ok(into.to_owned())
    };
    let key = key(source).map_err(io_error("read", source))?;
    let made = wheel_of(installer, &subject, &key, false, &unpack)?;
    let path = scratch.join("native").join(&made.name);
    scratch::write(&path, &made.bytes, scratch::Kind::Data).map_err(io_error("write", &path))?;
    Ok(path)
}

/// Refuses a project that is built by a tool that is not supported: its wheel has to be made elsewhere.
fn check_tools(source: &Path, subject: &Subject) -> Result<(), NativeError> {
    let system = sdist::build_system(source)?;
    error::check_tools(&system.requires, 64, subject).map_err(|error| match error {
        NativeError::Tool {
            package,
            version,
            platform,
            tool,
            ..
        } => NativeError::Tool {
            help: format!(
                "make its wheel for `{platform}` with {tool} itself, on such a machine or with a cross compiler of its own, and build from that: `pytheas build --from ./{package}-{version}-….whl --platform {platform}`"
            ),
            package,
            version,
            platform,
            tool,
        },
        other => other,
    })
}

fn subject(installer: &Installer<'_>, project: &Project) -> Subject {
    let version = project.version.as_ref().map(ToString::to_string);
    Subject {
        package: project.name.to_string(),
        version: version.unwrap_or_else(|| "itself".to_owned()),
        platform: installer.platform.clone(),
    }
}

/// Builds the source distribution in `made` into a wheel beside it for `platform`, when it holds
/// code for a compiler; gives whether it does.
pub(crate) fn compiled_distribution(
    request: &BuildRequest,
    target: &Target,
    uv: &Uv,
    platform: &Platform,
    made: &Path,
    observer: Observer<'_>,
) -> Result<bool, BuildError> {
    let children = std::fs::read_dir(made).map_err(io_error("read", made))?;
    let sdist = children
        .flatten()
        .map(|child| child.path())
        .find(|path| path.to_string_lossy().ends_with(".tar.gz"));
    let Some(path) = sdist.filter(|path| sdist::has_compiled_code(path)) else {
        return Ok(false);
    };
    let project = &request.project;
    let mirror = request
        .python_mirror
        .as_deref()
        .or_else(|| request.environment.get("PYTHEAS_PYTHON_MIRROR"))
        .or(project.settings.python_mirror.as_deref());
    let interpreter = interpreter::provide(&Wanted {
        python: project
            .python(request.python.as_ref().or(target.python.as_ref()))
            .as_ref(),
        locked: project.requires_python.as_ref(),
        platform,
        choice: &request.interpreter,
        mirror,
        connectivity: request.connectivity,
        environment: &request.environment,
        observer,
        foreseen: &|_| {},
    })?;
    let installer = Installer {
        interpreter: &interpreter,
        platform,
        uv,
        connectivity: request.connectivity,
        environment: &request.environment,
        observer,
    };
    let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
    let unpack = |into: &Path| sdist::unpack(&path, &bytes, into);
    let key = Sha256::of(&bytes).to_string();
    let subject = subject(&installer, project);
    let wheel = wheel_of(&installer, &subject, &key, false, &unpack)?;
    let to = made.join(&wheel.name);
    scratch::write(&to, &wheel.bytes, scratch::Kind::Data).map_err(io_error("write", &to))?;
    Ok(true)
}

/// Whether the folder holds code for a compiler, tests and the like aside.
fn holds_code(dir: &Path) -> bool {
    WalkDir::new(dir).into_iter().flatten().any(|entry| {
        entry.file_type().is_file()
            && entry
                .path()
                .strip_prefix(dir)
                .is_ok_and(|path| path.to_str().is_some_and(sdist::counts))
    })
}

/// Names the content of a folder: paths, kinds, what files hold and links name.
fn key(dir: &Path) -> std::io::Result<String> {
    let mut text = String::from("tree\0");
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path();
        let inside = path.strip_prefix(dir).unwrap_or(path).display();
        if entry.file_type().is_symlink() {
            let link = std::fs::read_link(path)?;
            text.push_str(&format!("l {inside}\0{}\0", link.display()));
        } else if entry.file_type().is_file() {
            use std::os::unix::fs::PermissionsExt as _;
            let program = entry.metadata()?.permissions().mode() & 0o111 != 0;
            let sha256 = Sha256::of(&std::fs::read(path)?);
            text.push_str(&format!("f {inside}\0{program} {sha256}\0"));
        } else {
            text.push_str(&format!("d {inside}\0"));
        }
    }
    Ok(Sha256::of(text.as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_folder_names_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            scratch::write(&dir.path().join(name), bytes, scratch::Kind::Data).unwrap();
            key(dir.path()).unwrap()
        };
        let first = write("a/x.c", b"int a;");
        assert!(holds_code(dir.path()));
        assert_eq!(write("a/x.c", b"int a;"), first);
        assert_ne!(write("a/x.c", b"int b;"), first);
        write("a/x.c", b"int a;");
        assert_ne!(write("b", b""), first);
    }

    #[test]
    fn a_project_of_rust_is_told_to_make_its_wheel_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"[build-system]\nrequires = ['maturin>=1.7']\nbuild-backend = 'maturin'\n";
        let path = dir.path().join("pyproject.toml");
        scratch::write(&path, text, scratch::Kind::Data).unwrap();
        let subject = Subject {
            package: "rusty".to_owned(),
            version: "0.1".to_owned(),
            platform: "linux-armv7".parse().unwrap(),
        };
        let error = check_tools(dir.path(), &subject).unwrap_err();
        let help = miette::Diagnostic::help(&error).unwrap();
        insta::assert_snapshot!(format!("{error}\n{help}"), @"
        `rusty` 0.1 has no wheel for `linux-armv7`, and its source is built by maturin (Rust), which is not supported
        make its wheel for `linux-armv7` with maturin (Rust) itself, on such a machine or with a cross compiler of its own, and build from that: `pytheas build --from ./rusty-0.1-….whl --platform linux-armv7`
        ");
    }

    #[test]
    fn c_files_of_tests_are_no_code_of_the_package() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tests/x.c");
        scratch::write(&path, b"int a;", scratch::Kind::Data).unwrap();
        assert!(!holds_code(dir.path()));
    }
}
