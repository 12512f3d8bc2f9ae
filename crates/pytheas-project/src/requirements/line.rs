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

/// A line that asks for a repository as `-e` as one that asks for it plainly: nothing that is locked or
/// built has a checkout to edit. Other lines as they are.
pub(crate) fn without_checkout(text: &str) -> &str {
    let Some(value) = text
        .strip_prefix("--editable")
        .or_else(|| text.strip_prefix("-e"))
        .filter(|rest| rest.starts_with([' ', '=', '\t']))
    else {
        return text;
    };
    let value = value.trim_start().trim_start_matches('=').trim();
    let value = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value);
    if repository_kind(value).is_some() {
        value
    } else {
        text
    }
}

/// The version control that a requirement names, such as `git` of `git+https://…`.
pub(super) fn repository_kind(text: &str) -> Option<&'static str> {
    let address = text.split_once('@').map_or("", |(_, rest)| rest.trim());
    ["git", "hg", "svn", "bzr"].into_iter().find(|kind| {
        [text, address].iter().any(|text| {
            text.strip_prefix(kind)
                .is_some_and(|rest| rest.starts_with('+') && rest.contains("://"))
        })
    })
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

    #[test]
    fn a_repository_is_asked_for_plainly() {
        for (text, expected) in [
            (
                "-e git+https://h.example/r@v1#egg=r",
                "git+https://h.example/r@v1#egg=r",
            ),
            (
                "--editable=git+ssh://git@h.example/r",
                "git+ssh://git@h.example/r",
            ),
            (
                "-e 'r @ git+https://h.example/r'",
                "r @ git+https://h.example/r",
            ),
            ("-e \"git+https://h.example/r\"", "git+https://h.example/r"),
            ("-e ./r", "-e ./r"),
            ("-e file:///r", "-e file:///r"),
            ("-e git+", "-e git+"),
            (
                "--editables git+https://h.example/r",
                "--editables git+https://h.example/r",
            ),
            ("git+https://h.example/r", "git+https://h.example/r"),
        ] {
            assert_eq!(without_checkout(text), expected);
        }
        assert_eq!(repository_kind("r @ hg+https://h.example/r@9"), Some("hg"));
        assert_eq!(repository_kind("github==1"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\\n\\\\#é]{0,200}") {
            for (_, line) in logical_lines(&text) {
                parse_line(&line);
                parse_line(without_checkout(&line));
            }
        }
    }
}
