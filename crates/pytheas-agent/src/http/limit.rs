//! Keeps downloads below a rate: a bucket that fills with time and is emptied by what was read.
//!
//! Readers sleep after reading, in short pieces, so that the network sees an even flow and not a
//! burst each second; what waits in the system's buffers makes the sender slow down.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::settings::Rate;

/// What may be read at once after a silence, as time.
const BURST: Duration = Duration::from_millis(100);

/// One rate that all downloads of a device share.
#[derive(Debug)]
pub(crate) struct Limiter {
    bytes_per_second: u64,
    /// Until when the bytes read so far use the line up.
    paid_until: Mutex<Instant>,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            bytes_per_second: rate.bytes_per_second(),
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// How much may be read in one go: an even flow needs small pieces.
    pub(crate) fn piece(&self) -> usize {
        usize::try_from(self.bytes_per_second / 10)
            .unwrap_or(usize::MAX)
            .max(512)
    }

    /// Takes `bytes` into account; how long to wait for them.
    pub(crate) fn spend(&self, bytes: usize, now: Instant) -> Duration {
        let nanos = (bytes as u128 * 1_000_000_000) / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid = self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let from = (*paid).max(now.checked_sub(BURST).unwrap_or(now));
        *paid = from + cost;
        paid.saturating_duration_since(now)
    }
}

/// A download that keeps to the rate.
pub(super) struct Limited<R> {
    pub(super) inner: R,
    pub(super) limiter: Arc<Limiter>,
    /// Until when nothing more may be read.
    pub(super) until: Option<Instant>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = buffer.len().min(self.limiter.piece());
        if let Some(until) = self.until.take() {
            // A piece's worth of time, so whoever wants to stop does not wait for long.
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        let read = self
            .inner
            .read(buffer.get_mut(..piece).unwrap_or_default())?;
        let now = Instant::now();
        self.until = Some(now + self.limiter.spend(read, now));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_paid_for_with_time() {
        let limiter = Limiter::new("100 kB/s".parse().unwrap());
        let start = Instant::now();
        let mut now = start + Duration::from_secs(10);
        let begun = now;
        let mut bytes = 0;
        while bytes < 1_000_000 {
            let pause = limiter.spend(limiter.piece(), now);
            assert!(pause <= Duration::from_millis(101), "{pause:?}");
            now += pause;
            bytes += limiter.piece();
        }
        let took = now - begun;
        assert!(
            (Duration::from_millis(9_800)..=Duration::from_millis(10_100)).contains(&took),
            "{took:?}"
        );
        // A silence saves up no more than a moment's worth.
        now += Duration::from_secs(3600);
        let first = limiter.spend(10_000, now);
        assert_eq!(first, Duration::ZERO);
        assert_eq!(limiter.spend(10_000, now), Duration::from_millis(100));
    }

    #[test]
    fn every_byte_arrives() {
        let content: Vec<u8> = (0..30_000_u32).map(|n| n as u8).collect();
        let mut limited = Limited {
            inner: content.as_slice(),
            limiter: Arc::new(Limiter::new("90 kB/s".parse().unwrap())),
            until: None,
        };
        let begun = Instant::now();
        let mut read = Vec::new();
        limited.read_to_end(&mut read).unwrap();
        assert_eq!(read, content);
        // Never faster; how much slower is the machine's matter.
        assert!(begun.elapsed() > Duration::from_millis(200));
    }
}
