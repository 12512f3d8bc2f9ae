//! The partners that boards' tests are made against do what a board does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::PathBuf, process::Command};

use testkit::board::{Board, ROM_OFFSETS, Rig};

/// A folder of the test's own; what is in it is of an earlier run at most.
fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("board-{name}"));
    let _none_yet = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn flash_outlives_a_cut_of_the_power() {
    let flash = scratch("cut").join("flash, img");
    let Some(mut board) = Board::start(&flash) else {
        return;
    };
    board
        .exec("f = open('/kept', 'w'); f.write('yes'); f.close()")
        .unwrap();
    board
        .exec("import vfs; print(vfs.rom_ioctl(4, 1, 0, b'abcd'))")
        .unwrap();
    board.kill();
    assert!(!board.is_running());
    board.restart();
    assert_eq!(
        board.exec("print(open('/kept').read())"),
        Ok("yes\n".to_owned())
    );
    let bytes = std::fs::read(&flash).unwrap();
    let at = usize::try_from(ROM_OFFSETS[1]).unwrap();
    assert_eq!(&bytes[at..at + 4], b"abcd");
}

#[test]
fn a_running_program_is_interrupted_and_main_is_started() {
    let flash = scratch("main").join("flash.img");
    let Some(mut board) = Board::start(&flash) else {
        return;
    };
    let main = "started = True\nwhile True:\n    pass\n";
    board
        .exec(&format!(
            "f = open('/main.py', 'w'); f.write({main:?}); f.close()"
        ))
        .unwrap();
    board.restart();
    assert_eq!(board.exec("print(started)"), Ok("True\n".to_owned()));
    let error = board.exec("import nowhere").unwrap_err();
    assert!(error.contains("ImportError"), "{error}");
}

#[test]
fn counted_instructions_do_not_depend_on_the_load_of_the_machine() {
    let flash = scratch("count").join("flash.img");
    let Some(mut board) = Board::start_counting(&flash) else {
        return;
    };
    let (setup, code) = ("def f():\n for i in range(10000): pass", "f()");
    let counts: Vec<u64> = (0..3).map(|_| board.instructions(setup, code)).collect();
    assert!(counts[0] > 100_000, "{counts:?}");
    let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
    assert!(spread * 100 < counts[0], "{counts:?}");
}

#[test]
fn the_unix_port_is_a_board_whose_files_are_a_folder() {
    let dir = scratch("unix");
    let Some(mut board) = Board::start_unix(&dir) else {
        return;
    };
    board
        .exec(
            "import os; os.mkdir('/lib'); f = open('/lib/m.py', 'w'); f.write('N = 7'); f.close()",
        )
        .unwrap();
    assert_eq!(
        board.exec("import m, tls; print(m.N)"),
        Ok("7\n".to_owned())
    );
    assert_eq!(
        std::fs::read_to_string(dir.join("lib/m.py")).unwrap(),
        "N = 7"
    );
    board.restart();
    assert_eq!(board.exec("import m; print(m.N)"), Ok("7\n".to_owned()));
}

#[test]
fn the_wasm_port_is_a_board() {
    let Some(mut board) = Board::start_wasm(&scratch("wasm")) else {
        return;
    };
    let out = board.exec("import sys; print(sys.implementation.name)");
    assert_eq!(out, Ok("micropython\n".to_owned()));
}

#[test]
fn upstreams_tool_works_on_the_emulated_board() {
    let dir = scratch("mpremote");
    let Some(mut board) = Board::start(&dir.join("flash.img")) else {
        return;
    };
    let Some(mpremote) = Rig::find().and_then(|rig| rig.mpremote()) else {
        return;
    };
    let app = dir.join("app");
    std::fs::create_dir_all(&app).unwrap();
    std::fs::copy("Cargo.toml", app.join("data")).unwrap();
    let output = Command::new(mpremote)
        .arg("connect")
        .arg(board.pty())
        .args(["romfs", "deploy"])
        .arg(&app)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    board.restart();
    let size = std::fs::metadata(app.join("data")).unwrap().len();
    assert_eq!(
        board.exec("import os; print(os.stat('/rom/data')[6])"),
        Ok(format!("{size}\n"))
    );
}
