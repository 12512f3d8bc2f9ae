//! `lines.json` in a built tree: the table that leads a board's tracebacks back
//! ([`pytheas_board::lines`]), made and read.

use std::{collections::BTreeMap, fs, path::Path};

use pytheas_board::{
    lines::LinesJson,
    mpy::{LineMap, Mpy},
};

use super::{candidates::Candidates, error::MicroPythonError, mip, reach::Reached};

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

/// The table for tracebacks.
pub(super) fn table(
    candidates: &Candidates,
    reached: &Reached,
    optimize: u8,
    lock: &Option<mip::MipLock>,
) -> Result<LinesJson, MicroPythonError> {
    let mut table = LinesJson {
        format: 1,
        sources: BTreeMap::new(),
        maps: BTreeMap::new(),
    };
    for (at, compiled) in &reached.compiled {
        let candidate = &candidates.all[*at];
        if !candidate.is_source() {
            continue;
        }
        let name = candidate.path.to_string();
        let source = if candidate.is_app() {
            candidate.source.clone()
        } else {
            let version = lock
                .as_ref()
                .and_then(|lock| lock.package(&candidate.from))
                .map(|package| package.version.clone())
                .filter(|version| !version.is_empty())
                .map(|version| format!(" {version}"))
                .unwrap_or_default();
            format!("{} of {}{version}", candidate.source, candidate.from)
        };
        table.sources.insert(name.clone(), source);
        if optimize == 3
            && let (Ok(stripped), Some(Ok(twin))) = (
                Mpy::parse(&compiled.mpy),
                compiled.twin.as_deref().map(Mpy::parse),
            )
            && let Ok(map) = LineMap::for_stripped(&stripped, &twin)
        {
            table.maps.insert(name, map);
        }
    }
    Ok(table)
}
