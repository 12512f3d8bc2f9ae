//! How often one address may fail: guessing of secrets and flooding with new devices are slowed.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// Addresses remembered; beyond it the oldest are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// A bucket of `burst` tries for each address that fills up by one every `every_ms`.
#[derive(Debug)]
pub(crate) struct Limit {
    burst: f64,
    every_ms: f64,
    buckets: Mutex<HashMap<IpAddr, (f64, i64)>>,
}

impl Limit {
    pub(crate) fn new(burst: u32, every_ms: u32) -> Self {
        Self {
            burst: burst.into(),
            every_ms: every_ms.into(),
            buckets: Mutex::default(),
        }
    }

    /// Whether there is a try left for this address.
    pub(crate) fn allows(&self, address: IpAddr, now_ms: i64) -> bool {
        self.level(address, now_ms) >= 1.0
    }

    /// Takes one try.
    pub(crate) fn count(&self, address: IpAddr, now_ms: i64) {
        let level = self.level(address, now_ms);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&address) {
            let full_after = (self.burst * self.every_ms) as i64;
            buckets.retain(|_, (_, at)| now_ms - *at < full_after);
            if buckets.len() >= ADDRESSES_MAX {
                buckets.clear(); // better forgetful than out of memory
            }
        }
        buckets.insert(address, ((level - 1.0).max(0.0), now_ms));
    }

    fn level(&self, address: IpAddr, now_ms: i64) -> f64 {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        match buckets.get(&address) {
            None => self.burst,
            // The clock was set back: nobody is locked out until it comes round again.
            Some((_, at)) if now_ms < *at => self.burst,
            Some((level, at)) => (level + (now_ms - at) as f64 / self.every_ms).min(self.burst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_run_out_and_come_back() {
        let limit = Limit::new(2, 1000);
        let (ada, bob) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        limit.count(ada, 0);
        assert!(limit.allows(ada, 0));
        limit.count(ada, 0);
        assert!(!limit.allows(ada, 500));
        assert!(limit.allows(bob, 500));
        assert!(limit.allows(ada, 1000));
        limit.count(ada, 1000);
        assert!(!limit.allows(ada, 1500));
        assert!(limit.allows(ada, -5000), "the clock was set back");
    }
}
