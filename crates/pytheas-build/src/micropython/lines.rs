//! `lines.json`: leads tracebacks of a board back to the sources the release was built from.

use std::{collections::BTreeMap, fs, path::Path};

use pytheas_board::mpy::{self, LineMap};
use serde::{Deserialize, Serialize};

use super::error::MicroPythonError;

/// The table's file in a built tree.
pub const LINES_FILE: &str = "lines.json";

/// The content of `lines.json` (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesJson {
    /// Format: 1.
    pub format: u32,
    /// Sources by the names that tracebacks show: of the app the path in the project, else with the
    /// package.
    pub sources: BTreeMap<String, String>,
    /// Lines of modules that were compiled without (`optimize = 3`), by the same names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub maps: BTreeMap<String, LineMap>,
}

impl LinesJson {
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a table has only string keys");
        bytes.push(b'\n');
        bytes
    }

    /// The table of the release in `dir`.
    ///
    /// # Errors
    /// When there is none, or it is none.
    pub fn read(dir: &Path) -> Result<Self, MicroPythonError> {
        let file = dir.join(LINES_FILE);
        let wrong = |why: String| MicroPythonError::Tables {
            file: file.clone(),
            why,
        };
        let bytes = fs::read(&file).map_err(|error| wrong(error.to_string()))?;
        let table: Self =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if table.format == 1 {
            Ok(table)
        } else {
            let why = format!("it has format {}, this pytheas reads 1", table.format);
            Err(wrong(why))
        }
    }
}

/// `text` with the frames of its tracebacks led back: files get the names of their sources, and
/// frames without a true line (`optimize = 3`) the lines they can be on. All else stays as it is.
pub fn map_traceback(text: &str, lines: &LinesJson) -> String {
    let with_lines = mpy::map_traceback(&lines.maps, text);
    let mut mapped = String::with_capacity(with_lines.len() + 64);
    for line in with_lines.split_inclusive('\n') {
        let named = line.split_once("File \"").and_then(|(before, rest)| {
            let (file, rest) = rest.split_once("\", line ")?;
            let source = lines.sources.get(file)?;
            Some(format!("{before}File \"{source}\", line {rest}"))
        });
        mapped.push_str(named.as_deref().unwrap_or(line));
    }
    mapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_get_the_names_of_their_sources() {
        let lines = LinesJson {
            format: 1,
            sources: BTreeMap::from([("node/main.py".to_owned(), "src/node/main.py".to_owned())]),
            maps: BTreeMap::new(),
        };
        let text = "12:00 Traceback (most recent call last):\r\n  File \"node/main.py\", line 4, in get\r\n  File \"asyncio/core.py\", line 1, in run\nValueError: File \"x";
        assert_eq!(
            map_traceback(text, &lines),
            text.replace("\"node/main.py", "\"src/node/main.py")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_mapped(text in "(File \"|node/main.py|\", line |1|, in |run|\n|x){0,20}") {
            let lines = LinesJson {
                format: 1,
                sources: BTreeMap::from([("node/main.py".to_owned(), "x".to_owned())]),
                maps: BTreeMap::new(),
            };
            let _ = map_traceback(&text, &lines);
        }
    }
}
