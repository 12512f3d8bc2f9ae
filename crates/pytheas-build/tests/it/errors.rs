//! What goes wrong, and what is said then.

use std::{
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    process::Command,
};

use pytheas_build::LockMode;
use pytheas_project::Connectivity;

use crate::support::{Workspace, can_unshare, shown, try_build};

fn workspace() -> Workspace {
    Workspace::new(&[("main.py", "print(1)\n"), ("requirements.txt", "")])
}

/// The error of building the workspace, its folder replaced by `DIR`.
#[track_caller]
fn failure(workspace: &Workspace) -> String {
    failure_of(workspace, &workspace.request())
}

#[track_caller]
fn failure_of(workspace: &Workspace, request: &pytheas_build::BuildRequest) -> String {
    let text = shown(&try_build(request).expect_err("the build fails"));
    assert!(!workspace.out().exists(), "a failed build left `out`");
    let left: Vec<_> = std::fs::read_dir(workspace.root())
        .unwrap()
        .map(|child| child.unwrap().file_name())
        .collect();
    assert_eq!(left, ["project"], "a failed build left something");
    text.replace(&workspace.root().display().to_string(), "DIR")
}

#[test]
fn a_missing_entry_point_is_named_with_the_nearest_one() {
    let workspace = Workspace::new(&[
        ("requirements.txt", ""),
        ("station/__init__.py", ""),
        (
            "station/cli.py",
            "def main():\n    return 0\n\ndef helper():\n    pass\n",
        ),
    ]);
    let with = |entry: &str| {
        let mut request = workspace.request();
        request.entry = Some(entry.parse().unwrap());
        failure_of(&workspace, &request)
    };
    insta::assert_snapshot!(failure(&workspace), @"
    error: nothing says what starts `project` in `DIR/project`
      help: name it with `--entry MODULE:CALLABLE`, or set `entry` in `[tool.pytheas]`; looked for `project.scripts`, `main.py` and a package with `__main__.py`
    ");
    insta::assert_snapshot!(with("station.cil:main"), @"
    error: entry point missing: there is no module `station.cil` in the app and its packages
      help: did you mean `station.cli`?
    ");
    insta::assert_snapshot!(with("station.cli:mian"), @"
    error: entry point missing: module `station.cli` has no `mian`
      help: did you mean `station.cli:main`?
    ");
    insta::assert_snapshot!(with("station.cli:start"), @"
    error: entry point missing: module `station.cli` has no `start`
      help: it has `helper`, `main`
    ");
    insta::assert_snapshot!(with("station"), @"
    error: entry point missing: the package `station` has no `__main__.py`
      help: name a callable: `station.MODULE:CALLABLE`
    ");
    insta::assert_snapshot!(with("start.py"), @"
    error: entry point missing: there is no `start.py` in `DIR/project`
      help: correct `--entry`, or `entry` or `exclude` in `[tool.pytheas]`
    ");
    insta::assert_snapshot!(with("otherthing:main"), @"
    error: entry point missing: there is no module `otherthing` in the app and its packages
      help: is the package that has it among the requirements?
    ");
}

#[test]
fn a_form_that_is_not_there_is_named_with_those_that_are() {
    let workspace = workspace();
    let mut request = workspace.request();
    request.form = Some("image".to_owned());
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: form `image` is not built yet
      help: available: bundle, wheelhouse, wheel, micropython
    ");
    request.form = Some("zip".to_owned());
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: form `zip` is not known
      help: available: bundle, wheelhouse, wheel, micropython
    ");
    request.form = None;
    request.platform = Some("micropython-armv7m".parse().unwrap());
    insta::assert_snapshot!(failure_of(&workspace, &request).replace("linux-aarch64", "linux-x86_64"), @"
    error: form `bundle` cannot be built for `micropython-armv7m` on `linux-x86_64` yet
      help: build on a `micropython-armv7m` machine
    ");
    request.platform = None;
    request.target = Some("gateway".to_owned());
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: no target `gateway` in `DIR/project/pyproject.toml`
      help: there are none
    ");
}

#[test]
fn a_package_without_a_wheel_for_this_platform_is_named_with_its_wheels() {
    // Only Windows has wheels of it, and there is no source distribution.
    let workspace = workspace();
    workspace.write("requirements.txt", "pywin32==306\n");
    let mut request = workspace.request();
    request.python = Some("3.11".parse().unwrap());
    let text = failure_of(&workspace, &request);
    let text = text
        .replace(char::is_numeric, "N")
        .replace("aarchNN", "xNN_NN");
    insta::assert_snapshot!(text, @"
    error: `pywinNN` NNN has no wheel for `linux-xNN_NN` and Python N.NN.N
      help: it has no source distribution either; wheels exist for `cpNNN-cpNNN-winNN`, `cpNNN-cpNNN-win_amdNN`, `cpNNN-cpNNN-win_armNN`, `cpNNN-cpNNN-winNN`, `cpNNN-cpNNN-win_amdNN`, `cpNNN-cpNNN-win_armNN`; require another version, choose another Python with `--python`, or another `--platform`
    ");
}

#[test]
fn a_result_over_its_budget_is_told_with_its_largest_parts() {
    let workspace = workspace();
    let target = |budget: &str| format!("[tool.pytheas.target.small]\nbudget = '{budget}'\n");
    workspace.write("pyproject.toml", &target("2 MB"));
    let mut request = workspace.request();
    request.target = Some("small".to_owned());
    let text = failure_of(&workspace, &request);
    assert!(
        text.contains(" more than the budget of 2 MB\n  help: largest parts: `python/lib/"),
        "{text}"
    );
    workspace.write("pyproject.toml", &target("small"));
    let mut request = workspace.request();
    request.target = Some("small".to_owned());
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: the budget `small` is no size
      help: write e.g. `40 MB`, `800 kB` or `64 MiB`
    ");
}

#[test]
fn links_that_lead_out_in_a_circle_or_nowhere_are_named() {
    let workspace = workspace();
    let link = workspace.project().join("link");
    for target in ["/etc/passwd", "../..", "nothing", "link", "."] {
        symlink(target, &link).unwrap();
        let text = failure(&workspace);
        let expected = match target {
            "/etc/passwd" => {
                "error: the link `DIR/project/link` leads out of the project, to `/etc/passwd`"
            }
            "../.." => "error: the link `DIR/project/link` leads out of the project, to `",
            "nothing" => "error: the link `DIR/project/link` leads nowhere",
            _ => "error: the link `DIR/project/link` leads in a circle",
        };
        assert!(
            text.starts_with(expected) && text.contains("\n  help: "),
            "{target}: {text}"
        );
        std::fs::remove_file(&link).unwrap();
    }
}

#[test]
fn names_and_kinds_of_files_that_no_release_can_hold_are_refused() {
    let workspace = workspace();
    let odd = workspace
        .project()
        .join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt"));
    pytheas_durable::replace(&odd, b"").unwrap();
    insta::assert_snapshot!(failure(&workspace), @"
    error: the name of `DIR/project/caf�.txt` is not UTF-8
      help: rename it, or leave it out with `exclude` in `[tool.pytheas]`
    ");
    std::fs::remove_file(&odd).unwrap();
    let odd = odd.with_file_name(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&odd).unwrap();
    pytheas_durable::replace(&odd.join("module.py"), b"").unwrap();
    insta::assert_snapshot!(failure(&workspace), @"
    error: the name of `DIR/project/caf�` is not UTF-8
      help: rename it, or leave it out with `exclude` in `[tool.pytheas]`
    ");
    std::fs::remove_dir_all(&odd).unwrap();
    Command::new("mkfifo")
        .arg(workspace.project().join("pipe"))
        .status()
        .unwrap();
    insta::assert_snapshot!(failure(&workspace), @"
    error: `DIR/project/pipe` is no file, folder or link
      help: leave it out with `exclude` in `[tool.pytheas]`
    ");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let workspace = workspace();
    workspace.write("secret.txt", "");
    // Permissions do not stop root; this file of the kernel cannot be read at offset 0 by anyone.
    in_namespace(
        &workspace,
        &workspace.out(),
        r#"mount --bind /proc/self/mem "$PYTHEAS_TEST_PROJECT/secret.txt""#,
        Some("error: cannot copy `PROJECT/secret.txt`\n  cause: "),
    );
    assert!(!workspace.out().exists());
}

#[test]
fn a_project_that_cannot_be_written_is_built_with_a_lock_of_its_own() {
    let workspace = workspace();
    let script = r#"mount --bind "$PYTHEAS_TEST_PROJECT" "$PYTHEAS_TEST_PROJECT" && mount -o remount,ro,bind "$PYTHEAS_TEST_PROJECT""#;
    in_namespace(&workspace, &workspace.out(), script, None);
    assert!(workspace.out().join("pytheas.json").is_file());
    assert!(!workspace.project().join("pylock.toml").exists());
}

#[test]
fn a_lock_that_does_not_hold_stops_a_locked_build_naming_what_changed() {
    let workspace = workspace();
    let mut request = workspace.request();
    request.lock = LockMode::Locked;
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: `DIR/project/pylock.toml` is missing
      help: run `pytheas lock`
    ");

    let mut first = workspace.request();
    first.out = Some(workspace.root().join("project/dist/first"));
    crate::support::built(&first);
    workspace.write("requirements.txt", "idna>=3\n");
    let mut request = workspace.request();
    request.lock = LockMode::Locked;
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: `DIR/project/pylock.toml` is stale: added `idna>=3`
      help: run `pytheas lock`
    ");
    request.lock = LockMode::Frozen;
    request.out = Some(workspace.root().join("project/dist/second"));
    crate::support::built(&request);
}

#[test]
fn something_else_in_the_outputs_place_is_not_replaced() {
    let workspace = workspace();
    let out = workspace.project().join("dist/x");
    let mut request = workspace.request();
    request.out = Some(out.clone());
    workspace.write("dist/x/precious.txt", "");
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: `DIR/project/dist/x` is not empty and no earlier build
      help: choose another folder with `-o`, or remove it yourself
    ");
    assert!(out.join("precious.txt").exists());
    std::fs::remove_dir_all(&out).unwrap();
    workspace.write("dist/x", "");
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: `DIR/project/dist/x` is not a folder
      help: choose another folder with `-o`, or remove it yourself
    ");
    request.out = Some(workspace.project());
    insta::assert_snapshot!(failure_of(&workspace, &request), @"
    error: `DIR/project` holds the project that is built
      help: choose another folder with `-o`
    ");
}

#[test]
fn without_a_network_the_build_says_so_and_with_a_warm_cache_it_needs_none() {
    let workspace = workspace();
    workspace.write("requirements.txt", "idna\n");
    let mut request = workspace.request();
    request.environment = request
        .environment
        .with("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        .with("UV_HTTP_RETRIES", "0")
        .with("UV_CACHE_DIR", workspace.project().join(".uv"));
    let text = failure_of(&workspace, &request);
    let text: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("  cause"))
        .collect();
    insta::assert_snapshot!(text.join("\n"), @"
    error: cannot reach the package index to resolve `DIR/project/requirements.txt`
      help: check the network, proxy and index settings; with a lock file and a warm cache, `--offline` builds without a network
    ");

    request.connectivity = Connectivity::Offline;
    let text = failure_of(&workspace, &request);
    assert!(
        text.contains("error: cannot resolve `DIR/project/requirements.txt` offline"),
        "{text}"
    );

    let warm = workspace.build();
    let mut request = workspace.request();
    request.connectivity = Connectivity::Offline;
    assert_eq!(crate::support::built(&request).tree_id, warm.tree_id);
}

#[test]
fn a_locked_package_with_another_content_is_refused() {
    let workspace = workspace();
    workspace.write("requirements.txt", "idna==3.7\n");
    let mut request = workspace.request();
    request.out = Some(workspace.project().join("dist/first"));
    crate::support::built(&request);
    let lock = workspace.project().join("pylock.toml");
    let text = std::fs::read_to_string(&lock).unwrap();
    let at = text.find("sha256 = \"").unwrap() + 10;
    let wrong = format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + 64..]);
    // Both files of the package.
    let at = wrong.rfind("sha256 = \"").unwrap() + 10;
    let wrong = format!("{}{}{}", &wrong[..at], "0".repeat(64), &wrong[at + 64..]);
    pytheas_durable::replace(&lock, wrong.as_bytes()).unwrap();
    let mut request = workspace.request();
    request.environment = request
        .environment
        .with("UV_CACHE_DIR", workspace.project().join(".uv"));
    let text = failure_of(&workspace, &request);
    assert!(
        text.starts_with("error: `idna-3.7-py3-none-any.whl` is not the file that was locked\n"),
        "{text}"
    );
    assert!(text.contains("idna"), "{text}");
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let workspace = workspace();
    let small = workspace.root().join("small");
    std::fs::create_dir(&small).unwrap();
    in_namespace(
        &workspace,
        &small.join("out"),
        r#"mount -t tmpfs -o size=12m none "$(dirname "$PYTHEAS_TEST_OUT")""#,
        Some("error: the disk is full: cannot copy the interpreter to `"),
    );
}

/// Builds the workspace's project in a mount namespace that `script` has prepared. The build fails
/// with a text that starts with `failure`, or succeeds.
#[track_caller]
fn in_namespace(workspace: &Workspace, out: &Path, script: &str, failure: Option<&str>) {
    if !can_unshare() {
        return;
    }
    let inner = "exec \"$0\" --exact errors::builds_in_a_prepared_namespace --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["-m", "bash", "-c", &format!("{script} && {inner}")])
        .arg(std::env::current_exe().unwrap())
        .env("PYTHEAS_TEST_PROJECT", workspace.project())
        .env("PYTHEAS_TEST_OUT", out)
        .env("PYTHEAS_TEST_FAILURE", failure.unwrap_or(""))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{output:?}"
    );
}

/// The part of [`in_namespace`] that runs inside.
#[test]
#[ignore = "run by other tests in a mount namespace of its own"]
fn builds_in_a_prepared_namespace() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let (dir, out) = (
        variable("PYTHEAS_TEST_PROJECT"),
        variable("PYTHEAS_TEST_OUT"),
    );
    let failure = variable("PYTHEAS_TEST_FAILURE");
    let project = pytheas_project::Project::load(Path::new(&dir)).unwrap();
    let mut request = pytheas_build::BuildRequest::new(project);
    request.out = Some(out.clone().into());
    request.environment = crate::support::environment();
    let result = try_build(&request);
    if failure.is_empty() {
        let built = result.unwrap_or_else(|error| panic!("{}", shown(&error)));
        assert!(
            built.warnings[0].ends_with("cannot be written; this build's lock is not kept"),
            "{:?}",
            built.warnings
        );
        return;
    }
    let text = shown(&result.unwrap_err()).replace(&dir, "PROJECT");
    assert!(
        text.starts_with(&failure) && text.contains("\n  help: "),
        "{text}"
    );
    let parent = Path::new(&out).parent().unwrap();
    let left = std::fs::read_dir(parent).unwrap().filter(|child| {
        child
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    });
    assert_eq!(left.count(), 0, "something was left");
}
