//! Tracebacks of stripped code, mapped back to lines of source.
//!
//! `mpy-cross -O3` (or `-X no-source-lines`) leaves the lines out: a board then says `line 1` for
//! everything, but still names file and function. The same source compiled with `-O2` has the same code
//! with lines, so its functions' ranges, and the lines on which they call each other, narrow a
//! traceback down: each frame but the last one called the function of the next.

use std::collections::{BTreeMap, BTreeSet};

use miette::Diagnostic;
use serde::{Deserialize, Serialize};

use super::{
    Mpy,
    code::Code,
    opcode::{self, Reference},
};

/// Where the functions of one module stand in its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineMap {
    /// The source file, as tracebacks name it.
    pub source: String,
    /// The functions in the order of the code, the module's own code first.
    pub functions: Vec<FunctionLines>,
}

/// One function's place in its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionLines {
    /// Its name as tracebacks show it.
    pub name: String,
    /// Its name with those of the functions around it: `outer.inner`.
    pub path: String,
    /// The first line that has code.
    pub first: usize,
    /// The last line that has code.
    pub last: usize,
    /// The lines on which something of a name is called.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<String, BTreeSet<usize>>,
}

/// A file whose lines are not there, or are another program's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum LineMapError {
    /// No lines in the file that should have them.
    #[error("`{source_file}` was compiled without lines")]
    #[diagnostic(
        code(pytheas::board::no_lines),
        help("compile it a second time with `mpy-cross -O2`, only for the map")
    )]
    NoLines {
        /// The source file.
        source_file: String,
    },
    /// The two files have different code.
    #[error("the code with lines of `{source_file}` is not the code that is shipped")]
    #[diagnostic(
        code(pytheas::board::other_code),
        help(
            "compile both from the same source with the same mpy-cross and target, the one with `-O2`"
        )
    )]
    OtherCode {
        /// The source file.
        source_file: String,
    },
}

impl LineMap {
    /// The map of a file that has lines.
    ///
    /// # Errors
    /// [`LineMapError::NoLines`]
    pub fn of(mpy: &Mpy<'_>) -> Result<Self, LineMapError> {
        let walk = mpy.root.walk();
        let has_lines = |code: &Code<'_>| {
            let prelude = code.prelude.as_ref();
            prelude.is_some_and(super::Prelude::has_lines)
        };
        // A module of one line needs no table: everything is on line 1.
        let long = walk.iter().any(|(_, code)| code.bytecode().len() > 31);
        if long && !walk.iter().any(|(_, code)| has_lines(code)) {
            return Err(LineMapError::NoLines {
                source_file: mpy.source_file(),
            });
        }
        let mut paths: Vec<(Vec<usize>, String)> = Vec::new();
        let mut functions = Vec::new();
        for (place, code) in walk {
            let name = mpy.function_name(code, &place);
            paths.retain(|(outer, _)| place.starts_with(outer));
            let around = paths.last().filter(|(outer, _)| !outer.is_empty());
            let path = around.map_or_else(|| name.clone(), |(_, outer)| format!("{outer}.{name}"));
            paths.push((place, path.clone()));
            if code.prelude.is_some() {
                functions.push(function(mpy, code, name, path));
            }
        }
        Ok(Self {
            source: mpy.source_file(),
            functions,
        })
    }

    /// The map of stripped code by its twin with lines.
    ///
    /// # Errors
    /// [`LineMapError`] when the twin has no lines or other code.
    pub fn for_stripped(stripped: &Mpy<'_>, twin: &Mpy<'_>) -> Result<Self, LineMapError> {
        let (ours, theirs) = (stripped.root.walk(), twin.root.walk());
        let same = ours.len() == theirs.len()
            && ours
                .iter()
                .zip(&theirs)
                .all(|((place, code), (other_place, other))| {
                    place == other_place
                        && code.kind == other.kind
                        && code.bytecode() == other.bytecode()
                        && mpy_names(stripped, code) == mpy_names(twin, other)
                });
        if !same {
            return Err(LineMapError::OtherCode {
                source_file: stripped.source_file(),
            });
        }
        Self::of(twin)
    }

    /// The lines a frame may be on: those where functions of this name call `next`, the function of the
    /// frame below, if any does; else their whole ranges.
    pub fn find(&self, function: &str, next: Option<&str>) -> Vec<(usize, usize)> {
        let named: Vec<_> = self
            .functions
            .iter()
            .filter(|known| known.name == function)
            .collect();
        if let Some(next) = next {
            let calls = named.iter().filter_map(|known| known.calls.get(next));
            let lines: BTreeSet<_> = calls.flatten().copied().collect();
            if !lines.is_empty() {
                return lines.into_iter().map(|line| (line, line)).collect();
            }
        }
        named
            .iter()
            .map(|known| (known.first, known.last))
            .collect()
    }
}

fn mpy_names(mpy: &Mpy<'_>, code: &Code<'_>) -> Vec<String> {
    let names = code.prelude.iter().flat_map(|prelude| &prelude.names);
    names.map(|name| mpy.text(*name)).collect()
}

fn function(mpy: &Mpy<'_>, code: &Code<'_>, name: String, path: String) -> FunctionLines {
    let mut lines = FunctionLines {
        name,
        path,
        first: 1,
        last: 1,
        calls: BTreeMap::new(),
    };
    let Some(prelude) = &code.prelude else {
        return lines;
    };
    lines.first = prelude.line(0);
    lines.last = lines.first;
    // Names that were loaded and not yet called, innermost last.
    let mut loaded: Vec<String> = Vec::new();
    for instruction in code.instructions() {
        let line = prelude.line(instruction.offset);
        lines.last = lines.last.max(line);
        match (instruction.opcode, instruction.reference()) {
            (
                opcode::LOAD_NAME
                | opcode::LOAD_GLOBAL
                | opcode::LOAD_ATTR
                | opcode::LOAD_METHOD
                | opcode::LOAD_SUPER_METHOD,
                Reference::Qstr(name),
            ) => loaded.push(mpy.text(name)),
            (
                opcode::CALL_FUNCTION
                | opcode::CALL_FUNCTION_VAR_KW
                | opcode::CALL_METHOD
                | opcode::CALL_METHOD_VAR_KW,
                _,
            ) => {
                // Which of them is called is not known without types; a traceback shows the call's
                // line, and the names loaded for it are on it or before it.
                for name in &loaded {
                    lines.calls.entry(name.clone()).or_default().insert(line);
                }
            }
            (0x59 | 0x16 | 0x17 | 0x26 | 0x27 | 0xc0..=0xcf | 0x63, _) => loaded.clear(),
            _ => {}
        }
        if loaded.len() > 64 {
            loaded.clear();
        }
    }
    lines
}

/// A traceback with its lines put in: `line 1` of a frame whose source is in `maps` (by the name that
/// tracebacks have for it) becomes `line 12`, or `line 12-20` when only the function is known.
pub fn map_traceback(maps: &BTreeMap<String, LineMap>, text: &str) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let frames: Vec<_> = lines.iter().map(|line| Frame::parse(line)).collect();
    let mut out = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        let mapped = frames[at].as_ref().and_then(|frame| {
            let map = maps.get(frame.file)?;
            let next = frames.get(at + 1)?.as_ref().map(|next| next.function);
            let found = map.find(frame.function, next);
            let shown: Vec<_> = found
                .iter()
                .map(|(first, last)| range(*first, *last))
                .collect();
            (frame.line == "1" && !shown.is_empty()).then(|| frame.with_line(&shown.join(" or ")))
        });
        out.push(mapped.unwrap_or_else(|| (*line).to_owned()));
    }
    out.join("\n")
}

fn range(first: usize, last: usize) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// `  File "main.py", line 1, in run`
struct Frame<'a> {
    before: &'a str,
    file: &'a str,
    line: &'a str,
    function: &'a str,
    end: &'a str,
}

impl<'a> Frame<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (before, rest) = text.split_once("File \"")?;
        let (file, rest) = rest.split_once("\", line ")?;
        let (line, function) = rest.split_once(", in ")?;
        let name = function.trim_end();
        Some(Self {
            before,
            file,
            line,
            function: name,
            end: &function[name.len()..],
        })
    }

    fn with_line(&self, line: &str) -> String {
        let Self {
            before,
            file,
            function,
            end,
            ..
        } = self;
        format!("{before}File \"{file}\", line {line}, in {function}{end}")
    }
}
