//! The seam for injected faults: named points at which a test can stop the process dead.
//!
//! `PYTHEAS_FAULT=kill@NAME:N` sends SIGKILL to the process at the Nth passing (default first) of
//! the point `NAME`. Without the feature `faults` a point is nothing at all.

/// A place where a test may cut the power.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn point(_name: &str) {}

/// A place where a test may cut the power.
#[cfg(feature = "faults")]
pub fn point(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    static PLAN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let plan = PLAN.get_or_init(|| {
        let plan = std::env::var("PYTHEAS_FAULT").ok()?;
        let plan = plan.strip_prefix("kill@")?;
        // Points have colons in their names; only a number behind the last one is a count.
        Some(match plan.rsplit_once(':') {
            Some((name, count)) if count.parse::<u64>().is_ok() => {
                (name.to_owned(), count.parse().unwrap_or(1))
            }
            _ => (plan.to_owned(), 1),
        })
    });
    if let Some((wanted, count)) = plan
        && wanted == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count
        && let Some(pid) = rustix::process::Pid::from_raw(std::process::id().cast_signed())
    {
        let _never_returns = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
