//! The app as it is built into firmware: `manifest.py` and the modules it names, for MicroPython's
//! own build (`tools/makemanifest.py`).

use std::path::Path;

use super::error::{MicroPythonError, io_error};
use crate::scratch;

/// Writes `manifest.py` and `frozen/` with `modules` (path on the board, source or `.mpy`).
pub(super) fn write<'a>(
    dir: &Path,
    modules: impl Iterator<Item = (&'a str, &'a [u8])>,
    optimize: u8,
    title: &str,
) -> Result<(), MicroPythonError> {
    for (path, bytes) in modules {
        let file = dir.join("frozen").join(path);
        scratch::write(&file, bytes, scratch::Kind::Data).map_err(io_error("write", &file))?;
    }
    let text = format!(
        "# Written by pytheas: {title}, to be built into firmware.\n\
         # In a manifest of yours: include the port's own, then this one, and give that to\n\
         # `make FROZEN_MANIFEST=…`:\n\
         #     include(\"$(PORT_DIR)/boards/manifest.py\")\n\
         #     include(\"…/manifest.py\")\n\
         freeze(\"frozen\", opt={optimize})\n"
    );
    let file = dir.join("manifest.py");
    scratch::write(&file, text.as_bytes(), scratch::Kind::Data).map_err(io_error("write", &file))
}
