//! Data set aside, changed, put back; cut off between any two steps.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

fn dir() -> (tempfile::TempDir, StateDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = StateDir::new(temp.path());
    (temp, dir)
}

fn write(dir: &StateDir, name: &str, text: &str) {
    let path = dir.data().join(name);
    pytheas_durable::create_dir_all(path.parent().unwrap()).unwrap();
    pytheas_durable::replace(&path, text.as_bytes()).unwrap();
}

fn read(dir: &StateDir, name: &str) -> Option<String> {
    fs::read_to_string(dir.data().join(name)).ok()
}

fn names(dir: &StateDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_set_aside_comes_back_as_it_was() {
    let (_temp, dir) = dir();
    write(&dir, "db/rows", "old");
    write(&dir, "secret", "s");
    fs::set_permissions(dir.data().join("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.data().join("db"), Permissions::from_mode(0o550)).unwrap();
    symlink("db/rows", dir.data().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.data().join("socket")).unwrap();
    let before = fs::metadata(dir.data().join("db/rows")).unwrap();
    set_aside(&dir).unwrap();
    fs::set_permissions(dir.data().join("db"), Permissions::from_mode(0o755)).unwrap();
    write(&dir, "db/rows", "new");
    write(&dir, "more", "new");
    put_back(&dir).unwrap();
    assert_eq!(read(&dir, "db/rows").unwrap(), "old");
    assert_eq!(read(&dir, "link").unwrap(), "old");
    assert_eq!(read(&dir, "more"), None);
    let mode = |name: &str| fs::metadata(dir.data().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("secret"), mode("db")), (0o600, 0o550));
    let after = fs::metadata(dir.data().join("db/rows")).unwrap();
    assert_eq!(
        (before.mtime(), before.mtime_nsec()),
        (after.mtime(), after.mtime_nsec())
    );
    put_back(&dir).unwrap();
    assert_eq!(
        read(&dir, "db/rows").unwrap(),
        "old",
        "doing it again changes nothing"
    );
    forget(&dir).unwrap();
    assert_eq!(names(&dir), ["data"]);
}

#[test]
fn each_try_begins_with_the_data_as_it_was() {
    let (_temp, dir) = dir();
    write(&dir, "rows", "old");
    set_aside(&dir).unwrap();
    for _ in 0..2 {
        write(&dir, "rows", "torn");
        again(&dir).unwrap();
        assert_eq!(read(&dir, "rows").unwrap(), "old");
    }
    // Cut between the two renames: there is no data for a moment, and the next try mends it.
    give_up(&dir).unwrap();
    again(&dir).unwrap();
    assert_eq!(read(&dir, "rows").unwrap(), "old");
    give_up(&dir).unwrap();
    put_back(&dir).unwrap();
    assert_eq!(read(&dir, "rows").unwrap(), "old");
    assert!(!dir.snapshot().exists());
}

#[test]
fn half_a_snapshot_is_none() {
    let (_temp, dir) = dir();
    write(&dir, "rows", "old");
    pytheas_durable::create_dir_all(&dir.snapshot_part()).unwrap();
    put_back(&dir).unwrap();
    assert_eq!(read(&dir, "rows").unwrap(), "old");
    set_aside(&dir).unwrap();
    assert_eq!(
        fs::read_to_string(dir.snapshot().join("rows")).unwrap(),
        "old"
    );
    // No data yet: what the update brings goes when it is rolled back.
    forget(&dir).unwrap();
    remove_tree(&dir.data()).unwrap();
    set_aside(&dir).unwrap();
    write(&dir, "rows", "new");
    put_back(&dir).unwrap();
    assert_eq!(read(&dir, "rows"), None);
}

#[test]
fn data_without_room_for_a_copy_is_refused_before_anything_is_touched() {
    let (_temp, dir) = dir();
    write(&dir, "rows", "old");
    require_space(std::slice::from_ref(&dir)).unwrap();
    // A file with a hole: more than any disk here holds.
    let file = File::create(dir.data().join("huge")).unwrap();
    if file.set_len(1 << 43).is_err() || copies_by_reference(&dir) {
        return testkit::skip(
            "this file system has no room for a hole of 8 TiB, or copies by reference",
        );
    }
    let failure = require_space(std::slice::from_ref(&dir)).unwrap_err();
    assert_eq!(failure.reason(), Reason::NoSpace);
    assert!(
        failure.message().contains("bytes are needed"),
        "{}",
        failure.message()
    );
    assert_eq!(names(&dir), ["data"]);
}
