//! Deploys of files to boards whose file system has other plans: what is in the way, what was begun and
//! never ended, no room, no writing.

use pytheas_board::{
    deploy::{DeployError, Deployed, Files, tree},
    link::{Board, Facts, files},
};

use crate::rig::Rigboard;

fn tree_of(files: &[(&str, &str)]) -> Files {
    let pair = |(path, text): &(&str, &str)| (path.parse().unwrap(), text.as_bytes().to_vec());
    files.iter().map(pair).collect()
}

fn deploy(board: &mut Board, root: &str, files: &Files) -> Result<Deployed, DeployError> {
    let facts = Facts::ask(board).unwrap();
    tree::deploy(board, &facts, root, files, &mut |_, _| {})
}

/// All that is below `root`, with contents.
fn there(board: &mut Board, root: &str) -> Vec<(String, String)> {
    let entries = files::list(board, root, true).unwrap();
    let entries = entries
        .into_iter()
        .filter(|entry| !entry.path.contains("/.pytheas-files"));
    entries
        .map(|entry| {
            let text = if entry.folder {
                "folder".to_owned()
            } else {
                let bytes = files::read(board, &entry.path, &mut |_| {}).unwrap();
                String::from_utf8(bytes).unwrap()
            };
            (entry.path, text)
        })
        .collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    all.iter().map(owned).collect()
}

#[test]
fn what_is_in_the_way_goes_only_if_a_deploy_has_put_it_there() {
    let Some(rig) = Rigboard::start() else { return };
    let board = &mut rig.open();
    board
        .exec("import os\nos.mkdir('/app')\nos.mkdir('/app/own')\nos.mkdir('/app/own/deep')")
        .unwrap();
    let with = |more: &[(&str, &str)]| tree_of(&[&[("a.py", "A=1")], more].concat());
    deploy(
        board,
        "/app",
        &with(&[("turns/into/file", "1"), ("turns2", "2")]),
    )
    .unwrap();
    // Folders and files of ours change places; an empty folder that nobody misses makes room, too.
    let changed = with(&[("turns", "1"), ("turns2/into", "2"), ("own", "3")]);
    deploy(board, "/app", &changed).unwrap();
    let expected = pairs(&[
        ("/app/a.py", "A=1"),
        ("/app/own", "3"),
        ("/app/turns", "1"),
        ("/app/turns2", "folder"),
        ("/app/turns2/into", "2"),
    ]);
    assert_eq!(there(board, "/app"), expected);
    // What the user has put there does not go, and nothing else changes.
    board
        .exec("import os\nos.mkdir('/app/data')\nopen('/app/data/mine','w').close()\nopen('/app/pkg','w').close()")
        .unwrap();
    let before = there(board, "/app");
    for (path, says) in [
        ("data", "`/app/data/mine` on the board is in the way"),
        ("pkg/sub/x.py", "`/app/pkg` on the board is in the way"),
    ] {
        let error = deploy(board, "/app", &with(&[(path, "4"), ("new", "5")])).unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
        assert_eq!(there(board, "/app"), before);
    }
    // Nor does the name of the folder itself change what is in the way.
    let error = deploy(board, "/app/pkg", &with(&[])).unwrap_err();
    assert!(error.to_string().contains("`/app/pkg`"), "{error}");
}

#[test]
fn what_a_deploy_has_begun_is_ended_before_the_next_one() {
    let Some(rig) = Rigboard::start() else { return };
    let board = &mut rig.open();
    let old = tree_of(&[("a.py", "A=1"), ("b.py", "B=1"), ("c.py", "C=1")]);
    deploy(board, "/", &old).unwrap();
    // As another version of this command may have left it when it was killed: the board was not
    // restarted since.
    let begun = "import os
def put(p,t):
 with open(p,'w') as f: f.write(t)
os.mkdir('/.pytheas-new')
put('/.pytheas-new/k1','A=2')
put('/.pytheas-new/list','a.py\\nb.py\\n')
put('/.pytheas-new/todo','r k1 /a.py\\nd - /c.py\\nr list /.pytheas-files\\n')
put('/.pytheas-new/boot','MINE=1')
put('/.pytheas-new/begun','')
put('/boot.py','# Written by `pytheas board deploy`: ends it\\n')";
    board.exec(begun).unwrap();
    let new = tree_of(&[("a.py", "A=2"), ("b.py", "B=3"), ("d.py", "D=3")]);
    let done = deploy(board, "/", &new).unwrap();
    assert_eq!((done.written, done.unchanged, done.removed), (2, 1, 0));
    let expected = pairs(&[
        ("/a.py", "A=2"),
        ("/b.py", "B=3"),
        ("/boot.py", "MINE=1"),
        ("/d.py", "D=3"),
    ]);
    assert_eq!(there(board, "/"), expected);
    // What was left before anything was begun brings no old `boot.py` back.
    board
        .exec("import os\nos.remove('/boot.py')\nos.mkdir('/.pytheas-new')\nput('/.pytheas-new/boot','OLD=1')")
        .unwrap();
    let last = tree_of(&[("a.py", "A=4"), ("b.py", "B=4"), ("d.py", "D=3")]);
    deploy(board, "/", &last).unwrap();
    let expected = pairs(&[("/a.py", "A=4"), ("/b.py", "B=4"), ("/d.py", "D=3")]);
    assert_eq!(there(board, "/"), expected);
}

/// A file system of 256 KB at `/flash`, where boards have theirs that start from there.
const FLASH: &str = "import os,vfs
d=Flash(0x21c00000,262144)
vfs.VfsLfs2.mkfs(d)
vfs.mount(vfs.VfsLfs2(d),'/flash')
def fill(left):
 try: os.remove('/flash/fill')
 except OSError: pass
 with open('/flash/fill','w') as f:
  s=os.statvfs('/flash')
  for _ in range(s[3]-left): f.write(b'x'*s[0])
";

#[test]
fn with_however_little_room_all_files_change_or_none() {
    let Some(rig) = Rigboard::start() else { return };
    let board = &mut rig.open();
    board.exec(FLASH).unwrap();
    let app = |text: &str, folder: &str| -> Files {
        let file = |n: usize| {
            let path = format!("{folder}{}/module_{n}.py", n % 5);
            (path.parse().unwrap(), text.repeat(60 * n).into_bytes())
        };
        (0..10).map(file).collect()
    };
    let (one, two) = (app("one\n", "first"), app("two\n", "second"));
    let state = |board: &mut Board| -> Files {
        let all = there(board, "/flash").into_iter();
        let all = all.filter(|(path, text)| text != "folder" && path != "/flash/fill");
        let file = |(path, text): (String, String)| {
            let inside = path.trim_start_matches("/flash/").parse();
            (inside.unwrap(), text.into_bytes())
        };
        all.map(file).collect()
    };
    deploy(board, "/flash", &one).unwrap();
    let lefts: Vec<u32> = if std::env::var_os("PYTHEAS_TEST_ALL").is_some() {
        (0..64).collect()
    } else {
        vec![0, 20, 60]
    };
    let (mut refused, mut taken) = (0, 0);
    for left in lefts {
        board.exec(&format!("fill({left})")).unwrap();
        let before = state(board);
        let (old, new) = if before == one {
            (&one, &two)
        } else {
            (&two, &one)
        };
        assert_eq!(&before, old, "{left}");
        match deploy(board, "/flash", new) {
            Ok(_) => {
                taken += 1;
                assert_eq!(&state(board), new, "{left}");
            }
            Err(DeployError::Full { .. }) => {
                refused += 1;
                assert_eq!(&state(board), old, "{left}");
            }
            Err(other) => panic!("{left}: {other:?}"),
        }
        assert!(
            files::list(board, "/flash/.pytheas-new", false).is_err(),
            "{left}"
        );
    }
    assert!(refused > 0 && taken > 0, "{refused} {taken}");
}

#[test]
fn what_cannot_be_written_is_said_to_be_so() {
    let Some(rig) = Rigboard::start() else { return };
    let board = &mut rig.open();
    let app = tree_of(&[("a.py", "A=1"), ("b/c.py", "C=1")]);
    // An image in memory, and a file system that is mounted for reading.
    let image = pytheas_board::romfs::plain(&tree_of(&[("x", "y")])).unwrap();
    let read_only = format!(
        "{FLASH}vfs.umount('/flash')\nvfs.mount(vfs.VfsLfs2(d),'/flash',readonly=True)\n\
         import binascii\nvfs.mount(vfs.VfsRom(binascii.unhexlify('{}')),'/image')",
        image
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
    board.exec(&read_only).unwrap();
    for root in ["/flash", "/flash/lib", "/image"] {
        let error = deploy(board, root, &app).unwrap_err();
        assert!(
            matches!(&error, DeployError::ReadOnly { place } if *place == format!("`{root}`")),
            "{error:?}"
        );
    }
}
