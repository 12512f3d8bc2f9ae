//! Programs for other CPUs on this machine: by the kernel's own `binfmt_misc`, else by one in a user
//! namespace (Linux 6.7), so that nothing changes for the machine and child processes work as well.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pytheas_project::Environment;
use pytheas_release::Platform;

use super::error::TestError;

/// How a program is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emulation {
    /// This machine's CPU runs it.
    None,
    /// The kernel knows an emulator.
    Kernel,
    /// In a user namespace with a rule for `binfmt_misc`.
    Namespace {
        /// qemu-user.
        program: PathBuf,
        /// The rule.
        rule: String,
    },
}

const SCRIPT: &str = r#"mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || exit 99
printf '%s' "$1" > /proc/sys/fs/binfmt_misc/register || exit 99
shift
exec "$@""#;

/// ELF class, machine (little endian, as `binfmt.d` of Debian's qemu has them) and qemu's name.
fn machine(arch: &str) -> Option<(u8, &'static str, &'static str)> {
    match arch {
        "aarch64" => Some((2, "b7", "aarch64")),
        "armv7" => Some((1, "28", "arm")),
        "riscv64" => Some((2, "f3", "riscv64")),
        "x86_64" => Some((2, "3e", "x86_64")),
        _ => None,
    }
}

/// How `python`, which is for `platform`, is started on this machine.
pub(super) fn find(
    platform: &Platform,
    python: &Path,
    environment: &Environment,
) -> Result<Emulation, TestError> {
    let own = match std::env::consts::ARCH {
        "arm" => "armv7",
        other => other,
    };
    if platform.arch() == own {
        return Ok(Emulation::None);
    }
    let direct = environment
        .python(python)
        .args(["-I", "-S", "-c", ""])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if direct.is_ok_and(|status| status.success()) {
        return Ok(Emulation::Kernel);
    }
    let missing = |program: String| TestError::NoEmulator {
        platform: platform.clone(),
        program,
    };
    let Some((class, machine, cpu)) = machine(platform.arch()) else {
        return Err(missing(format!("qemu-{}", platform.arch())));
    };
    let program = environment
        .search_path()
        .iter()
        .flat_map(|dir| ["-static", ""].map(|end| dir.join(format!("qemu-{cpu}{end}"))))
        .find(|path| path.is_file())
        .ok_or_else(|| missing(format!("qemu-{cpu}-static")))?;
    let magic = format!(
        r"\x7f\x45\x4c\x46\x0{class}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine}\x00"
    );
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let emulation = Emulation::Namespace {
        rule: format!(":pytheas:M::{magic}:{mask}:{}:FP", program.display()),
        program: program.clone(),
    };
    let unable = |source| TestError::NoBinfmt {
        platform: platform.clone(),
        emulator: program.clone(),
        source,
    };
    let output = emulation
        .command(environment, Path::new("true"))
        .stdin(Stdio::null())
        .output()
        .map_err(unable)?;
    if output.status.success() {
        return Ok(emulation);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(unable(io::Error::other(said)))
}

impl Emulation {
    /// The emulator, where it is known.
    pub fn program(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Kernel => Some(Path::new("binfmt_misc")),
            Self::Namespace { program, .. } => Some(program),
        }
    }

    /// A command that starts `program`, with the environment but for what changes how Python starts.
    pub fn command(&self, environment: &Environment, program: &Path) -> Command {
        match self {
            Self::None | Self::Kernel => environment.python(program),
            Self::Namespace { rule, .. } => {
                let mut command = environment.python(Path::new("unshare"));
                command
                    .args(["-Urm", "sh", "-c", SCRIPT, "sh", rule])
                    .arg(program);
                command
            }
        }
    }
}
