//! The C and C++ compiler: `ziglang` from the package index, pinned by hash and fetched when it is
//! first needed, behind scripts that take what gcc takes.

use std::path::{Path, PathBuf};

use pytheas_project::{Connectivity, UvCallError, UvFailure};

use super::{NativeError, cross::Target, error::io_error, write};
use crate::{
    event::Event,
    install::Installer,
    scratch::{self, Kind},
};

/// The version that is used.
pub(super) const VERSION: &str = "0.17.0";
/// SHA-256 of its wheels for Linux machines (x86-64, aarch64, armv7), all for any C library.
const HASHES: &[&str] = &[
    "97079827064a7492cce5541ceb438ae8003ce1e54e399676da2d62fb7a5dc08b",
    "d2804f94f54f7fcf8169f4b212a619ad688a4e2e6592e976f0cf2e58e2cd8af3",
    "2f1506fbd4080ae55c7f3c5abe99cce226e563827f50e8f143e36decc615310f",
];
/// What is linked to have the libraries compiled.
const C: &str = "int pytheas(int a) { return a; }\n";
const CXX: &str = "#include <stdexcept>\n#include <string>\nint pytheas(int a) { if (a) throw std::runtime_error(std::to_string(a)); return a; }\n";
const SCRIPT: &str = include_str!("cc.sh");
/// Old sources rely on what C compilers let pass until 2023.
const LENIENT: &str = "-fcommon -Wno-error=implicit-function-declaration -Wno-error=int-conversion -Wno-error=incompatible-pointer-types -Wno-error=implicit-int";

/// The program `zig`, fetched first when it is not there. `python` is any Python of this machine.
pub(super) fn program(installer: &Installer<'_>, python: &Path) -> Result<PathBuf, NativeError> {
    let tools = installer.environment.cache_dir().join("tools");
    let home = tools.join(format!("ziglang-{VERSION}"));
    let program = home.join("ziglang/zig");
    if program.is_file() {
        return Ok(program);
    }
    if installer.connectivity == Connectivity::Online {
        (installer.observer)(Event::Fetching {
            what: format!("ziglang {VERSION} (a C compiler, 100 MB, once)"),
            from: "the package index".to_owned(),
        });
    }
    std::fs::create_dir_all(&tools).map_err(io_error("make", &tools))?;
    let scratch = scratch::folder(&tools, ".zig-").map_err(io_error("make a folder in", &tools))?;
    let requirements = scratch.path().join("requirements.txt");
    let hashes: String = HASHES
        .iter()
        .map(|hash| format!(" --hash=sha256:{hash}"))
        .collect();
    write(
        &requirements,
        &format!("ziglang=={VERSION}{hashes}\n"),
        Kind::Data,
    )?;
    let fresh = scratch.path().join("fresh");
    let mut command = installer.uv.command();
    command
        .args([
            "pip",
            "install",
            "--no-deps",
            "--require-hashes",
            "--python",
        ])
        .arg(python)
        .arg("--target")
        .arg(&fresh)
        .arg("-r")
        .arg(&requirements);
    installer.uv.run(command).map_err(|error| match error {
        UvCallError::Failed(UvFailure::Offline, _) => NativeError::Offline,
        UvCallError::Failed(_, source) => NativeError::Toolchain { source },
        UvCallError::Start(source) => NativeError::Io {
            action: "start",
            path: installer.uv.path.clone(),
            source,
        },
    })?;
    match pytheas_durable::move_dir(&fresh, &home) {
        // Another build was first; its result is the same.
        Err(_) if program.is_file() => {}
        result => result.map_err(io_error("make", &home))?,
    }
    Ok(program)
}

/// Writes the compiler's scripts into `dir`, under all the names that builds ask for.
pub(super) fn write_scripts(
    dir: &Path,
    zig: &Path,
    target: &Target,
    source: &Path,
    host_include: &str,
) -> Result<(), NativeError> {
    let plain = |tool: &str| format!("#!/bin/sh\nexec {} {tool} \"$@\"\n", quoted(zig));
    let compiler = |language: &str| {
        SCRIPT
            .replace("\"@ZIG@\"", &quoted(zig))
            .replace("@LENIENT@", if language == "cc" { LENIENT } else { "" })
            .replace("@LANGUAGE@", language)
            .replace("@TARGET@", &target.zig)
            .replace("@HOST_INCLUDE@", &format!("-I{host_include}*"))
            .replace("@ROOT_MAP@", &format!("{}=.", quoted(source)))
            .replace(
                "@INCLUDE_MAP@",
                &format!("{}=include", quoted(&target.include)),
            )
            .replace(
                "@INCLUDE_ARG@",
                &format!(
                    "{} -I{}",
                    quoted(&target.include),
                    quoted(&dir.join("include"))
                ),
            )
    };
    let triple = &target.multiarch;
    // A Debian machine's own Python: its `pyconfig.h` includes another by this path.
    let inside = format!("{triple}/python{}", target.short);
    let wrapped = Path::new("/usr/include").join(&inside).join("pyconfig.h");
    let names = std::fs::read_to_string(target.include.join("pyconfig.h"))
        .is_ok_and(|text| text.contains(&format!("<{inside}/pyconfig.h>")));
    if names && wrapped.is_file() {
        let to = dir.join("include").join(&inside).join("pyconfig.h");
        scratch::copy(&wrapped, &to).map_err(io_error("copy", &wrapped))?;
    }
    for (names, text) in [
        (&["cc", "gcc", "clang"][..], compiler("cc")),
        (&["c++", "g++", "clang++"], compiler("c++")),
        (&["ar", "gcc-ar"], plain("ar")),
        (&["ranlib", "gcc-ranlib"], plain("ranlib")),
        (&["ld"], plain("ld.lld")),
        // Everything is linked without symbols of its own.
        (&["strip"], "#!/bin/sh\nexit 0\n".to_owned()),
        // What it would find is this machine's.
        (&["pkg-config", "pkgconf"], "#!/bin/sh\nexit 1\n".to_owned()),
    ] {
        for name in names {
            write(&dir.join(name), &text, Kind::Program)?;
            write(&dir.join(format!("{triple}-{name}")), &text, Kind::Program)?;
        }
    }
    Ok(())
}

/// Puts a cache for the compiler at `into`, in which the target's C library (and C++ library, which
/// takes minutes) is compiled already. It is a copy: what code of a package does to its own does not
/// get into other builds.
pub(super) fn warm(
    installer: &Installer<'_>,
    target: &Target,
    tools: &Path,
    cxx: bool,
    into: &Path,
) -> Result<(), NativeError> {
    let home = installer
        .environment
        .cache_dir()
        .join(format!("native/zig-{VERSION}"));
    let base = home.join(format!("{}-c", target.zig));
    if !base.is_dir() {
        fill(installer, &home, &base, None, tools, "cc", C)?;
    }
    if !cxx {
        return scratch::copy_tree(&base, into).map_err(io_error("copy", &base));
    }
    let full = home.join(format!("{}-c++", target.zig));
    if !full.is_dir() {
        (installer.observer)(Event::Compiling {
            what: "the C++ library (once)".to_owned(),
            platform: installer.platform.clone(),
        });
        fill(installer, &home, &full, Some(&base), tools, "c++", CXX)?;
    }
    scratch::copy_tree(&full, into).map_err(io_error("copy", &full))
}

/// Makes the cache `to` by linking `text` with the compiler `tool`, beginning with what is in `base`.
fn fill(
    installer: &Installer<'_>,
    home: &Path,
    to: &Path,
    base: Option<&PathBuf>,
    tools: &Path,
    tool: &str,
    text: &str,
) -> Result<(), NativeError> {
    std::fs::create_dir_all(home).map_err(io_error("make", home))?;
    let work = scratch::folder(home, ".new-").map_err(io_error("make a folder in", home))?;
    let dir = work.path();
    // Not in the scratch folder: a build that is stopped in these minutes has not wasted them. The
    // compiler locks what it writes there.
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let cache = home.join(format!("{name}.part"));
    if let Some(base) = base
        && !cache.is_dir()
    {
        scratch::copy_tree(base, &cache).map_err(io_error("copy", base))?;
    }
    std::fs::create_dir_all(&cache).map_err(io_error("make", &cache))?;
    let source = dir.join(if tool == "cc" { "a.c" } else { "a.cc" });
    write(&source, text, Kind::Data)?;
    let compiler = tools.join(tool);
    for arguments in [&["-fPIC", "-c"][..], &["-fPIC", "-shared"]] {
        let output = installer
            .environment
            .command(&compiler)
            .args(arguments)
            .arg(&source)
            .args(["-o", "made"])
            .current_dir(dir)
            .env("ZIG_GLOBAL_CACHE_DIR", &cache)
            .env("ZIG_LOCAL_CACHE_DIR", &cache)
            .output()
            .map_err(io_error("start", &compiler))?;
        if !output.status.success() {
            if to.is_dir() {
                return Ok(()); // another build was first and moved the cache
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io_error("use", &compiler)(std::io::Error::other(said)));
        }
    }
    match pytheas_durable::move_dir(&cache, to) {
        // Another build was first.
        Err(_) if to.is_dir() => Ok(()),
        result => result.map_err(io_error("make", to)),
    }
}

/// As one word of a shell script.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_the_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
