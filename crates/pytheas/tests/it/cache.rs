//! The cache, by the real command.

use std::{fs, path::Path, process::Command};

use crate::common::{json, pytheas, shown};

fn cache(dir: &Path, args: &[&str]) -> Command {
    let mut command = pytheas(dir);
    command.arg("cache").args(args);
    // Apps' parts are looked for in the home folder.
    command
        .env("HOME", dir)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("PYTHEAS_UNPACK_DIR")
        .env("PYTHEAS_CACHE_DIR", dir.join("own-cache"));
    command
}

#[test]
fn a_cache_is_shown_pruned_and_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let wheel = dir.path().join("own-cache/wheels/ab/files/x.py");
    fs::create_dir_all(wheel.parent().unwrap()).unwrap();
    fs::write(&wheel, "x = 1\n").unwrap();
    let info = json(&mut cache(dir.path(), &["info"]));
    assert_eq!(
        (&info["parts"][0]["name"], &info["size_bytes"]),
        (&"wheels".into(), &6.into()),
        "{info}"
    );
    let none = json(&mut cache(dir.path(), &["prune"]));
    assert_eq!(none["removed_bytes"], 0);
    let small = ["prune", "--max-size", "5 B", "--dry-run"];
    assert_eq!(json(&mut cache(dir.path(), &small))["removed_bytes"], 6);
    assert!(wheel.exists());
    let output = cache(dir.path(), &["clear", "whels"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let output = cache(dir.path(), &["prune", "--max-size", "5 apples"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let output = cache(dir.path(), &["clear"])
        .env("PYTHEAS_CACHE_DIR", dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(json(&mut cache(dir.path(), &["clear"]))["removed_bytes"], 6);
    assert!(!wheel.exists());
}
