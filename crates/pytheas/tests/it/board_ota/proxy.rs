//! A bad line: what stands between a board and the hub, and cuts, slows or changes what comes back.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What the line does to a connection that begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Good,
    /// Every connection breaks after so many bytes for the board.
    Cut(u64),
    /// A few bytes at a time, with pauses.
    Slow,
    /// Of a long answer, the byte at this place is changed.
    Flip(u64),
    /// Nobody answers.
    Down,
}

/// See the module. The thread that listens ends with the process.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    line: Arc<Mutex<Line>>,
    connections: Arc<AtomicU64>,
    to_board: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) fn before(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            line: Arc::new(Mutex::new(Line::Good)),
            connections: Arc::default(),
            to_board: Arc::default(),
        };
        let (line, connections) = (this.line.clone(), this.connections.clone());
        let to_board = this.to_board.clone();
        std::thread::spawn(move || {
            for board in listener.incoming().flatten() {
                let line = *line.lock().unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let to_board = to_board.clone();
                if line != Line::Down
                    && let Ok(hub) = TcpStream::connect(hub)
                {
                    std::thread::spawn(move || carry(board, hub, line, &to_board));
                }
            }
        });
        this
    }

    pub(crate) fn set(&self, line: Line) {
        *self.line.lock().unwrap() = line;
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes that went to the board so far.
    pub(crate) fn to_board(&self) -> u64 {
        self.to_board.load(Ordering::Relaxed)
    }
}

fn carry(board: TcpStream, hub: TcpStream, line: Line, to_board: &AtomicU64) {
    let (mut from_board, mut to_hub) = (board.try_clone().unwrap(), hub.try_clone().unwrap());
    std::thread::spawn(move || {
        let _broken_off = std::io::copy(&mut from_board, &mut to_hub);
        let _may_be_closed = to_hub.shutdown(Shutdown::Write);
    });
    let (mut from_hub, mut to) = (hub, board);
    let mut at = 0;
    let mut buffer = vec![0; if line == Line::Slow { 1500 } else { 16384 }];
    while let Ok(n @ 1..) = from_hub.read(&mut buffer) {
        let mut piece = &mut buffer[..n];
        match line {
            Line::Cut(after) if at + n as u64 > after => {
                piece = &mut piece[..usize::try_from(after.saturating_sub(at)).unwrap()];
            }
            Line::Flip(place) if (at..at + n as u64).contains(&place) => {
                piece[usize::try_from(place - at).unwrap()] ^= 1;
            }
            Line::Slow => std::thread::sleep(Duration::from_millis(40)),
            _ => {}
        }
        at += n as u64;
        to_board.fetch_add(piece.len() as u64, Ordering::Relaxed);
        let cut = piece.len() < n;
        if to.write_all(piece).is_err() || cut {
            break;
        }
    }
    for stream in [to, from_hub] {
        let _may_be_closed = stream.shutdown(Shutdown::Both);
    }
}
