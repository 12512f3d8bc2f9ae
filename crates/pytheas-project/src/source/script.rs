//! Scripts with inline metadata (PEP 723): finds the block, reads what it says.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use serde::Deserialize;

use super::InputError;
use crate::{
    manifest::{Tool, explain},
    python::PythonRequest,
};

/// The `script` block of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) dependencies: Vec<String>,
    pub(crate) requires_python: Option<PythonRequest>,
    #[serde(default)]
    pub(crate) tool: Tool,
}

/// A script whose metadata cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ScriptError {
    /// Two blocks of one type.
    #[error("`{}` has a second `# /// script` block in line {second}; the first is in line {first}", path.display())]
    #[diagnostic(
        code(pytheas::script::twice),
        help("PEP 723 allows one; put all dependencies into it")
    )]
    Twice {
        /// The script.
        path: PathBuf,
        /// Line of the first block.
        first: usize,
        /// Line of the second block.
        second: usize,
    },
    /// A block without an end.
    #[error("the `# /// script` block in line {line} of `{}` is never closed", path.display())]
    #[diagnostic(
        code(pytheas::script::unclosed),
        help("end it with a line `# ///`; each line between must be `#` or start with `# `")
    )]
    Unclosed {
        /// The script.
        path: PathBuf,
        /// Line of its start.
        line: usize,
    },
}

/// A block: its type, its content, and the lines (from 1) of its start and of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) kind: String,
    pub(crate) content: String,
    pub(crate) line: usize,
}

/// What was found in a file: whole blocks, and starts of `script` blocks that have no end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) whole: Vec<Block>,
    pub(crate) unclosed: Vec<usize>,
}

/// The type in `# /// TYPE`.
fn start(line: &str) -> Option<&str> {
    let kind = line.strip_prefix("# /// ")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!kind.is_empty() && kind.chars().all(allowed)).then_some(kind)
}

/// The blocks of a file, as the reference expression of PEP 723 finds them:
/// `(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$`.
/// Line ends are one character here; callers turn `\r\n` into it.
pub(crate) fn blocks(text: &str) -> Blocks {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut found = Blocks::default();
    let mut at = 0;
    while at < lines.len() {
        let Some(kind) = start(lines[at]) else {
            at += 1;
            continue;
        };
        // The expression is greedy: the last `# ///` of the run of comments ends the block.
        let run = lines[at + 1..]
            .iter()
            .take_while(|line| **line == "#" || line.starts_with("# "))
            .count();
        let end = (at + 2..=at + run).rev().find(|end| lines[*end] == "# ///");
        match end {
            Some(end) => {
                let content = lines[at + 1..end].iter().map(|line| {
                    let line = line.strip_prefix("# ").unwrap_or(&line[1..]);
                    format!("{line}\n")
                });
                found.whole.push(Block {
                    kind: kind.to_owned(),
                    content: content.collect(),
                    line: at + 1,
                });
                at = end + 1;
            }
            None => {
                if kind == "script" {
                    found.unclosed.push(at + 1);
                }
                at += 1;
            }
        }
    }
    found
}

/// The metadata of the script `path`; none when it has no block.
pub(crate) fn read(path: &Path) -> Result<Option<Metadata>, InputError> {
    let text = super::text(path)?.replace("\r\n", "\n");
    let found = blocks(&text);
    // A start inside a whole block is its content.
    if let Some(line) = found.unclosed.first() {
        return Err(ScriptError::Unclosed {
            path: path.to_owned(),
            line: *line,
        }
        .into());
    }
    let mut scripts = found.whole.iter().filter(|block| block.kind == "script");
    let Some(block) = scripts.next() else {
        return Ok(None);
    };
    if let Some(second) = scripts.next() {
        return Err(ScriptError::Twice {
            path: path.to_owned(),
            first: block.line,
            second: second.line,
        }
        .into());
    }
    // Empty lines before it, so that errors name the line in the script.
    let padded = "\n".repeat(block.line) + &block.content;
    toml::from_str(&padded)
        .map(Some)
        .map_err(|error| explain(path, &padded, &error).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_specification_is_read() {
        let text = "#!/usr/bin/env python\n# /// script\n# requires-python = \">=3.11\"\n# dependencies = [\n#   \"requests<3\",\n#\n#   \"rich\",\n# ]\n# ///\n\nimport requests\n";
        let found = blocks(text);
        assert_eq!(found.unclosed, [0usize; 0]);
        let [block] = found.whole.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((block.kind.as_str(), block.line), ("script", 2));
        let metadata: Metadata = toml::from_str(&block.content).unwrap();
        assert_eq!(metadata.dependencies, ["requests<3", "rich"]);
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => Just("# ///".to_owned()),
            3 => Just("# /// script".to_owned()),
            1 => Just("# /// other-1".to_owned()),
            1 => Just("# /// ".to_owned()),
            2 => Just("#".to_owned()),
            1 => Just("#x".to_owned()),
            1 => Just(String::new()),
            1 => Just(" # ///".to_owned()),
            2 => "# [ -~é/]{0,6}",
            1 => "[ -~]{0,6}",
        ]
    }

    proptest! {
        #[test]
        fn blocks_are_those_of_the_reference_expression(lines in prop::collection::vec(line(), 0..14)) {
            let text = lines.join("\n");
            let reference = regex::Regex::new(
                r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$",
            ).unwrap();
            let expected: Vec<(String, String)> = reference.captures_iter(&text).map(|found| {
                let content: String = found["content"].split_inclusive('\n').map(|line| {
                    line.strip_prefix("# ").unwrap_or(&line[1..])
                }).collect();
                (found["type"].to_owned(), content)
            }).collect();
            let found: Vec<(String, String)> =
                blocks(&text).whole.into_iter().map(|block| (block.kind, block.content)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
