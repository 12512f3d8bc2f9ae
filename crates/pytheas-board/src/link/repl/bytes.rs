//! What comes from a board and goes to it, byte by byte; every wait has its limit.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{ANSWER, AT_WORK, Board, ENTER_PATIENCE, Mode, contains, find};
use crate::link::{LinkError, trouble, wire::read};

/// What boards say when they start.
const RESTARTS: [&[u8]; 3] = [b">>> ", b"MicroPython v", b"soft reboot"];

impl Board {
    /// The next byte of what the program prints that is one of `wanted`; end of transmission (4) is
    /// left where it is.
    pub(in crate::link) fn next_of(&mut self, wanted: &[u8]) -> Result<u8, LinkError> {
        let mut until = Instant::now() + ANSWER * 3;
        loop {
            let found = self.ready.iter().position(|byte| wanted.contains(byte));
            if let Some(at) = found {
                let byte = self.ready[at];
                self.ready.drain(..at + usize::from(byte != 4));
                return Ok(byte);
            }
            if self.ready.contains(&AT_WORK) {
                until = Instant::now() + ANSWER * 3;
            }
            // A board that was reset starts its own program, which may print for ever.
            if RESTARTS.iter().any(|text| contains(&self.ready, text)) {
                self.mode = Mode::Free;
                let port = self.port.clone();
                return Err(LinkError::Restarted { port });
            }
            let mut came = Vec::new();
            self.ready.clear();
            if Instant::now() >= until || self.more(&mut came, until)? == 0 {
                return Err(self.stalled("it received"));
            }
            self.ready = came;
        }
    }

    pub(in crate::link) fn give(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        match self.wire.give(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.stalled("it was sent bytes"))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Appends what comes until `until` to `buf`; 0 when nothing came.
    pub(in crate::link) fn more(
        &mut self,
        buf: &mut Vec<u8>,
        until: Instant,
    ) -> Result<usize, LinkError> {
        if !self.ready.is_empty() {
            let count = self.ready.len();
            buf.append(&mut self.ready);
            return Ok(count);
        }
        let mut chunk = [0; 4096];
        match read(&mut *self.wire, &mut chunk, until, &self.options.stop) {
            Ok(count) => {
                buf.extend(&chunk[..count]);
                Ok(count)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(super) fn has_more(&mut self) -> Result<bool, LinkError> {
        let mut came = Vec::new();
        self.more(&mut came, Instant::now())?;
        self.ready = came;
        Ok(!self.ready.is_empty())
    }

    pub(super) fn exactly(&mut self, count: usize) -> Result<Vec<u8>, LinkError> {
        let until = Instant::now() + ANSWER;
        while self.ready.len() < count {
            let mut came = std::mem::take(&mut self.ready);
            let before = came.len();
            let mut chunk = Vec::new();
            let got = self.more(&mut chunk, until);
            came.append(&mut chunk);
            self.ready = came;
            if got? == 0 && self.ready.len() == before {
                return Err(self.stalled(""));
            }
        }
        Ok(self.ready.drain(..count).collect())
    }

    pub(super) fn expect(&mut self, wanted: &[u8]) -> Result<(), LinkError> {
        let came = self.exactly(wanted.len())?;
        if came == wanted {
            return Ok(());
        }
        Err(self.unexpected(&came))
    }

    pub(super) fn wait_for(&mut self, wanted: &[u8], during: &str) -> Result<(), LinkError> {
        let mut seen = Vec::new();
        loop {
            if let Some(at) = find(&seen, wanted) {
                self.ready = seen.split_off(at + wanted.len());
                return Ok(());
            }
            if self.more(&mut seen, Instant::now() + ANSWER)? == 0 {
                return Err(self.stalled(during));
            }
        }
    }

    /// Throws away what is there and what comes before it has been quiet for so long.
    pub(super) fn skip(&mut self, quiet: Duration) -> Result<(), LinkError> {
        let end = Instant::now() + ENTER_PATIENCE;
        let mut nothing = Vec::new();
        while self.more(&mut nothing, Instant::now() + quiet)? > 0 && Instant::now() < end {
            nothing.clear();
        }
        Ok(())
    }

    /// Whether more bytes may be under way than the board's buffer takes.
    pub(in crate::link) fn holds_back(&self) -> bool {
        self.wire.holds_back()
    }

    pub(crate) fn unexpected(&self, seen: &[u8]) -> LinkError {
        let error = LinkError::Answer {
            port: self.port.clone(),
            seen: trouble::excerpt(seen),
        };
        trouble::or_shared(error, &self.port)
    }

    pub(super) fn stalled(&self, during: &str) -> LinkError {
        let error = LinkError::Stalled {
            port: self.port.clone(),
            during: during.to_owned(),
        };
        trouble::or_shared(error, &self.port)
    }

    pub(super) fn failed(&self, source: io::Error) -> LinkError {
        let port = self.port.clone();
        match source.kind() {
            io::ErrorKind::Interrupted => LinkError::Stopped,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => LinkError::Gone { port },
            _ => LinkError::Io { port, source },
        }
    }
}
