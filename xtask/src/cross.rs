//! The device agent for real devices' processors, and how large it is there.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::{setup, size, steps};

const SCRIPT: &str = include_str!("cross-agent.sh");

/// Processors by the names that platforms have.
pub(crate) const CPUS: &[&str] = &["aarch64", "armv7"];

/// Where the programs are: `CPU/pytheas-agent`, `CPU/app`.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("target/cross")
}

/// The root with compilers for other processors.
///
/// `PYTHEAS_CROSS_ROOT` names another place for their 3 GB than `target/tools`.
pub(crate) fn compilers(root: &Path) -> PathBuf {
    std::env::var_os("PYTHEAS_CROSS_ROOT")
        .map_or_else(|| setup::tools_dir(root).join("cross-rust"), PathBuf::from)
}

/// Builds them; whether all of them are there and of this source now.
pub(crate) fn build(root: &Path) -> bool {
    for needed in ["debootstrap", "unshare", "chroot"] {
        if !setup::on_path(needed) {
            println!("Arm agents: not built, `{needed}` is not installed");
            return false;
        }
    }
    if !setup::is_root() {
        println!("Arm agents: not built, their compilers' root needs root");
        return false;
    }
    let compilers = compilers(root);
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    println!("building the agent for Arm in target/cross (minutes)");
    let built = std::fs::create_dir_all(compilers.parent().unwrap_or(root)).is_ok()
        && Command::new("sh")
            .args(["-c", SCRIPT, "cross-agent.sh"])
            .args([&compilers, root, &cargo_home])
            .arg(size::RUSTFLAGS)
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !built {
        println!("Arm agents: not built");
    }
    built
}

/// `cargo xtask cross`.
pub(crate) fn report() -> ExitCode {
    let root = steps::root();
    if !build(&root) {
        return ExitCode::FAILURE;
    }
    let mut fits = true;
    for cpu in CPUS {
        fits &= size::show(&folder(&root).join(cpu).join("pytheas-agent"));
    }
    println!(
        "updates on them: PYTHEAS_TEST_CROSS={} cargo nextest run -p pytheas-agent emulated",
        folder(&root).display()
    );
    if fits {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
