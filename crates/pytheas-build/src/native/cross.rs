//! What a build is told about its target: the names of CPU and C library, `sysconfig`'s variables,
//! the headers. The Python that runs the build is the host's; `cross.py` makes it answer so.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{NativeError, error::io_error, write};
use crate::{install::Installer, interpreter, scratch::Kind};

/// Changes with what builds are told.
pub(super) const FORMAT: &str = "1";
const SCRIPT: &str = include_str!("cross.py");

/// A target as compilers and Python name it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// For `zig cc -target`.
    pub(super) zig: String,
    /// In the names of extension modules.
    pub(super) multiarch: String,
    /// As `sysconfig.get_platform()` says it.
    host_platform: String,
    /// As `uname -m` says it.
    machine: &'static str,
    /// What wheels are called after: `manylinux_2_17_aarch64`.
    pub(super) wheel_platform: String,
    /// Class and machine of its ELF files.
    pub(super) elf: (u8, u16),
    /// The newest version of glibc that may be needed; none for musl.
    pub(super) glibc: Option<(u16, u16)>,
    /// `3.11`
    pub(super) short: String,
    free_threaded: bool,
    /// The folder with `Python.h`.
    pub(super) include: PathBuf,
    /// The Python that runs builds.
    pub(super) python: PathBuf,
    identity: String,
}

struct Cpu {
    arch: &'static str,
    machine: &'static str,
    glibc_triple: (&'static str, &'static str),
    musl_triple: (&'static str, &'static str),
    elf: (u8, u16),
}

/// zig's and Python's triples by CPU. ELF classes and machines as in elf(5).
const CPUS: &[Cpu] = &[
    Cpu {
        arch: "x86_64",
        machine: "x86_64",
        glibc_triple: ("x86_64-linux-gnu", "x86_64-linux-gnu"),
        musl_triple: ("x86_64-linux-musl", "x86_64-linux-musl"),
        elf: (2, 62),
    },
    Cpu {
        arch: "aarch64",
        machine: "aarch64",
        glibc_triple: ("aarch64-linux-gnu", "aarch64-linux-gnu"),
        musl_triple: ("aarch64-linux-musl", "aarch64-linux-musl"),
        elf: (2, 183),
    },
    Cpu {
        arch: "armv7",
        machine: "armv7l",
        glibc_triple: ("arm-linux-gnueabihf", "arm-linux-gnueabihf"),
        musl_triple: ("arm-linux-musleabihf", "arm-linux-musleabihf"),
        elf: (1, 40),
    },
    Cpu {
        arch: "riscv64",
        machine: "riscv64",
        glibc_triple: ("riscv64-linux-gnu", "riscv64-linux-gnu"),
        musl_triple: ("riscv64-linux-musl", "riscv64-linux-musl"),
        elf: (2, 243),
    },
];

impl Target {
    pub(super) fn new(installer: &Installer<'_>) -> Result<Self, NativeError> {
        let (platform, interpreter) = (installer.platform, installer.interpreter);
        let Some(cpu) = CPUS.iter().find(|cpu| cpu.arch == platform.arch()) else {
            return Err(NativeError::Platform {
                platform: platform.clone(),
            });
        };
        let short = interpreter
            .version
            .splitn(3, '.')
            .take(2)
            .collect::<Vec<_>>()
            .join(".");
        // A Python with a C library of its own cannot be the base of a build environment.
        let python = interpreter::host_tool(installer.environment, interpreter);
        let Some(python) = python else {
            return Err(NativeError::NoPython {
                short,
                platform: platform.clone(),
            });
        };
        let (triple, glibc) = if platform.is_musl() {
            (cpu.musl_triple, None)
        } else {
            // riscv64 began with 2.27.
            let oldest = if cpu.arch == "riscv64" {
                (2, 27)
            } else {
                (2, 17)
            };
            (cpu.glibc_triple, Some(oldest))
        };
        let (zig, wheel_platform) = match glibc {
            Some((major, minor)) => (
                format!("{}.{major}.{minor}", triple.0),
                format!("manylinux_{major}_{minor}_{}", cpu.machine),
            ),
            None => (
                triple.0.to_owned(),
                format!("musllinux_1_2_{}", cpu.machine),
            ),
        };
        let include = interpreter::headers(
            interpreter,
            platform,
            installer.connectivity,
            installer.environment,
            installer.observer,
        )?;
        let Some(include) = include else {
            return Err(NativeError::NoHeaders {
                origin: interpreter.origin.clone(),
                version: interpreter.version.clone(),
            });
        };
        Ok(Self {
            zig,
            multiarch: triple.1.to_owned(),
            host_platform: format!("linux-{}", cpu.machine),
            machine: cpu.machine,
            wheel_platform,
            elf: cpu.elf,
            glibc,
            free_threaded: interpreter.program.as_str().ends_with('t'),
            identity: format!(
                "{}\0{}\0{:?}",
                interpreter.provider, interpreter.version, interpreter.sha256
            ),
            short,
            include,
            python,
        })
    }

    /// What tells targets apart for the cache.
    pub(super) fn key(&self) -> String {
        format!("{}\0{}\0{}", self.zig, self.short, self.identity)
    }

    /// Bits of a pointer.
    pub(super) fn bits(&self) -> u8 {
        if self.elf.0 == 1 { 32 } else { 64 }
    }

    /// How names of extension modules end: `.cpython-311-aarch64-linux-gnu.so`.
    pub(super) fn ext_suffix(&self) -> String {
        format!(".{}.so", self.soabi())
    }

    fn soabi(&self) -> String {
        let threads = if self.free_threaded { "t" } else { "" };
        let digits = self.short.replace('.', "");
        format!("cpython-{digits}{threads}-{}", self.multiarch)
    }

    /// Makes the Python whose packages lie in `site` answer as the target's; `tools` holds the
    /// compiler's scripts.
    pub(super) fn impose(&self, site: &Path, tools: &Path) -> Result<(), NativeError> {
        let description = json!({
            "host_platform": self.host_platform,
            "machine": self.machine,
            "multiarch": self.multiarch,
            "bits": self.bits(),
            "include": self.include,
            "variables": self.variables(tools),
        });
        let text = serde_json::to_string_pretty(&description)
            .map_err(|error| io_error("write", site)(error.into()))?;
        write(&site.join("_pytheas_target.json"), &text, Kind::Data)?;
        write(&site.join("_pytheas_cross.py"), SCRIPT, Kind::Data)?;
        let line = "import _pytheas_cross\n";
        write(&site.join("_pytheas_cross.pth"), line, Kind::Data)
    }

    /// `sysconfig`'s variables that differ.
    fn variables(&self, tools: &Path) -> Map<String, Value> {
        let tool = |name: &str| tools.join(name).display().to_string();
        let (cc, cxx) = (tool("cc"), tool("c++"));
        let texts = [
            ("CC", cc.clone()),
            ("CXX", cxx.clone()),
            ("MAINCC", cc.clone()),
            ("LINKCC", cc.clone()),
            ("CPP", format!("{cc} -E")),
            ("AR", tool("ar")),
            ("RANLIB", tool("ranlib")),
            ("LDSHARED", format!("{cc} -shared")),
            ("BLDSHARED", format!("{cc} -shared")),
            ("LDCXXSHARED", format!("{cxx} -shared")),
            ("CFLAGS", "-DNDEBUG -O2 -Wall".to_owned()),
            ("PY_CFLAGS", "-DNDEBUG -O2 -Wall".to_owned()),
            ("OPT", "-DNDEBUG -O2 -Wall".to_owned()),
            ("CCSHARED", "-fPIC".to_owned()),
            ("ARFLAGS", "rcs".to_owned()),
            ("EXT_SUFFIX", self.ext_suffix()),
            ("SO", self.ext_suffix()),
            ("SHLIB_SUFFIX", ".so".to_owned()),
            ("SOABI", self.soabi()),
            ("MULTIARCH", self.multiarch.clone()),
            ("INCLUDEPY", self.include.display().to_string()),
            ("CONFINCLUDEPY", self.include.display().to_string()),
        ];
        let empty = [
            "LDFLAGS",
            "PY_LDFLAGS",
            "CPPFLAGS",
            "PY_CPPFLAGS",
            "BASECFLAGS",
            "CONFIGURE_CFLAGS",
            "CONFIGURE_LDFLAGS",
            "EXTRA_CFLAGS",
            "LIBS",
            "SYSLIBS",
            "LIBPL",
            "LIBDIR",
        ];
        let word = i64::from(self.bits() / 8);
        let sizes = [
            "SIZEOF_LONG",
            "SIZEOF_VOID_P",
            "SIZEOF_SIZE_T",
            "SIZEOF_PTHREAD_T",
            "SIZEOF_UINTPTR_T",
            "SIZEOF_TIME_T",
            "ALIGNOF_LONG",
            "ALIGNOF_SIZE_T",
        ];
        let mut variables = Map::new();
        variables.extend(texts.map(|(name, text)| (name.to_owned(), Value::from(text))));
        variables.extend(empty.map(|name| (name.to_owned(), Value::from(""))));
        variables.extend(sizes.map(|name| (name.to_owned(), Value::from(word))));
        variables.insert("Py_ENABLE_SHARED".to_owned(), Value::from(0));
        variables
    }
}
