//! A requirements file as text: its encoding, the variables in it, its logical lines.

use std::path::{Path, PathBuf};

use super::RequirementsError;
use crate::{manifest::ManifestError, source::InputError};

/// The file's text. Windows' tools write UTF-16 with its mark, which pip reads, too.
pub(super) fn text(
    path: &Path,
    from: Option<(PathBuf, usize)>,
) -> Result<String, RequirementsError> {
    let error = match crate::source::text(path) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    match error {
        InputError::File(ManifestError::Read { path, source }) => {
            Err(RequirementsError::Read { path, from, source })
        }
        other => match std::fs::read(path).ok().and_then(|bytes| utf16(&bytes)) {
            Some(text) => Ok(text),
            None => Err(RequirementsError::Input(Box::new(other))),
        },
    }
}

/// UTF-16 with a byte order mark as text.
fn utf16(bytes: &[u8]) -> Option<String> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let (units, rest) = bytes[2..].as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|pair| unit(*pair)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty())
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `${NAME}` (capitals, digits, `_`) as the variable's value; one that is not set stays, as in pip.
pub(super) fn expanded(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        result.push_str(before);
        match after
            .split_once('}')
            .filter(|(name, _)| is_variable(name))
            .and_then(|(name, after)| Some((variable(name)?, after)))
        {
            Some((value, after)) => {
                result.push_str(&value);
                rest = after;
            }
            None => {
                result.push_str("${");
                rest = after;
            }
        }
    }
    result + rest
}

pub(super) fn is_variable(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(allowed)
}

/// Lines without comments and with continuations joined, each with its number from 1.
pub(super) fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut result = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        // pip: a comment starts at the line's start or after white space.
        let comment = line
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|at| *at == 0 || line[..*at].ends_with(char::is_whitespace));
        let content = comment.map_or(line, |at| &line[..at]);
        if let (Some(continued), None) = (content.strip_suffix('\\'), comment) {
            joined.push_str(continued);
            open = Some((number, joined));
            continue;
        }
        joined.push_str(content);
        result.push((number, joined.trim().to_owned()));
    }
    result.extend(open.map(|(number, text)| (number, text.trim().to_owned())));
    result.retain(|(_, text)| !text.is_empty());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_stays() {
        let value = |name: &str| (name == "V").then(|| "1".to_owned());
        assert_eq!(expanded("a==${V}.${W}${v}${", &value), "a==1.${W}${v}${");
    }
}
