//! Downloads that drip are given up: TUF's slow retrieval attack (§1.5.1), or a broken server.
//!
//! A byte now and then keeps every time-out for silence from ending, and would keep a device from
//! ever updating. So each [`WINDOW`] must bring [`LEAST_BYTES`]. What came is kept; the download
//! goes on at the next try, elsewhere on the network if need be.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// How long is looked at in one go: time spent waiting for the server, not for our own disk.
const WINDOW: Duration = Duration::from_secs(30);
/// What must come in it: 100 bytes a second, a tenth of the slowest mobile network.
const LEAST_BYTES: u64 = 3_000;

/// A reader that fails when too little comes.
pub(crate) struct Steady<R> {
    reader: R,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl<R> Steady<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self::with_window(reader, WINDOW)
    }

    fn with_window(reader: R, window: Duration) -> Self {
        Self {
            reader,
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = Instant::now();
        let n = self.reader.read(buffer)?;
        self.waited += asked.elapsed();
        self.bytes += n as u64;
        if n > 0 && self.waited >= self.window {
            if self.bytes < LEAST_BYTES {
                let (bytes, seconds) = (self.bytes, self.waited.as_secs());
                let message = format!("the server drips: {bytes} bytes in {seconds} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
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
        let mut steady = Steady::with_window(drip, Duration::from_millis(50));
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
