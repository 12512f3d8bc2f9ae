//! The one spelling that each requirement has, without credentials.

use std::str::FromStr;

use pep508_rs::{Requirement, VerbatimUrl};

pub(super) fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text with `user:password@` taken out of each address.
pub(crate) fn without_credentials(text: &str) -> String {
    let word = |word: &str| {
        let Some((scheme, rest)) = word.split_once("://") else {
            return word.to_owned();
        };
        let (host, path) = rest
            .split_once('/')
            .map_or((rest, None), |(host, path)| (host, Some(path)));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        match path {
            Some(path) => format!("{scheme}://{host}/{path}"),
            None => format!("{scheme}://{host}"),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The text as a PEP 508 requirement; none when it is something else (a path, an address).
pub(crate) fn parse(text: &str) -> Option<Requirement<VerbatimUrl>> {
    // pep508_rs 0.9 panics on names that end with `-`, `_` or `.`: those are not given to it.
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let names_end_well = without_wildcards(text)
        .split(|c: char| !is_name(c))
        .all(|word| !word.ends_with(['-', '_', '.']));
    if !text.is_ascii() || !names_end_well {
        return None;
    }
    Requirement::from_str(text).ok()
}

/// `==24.*` as `==24`: a version may end like that, a name may not.
fn without_wildcards(text: &str) -> String {
    let is_version = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '!' | '+');
    let mut result = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once(".*") {
        result.push_str(head);
        let operator = head.trim_end_matches(is_version);
        let operator = operator.trim_end_matches(['\'', '"']).trim_end();
        if !operator.ends_with('=') {
            result.push_str(".*");
        }
        rest = tail;
    }
    result.push_str(rest);
    result
}

/// One spelling for each PEP 508 requirement; what is none (a path) stays as it is.
pub(crate) fn normalise(text: &str) -> String {
    // Parsing puts variables' values into addresses: they may be secrets.
    match parse(text).filter(|_| !text.contains("${")) {
        Some(requirement) => without_credentials(&requirement.to_string()),
        None => without_credentials(&squeezed(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_may_end_with_a_wildcard_and_names_may_not() {
        for (text, expected) in [
            ("black==24.*", true),
            ("black>=23,!=24.1.*", true),
            ("black == 24.* ; python_version == '3.*'", true),
            ("black; extra == '1.*'", true),
            ("a.*", false),
            ("a1.*", false),
            ("a.", false),
            ("a[b.*]==1", false),
        ] {
            assert_eq!(parse(text).is_some(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_requirement_is_read_without_a_panic(text in "[a-z]{0,3}[-_.\\[\\]a-z0-9 ,;@<>=~!'()*é/:]{0,40}") {
            parse(&text);
        }
    }
}
