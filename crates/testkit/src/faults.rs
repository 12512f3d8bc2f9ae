//! Counts of injected faults and cuts of the power, shown at the end of `cargo xtask test`.

use std::{fs::OpenOptions, io::Write};

/// Says how many faults a test injected and what came of them.
///
/// The line goes to standard output and, under `cargo xtask test`, into the list that is shown at the
/// end (`PYTHEAS_FAULTS_LOG`).
#[expect(clippy::print_stdout, reason = "the count is shown")]
pub fn faults(line: &str) {
    println!("{line}");
    if let Some(path) = std::env::var_os("PYTHEAS_FAULTS_LOG")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _best_effort = writeln!(file, "{line}");
    }
}
