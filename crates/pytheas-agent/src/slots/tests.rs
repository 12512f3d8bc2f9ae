//! Slots on a real disk: sharing, modes, damage, and what stays when something is removed.

use std::os::unix::fs::MetadataExt as _;

use super::*;

struct Bench {
    _tmp: tempfile::TempDir,
    dir: StateDir,
}

fn entry(content: &[u8], executable: bool) -> Entry {
    Entry::File {
        size_bytes: content.len() as u64,
        sha256: Sha256::of(content),
        executable,
    }
}

fn tree(entries: &[(&str, Entry)]) -> Tree {
    let mut tree = Tree::default();
    for (path, entry) in entries {
        tree.insert(path.parse().unwrap(), entry.clone()).unwrap();
    }
    tree
}

impl Bench {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(tmp.path());
        Self { _tmp: tmp, dir }
    }

    /// Lays contents where a download would have put them.
    fn fetched(&self, tree: &Tree, contents: &[&[u8]]) {
        let id = tree.id();
        pytheas_durable::create_dir_all(&self.dir.objects(id)).unwrap();
        for content in contents {
            let path = self.dir.object(id, Sha256::of(content));
            pytheas_durable::replace(&path, content).unwrap();
        }
    }

    fn install(&self, tree: &Tree, from: Option<TreeId>, contents: &[&[u8]]) {
        self.fetched(tree, contents);
        stage(&self.dir, tree, from).unwrap();
        assert_eq!(
            accept(&self.dir, tree, None, &Written::default()).unwrap(),
            None
        );
    }

    fn metadata(&self, tree: &Tree, path: &str) -> fs::Metadata {
        fs::metadata(self.dir.slot(tree.id()).join(path)).unwrap()
    }
}

#[test]
fn unchanged_files_are_the_same_files_and_nothing_can_be_written() {
    let bench = Bench::new();
    let old = tree(&[
        ("bin/app", entry(b"run", true)),
        ("lib/a", entry(b"same", false)),
        ("lib/b", entry(b"old", false)),
    ]);
    bench.install(&old, None, &[b"run", b"same", b"old"]);
    let new = tree(&[
        ("bin/app", entry(b"run", true)),
        (
            "bin/link",
            Entry::Symlink {
                target: "app".into(),
            },
        ),
        ("empty", Entry::Directory),
        ("lib/b", entry(b"new", false)),
        ("moved/a", entry(b"same", false)),
    ]);
    bench.install(&new, Some(old.id()), &[b"new"]);
    assert_eq!(
        bench.metadata(&new, "moved/a").ino(),
        bench.metadata(&old, "lib/a").ino()
    );
    assert_eq!(
        bench.metadata(&new, "bin/app").ino(),
        bench.metadata(&old, "bin/app").ino()
    );
    let mode = |path: &str| bench.metadata(&new, path).mode() & 0o7777;
    assert_eq!(
        (mode("bin/app"), mode("lib/b"), mode("empty"), mode("")),
        (0o555, 0o444, 0o755, 0o755)
    );
    assert_eq!(slot_damage(&bench.dir, new.id()).unwrap(), None);
    assert_eq!(
        slot_damage(&bench.dir, old.id()).unwrap(),
        None,
        "the old slot is as it was"
    );
}

#[test]
fn what_is_executable_in_one_place_only_is_not_shared() {
    let bench = Bench::new();
    let old = tree(&[("a", entry(b"tool", false))]);
    bench.install(&old, None, &[b"tool"]);
    let new = tree(&[
        ("a", entry(b"tool", true)),
        ("b", entry(b"tool", false)),
        ("c", entry(b"fresh", true)),
        ("d", entry(b"fresh", false)),
    ]);
    bench.install(&new, Some(old.id()), &[b"fresh"]);
    assert_eq!(bench.metadata(&old, "a").mode() & 0o777, 0o444);
    assert_ne!(
        bench.metadata(&new, "a").ino(),
        bench.metadata(&old, "a").ino()
    );
    assert_eq!(
        bench.metadata(&new, "b").ino(),
        bench.metadata(&old, "a").ino()
    );
    assert_ne!(
        bench.metadata(&new, "c").ino(),
        bench.metadata(&new, "d").ino()
    );
}

#[test]
fn damage_is_named_and_keeps_a_tree_from_becoming_a_slot() {
    let bench = Bench::new();
    let new = tree(&[
        ("a", entry(b"one", false)),
        ("b", entry(b"two", false)),
        ("c", entry(b"three", false)),
    ]);
    bench.fetched(&new, &[b"one", b"two", b"three"]);
    stage(&bench.dir, &new, None).unwrap();
    let staged = bench.dir.staged(new.id());
    remove(&staged.join("b")).unwrap();
    pytheas_durable::replace(&staged.join("c"), b"thrEE").unwrap();
    pytheas_durable::replace(&staged.join("d"), b"").unwrap();
    assert_eq!(
        accept(&bench.dir, &new, None, &Written::default())
            .unwrap()
            .as_deref(),
        Some("`b` is missing, `c` has another content or mode, `d` does not belong there")
    );
    assert!(!bench.dir.slot(new.id()).exists());
    // Staged anew it is whole.
    bench.install(&new, None, &[]);
}

#[test]
fn a_shared_file_is_read_again_when_somebody_wrote_to_it() {
    let bench = Bench::new();
    let old = tree(&[("a", entry(b"one", false)), ("b", entry(b"two", false))]);
    bench.install(&old, None, &[b"one", b"two"]);
    let new = tree(&[
        ("a", entry(b"one", false)),
        ("c", entry(b"two", false)),
        ("d", entry(b"new", false)),
    ]);
    bench.fetched(&new, &[b"new"]);
    stage(&bench.dir, &new, Some(old.id())).unwrap();
    let shared = bench.dir.slot(old.id()).join("b");
    let modified = fs::metadata(&shared).unwrap().modified().unwrap();
    let write = |at: std::time::SystemTime| {
        set_mode(&shared, 0o644).unwrap();
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).open(&shared).unwrap();
        std::io::Write::write_all(&mut file, b"TWO").unwrap();
        file.set_modified(at).unwrap();
        set_mode(&shared, 0o444).unwrap();
    };
    let checked = |from| {
        let root = bench.dir.staged(new.id());
        let checked = Checked::of(&bench.dir, from).unwrap();
        said(
            &checked
                .differences(&root, &new, &Written::default())
                .unwrap(),
        )
    };
    assert_eq!(checked(old.id()), None);
    write(modified + std::time::Duration::from_secs(3600));
    let found = "`c` has another content or mode";
    assert_eq!(checked(old.id()).as_deref(), Some(found));
    // Rot leaves no trace: that is the scrub's to find, as it is for what runs.
    write(modified);
    assert_eq!(checked(old.id()), None);
    let refused = accept(&bench.dir, &new, None, &Written::default()).unwrap();
    assert_eq!(
        refused.as_deref(),
        Some(found),
        "who trusts nobody reads it"
    );
}

#[test]
fn content_that_is_nowhere_is_named() {
    let bench = Bench::new();
    let new = tree(&[("a", entry(b"one", false))]);
    let error = stage(&bench.dir, &new, None).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"`a` of the new tree is neither downloaded nor in the running release");
}

#[test]
fn current_leads_to_slots_only() {
    let bench = Bench::new();
    let (a, b) = (
        tree(&[("a", entry(b"a", false))]),
        tree(&[("a", entry(b"b", false))]),
    );
    bench.install(&a, None, &[b"a"]);
    point_current(&bench.dir, Some(a.id())).unwrap();
    assert!(matches!(
        point_current(&bench.dir, Some(b.id())),
        Err(SlotError::NoSlot { .. })
    ));
    assert_eq!(current(&bench.dir), Some(a.id()));
    point_current(&bench.dir, None).unwrap();
    assert_eq!(current(&bench.dir), None);
}

#[test]
fn tidying_leaves_what_is_needed_and_what_is_not_ours() {
    let bench = Bench::new();
    let trees: Vec<Tree> = (0..3_u8)
        .map(|n| tree(&[("n", entry(&[n], false))]))
        .collect();
    for (n, tree) in (0..3_u8).zip(&trees) {
        bench.install(tree, None, &[&[n]]);
    }
    let strange = bench.dir.slots().join("lost+found");
    fs::create_dir(&strange).unwrap();
    tidy(&bench.dir, &[trees[0].id(), trees[2].id()]).unwrap();
    let there: Vec<bool> = trees
        .iter()
        .map(|tree| bench.dir.slot(tree.id()).exists())
        .collect();
    assert_eq!(there, [true, false, true]);
    assert!(!bench.dir.slot_document(trees[1].id()).exists() && strange.exists());
    assert_eq!(names(&bench.dir.downloads()).unwrap(), [""; 0]);
    assert_eq!(names(&bench.dir.staging()).unwrap(), [""; 0]);
    tidy(&bench.dir, &[]).unwrap();
    tidy(&bench.dir, &[]).unwrap();
}

#[test]
fn a_slot_is_known_by_its_name_when_its_document_is_lost() {
    let bench = Bench::new();
    let a = tree(&[("a", entry(b"a", false))]);
    bench.install(&a, None, &[b"a"]);
    fs::remove_file(bench.dir.slot_document(a.id())).unwrap();
    assert_eq!(slot_damage(&bench.dir, a.id()).unwrap(), None);
    pytheas_durable::replace(&bench.dir.slot(a.id()).join("a"), b"b").unwrap();
    assert!(
        slot_damage(&bench.dir, a.id())
            .unwrap()
            .unwrap()
            .starts_with("it is tree ")
    );
}

#[test]
fn another_file_system_is_copied_from() {
    let (here, there) = (tempfile::tempdir().unwrap(), Path::new("/dev/shm"));
    let other = tempfile::tempdir_in(there).ok().filter(|other| {
        fs::metadata(other.path()).unwrap().dev() != fs::metadata(here.path()).unwrap().dev()
    });
    let Some(other) = other else {
        testkit::skip("/dev/shm is no other file system");
        return;
    };
    let source = other.path().join("file");
    pytheas_durable::replace(&source, b"content").unwrap();
    place(&source, &here.path().join("file"), true).unwrap();
    assert_eq!(fs::read(here.path().join("file")).unwrap(), b"content");
}
