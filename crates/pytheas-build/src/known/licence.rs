//! Under which licence a distribution stands, and whether a policy allows it.
//!
//! Sources, in this order: `License-Expression` (PEP 639), the `License` header, classifiers, the
//! text of a licence file. Each answer says which source it is from, since they are worth less in
//! that order.

use serde::Serialize;

use super::{metadata::Metadata, spdx, spdx::Expression};

/// What a licence was told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LicenceSource {
    /// `License-Expression` (PEP 639).
    Expression,
    /// The `License` header.
    Header,
    /// Classifiers.
    Classifier,
    /// The text of a licence file.
    Text,
    /// Nothing tells it, or what is written is no licence we know.
    Unknown,
}

impl LicenceSource {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expression => "expression",
            Self::Header => "header",
            Self::Classifier => "classifier",
            Self::Text => "text",
            Self::Unknown => "unknown",
        }
    }
}

/// The licence of a distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Licence {
    /// An SPDX expression; none when nothing says one.
    pub expression: Option<String>,
    /// What the metadata says, when that is no SPDX expression.
    pub words: Option<String>,
    /// What told it.
    pub source: LicenceSource,
    /// Licence files in the tree.
    pub files: Vec<String>,
}

impl Licence {
    /// The licence that `metadata` and licence `files` tell; `read` gives a file's text.
    pub(crate) fn of(metadata: &Metadata, files: &[String], read: impl Fn(&str) -> String) -> Self {
        let files = files.to_vec();
        let found = |expression: String, source| Self {
            expression: Some(expression),
            words: None,
            source,
            files: files.clone(),
        };
        if let Some(expression) = &metadata.license_expression
            && Expression::parse(expression).is_some()
        {
            return found(expression.clone(), LicenceSource::Expression);
        }
        let header = metadata.license.as_deref();
        if let Some(id) = header.and_then(spdx::from_words) {
            return found(id, LicenceSource::Header);
        }
        let classifiers = &metadata.license_classifiers;
        let ids: Vec<String> = classifiers
            .iter()
            .filter_map(|words| spdx::from_words(words))
            .collect();
        if !ids.is_empty() && ids.len() == classifiers.len() {
            // Several classifiers do not say whether one may choose; all of them is the safe reading.
            return found(joined(ids), LicenceSource::Classifier);
        }
        let texts: Vec<&str> = header
            .filter(|text| text.len() > 200)
            .and_then(spdx::from_text)
            .into_iter()
            .chain(files.iter().filter_map(|path| spdx::from_text(&read(path))))
            .collect();
        let mut ids: Vec<String> = texts.into_iter().map(str::to_owned).collect();
        ids.sort();
        ids.dedup();
        if !ids.is_empty() {
            return found(joined(ids), LicenceSource::Text);
        }
        let words = metadata
            .license_expression
            .as_deref()
            .or(header)
            .map(|text| text.lines().next().unwrap_or(text).to_owned())
            .or_else(|| (!classifiers.is_empty()).then(|| classifiers.join(", ")));
        Self {
            expression: None,
            words,
            source: LicenceSource::Unknown,
            files,
        }
    }

    /// For people: the expression, else the words, else `unknown`.
    pub fn shown(&self) -> &str {
        self.expression
            .as_deref()
            .or(self.words.as_deref())
            .unwrap_or("unknown")
    }
}

fn joined(ids: Vec<String>) -> String {
    if ids.len() == 1 {
        return ids.concat();
    }
    let bracketed = |id: String| {
        if id.contains(' ') {
            format!("({id})")
        } else {
            id
        }
    };
    ids.into_iter()
        .map(bracketed)
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// Which licences may be shipped (`[tool.pytheas.licences]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LicencePolicy {
    /// SPDX identifiers that may be; any, when empty.
    pub allow: Vec<String>,
    /// SPDX identifiers that may not be.
    pub deny: Vec<String>,
    /// Packages that were looked at by a person and are fine.
    pub except: Vec<String>,
}

impl LicencePolicy {
    /// The entries of the lists that are no identifier we know and that nothing in `licences` has,
    /// each with the nearest one that is: such an entry has no effect, which a slip should not have.
    pub fn unknown(&self, licences: &[&Licence]) -> Vec<(String, Option<&'static str>)> {
        let expressions: Vec<Expression> = licences
            .iter()
            .filter_map(|licence| Expression::parse(licence.expression.as_deref()?))
            .collect();
        let used: Vec<&str> = expressions.iter().flat_map(Expression::ids).collect();
        self.allow
            .iter()
            .chain(&self.deny)
            .filter(|entry| !spdx::is_known(entry) && !used.iter().any(|id| spdx::names(entry, id)))
            .map(|entry| (entry.clone(), spdx::nearest(entry)))
            .collect()
    }

    /// Why `licence` of `package` is refused; none when it is allowed.
    pub fn refusal(&self, package: &str, licence: &Licence) -> Option<String> {
        let is_excepted = self
            .except
            .iter()
            .any(|name| pytheas_project::normalised_name(name) == package);
        if is_excepted || (self.allow.is_empty() && self.deny.is_empty()) {
            return None;
        }
        let Some(text) = &licence.expression else {
            // A licence nobody knows cannot be in a list of allowed ones.
            return (!self.allow.is_empty()).then(|| "its licence is not known".to_owned());
        };
        let Some(expression) = Expression::parse(text) else {
            return Some(format!("`{text}` is no SPDX expression"));
        };
        let is_in = |list: &[String], id: &str| list.iter().any(|entry| spdx::names(entry, id));
        let is_fine =
            |id: &str| !is_in(&self.deny, id) && (self.allow.is_empty() || is_in(&self.allow, id));
        if expression.is_satisfied(&is_fine) {
            return None;
        }
        let wrong: Vec<String> = expression
            .ids()
            .into_iter()
            .filter(|id| !is_fine(id))
            .map(|id| {
                let why = if is_in(&self.deny, id) {
                    "denied"
                } else {
                    "not allowed"
                };
                format!("`{id}` is {why}")
            })
            .collect();
        Some(wrong.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &str, text: &str) -> (String, LicenceSource) {
        let files: Vec<String> = if text.is_empty() {
            Vec::new()
        } else {
            vec!["LICENSE".to_owned()]
        };
        let licence = Licence::of(&Metadata::parse(headers), &files, |_| text.to_owned());
        (licence.shown().to_owned(), licence.source)
    }

    #[test]
    fn the_better_source_wins() {
        use LicenceSource as S;
        let bsd = "Redistribution and use in source and binary forms … Neither the name of X";
        let check = |headers: &str, text: &str, shown: &str, source| {
            assert_eq!(told(headers, text), (shown.to_owned(), source), "{headers}");
        };
        check(
            "License-Expression: MIT\nLicense: BSD",
            bsd,
            "MIT",
            S::Expression,
        );
        check(
            "License: Apache 2.0\nClassifier: License :: OSI Approved :: MIT License",
            "",
            "Apache-2.0",
            S::Header,
        );
        check(
            "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: Apache Software License",
            "",
            "MIT AND Apache-2.0",
            S::Classifier,
        );
        check(
            "License: BSD\nClassifier: License :: OSI Approved :: BSD License",
            bsd,
            "BSD-3-Clause",
            S::Text,
        );
        check("License: Own terms", "Ask us.", "Own terms", S::Unknown);
        check("Name: x", "", "unknown", S::Unknown);
    }

    #[test]
    fn an_entry_that_names_no_licence_is_told_with_the_nearest() {
        let list = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        let policy = LicencePolicy {
            allow: list(&["MIT", "apache2.0", "LicenseRef-Ours", "Rare-1.0"]),
            deny: list(&["GPL-3", "GPL-3.0", "AGPL-3.0-or-later", "Quux"]),
            except: Vec::new(),
        };
        let rare = Licence::of(
            &Metadata::parse("License-Expression: Rare-1.0"),
            &[],
            |_| String::new(),
        );
        assert_eq!(
            policy.unknown(&[&rare]),
            [
                ("apache2.0".to_owned(), Some("Apache-2.0")),
                ("GPL-3".to_owned(), Some("GPL-3.0")),
                ("Quux".to_owned(), None),
            ]
        );
    }

    #[test]
    fn a_policy_allows_what_one_can_keep_to() {
        let policy = |allow: &[&str], deny: &[&str]| LicencePolicy {
            allow: allow.iter().map(ToString::to_string).collect(),
            deny: deny.iter().map(ToString::to_string).collect(),
            except: vec!["Odd_One".to_owned()],
        };
        let licence =
            |headers: &str| Licence::of(&Metadata::parse(headers), &[], |_| String::new());
        let mit_or_gpl = licence("License-Expression: MIT OR GPL-3.0-only");
        let gpl = licence("License-Expression: GPL-3.0-only");
        let unknown = licence("Name: x");
        assert_eq!(policy(&["MIT"], &[]).refusal("a", &mit_or_gpl), None);
        assert_eq!(
            policy(&[], &["GPL-3.0-only"]).refusal("a", &mit_or_gpl),
            None
        );
        assert_eq!(
            policy(&[], &["gpl-3.0-ONLY"]).refusal("a", &gpl).as_deref(),
            Some("`GPL-3.0-only` is denied")
        );
        assert_eq!(
            policy(&["MIT"], &[]).refusal("a", &gpl).as_deref(),
            Some("`GPL-3.0-only` is not allowed")
        );
        assert_eq!(
            policy(&["MIT"], &[]).refusal("a", &unknown).as_deref(),
            Some("its licence is not known")
        );
        assert_eq!(policy(&[], &["MIT"]).refusal("a", &unknown), None);
        assert_eq!(policy(&["MIT"], &[]).refusal("odd-one", &gpl), None);
    }
}
