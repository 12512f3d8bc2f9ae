//! The app as it is built into firmware: `manifest.py` and the sources it names, for MicroPython's
//! own build (`FROZEN_MANIFEST=…/manifest.py`, `tools/makemanifest.py`).

use std::{collections::BTreeMap, path::Path};

use super::error::{MicroPythonError, io_error};
use crate::scratch;

/// One module: path on the board and source.
pub(super) struct Frozen<'a> {
    pub(super) path: &'a str,
    pub(super) bytes: &'a [u8],
}

/// Writes `manifest.py` and `frozen/` into `dir`; gives what cannot be frozen.
pub(super) fn write(
    dir: &Path,
    modules: &[Frozen<'_>],
    data: &[&str],
    optimize: u8,
    name: &str,
    version: &str,
) -> Result<Vec<String>, MicroPythonError> {
    let mut sources = BTreeMap::new();
    for module in modules {
        sources.insert(module.path, module.bytes);
    }
    for (path, bytes) in &sources {
        let file = dir.join("frozen").join(path);
        scratch::write(&file, bytes, scratch::Kind::Data).map_err(io_error("write", &file))?;
    }
    let text = format!(
        "# Written by pytheas: {name}, to be built into firmware with\n\
         # `make FROZEN_MANIFEST=…/manifest.py`. The port's own manifest is included first.\n\
         include(\"$(PORT_DIR)/boards/manifest.py\") if False else None\n\
         metadata(version=\"{version}\")\n\
         freeze(\"frozen\", opt={optimize})\n"
    );
    let file = dir.join("manifest.py");
    scratch::write(&file, text.as_bytes(), scratch::Kind::Data)
        .map_err(io_error("write", &file))?;
    Ok(data.iter().map(|path| (*path).to_owned()).collect())
}
