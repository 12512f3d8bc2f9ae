//! Real CPythons for musl, for the tests of bundles for musl: made once, in `target/tools/musl`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::setup;

const SCRIPT: &str = include_str!("musl-python.sh");
/// Processors by the names that platforms have.
const CPUS: &[&str] = &["x86_64", "aarch64"];
/// The C compiler for all of them: the version that `pytheas` itself compiles with.
const ZIG: &str = "ziglang==0.17.0";

/// Makes those that are not there; without one its tests skip, visibly. Takes some minutes for each.
pub(crate) fn make(root: &Path) {
    let out = setup::tools_dir(root).join("musl");
    let sums = || std::fs::read_to_string(out.join("SHA256SUMS")).unwrap_or_default();
    for cpu in CPUS {
        if sums().contains(&format!("-{cpu}-unknown-linux-musl-")) {
            continue;
        }
        println!("making a Python for musl on {cpu} in target/tools/musl (once, some minutes)");
        let made = zig(root).is_some_and(|zig| {
            Command::new("sh")
                .args(["-c", SCRIPT, "musl-python.sh"])
                .arg(&out)
                .arg(cpu)
                .arg(zig)
                .stdin(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
        if !made {
            println!("not made: the tests of bundles for musl on {cpu} skip");
        }
    }
}

/// The program `zig` in the environment of tools.
fn zig(root: &Path) -> Option<PathBuf> {
    let python = setup::tools_dir(root).join("bin/python");
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "-q", ZIG])
        .status()
        .ok()?;
    let script =
        "import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), 'zig'))";
    let output = Command::new(&python).args(["-c", script]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    (installed.success() && output.status.success()).then(|| PathBuf::from(path.trim_end()))
}
