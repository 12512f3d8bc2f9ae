//! How long to wait before trying again: longer each time, and never all devices together.

use std::time::Duration;

/// Pauses that double from `first` to `most`, each shortened by a random part.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most: most.max(first),
            failures: 0,
        }
    }

    /// The pause after one more failure: between half and all of `first` · 2ⁿ, at most `most`.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(self.most);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + 0.5 * random_fraction())
    }

    /// Changes the longest pause.
    pub(crate) fn set_most(&mut self, most: Duration) {
        self.most = most.max(self.first);
    }

    /// It worked: the next failure is the first again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last worked.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

/// `interval`, up to a tenth shorter or longer, so that a fleet that was switched on together does
/// not ask together for ever.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random_fraction())
}

/// A number from 0 to 1.
fn random_fraction() -> f64 {
    // Without randomness (early boot) the middle is as good as any.
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_over_when_it_works() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for full in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = backoff.next().as_secs_f64();
            let full = f64::from(full);
            assert!((full / 2.0..=full).contains(&pause), "{pause} of {full}");
        }
        for _ in 0..100 {
            assert!(backoff.next() <= Duration::from_secs(60));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_secs(1));
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let pauses: Vec<f64> = (0..200)
            .map(|_| jittered(Duration::from_secs(100)).as_secs_f64())
            .collect();
        assert!(pauses.iter().all(|pause| (90.0..=110.0).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause < 98.0) && pauses.iter().any(|p| *p > 102.0));
    }
}
