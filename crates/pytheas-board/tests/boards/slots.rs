//! Signed images for a board that was set up, over its line: what of them goes over it.

use std::time::{Duration, Instant};

use pytheas_board::{
    deploy::{Files, rom::MainPy, setup, slots},
    link::{Board, Facts},
};
use serde_json::{Map, Value, json};

use crate::{
    deploy::noise,
    image::{Key, image},
    rig::Rigboard,
};

/// The package as `pytheas board setup` brings it.
fn package() -> Option<Files> {
    let compiler = testkit::board::Rig::find()?.mpy_cross()?;
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../micropython");
    let scratch = tempfile::tempdir().unwrap();
    let compiled = ["__init__", "file", "rom", "ed25519", "hub"].map(|module| {
        let out = scratch.path().join("out.mpy");
        let name = format!("pytheas/{module}.py");
        let status = std::process::Command::new(&compiler)
            .args(["-O3", "-s", &name, "-o"])
            .arg(&out)
            .arg(sources.join(&name))
            .status();
        assert!(status.unwrap().success());
        let path = format!("{module}.mpy").parse().unwrap();
        (path, std::fs::read(out).unwrap())
    });
    Some(compiled.into())
}

/// A board that takes images signed by the first key, with these settings besides.
fn prepared(settings: &Value) -> Option<Rigboard> {
    let package = package()?;
    let rig = Rigboard::start()?;
    let board = &mut rig.open();
    let facts = Facts::ask(board).unwrap();
    let mut all = Map::new();
    all.insert("id".into(), json!("node"));
    all.extend(settings.as_object().unwrap().clone());
    let wanted = setup::Setup {
        package,
        settings: all,
        ca: None,
        keys: vec![Key::new(1).public()],
        main_py: MainPy::Keep,
    };
    setup::setup(board, &facts, &wanted, &mut |_, _| {}).unwrap();
    board.leave().unwrap();
    Some(rig)
}

/// A release that confirms itself and says whether it is whole. Where its text ends, what stays begins.
fn release(text: &str) -> Vec<u8> {
    let (before, after) = (hex(&noise(6_000, 1)), hex(&noise(9_000, 1 << 20)));
    let sum = pytheas_release::Sha256::of(format!("{before}{after}").as_bytes());
    let main = format!(
        "import pytheas\nfrom hashlib import sha256\ndef run():\n h = sha256()\n for n in 'az':\n  \
         with open('/app/' + n, 'rb') as f: h.update(f.read())\n \
         w = h.digest().hex() == '{sum}'\n pytheas.confirm()\n print('RUN', {text:?}, 'whole' if w else 'torn')\n \
         import time\n while True: time.sleep(1)\n"
    );
    image(
        &Key::new(1),
        &[("a", &before), ("main.py", &main), ("z", &after)],
        &json!({"version": "1.0", "counter": 1}),
    )
}

/// Text that deflate shortens by half at most.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn deploy(board: &mut Board, text: &str) -> u64 {
    let facts = Facts::ask(board).unwrap();
    let image = release(text);
    let done = slots::deploy(board, &facts, &image, &mut |_, _| {}).unwrap();
    assert_eq!((done.written, done.unchanged), (1, 0));
    done.sent_bytes
}

/// Starts the board; what runs then.
#[track_caller]
fn runs(rig: &mut Rigboard, texts: &[&str]) -> String {
    rig.power_cycle();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let said = rig.board.said();
        let is = |text: &&&str| said.contains(&format!("RUN {text} whole"));
        if let Some(text) = texts.iter().find(is) {
            return (*text).to_owned();
        }
        assert!(Instant::now() < end, "{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn of_an_image_for_a_slot_only_what_the_running_one_lacks_is_sent() {
    for settings in [
        json!({"backend": "rom", "rom": [0]}),
        json!({"backend": "file"}),
    ] {
        let Some(mut rig) = prepared(&settings) else {
            return;
        };
        let whole = release("one").len() as u64;
        assert_eq!(deploy(&mut rig.open(), "one"), whole, "{settings}");
        runs(&mut rig, &["one"]);
        // Everything after the text has moved.
        let sent = deploy(&mut rig.open(), "the second one");
        assert!(sent < 4_000, "{sent} of {whole}, {settings}");
        runs(&mut rig, &["the second one"]);
        // As a gateway does it: first all but what starts it, then that.
        let next = release("third");
        let board = &mut rig.open();
        let facts = Facts::ask(board).unwrap();
        let filled = slots::fill(board, &facts, &next, &mut |_, _| {}).unwrap();
        assert!(filled.sent_bytes < 4_000, "{filled:?}, {settings}");
        let done = slots::deploy(board, &facts, &next, &mut |_, _| {}).unwrap();
        assert!(done.sent_bytes <= 4_096, "{done:?}, {settings}");
        runs(&mut rig, &["third"]);
    }
}

#[test]
fn what_is_copied_into_a_slot_is_neither_trusted_nor_lost_with_the_power() {
    let Some(mut rig) = prepared(&json!({})) else {
        return;
    };
    deploy(&mut rig.open(), "0");
    runs(&mut rig, &["0"]);
    // It is not what was hashed: the board refuses what it has written, and then all is sent.
    {
        let board = &mut rig.open();
        let lies = "from pytheas import rom,hub\n_i=rom.read\n_n=0\ndef _l(i,size):\n global _n\n b=_i(i,size)\n \
                    if i==hub.r[3]:\n  _n+=1\n  if _n>1: b=_i(1-i,size)\n return b\nrom.read=_l";
        board.exec(lies).unwrap();
        assert_eq!(deploy(board, "1"), release("1").len() as u64);
    }
    runs(&mut rig, &["1"]);
    let mut old = "1".to_owned();
    for round in 2..6 {
        let new = round.to_string().repeat(40 * round);
        {
            let board = &mut rig.open();
            let facts = Facts::ask(board).unwrap();
            let Rigboard { board: power, .. } = &mut rig;
            let mut cut = |_, _| {
                std::thread::sleep(Duration::from_millis(5 * round as u64));
                power.kill();
            };
            let _cut = slots::deploy(board, &facts, &release(&new), &mut cut);
        }
        let now = runs(&mut rig, &[&old, &new]);
        if now != new {
            let sent = deploy(&mut rig.open(), &new);
            assert!(sent < 8_000, "{round}: {sent}");
            runs(&mut rig, &[&new]);
        }
        old = new;
    }
}
