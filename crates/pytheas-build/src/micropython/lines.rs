//! `lines.json` in a built tree: the table that leads a board's tracebacks back
//! ([`pytheas_board::lines`]), read.

use std::{fs, path::Path};

use pytheas_board::lines::LinesJson;

use super::error::MicroPythonError;

/// The table's file in a built tree.
pub const LINES_FILE: &str = "lines.json";

/// The table of the release in `dir`.
///
/// # Errors
/// When there is none, or it is none.
pub fn read_lines(dir: &Path) -> Result<LinesJson, MicroPythonError> {
    let file = dir.join(LINES_FILE);
    let wrong = |why: String| MicroPythonError::Tables {
        file: file.clone(),
        why,
    };
    let bytes = fs::read(&file).map_err(|error| wrong(error.to_string()))?;
    LinesJson::parse(&bytes)
        .ok_or_else(|| wrong("it is no table of a format that is known".to_owned()))
}
