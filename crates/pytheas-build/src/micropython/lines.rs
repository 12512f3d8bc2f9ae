//! `lines.json` in a built tree; what is in it: [`pytheas_board::lines`].

use std::{fs, path::Path};

pub use pytheas_board::lines::LinesJson;

use super::error::MicroPythonError;

/// The table's file in a built tree.
pub const LINES_FILE: &str = "lines.json";

/// The table of the release in `dir`.
///
/// # Errors
/// When there is none, or it is none.
pub fn read_lines(dir: &Path) -> Result<LinesJson, MicroPythonError> {
    let file = dir.join(LINES_FILE);
    let bytes = fs::read(&file).map_err(|error| MicroPythonError::Tables {
        file: file.clone(),
        why: error.to_string(),
    })?;
    LinesJson::parse(&bytes).ok_or_else(|| MicroPythonError::Tables {
        file,
        why: "it is no table of format 1".to_owned(),
    })
}
