//! Wheels that are good, and wheels that must not be unpacked.

use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    os::unix::fs::PermissionsExt,
};

use base64::Engine as _;
use pytheas_project::Environment;
use pytheas_release::Sha256;
use zip::write::SimpleFileOptions;

use super::{store::Store, unpack::unpack};

const INFO: &str = "a-1.dist-info";

/// A wheel of these files, with a `RECORD` that is right.
fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut record = String::new();
    let wheel_file = format!("{INFO}/WHEEL");
    let all = files
        .iter()
        .copied()
        .chain([(wheel_file.as_str(), &b"Wheel-Version: 1.0\n"[..])]);
    for (name, content) in all {
        let options = SimpleFileOptions::default().unix_permissions(0o644);
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
        let digest: Vec<u8> = Sha256::of(content)
            .to_string()
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        record.push_str(&format!("{name},sha256={hash},{}\n", content.len()));
    }
    let path = format!("{INFO}/RECORD");
    record.push_str(&format!("{path},,\n"));
    zip.start_file(path, SimpleFileOptions::default()).unwrap();
    zip.write_all(record.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}

/// What the refusal says.
#[track_caller]
fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("in/side");
    let error = unpack("a-1-py3-none-any.whl", bytes, &into).unwrap_err();
    let outside: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|child| child.file_name())
        .filter(|name| name != "in")
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
    error.to_string()
}

#[test]
fn a_wheel_is_laid_out_as_an_installer_does() {
    let bytes = wheel(&[
        ("a/__init__.py", b"x = 1\n"),
        ("a-1.data/purelib/b.py", b""),
        ("a-1.data/platlib/c.so", b"so"),
        ("a-1.data/scripts/run", b"#!python\n"),
        ("a-1.data/data/share/a/d.txt", b"d"),
        ("a-1.data/headers/a.h", b"h"),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let files = unpack("a-1-py3-none-any.whl", &bytes, dir.path()).unwrap();
    let paths: Vec<&str> = files.keys().map(|path| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "a-1.dist-info/RECORD",
            "a-1.dist-info/WHEEL",
            "a/__init__.py",
            "b.py",
            "bin/run",
            "c.so",
            "include/a/a.h",
            "share/a/d.txt"
        ]
    );
    let record = std::fs::read_to_string(dir.path().join("a-1.dist-info/RECORD")).unwrap();
    assert!(record.contains("\nb.py,sha256="), "{record}");
    let mode = std::fs::metadata(dir.path().join("bin/run")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o755);
}

#[test]
fn names_that_leave_the_wheel_are_refused() {
    for (name, expected) in [
        ("../evil.py", "climbs out"),
        ("a/../../evil.py", "climbs out"),
        ("/etc/evil.py", "absolute"),
        ("a\\evil.py", "backslash"),
        ("a-1.data/data/../../evil", "climbs out"),
    ] {
        let text = refused(&wheel(&[(name, b"x")]));
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn a_link_is_refused() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("a", "/etc/passwd", SimpleFileOptions::default())
        .unwrap();
    let text = refused(&zip.finish().unwrap().into_inner());
    assert!(text.contains("`a` is a link"), "{text}");
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let zeros = vec![0; 64 << 20];
    let text = refused(&wheel(&[("zeros", &zeros)]));
    assert!(text.contains("it would unpack to more than"), "{text}");
}

#[test]
fn two_files_of_one_name_are_refused() {
    // The writer refuses to make such a file, so a name of the same length is changed afterwards.
    let mut bytes = wheel(&[("a/one.py", b"1"), ("a/two.py", b"2")]);
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(8)
        .position(|window| window == b"a/two.py")
    {
        at += found;
        bytes[at..at + 8].copy_from_slice(b"a/one.py");
    }
    let text = refused(&bytes);
    assert!(text.contains("two files of one name"), "{text}");
}

#[test]
fn a_file_without_its_recorded_hash_is_refused() {
    let mut bytes = wheel(&[("a.py", b"content that is stored")]);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut old = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
    for index in 0..old.len() {
        let file = old.by_index(index).unwrap();
        let name = String::from_utf8(file.name_raw().to_vec()).unwrap();
        drop(file);
        if name == "a.py" {
            zip.start_file("a.py", SimpleFileOptions::default())
                .unwrap();
            zip.write_all(b"other content").unwrap();
        } else {
            zip.raw_copy_file(old.by_index_raw(index).unwrap()).unwrap();
        }
    }
    bytes = zip.finish().unwrap().into_inner();
    let text = refused(&bytes);
    assert!(
        text.contains("`a.py` does not have the hash that its `RECORD` says"),
        "{text}"
    );
    assert!(refused(b"no zip at all").contains("is no wheel"));
    assert!(refused(&wheel(&[])[..40]).contains("is no wheel"));
}

#[test]
fn a_damaged_cache_is_never_copied_from_and_two_builds_share_it() {
    let cache = tempfile::tempdir().unwrap();
    let environment = Environment::default().with("PYTHEAS_CACHE_DIR", cache.path());
    let bytes = wheel(&[("a.py", b"good"), ("b.py", b"same")]);
    let sha256 = Sha256::of(&bytes);
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::new(&environment);
                    store.add("a-1-py3-none-any.whl", &bytes, sha256).unwrap()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let store = Store::new(&environment);
    let damaged = cache.path().join(format!("wheels/{sha256}/files/a.py"));
    pytheas_durable::replace(&damaged, b"bad!").unwrap();
    let path = "a.py".parse().unwrap();
    let target = cache.path().join("out.py");
    store.copy(&all[0], &path, &target).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"good");
    let again = store.contents("a-1-py3-none-any.whl", sha256).unwrap();
    assert_eq!(again.files, all[3].files);
    let names: BTreeMap<_, _> = again.files;
    assert_eq!(names.len(), 4);
}

#[test]
fn files_for_no_place_and_programs_elsewhere_are_refused() {
    insta::assert_snapshot!(
        refused(&wheel(&[("a-1.data/stdlib/os.py", b"")])),
        @"`a-1-py3-none-any.whl` is no wheel that can be installed: `a-1.data/stdlib/os.py` is for no place that a wheel has"
    );
    let programs = b"[other]\nx/y = a:b\n[console_scripts]\n ../../evil = a:b\n";
    insta::assert_snapshot!(
        refused(&wheel(&[("a-1.dist-info/entry_points.txt", programs)])),
        @"`a-1-py3-none-any.whl` is no wheel that can be installed: its program `../../evil` would lie elsewhere"
    );
}
