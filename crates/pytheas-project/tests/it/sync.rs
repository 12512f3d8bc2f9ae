//! The environment of projects whose locks are small or name folders beside them.

use pytheas_project::{
    Environment, Event, Pylock,
    lock::{self, LockOptions, Upgrade},
    sync::{self, SyncMode, SyncOptions, SyncReport},
};

use crate::support::{Workspace, environment, shown, uv};

/// A `setup.py` that moves a folder which it has just made, as Cargo does.
const SETUP: &str = "import os\nfrom setuptools import setup\nos.mkdir('new')\nos.mkdir('new/inner')\nos.rename('new', 'moved')\nsetup(name='lib', version='1', py_modules=['lib'])\n";

#[track_caller]
fn synced(workspace: &Workspace, mode: SyncMode) -> SyncReport {
    let options = SyncOptions {
        mode,
        ..SyncOptions::default()
    };
    let environment: Environment = environment();
    sync::sync(&workspace.project(), &uv(), &environment, &options, &|_| {})
        .unwrap_or_else(|error| panic!("{}", shown(&error)))
}

#[test]
fn a_project_without_dependencies_is_in_its_environment() {
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            "[project]\nname = 'app'\nversion = '1'\nrequires-python = '>=3.10'\n[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n[tool.setuptools]\npy-modules = ['app']\n",
        ),
        ("app.py", ""),
    ]);
    let report = synced(&workspace, SyncMode::Apply);
    assert_eq!(report.changes.len(), 1, "{:?}", report.changes);
    assert!(report.changes[0].starts_with("+ app==1"));
    assert!(synced(&workspace, SyncMode::Check).changes.is_empty());
}

#[test]
fn the_lock_of_groups_holds_beside_a_local_package_whose_build_moves_folders() {
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            "[project]\nname = 'app'\nversion = '1'\nrequires-python = '>=3.10'\ndependencies = ['lib']\n[dependency-groups]\ndev = ['six']\n[tool.uv.sources]\nlib = { path = 'lib' }\n",
        ),
        ("lib/setup.py", SETUP),
        ("lib/lib.py", ""),
    ]);
    let made = synced(&workspace, SyncMode::Apply);
    assert_eq!(made.locked.len(), 2);
    assert!(!workspace.root().join("lib/moved").exists());
    let again = synced(&workspace, SyncMode::Apply);
    assert!(
        again.locked.is_empty() && again.changes.is_empty(),
        "{again:?}"
    );
    synced(&workspace, SyncMode::Check);
    std::fs::remove_file(workspace.root().join("pylock.dev.toml")).unwrap();
    let options = SyncOptions {
        mode: SyncMode::Locked,
        ..SyncOptions::default()
    };
    let error = sync::sync(
        &workspace.project(),
        &uv(),
        &environment(),
        &options,
        &|_| {},
    );
    insta::assert_snapshot!(workspace.filtered(&shown(&error.unwrap_err())), @r"
    error: `DIR/pylock.dev.toml` is missing
      help: run `pytheas sync` with the same groups and extras
    ");
}

/// An empty wheel in `links`.
fn wheel(workspace: &Workspace, name: &str, version: &str) {
    let info = format!("{name}-{version}.dist-info");
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (file, text) in [
        ("METADATA", metadata.as_str()),
        (
            "WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        ("RECORD", ""),
    ] {
        zip.start_file(
            format!("{info}/{file}"),
            zip::write::SimpleFileOptions::default(),
        )
        .unwrap();
        std::io::Write::write_all(&mut zip, text.as_bytes()).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let dir = workspace.root().join("links");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{name}-{version}-py3-none-any.whl"));
    pytheas_durable::replace(&path, &bytes).unwrap();
}

#[test]
fn versions_of_groups_stay_until_they_are_to_be_upgraded() {
    let manifest = |more: &str| {
        format!(
            "[project]\nname = 'app'\nversion = '1'\nrequires-python = '>=3.10'\ndependencies = ['pya']\n[dependency-groups]\ndev = ['pyb', 'pyc'{more}]\n[tool.uv]\nno-index = true\nfind-links = ['links']\n"
        )
    };
    let workspace = Workspace::new(&[("pyproject.toml", &manifest(""))]);
    let wheels = |version: &str| {
        for name in ["pya", "pyb", "pyc", "pyd"] {
            wheel(&workspace, name, version);
        }
    };
    let sync = |upgrade: Upgrade| {
        let options = SyncOptions {
            upgrade,
            ..SyncOptions::default()
        };
        let warnings = std::cell::RefCell::new(Vec::new());
        let observer = |event| {
            if let Event::Warning { text } = event {
                warnings.borrow_mut().push(text);
            }
        };
        sync::sync(
            &workspace.project(),
            &uv(),
            &environment(),
            &options,
            &observer,
        )
        .unwrap_or_else(|error| panic!("{}", shown(&error)));
        let lock = |file: &str| Pylock::read(&workspace.root().join(file)).unwrap().unwrap();
        let lock = lock("pylock.dev.toml");
        let versions = lock
            .packages
            .iter()
            .map(|package| package.version.clone().unwrap());
        (
            versions.collect::<Vec<_>>().join(" "),
            warnings.into_inner(),
        )
    };
    wheels("1");
    assert_eq!(sync(Upgrade::Nothing).0, "1 1 1");
    wheels("2");
    assert_eq!(sync(Upgrade::Nothing).0, "1 1 1");
    // A group that changed is locked again, and what stays in it keeps its version.
    let path = workspace.root().join("pyproject.toml");
    pytheas_durable::replace(&path, manifest(", 'pyd'").as_bytes()).unwrap();
    assert_eq!(sync(Upgrade::Nothing).0, "1 1 1 2");
    let packages = |names: &[&str]| Upgrade::Packages(names.iter().map(|n| (*n).into()).collect());
    let (versions, warnings) = sync(packages(&["pyb", "nothing"]));
    assert_eq!(versions, "1 2 1 2");
    assert_eq!(
        warnings,
        ["`nothing` shall be upgraded, but nothing requires it"]
    );
    // `lock` only knows the app's packages.
    let warnings = std::cell::RefCell::new(Vec::new());
    let options = LockOptions {
        upgrade: packages(&["pyc"]),
        ..LockOptions::default()
    };
    lock::lock(&workspace.project(), &uv(), &options, &|event| {
        if let Event::Warning { text } = event {
            warnings.borrow_mut().push(text);
        }
    })
    .unwrap();
    assert_eq!(
        warnings.into_inner(),
        [
            "`pyc` shall be upgraded, but only `pylock.dev.toml` has it: run `pytheas sync --upgrade-package pyc`"
        ]
    );
    assert_eq!(sync(Upgrade::Everything).0, "2 2 2 2");
}

#[test]
fn a_project_of_another_user_is_locked_by_root_all_the_same() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("giving files to another user needs root");
    }
    let workspace = Workspace::new(&[
        (
            "setup.py",
            "from setuptools import setup\nsetup(name='app', version='1', python_requires='>=3.10')\n",
        ),
        (
            "app.egg-info/PKG-INFO",
            "Metadata-Version: 2.1\nName: app\nVersion: 1\n",
        ),
    ]);
    for path in ["app.egg-info/PKG-INFO", "app.egg-info", "setup.py", ""] {
        std::os::unix::fs::chown(workspace.root().join(path), Some(4321), Some(4321)).unwrap();
    }
    let options = LockOptions::default();
    lock::lock(&workspace.project(), &uv(), &options, &|_| {})
        .unwrap_or_else(|error| panic!("{}", shown(&error)));
    // Built in place it would have to write there.
    let options = SyncOptions::default();
    let error = sync::sync(
        &workspace.project(),
        &uv(),
        &environment(),
        &options,
        &|_| {},
    );
    let said = shown(&error.unwrap_err());
    assert!(said.contains("belongs to another user"), "{said}");
}
