//! Answers that drip are given up: TUF's slow retrieval attack (§1.5.1), or a broken server.
//!
//! A byte now and then keeps every time-out for silence from ending, and would keep a device from
//! ever updating, and a command from ever ending. So each [`WINDOW`] must bring [`LEAST_BYTES`], for
//! every reader of ours: the agent's downloads, the command's calls, what publishing reads back.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// How long is looked at in one go: time spent waiting for the server, not for our own disk.
const WINDOW: Duration = Duration::from_secs(30);
/// What must come in it: 100 bytes a second, a tenth of the slowest mobile network.
const LEAST_BYTES: u64 = 3_000;

/// Whether enough comes.
#[derive(Debug)]
pub struct Meter {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self::with_window(WINDOW)
    }
}

impl Meter {
    pub(crate) fn with_window(window: Duration) -> Self {
        Self {
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// So many bytes came after a wait.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it was too little for too long.
    pub fn came(&mut self, bytes: usize, waited: Duration) -> io::Result<()> {
        self.waited += waited;
        self.bytes += bytes as u64;
        if bytes > 0 && self.waited >= self.window {
            if self.bytes < LEAST_BYTES {
                let (bytes, seconds) = (self.bytes, self.waited.as_secs());
                let message = format!("the server drips: {bytes} bytes in {seconds} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(())
    }
}

/// A reader that fails when too little comes. What came before is kept by who reads; a download goes
/// on at the next try, elsewhere on the network if need be.
#[derive(Debug)]
pub struct Steady<R> {
    reader: R,
    meter: Meter,
}

impl<R> Steady<R> {
    /// As `reader`, but fails when that drips.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            meter: Meter::default(),
        }
    }
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = Instant::now();
        let n = self.reader.read(buffer)?;
        self.meter.came(n, asked.elapsed())?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `bytes` at each reading, after a pause.
    struct Drip {
        bytes: usize,
        pause: Duration,
        left: usize,
    }

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Ok(0);
            }
            self.left -= 1;
            std::thread::sleep(self.pause);
            buffer[..self.bytes].fill(b'x');
            Ok(self.bytes)
        }
    }

    fn read(bytes: usize, pause_ms: u64, left: usize) -> io::Result<u64> {
        let drip = Drip {
            bytes,
            pause: Duration::from_millis(pause_ms),
            left,
        };
        let mut steady = Steady {
            reader: drip,
            meter: Meter::with_window(Duration::from_millis(50)),
        };
        io::copy(&mut steady, &mut io::sink())
    }

    #[test]
    fn what_drips_is_given_up_and_what_is_short_or_steady_is_not() {
        let error = read(1, 10, usize::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(
            error.to_string().starts_with("the server drips: "),
            "{error}"
        );
        assert_eq!(read(1, 0, 20).unwrap(), 20);
        assert_eq!(read(4_000, 10, 20).unwrap(), 80_000);
    }
}
