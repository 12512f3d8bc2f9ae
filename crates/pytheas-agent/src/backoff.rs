//! How long to wait before trying again: longer each time, and never all devices together.

use std::time::Duration;

/// No pause is shorter, or a hub that refuses at once would be asked without one.
const SHORTEST: Duration = Duration::from_millis(100);

/// Pauses up to limits that double from `first` to `most`; each is any part of its limit ("full
/// jitter"), so that a fleet whose hub comes back does not come back all together. The limit is
/// no longer than the time between two polls, so a hub that is away is asked at most about twice
/// as often as one that is there.
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

    /// The pause after one more failure: anything up to `first` · 2ⁿ and `most`, and at least a
    /// tenth of a second.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.next_limit();
        full.mul_f64(random_fraction()).max(SHORTEST.min(full))
    }

    /// The whole of what [`Self::next`] gives a part of: for what nobody else waits for as well.
    pub(crate) fn next_limit(&mut self) -> Duration {
        let full = self
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(self.most);
        self.failures = self.failures.saturating_add(1);
        full
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

/// `interval`, up to `percent` hundredths shorter or longer, so that a fleet that was switched on
/// together does not ask together for ever.
pub(crate) fn jittered(interval: Duration, percent: u8) -> Duration {
    let part = f64::from(percent.min(100)) / 100.0;
    interval
        .mul_f64(1.0 - part + 2.0 * part * random_fraction())
        .max(SHORTEST.min(interval))
}

/// What a hub asked to wait (`Retry-After`), up to a quarter longer: it says the same to everyone.
pub(crate) fn spread(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + 0.25 * random_fraction())
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
            assert!((0.1..=full).contains(&pause), "{pause} of {full}");
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
            .map(|_| jittered(Duration::from_secs(100), 10).as_secs_f64())
            .collect();
        assert!(pauses.iter().all(|pause| (90.0..=110.0).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause < 98.0) && pauses.iter().any(|p| *p > 102.0));
        assert_eq!(jittered(Duration::from_secs(9), 0), Duration::from_secs(9));
    }

    #[test]
    fn a_fleet_comes_back_spread_over_the_whole_pause_and_never_before_it_may() {
        let mut tenths = [0; 10];
        for _ in 0..2000 {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
            backoff.failures = 20;
            let tenth = (backoff.next().as_secs_f64() / 30.0) as usize;
            tenths[tenth.min(9)] += 1;
        }
        assert!(
            tenths.iter().all(|count| (100..=320).contains(count)),
            "{tenths:?}"
        );
        for _ in 0..100 {
            let pause = spread(Duration::from_secs(60));
            assert!((60..=75).contains(&pause.as_secs()), "{pause:?}");
        }
    }
}
