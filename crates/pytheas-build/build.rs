//! Compiles the launcher (`launcher/src/main.rs`), a freestanding program, for the platform that
//! `pytheas` itself is compiled for, with the same compiler; the crate embeds the result.

use std::{env, path::Path, process::Command};

fn main() {
    // Asked when it runs: a target folder may be copied to another work tree.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let sources = Path::new(&manifest).join("../../launcher/src");
    let source = sources.join("main.rs");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets `{name}`"));
    let output = Path::new(&variable("OUT_DIR")).join("launcher");
    let mut command = Command::new(variable("RUSTC"));
    command
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "launcher",
            "--crate-type",
            "bin",
        ])
        .args(["--target", &variable("TARGET")])
        .args([
            "-C",
            "opt-level=s",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
            // What its modules call of each other is inlined as if it were one.
            "-C",
            "codegen-units=1",
        ])
        // Nothing of the machine it is compiled on: no libc, no start files, no loader, no paths.
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "default-linker-libraries=no",
        ])
        .args([
            "-C",
            "link-arg=-nostartfiles",
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-static",
        ])
        .args([
            "-C",
            "link-arg=-Wl,--gc-sections,--build-id=none,-z,noexecstack",
        ])
        .arg(format!(
            "--remap-path-prefix={}=launcher",
            sources.display()
        ))
        .arg(format!("--remap-path-prefix={}=launcher", source.display()))
        .arg("-o")
        .arg(&output)
        .arg(&source);
    if variable("TARGET").contains("musl") {
        command.args(["-C", "link-self-contained=no"]); // else rustc adds musl's start files
    }
    // `cargo` tells build scripts about the linker, but not `rustc` when it is called from one.
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.args(["-C", &format!("linker={linker}")]);
    }
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        status.success(),
        "the launcher does not compile: {command:?}"
    );
}
