//! `lines.json`: leads tracebacks of a board back to the sources the release was built from.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use super::error::MicroPythonError;

/// The table's file in a built tree.
pub const LINES_FILE: &str = "lines.json";

/// The content of `lines.json` (format 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesJson {
    /// Format: 1.
    pub format: u32,
    /// Whether the modules have no line numbers (`optimize = 3`).
    pub stripped: bool,
    /// By the name that tracebacks show.
    pub modules: BTreeMap<String, ModuleLines>,
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleLines {
    /// Its source: of the app the path in the project.
    pub source: String,
    /// The package that it is of; none for the app's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Functions: the name that tracebacks show, the whole name, first and last line.
    pub functions: Vec<(String, String, u32, u32)>,
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
        let table: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if table.format == 1 {
            Ok(table)
        } else {
            Err(wrong(format!("it has format {}, this pytheas reads 1", table.format)))
        }
    }

    fn module(&self, file: &str) -> Option<&ModuleLines> {
        let plain = file.trim_start_matches('/');
        self.modules.get(plain).or_else(|| {
            // Mounted somewhere: `/app/node/main.py`.
            plain
                .split_once('/')
                .and_then(|(_, inside)| self.modules.get(inside))
        })
    }
}

/// `text` with the frames of its tracebacks led back to their sources; everything else, and frames
/// of other files, stay as they are.
///
/// A frame with a line number gets its source's path. One without (`optimize = 3`) gets the lines of
/// the functions that have its name.
pub fn map_traceback(text: &str, lines: &LinesJson) -> String {
    let mut mapped = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let plain = line.trim_end_matches(['\n', '\r']);
        match frame(plain).and_then(|frame| Some((lines.module(frame.file)?, frame))) {
            Some((module, frame)) => {
                mapped.push_str(&shown(&frame, module, lines.stripped));
                mapped.push_str(&line[plain.len()..]);
            }
            None => mapped.push_str(line),
        }
    }
    mapped
}

struct Frame<'a> {
    before: &'a str,
    file: &'a str,
    line: &'a str,
    function: Option<&'a str>,
}

/// `  File "node/main.py", line 1, in run`, with anything before it (a log's time).
fn frame(text: &str) -> Option<Frame<'_>> {
    let at = text.find("File \"")?;
    let (before, rest) = text.split_at(at);
    let (file, rest) = rest.strip_prefix("File \"")?.split_once("\", line ")?;
    let (line, function) = match rest.split_once(", in ") {
        Some((line, function)) => (line, Some(function)),
        None => (rest, None),
    };
    line.bytes().all(|byte| byte.is_ascii_digit()).then_some(Frame {
        before,
        file,
        line,
        function,
    })
}

fn shown(frame: &Frame<'_>, module: &ModuleLines, stripped: bool) -> String {
    let Frame {
        before, function, ..
    } = frame;
    let source = match &module.package {
        Some(package) => format!("{} of {package}", module.source),
        None => module.source.clone(),
    };
    let own = |function: &str| -> Vec<&(String, String, u32, u32)> {
        module
            .functions
            .iter()
            .filter(|(name, ..)| name == function)
            .collect()
    };
    let Some(function) = function else {
        // The frame of a syntax error: its line is true.
        return format!("{before}File \"{source}\", line {}", frame.line);
    };
    if !stripped {
        let line: u32 = frame.line.parse().unwrap_or(0);
        let whole = own(function)
            .into_iter()
            .filter(|(_, _, first, last)| (*first..=*last).contains(&line))
            .map(|(_, whole, ..)| whole.as_str())
            .next_back();
        let name = whole.unwrap_or(function);
        return format!("{before}File \"{source}\", line {line}, in {name}");
    }
    let places: Vec<String> = own(function)
        .iter()
        .map(|(_, whole, first, last)| match first == last {
            true => format!("line {first}, in {whole}"),
            false => format!("lines {first}-{last}, in {whole}"),
        })
        .collect();
    if places.is_empty() {
        return format!("{before}File \"{source}\", in {function}");
    }
    format!("{before}File \"{source}\", {}", places.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(stripped: bool) -> LinesJson {
        let f = |name: &str, whole: &str, first, last| (name.to_owned(), whole.to_owned(), first, last);
        LinesJson {
            format: 1,
            stripped,
            modules: BTreeMap::from([
                (
                    "node/main.py".to_owned(),
                    ModuleLines {
                        source: "src/node/main.py".to_owned(),
                        package: None,
                        functions: vec![f("run", "run", 10, 20), f("get", "A.get", 3, 5), f("get", "B.get", 7, 7)],
                    },
                ),
                (
                    "microdot/microdot.py".to_owned(),
                    ModuleLines {
                        source: "microdot/microdot.py".to_owned(),
                        package: Some("microdot 2.7.0".to_owned()),
                        functions: vec![f("<lambda>", "App.<lambda>", 99, 99)],
                    },
                ),
            ]),
        }
    }

    const TEXT: &str = "boot\r\n12:00 Traceback (most recent call last):\r\n  File \"node/main.py\", line 1, in <module>\r\n  File \"/app/node/main.py\", line 1, in run\n  File \"node/main.py\", line 1, in get\n  File \"microdot/microdot.py\", line 1, in <lambda>\n  File \"asyncio/core.py\", line 1, in run\nValueError: File \"x";

    #[test]
    fn frames_without_lines_are_led_back_by_their_function() {
        insta::assert_snapshot!(map_traceback(TEXT, &table(true)).replace('\r', ""), @r#"
        boot
        12:00 Traceback (most recent call last):
          File "src/node/main.py", in <module>
          File "src/node/main.py", lines 10-20, in run
          File "src/node/main.py", lines 3-5, in A.get or line 7, in B.get
          File "microdot/microdot.py of microdot 2.7.0", line 99, in App.<lambda>
          File "asyncio/core.py", line 1, in run
        ValueError: File "x
        "#);
    }

    #[test]
    fn frames_with_lines_keep_them() {
        let text = "  File \"node/main.py\", line 4, in get\n  File \"node/main.py\", line 9\n";
        assert_eq!(
            map_traceback(text, &table(false)),
            "  File \"src/node/main.py\", line 4, in A.get\n  File \"src/node/main.py\", line 9\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_mapped(text in "(File \"|node/main.py|\", line |1|, in |run|\n|x){0,20}") {
            let _ = map_traceback(&text, &table(true));
        }
    }
}
