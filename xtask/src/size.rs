//! `cargo xtask size`: the device agent as it is shipped (static), and how large it is.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use crate::steps::root;

pub(crate) fn report() -> ExitCode {
    let root = root();
    // A target of its own name, or the flags would also go into build scripts.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--profile",
            "agent",
            "--package",
            "pytheas-agent",
            "--target",
            &target,
        ])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(&root)
        .status()
        .is_ok_and(|status| status.success());
    let path = root
        .join("target")
        .join(&target)
        .join("agent/pytheas-agent");
    match std::fs::metadata(&path) {
        Ok(metadata) if built => {
            println!(
                "{}: {} bytes, {}",
                path.display(),
                metadata.len(),
                linkage(&path)
            );
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("error: the agent was not built");
            ExitCode::FAILURE
        }
    }
}

/// Whether the program needs shared libraries, by `ldd`'s word.
fn linkage(path: &Path) -> &'static str {
    match Command::new("ldd").arg(path).output() {
        Ok(output) if output.status.success() && !output.stdout.starts_with(b"\tstatic") => {
            "needs shared libraries"
        }
        Ok(_) => "static",
        Err(_) => "linkage not known (no ldd)",
    }
}
