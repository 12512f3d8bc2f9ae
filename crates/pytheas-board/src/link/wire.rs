//! A line to a board: bytes in, bytes out, with limits on every wait.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Address, LinkError, net, serial};

/// Longest wait before [`Stop`] is looked at again.
const SLICE: Duration = Duration::from_millis(50);

/// Whether the user has asked to stop: set by whoever handles signals, looked at in every wait.
#[derive(Debug, Clone, Default)]
pub struct Stop(pub Arc<AtomicBool>);

impl Stop {
    /// Whether to stop.
    pub fn wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A line to a board.
pub trait Wire: Send {
    /// Reads what is there into `buf`, without waiting; 0 when nothing is.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` when the other end is gone.
    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the system says; `TimedOut` when the other end takes none.
    fn give(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Sets the lines DTR and RTS.
    ///
    /// # Errors
    /// `Unsupported` when the line has none.
    fn lines(&mut self, dtr: bool, rts: bool) -> io::Result<()>;

    /// What becomes readable when bytes come.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether the line itself holds bytes back when the board is slow (USB, pseudo-terminals), so
    /// that more may be under way than the board's buffer has room for.
    fn holds_back(&self) -> bool;
}

/// Opens the line, and keeps other tools off it while it is open.
///
/// # Errors
/// [`LinkError`] saying who has it, what right is missing, or that it is not there.
pub fn open(address: &Address, baud: u32) -> Result<Box<dyn Wire>, LinkError> {
    match address {
        Address::Serial(path) => serial::open(path, baud),
        Address::Tcp(host) => net::open(address, host, None),
        Address::Rfc2217(host) => net::open(address, host, Some(baud)),
    }
}

/// In place of a line that was closed.
pub(super) struct Closed(io::PipeReader);

impl Closed {
    pub(super) fn new() -> io::Result<Self> {
        io::pipe().map(|(reader, _)| Self(reader))
    }
}

impl Wire for Closed {
    fn take(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn give(&mut self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn lines(&mut self, _: bool, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn holds_back(&self) -> bool {
        false
    }
}

/// Waits until `fd` is readable; false when it was not within `wait`.
pub(super) fn readable(fd: impl AsFd, wait: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads what comes until `until`; 0 when nothing came.
pub(super) fn read(
    wire: &mut dyn Wire,
    buf: &mut [u8],
    until: Instant,
    stop: &Stop,
) -> io::Result<usize> {
    loop {
        if stop.wanted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = wire.take(buf)?;
        let left = until.saturating_duration_since(Instant::now());
        if count > 0 || left.is_zero() {
            return Ok(count);
        }
        readable(wire.fd(), left.min(SLICE))?;
    }
}
