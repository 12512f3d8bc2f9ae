//! Tests of looking at a cache and making it smaller, on real folders, locks and processes.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use super::*;

const DAY: u64 = 24 * 60 * 60;
/// A tree id.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn put(path: &Path, size: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    pytheas_durable::replace(path, &vec![7; size]).unwrap();
}

/// A cache with two wheels, byte code, an unpacked app, and something that is not ours.
fn cache() -> (tempfile::TempDir, Environment, i64) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(&root.join("own/wheels/aa/files/x.py"), 100);
    put(&root.join("own/wheels/bb.whl"), 50);
    put(&root.join("own/wheels/.new-left/x"), 5);
    put(&root.join("own/bytecode/key/pack"), 30);
    put(&root.join("own/other/thing"), 1000);
    let run = root.join("home/.cache/pytheas/run");
    put(&run.join(ID).join("bin/app"), 10);
    put(&run.join(format!("{ID}.lock")), 0);
    put(&run.join("mine/notes.txt"), 7);
    let environment = Environment::default()
        .with("HOME", root.join("home"))
        .with("PYTHEAS_CACHE_DIR", root.join("own"));
    let now = fs::metadata(root.join("own")).unwrap().ctime();
    (dir, environment, now)
}

fn unused(days: u64, max_bytes: Option<u64>) -> Collect {
    Collect::Unused {
        older_than: Duration::from_secs(days * DAY),
        max_bytes,
    }
}

fn names(root: &Path, paths: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = paths
        .iter()
        .map(|path| path.strip_prefix(root).unwrap().display().to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn each_part_is_told_with_its_entries_and_size() {
    let (_dir, environment, _) = cache();
    let info = cache_info(&environment).unwrap();
    let parts: Vec<(&str, usize, u64)> = info
        .parts
        .iter()
        .map(|part| (part.name.as_str(), part.entries, part.size_bytes))
        .collect();
    assert_eq!(
        parts,
        [("wheels", 3, 155), ("bytecode", 1, 30), ("run", 1, 10)]
    );
    assert_eq!(info.size_bytes, 195);
}

#[test]
fn what_was_used_lately_stays_and_leftovers_go() {
    let (dir, environment, now) = cache();
    let looked = collect_cache(&environment, &unused(60, None), now, true).unwrap();
    assert!(dir.path().join("own/wheels/.new-left").exists());
    let done = collect_cache(&environment, &unused(60, None), now, false).unwrap();
    assert_eq!(looked.removed, done.removed);
    assert_eq!(names(dir.path(), &done.removed), ["own/wheels/.new-left"]);
    assert_eq!((done.removed_bytes, done.kept_bytes), (5, 190));

    let later = now + 61 * DAY.cast_signed();
    let done = collect_cache(&environment, &unused(60, None), later, false).unwrap();
    assert_eq!(
        names(dir.path(), &done.removed),
        [
            &*format!("home/.cache/pytheas/run/{ID}"),
            "own/bytecode/key/pack",
            "own/wheels/aa",
            "own/wheels/bb.whl"
        ]
    );
    assert!(dir.path().join("own/other/thing").exists());
    assert!(
        dir.path()
            .join(format!("home/.cache/pytheas/run/{ID}.lock"))
            .exists()
    );
    assert_eq!(cache_info(&environment).unwrap().size_bytes, 0);
}

#[test]
fn the_least_recently_used_goes_until_the_rest_is_small_enough() {
    let (dir, environment, now) = cache();
    // Read and changed later than all others.
    let used = std::fs::FileTimes::new();
    let later = fs::metadata(dir.path()).unwrap().modified().unwrap() + Duration::from_secs(DAY);
    let file = fs::File::options()
        .write(true)
        .open(dir.path().join("own/wheels/aa/files/x.py"))
        .unwrap();
    file.set_times(used.set_accessed(later)).unwrap();
    let done = collect_cache(&environment, &unused(60, Some(120)), now, false).unwrap();
    assert!(done.kept_bytes <= 130, "{done:?}");
    assert!(dir.path().join("own/wheels/aa/files/x.py").exists());
    let done = collect_cache(&environment, &unused(60, Some(0)), now, false).unwrap();
    assert_eq!(done.kept_bytes, 10, "apps' trees do not go for the size");
}

#[test]
fn only_what_launchers_made_goes_of_a_folder_that_is_anyones() {
    let (dir, environment, now) = cache();
    let tmp = dir.path().join("tmp");
    for name in ["thesis/1.tex", "notes.txt"] {
        put(&tmp.join(name), 9);
    }
    for name in [ID.to_owned(), format!("{ID}.tmp"), format!(".gone-{ID}")] {
        put(&tmp.join(name).join("x"), 9);
    }
    let environment = environment.with("PYTHEAS_UNPACK_DIR", &tmp);
    let later = now + 61 * DAY.cast_signed();
    collect_cache(&environment, &unused(60, Some(0)), later, false).unwrap();
    collect_cache(
        &environment,
        &Collect::Parts(vec!["run".to_owned(), "venvs".to_owned()]),
        later,
        false,
    )
    .unwrap();
    let mut left: Vec<_> = fs::read_dir(&tmp)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [format!("{ID}.lock").as_str(), "notes.txt", "thesis"]);
    let own = dir.path().join("home/.cache/pytheas/run");
    assert!(own.join("mine/notes.txt").exists());
    // The same folder twice is one.
    put(&own.join(ID).join("x"), 9);
    let environment = environment.with("PYTHEAS_UNPACK_DIR", &own);
    let run = Collect::Parts(vec!["run".to_owned()]);
    let done = collect_cache(&environment, &run, later, false).unwrap();
    assert_eq!(done.removed.len(), 1);
    assert!(is_of_launchers("venvs", "my-app-0123456789abcdef"));
    assert!(!is_of_launchers("venvs", "my-app"));
}

#[test]
fn a_home_folder_or_a_project_is_never_cleared_as_a_cache() {
    let (dir, environment, now) = cache();
    let home = dir.path().join("home");
    put(&home.join("tools/hammer"), 9);
    let all = Collect::Parts(Vec::new());
    let check = |cache: &Path| {
        let environment = environment.clone().with("PYTHEAS_CACHE_DIR", cache);
        let error = collect_cache(&environment, &all, now, false).unwrap_err();
        error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(check(&home), @"`DIR/home` is no folder of the cache's own: your home folder lies there");
    insta::assert_snapshot!(check(dir.path()), @"`DIR` is no folder of the cache's own: your home folder lies there");
    put(&dir.path().join("own/pyproject.toml"), 1);
    insta::assert_snapshot!(check(&dir.path().join("own")), @"`DIR/own` is no folder of the cache's own: it holds `pyproject.toml`");
    assert!(home.join("tools/hammer").exists());
    assert!(dir.path().join("own/wheels/aa").exists());
}

#[test]
fn an_app_started_by_a_path_through_a_link_keeps_its_tree() {
    let (dir, environment, now) = cache();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("home"), &link).unwrap();
    let environment = environment.with("HOME", &link);
    let program = link.join(format!(".cache/pytheas/run/{ID}/bin/app"));
    fs::copy("/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    std::os::unix::process::CommandExt::arg0(&mut command, "worker");
    let mut app = command.arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let all = Collect::Parts(vec!["run".to_owned()]);
    let done = collect_cache(&environment, &all, now, false).unwrap();
    app.kill().unwrap();
    app.wait().unwrap();
    assert_eq!((done.removed.len(), done.in_use.len()), (0, 1));
}

#[test]
fn clearing_takes_named_parts_or_all_of_the_builders() {
    let (dir, environment, now) = cache();
    let only = Collect::Parts(vec!["bytecode".to_owned()]);
    let done = collect_cache(&environment, &only, now, false).unwrap();
    assert_eq!(names(dir.path(), &done.removed), ["own/bytecode/key/pack"]);
    let all = Collect::Parts(Vec::new());
    collect_cache(&environment, &all, now, false).unwrap();
    let left: Vec<String> = cache_info(&environment)
        .unwrap()
        .parts
        .into_iter()
        .filter(|part| part.entries > 0)
        .map(|part| part.name)
        .collect();
    assert_eq!(left, ["run"]);
    let wrong = Collect::Parts(vec!["whels".to_owned()]);
    let error = collect_cache(&environment, &wrong, now, false).unwrap_err();
    assert_eq!(error.to_string(), "the cache has no part `whels`");
}

#[test]
fn nothing_is_removed_while_a_build_works_with_it() {
    let (dir, environment, now) = cache();
    let build = use_cache(&environment).unwrap();
    let other = use_cache(&environment).unwrap();
    let all = Collect::Parts(Vec::new());
    let error = collect_cache(&environment, &all, now, false).unwrap_err();
    assert!(matches!(error, CacheError::InUse { .. }), "{error}");
    assert!(dir.path().join("own/wheels/bb.whl").exists());
    drop((build, other));
    collect_cache(&environment, &all, now, false).unwrap();
}

#[test]
fn an_app_that_runs_or_unpacks_keeps_its_tree() {
    let (dir, environment, now) = cache();
    let run = dir.path().join("home/.cache/pytheas/run");
    let program = run.join(ID).join("bin/app");
    fs::copy("/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut app = Command::new(&program)
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let all = Collect::Parts(vec!["run".to_owned()]);
    let done = collect_cache(&environment, &all, now, false).unwrap();
    app.kill().unwrap();
    app.wait().unwrap();
    assert_eq!((done.removed.len(), done.in_use.len()), (0, 1));

    let unpacking = FileLock::acquire(&run.join(format!("{ID}.lock"))).unwrap();
    let done = collect_cache(&environment, &all, now, false).unwrap();
    assert_eq!((done.removed.len(), done.in_use.len()), (0, 1));
    drop(unpacking);
    let done = collect_cache(&environment, &all, now, false).unwrap();
    assert_eq!((done.removed.len(), done.in_use.len()), (1, 0));
    assert!(!program.exists());
}
