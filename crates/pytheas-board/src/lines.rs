//! `lines.json` of a release: leads tracebacks of a board back to the sources it was built from.
//!
//! ```json
//! {"format": 1, "sources": {"node/main.py": "src/node/main.py"}, "maps": {}}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mpy::{self, LineMap};

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

    /// The table in `bytes`; none when it is none, or a newer format's.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let table: Self = serde_json::from_slice(bytes).ok()?;
        (table.format == 1).then_some(table)
    }

    /// `text` with the frames of its tracebacks led back: files get the names of their sources, and
    /// frames without a true line (`optimize = 3`) the lines they can be on. All else stays as it is.
    pub fn map_traceback(&self, text: &str) -> String {
        let with_lines = mpy::map_traceback(&self.maps, text);
        let mut mapped = String::with_capacity(with_lines.len() + 64);
        for line in with_lines.split_inclusive('\n') {
            let named = line.split_once("File \"").and_then(|(before, rest)| {
                let (file, rest) = rest.split_once("\", line ")?;
                let source = self.sources.get(file)?;
                Some(format!("{before}File \"{source}\", line {rest}"))
            });
            mapped.push_str(named.as_deref().unwrap_or(line));
        }
        mapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> LinesJson {
        LinesJson::parse(br#"{"format": 1, "sources": {"node/main.py": "src/node/main.py"}}"#)
            .unwrap()
    }

    #[test]
    fn frames_get_the_names_of_their_sources() {
        let text = "12:00 Traceback (most recent call last):\r\n  File \"node/main.py\", line 4, in get\r\n  File \"asyncio/core.py\", line 1, in run\nValueError: File \"x";
        assert_eq!(
            table().map_traceback(text),
            text.replace("\"node/main.py", "\"src/node/main.py")
        );
        assert_eq!(LinesJson::parse(br#"{"format": 2, "sources": {}}"#), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_mapped(text in "(File \"|node/main.py|\", line |1|, in |run|\n|x){0,20}") {
            let _ = table().map_traceback(&text);
        }
    }
}
