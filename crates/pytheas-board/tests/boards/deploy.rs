//! Deploys to the emulated board: as files and as images.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use pytheas_board::{
    deploy::{DeployError, Files, rom, tree},
    link::{Board, Facts, files},
    romfs,
};

use crate::rig::Rigboard;

fn tree_of(files: &[(&str, &[u8])]) -> Files {
    let pair = |(path, bytes): &(&str, &[u8])| (path.parse().unwrap(), bytes.to_vec());
    files.iter().map(pair).collect()
}

fn on_board(board: &mut Board) -> BTreeMap<String, Vec<u8>> {
    let entries = files::list(board, "/", true).unwrap();
    let files = entries.into_iter().filter(|entry| !entry.folder);
    files
        .map(|entry| {
            let bytes = files::read(board, &entry.path, &mut |_| {}).unwrap();
            (entry.path, bytes)
        })
        .filter(|(path, _)| !path.starts_with("/.pytheas"))
        .collect()
}

fn deploy(board: &mut Board, files: &Files) -> Result<(usize, usize, usize), DeployError> {
    let facts = Facts::ask(board).unwrap();
    let done = tree::deploy(board, &facts, "/", files, &mut |_, _| {})?;
    Ok((done.written, done.unchanged, done.removed))
}

#[test]
fn a_tree_is_brought_up_to_date_and_what_is_not_ours_stays() {
    let Some(rig) = Rigboard::start() else { return };
    let board = &mut rig.open();
    let facts = Facts::ask(board).unwrap();
    files::write(board, &facts, "/mine.txt", b"my own", &mut |_| {}).unwrap();
    let long = vec![3; 9000];
    let first = tree_of(&[
        ("main.py", b"import pkg.a"),
        ("pkg/__init__.py", b""),
        ("pkg/a.py", b"print('one')"),
        ("old/deep/x", b"x"),
        ("turns", b"file"),
        ("data.bin", &long),
    ]);
    assert_eq!(deploy(board, &first).unwrap(), (6, 0, 0));
    assert_eq!(deploy(board, &first).unwrap(), (0, 6, 0));
    let second = tree_of(&[
        ("main.py", b"import pkg.a"),
        ("pkg/__init__.py", b""),
        ("pkg/a.py", b"print('two')"),
        ("turns/into", b"a folder"),
        ("data.bin", &long),
    ]);
    assert_eq!(deploy(board, &second).unwrap(), (2, 3, 2));
    let mut expected: BTreeMap<_, _> = second
        .iter()
        .map(|(path, bytes)| (format!("/{path}"), bytes.clone()))
        .collect();
    expected.insert("/mine.txt".into(), b"my own".to_vec());
    assert_eq!(on_board(board), expected);
    assert!(files::list(board, "/old", false).is_err());
    // The app runs after a restart.
    board.restart().unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("two") {
        let came = board
            .output(Instant::now() + Duration::from_secs(60))
            .unwrap();
        assert!(!came.is_empty(), "{}", String::from_utf8_lossy(&seen));
        seen.extend(came);
    }
}

#[test]
fn what_a_board_cannot_take_is_refused_and_leaves_it_as_it_was() {
    let Some(rig) = Rigboard::start() else { return };
    let board = &mut rig.open();
    deploy(board, &tree_of(&[("app.py", b"1")])).unwrap();
    let before = on_board(board);
    // A small file system beside the other: 64 KB.
    let small = "import vfs\nd=Flash(0x21c00000,65536)\nvfs.VfsFat.mkfs(d)\nvfs.mount(vfs.VfsFat(d),'/small')";
    board.exec(small).unwrap();
    let facts = Facts::ask(board).unwrap();
    let system = facts.file_system("/small/x").unwrap();
    assert_eq!(system.kind, "VfsFat");
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    let mut put = |files: &[(&str, &[u8])]| {
        tree::deploy(board, &facts, "/small", &tree_of(files), &mut |_, _| {})
    };
    let free = system.free as usize;
    // Seen before a byte is sent; and by the board alone, which has overhead of its own.
    for size in [noise.len(), free - 700] {
        let error = put(&[("app.py", b"2"), ("big", &noise[..size])]).unwrap_err();
        assert!(matches!(error, DeployError::Full { .. }), "{error:?}");
    }
    for (files, says) in [
        (
            &[("a:b.py", &b""[..])][..],
            "the board cannot hold `a:b.py`: FAT does not take such names",
        ),
        (
            &[("App.py", b""), ("app.py", b"")],
            "the board cannot hold `app.py`: FAT takes it for the same name as `App.py`",
        ),
        (
            &[(".pytheas-files", b"")],
            "the board cannot hold `.pytheas-files`: the name is used by the deploy itself",
        ),
    ] {
        assert_eq!(put(files).unwrap_err().to_string(), says);
    }
    put(&[("app.py", b"2"), ("some", &noise[..9000])]).unwrap();
    assert_eq!(files::list(board, "/small", false).unwrap().len(), 3);
    board.exec("vfs.umount('/small')").unwrap();
    let native = b"M\x06\x2b\x1f\x00";
    for (name, bytes, says) in [
        (
            "app.mpy",
            &b"M\x05\x00\x1f"[..],
            "the board reads .mpy version 6, the file has version 5",
        ),
        (
            "app.mpy",
            native,
            "the file has native code for xtensawin, the board runs armv7em",
        ),
    ] {
        let error = deploy(board, &tree_of(&[(name, bytes)])).unwrap_err();
        let DeployError::Mpy { source, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(source.to_string(), says);
    }
    assert_eq!(on_board(board), before);
}

#[test]
fn an_image_goes_where_none_runs_and_starts_after_a_cut() {
    let Some(mut rig) = Rigboard::start() else {
        return;
    };
    let image = |text: &str| {
        let files = tree_of(&[("node.py", text.as_bytes()), ("data", &[7; 9000])]);
        romfs::plain(&files).unwrap()
    };
    let (one, two) = (
        image("def run(): print('one')"),
        image("def run(): print('two!')"),
    );
    let put = |rig: &Rigboard, image: &[u8]| {
        let board = &mut rig.open();
        let facts = Facts::ask(board).unwrap();
        let entry = Some("node:run");
        rom::deploy(
            board,
            &facts,
            image,
            entry,
            rom::MainPy::Keep,
            &mut |_, _| {},
        )
        .unwrap()
    };
    let runs = |rig: &Rigboard| {
        let program = "import sys\nsys.modules.pop('node',None)\nimport node\nnode.run()";
        String::from_utf8(rig.open().exec(program).unwrap()).unwrap()
    };
    assert_eq!(put(&rig, &one).written, 1);
    rig.power_cycle();
    assert_eq!(runs(&rig), "one\r\n");
    assert_eq!(put(&rig, &one).unchanged, 1);
    assert_eq!(put(&rig, &two).written, 1);
    rig.power_cycle();
    assert_eq!(runs(&rig), "two!\r\n");
    // The other place still has the first image: nothing of it is sent again.
    let back = put(&rig, &one);
    assert_eq!((back.written, back.sent_bytes), (1, 0));
    rig.power_cycle();
    assert_eq!(runs(&rig), "one\r\n");
}

/// Content that deflate cannot shorten.
pub(crate) fn noise(len: u32, seed: u32) -> Vec<u8> {
    let byte = |at: u32| ((at ^ seed).wrapping_mul(2_654_435_761) >> 13) as u8;
    (0..len).map(byte).collect()
}

/// An image whose `mod.py` says `text`, at another offset each time, beside content that stays.
fn mostly_the_same(text: &str) -> Vec<u8> {
    let code = format!("TEXT = '{text}'");
    let (before, after) = (noise(20_000, 1), noise(30_000, 1 << 20));
    romfs::plain(&tree_of(&[
        ("a", &before),
        ("mod.py", code.as_bytes()),
        ("z", &after),
    ]))
    .unwrap()
}

/// Deploys such an image and gives what was sent of it.
fn put_image(
    board: &mut Board,
    text: &str,
    progress: pytheas_board::deploy::Progress<'_>,
) -> Result<u64, DeployError> {
    let facts = Facts::ask(board).unwrap();
    let image = mostly_the_same(text);
    let done = rom::deploy(board, &facts, &image, None, rom::MainPy::Keep, progress)?;
    Ok(done.sent_bytes)
}

/// What the image that runs says, and whether the rest of it is whole.
fn says(board: &mut Board) -> String {
    let program = "import mod,hashlib\nprint(mod.TEXT,[hashlib.sha256(open('/app/'+f,'rb').read()).digest()[0] for f in 'az'])";
    String::from_utf8(board.exec(program).unwrap()).unwrap()
}

fn said(text: &str) -> String {
    let first = |bytes: &[u8]| pytheas_release::Sha256::of(bytes).as_bytes()[0];
    let (a, z) = (first(&noise(20_000, 1)), first(&noise(30_000, 1 << 20)));
    format!("{text} [{a}, {z}]\r\n")
}

#[test]
fn what_runs_is_not_sent_again_also_after_a_cut_and_never_trusted() {
    let Some(mut rig) = Rigboard::start() else {
        return;
    };
    let mut quiet = |_: u64, _: u64| {};
    assert!(put_image(&mut rig.open(), "0", &mut quiet).unwrap() > 50_000);
    rig.power_cycle();
    // Everything after the text has moved, and is found all the same.
    let mut text = "first".to_owned();
    let sent = put_image(&mut rig.open(), &text, &mut quiet).unwrap();
    assert!(sent < 4_000, "{sent}");
    rig.power_cycle();
    assert_eq!(says(&mut rig.open()), said(&text));
    // The power goes while the board copies.
    for round in 0..4 {
        let new = "x".repeat(40 * (round + 1));
        {
            let board = &mut rig.open();
            let Rigboard { board: power, .. } = &mut rig;
            let mut cut = |_: u64, _: u64| {
                std::thread::sleep(Duration::from_millis(5 * round as u64));
                power.kill();
            };
            let _cut = put_image(board, &new, &mut cut);
        }
        rig.power_cycle();
        let now = says(&mut rig.open());
        assert!([said(&text), said(&new)].contains(&now), "{round}: {now}");
        let sent = put_image(&mut rig.open(), &new, &mut quiet).unwrap();
        assert!(sent < 4_000, "{round}: {sent}");
        rig.power_cycle();
        assert_eq!(says(&mut rig.open()), said(&new));
        text = new;
    }
    // The line names another place and size than the image has: nothing fits, all is sent.
    let wrong = "f=open('/.pytheas-rom','w')\nf.write('0 4096 60000 '+'0'*64+' -')\nf.close()";
    rig.open().exec(wrong).unwrap();
    put_image(&mut rig.open(), "wrong", &mut quiet).unwrap();
    rig.power_cycle();
    assert_eq!(says(&mut rig.open()), said("wrong"));
    // What is copied is not what was hashed: seen at the end, and all is sent.
    {
        let board = &mut rig.open();
        let lies = "import sys,vfs as _real\nclass V:\n n=0\n def rom_ioctl(self,*a):\n  if a[0]==2:\n   V.n+=1\n   \
                    if V.n==5: a=(2,1-a[1])\n  return _real.rom_ioctl(*a)\nsys.modules['vfs']=V()";
        let facts = Facts::ask(board).unwrap();
        board.exec(lies).unwrap();
        let image = mostly_the_same("lied");
        let keep = rom::MainPy::Keep;
        let done = rom::deploy(board, &facts, &image, None, keep, &mut quiet).unwrap();
        assert!(done.sent_bytes > 50_000, "{done:?}");
    }
    rig.power_cycle();
    assert_eq!(says(&mut rig.open()), said("lied"));
}

#[test]
fn a_cut_at_any_moment_leaves_the_old_or_the_new_app_whole() {
    let Some(mut rig) = Rigboard::start() else {
        return;
    };
    let rounds = if std::env::var_os("PYTHEAS_TEST_ALL").is_some() {
        60
    } else {
        6
    };
    let app = |text: &str| {
        tree_of(&[
            ("a.py", format!("A = '{text}'").as_bytes()),
            ("b.py", format!("B = '{text}'").as_bytes()),
            ("data", &text.repeat(3000).into_bytes()),
        ])
    };
    let image = |text: &str| romfs::plain(&app(text)).unwrap();
    {
        let board = &mut rig.open();
        let facts = Facts::ask(board).unwrap();
        tree::deploy(board, &facts, "/files", &app("0"), &mut |_, _| {}).unwrap();
        rom::deploy(
            board,
            &facts,
            &image("0"),
            None,
            rom::MainPy::Keep,
            &mut |_, _| {},
        )
        .unwrap();
    }
    // It stays, though ours stands for it while files change places.
    rig.open()
        .exec("with open('/boot.py','w') as f:f.write('BOOT=1')")
        .unwrap();
    let mut random = 12_345_u64;
    let (mut old_files, mut old_image) = ("0".to_owned(), "0".to_owned());
    for round in 1..=rounds {
        let new = round.to_string();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Somewhere in the transfer, or (every third time) somewhere around its end.
        let fraction = if round % 3 == 0 {
            100
        } else {
            (random >> 33) & 63
        };
        let as_files = round % 2 == 1;
        {
            let board = &mut rig.open();
            let facts = Facts::ask(board).unwrap();
            let Rigboard { board: power, .. } = &mut rig;
            let mut cut = |sent: u64, total: u64| {
                if sent * 100 >= total * fraction {
                    if fraction == 100 {
                        std::thread::sleep(Duration::from_millis((random >> 40) & 63));
                    }
                    power.kill();
                }
            };
            let _cut = if as_files {
                tree::deploy(board, &facts, "/files", &app(&new), &mut cut).map(drop)
            } else {
                rom::deploy(
                    board,
                    &facts,
                    &image(&new),
                    None,
                    rom::MainPy::Keep,
                    &mut cut,
                )
                .map(drop)
            };
        }
        rig.power_cycle();
        let board = &mut rig.open();
        let facts = Facts::ask(board).unwrap();
        if as_files {
            let said = board.exec("print(open('/boot.py').read())").unwrap();
            assert!(said.starts_with(b"BOOT=1"), "{said:?} after cut {round}");
            let mut is = |path: &str, text: &str| {
                let expected = &app(text)[path];
                files::read(board, &format!("/files/{path}"), &mut |_| {}).unwrap() == *expected
            };
            // The board has ended what it had begun: all are old, or all are new.
            let states = ["a.py", "b.py", "data"].map(|path| {
                assert!(
                    is(path, &old_files) || is(path, &new),
                    "{path} after cut {round}"
                );
                is(path, &new)
            });
            assert!(
                states == [false; 3] || fraction == 100 && states == [true; 3],
                "cut {round}: {states:?}"
            );
            tree::deploy(board, &facts, "/files", &app(&new), &mut |_, _| {}).unwrap();
            old_files = new;
        } else {
            let program = "import a,b\nprint(a.A,b.B,len(open('/app/data').read()))";
            let runs = String::from_utf8(board.exec(program).unwrap()).unwrap();
            let whole = |text: &str| format!("{text} {text} {}\r\n", 3000 * text.len());
            assert!(
                [whole(&old_image), whole(&new)].contains(&runs),
                "cut {round}: {runs}"
            );
            rom::deploy(
                board,
                &facts,
                &image(&new),
                None,
                rom::MainPy::Keep,
                &mut |_, _| {},
            )
            .unwrap();
            old_image = new;
        }
    }
    testkit::faults(&format!(
        "{rounds} cuts of an emulated board's power over deploys of files and images: the old app or the \
         new one, whole, each time"
    ));
}

#[test]
fn an_interrupted_deploy_goes_on_where_it_stopped() {
    let Some(mut rig) = Rigboard::start() else {
        return;
    };
    let noise: Vec<u8> = (0..24_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let files = tree_of(&[
        ("a", &noise[..8000]),
        ("b", &noise[8000..16_000]),
        ("c", &noise[16_000..]),
    ]);
    {
        let board = &mut rig.open();
        let facts = Facts::ask(board).unwrap();
        let Rigboard { board: power, .. } = &mut rig;
        let mut cut = |sent: u64, _| {
            if sent > 20_000 {
                power.kill();
            }
        };
        tree::deploy(board, &facts, "/", &files, &mut cut).unwrap_err();
    }
    rig.power_cycle();
    let board = &mut rig.open();
    let facts = Facts::ask(board).unwrap();
    let done = tree::deploy(board, &facts, "/", &files, &mut |_, _| {}).unwrap();
    assert!(done.sent_bytes <= 16_000, "{done:?}");
    assert_eq!(on_board(board).len(), 3);
}

#[test]
fn a_random_tree_is_the_same_on_the_board_as_by_mpremote() {
    let Some(mpremote) = testkit::board::Rig::find().and_then(|rig| rig.mpremote()) else {
        return;
    };
    let Some(rig) = Rigboard::start() else { return };
    let cases = if std::env::var_os("PYTHEAS_TEST_ALL").is_some() {
        25
    } else {
        3
    };
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let name = "[a-zA-Zé _.+()-]{0,7}[a-z]";
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let content = prop::collection::vec(any::<u8>(), 0..600);
    let trees = prop::collection::btree_map(path, content, 1..6);
    runner
        .run(&trees, |tree| {
            // A file cannot be a folder, too.
            let folders: Vec<_> = tree.keys().map(|path| format!("{path}/")).collect();
            prop_assume!(
                !tree
                    .keys()
                    .any(|path| folders.iter().any(|folder| path.starts_with(folder)))
            );
            let here = tempfile::tempdir().unwrap();
            let root = here.path().join("theirs");
            let mut files = Files::new();
            for (path, bytes) in &tree {
                let place = root.join(path);
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                #[expect(clippy::disallowed_methods, reason = "a test's own folder")]
                std::fs::write(place, bytes).unwrap();
                files.insert(path.parse().unwrap(), bytes.clone());
            }
            let mut rig = rig.open();
            let facts = Facts::ask(&mut rig).unwrap();
            tree::deploy(&mut rig, &facts, "/ours", &files, &mut |_, _| {}).unwrap();
            let port = rig.port().to_owned();
            drop(rig);
            let status = std::process::Command::new(&mpremote)
                .args(["connect", &port, "resume", "rm", "-r", ":theirs"])
                .output();
            let _first_time = status.unwrap();
            let output = std::process::Command::new(&mpremote)
                .args(["connect", &port, "resume", "cp", "-r"])
                .arg(&root)
                .arg(":")
                .output()
                .unwrap();
            prop_assert!(output.status.success(), "{output:?}");
            let mut board = Board::open(&port.parse().unwrap(), crate::rig::patient()).unwrap();
            let all = on_board(&mut board);
            let under = |root: &str| -> BTreeMap<String, Vec<u8>> {
                let inside = |(path, bytes): (&String, &Vec<u8>)| {
                    let path = path.strip_prefix(root)?.to_owned();
                    (!path.starts_with(".pytheas-files")).then(|| (path, bytes.clone()))
                };
                all.iter().filter_map(inside).collect()
            };
            prop_assert_eq!(under("/ours/"), under("/theirs/"));
            Ok(())
        })
        .unwrap();
}
