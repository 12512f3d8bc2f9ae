//! Visible skips: a test that cannot run here says so, and `cargo xtask test` counts it.

use std::{fs::OpenOptions, io::Write};

/// Says that the calling test is skipped, and why; the test then returns.
///
/// The line goes to standard error and, under `cargo xtask test`, into the list of skips that is
/// shown and counted at the end (`PYTHEAS_SKIP_LOG`).
#[expect(
    clippy::print_stderr,
    reason = "a skip that nobody sees is a hole in the tests"
)]
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("SKIPPED: {name}: {reason}");
    if let Some(path) = std::env::var_os("PYTHEAS_SKIP_LOG")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _best_effort = writeln!(file, "{name}: {reason}");
    }
}
