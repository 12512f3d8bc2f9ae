//! One line of a requirements file: another file, an option, or a requirement with its hashes.

use std::path::Path;

use super::spelling::{normalise, squeezed};

/// What is asked for by a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Requirement,
    Constraint,
}

/// What a line says.
pub(super) enum Line {
    File(Kind, String),
    /// An option, perhaps with credentials.
    Option(String),
    /// A requirement, and the hashes its files may have.
    Requirement(String, Vec<String>),
}

pub(super) fn parse_line(text: &str) -> Line {
    if let Some(name) = option_value(text, "-r", "--requirement") {
        return Line::File(Kind::Requirement, name);
    }
    if let Some(name) = option_value(text, "-c", "--constraint") {
        return Line::File(Kind::Constraint, name);
    }
    if option_value(text, "-e", "--editable").is_none() && text.starts_with('-') {
        return Line::Option(squeezed(text));
    }
    // Options of one requirement (`--hash=…`) say how it is checked, not what is asked for.
    let mut parts = text.split(" --");
    let requirement = parts.next().unwrap_or(text).trim();
    let hash = |option: &str| {
        let value = option.strip_prefix("hash")?.trim_start_matches(['=', ' ']);
        Some(value.trim().to_ascii_lowercase())
    };
    Line::Requirement(normalise(requirement), parts.filter_map(hash).collect())
}

/// The requirement of a line, without its options.
pub(super) fn requirement_of(line: &str) -> String {
    normalise(line.split(" --").next().unwrap_or(line).trim())
}

fn option_value(text: &str, short: &str, long: &str) -> Option<String> {
    let rest = text
        .strip_prefix(long)
        .or_else(|| text.strip_prefix(short))?;
    let value = rest.trim_start().strip_prefix('=').unwrap_or(rest).trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The index that an option names.
pub(crate) fn index_address(option: &str) -> Option<String> {
    ["--index-url", "--extra-index-url"]
        .iter()
        .find_map(|name| option_value(option, name, "-i"))
}

/// `--find-links FOLDER` is relative to the file that says so.
pub(super) fn with_folder(option: &str, dir: &Path) -> String {
    match option_value(option, "-f", "--find-links") {
        Some(value) if !value.contains("://") => {
            format!("--find-links {}", dir.join(value).display())
        }
        _ => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::content::logical_lines, *};

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\\n\\\\#é]{0,200}") {
            for (_, line) in logical_lines(&text) {
                parse_line(&line);
            }
        }
    }
}
