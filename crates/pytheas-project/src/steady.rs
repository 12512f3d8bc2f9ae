//! A reader that gives a sender up that sends a byte now and then: such a one would hold a command up
//! until the limit for the whole answer.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// How long a sender is watched before it is judged.
const WINDOW: Duration = Duration::from_secs(30);
/// What has to come in that time, in bytes.
const LEAST: u64 = 3000;

/// Reads from `inner` as long as it is faster than 100 bytes a second.
#[derive(Debug)]
pub(crate) struct Steady<R> {
    inner: R,
    since: Instant,
    window: Duration,
    bytes: u64,
}

impl<R> Steady<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            since: Instant::now(),
            window: WINDOW,
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes += length as u64;
        if length > 0 && self.since.elapsed() >= self.window {
            if self.bytes < LEAST {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "only {} bytes came in {} seconds",
                        self.bytes,
                        self.window.as_secs()
                    ),
                ));
            }
            self.since = Instant::now();
            self.bytes = 0;
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: usize, window: Duration) -> io::Result<usize> {
        let data = vec![1; bytes];
        let mut reader = Steady {
            window,
            ..Steady::new(data.as_slice())
        };
        reader.read_to_end(&mut Vec::new())
    }

    #[test]
    fn a_sender_that_drips_is_given_up_and_a_short_or_fast_one_is_not() {
        assert_eq!(read(10, WINDOW).unwrap(), 10);
        assert_eq!(read(1 << 20, WINDOW).unwrap(), 1 << 20);
        // Each read ends a window here.
        let error = read(10, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
