//! What a hostile reader of the inputs' promises found: pip's own habits in requirements files,
//! dynamic dependencies, and locks that no longer hold though the project's file is as it was.

use std::io::Write;

use pytheas_project::{
    Project, RequirementSource,
    lock::{self, LockOptions, LockStatus},
};

use crate::support::{Workspace, shown, uv};

#[track_caller]
fn locked(workspace: &Workspace, project: &Project) -> Vec<String> {
    let options = LockOptions {
        python_version: Some("3.11".to_owned()),
        ..LockOptions::default()
    };
    if let Err(error) = lock::lock(project, &uv(), &options, &|_| {}) {
        panic!("{}", workspace.filtered(&shown(&error)));
    }
    let lock = lock::check(project).unwrap();
    let name = |package: &pytheas_project::LockedPackage| {
        let version = package.version.as_deref().unwrap_or("?");
        format!("{}=={version}", package.name)
    };
    lock.packages.iter().map(name).collect()
}

#[track_caller]
fn changes(project: &Project) -> Vec<String> {
    match lock::status(project).unwrap() {
        LockStatus::Current(_) => Vec::new(),
        LockStatus::Stale(changes) => changes.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

const BACK_END: &str =
    "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n";

#[test]
fn lines_of_requirements_may_go_on_anywhere_as_in_pip() {
    let workspace = Workspace::new(&[
        (
            "requirements.txt",
            "idna \\\r\n  ==3.4 # why\r\nmarkupsafe >=2,\\\r\n  <2.1.4 \\\r\n  ; python_version > '3'\r\n-r sub/more.txt\r\n",
        ),
        ("sub/more.txt", "-c limits.txt\niniconfig\n./library\n"),
        ("sub/limits.txt", "iniconfig<2\n"),
        // As in pip, a path is relative to where one stands: the project's folder.
        (
            "library/setup.py",
            "from setuptools import setup\nsetup(name='library', version='1')\n",
        ),
    ]);
    assert_eq!(
        locked(&workspace, &workspace.project()),
        [
            "idna==3.4",
            "iniconfig==1.1.1",
            "library==?",
            "markupsafe==2.1.3"
        ]
    );
    let text = workspace.read("pylock.toml");
    assert!(text.contains("path = \"library\""), "{text}");
}

#[test]
fn a_line_that_uv_does_not_understand_is_told_with_its_file_and_number() {
    let workspace = Workspace::new(&[
        ("requirements.txt", "# first\n-r more.txt\n"),
        ("more.txt", "idna\n\nmarkupsafe=2.1.5\n"),
    ]);
    let error = lock::lock(
        &workspace.project(),
        &uv(),
        &LockOptions::default(),
        &|_| {},
    )
    .unwrap_err();
    insta::assert_snapshot!(workspace.filtered(&shown(&error)), @"
    error: `DIR/more.txt` line 3: `markupsafe=2.1.5` is no requirement
      help: one version is written with `==`: `markupsafe==2.1.5`
    ");
}

#[test]
fn dynamic_dependencies_come_from_the_back_end_where_it_reads_another_file() {
    let text = format!(
        "[project]\nname = 'app'\nversion = '1'\ndynamic = ['dependencies']\n{BACK_END}[tool.setuptools.dynamic]\ndependencies = {{ file = ['deps.in'] }}\n"
    );
    let workspace = Workspace::new(&[
        ("pyproject.toml", &text),
        ("deps.in", "idna==3.4\n"),
        ("requirements.txt", "pytest\n"),
        ("app.py", ""),
    ]);
    let project = workspace.project();
    assert_eq!(project.source, RequirementSource::BuildBackend);
    assert_eq!(locked(&workspace, &project), ["idna==3.4"]);
    let text = text.replace("deps.in", "requirements.txt");
    workspace.write("pyproject.toml", &text);
    assert_eq!(
        workspace.project().source,
        RequirementSource::RequirementsTxt
    );
}

#[test]
fn a_lock_is_stale_when_a_file_that_setup_py_reads_changed() {
    let workspace = Workspace::new(&[
        (
            "setup.py",
            "from setuptools import setup  # not 'pylock.toml', which is made of it\nsetup(name='app', version='1', py_modules=['app'], install_requires=open('requirements.txt').read().split())\n",
        ),
        ("requirements.txt", "idna==3.4\n"),
        ("app.py", ""),
    ]);
    let project = workspace.project();
    assert!(project.notes.is_empty(), "{:?}", project.notes);
    assert_eq!(locked(&workspace, &project), ["idna==3.4"]);
    assert!(changes(&project).is_empty());
    workspace.write("requirements.txt", "idna==3.6\n");
    assert_eq!(changes(&project), ["changed `requirements.txt`"]);
    assert_eq!(locked(&workspace, &project), ["idna==3.6"]);
}

#[test]
fn a_lock_is_stale_when_a_local_package_requires_something_else() {
    let library = "[project]\nname = 'library'\nversion = '1'\ndependencies = ['idna==3.4']\n[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n";
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            "[project]\nname = 'app'\nversion = '1'\ndependencies = ['library']\n[tool.uv.sources]\nlibrary = { path = 'library' }\n",
        ),
        ("library/pyproject.toml", library),
        ("library/library.py", ""),
    ]);
    let project = workspace.project();
    assert_eq!(locked(&workspace, &project), ["idna==3.4", "library==?"]);
    workspace.write("library/library.py", "x = 1\n");
    assert!(changes(&project).is_empty());
    workspace.write("library/pyproject.toml", &library.replace("3.4", "3.6"));
    assert_eq!(changes(&project), ["changed `library/pyproject.toml`"]);
    assert_eq!(locked(&workspace, &project), ["idna==3.6", "library==?"]);
}

#[test]
fn a_script_says_with_uv_s_sources_where_its_packages_come_from() {
    let workspace = Workspace::new(&[
        (
            "tool.py",
            "# /// script\n# dependencies = ['library', 'idna']\n# [tool.uv]\n# constraint-dependencies = ['idna<3.5']\n# [tool.uv.sources]\n# library = { path = 'library' }\n# ///\n",
        ),
        (
            "library/setup.py",
            "from setuptools import setup\nsetup(name='library', version='1')\n",
        ),
    ]);
    let project = Project::load(&workspace.root().join("tool.py")).unwrap();
    assert_eq!(locked(&workspace, &project), ["idna==3.4", "library==?"]);
    let text = workspace.read("pylock.tool.toml");
    assert!(text.contains("path = \"library\""), "{text}");
}

#[test]
fn an_entry_may_be_named_by_its_script_and_the_same_one_twice_is_one() {
    let text = "[project]\nname = 'shop'\nversion = '1'\n[project.scripts]\nsell = 'shop.a:main'\nserve = 'shop.b:main'\n";
    let workspace = Workspace::new(&[("pyproject.toml", text), ("serve.py", "")]);
    let entry = |text: &str| {
        let wanted = text.parse().unwrap();
        workspace
            .project()
            .entry(Some(&wanted))
            .unwrap()
            .to_string()
    };
    assert_eq!(entry("sell"), "shop.a:main");
    assert_eq!(entry("serve"), "serve", "the project's own module");
    workspace.write("pyproject.toml", &text.replace("shop.b", "shop.a"));
    assert_eq!(
        workspace.project().entry(None).unwrap().to_string(),
        "shop.a:main"
    );
}

#[test]
fn a_main_script_alone_is_an_app_without_packages() {
    for files in [
        &[("main.py", "")][..],
        &[("main.py", ""), ("pyproject.toml", "[tool.black]\n")],
    ] {
        let workspace = Workspace::new(files);
        let project = workspace.project();
        assert_eq!(project.source, RequirementSource::Nothing);
        assert_eq!(project.entry(None).unwrap().to_string(), "main.py");
        assert!(
            project.notes[0].contains("`main.py`"),
            "{:?}",
            project.notes
        );
    }
}

#[test]
fn what_is_no_zip_application_is_refused() {
    let workspace = Workspace::new(&[("a.pyz", "garbage")]);
    let failure = |name: &str| {
        let error = Project::load(&workspace.root().join(name)).unwrap_err();
        workspace.filtered(&shown(&error))
    };
    insta::assert_snapshot!(failure("a.pyz"), @"
    error: `DIR/a.pyz` is no zip application but no zip archive: invalid Zip archive: Could not find EOCD
      help: make one with `python -m zipapp FOLDER -m MODULE:CALLABLE`
    ");
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("sub/__main__.py", options).unwrap();
    archive.write_all(b"x").unwrap();
    let bytes = archive.finish().unwrap().into_inner();
    pytheas_durable::replace(&workspace.root().join("b.pyz"), &bytes).unwrap();
    insta::assert_snapshot!(failure("b.pyz"), @"
    error: `DIR/b.pyz` is no zip application but an archive without a `__main__.py` at its top
      help: make one with `python -m zipapp FOLDER -m MODULE:CALLABLE`
    ");
}

#[test]
fn an_environment_that_is_a_list_or_has_strange_items_is_refused() {
    let failure = |text: &str| Workspace::new(&[("environment.yml", text)]).failure();
    insta::assert_snapshot!(failure("- a\n- b\n"), @"error: `DIR/environment.yml` line 1, column 1: this is no environment: expected `dependencies:` with a list below");
    insta::assert_snapshot!(failure("dependencies: numpy\n"), @"error: `DIR/environment.yml` line 1, column 1: this is no environment: expected `dependencies:` with a list below");
    insta::assert_snapshot!(failure("dependencies:\n  - click\n  - conda: [a]\n"), @"
    error: `DIR/environment.yml` asks for conda packages that are not covered yet: `conda` (neither a package nor a `pip:` list)
      help: covered are the `pip:` part and pure Python packages that the package index has by the same name; move what has wheels there below `pip:`, and take the rest from the device's system
    ");
}
