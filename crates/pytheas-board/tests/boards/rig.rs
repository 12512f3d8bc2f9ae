//! The emulated board as the tests of this room use it.

use std::{fs::File, time::Duration};

use pytheas_board::link::{Address, Board, repl::Options};

/// The emulated board with blank flash.
pub(crate) struct Rigboard {
    pub(crate) board: testkit::board::Board,
    _folder: tempfile::TempDir,
    /// Keeps the pseudo-terminal connected: QEMU looks only once a second whether somebody came.
    held: Option<File>,
}

impl Rigboard {
    /// None, and the test skips, when it is not here.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let board = testkit::board::Board::start(&folder.path().join("flash"))?;
        let mut rig = Self {
            board,
            _folder: folder,
            held: None,
        };
        rig.hold();
        Some(rig)
    }

    fn hold(&mut self) {
        let file = File::options()
            .read(true)
            .write(true)
            .open(self.board.pty());
        self.held = Some(file.expect("a pty can be opened"));
    }

    /// Cuts the power, if it is on, and switches it on.
    pub(crate) fn power_cycle(&mut self) {
        self.held = None;
        self.board.restart();
        self.hold();
    }

    pub(crate) fn address(&self) -> Address {
        Address::Serial(self.board.pty().to_owned())
    }

    pub(crate) fn open(&self) -> Board {
        Board::open(&self.address(), patient()).expect("a board can be opened")
    }
}

/// Other processes load the machine.
pub(crate) fn patient() -> Options {
    Options {
        patience: Duration::from_secs(30),
        ..Options::default()
    }
}
