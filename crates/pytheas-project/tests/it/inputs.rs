//! Every kind of input, read and locked with the real uv and the real index.

use pytheas_project::{
    Event, Project, RequirementSource,
    lock::{self, LockError, LockOptions},
};

use crate::support::{Workspace, shown, uv};

fn options() -> LockOptions {
    LockOptions {
        python_version: Some("3.11".to_owned()),
        ..LockOptions::default()
    }
}

/// The locked `name==version` of a project; notes and warnings before them.
#[track_caller]
fn locked(workspace: &Workspace, project: &Project) -> Vec<String> {
    match try_lock(project) {
        Ok(list) => list,
        Err(error) => panic!("{}", workspace.filtered(&shown(&error))),
    }
}

fn try_lock(project: &Project) -> Result<Vec<String>, LockError> {
    let said = std::cell::RefCell::new(project.notes.clone());
    lock::lock(project, &uv(), &options(), &|event| match event {
        Event::Warning { text } => said.borrow_mut().push(text),
        Event::PinsFrom { file, packages } => {
            said.borrow_mut().push(format!("{packages} pins of {file}"))
        }
        _ => {}
    })?;
    let lock = lock::check(project)?;
    let mut list = said.into_inner();
    list.extend(lock.packages.iter().map(|package| {
        let version = package.version.as_deref().unwrap_or("?");
        format!("{}=={version}", package.name)
    }));
    Ok(list)
}

#[track_caller]
fn lock_failure(workspace: &Workspace) -> String {
    let error = try_lock(&workspace.project()).unwrap_err();
    workspace.filtered(&shown(&error))
}

const POETRY: &str = "[tool.poetry]\nname = 'shop'\nversion = '2.1'\n[tool.poetry.dependencies]\npython = '^3.11'\nidna = '~3.4'\nlibrary = { path = 'library' }\nmarkupsafe = { version = '^2.0', optional = true }\n[tool.poetry.extras]\nweb = ['markupsafe']\n[tool.poetry.scripts]\nshop = 'shop.cli:main'\n";
const LIBRARY: (&str, &str) = (
    "library/pyproject.toml",
    "[project]\nname = 'library'\nversion = '1'\n",
);

#[test]
fn a_poetry_project_is_locked_with_its_extras_and_folders() {
    let text = format!("{POETRY}[tool.pytheas]\nextras = ['web']\n");
    let workspace = Workspace::new(&[("pyproject.toml", &text), LIBRARY]);
    let project = workspace.project();
    assert_eq!(project.source, RequirementSource::Poetry);
    assert_eq!(
        (
            project.name.as_str(),
            project.version.as_ref().unwrap().as_str()
        ),
        ("shop", "2.1")
    );
    assert_eq!(project.entry(None).unwrap().to_string(), "shop.cli:main");
    assert_eq!(
        locked(&workspace, &project),
        ["idna==3.4", "library==?", "markupsafe==2.1.5"]
    );
    let text = workspace.read("pylock.toml");
    assert!(
        text.contains("path = \"library\"") && text.contains("library @ ./library"),
        "{text}"
    );
    assert!(!text.contains("/tmp"), "{text}");
}

#[test]
fn the_versions_of_another_tools_lock_are_kept() {
    let pins = "[[package]]\nname = 'idna'\nversion = '3.6'\n";
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            "[project]\nname = 'a'\nversion = '1'\ndependencies = ['idna']\n",
        ),
        ("poetry.lock", pins),
    ]);
    assert_eq!(
        locked(&workspace, &workspace.project()),
        ["1 pins of poetry.lock", "idna==3.6"]
    );
}

#[test]
fn a_pipfile_keeps_the_pins_of_its_lock_and_a_lock_alone_is_enough() {
    let lock = r#"{"_meta":{"requires":{"python_version":"3.11"},"sources":[]},"default":{"idna":{"hashes":[],"version":"==3.5","markers":"python_version >= '3.5'"}},"develop":{}}"#;
    let workspace = Workspace::new(&[
        (
            "Pipfile",
            "[packages]\nidna = '*'\n[requires]\npython_version = '3.11'\n",
        ),
        ("Pipfile.lock", lock),
        ("requirements.txt", "flask\n"),
    ]);
    let project = workspace.project();
    assert_eq!(project.source, RequirementSource::Pipfile);
    assert_eq!(
        locked(&workspace, &project),
        [
            "requirements are those of `Pipfile`; `requirements.txt` is not used (`--project FILE` names one)",
            "1 pins of Pipfile.lock",
            "idna==3.5",
        ]
    );
    let alone = Workspace::new(&[("Pipfile.lock", lock)]);
    assert_eq!(alone.project().source, RequirementSource::PipfileLock);
    assert_eq!(
        locked(&alone, &alone.project()),
        ["1 pins of Pipfile.lock", "idna==3.5"]
    );
}

#[test]
fn setup_cfg_is_read_and_setup_py_is_asked_through_its_back_end() {
    let config = "[metadata]\nname = legacy\nversion = 1.0\n[options]\npy_modules = legacy\ninstall_requires =\n    idna==3.4\n[options.entry_points]\nconsole_scripts =\n    legacy = legacy:main\n";
    let workspace = Workspace::new(&[("setup.cfg", config), ("legacy.py", "def main(): pass\n")]);
    let project = workspace.project();
    assert_eq!(project.source, RequirementSource::SetupCfg);
    assert!(project.has_build_system);
    assert_eq!(project.entry(None).unwrap().to_string(), "legacy:main");
    assert_eq!(locked(&workspace, &project), ["idna==3.4"]);

    let code = "import os\nfrom setuptools import setup\nsetup(name='older', version='3', py_modules=['older'], install_requires=['idna==' + os.environ.get('NO_SUCH', '3.6')])\n";
    let workspace = Workspace::new(&[("setup.py", code), ("older.py", "")]);
    let project = workspace.project();
    assert_eq!(project.source, RequirementSource::BuildBackend);
    assert_eq!(project.name.as_str(), "older");
    assert!(project.has_entry_in_metadata());
    assert_eq!(locked(&workspace, &project), ["idna==3.6"]);
    workspace.write("setup.py", &code.replace("3.6", "3.7"));
    assert!(matches!(
        lock::check(&workspace.project()),
        Err(LockError::Stale { .. })
    ));
}

#[test]
fn a_script_is_locked_beside_itself() {
    let script = "# /// script\n# dependencies = ['idna==3.4']\n# [tool.pytheas]\n# app = 'report'\n# ///\nimport idna\n";
    let workspace = Workspace::new(&[("make_report.py", script)]);
    let project = Project::load(&workspace.root().join("make_report.py")).unwrap();
    assert_eq!(project.source, RequirementSource::Script);
    assert_eq!(project.name.as_str(), "report");
    assert_eq!(project.entry(None).unwrap().to_string(), "make_report.py");
    assert_eq!(locked(&workspace, &project), ["idna==3.4"]);
    assert!(
        workspace
            .read("pylock.make-report.toml")
            .contains("from make_report.py")
    );
}

#[test]
fn a_published_package_needs_no_project() {
    let workspace = Workspace::new(&[]);
    let project = Project::published(
        "idna==3.4",
        &["markupsafe==2.1.5".to_owned()],
        &workspace.root(),
    )
    .unwrap();
    assert_eq!(
        (project.name.as_str(), project.package.as_deref()),
        ("idna", Some("idna"))
    );
    assert_eq!(
        locked(&workspace, &project),
        ["idna==3.4", "markupsafe==2.1.5"]
    );
    assert!(
        workspace
            .read("pylock.idna.toml")
            .starts_with("# Written by `pytheas lock` from --from idna==3.4;")
    );
    let wrong = |text: &str| shown(&Project::published(text, &[], &workspace.root()).unwrap_err());
    insta::assert_snapshot!(wrong("octo print"), @"
    error: `octo print` is no requirement
      help: write a package's name, with a version if you want one: `octoprint==1.10.3`; with an address, `NAME @ git+https://…`; or the path of a wheel
    ");
    let missing = wrong("./missing-1-py3-none-any.whl");
    assert!(
        missing.starts_with("error: cannot read the wheel `"),
        "{missing}"
    );
}

#[test]
fn pure_python_of_a_conda_environment_is_locked_and_the_rest_is_listed() {
    let workspace = Workspace::new(&[(
        "environment.yml",
        "name: lab\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip\n  - conda-forge::idna=3.4\n  - pip:\n    - markupsafe==2.1.5\n",
    )]);
    let project = workspace.project();
    assert_eq!(project.name.as_str(), "lab");
    assert_eq!(project.python(None).unwrap().to_string(), "==3.11.*");
    assert_eq!(
        locked(&workspace, &project),
        ["idna==3.4", "markupsafe==2.1.5"]
    );

    workspace.write(
        "environment.yml",
        "dependencies:\n  - libpq\n  - click=8|9\n  - idna\n  - r-base=4\n",
    );
    insta::assert_snapshot!(workspace.failure(), @"
    error: `DIR/environment.yml` asks for conda packages that are not covered yet: `libpq` (no Python package), `click=8|9` (its version is not understood), `r-base=4` (no Python package)
      help: covered are the `pip:` part and pure Python packages that the package index has by the same name; move what has wheels there below `pip:`, and take the rest from the device's system
    ");
    workspace.write(
        "environment.yml",
        "dependencies:\n  - markupsafe=2.1.5\n  - idna\n",
    );
    insta::assert_snapshot!(lock_failure(&workspace).lines().next().unwrap(), @"error: `DIR/environment.yml` asks for conda packages that are not covered yet: `markupsafe` (not pure Python)");
    workspace.write(
        "environment.yml",
        "dependencies:\n  - no-such-package-pytheas-1\n  - idna\n  - no-such-package-pytheas-2\n",
    );
    insta::assert_snapshot!(lock_failure(&workspace).lines().next().unwrap(), @"error: `DIR/environment.yml` asks for conda packages that are not covered yet: `no-such-package-pytheas-1` (not on the package index), `no-such-package-pytheas-2` (not on the package index)");
}

#[test]
fn a_bare_package_and_a_zip_application_have_no_requirements() {
    let workspace = Workspace::new(&[("tool/__init__.py", ""), ("tool/__main__.py", "print(1)\n")]);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    let options = options.compression_method(zip::CompressionMethod::Stored);
    archive.start_file("__main__.py", options).unwrap();
    let bytes = archive.finish().unwrap().into_inner();
    pytheas_durable::replace(&workspace.root().join("app.pyz"), &bytes).unwrap();
    let project = Project::load(&workspace.root().join("tool")).unwrap();
    assert_eq!(project.entry(None).unwrap().to_string(), "tool");
    assert_eq!(project.source, RequirementSource::Nothing);
    assert_eq!(locked(&workspace, &project), [""; 0]);
    let project = Project::load(&workspace.root().join("app.pyz")).unwrap();
    assert_eq!(
        (
            project.name.as_str(),
            project.entry(None).unwrap().to_string().as_str()
        ),
        ("app", "app.pyz")
    );
}

#[test]
fn a_named_file_wins_and_several_must_be_named() {
    let workspace = Workspace::new(&[
        ("requirements-a.txt", "idna\n"),
        ("requirements-b.txt", "idna==3.4\n"),
        ("main.py", ""),
    ]);
    insta::assert_snapshot!(workspace.failure(), @"
    error: `DIR` has several requirements files: `requirements-a.txt`, `requirements-b.txt`
      help: name one: `--project FILE`
    ");
    let project = Project::load(&workspace.root().join("requirements-b.txt")).unwrap();
    assert_eq!(locked(&workspace, &project), ["idna==3.4"]);
    let project = Project::load(&workspace.root().join("main.py"));
    assert!(
        project.is_ok(),
        "a script without metadata stands alone here"
    );
    workspace.write("data.csv", "");
    let error = Project::load(&workspace.root().join("data.csv")).unwrap_err();
    insta::assert_snapshot!(workspace.filtered(&shown(&error)), @"
    error: `DIR/data.csv` is no kind of project that is known
      help: known are `pyproject.toml`, `setup.py`, `setup.cfg`, `Pipfile`, `Pipfile.lock`, `requirements*.txt`, `environment.yml`, a script (`.py`), a zip application (`.pyz`) and a folder
    ");
}

#[test]
fn broken_inputs_are_told_with_their_place() {
    let failure = |name: &str, text: &str| Workspace::new(&[(name, text)]).failure();
    insta::assert_snapshot!(failure("Pipfile", "[packages]\nidna = '*\n"), @"error: `DIR/Pipfile` line 2, column 10: invalid literal string, expected `'`");
    insta::assert_snapshot!(failure("Pipfile", "[packages]\nidna = '^3'\n"), @"
    error: `idna` in `DIR/Pipfile` is `^3`: it is no PEP 440 version specifier
      help: correct it there; a range that every tool reads is written as `>=1.2,<2`
    ");
    insta::assert_snapshot!(failure("Pipfile.lock", "{\"default\": {,}}"), @"error: `DIR/Pipfile.lock` line 1, column 14: key must be a string");
    insta::assert_snapshot!(failure("environment.yml", "dependencies:\n  - a\n b: [\n"), @"error: `DIR/environment.yml` line 3, column 2: while parsing a block mapping, did not find expected key");
    insta::assert_snapshot!(failure("pyproject.toml", &POETRY.replace("~3.4", "1.2 || 1.4")), @"
    error: `idna` in `DIR/pyproject.toml` is `1.2 || 1.4`: it is no single range: PEP 440 cannot leave out what lies between its parts
      help: correct it there; a range that every tool reads is written as `>=1.2,<2`
    ");
    insta::assert_snapshot!(failure("pyproject.toml", &POETRY.replace("~3.4", "latest")), @"
    error: `idna` in `DIR/pyproject.toml` is `latest`: it is no version range
      help: correct it there; a range that every tool reads is written as `>=1.2,<2`
    ");
    insta::assert_snapshot!(failure("pyproject.toml", &POETRY.replace("['markupsafe']", "['flask']")), @"
    error: `extras.web` in `DIR/pyproject.toml` is `flask`: it is no optional dependency of `[tool.poetry.dependencies]`
      help: correct it there; a range that every tool reads is written as `>=1.2,<2`
    ");
}

#[test]
fn broken_script_metadata_is_told_with_its_place() {
    let failure = |text: &str| {
        let workspace = Workspace::new(&[("tool.py", text)]);
        let error = Project::load(&workspace.root().join("tool.py")).unwrap_err();
        workspace.filtered(&shown(&error))
    };
    let block = "# /// script\n# dependencies = []\n# ///\n";
    insta::assert_snapshot!(failure(&format!("{block}\n{block}")), @"
    error: `DIR/tool.py` has a second `# /// script` block in line 5; the first is in line 1
      help: PEP 723 allows one; put all dependencies into it
    ");
    insta::assert_snapshot!(failure("import x\n# /// script\n# dependencies = []\n\nprint(1)\n"), @"
    error: the `# /// script` block in line 2 of `DIR/tool.py` is never closed
      help: end it with a line `# ///`; each line between must be `#` or start with `# `
    ");
    insta::assert_snapshot!(failure("\n# /// script\n# dependencies = [\n# ///\n"), @"error: `DIR/tool.py` line 3, column 17: unclosed array, expected `]`");
}

#[test]
fn requirements_in_another_encoding_are_refused_and_a_byte_order_mark_is_not() {
    let workspace = Workspace::new(&[("requirements.txt", "\u{feff}idna==3.4\n")]);
    assert_eq!(locked(&workspace, &workspace.project()), ["idna==3.4"]);
    let write = |bytes: &[u8]| {
        pytheas_durable::replace(&workspace.root().join("requirements.txt"), bytes).unwrap();
    };
    write(b"# ok\nidna # caf\xe9\n");
    insta::assert_snapshot!(lock_failure(&workspace), @"
    error: `DIR/requirements.txt` is not UTF-8 but another encoding, first in line 2
      help: save it as UTF-8; PowerShell's `>` writes UTF-16
    ");
    // PowerShell's `pip freeze > requirements.txt`; pip reads it, too.
    let text = "\u{feff}idna==3.4\r\n".encode_utf16();
    write(&text.flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    assert_eq!(locked(&workspace, &workspace.project()), ["idna==3.4"]);
    write(b"\xff\xfei\0d\0n\0a");
    insta::assert_snapshot!(lock_failure(&workspace).lines().next().unwrap(), @"error: `DIR/requirements.txt` is not UTF-8 but UTF-16");
}

#[test]
fn files_that_name_each_other_are_refused_as_pip_does() {
    let workspace = Workspace::new(&[
        ("requirements.txt", "-r more.txt\nidna==3.4\n"),
        ("more.txt", "-r requirements.txt\nmarkupsafe==2.1.5\n"),
    ]);
    insta::assert_snapshot!(lock_failure(&workspace), @"
    error: `DIR/requirements.txt` names itself: `DIR/requirements.txt` line 1 → `DIR/more.txt` line 1 → `DIR/requirements.txt`
      help: take one of these lines out, or move what both files share to a third that both name
    ");
}

#[test]
fn pre_releases_are_taken_where_the_file_says_so() {
    // Every version that the second one allows is before its release.
    let workspace = Workspace::new(&[("requirements.txt", "--pre\nhttpx==1.0.*\n")]);
    let list = locked(&workspace, &workspace.project());
    assert!(
        list.iter().any(|one| one.starts_with("httpx==1.0.dev")),
        "{list:?}"
    );
}

#[test]
fn hashes_of_a_pipfile_lock_are_compared() {
    let none = "0".repeat(64);
    let text = format!(
        r#"{{"_meta": {{}}, "default": {{"six": {{"version": "==1.17.0", "hashes": ["sha256:{none}"]}}}}}}"#
    );
    let workspace = Workspace::new(&[("Pipfile.lock", &text)]);
    assert!(lock_failure(&workspace).contains("no file of `six` 1.17.0 has a hash"));
}

#[test]
fn a_hash_that_no_file_has_and_a_misspelt_requirement_stop_the_lock() {
    let zeros = "0".repeat(64);
    let workspace = Workspace::new(&[(
        "requirements.txt",
        &format!("idna==3.7 --hash=sha256:{zeros}\n"),
    )]);
    insta::assert_snapshot!(lock_failure(&workspace), @"
    error: no file of `idna` 3.7 has a hash that `DIR/requirements.txt` demands
      help: the index may serve a forged file; if its file is the right one, correct `--hash` (SHA-256 is compared)
    ");
    workspace.write("requirements.txt", "idna=3.7\n");
    insta::assert_snapshot!(lock_failure(&workspace), @"
    error: `DIR/requirements.txt` line 1: `idna=3.7` is no requirement
      help: one version is written with `==`: `idna==3.7`
    ");
    // The wheel's hash only: the sdist is not in the lock.
    workspace.write("requirements.txt", "idna==3.7 --hash=sha256:82fee1fc78add43492d3a1898bfa6d8a904cc97d8427f683ed8e798d07761aa0\n");
    locked(&workspace, &workspace.project());
    let text = workspace.read("pylock.toml");
    assert!(
        text.contains("wheels = [") && !text.contains("sdist"),
        "{text}"
    );
}

#[test]
fn a_yanked_version_is_locked_with_a_warning_that_names_it() {
    let workspace = Workspace::new(&[("requirements.txt", "attrs==21.1.0\n")]);
    let said = locked(&workspace, &workspace.project());
    insta::assert_snapshot!(said[0], @r#"`attrs==21.1.0` is yanked (reason: "Installable but not importable on Python 3.4.")"#);
}
