//! The link against real partners: the emulated board, pyserial's RFC 2217 server, other tools.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use pytheas_board::link::{Board, Facts, LinkError, files, frames::Frames, repl::Options};

use crate::rig::Rigboard;

#[test]
fn a_board_is_entered_asked_and_left() {
    let Some(rig) = Rigboard::start() else { return };
    let mut board = rig.open();
    let facts = Facts::ask(&mut board).unwrap();
    assert_eq!(
        (facts.name.as_str(), facts.version.as_str()),
        ("micropython", "1.25.0")
    );
    assert!(facts.sha256 && facts.deflate && facts.stream && !facts.prepared);
    assert_eq!(facts.rom.len(), 2);
    assert_eq!(facts.file_system("/x").unwrap().kind, "VfsLfs2");
    assert_eq!(board.exec("print(6 * 7)").unwrap(), b"42\r\n");
    let error = board.exec("def f():\n  1 / 0\nf()").unwrap_err();
    assert_eq!(error.last_line(), Some("ZeroDivisionError: divide by zero"));
    let error = board.exec("if:").unwrap_err();
    assert_eq!(error.exception(), Some("SyntaxError"));
    drop(board);
    // Left in the friendly REPL, and entered again.
    let mut board = rig.open();
    assert_eq!(board.exec("print(1)").unwrap(), b"1\r\n");
}

#[test]
fn files_of_any_bytes_come_back_as_they_went() {
    let Some(rig) = Rigboard::start() else { return };
    let mut board = rig.open();
    let facts = Facts::ask(&mut board).unwrap();
    let content: Vec<u8> = (0..20_000_u32).map(|i| ((i * i) >> 7) as u8).collect();
    for (path, bytes) in [
        ("/a/b/é '\\.bin", &content[..]),
        ("/empty", b""),
        ("/three", &[3; 300]),
    ] {
        files::write(&mut board, &facts, path, bytes, &mut |_| {}).unwrap();
        assert_eq!(
            files::read(&mut board, path, &mut |_| {}).unwrap(),
            bytes,
            "{path}"
        );
    }
    let names: Vec<_> = files::list(&mut board, "/", true)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.path, entry.size))
        .collect();
    let expected = [
        ("/a", 0),
        ("/a/b", 0),
        ("/a/b/é '\\.bin", 20_000),
        ("/empty", 0),
        ("/three", 300),
    ];
    assert_eq!(names, expected.map(|(path, size)| (path.to_owned(), size)));
    files::make_folder(&mut board, "/x/y/").unwrap();
    files::remove(&mut board, "/a", true).unwrap();
    let error = files::remove(&mut board, "/x", false).unwrap_err();
    assert_eq!(error.exception(), Some("OSError"));
    files::remove(&mut board, "/x", true).unwrap();
    assert_eq!(files::list(&mut board, "/", true).unwrap().len(), 2);
}

#[test]
fn a_board_whose_heap_is_in_pieces_is_begun_anew_without_its_main_program() {
    let Some(rig) = Rigboard::start() else { return };
    let mut board = rig.open();
    let facts = Facts::ask(&mut board).unwrap();
    let main = b"print('main ran')\nopen('/ran', 'w').close()\n";
    files::write(&mut board, &facts, "/main.py", main, &mut |_| {}).unwrap();
    let pieces = "h = []\ntry:\n while 1: h.append(bytearray(900))\nexcept MemoryError: pass\nfor i in range(0, len(h), 2): h[i] = 0\n";
    board.exec(pieces).unwrap();
    let large = "import gc\ngc.collect()\nprint(len(bytearray(20000)))";
    let error = board.exec(large).unwrap_err();
    assert_eq!(error.exception(), Some("MemoryError"));
    board.renew().unwrap();
    assert_eq!(board.exec(large).unwrap(), b"20000\r\n");
    let names = files::list(&mut board, "/", false).unwrap();
    assert!(names.iter().all(|entry| entry.path != "/ran"));
}

#[test]
fn two_tools_on_one_port_are_told_of_each_other() {
    let Some(rig) = Rigboard::start() else { return };
    let _first = rig.open();
    let error = pytheas_board::link::Board::open(&rig.address(), crate::rig::patient()).err();
    assert!(matches!(error, Some(LinkError::Busy { .. })));
}

/// pyserial serving the board's line; `kind` is `tcp` or `rfc2217`.
struct Served {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Served {
    fn start(rig: &Rigboard, kind: &str) -> Option<Self> {
        let bin = testkit::board::Rig::find()?.dir().join("bin");
        let python = bin.canonicalize().unwrap_or(bin).join("python");
        if !python.exists() {
            testkit::skip("the Python that has pyserial is not there");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boards/serve.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(rig.board.pty())
            .arg(kind)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(port) = line.strip_prefix("port ") {
                break port.parse().unwrap();
            }
        };
        Some(Self { child, lines, port })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn boards_behind_tcp_and_rfc_2217_are_boards_like_others() {
    let Some(rig) = Rigboard::start() else { return };
    let content: Vec<u8> = (0..3000_u32)
        .map(|i| ((i * 7) >> 3) as u8)
        .chain([255; 300])
        .collect();
    for kind in ["tcp", "rfc2217"] {
        let Some(served) = Served::start(&rig, kind) else {
            return;
        };
        let address = format!("{kind}://127.0.0.1:{}", served.port)
            .parse()
            .unwrap();
        let options = Options {
            baud: 57_600,
            ..crate::rig::patient()
        };
        let mut board = Board::open(&address, options).unwrap();
        let facts = Facts::ask(&mut board).unwrap();
        files::write(&mut board, &facts, "/x", &content, &mut |_| {}).unwrap();
        assert_eq!(files::read(&mut board, "/x", &mut |_| {}).unwrap(), content);
        if kind == "rfc2217" {
            board.wire().lines(false, true).unwrap();
        }
        drop(board);
        if kind == "rfc2217" {
            let mut served = served;
            let seen: Vec<_> = std::iter::from_fn(|| served.lines.next())
                .map_while(Result::ok)
                .take_while(|line| line != "rts True")
                .collect();
            assert!(seen.contains(&"baud 57600".to_owned()), "{seen:?}");
            assert!(seen.contains(&"dtr False".to_owned()), "{seen:?}");
        }
    }
}

/// A server that answers what it gets; the error of entering it.
fn entering(scheme: &str, answer: fn(&[u8]) -> Vec<u8>) -> LinkError {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut buf = [0; 256];
        while let Ok(count @ 1..) = peer.read(&mut buf) {
            if peer.write_all(&answer(&buf[..count])).is_err() {
                return;
            }
        }
    });
    let address = format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
    let patience = Duration::from_secs(1);
    let options = Options {
        patience,
        ..Options::default()
    };
    let board = Board::open(&address, options);
    board.and_then(|mut board| board.enter()).unwrap_err()
}

#[test]
fn what_is_no_repl_is_told_for_what_it_is() {
    assert!(matches!(
        entering("tcp", |_| Vec::new()),
        LinkError::Silent { .. }
    ));
    assert!(matches!(
        entering("tcp", <[u8]>::to_vec),
        LinkError::Echo { .. }
    ));
    let noise = |_: &[u8]| vec![0xf8, 0x80, 0x00, 0x1c, 0xe6];
    assert!(matches!(entering("tcp", noise), LinkError::Garbage { .. }));
    let login = |_: &[u8]| b"\r\nrouter login: ".to_vec();
    assert!(matches!(
        entering("tcp", login),
        LinkError::NotMicroPython { .. }
    ));
    let dont = |_: &[u8]| vec![255, 254, 44];
    assert!(matches!(
        entering("rfc2217", dont),
        LinkError::NotRfc2217 { .. }
    ));
    let nobody = "tcp://127.0.0.1:1".parse().unwrap();
    let error = Board::open(&nobody, Options::default()).err();
    assert!(matches!(error, Some(LinkError::Unreachable { .. })));
    let nothing = "/dev/no-such-port".parse().unwrap();
    let error = Board::open(&nothing, Options::default()).err();
    assert!(matches!(error, Some(LinkError::NoPort { .. })));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")
        .parse()
        .unwrap();
    let error = Board::open(&file, Options::default()).err();
    assert!(
        matches!(error, Some(LinkError::NotSerial { .. })),
        "{error:?}"
    );
}

#[test]
fn a_program_that_ignores_ctrl_c_is_named_and_one_that_does_not_is_stopped() {
    let Some(rig) = Rigboard::start() else { return };
    let mut board = rig.open();
    let facts = Facts::ask(&mut board).unwrap();
    let busy = b"import time\nwhile True:\n  print('tick')\n  time.sleep_ms(20)\n";
    files::write(&mut board, &facts, "/main.py", busy, &mut |_| {}).unwrap();
    board.restart().unwrap();
    drop(board);
    let mut board = rig.open();
    assert_eq!(board.exec("print('stopped')").unwrap(), b"stopped\r\n");
    let stubborn = b"import time\nwhile True:\n  try:\n    print('measured', 23)\n    time.sleep_ms(20)\n  except KeyboardInterrupt:\n    pass\n";
    files::write(&mut board, &facts, "/main.py", stubborn, &mut |_| {}).unwrap();
    board.restart().unwrap();
    drop(board);
    let options = Options {
        patience: Duration::from_secs(2),
        ..Options::default()
    };
    let mut board = Board::open(&rig.address(), options).unwrap();
    let error = board.enter().unwrap_err();
    assert!(matches!(error, LinkError::Running { .. }), "{error:?}");
    assert!(error.to_string().contains("measured 23"), "{error}");
}

#[test]
fn a_tool_that_is_killed_or_stopped_leaves_a_board_that_can_be_entered() {
    let Some(rig) = Rigboard::start() else { return };
    let mut board = rig.open();
    let facts = Facts::ask(&mut board).unwrap();
    let mut frames = Frames::begin(&mut board, &facts, "def _pw(b): pass").unwrap();
    frames.data(&[3; 5000], &mut |_| {}).unwrap();
    // As after SIGKILL: nothing is said to the board, which waits for the rest.
    std::mem::forget(frames);
    std::mem::forget(board);
    // The lock of the lost one holds in this process; another tool has none of it.
    let Some(served) = Served::start(&rig, "tcp") else {
        return;
    };
    let address = format!("tcp://127.0.0.1:{}", served.port).parse().unwrap();
    let mut board = Board::open(&address, crate::rig::patient()).unwrap();
    assert_eq!(board.exec("print(1)").unwrap(), b"1\r\n");
    // The user stops in the middle of a transfer: the board is at its prompt again.
    let stop = board.stop().clone();
    let facts = Facts::ask(&mut board).unwrap();
    let mut frames = Frames::begin(&mut board, &facts, "def _pw(b): pass").unwrap();
    frames.data(&[7; 5000], &mut |_| {}).unwrap();
    stop.0.store(true, Ordering::Relaxed);
    let error = frames.data(&[7; 90_000], &mut |_| {}).unwrap_err();
    assert!(matches!(error, LinkError::Stopped), "{error:?}");
    drop(frames);
    stop.0.store(false, Ordering::Relaxed);
    assert_eq!(board.exec("print(2)").unwrap(), b"2\r\n");
}

#[test]
fn ports_that_are_processes_are_boards_too() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [
        testkit::board::Board::start_unix(folder.path()),
        testkit::board::Board::start_wasm(folder.path()),
    ];
    for port in kinds.into_iter().flatten() {
        let address = port.pty().to_str().unwrap().parse().unwrap();
        let mut board = Board::open(&address, crate::rig::patient()).unwrap();
        let facts = Facts::ask(&mut board).unwrap();
        assert_eq!(facts.name, "micropython");
        let content: Vec<u8> = (0..5000_u32).map(|i| ((i * i) >> 5) as u8).collect();
        // 1.25's `VfsPosix` cannot rename below a root of its own, so no file is replaced here.
        let hashing = "from hashlib import sha256\n_h=sha256()\ndef _pw(b): _h.update(b)";
        let mut frames = Frames::begin(&mut board, &facts, hashing).unwrap();
        frames.data(&content, &mut |_| {}).unwrap();
        frames.end().unwrap();
        let hash = board
            .exec("print(''.join(['%02x'%x for x in _h.digest()]))")
            .unwrap();
        let expected = pytheas_release::Sha256::of(&content).to_string();
        assert_eq!(
            String::from_utf8(hash).unwrap().trim(),
            expected,
            "{}",
            facts.platform
        );
        let error = board.exec("1/0").unwrap_err();
        assert_eq!(error.exception(), Some("ZeroDivisionError"));
    }
}
