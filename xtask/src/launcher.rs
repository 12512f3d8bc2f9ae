//! Compiles the launcher for the CPUs that bundles can be built for, as hex text in
//! `launcher/machine/`: a plain `cargo install` has no foreign targets, and `pytheas` must still be
//! able to write their few kilobytes. The first line of a file says from which source and with
//! which compiler it was made; a test compares both.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{cross, steps};

/// CPUs as in platform names, the compiler's targets, and where their `core` comes from.
const TARGETS: &[(&str, &str, Core)] = &[
    ("aarch64", "aarch64-unknown-linux-gnu", Core::Rustup),
    ("armv7", "armv7-unknown-linux-gnueabihf", Core::Rustup),
    ("riscv64", "riscv64gc-unknown-linux-gnu", Core::Debian),
    ("x86_64", "x86_64-unknown-linux-gnu", Core::Rustup),
];

/// Who brings a target's `core`, and with it the compiler.
#[derive(Debug, Clone, Copy)]
enum Core {
    /// This machine's toolchain (`rustup target add`).
    Rustup,
    /// The root of compilers that `cargo xtask cross` makes.
    Debian,
}

/// What is compiled from `main.rs`: the files' prefix, further arguments.
const VARIANTS: &[(&str, &[&str])] = &[
    ("", &["-C", "opt-level=s"]),
    ("one-file-", &["--cfg", "one_file", "-C", "opt-level=2"]),
];

/// All sources, joined in the order of their paths.
fn sources() -> std::io::Result<Vec<u8>> {
    let mut files = Vec::new();
    let mut folders = vec![launcher_dir().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files
        .iter()
        .map(std::fs::read)
        .collect::<Result<Vec<_>, _>>()?
        .concat())
}

fn launcher_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../launcher")
}

fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} failed: {text}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn own_compiler() -> Command {
    Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
}

/// The compiler that has the `core`. Debian's runs from its root with its own libraries: no chroot.
fn compiler(core: Core) -> Command {
    match core {
        Core::Rustup => own_compiler(),
        Core::Debian => {
            let root = cross::compilers(&steps::root());
            let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
            command
                .arg("--library-path")
                .arg(root.join("usr/lib/x86_64-linux-gnu"))
                .arg(root.join("usr/bin/rustc"))
                .arg("--sysroot")
                .arg(root.join("usr"));
            command
        }
    }
}

/// FNV-1a of the source, enough to notice that it changed.
pub(crate) fn fingerprint(source: &[u8]) -> String {
    let hash = source.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The first line of a file.
fn header(source: &[u8], core: Core) -> Result<String, String> {
    let version = output_of(compiler(core).arg("--version"))?;
    Ok(format!(
        "# launcher/src {} by {version}; `cargo xtask launcher` writes this",
        fingerprint(source)
    ))
}

/// The program for `target`; needs the target's `core` and no linker of it.
fn compile(target: &str, core: Core, arguments: &[&str], into: &Path) -> Result<Vec<u8>, String> {
    let sysroot = output_of(own_compiler().args(["--print", "sysroot"]))?;
    let host = output_of(own_compiler().args(["--print", "host-tuple"]))?;
    let linker = Path::new(&sysroot).join(format!("lib/rustlib/{host}/bin/rust-lld"));
    let source = launcher_dir().join("src/main.rs");
    let output = into.join(target);
    let mut command = compiler(core);
    command
        .args(["--edition", "2024", "--crate-name", "launcher"])
        .args(["--crate-type", "bin", "--target", target])
        .args(["--check-cfg", "cfg(one_file)", "-C", "panic=abort"])
        // What its modules call of each other is inlined as if it were one.
        .args(["-C", "codegen-units=1"])
        .args(arguments)
        .args(["-C", "strip=symbols", "-C", "relocation-model=static"])
        .args(["-C", "default-linker-libraries=no"])
        .args(["-C", "linker-flavor=ld.lld"])
        .arg("-C")
        .arg(format!("linker={}", linker.display()))
        .args(["-C", "link-arg=--gc-sections"])
        .args(["-C", "link-arg=--build-id=none"])
        .args(["-C", "link-arg=-znoexecstack"])
        .args(["-C", "link-arg=-static"])
        .arg(format!(
            "--remap-path-prefix={}=launcher",
            launcher_dir().join("src").display()
        ))
        .arg(format!("--remap-path-prefix={}=launcher", source.display()))
        .arg("-o")
        .arg(&output)
        .arg(&source);
    if matches!(core, Core::Rustup) {
        command.args(["-C", "link-self-contained=no"]); // what Debian's never does
    }
    output_of(&mut command)?;
    std::fs::read(&output).map_err(|error| format!("cannot read {}: {error}", output.display()))
}

fn encode(header: &str, program: &[u8]) -> String {
    let mut text = format!("{header}\n");
    for line in program.chunks(40) {
        for byte in line {
            let _ = write!(text, "{byte:02x}"); // a `String` takes everything
        }
        text.push('\n');
    }
    text
}

/// The `error` with what brings the compiler.
fn needs(core: Core, error: String) -> String {
    match core {
        Core::Rustup => error,
        Core::Debian => format!("{error}\n  help: `cargo xtask cross` makes the compilers' root"),
    }
}

/// Writes the files of all targets.
#[expect(
    clippy::disallowed_methods,
    reason = "version control keeps what was there"
)]
pub(crate) fn write() -> ExitCode {
    let run = || -> Result<(), String> {
        let show = |error: std::io::Error| error.to_string();
        let scratch = std::env::temp_dir().join(format!("pytheas-launcher-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).map_err(show)?;
        let machine = launcher_dir().join("machine");
        std::fs::create_dir_all(&machine).map_err(show)?;
        let source = sources().map_err(show)?;
        for (prefix, arguments) in VARIANTS {
            for (cpu, target, core) in TARGETS {
                let header = header(&source, *core).map_err(|error| needs(*core, error))?;
                let program = compile(target, *core, arguments, &scratch)?;
                let text = encode(&header, &program);
                std::fs::write(machine.join(format!("{prefix}{cpu}.hex")), text).map_err(show)?;
                println!("{prefix}{cpu}: {} bytes", program.len());
            }
        }
        std::fs::remove_dir_all(&scratch).map_err(show)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_machine_code_is_that_of_the_source() {
        let scratch =
            std::env::temp_dir().join(format!("pytheas-launcher-{}-test", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let source = sources().unwrap();
        for (prefix, arguments) in VARIANTS {
            for (cpu, target, core) in TARGETS {
                let file = launcher_dir().join(format!("machine/{prefix}{cpu}.hex"));
                let text = std::fs::read_to_string(file).unwrap();
                let first = text.lines().next().unwrap();
                let mark = fingerprint(&source);
                assert!(
                    first.contains(&mark),
                    "the launcher's source changed; run `cargo xtask launcher`"
                );
                match header(&source, *core) {
                    Ok(expected) if first == expected => {}
                    Ok(_) => {
                        eprintln!("skipped: `{prefix}{cpu}.hex` was made by another compiler");
                        continue;
                    }
                    Err(error) => {
                        eprintln!("skipped: no compiler for `{prefix}{cpu}.hex` ({error})");
                        continue;
                    }
                }
                match compile(target, *core, arguments, &scratch) {
                    Ok(program) => assert!(text == encode(first, &program), "{prefix}{cpu}"),
                    Err(error) => {
                        eprintln!("skipped: target `{target}` is not installed ({error})");
                    }
                }
            }
        }
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
