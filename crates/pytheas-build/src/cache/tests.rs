//! Tests of looking at a cache and making it smaller, on real folders, locks and processes.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use super::*;

const DAY: u64 = 24 * 60 * 60;

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
    put(&root.join("home/.cache/pytheas/run/app1/bin/app"), 10);
    put(&root.join("home/.cache/pytheas/run/app1.lock"), 0);
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
            "home/.cache/pytheas/run/app1",
            "own/bytecode/key/pack",
            "own/wheels/aa",
            "own/wheels/bb.whl"
        ]
    );
    assert!(dir.path().join("own/other/thing").exists());
    assert!(
        dir.path()
            .join("home/.cache/pytheas/run/app1.lock")
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
    assert!(done.kept_bytes <= 120, "{done:?}");
    assert!(dir.path().join("own/wheels/aa/files/x.py").exists());
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
    let program = run.join("app1/bin/app");
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

    let unpacking = FileLock::acquire(&run.join("app1.lock")).unwrap();
    let done = collect_cache(&environment, &all, now, false).unwrap();
    assert_eq!((done.removed.len(), done.in_use.len()), (0, 1));
    drop(unpacking);
    let done = collect_cache(&environment, &all, now, false).unwrap();
    assert_eq!((done.removed.len(), done.in_use.len()), (1, 0));
    assert!(!program.exists());
}
