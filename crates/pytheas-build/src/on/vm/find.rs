//! Where MicroPython is: `PYTHEAS_MICROPYTHON` (a folder with `unix/micropython`, `qemu/firmware.elf`,
//! `wasm/node_modules`), else `micropython` on `PATH`.

use std::path::{Path, PathBuf};

use pytheas_project::Environment;

use super::super::{error::OnError, place::Place};

const FOLDER: &str = "PYTHEAS_MICROPYTHON";
const WASM: &str =
    "wasm/node_modules/@micropython/micropython-webassembly-pyscript/micropython.mjs";

/// The port for this machine.
pub(in super::super) fn unix(
    place: &Place,
    given: Option<&Path>,
    environment: &Environment,
) -> Result<PathBuf, OnError> {
    if let Some(given) = given {
        return Ok(std::path::absolute(given).unwrap_or_else(|_| given.to_owned()));
    }
    if let Some(found) = in_folder("unix/micropython", environment) {
        return Ok(found);
    }
    program("micropython", place, environment)
}

/// The wasm port's module.
pub(super) fn wasm(place: &Place, environment: &Environment) -> Result<PathBuf, OnError> {
    in_folder(WASM, environment).ok_or_else(|| OnError::Missing {
        what: "MicroPython's wasm port".to_owned(),
        place: place.to_string(),
        help: "install it with `npm install --prefix DIR/wasm @micropython/micropython-webassembly-pyscript` and name DIR in `PYTHEAS_MICROPYTHON`",
    })
}

/// The emulated board's firmware.
pub(super) fn firmware(place: &Place, environment: &Environment) -> Result<PathBuf, OnError> {
    in_folder("qemu/firmware.elf", environment).ok_or_else(|| OnError::Missing {
        what: "a firmware for QEMU".to_owned(),
        place: place.to_string(),
        help: "name a folder with `qemu/firmware.elf` in `PYTHEAS_MICROPYTHON`; `cargo xtask micropython` in Pytheas' own sources makes one",
    })
}

/// A program on `PATH`.
pub(super) fn program(
    name: &'static str,
    place: &Place,
    environment: &Environment,
) -> Result<PathBuf, OnError> {
    let mut dirs = environment.search_path().into_iter();
    dirs.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()))
        .ok_or_else(|| OnError::Missing {
            what: format!("`{name}`"),
            place: place.to_string(),
            help: match name {
                "node" => "install Debian's package `nodejs` (`apt install nodejs`)",
                "qemu-system-arm" => {
                    "install Debian's package `qemu-system-arm` (`apt install qemu-system-arm`)"
                }
                _ => {
                    "install it (Debian 13: `apt install micropython`), name its program with `--on unix:PROGRAM`, or a folder that has `unix/micropython` in `PYTHEAS_MICROPYTHON`"
                }
            },
        })
}

fn in_folder(path: &str, environment: &Environment) -> Option<PathBuf> {
    let folder = environment.path(FOLDER)?;
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    Some(folder.join(path)).filter(|path| path.is_file())
}
