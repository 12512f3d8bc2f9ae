//! `pylock.toml`: made, kept, checked.

use pytheas_project::{
    Connectivity, Uv,
    lock::{self, LockError, LockOptions, Upgrade},
};

use crate::support::{Workspace, environment, shown, uv};

fn lock(workspace: &Workspace) -> Result<lock::LockReport, LockError> {
    lock::lock(&workspace.project(), &uv(), &options(), &|_| {})
}

/// The tests agree on a Python, so that the lock does not depend on the machine's.
fn options() -> LockOptions {
    LockOptions {
        python_version: Some("3.11".to_owned()),
        ..LockOptions::default()
    }
}

#[track_caller]
fn locked(workspace: &Workspace) -> String {
    lock(workspace).unwrap_or_else(|error| panic!("{}", shown(&error)));
    workspace.read("pylock.toml")
}

#[test]
fn a_lock_holds_until_the_project_changes_and_names_what_changed() {
    let workspace = Workspace::new(&[
        ("requirements.txt", "idna==3.7\n-c limits.txt\n"),
        ("limits.txt", "markupsafe<3\n"),
    ]);
    insta::assert_snapshot!(workspace.filtered(&shown(&lock::check(&workspace.project()).unwrap_err())), @"
    error: `DIR/pylock.toml` is missing
      help: run `pytheas lock`
    ");
    locked(&workspace);
    assert_eq!(lock::check(&workspace.project()).unwrap().packages.len(), 1);

    workspace.write(
        "requirements.txt",
        "idna==3.10\nmarkupsafe\n-c limits.txt\n",
    );
    workspace.write("limits.txt", "");
    workspace.write(".python-version", "3.12\n");
    insta::assert_snapshot!(workspace.filtered(&shown(&lock::check(&workspace.project()).unwrap_err())), @"
    error: `DIR/pylock.toml` is stale: changed `idna==3.7` to `idna==3.10`, added `markupsafe`, removed `markupsafe<3`, changed Python from `any` to `==3.12.*`
      help: run `pytheas lock`
    ");
    // Comments, order and spelling do not matter.
    workspace.write("requirements.txt", "# x\nIDNA == 3.7\n-c limits.txt\n");
    workspace.write("limits.txt", "MarkupSafe < 3\n");
    std::fs::remove_file(workspace.root().join(".python-version")).unwrap();
    lock::check(&workspace.project()).unwrap();
}

#[test]
fn a_lock_is_the_same_in_every_folder_and_names_none() {
    let files = [(
        "pyproject.toml",
        "[project]\nname = 'a'\nversion = '1'\nrequires-python = '>=3.10'\ndependencies = ['idna==3.7']\n",
    )];
    let (one, two) = (Workspace::new(&files), Workspace::new(&files));
    let text = locked(&one);
    assert_eq!(text, locked(&two));
    assert!(!text.contains(&one.root().display().to_string()), "{text}");
    let ours: Vec<&str> = text.lines().filter(|line| !line.contains("://")).collect();
    insta::assert_snapshot!(ours.join("\n"), @r#"
    # Written by `pytheas lock` from pyproject.toml; run it again instead of editing.
    lock-version = "1.0"
    created-by = "uv"
    requires-python = ">=3.10"

    [[packages]]
    name = "idna"
    version = "3.7"

    [tool.pytheas]
    format = 1
    python = ">=3.10"
    requirements = ["idna==3.7"]
    "#);
    assert!(
        !lock(&one).unwrap().written,
        "an unchanged lock is not written again"
    );
}

#[test]
fn locked_versions_stay_until_an_upgrade_is_asked_for() {
    let workspace = Workspace::new(&[("requirements.txt", "idna==3.4\n")]);
    locked(&workspace);
    workspace.write("requirements.txt", "idna\nmarkupsafe==3.0.2\n");
    let text = locked(&workspace);
    assert!(
        text.contains("version = \"3.4\"") && text.contains("name = \"markupsafe\""),
        "{text}"
    );
    let all = LockOptions {
        upgrade: Upgrade::Packages(vec!["Idna".to_owned(), "idan".to_owned()]),
        ..options()
    };
    let warned = std::cell::RefCell::new(Vec::new());
    let observer = |event| {
        if let pytheas_project::Event::Warning { text } = event {
            warned.borrow_mut().push(text);
        }
    };
    lock::lock(&workspace.project(), &uv(), &all, &observer).unwrap();
    assert_eq!(
        warned.into_inner(),
        ["`idan` shall be upgraded, but nothing requires it"]
    );
    assert!(!workspace.read("pylock.toml").contains("version = \"3.4\""));
}

#[test]
fn folders_in_a_lock_are_relative_to_the_project() {
    let workspace = Workspace::new(&[
        ("app/requirements.txt", "../library\n"),
        (
            "library/pyproject.toml",
            "[project]\nname = 'library'\nversion = '1'\n",
        ),
    ]);
    let project = pytheas_project::Project::load(&workspace.root().join("app")).unwrap();
    lock::lock(&project, &uv(), &options(), &|_| {})
        .unwrap_or_else(|error| panic!("{}", shown(&error)));
    let text = workspace.read("app/pylock.toml");
    assert!(text.contains("path = \"../library\""), "{text}");
}

#[test]
fn requirements_that_contradict_each_other_are_explained_in_uvs_words() {
    let workspace = Workspace::new(&[("requirements.txt", "idna==3.4\nidna==3.7\n")]);
    insta::assert_snapshot!(workspace.filtered(&shown(&lock(&workspace).unwrap_err())), @"
    error: the requirements in `DIR/requirements.txt` cannot be resolved
      cause: error: No solution found when resolving dependencies
      cause: Because you require idna==3.4 and idna==3.7, we can conclude that your requirements are unsatisfiable.
      help: loosen or correct the requirement that is named above
    ");
    assert!(!workspace.root().join("pylock.toml").exists());
}

#[test]
fn a_failed_lock_leaves_the_old_one() {
    let workspace = Workspace::new(&[("requirements.txt", "idna==3.4\n")]);
    let before = locked(&workspace);
    workspace.write(
        "requirements.txt",
        "idna==3.4\nthis-package-does-not-exist-pytheas\n",
    );
    let error = lock(&workspace).unwrap_err();
    assert!(matches!(error, LockError::Unresolvable { .. }), "{error:?}");
    assert_eq!(workspace.read("pylock.toml"), before);
}

#[test]
fn no_network_is_told_apart_from_no_solution() {
    let workspace = Workspace::new(&[("requirements.txt", "idna\n")]);
    let environment = environment()
        .with("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        .with("UV_HTTP_RETRIES", "0")
        .with("UV_CACHE_DIR", workspace.root().join("cache"));
    let fails = |connectivity| {
        let uv = Uv::find(&environment, connectivity, &|_| {}).unwrap();
        lock::lock(&workspace.project(), &uv, &options(), &|_| {}).unwrap_err()
    };
    let error = fails(Connectivity::Online);
    assert!(matches!(error, LockError::Network { .. }), "{error:?}");
    let error = fails(Connectivity::Offline);
    assert!(matches!(error, LockError::Offline { .. }), "{error:?}");
}

#[test]
fn a_lock_of_another_tool_and_one_of_the_future_are_told_apart() {
    let workspace = Workspace::new(&[
        ("requirements.txt", ""),
        (
            "pylock.toml",
            "lock-version = \"1.0\"\ncreated-by = \"x\"\n",
        ),
    ]);
    insta::assert_snapshot!(workspace.filtered(&shown(&lock::check(&workspace.project()).unwrap_err())), @"
    error: `DIR/pylock.toml` does not say what it was made from
      help: another tool wrote it; run `pytheas lock`, or build with `--frozen` to use it as it is
    ");
    workspace.write(
        "pylock.toml",
        "lock-version = \"2.0\"\ncreated-by = \"x\"\n",
    );
    insta::assert_snapshot!(workspace.filtered(&shown(&lock::check(&workspace.project()).unwrap_err())), @"
    error: `DIR/pylock.toml` has lock-version `2.0`; this version of pytheas reads 1.x
      help: install a newer pytheas, or run `pytheas lock` to write it again
    ");
    workspace.write("pylock.toml", "lock-version = \n");
    insta::assert_snapshot!(workspace.filtered(&shown(&lock::check(&workspace.project()).unwrap_err())), @"
    error: `DIR/pylock.toml` line 1, column 16: string values must be quoted, expected literal string
      help: correct it, or remove it and run `pytheas lock`
    ");
}

#[test]
fn hashes_in_a_requirements_file_hold() {
    let workspace = Workspace::new(&[("requirements.txt", "six==1.16.0\n")]);
    let free = locked(&workspace);
    let hash = |file: &str| -> String {
        let line = free.lines().find(|line| line.contains(file)).unwrap();
        let rest = line.split_once("sha256 = \"").unwrap().1;
        rest.split('"').next().unwrap().to_owned()
    };
    let wheel = hash("six-1.16.0-py2.py3-none-any.whl");
    workspace.write(
        "requirements.txt",
        &format!("six==1.16.0 \\\n    --hash=sha256:{wheel}\n"),
    );
    insta::assert_snapshot!(workspace.filtered(&shown(&lock::check(&workspace.project()).unwrap_err())), @"
    error: `DIR/pylock.toml` is stale: changed hashes of `six`
      help: run `pytheas lock`
    ");
    let pinned = locked(&workspace);
    assert!(
        pinned.contains(".whl") && !pinned.contains(".tar.gz"),
        "{pinned}"
    );

    workspace.write(
        "requirements.txt",
        &format!("six==1.16.0 --hash=sha256:{}\n", "0".repeat(64)),
    );
    insta::assert_snapshot!(workspace.filtered(&shown(&lock(&workspace).unwrap_err())), @"
    error: no file of `six` 1.16.0 has a hash that `DIR/requirements.txt` demands
      help: the index may serve a forged file; if its file is the right one, correct `--hash` (SHA-256 is compared)
    ");
    assert_eq!(workspace.read("pylock.toml"), pinned);
}
