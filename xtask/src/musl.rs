//! A real CPython for musl, for the tests of bundles for musl: made once, in `target/tools/musl`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::setup;

const SCRIPT: &str = include_str!("musl-python.sh");

/// Makes it unless it is there; without it the tests skip, visibly. Takes some minutes.
pub(crate) fn make(root: &Path) {
    let out = setup::tools_dir(root).join("musl");
    if out.join("SHA256SUMS").is_file() {
        return;
    }
    println!("making a Python for musl in target/tools/musl (once, some minutes)");
    let made = Command::new("sh")
        .args(["-c", SCRIPT, "musl-python.sh"])
        .arg(&out)
        .stdin(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        println!("not made: the tests of bundles for musl skip");
    }
}
