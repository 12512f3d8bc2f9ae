//! `cargo xtask size`: the device agent as it is shipped (static), and how large it is; fails when
//! it is larger than promised.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use crate::{cross, steps::root};

/// The agent's limit on every processor.
const MOST_BYTES: u64 = 6_000_000;

/// How the agent is linked: statically, relocations packed (`DT_RELR`, a quarter of a megabyte),
/// without tables for unwinding, since a panic ends it.
pub(crate) const RUSTFLAGS: &str = "-C target-feature=+crt-static -C force-unwind-tables=no \
     -C link-arg=-Wl,-z,pack-relative-relocs";

/// With LLD, the default linker on this processor: equal functions once, and without the tables for
/// unwinding that the standard library brings along. `rustc` links in the workspace's folder.
const LLD: &str = if cfg!(target_arch = "x86_64") {
    " -C link-arg=-Wl,--icf=safe -C link-arg=-Wl,--no-eh-frame-hdr -C link-arg=-Txtask/src/agent.ld"
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
        .env("RUSTFLAGS", format!("{RUSTFLAGS}{LLD}"))
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
    if !built {
        eprintln!("error: the agent was not built");
        return ExitCode::FAILURE;
    }
    let mut fits = show(&path);
    for cpu in cross::CPUS {
        let path = cross::folder(&root).join(cpu).join("pytheas-agent");
        if path.exists() {
            fits &= show(&path);
        } else {
            println!("{cpu}: not built, `cargo xtask cross` does");
        }
    }
    if fits {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints how large the agent at `path` is; whether it is small enough.
pub(crate) fn show(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else {
        eprintln!("error: there is no `{}`", path.display());
        return false;
    };
    let (bytes, linkage) = (metadata.len(), linkage(path));
    println!("{}: {bytes} bytes, {linkage}", path.display());
    if bytes > MOST_BYTES {
        eprintln!(
            "error: that is more than {MOST_BYTES} bytes; `nm --size-sort` on a build with `CARGO_PROFILE_AGENT_STRIP=none` shows of what"
        );
    }
    bytes <= MOST_BYTES
}

/// Whether the program asks for a dynamic loader: an ELF program header `PT_INTERP` (3).
fn linkage(path: &Path) -> &'static str {
    let headers = || -> Option<Vec<u32>> {
        let elf = std::fs::read(path)
            .ok()
            .filter(|b| b.starts_with(b"\x7fELF"))?;
        let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
        // ELFCLASS64 or 32: where the headers are, how large one is and how many there are.
        let (begin, size, count) = match elf.get(4)? {
            2 => (word(32)?, half(54)?, half(56)?),
            _ => (word(28)?, half(42)?, half(44)?),
        };
        (0..usize::from(count))
            .map(|n| word(begin as usize + n * usize::from(size)))
            .collect()
    };
    match headers() {
        Some(kinds) if kinds.contains(&3) => "needs shared libraries",
        Some(_) => "static",
        None => "no program",
    }
}
