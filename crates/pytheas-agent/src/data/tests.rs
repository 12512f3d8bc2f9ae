//! Data set aside, changed, put back; cut off between any two steps.

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

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
    assert_eq!(*failure.reason(), Reason::NoSpace);
    assert!(
        failure.message().contains("bytes are needed"),
        "{}",
        failure.message()
    );
    assert_eq!(names(&dir), ["data"]);
}

#[test]
fn folders_too_deep_and_files_too_large_to_be_true_are_refused_and_the_data_stays() {
    let (_temp, dir) = dir();
    write(&dir, "rows", "old");
    let sparse = File::create(dir.data().join("sparse")).unwrap();
    if sparse.set_len(i64::MAX as u64).is_ok() {
        for n in 0..3 {
            let file = File::create(dir.data().join(format!("sparse{n}"))).unwrap();
            file.set_len(i64::MAX as u64).unwrap();
        }
        assert_eq!(
            require_space(std::slice::from_ref(&dir))
                .unwrap_err()
                .reason(),
            &Reason::NoSpace
        );
    }
    sparse.set_len(0).unwrap();
    for n in 0..3 {
        let _perhaps_not_there = fs::remove_file(dir.data().join(format!("sparse{n}")));
    }
    let deep = dir.data().join("d/".repeat(MAX_DEPTH + 1));
    fs::create_dir_all(&deep).unwrap();
    let failure = set_aside(&dir).unwrap_err();
    assert!(failure.message().contains("deep"), "{}", failure.message());
    assert!(!dir.snapshot().exists() && !dir.snapshot_part().exists());
    assert_eq!(read(&dir, "rows").unwrap(), "old");
}

/// A process that the app left behind swaps its own file for a link to somebody else's.
#[test]
fn nothing_is_copied_through_a_link_that_takes_the_place_of_a_file_meanwhile() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (temp, dir) = dir();
    write(&dir, "file", "own");
    write(&dir, "folder/x", "own");
    let secret = temp.path().join("secret");
    pytheas_durable::create_dir_all(&secret).unwrap();
    pytheas_durable::replace(&secret.join("x"), b"secret").unwrap();
    symlink(secret.join("x"), dir.data().join("file.link")).unwrap();
    symlink(&secret, dir.data().join("folder.link")).unwrap();
    let done = AtomicBool::new(false);
    let leaked = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for name in ["file", "folder"] {
                    let (own, link) = (
                        dir.data().join(name),
                        dir.data().join(format!("{name}.link")),
                    );
                    let exchange = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, own, CWD, link, exchange).unwrap();
                }
            }
        });
        let copied = dir.snapshot_part();
        let leaked = (0..300).any(|_| {
            remove_tree(&copied).unwrap();
            let _refused_or_whole = copy(&dir.data(), &copied);
            ["file", "file.link", "folder/x", "folder.link/x"]
                .iter()
                .any(|name| {
                    let path = copied.join(name);
                    let above = path.parent().unwrap();
                    let is_own = |path: &Path| {
                        fs::symlink_metadata(path).is_ok_and(|found| !found.is_symlink())
                    };
                    is_own(above)
                        && is_own(&path)
                        && fs::read(&path).is_ok_and(|text| text == b"secret")
                })
        });
        done.store(true, Ordering::Relaxed);
        leaked
    });
    assert!(!leaked);
}
