//! A distribution's core metadata (`METADATA`, core metadata specification 2.4): the headers that
//! say what it is, what it needs and under which licence it stands. Tolerant: a header that is
//! not understood is left out, since other people's packages are what they are.

/// The headers of a `METADATA` file, as far as they matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `Name`.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `Summary`.
    pub summary: Option<String>,
    /// `Requires-Dist`, as written.
    pub requires_dist: Vec<String>,
    /// `License-Expression` (PEP 639).
    pub license_expression: Option<String>,
    /// `License`: a name, or the whole text.
    pub license: Option<String>,
    /// `License-File` (PEP 639), as written.
    pub license_files: Vec<String>,
    /// `Classifier`s that begin with `License ::`, without that.
    pub license_classifiers: Vec<String>,
}

impl Metadata {
    /// Reads the headers; the description after the first empty line is not looked at.
    pub fn parse(text: &str) -> Self {
        let mut metadata = Self::default();
        for (name, value) in headers(text) {
            let value = value.trim().to_owned();
            if value.is_empty() || value == "UNKNOWN" {
                continue;
            }
            match name.to_ascii_lowercase().as_str() {
                "name" => metadata.name = value,
                "version" => metadata.version = value,
                "summary" => metadata.summary = Some(value),
                "requires-dist" => metadata.requires_dist.push(value),
                "license-expression" => metadata.license_expression = Some(value),
                "license" => metadata.license = Some(value),
                "license-file" => metadata.license_files.push(value),
                "classifier" => {
                    if let Some(rest) = value.strip_prefix("License ::") {
                        let rest = rest.trim();
                        let rest = rest.strip_prefix("OSI Approved ::").unwrap_or(rest);
                        if rest.trim() != "OSI Approved" {
                            metadata.license_classifiers.push(rest.trim().to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        metadata
    }
}

/// The headers of an e-mail-like text (RFC 822 as `METADATA` and `WHEEL` use it), in order; lines
/// that begin with a blank continue the one before.
pub(crate) fn headers(text: &str) -> Vec<(&str, String)> {
    let mut headers: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        // A line of blanks only goes on: an empty line within a folded licence text.
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = headers.last_mut() {
                value.push('\n');
                // setuptools marks the lines of a long licence text with a bar.
                value.push_str(line.trim().trim_start_matches('|').trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim(), value.trim().to_owned()));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_the_description_is_not() {
        let metadata = Metadata::parse(
            "Metadata-Version: 2.4\nName: Some.Package\nVersion: 1.0\n\
             License: Some text\n        |over lines\n        \n        and more\nLicense-Expression: MIT OR Apache-2.0\n\
             License-File: LICENSE\nLicense-File: LICENSE.vendored\n\
             Classifier: License :: OSI Approved :: MIT License\n\
             Classifier: License :: OSI Approved\n\
             Classifier: Topic :: Other\nRequires-Dist: idna>=2; extra == 'x'\nSummary: UNKNOWN\n\
             \nName: in the description\n",
        );
        assert_eq!(metadata.name, "Some.Package");
        assert_eq!(
            metadata.license.as_deref(),
            Some("Some text\nover lines\n\nand more")
        );
        assert_eq!(
            metadata.license_expression.as_deref(),
            Some("MIT OR Apache-2.0")
        );
        assert_eq!(metadata.license_files, ["LICENSE", "LICENSE.vendored"]);
        assert_eq!(metadata.license_classifiers, ["MIT License"]);
        assert_eq!(metadata.requires_dist, ["idna>=2; extra == 'x'"]);
        assert_eq!(metadata.summary, None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\PC\n\t ]{0,200}") {
            let _ = Metadata::parse(&text);
        }
    }
}
