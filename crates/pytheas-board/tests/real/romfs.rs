//! ROMFS images, mounted by the real `vfs.VfsRom` and compared with mpremote's.

use std::{collections::BTreeMap, fmt::Write, path::Path, process::Command};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use pytheas_board::romfs::{self, Rom};
use pytheas_release::{
    RelPath, Sha256,
    board::{self, ImageManifest},
};

use crate::rig;

type Files = BTreeMap<RelPath, Vec<u8>>;

/// Mounts each image and prints every file it lists, as the board sees it.
const LISTER: &str = r#"
import sys, os, vfs, hashlib, binascii
def walk(p, show):
    for e in os.ilistdir(p):
        q = p + "/" + e[0]
        if e[1] == 0x4000:
            walk(q, show)
        else:
            d = open(q, "rb").read()
            assert len(d) == e[3] == os.stat(q)[6]
            m = memoryview(open(q, "rb"))
            assert bytes(m) == d
            print(show + q[len("/t") + 1:].replace("\n", "?"), binascii.hexlify(hashlib.sha256(d).digest()).decode())
for name in sys.argv[1:]:
    image = open(name, "rb").read()
    vfs.mount(vfs.VfsRom(image), "/t")
    print("image")
    walk("/t", "")
    vfs.umount("/t")
"#;

fn seen_by_micropython(port: &Path, images: &[Vec<u8>]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("lister.py");
    rig::put(&script, LISTER.as_bytes());
    let mut command = Command::new(port);
    command.arg(&script);
    for (at, image) in images.iter().enumerate() {
        let path = folder.path().join(format!("{at}.romfs"));
        rig::put(&path, image);
        command.arg(path);
    }
    let text = rig::output(&mut command);
    text.split("image\n").skip(1).map(str::to_owned).collect()
}

fn expected(files: &Files) -> String {
    // `ilistdir` goes through folders in the order of their names, not of whole paths.
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by_key(|(path, _)| path.as_str().split('/').collect::<Vec<_>>());
    let mut text = String::new();
    for (path, content) in sorted {
        writeln!(text, "{path} {}", Sha256::of(content)).unwrap();
    }
    text
}

fn manifest() -> ImageManifest {
    let json = r#"{"format":1,"name":"node","version":"1.0","counter":0,"platform":"micropython-any",
        "entry":"main","front":0,"body":{"size":0,"sha256":
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}"#;
    serde_json::from_str(json).unwrap()
}

/// Trees of names and contents, with equal files in them; names as `name` says.
fn trees(name: &'static str) -> impl Strategy<Value = Files> {
    let content = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..300),
        (0..9u8).prop_map(|byte| vec![byte; 12 + usize::from(byte)]),
        (15_000..20_000usize).prop_map(|length| vec![7; length]),
    ];
    let path = prop::collection::vec(name, 1..5).prop_map(|parts| parts.join("/"));
    prop::collection::vec((path, content), 0..24).prop_map(|entries| {
        let mut files = Files::new();
        for (path, content) in entries {
            let Ok(path) = path.parse::<RelPath>() else {
                continue;
            };
            let clash = files.keys().any(|other| {
                let (a, b) = (format!("{path}/"), format!("{other}/"));
                a.starts_with(&b) || b.starts_with(&a)
            });
            if !clash {
                files.insert(path, content);
            }
        }
        files
    })
}

fn sample(strategy: impl Strategy<Value = Files>, count: usize) -> Vec<Files> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

#[test]
fn micropython_lists_and_reads_every_file_of_plain_and_of_signed_images() {
    let Some(port) = rig::program("unix/micropython") else {
        return;
    };
    let trees = sample(
        trees("[a-c]|[ -.0-~]{1,9}|\\PC{1,20}|[xyz]{200,255}"),
        rig::cases(24, 600),
    );
    let mut images = Vec::new();
    let mut want = Vec::new();
    for files in &trees {
        let plain = romfs::plain(files).unwrap();
        let whole = romfs::image(&mut manifest(), files).unwrap();
        for image in [&plain, &whole] {
            let rom = Rom::read(image).unwrap();
            assert_eq!(image.len() % 2, 0);
            assert_eq!(rom.size, image.len());
            let same = files.iter().map(|(path, data)| (path.clone(), &data[..]));
            assert_eq!(rom.files, same.collect());
        }
        Rom::read(&whole).unwrap().check().unwrap();
        board::read(&whole).unwrap();
        images.extend([plain, whole]);
        want.extend([expected(files), expected(files)]);
    }
    for (images, want) in images.chunks(48).zip(want.chunks(48)) {
        assert_eq!(seen_by_micropython(&port, images), want);
    }
}

#[test]
fn an_image_without_equal_files_is_mpremotes_byte_by_byte() {
    let Some(python) = rig::python_of("bin/mpremote") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("make.py");
    rig::put(
        &script,
        b"import sys\nfrom mpremote.romfs import make_romfs\nfor d in sys.argv[1:]:\n    data = make_romfs(d, mpy_cross=False)\n    open(d + '.romfs', 'wb').write(data)\n",
    );
    let trees = sample(
        trees("[a-c]|[ -.0-~]{1,9}|[xyz]{200,255}"),
        rig::cases(32, 400),
    );
    let mut command = Command::new(python);
    command.arg(&script);
    for (at, files) in trees.iter().enumerate() {
        let tree = folder.path().join(format!("t{at}"));
        std::fs::create_dir(&tree).unwrap();
        for (path, content) in files {
            rig::put(&path.under(&tree), content);
        }
        command.arg(tree);
    }
    rig::output(&mut command);
    let mut equal = 0;
    for (at, files) in trees.iter().enumerate() {
        let theirs = std::fs::read(folder.path().join(format!("t{at}.romfs"))).unwrap();
        let ours = romfs::plain(files).unwrap();
        let read = Rom::read(&theirs).unwrap();
        assert_eq!(read.files, Rom::read(&ours).unwrap().files);
        if ours.len() == theirs.len() {
            assert_eq!(ours, theirs);
            equal += 1;
        } else {
            assert!(ours.len() < theirs.len(), "sharing makes an image smaller");
        }
    }
    assert!(
        equal > 0 && equal < trees.len(),
        "both kinds of trees were tried: {equal}"
    );
}

#[test]
fn mpremotes_command_line_makes_the_same_image() {
    let Some(mpremote) = rig::program("bin/mpremote") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    let files: Files = [
        ("main.py", "import lib.x\n"),
        ("lib/x.py", "X = 1\n"),
        ("data", ""),
    ]
    .map(|(path, text)| (path.parse().unwrap(), text.as_bytes().to_vec()))
    .into();
    for (path, content) in &files {
        rig::put(&path.under(&tree), content);
    }
    let out = folder.path().join("out.romfs");
    rig::output(
        Command::new(mpremote)
            .args(["romfs", "--no-mpy", "-o"])
            .arg(&out)
            .arg("build")
            .arg(&tree),
    );
    assert_eq!(std::fs::read(out).unwrap(), romfs::plain(&files).unwrap());
}
