//! Servers that are busy (429, 503): how long they ask to be left alone, and how often and how long a
//! person's command goes on asking. The agent, which has all the time in the world, has a back-off of
//! its own.

mod dates;

use std::time::Duration;

pub use dates::{http_date, retry_after};

/// The first pause when the server names none, doubled each time.
const FIRST: Duration = Duration::from_secs(1);
/// No pause is longer unless the server asks for it.
const LONGEST: Duration = Duration::from_secs(30);
/// All pauses together: somebody, or a CI job, waits.
const ALL: Duration = Duration::from_secs(180);

/// Whether an answer with this status means: not now.
pub fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 503)
}

/// The pauses of one command that a server is too busy to answer.
#[derive(Debug, Default)]
pub struct Patience {
    tries: u32,
    waited: Duration,
}

impl Patience {
    /// How long to wait before the next try, when the server has `asked` for a pause (`Retry-After`) or
    /// not; nothing when it has been long enough, or would be.
    ///
    /// What it asks for is kept to, and up to a tenth more: the same is said to everybody. Else 1, 2, 4,
    /// … up to 30 s, each shortened by up to a half.
    pub fn next_pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let pause = match asked {
            Some(asked) => asked.max(FIRST).mul_f64(1.0 + 0.1 * random_fraction()),
            None => {
                let full = FIRST.saturating_mul(1 << self.tries.min(10)).min(LONGEST);
                full.mul_f64(1.0 - 0.5 * random_fraction())
            }
        };
        let waited = self.waited + pause;
        if waited > ALL {
            return None;
        }
        (self.tries, self.waited) = (self.tries + 1, waited);
        Some(pause)
    }

    /// All pauses so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// A number from 0 to 1.
pub(crate) fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5, // without randomness the middle is as good as any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_is_asked_again_for_minutes_and_not_for_ever() {
        let mut patience = Patience::default();
        let mut pauses = Vec::new();
        while let Some(pause) = patience.next_pause(None) {
            pauses.push(pause);
        }
        // 1 + 2 + 4 + 8 + 16 + 30 + 30 … s at most, half of it at least.
        assert!((9..=17).contains(&pauses.len()), "{pauses:?}");
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2, "{pauses:?}");
        assert!(patience.waited() > ALL / 2 && patience.waited() <= ALL);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
    }

    #[test]
    fn what_the_server_asks_for_is_kept_to_or_the_command_ends_at_once() {
        let mut patience = Patience::default();
        let pause = patience.next_pause(Some(Duration::from_secs(20))).unwrap();
        assert!((20..=22).contains(&pause.as_secs()), "{pause:?}");
        assert_eq!(patience.next_pause(Some(ALL)), None, "too long");
        // A server that asks for no pause at all gets one.
        assert!(patience.next_pause(Some(Duration::ZERO)).unwrap() >= FIRST);
        assert!(is_busy(429) && is_busy(503) && !is_busy(500));
    }
}
