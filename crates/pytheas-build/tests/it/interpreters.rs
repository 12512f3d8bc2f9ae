//! Interpreters: the host's Pythons, and python-build-standalone archives from a folder.

use std::{path::Path, process::Command, str::FromStr};

use pytheas_build::{Built, InterpreterChoice};
use pytheas_release::Sha256;

use crate::support::{
    Workspace, built, environment, host_python, python, run, shown, stdout, try_build,
};

const MAIN: &str = "import ssl, sqlite3, sys, idna\nprint(sys.version_info[:2], sys.prefix)\n";

fn workspace() -> Workspace {
    Workspace::new(&[("main.py", MAIN), ("requirements.txt", "idna\n")])
}

fn runs(built: &Built, version: &str) {
    let expected = format!(
        "({}) {}/python\n",
        version.replace('.', ", "),
        built.dir.display()
    );
    assert_eq!(stdout(&run(&built.dir.join("bin/project"), &[])), expected);
}

#[test]
fn debians_python_is_copied() {
    let Some(path) = host_python("/usr/bin/python3.11") else {
        return;
    };
    let workspace = workspace();
    let mut request = workspace.request();
    request.interpreter = InterpreterChoice::Path(path);
    let built = built(&request);
    assert_eq!(built.interpreter.origin, Path::new("/usr/bin/python3.11"));
    runs(&built, "3.11");
    assert!(
        built
            .dir
            .join("python/lib/python3/dist-packages/idna")
            .is_dir(),
        "packages are where it looks for them"
    );
}

#[test]
fn a_pyenv_python_of_another_version_is_found_by_its_number() {
    let Some(_) = host_python("/root/.pyenv/versions/3.13.0/bin/python3.13") else {
        return;
    };
    let workspace = workspace();
    let mut request = workspace.request();
    request.python = Some("3.13".parse().unwrap());
    runs(&built(&request), "3.13");
}

#[test]
fn a_virtual_environment_stands_for_its_base() {
    let workspace = workspace();
    let venv = workspace.root().join("venv");
    let output = Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(&venv)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut request = workspace.request();
    request.interpreter = InterpreterChoice::Path(venv.join("bin/python"));
    let built = built(&request);
    assert!(
        !built.interpreter.origin.starts_with(&venv),
        "{:?}",
        built.interpreter.origin
    );
    assert!(
        stdout(&run(&built.dir.join("bin/project"), &[]))
            .contains(&built.dir.display().to_string())
    );
}

#[test]
fn a_python_that_does_not_exist_here_is_an_error_that_lists_those_that_do() {
    let workspace = workspace();
    let mut request = workspace.request();
    request.python = Some("3.99".parse().unwrap());
    let text = shown(&try_build(&request).unwrap_err());
    assert!(
        text.starts_with("error: no Python 3.99 for `linux-"),
        "{text}"
    );
    assert!(text.contains("this machine has Python 3."), "{text}");
}

#[test]
fn uvs_pythons_are_found_where_uv_keeps_them() {
    let workspace = workspace();
    let first = workspace.build();
    // A Python in the layout of uv's, which are python-build-standalone's unpacked.
    let pythons = workspace.root().join("uv pythons");
    std::fs::create_dir_all(pythons.join("cpython-x")).unwrap();
    Command::new("cp")
        .arg("-a")
        .arg(first.dir.join("python/."))
        .arg(pythons.join("cpython-x"))
        .status()
        .unwrap();
    let mut request = workspace.request();
    request.out = Some(workspace.root().join("second"));
    request.python = Some(first.interpreter.version.parse().unwrap());
    request.environment = with_uv(environment())
        .with("UV_PYTHON_INSTALL_DIR", pythons.clone())
        .with("PATH", "/nowhere")
        .with("PYENV_ROOT", "/nowhere");
    let second = built(&request);
    assert!(
        second.interpreter.origin.starts_with(&pythons),
        "{:?}",
        second.interpreter.origin
    );
    assert!(stdout(&run(&second.dir.join("bin/project"), &[])).contains("second/python"));
}

#[test]
fn a_python_outside_of_what_the_project_supports_is_refused() {
    let workspace = workspace();
    workspace.write(
        "pyproject.toml",
        "[project]\nname = 'project'\nversion = '1'\nrequires-python = '>=3.10'\n",
    );
    let mut request = workspace.request();
    request.python = Some("3.8".parse().unwrap());
    let text = shown(&try_build(&request).unwrap_err());
    assert!(
        text.starts_with(
            "error: no Python 3.8 (within >=3.10, as project and lock file say) for `linux-"
        ),
        "{text}"
    );
    let error = InterpreterChoice::from_str("python3").unwrap_err();
    insta::assert_snapshot!(error, @"`python3` is no interpreter provider; known are `auto`, `pbs`, `debian`, `host` and the path of a Python");
}

/// An archive in the layout of python-build-standalone, made of a bundle's interpreter.
fn archive(from: &Built, folder: &Path, version: &str) -> (String, Vec<u8>) {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let name = format!("cpython-{version}+20990101-{triple}-install_only.tar.gz");
    std::fs::create_dir_all(folder).unwrap();
    let file = folder.join(&name);
    let output = Command::new("tar")
        .arg("-czf")
        .arg(&file)
        .arg("-C")
        .arg(&from.dir)
        .arg("python")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let bytes = std::fs::read(file).unwrap();
    (name, bytes)
}

#[test]
fn an_archive_of_python_build_standalone_is_taken_from_a_folder_when_its_hash_is_right() {
    let workspace = workspace();
    workspace.write("requirements.txt", "");
    workspace.write(
        "main.py",
        "import sys\nprint(sys.version_info[:2], sys.prefix)\n",
    );
    let source = workspace.build();
    let short = source
        .interpreter
        .version
        .splitn(3, '.')
        .take(2)
        .collect::<Vec<_>>()
        .join(".");
    let folder = workspace.root().join("mirror");
    let (name, bytes) = archive(&source, &folder, &source.interpreter.version);

    let mut request = workspace.request();
    request.interpreter = InterpreterChoice::PythonBuildStandalone;
    request.python_mirror = Some(folder.display().to_string());
    request.out = Some(workspace.root().join("from archive"));
    let filter = |text: String| {
        let text = text
            .replace(&folder.display().to_string(), "MIRROR")
            .replace(&name, "ARCHIVE");
        text.replace(&Sha256::of(&bytes).to_string(), "FOUND")
            .replace(&"0".repeat(64), "EXPECTED")
    };

    insta::assert_snapshot!(filter(shown(&try_build(&request).unwrap_err())), @"
    error: nothing says what `ARCHIVE` should contain
      help: put the release's `SHA256SUMS` beside it in `MIRROR`
    ");
    let sums = |hash: &str| {
        pytheas_durable::replace(
            &folder.join("SHA256SUMS"),
            format!("{hash}  {name}\n").as_bytes(),
        )
        .unwrap()
    };
    sums(&"0".repeat(64));
    insta::assert_snapshot!(filter(shown(&try_build(&request).unwrap_err())), @"
    error: `ARCHIVE` from `MIRROR` is not the file it should be
      help: its SHA-256 is FOUND, expected EXPECTED (SHA256SUMS); fetch it again from a place you trust
    ");

    sums(&Sha256::of(&bytes).to_string());
    request.environment = environment().with("PYTHEAS_CACHE_DIR", workspace.root().join("cache"));
    request.environment = with_uv(request.environment);
    let built = built(&request);
    assert_eq!(
        built.record.interpreter.as_ref().unwrap().provider,
        "python-build-standalone"
    );
    assert_eq!(
        built.record.interpreter.as_ref().unwrap().sha256,
        Some(Sha256::of(&bytes))
    );
    runs(&built, &short);
    assert!(!python(&built.dir).with_file_name("pip").exists());

    // Automatic: what is in the cache comes before the host's, and needs no mirror.
    request.python_mirror = None;
    request.interpreter = InterpreterChoice::Automatic;
    assert_eq!(
        crate::support::built(&request).interpreter.provider,
        "python-build-standalone"
    );
}

/// The uv of the shared cache, so that a test with its own cache does not fetch one.
fn with_uv(environment: pytheas_project::Environment) -> pytheas_project::Environment {
    use pytheas_project::{Connectivity, Uv};
    let uv = Uv::find(
        &crate::support::environment(),
        Connectivity::Online,
        &|_| {},
    )
    .unwrap();
    environment.with("PYTHEAS_UV", uv.path)
}

#[test]
fn python_build_standalone_without_a_mirror_says_what_to_configure() {
    let workspace = workspace();
    let mut request = workspace.request();
    request.interpreter = InterpreterChoice::PythonBuildStandalone;
    request.environment =
        with_uv(environment().with("PYTHEAS_CACHE_DIR", workspace.root().join("cache")));
    insta::assert_snapshot!(shown(&try_build(&request).unwrap_err()), @"
    error: no place is configured to fetch python-build-standalone from
      help: set `PYTHEAS_PYTHON_MIRROR` to the address of its releases or to a folder with its `install_only` archives
    ");
}

#[test]
fn a_damaged_interpreter_in_the_cache_is_made_again() {
    let workspace = workspace();
    let mut request = workspace.request();
    let cache = workspace.root().join("cache");
    request.environment = with_uv(request.environment).with("PYTHEAS_CACHE_DIR", &cache);
    let first = built(&request);
    let killed = cache.join("interpreters/.new-4194304999-x");
    std::fs::create_dir(&killed).unwrap();
    let stdlib = first.interpreter.stdlib.under(&first.interpreter.dir);
    let module = stdlib.join("json/__init__.py");
    pytheas_durable::replace(&module, b"").unwrap();
    let second = built(&request);
    assert_eq!(first.tree_id, second.tree_id);
    assert!(
        !killed.exists(),
        "what a killed build left in the cache stays"
    );
}

#[test]
fn a_lock_made_for_the_python_that_was_found_gives_way_to_one_that_is_wanted() {
    let Some(other) = host_python("/root/.pyenv/versions/3.9.18/bin/python3") else {
        return;
    };
    let workspace = workspace();
    workspace.build();
    let mut request = workspace.request();
    request.interpreter = InterpreterChoice::Path(other);
    runs(&built(&request), "3.9");
    let again = workspace.build();
    assert_ne!(again.interpreter.version, "3.9.18");
    assert!(again.locked.is_none(), "a lock for 3.9 and newer holds");
}
