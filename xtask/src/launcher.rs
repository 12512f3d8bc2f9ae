//! Compiles the launcher for the CPUs that bundles can be built for, as hex text in
//! `launcher/machine/`: a plain `cargo install` has no foreign targets, and `pytheas` must still be
//! able to write their few kilobytes. The first line of a file says from which source and with
//! which compiler it was made; a test compares both.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// CPUs as in platform names, and the compiler's targets.
const TARGETS: &[(&str, &str)] = &[
    ("aarch64", "aarch64-unknown-linux-gnu"),
    ("armv7", "armv7-unknown-linux-gnueabihf"),
    ("x86_64", "x86_64-unknown-linux-gnu"),
];

/// What is compiled from `main.rs`: the files' prefix, further arguments, all of its sources.
const VARIANTS: &[(&str, &[&str], &[&str])] = &[
    ("", &["-C", "opt-level=s"], &["main.rs"]),
    (
        "one-file-",
        &["--cfg", "one_file", "-C", "opt-level=2"],
        &["main.rs", "one_file.rs", "zstd.rs"],
    ),
];

/// The sources of a variant, joined.
fn sources(files: &[&str]) -> std::io::Result<Vec<u8>> {
    let read = |file| std::fs::read(launcher_dir().join("src").join(file));
    Ok(files
        .iter()
        .map(read)
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

fn compiler() -> String {
    std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned())
}

/// FNV-1a of the source, enough to notice that it changed.
pub(crate) fn fingerprint(source: &[u8]) -> String {
    let hash = source.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The first line of a file.
fn header(source: &[u8]) -> Result<String, String> {
    let version = output_of(Command::new(compiler()).arg("--version"))?;
    Ok(format!(
        "# launcher/src/main.rs {} by {version}; `cargo xtask launcher` writes this",
        fingerprint(source)
    ))
}

/// The program for `target`; needs the target's `core` (`rustup target add`) and no linker of it.
fn compile(target: &str, arguments: &[&str], into: &Path) -> Result<Vec<u8>, String> {
    let sysroot = output_of(Command::new(compiler()).args(["--print", "sysroot"]))?;
    let host = output_of(Command::new(compiler()).args(["--print", "host-tuple"]))?;
    let linker = Path::new(&sysroot).join(format!("lib/rustlib/{host}/bin/rust-lld"));
    let source = launcher_dir().join("src/main.rs");
    let output = into.join(target);
    let mut command = Command::new(compiler());
    command
        .args(["--edition", "2024", "--crate-name", "launcher"])
        .args(["--crate-type", "bin", "--target", target])
        .args(["--check-cfg", "cfg(one_file)", "-C", "panic=abort"])
        .args(arguments)
        .args(["-C", "strip=symbols", "-C", "relocation-model=static"])
        .args(["-C", "default-linker-libraries=no"])
        .args(["-C", "linker-flavor=ld.lld"])
        .arg("-C")
        .arg(format!("linker={}", linker.display()))
        .args(["-C", "link-self-contained=no"])
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
        for (prefix, arguments, files) in VARIANTS {
            let header = header(&sources(files).map_err(show)?)?;
            for (cpu, target) in TARGETS {
                let program = compile(target, arguments, &scratch)?;
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
        for (prefix, arguments, files) in VARIANTS {
            let source = sources(files).unwrap();
            let expected = header(&source).unwrap();
            for (cpu, target) in TARGETS {
                let file = launcher_dir().join(format!("machine/{prefix}{cpu}.hex"));
                let text = std::fs::read_to_string(file).unwrap();
                let first = text.lines().next().unwrap();
                let mark = fingerprint(&source);
                assert!(
                    first.contains(&mark),
                    "the launcher's source changed; run `cargo xtask launcher`"
                );
                if first != expected {
                    eprintln!("skipped: `{prefix}{cpu}.hex` was made by another compiler");
                    continue;
                }
                match compile(target, arguments, &scratch) {
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
