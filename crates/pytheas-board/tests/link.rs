//! The link against real partners: the emulated board, pyserial's RFC 2217 server, other tools.

mod rig;

use pytheas_board::link::{Facts, LinkError, files};

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
    let content: Vec<u8> = (0..20_000_u32).map(|i| (i * i >> 7) as u8).collect();
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
fn two_tools_on_one_port_are_told_of_each_other() {
    let Some(rig) = Rigboard::start() else { return };
    let _first = rig.open();
    let error = pytheas_board::link::Board::open(&rig.address(), rig::patient()).err();
    assert!(matches!(error, Some(LinkError::Busy { .. })));
}
