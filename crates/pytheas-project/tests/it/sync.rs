//! The environment of projects whose locks are small or name folders beside them.

use pytheas_project::{
    Environment,
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
