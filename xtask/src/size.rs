//! `cargo xtask size`: the device agent as it is shipped (static), and how large it is; fails when
//! it is larger than promised.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use crate::steps::root;

/// What the agent may weigh, in bytes.
const LIMIT: u64 = 6_000_000;

/// How the agent is linked: statically, relocations packed (`DT_RELR`, a quarter of a megabyte),
/// without tables for unwinding, since a panic ends it.
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C force-unwind-tables=no \
     -C link-arg=-Wl,-z,pack-relative-relocs";

/// Equal functions once; only LLD can, which is the default linker on this processor.
const FOLD: &str = if cfg!(target_arch = "x86_64") {
    " -C link-arg=-Wl,--icf=safe"
} else {
    ""
};

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
        .env("RUSTFLAGS", format!("{RUSTFLAGS}{FOLD}"))
        // The C of aws-lc and zstd needs no tables for unwinding either.
        .env(
            format!("CFLAGS_{}", target.replace('-', "_")),
            "-fno-asynchronous-unwind-tables",
        )
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
                "{}: {} bytes of {LIMIT}, {}",
                path.display(),
                metadata.len(),
                linkage(&path)
            );
            if metadata.len() > LIMIT {
                eprintln!(
                    "error: larger than {LIMIT} bytes; `nm --size-sort` on a build with `CARGO_PROFILE_AGENT_STRIP=none` shows of what"
                );
                return ExitCode::FAILURE;
            }
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
