//! Says which package is being built when that takes long: uv itself waits for a build without a word
//! and without a limit, and a back end may wait for what never comes.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a hook of a build may run before it is named.
const LONG: Duration = Duration::from_secs(60);
/// The packages that were named: several calls of uv at once read one log.
static NAMED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The builds that run, by the log of [`crate::isolate`].
#[derive(Debug)]
pub(crate) struct Builds {
    log: Option<PathBuf>,
    /// Bytes of the log that were read.
    read: usize,
    running: Vec<(String, Instant)>,
}

impl Builds {
    /// Those that begin from now on.
    pub(crate) fn of(log: Option<PathBuf>) -> Self {
        let mut builds = Self {
            log,
            read: 0,
            running: Vec::new(),
        };
        builds.read = builds.content().len();
        builds
    }

    fn content(&self) -> Vec<u8> {
        let content = self.log.as_ref().and_then(|log| std::fs::read(log).ok());
        content.unwrap_or_default()
    }

    /// Reads what is new in the log, and warns of what has run for long.
    pub(crate) fn look(&mut self) {
        for name in self.slow(Instant::now(), LONG) {
            let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
            if named.insert(name.clone()) {
                tracing::warn!(
                    package = name,
                    "`{name}` has been building for {} s: its own code runs (`setup.py` or a build back end), and is waited for as long as it takes; ctrl-C ends it",
                    LONG.as_secs()
                );
            }
        }
    }

    /// What has run for `long`.
    fn slow(&mut self, now: Instant, long: Duration) -> Vec<String> {
        let content = self.content();
        let new = content.get(self.read..).unwrap_or_default();
        let whole = new
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.read += whole;
        for line in String::from_utf8_lossy(&new[..whole]).lines() {
            let name = line.split('\t').next().unwrap_or_default();
            if line.ends_with(crate::isolate::ENDED) {
                if let Some(at) = self.running.iter().position(|(other, _)| other == name) {
                    self.running.remove(at);
                }
            } else {
                self.running.push((name.to_owned(), now));
            }
        }
        let slow = self.running.iter();
        slow.filter(|(_, since)| now.duration_since(*since) >= long)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_runs_long_is_named_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("hooks");
        let put = |text: &str| pytheas_durable::replace(&log, text.as_bytes()).unwrap();
        put("old\t-\tnamespaces\n");
        let mut builds = Builds::of(Some(log.clone()));
        let begun = Instant::now();
        let later = begun + LONG;
        assert!(builds.slow(begun, LONG).is_empty());
        let text = "old\t-\tnamespaces\na\t-\tnamespaces\nb\tnetwork\tlandlock\na\t";
        put(text);
        assert!(builds.slow(begun, LONG).is_empty());
        assert_eq!(builds.slow(later, LONG), ["a", "b"]);
        put(&format!("{text}-\tended\n"));
        assert_eq!(builds.slow(later, LONG), ["b"]);
        assert!(Builds::of(None).slow(later, LONG).is_empty());
    }
}
